//! What tools promise, by behaviour.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod bash;
mod context_files;
mod files;
mod guarded;
mod output;
mod scope;
mod search;
mod toolbox;
mod tracker;
mod world;
