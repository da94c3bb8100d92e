//! Every limit of this crate, in one place.

/// The largest answer, in bytes of text, arguments and opaque values. Far above what any model
/// writes; a provider that streams on without end must not fill the memory.
pub(crate) const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// What a tool call or an opaque item counts towards the limit beyond its bytes, so that a stream
/// of empty ones is bounded too.
pub(crate) const ITEM_BYTES: usize = 64;

/// The largest script file, in bytes.
pub(crate) const MAX_SCRIPT_BYTES: u64 = 16 * 1024 * 1024;
