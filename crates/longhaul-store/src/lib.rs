//! Keeps sessions and their logs: the [`Store`] trait, its conformance suite, SQLite and Postgres.
//!
//! A store holds bytes and compares numbers. It knows no rule of a session, reads no clock and
//! opens no record: what an entry means, who may write it and when is decided above.

pub mod check;
pub mod conformance;
mod error;
mod limits;
mod payload;
pub mod postgres;
mod row;
pub mod sqlite;
mod store;

pub use error::Error;
pub use postgres::PostgresStore;
pub use row::{Cursor, Filter, Page, Parent, RequestId, RequestIdError, Row, WorkerInfo};
pub use sqlite::SqliteStore;
pub use store::{Announced, Append, Appended, Deleted, Hint, Lease, Store};
