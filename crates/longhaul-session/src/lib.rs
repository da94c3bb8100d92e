//! The session machine: a session is an append-only log, and the log's length is its version.
//!
//! All rules live in three pure functions. [`decide::decide`] says what a command does in a state, or why
//! it may not; [`evolve::evolve`] folds a record into the state; [`owed::owed`] derives what a worker owes
//! a session next. Time, ids and chance come in as arguments. There is no I/O, no clock and no async here:
//! stores hold the bytes, and the engine does the work.

pub mod agent;
pub mod bound;
pub mod command;
pub mod context;
pub mod decide;
pub mod entry;
pub mod evolve;
pub mod failure;
mod gist;
pub mod goal;
pub mod id;
pub mod item;
pub mod ledger;
pub mod log;
pub mod media;
pub mod owed;
pub mod prices;
pub mod prompts;
pub mod state;
pub mod steering;
pub mod usage;
