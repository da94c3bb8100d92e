//! What the next model call can use at most: a hard budget asks before the call is made.
//!
//! What was measured is taken as it was, as if none of it were cached; of what came since, each byte counts
//! as a token, as no tokenizer makes more of a text.

use std::io::{self, Write};

use serde::Serialize;

use crate::agent::ModelChoice;
use crate::context::Context;
use crate::id::EntryNo;
use crate::item::Item;
use crate::prices::Prices;
use crate::state::SessionState;
use crate::usage::Usage;

/// The most tokens of an answer, where nobody knows how many: no model we know of gives more.
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
    let model = context.configuration().map(|configuration| &configuration.model);
    most(model, measured(state, context).unwrap_or_else(|| unmeasured(context)))
}

/// Returns what a call uses at most that is to summarise the context, and is told so in these words. What one
/// model was measured to read says nothing of what another makes of it.
#[must_use]
pub fn next_summary(state: &SessionState, context: &Context, instruction: &str) -> Usage {
    let configuration = context.configuration();
    let answering = configuration.map(|configuration| &configuration.model);
    let other = configuration.and_then(|configuration| configuration.summariser.as_deref());
    let named = |model: &ModelChoice| (model.provider.clone(), model.name.clone());
    let is_another = other.is_some() && other.map(named) != answering.map(named);
    let before = if is_another { None } else { measured(state, context) };
    let before = before.unwrap_or_else(|| unmeasured(context));
    most(other.or(answering), before.saturating_add(ITEM_TOKENS + bytes_of(&instruction)))
}

/// Returns what one of two calls uses at most, where nobody knows which it was: no more tokens than the larger one,
/// and no more money than the dearer one.
#[must_use]
pub fn either(one: Usage, other: Usage) -> Usage {
    let larger = if other.budget_tokens() > one.budget_tokens() { other } else { one };
    Usage { cost_micros: one.cost_micros.max(other.cost_micros), ..larger }
}

/// Returns the most tokens that an answer of a model can have.
#[must_use]
pub fn answer_tokens(model: &ModelChoice) -> u64 {
    model.max_output_tokens.or(model.longest_answer_tokens).unwrap_or(MAX_OUTPUT_TOKENS)
}

fn most(model: Option<&ModelChoice>, input: u64) -> Usage {
    let output = model.map_or(MAX_OUTPUT_TOKENS, answer_tokens);
    let most = Usage { input, output, ..Usage::default() };
    match model.and_then(|model| model.prices.as_ref()) {
        Some(prices) => Usage { cost_micros: dearest(prices, &most), ..most },
        None => most,
    }
}

/// Returns what a call costs at most: a prompt may be cheaper the longer it is, and dearer where it is written to
/// a cache.
fn dearest(prices: &Prices, most: &Usage) -> u64 {
    let sizes = prices
        .tiers
        .iter()
        .flat_map(|tier| [tier.above_prompt_tokens, tier.above_prompt_tokens.saturating_add(1)]);
    let sizes = sizes.map(|size| size.min(most.input)).chain([most.input]);
    let costs = sizes.flat_map(|input| {
        let plain = Usage { input, ..*most };
        [prices.cost_micros(&plain), prices.cost_micros(&Usage { cache_write: input, ..plain })]
    });
    costs.max().unwrap_or(u64::MAX)
}

/// Counts a request as it was measured, and what has come since by its bytes.
fn measured(state: &SessionState, context: &Context) -> Option<u64> {
    let measured = state.measured.filter(|_| state.measured_at > 0)?;
    Some(measured.input_tokens.saturating_add(since(context, state.measured_at)))
}

/// Counts all of a request by its bytes.
fn unmeasured(context: &Context) -> u64 {
    let request = context.request();
    REQUEST_TOKENS + request.system.len() as u64 + bytes_of(&*request.tools) + since(context, 0)
}

/// Counts the items from an entry on.
fn since(context: &Context, entry: EntryNo) -> u64 {
    context.items().iter().filter(|(n, _)| *n >= entry).map(|(_, item)| item_tokens(item)).sum()
}

fn item_tokens(item: &Item) -> u64 {
    let is_picture = |media_type: &str| media_type.starts_with("image/");
    match item {
        Item::File { name, media_type, data } => {
            let written = name.as_ref().map_or(0, String::len) + media_type.len();
            let pages = if is_picture(media_type) { 0 } else { data.len() };
            ITEM_TOKENS + FILE_TOKENS + (written + pages) as u64
        }
        // Its bytes are written in base64 where they are not sent as text.
        Item::Attachment(file) => {
            let pages = if is_picture(&file.media_type) { 0 } else { file.bytes.div_ceil(3) * 4 };
            ITEM_TOKENS + FILE_TOKENS + bytes_of(item) + pages
        }
        Item::User { .. }
        | Item::Assistant { .. }
        | Item::Reasoning { .. }
        | Item::ToolCall(_)
        | Item::ToolResult(_)
        | Item::Opaque { .. }
        | Item::Summary { .. }
        | Item::ContextFile { .. }
        | Item::Steering { .. }
        | Item::Redacted => ITEM_TOKENS + bytes_of(item),
    }
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
