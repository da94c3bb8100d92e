//! Every limit of this crate, in one place.

/// The largest answer, in bytes of text, arguments and opaque values. Far above what any model
/// writes; a provider that streams on without end must not fill the memory.
pub(crate) const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// What a tool call or an opaque item counts towards the limit beyond its bytes, so that a stream
/// of empty ones is bounded too.
pub(crate) const ITEM_BYTES: usize = 64;

/// The largest script file, in bytes.
pub(crate) const MAX_SCRIPT_BYTES: u64 = 16 * 1024 * 1024;

/// The largest event of a stream, in bytes. A whole answer may come as one event.
pub(crate) const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// The largest answer that comes as one document, in bytes.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;

/// The most bytes read of one answer, framing and comments included: a stream repeats its frame
/// around every few characters of text.
pub(crate) const MAX_STREAM_BYTES: u64 = 1024 * 1024 * 1024;

/// The most bytes read of an error's body. What explains it stands at its beginning.
pub(crate) const MAX_ERROR_BYTES: usize = 64 * 1024;

/// How long the body of an error may take, in milliseconds. What has come by then is enough.
pub(crate) const ERROR_BODY_MS: u64 = 5_000;

/// The longest text taken from a provider's error, in characters.
pub(crate) const MAX_ERROR_CHARS: usize = 1_000;

/// The longest wait a provider may ask for, in milliseconds: a day.
pub(crate) const MAX_RETRY_AFTER_MS: u64 = 24 * 60 * 60 * 1_000;

/// The most tool calls of one answer. Each is found again for every piece of its arguments.
pub(crate) const MAX_CALLS: usize = 1_024;

/// The largest list of models, in bytes. The longest there are have hundreds of models.
pub(crate) const MAX_OFFERS_BYTES: usize = 16 * 1024 * 1024;

/// The largest file with certificates, in bytes.
pub(crate) const MAX_CA_BYTES: u64 = 16 * 1024 * 1024;

/// Conversations whose newest request is kept, to be gone on from.
pub(crate) const MAX_KEPT_CONVERSATIONS: usize = 128;

/// The most bytes of requests that are kept.
pub(crate) const MAX_KEPT_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// How often an answer that the provider makes in the background is asked for in vain before it is given
/// up.
pub(crate) const PICK_UP_TRIES: u32 = 8;

/// After how many of these tries the answer is asked for as a whole: what ended a stream may do so again.
pub(crate) const STREAM_TRIES: u32 = 2;

/// How long the second try waits, in milliseconds; each further one waits twice as long.
pub(crate) const PICK_UP_WAIT_MS: u64 = 250;

/// The longest wait between two tries, in milliseconds.
pub(crate) const MAX_PICK_UP_WAIT_MS: u64 = 5_000;
