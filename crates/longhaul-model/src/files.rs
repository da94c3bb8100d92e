//! Files that a person gave, on their way into a request: bytes as base64, texts as words. What a wire can carry
//! is left to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longhaul_session::item::{Attachment, Item};
use longhaul_session::media;

use crate::conversation::marked;

/// Puts an attachment together with its bytes, for a request.
#[must_use]
pub fn with_bytes(file: &Attachment, bytes: &[u8]) -> Item {
    Item::File {
        name: Some(file.name.clone()),
        media_type: file.media_type.clone(),
        data: STANDARD.encode(bytes),
    }
}

/// Returns a file as words, if it goes to the model as that: a text, which every model can read, and what is said
/// in place of a file that the wire does not carry.
pub(crate) fn as_words(
    name: Option<&str>,
    media_type: &str,
    data: &str,
    takes: impl Fn(&str) -> bool,
) -> Option<String> {
    if media::is_text(media_type)
        && let Some(text) = text_of(data)
    {
        let attributes = [("name", name.unwrap_or("no name")), ("type", media_type)];
        return Some(marked("file", &attributes, &text).into_owned());
    }
    (!takes(media_type)).then(|| not_readable(name, media_type))
}

/// Returns the text of a file, if it is one.
pub(crate) fn text_of(data: &str) -> Option<String> {
    STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

/// Says that a file is not shown.
pub(crate) fn not_readable(name: Option<&str>, media_type: &str) -> String {
    format!("[A file was here that this model cannot read: {}, {media_type}]", name.unwrap_or("no name"))
}

/// Says that a request does not carry the bytes of a file: they are gone, or there are too many newer ones.
pub(crate) fn not_shown(file: &Attachment) -> String {
    let Attachment { name, media_type, bytes, digest: _ } = file;
    format!("[A file was here that is not shown any more: {name}, {media_type}, {bytes} bytes]")
}
