//! Which store is used by tests that run on every store, and which of them are left out. What they test is
//! left to them.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The variable that chooses the store of tests that run on every store: `sqlite` (the default) or `postgres`.
pub const STORE_VARIABLE: &str = "LONGHAUL_TEST_STORE";

/// The variable that names a file to which each test that is left out adds a line: its name and why.
pub const LEFT_OUT_VARIABLE: &str = "LONGHAUL_TEST_LEFT_OUT";

/// Tells whether tests that run on every store now run on Postgres.
///
/// # Panics
/// When the variable names no store: what it was meant to choose would go untested.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a choice of whoever starts the tests")]
pub fn is_chosen() -> bool {
    let chosen = std::env::var(STORE_VARIABLE).unwrap_or_else(|_| "sqlite".to_owned());
    assert!(["sqlite", "postgres"].contains(&chosen.as_str()), "{STORE_VARIABLE} is sqlite or postgres");
    chosen == "postgres"
}

/// Tells whether the test of this thread ends here, because it is about SQLite alone, and records it with the
/// reason.
///
/// # Panics
/// When it cannot be recorded: nothing is left out in silence.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a choice of whoever starts the tests")]
#[expect(clippy::print_stdout, reason = "it is the output of a test")]
pub fn leaves_out(reason: &str) -> bool {
    if !is_chosen() {
        return false;
    }
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test without a name"));
    print!("left out on Postgres: {line}");
    if let Some(path) = std::env::var_os(LEFT_OUT_VARIABLE) {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the file that tells what is left out can be written");
    }
    true
}
