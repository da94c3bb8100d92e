//! A Postgres for tests: finds or starts a server, and makes a database for each test. What is tested on
//! it is left to the tests.
//!
//! With [`URL_VARIABLE`] set, that server is used. Otherwise the first test of a process starts a private one
//! from the installed binaries, which ends with the process; `cargo xtask postgres -- <command>` starts one
//! for all processes of a command. [`STORE_VARIABLE`] lets tests that run on every store run on it.

mod choice;
mod database;
mod programs;
mod server;

pub use choice::{LEFT_OUT_VARIABLE, STORE_VARIABLE, is_chosen, leaves_out};
pub use database::Database;
pub use server::{Server, Settings};

/// The variable that names a server to use: a URL whose user may create databases.
pub const URL_VARIABLE: &str = "LONGHAUL_TEST_POSTGRES_URL";
