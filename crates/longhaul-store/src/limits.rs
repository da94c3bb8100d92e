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

/// Appends of one statement to a server. More would make the first of them wait for the last.
pub(crate) const APPENDS_TOGETHER: usize = 128;

/// Hints of one notification by a server: it must stay below 8,000 bytes.
pub(crate) const HINTS_TOGETHER: usize = 128;

/// Bytes of entries and states after which a statement takes no further append.
pub(crate) const APPEND_BYTES_TOGETHER: usize = 4 * 1024 * 1024;

/// Connections to a server for everything but plain appends and hints.
pub(crate) const CONNECTIONS: usize = 4;

/// Tries of a call whose connection was lost or that the database took back.
pub(crate) const TRIES: u32 = 5;

/// The wait before the second try, doubled for each further one, in milliseconds.
pub(crate) const TRY_WAIT_MS: u64 = 25;

/// The longest wait before the connection for hints is made again, in milliseconds.
pub(crate) const LISTEN_WAIT_MS: u64 = 5_000;

/// How long a connection may take to be made, in seconds.
pub(crate) const CONNECT_TIMEOUT_S: u64 = 10;

/// How long a connection may be silent before the system asks whether the other side lives, in seconds.
pub(crate) const KEEPALIVE_S: u64 = 15;

/// How long what was sent may stay unacknowledged before the connection counts as lost, in seconds.
pub(crate) const UNACKNOWLEDGED_S: u64 = 15;

/// How long a migration waits for another process's, in seconds.
pub(crate) const MIGRATION_LOCK_S: u64 = 60;

/// How long an owner counts as alive without a renewal, in milliseconds.
pub(crate) const LEASE_MS: u64 = 15_000;

/// The leases a URL may ask for, in milliseconds: the shortest still leaves time for a slow answer, and after
/// the longest nobody would wait any more.
pub(crate) const LEASES_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// How often a server is asked for growth that no notification told of, in milliseconds.
pub(crate) const POLL_EVERY_MS: u64 = 1_000;

/// How often others are notified of growth at most, in milliseconds.
pub(crate) const NOTIFY_EVERY_MS: u64 = 10;
