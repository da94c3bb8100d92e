//! Every bound of this crate, in one place. Sizes are in bytes.

use std::time::Duration;

/// The longest text one call gives the model, unless its tool is set otherwise.
pub const MAX_OUTPUT_BYTES: usize = 32 * 1024;

/// The longest whole output that is kept beside a text that was cut.
pub const MAX_WHOLE_BYTES: usize = 4 * 1024 * 1024;

/// How long one call may take, unless its tool is set otherwise.
pub const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);

/// How long a cancelled tool has to end before it is abandoned, unless it asks for longer.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// Faults of one call's arguments that are told to the model.
pub(crate) const MAX_FAULTS: usize = 5;

/// The longest description of one such fault.
pub(crate) const MAX_FAULT_BYTES: usize = 300;

/// The largest file that `read`, `write` and `edit` take.
pub const MAX_FILE_BYTES: usize = 32 * 1024 * 1024;

/// What is shown of one context file.
pub const MAX_CONTEXT_FILE_BYTES: usize = 32 * 1024;

/// What is shown of all context files together, besides the list of skills.
pub const MAX_CONTEXT_BYTES: usize = 64 * 1024;

/// The largest file that is looked at as a context file or a skill; a larger one is passed over.
pub const MAX_CONTEXT_SOURCE_BYTES: u64 = 1024 * 1024;

/// Folders up the tree in which a repository's root and context files are looked for.
pub(crate) const MAX_CONTEXT_FOLDERS: usize = 64;

/// Skills that are listed.
pub const MAX_SKILLS: usize = 100;

/// Entries of one folder of skills that are looked at.
pub(crate) const MAX_SKILL_FOLDERS: usize = 1_000;

/// The longest name of a skill; one with a longer name is passed over.
pub const MAX_SKILL_NAME_CHARS: usize = 64;

/// What is shown of a skill's description.
pub const MAX_SKILL_DESCRIPTION_CHARS: usize = 1_024;

/// Lines one `read` returns.
pub(crate) const MAX_READ_LINES: usize = 2_000;

/// The longest line `read` and `grep` show; the rest of it is left out.
pub(crate) const MAX_LINE_BYTES: usize = 2_000;

/// Files whose content is remembered as seen; beyond it the oldest are forgotten and must be read again.
pub const MAX_TRACKED_FILES: usize = 4_096;

/// The longest diff `edit` shows.
pub(crate) const MAX_DIFF_BYTES: usize = 4 * 1024;

/// How long a diff is worked on: after it, it becomes coarser, but not wrong.
pub(crate) const DIFF_LIMIT: Duration = Duration::from_millis(200);

/// Paths one `glob` returns.
pub(crate) const MAX_GLOB_PATHS: usize = 1_000;

/// Lines, or paths, one `grep` returns.
pub(crate) const MAX_GREP_LINES: usize = 1_000;

/// Lines of context around a match that `grep` may be asked for.
pub(crate) const MAX_GREP_CONTEXT: usize = 50;

/// The largest compiled regular expression of `grep`.
pub(crate) const MAX_REGEX_BYTES: usize = 4 * 1024 * 1024;

/// The longest line `grep` searches: a longer one ends the search of its file.
pub(crate) const MAX_SEARCH_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Directory entries one `glob` or `grep` visits.
pub(crate) const MAX_WALK_ENTRIES: usize = 500_000;

/// Output of one command that is kept: half from its beginning, half from its end.
pub const MAX_COMMAND_BYTES: usize = 1024 * 1024;

/// The longest live line; a longer one is passed on in pieces.
pub(crate) const MAX_LIVE_LINE_BYTES: usize = 4 * 1024;

/// How long a command may take when the call does not say.
pub(crate) const COMMAND_TIME_LIMIT: Duration = Duration::from_secs(120);

/// Output of one check of a goal that is shown: half from its beginning, half from its end.
pub(crate) const MAX_CHECK_OUTPUT_BYTES: usize = 8 * 1024;

/// Files that one goal may protect.
pub const MAX_GUARDED_FILES: usize = 2_000;

/// From TERM to KILL, for a process group that is to end.
pub(crate) const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long to wait for a killed process to be reaped, and for the last of its output.
pub(crate) const REAP_GRACE: Duration = Duration::from_secs(1);

/// How long the output pipe of a command that has ended may stay silent before it is closed:
/// a process that left the group may hold it open for ever.
pub(crate) const DRAIN_SILENCE: Duration = Duration::from_millis(50);

/// How often a process group that was told to end is asked whether it still exists.
pub(crate) const GROUP_POLL: Duration = Duration::from_millis(10);
