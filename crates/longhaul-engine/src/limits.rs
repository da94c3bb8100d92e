//! All limits of the engine, in one place.

/// The largest file that can be given with a message, in bytes: providers take no larger requests.
pub const MAX_ATTACHMENT_BYTES: u64 = 20 * 1024 * 1024;
/// The bytes of files of one request. Providers take less; what is over it would only cost memory.
pub(crate) const MAX_REQUEST_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// How often a writer that loses the compare-and-swap decides again before it gives up.
pub(crate) const MAX_LOST_RACES: u32 = 1_000;
/// Calls of one step that run at the same time.
pub(crate) const MAX_PARALLEL_CALLS: usize = 8;
/// How long a finished `once` result waits for the rest of its batch before it is committed alone.
pub(crate) const LONE_RESULT_MS: u64 = 2_000;
/// Characters of what a model may note about its goal.
pub(crate) const MAX_NOTE_CHARS: usize = 2_000;
/// Protected files that are named when they have changed.
pub(crate) const MAX_CHANGES_TOLD: usize = 20;
/// How long a cancelled effect has to end before it is abandoned.
pub(crate) const REAP_MS: u64 = 10_000;
/// How long a provider has to end an answer that nobody waits for any more.
pub(crate) const CANCEL_RESPONSE_MS: u64 = 3_000;
/// How long a worker that shuts down lets running calls finish.
pub(crate) const SHUTDOWN_GRACE_MS: u64 = 5_000;
/// How often a worker looks for work that no hint told it of.
pub(crate) const POLL_MS: u64 = 1_000;
/// The shortest time between two looks for work, however many hints come.
pub(crate) const LOOK_EVERY_MS: u64 = 10;
/// Renewals tried, after one has failed, in the time from one to the next.
pub(crate) const RENEWAL_TRIES: u64 = 10;
/// The longest pause before a session is driven again after an error.
pub(crate) const LONGEST_PAUSE_MS: u64 = 60_000;
/// Sessions claimed in one look.
pub(crate) const CLAIM_BATCH: usize = 16;
/// Bytes of live parts kept of one attempt.
pub(crate) const EPISODE_BYTES: usize = 1 << 20;
/// Attempts of a session whose live parts are kept.
pub(crate) const EPISODES_KEPT: usize = 4;
/// How long the parts of a closed attempt are kept.
pub(crate) const EPISODE_KEPT_MS: u64 = 15_000;
/// Entries read at once by a reader that catches up.
pub(crate) const READ_BATCH: u64 = 500;
/// Tries of what a session needs before it can run, and the first wait between them.
pub(crate) const PREPARE_TRIES: u32 = 3;
/// The wait before the second try of preparing, doubled for each further one.
pub(crate) const PREPARE_WAIT_MS: u64 = 200;
/// Tries of a store call that failed for a passing reason, for somebody who waits for the answer. A worker
/// goes on trying.
pub(crate) const STORE_TRIES: u32 = 5;
/// Tries for a reader of a session: it bears a database that restarts.
pub(crate) const STORE_READER_TRIES: u32 = 60;
/// The wait before a store call is tried again, doubled for each further one.
pub(crate) const STORE_WAIT_MS: u64 = 50;
/// The longest wait before a store call is tried again.
pub(crate) const STORE_LONGEST_WAIT_MS: u64 = 2_000;
/// Lines of a tool's live output that wait for a slow episode before lines are dropped.
pub(crate) const PROGRESS_LINES: usize = 256;
/// Rounds in which what is owed could not be done and nothing changed, before a runner gives up.
pub(crate) const MAX_IDLE_ROUNDS: u32 = 3;
/// Parts of an answer that are handed over together, if they arrived together.
pub(crate) const PARTS_TOGETHER: usize = 64;
/// Such hand-overs that wait for a busy runner before the provider waits.
pub(crate) const PARTS_WAITING: usize = 16;
/// Files that a summary is told were touched last.
pub(crate) const FILES_NAMED: usize = 20;
