//! One private database server for all processes of a program: each test process would else start its own.
//! How a server is found and started is left to `longhaul-test-postgres`.

use std::cell::OnceCell;
use std::path::Path;

use longhaul_test_postgres::{Server, Settings, URL_VARIABLE};

use crate::process::Program;

/// Runs a program with a server, which ends with it.
///
/// # Errors
/// When there is no server, or the program does not succeed.
pub(crate) fn run(root: &Path, program: &[String]) -> Result<(), String> {
    Shared::default().beside(root, &Program::of(program))
}

/// A server for several programs, started when the first of them needs it.
#[derive(Default)]
pub(crate) struct Shared(OnceCell<Server>);

impl Shared {
    /// Runs a program with the server named in the environment, or with this one.
    ///
    /// # Errors
    /// When there is no server, or the program does not succeed.
    #[expect(clippy::disallowed_methods, reason = "a server that is named is used")]
    pub(crate) fn beside(&self, root: &Path, program: &Program) -> Result<(), String> {
        if std::env::var_os(URL_VARIABLE).is_some() {
            return program.run(root);
        }
        let url = self.url()?;
        let result = program.clone().variable(URL_VARIABLE, url.as_str()).run(root);
        // The server ends with us: its URL helps nobody who wants to repeat the program.
        result.map_err(|problem| problem.replace(&format!("{URL_VARIABLE}={url} "), ""))
    }

    fn url(&self) -> Result<String, String> {
        if let Some(server) = self.0.get() {
            return Ok(server.url());
        }
        let server = Server::start(&Settings::default())?;
        Ok(self.0.get_or_init(|| server).url())
    }
}
