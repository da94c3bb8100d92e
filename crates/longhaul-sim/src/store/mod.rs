//! The simulated store: tables in memory behind a faulty connection of each process.

mod connection;
mod tables;

pub use connection::SimStore;
pub(crate) use connection::short;
pub(crate) use tables::Disk;
