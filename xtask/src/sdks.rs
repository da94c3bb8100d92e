//! The vendors' own libraries against our decoders: both read every hand-written case from a server on this
//! machine, and must come to the same. How they read and what is compared stands in `xtask/sdks`; this prepares
//! what that needs, in `target/sdks`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Program;

/// Runs a Python that can do what is needed here.
const PROBE: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";
const PYTHONS: [&str; 2] = ["python3", "python"];

/// Reads all cases both ways.
///
/// # Errors
/// When the two differ in a way that is not listed, or something that is needed is missing.
pub(crate) fn run(root: &Path, cases: &[String]) -> Result<(), String> {
    let python = prepare(root)?;
    Program::new("cargo build --quiet --locked -p longhaul-model --example decode").run(root)?;
    let words = [
        &*python.to_string_lossy(),
        "-W",
        "ignore",
        "xtask/sdks/compare.py",
        "target/debug/examples/decode",
        "crates/longhaul-model/tests/cases",
        "xtask/sdks/differences.toml",
    ];
    let words: Vec<String> = words.into_iter().map(str::to_owned).chain(cases.iter().cloned()).collect();
    Program::of(&words).variable("PYTHONDONTWRITEBYTECODE", "1").run(root)
}

/// Installs the libraries, unless these very ones are, and returns the Python that has them.
fn prepare(root: &Path) -> Result<PathBuf, String> {
    let wanted = root.join("xtask/sdks/requirements.txt");
    let wanted =
        fs::read_to_string(&wanted).map_err(|error| format!("cannot read {}: {error}", wanted.display()))?;
    let folder = root.join("target/sdks");
    let (installed, python) = (folder.join("installed.txt"), folder.join("bin/python"));
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let maker = PYTHONS.into_iter().find(|name| python_with(name, PROBE).works(root)).ok_or(
        "there is no Python 3.11 or newer with venv. On Debian: apt-get install python3 python3-venv",
    )?;
    println!("installing the vendors' libraries into {}", folder.display());
    Program::new(&format!("{maker} -m venv --clear target/sdks")).run(root)?;
    let install = "target/sdks/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
                   --only-binary :all: -r xtask/sdks/requirements.txt";
    Program::new(install).run(root).map_err(|problem| {
        format!(
            "{problem}. The libraries come from the Python package index: without a way there, this check \
             cannot run"
        )
    })?;
    fs::write(&installed, wanted)
        .map_err(|error| format!("cannot write {}: {error}", installed.display()))?;
    Ok(python)
}

fn python_with(name: &str, code: &str) -> Program {
    Program::of(&[name, "-c", code].map(str::to_owned))
}
