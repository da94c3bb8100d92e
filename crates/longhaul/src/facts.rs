//! What is known of the model a session is to run with, from the catalogue, and what is only assumed. What a
//! manifest states goes before it.

use longhaul_model::anthropic::DEFAULT_MAX_OUTPUT_TOKENS as ASSUMED_OUTPUT_TOKENS;
use longhaul_model::catalogue::{self, Entry, Source};
use longhaul_session::agent::{ModelChoice, PromptCache};
use longhaul_session::prices::Prices;

use crate::providers::{self, Provider, Wire};

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
    entry(choice).is_some_and(|entry| {
        entry.source == Source::Unverified && entry.window_tokens == choice.window_tokens
    })
}

/// Returns above which size of a request the context of a model is compacted, if nothing is said.
pub(crate) fn compact_above_tokens(choice: &ModelChoice) -> u64 {
    choice.window_tokens.unwrap_or(ASSUMED_WINDOW_TOKENS) * THRESHOLD_PERCENT / 100
}

/// Adds to a choice what is known of its model and not stated in it.
pub(crate) fn complete(choice: &mut ModelChoice) {
    if choice.images.is_none() && choice.provider != Provider::Scripted.name() {
        choice.images = catalogue::images(&choice.name).map(|facts| facts.limits);
    }
    let entry = entry(choice);
    choice.window_tokens = choice.window_tokens.or(entry.and_then(|entry| entry.window_tokens));
    let written = entry.and_then(|entry| entry.max_output_tokens);
    let unsaid = choice.max_output_tokens.is_none();
    choice.longest_answer_tokens = unsaid.then(|| max_output_tokens(choice).or(written)).flatten();
    let Some(entry) = entry else { return };
    if choice.prices.is_none() {
        let known = providers::address(choice).and_then(|url| entry.prices_at(url));
        let is_kept_long = is_messages(choice) && choice.cache == Some(PromptCache::OneHour);
        choice.prices = if is_kept_long { known.map(kept_for_an_hour) } else { known };
    }
}

/// Returns the prices where the cache keeps what it is given for an hour: writing costs twice the input then,
/// instead of a quarter more.
fn kept_for_an_hour(mut prices: Prices) -> Prices {
    let tiers = prices.tiers.iter_mut().map(|tier| &mut tier.rates);
    for rates in tiers.chain([&mut prices.rates]) {
        rates.cache_write = rates.cache_write.map(|_| 2 * rates.input);
    }
    prices
}

/// Returns the most tokens of one answer that are asked for; `None` where the provider decides. Messages
/// demand a number: what the model can write, as far as it fits beside a context that is about to be
/// compacted.
pub(crate) fn max_output_tokens(choice: &ModelChoice) -> Option<u64> {
    let demanded = || is_messages(choice).then(|| written_tokens(choice).unwrap_or(ASSUMED_OUTPUT_TOKENS));
    choice.max_output_tokens.or_else(demanded)
}

fn is_messages(choice: &ModelChoice) -> bool {
    Provider::named(&choice.provider).map(Provider::wire) == Some(Wire::Anthropic)
}

fn written_tokens(choice: &ModelChoice) -> Option<u64> {
    let window = choice.window_tokens.unwrap_or(ASSUMED_WINDOW_TOKENS);
    Some(entry(choice)?.max_output_tokens?.min(window * (100 - THRESHOLD_PERCENT) / 100))
}

fn entry(choice: &ModelChoice) -> Option<&'static Entry> {
    catalogue::find(&choice.name).filter(|_| choice.provider != Provider::Scripted.name())
}

/// Tells whether calls may cost something of which nobody here learns: no prices are known, and the provider does
/// not state what each call cost.
pub(crate) fn may_cost_unseen(choice: &ModelChoice) -> bool {
    let states_cost = [Provider::Scripted, Provider::Openrouter].map(Provider::name);
    choice.prices.is_none() && !states_cost.contains(&choice.provider.as_str())
}

