//! All limits of the simulator, in one place.

/// Calls of the store, models and tools in one run.
pub(crate) const MAX_STEPS: u64 = 60_000;
/// The same in a scenario, some of which last for hours.
pub(crate) const MAX_STEPS_OF_SCENARIO: u64 = 2_000_000;
/// How long a scenario may take to come to rest, in milliseconds of its own time.
pub(crate) const SCENARIO_WITHIN_MS: u64 = 4 * 60 * 60 * 1_000;
/// Characters of one line of the log.
pub(crate) const MAX_LINE_CHARS: usize = 400;
/// How long a run may take to come to rest once its troubles are over, in milliseconds of its own time.
pub(crate) const REST_WITHIN_MS: u64 = 20 * 60 * 1_000;
/// How long a person waits for a turn before they stop it, once the troubles are over, in milliseconds.
pub(crate) const PATIENCE_MS: u64 = 45_000;
/// Hints that wait for a slow listener.
pub(crate) const HINTS_KEPT: usize = 64;
/// Forks of forks.
pub(crate) const MAX_FORK_DEPTH: u32 = 256;
/// The most bytes a stored state may have.
pub(crate) const MAX_STATE_BYTES: usize = 64 * 1024;
/// How long an owner lives without a renewal, in milliseconds.
pub(crate) const LEASE_MS: u64 = 15_000;
/// How often a worker renews, in milliseconds.
pub(crate) const RENEW_EVERY_MS: u64 = 5_000;
/// How long before its lease ends a runner stops itself, in milliseconds.
pub(crate) const MARGIN_MS: u64 = 3_000;
/// Compactions that may fail in a row before only people ask for them.
pub(crate) const MAX_COMPACTION_FAILURES: u32 = 3;
