//! A seeded world for tests: the real engine over virtual time, on a store that fails, with models and
//! tools that misbehave, workers that crash and stall, and people who do everything at any time.
//!
//! One seed is one run, the same each time, byte for byte. While it runs every commit is checked against
//! the invariants of the session machine; then the troubles end and the run must come to rest. Scripted long
//! runs, the scenarios, are played in the same worlds and must end by themselves while the troubles last. What the
//! store's contract says is left to its conformance suite, which the simulated store passes too.

mod chance;
mod engine_log;
mod final_check;
mod limits;
mod many;
mod model;
mod oracle;
mod plan;
mod process;
mod run;
mod scenario;
mod store;
mod tools;
mod truth;
mod users;
mod watchers;
mod workers;
mod world;

pub use many::{Summary, expected, play_many, run_many};
pub use plan::Flaw;
pub use run::{Outcome, play, run};
pub use scenario::{SCENARIOS, Scenario};
pub use store::SimStore;
pub use world::{Broken, Coverage};
