//! What an error of Postgres means: the one place that looks at its codes.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::{DbError, SqlState};

use crate::Error;

/// Why a call of the database did not succeed, and what may be known of it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// For the caller, when it is not tried again.
    pub(super) error: Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing was written, and trying again would end alike.
    Final,
    /// Nothing was written; the database asks to try again.
    Again,
    /// The connection has gone: what was under way may be written, now or in a moment.
    Lost,
}

/// What connecting and statements fail with.
pub(super) type Answer<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault { kind: Kind::Final, error }
    }
}

/// Says why no connection was made.
pub(super) fn of_connecting(database: &str, error: &tokio_postgres::Error) -> Fault {
    let database = database.to_owned();
    if let Some(said) = error.as_db_error() {
        return of_code(database, said);
    }
    let mut detail = told(error);
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let inner = cause.and_then(io::Error::get_ref);
    let in_tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if in_tls.is_some_and(is_distrust) {
        detail.push_str("; name the certificate to trust with sslrootcert");
    }
    if error.is_closed() || (cause.is_some() && in_tls.is_none()) {
        return Fault { kind: Kind::Lost, error: Error::Unreachable { database, detail } };
    }
    // What is left are signing on, TLS, and what the URL lacks.
    Error::Refused { database, detail }.into()
}

/// Tells whether a certificate is not trusted, though it is one for the host.
fn is_distrust(error: &rustls::Error) -> bool {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
    let rustls::Error::InvalidCertificate(why) = error else { return false };
    !matches!(why, NotValidForName | NotValidForNameContext { .. })
}

/// Says why a statement failed. `ended` is what the connection ended with, if it has.
pub(super) fn of_statement(database: &str, error: &tokio_postgres::Error, ended: Option<&str>) -> Fault {
    let database = database.to_owned();
    if let Some(said) = error.as_db_error() {
        return of_code(database, said);
    }
    let broken = error.source().is_some_and(|cause| cause.is::<io::Error>());
    if error.is_closed() || broken || ended.is_some() {
        let detail = ended.map_or_else(|| told(error), str::to_owned);
        return Fault { kind: Kind::Lost, error: Error::Unreachable { database, detail } };
    }
    Error::Database { database, detail: told(error) }.into()
}

fn of_code(database: String, said: &DbError) -> Fault {
    let mut detail = said.message().to_owned();
    let code = said.code();
    if *code == SqlState::TOO_MANY_CONNECTIONS {
        detail.push_str("; raise its limit of connections, or start fewer workers");
    }
    let again = [
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        // Another has just removed, or begun to use, what this one was about to use or remove.
        &SqlState::FOREIGN_KEY_VIOLATION,
    ];
    if again.contains(&code) {
        return Fault { kind: Kind::Again, error: Error::Contended { database, detail } };
    }
    let lost = [
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::TOO_MANY_CONNECTIONS,
    ];
    // 08: connection exceptions. 57P05: a session that was idle for too long.
    if lost.contains(&code) || code.code().starts_with("08") || code.code() == "57P05" {
        return Fault { kind: Kind::Lost, error: Error::Unreachable { database, detail } };
    }
    of_refusal(database, code, detail).into()
}

/// Says what a statement that the database understood and did not do was refused for.
fn of_refusal(database: String, code: &SqlState, detail: String) -> Error {
    let passing = [&SqlState::QUERY_CANCELED, &SqlState::LOCK_NOT_AVAILABLE];
    let full = [&SqlState::DISK_FULL];
    let refused = [
        &SqlState::INVALID_CATALOG_NAME,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        &SqlState::READ_ONLY_SQL_TRANSACTION,
        &SqlState::INVALID_SCHEMA_NAME,
    ];
    let unwritable = [&SqlState::CHARACTER_NOT_IN_REPERTOIRE, &SqlState::UNTRANSLATABLE_CHARACTER];
    if passing.contains(&code) {
        Error::Contended { database, detail }
    } else if full.contains(&code) {
        Error::Full { database, detail }
    // 28: signing on.
    } else if refused.contains(&code) || code.code().starts_with("28") {
        Error::Refused { database, detail }
    } else if unwritable.contains(&code) {
        Error::Invalid { reason: format!("{database} cannot hold one of its texts: {detail}") }
    // XX001 and XX002: the server found its own files damaged.
    } else if ["XX001", "XX002"].contains(&code.code()) {
        Error::Damaged { database, detail }
    } else {
        Error::Database { database, detail: format!("{detail} [{}]", code.code()) }
    }
}

/// Writes an error with its cause: by itself it only says where it happened.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}
