//! The demo's small project: a function with a bug, and a test that shows it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::environment;

/// A laid-out demo.
pub(crate) struct Project {
    /// Where the agent works.
    pub(crate) directory: PathBuf,
    /// Where the session is kept.
    pub(crate) home: PathBuf,
    /// Where it stands what the scripted model says.
    pub(crate) script: PathBuf,
    answers: String,
    /// What the agent is asked.
    pub(crate) message: &'static str,
    /// What the project is written in.
    pub(crate) language: &'static str,
}

const MEDIAN_PY: &str = "\
def median(numbers):
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    return ordered[middle]
";
const TEST_MEDIAN_PY: &str = "\
import unittest

from median import median


class MedianTest(unittest.TestCase):
    def test_odd_count(self):
        self.assertEqual(median([3, 1, 2]), 2)

    def test_even_count(self):
        self.assertEqual(median([4, 1, 3, 2]), 2.5)


if __name__ == \"__main__\":
    unittest.main()
";
const SUM_SH: &str = "\
total=0
for number in \"$@\"; do
    total=$((total - number))
done
echo \"$total\"
";
const TEST_SH: &str = "\
got=$(sh sum.sh 1 2 3)
if [ \"$got\" = 6 ]; then
    echo \"ok\"
else
    echo \"FAILED: the sum of 1 2 3 is $got, and should be 6\"
    exit 1
fi
";
/// The end of the first answer's lines, and a further one: it hangs after so many characters.
const FIRST_ANSWER: &str = "delay_ms = 12\n";
const HANGS: &str = "fail = { hang = true, after_chars = 48 }\n";
/// Leaves a line for every time it is begun, and takes long enough to be killed in the middle, also on a machine
/// that has much else to do.
const RELEASE_SH: &str = "\
echo \"release begun\" >> release.log
echo \"uploading\"
sleep 60
echo \"release finished\" >> release.log
";

/// Lays out the demo in a directory that does not exist yet.
pub(crate) fn lay_out(root: &Path, crash: bool) -> anyhow::Result<Project> {
    let python = environment::has_program("python3");
    let (directory, script) = (root.join("project"), root.join("script.toml"));
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("the demo's directory {} cannot be made", directory.display()))?;
    let (files, steps, language): (&[(&str, &str)], _, _) = if python {
        (
            &[("median.py", MEDIAN_PY), ("test_median.py", TEST_MEDIAN_PY)],
            include_str!("python.toml"),
            "python3",
        )
    } else {
        (&[("sum.sh", SUM_SH), ("test.sh", TEST_SH)], include_str!("sh.toml"), "sh")
    };
    let rest = if crash { include_str!("release.toml") } else { include_str!("finish.toml") };
    for (name, text) in files {
        write(&directory.join(name), text)?;
    }
    if crash {
        write(&directory.join("release.sh"), RELEASE_SH)?;
    }
    let message = if crash {
        "A test fails. Find out why, mend the code, and release it."
    } else {
        "A test fails. Find out why and mend the code."
    };
    let (home, answers) = (root.join("home"), format!("{steps}{rest}"));
    let project = Project { directory, home, script, answers, message, language };
    project.lay_out_answers(crash)?;
    Ok(project)
}

impl Project {
    /// Lays out what the model says. It may hang in the middle of its first answer: then that is where its worker
    /// is killed, however late.
    pub(crate) fn lay_out_answers(&self, first_hangs: bool) -> anyhow::Result<()> {
        let hanging = || self.answers.replacen(FIRST_ANSWER, &format!("{FIRST_ANSWER}{HANGS}"), 1);
        write(&self.script, &if first_hangs { hanging() } else { self.answers.clone() })
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
