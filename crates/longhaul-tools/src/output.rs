//! Cuts what is too long for the model, keeping the beginning and the end. Stores nothing.

use std::borrow::Cow;

use longhaul_session::id::Digest;

use crate::limits::MAX_WHOLE_BYTES;
use crate::tool::ToolOutput;

/// Hides what neither a model nor a log may read: known keys.
pub trait Mask: Send + Sync + 'static {
    /// Returns the bytes without it; borrowed when there is none in them.
    fn mask<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]>;
}

/// Masks an output, before it is cut: half a key is still half a key.
#[must_use]
pub fn masked(mut output: ToolOutput, mask: &dyn Mask) -> ToolOutput {
    if let Cow::Owned(text) = mask.mask(output.text.as_bytes()) {
        output.text = String::from_utf8_lossy(&text).into_owned();
    }
    if let Some(Cow::Owned(whole)) = output.whole.as_deref().map(|whole| mask.mask(whole)) {
        output.whole = Some(whole);
    }
    output
}

/// Cuts an output's text to `limit` bytes. The text then says how much was cut and names the whole
/// by its digest, and the whole is in the output.
#[must_use]
pub fn limited(mut output: ToolOutput, limit: usize) -> ToolOutput {
    if output.text.len() <= limit {
        return output;
    }
    let whole = output.whole.take().unwrap_or_else(|| {
        let note = |bytes| format!("[… {bytes} bytes were cut here and not kept …]");
        cut(&output.text, MAX_WHOLE_BYTES, note).into_bytes()
    });
    let digest = Digest::of(&whole);
    output.text = cut(&output.text, limit, |bytes| {
        format!("[… {bytes} bytes cut; for the whole output call `read` with path \"artifact:{digest}\" …]")
    });
    output.whole = Some(whole);
    output
}

/// Cuts a text to `limit` bytes at UTF-8 boundaries: its head, a line that `note` makes from the
/// number of bytes cut, and its tail. Where the limit leaves no room for the line, the head alone.
#[must_use]
pub fn cut(text: &str, limit: usize, note: impl Fn(usize) -> String) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    // No count of bytes cut is longer than the count of them all.
    let note_bytes = note(text.len()).len() + 2;
    let Some(room) = limit.checked_sub(note_bytes) else {
        return text[..text.floor_char_boundary(limit)].to_owned();
    };
    let head = &text[..text.floor_char_boundary(room / 2)];
    let tail = &text[text.ceil_char_boundary(text.len() - (room - room / 2))..];
    format!("{head}\n{}\n{tail}", note(text.len() - head.len() - tail.len()))
}
