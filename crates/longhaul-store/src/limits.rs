//! All limits of this crate. Everything that can grow has one.

/// Contents longer than this are compressed, in bytes.
pub(crate) const COMPRESS_OVER_BYTES: usize = 64 * 1024;

/// Contents longer than this are kept apart, under the digest of their bytes.
pub(crate) const ARTIFACT_OVER_BYTES: usize = 1024 * 1024;

/// The longest content or artifact. SQLite could hold three times as much; a machine that reads
/// it back needs it in memory more than once.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 256 * 1024 * 1024;

/// Forks of forks of forks. Reading the first entry of the last one visits each of them.
pub(crate) const MAX_FORK_DEPTH: u32 = 256;

/// Rows of one page or of one look for work.
pub(crate) const MAX_ROWS: usize = 1_000;

/// The longest request id, in characters.
pub(crate) const MAX_REQUEST_ID_CHARS: usize = 128;

/// Hints a listener may leave unread before it loses the oldest.
pub(crate) const HINTS_KEPT: usize = 1_024;

/// Writes that wait for the writer before their callers wait for room.
pub(crate) const WRITES_WAITING: usize = 1_024;

/// Writes committed together. More would make the first of them wait for the last.
pub(crate) const WRITES_TOGETHER: usize = 256;

/// Connections that read.
pub(crate) const READERS: usize = 4;

/// Prepared statements kept by a connection.
pub(crate) const STATEMENTS_KEPT: usize = 64;

/// How long a statement waits for another process to finish writing, in milliseconds.
pub(crate) const BUSY_TIMEOUT_MS: u64 = 5_000;

/// How often a file is looked at for what other processes wrote, while somebody listens, in milliseconds.
pub(crate) const WATCH_EVERY_MS: u64 = 50;

/// Tries to switch a new file to write-ahead logging while other processes open it too.
pub(crate) const WAL_TRIES: u32 = 20;

/// Above this size the write-ahead log is cut back once its contents are in the database, in bytes.
pub(crate) const WAL_KEPT_BYTES: u64 = 64 * 1024 * 1024;
