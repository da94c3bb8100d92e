//! What the engine promises, by behaviour.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod approvals;
mod attachments;
mod attempts;
mod compaction;
mod crash_actors;
mod crash_matrix;
mod crash_stage;
mod crashes;
mod faults;
mod forks;
mod goal_tools;
mod goals;
mod hard_budgets;
mod interrupts;
mod kept;
mod leases;
mod ledger;
mod long;
mod losses;
mod masking;
mod parallel;
mod prefix;
mod puppet;
mod retries;
mod round_trips;
mod service;
mod shutdown;
mod surroundings;
mod turns;
mod watching;
mod wire;
mod world;
