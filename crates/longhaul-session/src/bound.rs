//! What the next model call can use at most: a hard budget asks before the call is made.
//!
//! What was measured is taken as it was, as if none of it were cached; of what came since, each byte counts
//! as a token, as no tokenizer makes more of a text. What it may cost is left to whoever knows prices.

use std::io::{self, Write};

use serde::Serialize;

use crate::context::Context;
use crate::item::Item;
use crate::state::SessionState;
use crate::usage::Usage;

/// The most tokens of an answer, where nobody says how many: no model we know of gives more.
pub const MAX_OUTPUT_TOKENS: u64 = 128_000;
/// The most tokens of a picture. A document counts for its bytes besides, as nobody knows its pages.
pub const FILE_TOKENS: u64 = 16_384;
/// What a provider may add to each item, in tokens, beyond the names and ids we write ourselves.
const ITEM_TOKENS: u64 = 16;
/// What a provider may add to a request of its own accord, such as how tools are to be called.
const REQUEST_TOKENS: u64 = 2_048;

/// Returns what the next model call uses at most.
#[must_use]
pub fn next_call(state: &SessionState, context: &Context) -> Usage {
    let measured = state.measured.filter(|_| state.measured_at > 0);
    let since = measured.map_or(0, |_| state.measured_at);
    let new = context.items().iter().filter(|(n, _)| *n >= since);
    let items: u64 = new.map(|(_, item)| item_tokens(item)).sum();
    let before = measured.map_or_else(|| unmeasured(context), |measured| measured.input_tokens);
    let said = context.configuration().and_then(|configuration| configuration.model.max_output_tokens);
    Usage {
        input: before.saturating_add(items),
        output: said.unwrap_or(MAX_OUTPUT_TOKENS),
        ..Usage::default()
    }
}

/// Counts what every request carries besides its items.
fn unmeasured(context: &Context) -> u64 {
    let request = context.request();
    REQUEST_TOKENS + request.system.len() as u64 + bytes_of(&*request.tools)
}

fn item_tokens(item: &Item) -> u64 {
    let Item::File { name, media_type, data } = item else { return ITEM_TOKENS + bytes_of(item) };
    let written = name.as_ref().map_or(0, String::len) + media_type.len();
    let pages = if media_type.starts_with("image/") { 0 } else { data.len() };
    ITEM_TOKENS + FILE_TOKENS + (written + pages) as u64
}

/// Counts the bytes of something as JSON, which is no shorter than the texts in it.
fn bytes_of(something: &impl Serialize) -> u64 {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, something).expect("items and tools have only string keys");
    count.0
}

/// Counts what is written to it.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
