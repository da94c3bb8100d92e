//! One private database server for all processes of a program: each test process would else start its own.
//! How a server is found and started is left to `longhaul-test-postgres`.

use std::path::Path;

use longhaul_test_postgres::{Server, Settings, URL_VARIABLE};

use crate::process::Program;

/// Runs a program with a server, which ends with it.
///
/// # Errors
/// When there is no server, or the program does not succeed.
pub(crate) fn run(root: &Path, program: &[String]) -> Result<(), String> {
    beside(root, &Program::of(program))
}

/// Runs a program with the server named in the environment, or with one of its own.
///
/// # Errors
/// When there is no server, or the program does not succeed.
#[expect(clippy::disallowed_methods, reason = "a server that is named is used")]
pub(crate) fn beside(root: &Path, program: &Program) -> Result<(), String> {
    if std::env::var_os(URL_VARIABLE).is_some() {
        return program.run(root);
    }
    let server = Server::start(&Settings::default())?;
    let result = program.clone().variable(URL_VARIABLE, server.url()).run(root);
    // The server ends here: its URL helps nobody who wants to repeat the program.
    result.map_err(|problem| problem.replace(&format!("{URL_VARIABLE}={} ", server.url()), ""))
}
