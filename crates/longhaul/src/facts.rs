//! What is known of the model a session is to run with, from the catalogue, and what is only assumed. What a
//! manifest states goes before it.

use longhaul_model::catalogue::{self, Source};
use longhaul_session::agent::ModelChoice;

use crate::providers::{self, Provider};

/// The tokens a model is taken to have room for, if nobody says how many.
pub(crate) const ASSUMED_WINDOW_TOKENS: u64 = 128_000;
/// The part of the window, in hundredths, above which the context is compacted, if nothing is said.
pub(crate) const THRESHOLD_PERCENT: u64 = 80;

/// Returns the window of the model of a name, where it is known.
pub(crate) fn window_tokens(name: &str) -> Option<u64> {
    catalogue::find(name)?.window_tokens
}

/// Tells whether the window of a choice is one of the catalogue that was not looked up at any source.
pub(crate) fn is_unverified(choice: &ModelChoice) -> bool {
    let entry = catalogue::find(&choice.name).filter(|_| choice.provider != Provider::Scripted.name());
    entry.is_some_and(|entry| {
        entry.source == Source::Unverified && entry.window_tokens == choice.window_tokens
    })
}

/// Returns above which size of a request the context of a model is compacted, if nothing is said.
pub(crate) fn compact_above_tokens(choice: &ModelChoice) -> u64 {
    choice.window_tokens.unwrap_or(ASSUMED_WINDOW_TOKENS) * THRESHOLD_PERCENT / 100
}

/// Adds to a choice what is known of its model and not stated in it.
pub(crate) fn complete(choice: &mut ModelChoice) {
    let Some(entry) = catalogue::find(&choice.name).filter(|_| choice.provider != Provider::Scripted.name())
    else {
        return;
    };
    choice.window_tokens = choice.window_tokens.or(entry.window_tokens);
    if choice.prices.is_none() {
        choice.prices = providers::address(choice).and_then(|url| entry.prices_at(url));
    }
}

/// Says what is not known of a model, and so assumed or not counted; `None` where all is known.
pub(crate) fn unknown(choice: &ModelChoice) -> Option<String> {
    if choice.provider == Provider::Scripted.name() {
        return None;
    }
    let cost = "what its tokens cost is not known: set [model.prices] to have it counted";
    let window = format!(
        "how much the model takes is not known: {ASSUMED_WINDOW_TOKENS} tokens are assumed; set window_tokens \
         of [model]"
    );
    match (choice.window_tokens, &choice.prices) {
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some(cost.to_owned()),
        (None, Some(_)) => Some(window),
        (None, None) => Some(format!("{window}; {cost}")),
    }
}