/// Says what is not known of a model, and so assumed or not counted; `None` where all is known.
pub(crate) fn unknown(choice: &ModelChoice) -> Option<String> {
    if choice.provider == Provider::Scripted.name() {
        return None;
    }
    let mut said = Vec::new();
    if choice.window_tokens.is_none() {
        said.push(format!(
            "how much the model takes is not known: {ASSUMED_WINDOW_TOKENS} tokens are assumed; set \
             window_tokens of [model]"
        ));
    }
    if choice.max_output_tokens.is_none() && is_messages(choice) && written_tokens(choice).is_none() {
        said.push(format!(
            "how long its answers may be is not known: {ASSUMED_OUTPUT_TOKENS} tokens are assumed; set \
             max_output_tokens"
        ));
    }
    if choice.prices.is_none() {
        said.push("what its tokens cost is not known: set [model.prices] to have it counted".to_owned());
    }
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use longhaul_session::agent::{ModelChoice, PromptCache};
    use longhaul_session::bound;

    use super::{complete, max_output_tokens, unknown};

    fn known(provider: &str, name: &str) -> ModelChoice {
        let mut choice = ModelChoice::new(provider, name);
        complete(&mut choice);
        choice
    }

    #[test]
    fn an_answer_may_be_as_long_as_the_model_writes_and_as_fits_beside_the_context() {
        for (name, tokens) in [
            ("claude-opus-5", 128_000),
            ("claude-haiku-4-5", 40_000),
            ("claude-3-5-haiku", 8_192),
            ("mine", 32_000),
        ] {
            let mut choice = known("anthropic", name);
            assert_eq!(max_output_tokens(&choice), Some(tokens), "{name}");
            assert_eq!(bound::answer_tokens(&choice), tokens, "{name}");
            let assumed = unknown(&choice).is_some_and(|said| said.contains("32000 tokens are assumed"));
            assert_eq!(assumed, name == "mine", "{name}");
            choice.max_output_tokens = Some(1_000);
            assert_eq!(max_output_tokens(&choice), Some(1_000), "{name}");
        }
        for provider in ["openai-chat", "openai-responses", "gemini", "openrouter", "scripted"] {
            assert_eq!(max_output_tokens(&known(provider, "claude-opus-5")), None, "{provider}");
        }
        let bounds = ["claude-opus-4-5", "mine"].map(|name| bound::answer_tokens(&known("openrouter", name)));
        assert_eq!(bounds, [64_000, bound::MAX_OUTPUT_TOKENS]);
    }

    #[test]
    fn what_is_kept_for_an_hour_costs_twice_the_input_to_write() {
        let mut choice = ModelChoice {
            cache: Some(PromptCache::OneHour),
            ..ModelChoice::new("anthropic", "claude-haiku-5-5")
        };
        complete(&mut choice);
        let prices = choice.prices.unwrap();
        assert_eq!(prices.rates.cache_write, Some(2 * prices.rates.input));
        assert_eq!(prices.tiers[0].rates.cache_write, Some(2 * prices.tiers[0].rates.input));
        let usual = known("anthropic", "claude-haiku-5-5").prices.unwrap();
        assert_eq!(usual.rates.cache_write, Some(usual.rates.input / 4 * 5));
    }

    #[test]
    fn prices_are_those_of_the_providers_usual_place() {
        for (provider, name, priced) in [
            ("anthropic", "claude-opus-5", true),
            ("openai-responses", "gpt-5", true),
            ("openai-chat", "gpt-5", true),
            ("gemini", "gemini-2.5-pro", true),
            ("groq", "openai/gpt-oss-120b", true),
            ("openrouter", "anthropic/claude-opus-5", false),
            ("vllm", "openai/gpt-oss-120b", false),
            ("azure", "gpt-5", false),
        ] {
            let choice = known(provider, name);
            assert_eq!(choice.prices.is_some(), priced, "{provider}, {name}");
            assert!(choice.window_tokens.is_some(), "{provider}, {name}");
            assert_eq!(choice.images.is_some(), !name.contains("gpt-oss"), "{provider}, {name}");
        }
    }
}
