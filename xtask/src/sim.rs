//! Runs the simulator. The simulator itself is `longhaul-sim`; this only builds it with optimisation and
//! starts it.

use std::path::Path;

use crate::process::Program;

/// Runs the simulator with arguments of its own.
///
/// # Errors
/// When it finds a counterexample or cannot be built.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<(), String> {
    let arguments = arguments.join(" ");
    Program::new(&format!("cargo run --quiet --release --locked -p longhaul-sim -- {arguments}")).run(root)
}
