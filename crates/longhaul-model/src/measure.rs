//! How many bytes items are, for limits and for the token counts of a script. An estimate of what
//! a provider would be sent, not of any wire.

use std::io;

use longhaul_session::item::Item;
use serde_json::Value;

/// Returns the bytes of what the model reads of an item.
pub(crate) fn item_bytes(item: &Item) -> usize {
    match item {
        Item::User { text }
        | Item::Assistant { text, partial: _ }
        | Item::Summary { text }
        | Item::Steering { reason: _, text } => text.len(),
        Item::Reasoning { text, opaque } => text.len() + opaque.as_ref().map_or(0, value_bytes),
        Item::ToolCall(call) => {
            call.name.len() + call.arguments.len() + call.opaque.as_ref().map_or(0, value_bytes)
        }
        Item::ToolResult(result) => result.output.len(),
        Item::ContextFile { path, digest: _, text } => path.len() + text.len(),
        Item::Opaque { provider: _, value } => value_bytes(value),
        Item::File { name: _, media_type: _, data } => data.len(),
        Item::Attachment(_) | Item::Redacted => 0,
    }
}

/// Returns the bytes of a value as JSON.
pub(crate) fn value_bytes(value: &Value) -> usize {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("counting cannot fail, and a JSON value is JSON");
    count.0
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
