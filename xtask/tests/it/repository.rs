//! A repository of one small crate in a temporary directory, and calls of `xtask` in it.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

const RULES: &str = r#"
max_file_lines = 800
max_function_lines = 70
banned_names = ["utils"]
database_free = ["small"]
database_words = ["oracle"]
roots = ["crates", "docs"]
cargo_commands = ["test"]
[edges]
small = []
other = []
[[forbidden]]
pattern = "secret <n>"
reason = "nobody may know"
"#;

const SOURCE: &str = "\
//! A sum.

/// Adds.
pub fn sum(a: u8, b: u8) -> u8 {
    a + b
}

/// Says nothing that any test asks for.
pub fn idle() -> u8 {
    1
}
";

const TESTS: &str = "\
//! The tests of the sum.

#[test]
fn one_and_two_are_three() {
    let sum = small::sum(1, 2);
    assert!(sum == 3, \"COUNTEREXAMPLE: Sum: 1 + 2 gave {sum}\");
}
";

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

pub(crate) struct Repository {
    folder: TempDir,
}

impl Repository {
    /// A repository with which nothing is wrong.
    pub(crate) fn new() -> Self {
        let repository = Repository { folder: TempDir::new().expect("a temporary directory") };
        let manifest =
            |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        let lock = "version = 4\n\n[[package]]\nname = \"small\"\nversion = \"0.1.0\"\n";
        repository.write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n");
        repository.write("Cargo.lock", lock);
        repository.write("crates/small/Cargo.toml", &manifest("small"));
        repository.write("crates/small/src/lib.rs", SOURCE);
        repository.write("crates/small/tests/it/main.rs", TESTS);
        repository.write("xtask/tidy.toml", RULES);
        repository.write("README.md", "Read `crates/small/src/lib.rs`, then run `cargo test`.\n");
        repository
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().expect("files have folders")).expect("a new folder");
        fs::write(path, text).expect("a written file");
    }

    pub(crate) fn append(&self, file: &str, text: &str) {
        let before = self.read(file);
        self.write(file, &(before + text));
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).expect("a file to read")
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.folder.path().join(file)).expect("a file to remove");
    }

    /// Calls `cargo xtask` with these words, as the alias would.
    pub(crate) fn xtask(&self, words: &[&str]) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(words)
            .current_dir(self.folder.path())
            .output()
            .expect("the program starts");
        Outcome {
            code: output.status.code(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
