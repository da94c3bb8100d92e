//! What a model may do: the [`tool::Tool`] trait, the tools that come with Longhaul, the
//! [`scope::Scope`] that says which paths they may touch, and the [`toolbox::Toolbox`] that turns
//! every call into a result.
//!
//! This crate runs one call. When a call is owed, whether it may run again and how its result is
//! kept are decided elsewhere.

mod builtin;
pub mod check;
pub mod context_files;
mod files;
mod guard;
pub mod guarded;
pub mod limits;
pub mod output;
mod process;
pub mod scope;
mod skills;
pub mod tool;
pub mod toolbox;
pub mod tracker;
pub mod workspace;

pub use process::is_secret;
