//! What is known of models: found by the names people write, priced only where the prices hold.

use longhaul_model::catalogue::{Capability, Entry, PriceList, Source, entries, find};

fn first_name(name: &str) -> Option<&'static str> {
    find(name).map(|entry| entry.names[0].as_str())
}

#[test]
fn a_model_is_found_by_every_way_to_write_its_name() {
    for (written, expected) in [
        ("claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("Claude-Sonnet-4-5-latest", "claude-sonnet-4-5"),
        ("claude-opus-4-20250514", "claude-opus-4-1"),
        ("openai/gpt-5-mini", "gpt-5-mini"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("gpt-4o-2024-11-20", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("google/gemini-3.1-pro-preview", "gemini-3.1-pro"),
        ("gemini-2.5-pro-preview-05-06", "gemini-2.5-pro"),
        ("x-ai/grok-4", "grok-4"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("qwen3-coder-30b-a3b-instruct", "qwen3-coder*"),
        ("qwen3-coder:30b", "qwen3-coder*"),
        ("moonshotai/kimi-k2-thinking", "kimi-k2-thinking*"),
    ] {
        assert_eq!(first_name(written), Some(expected), "{written}");
    }
}

#[test]
fn a_name_that_only_begins_like_another_is_another_model() {
    for name in
        ["gpt-5.9", "gpt-5-2-9", "gpt-5-turbo", "claude-sonnet-4-9", "claude", "", "o", "test", "o1-pro"]
    {
        assert_eq!(first_name(name), None, "{name}");
    }
    assert_eq!(first_name("gpt-5.2"), Some("gpt-5.2"), "it has an entry of its own");
    assert_eq!(
        first_name("openai/gpt-oss-120b:free"),
        None,
        "a free offer does not cost what the model costs"
    );
}

#[test]
fn prices_hold_only_where_they_are_from() {
    let entry = find("openai/gpt-oss-120b").unwrap();
    let groq = entry.prices_at("https://api.groq.com/openai/v1").unwrap();
    assert_eq!(
        (groq.rates.input, groq.rates.cached_input, groq.rates.output),
        (150_000, Some(75_000), 600_000)
    );
    for elsewhere in
        ["http://localhost:8080/v1", "https://openrouter.ai/api/v1", "https://api.groq.com.evil.example"]
    {
        assert_eq!(entry.prices_at(elsewhere), None, "{elsewhere}");
    }
    let claude = find("anthropic/claude-haiku-5.5").unwrap();
    let here = claude.prices_at("https://api.anthropic.com").unwrap();
    assert_eq!(claude.prices_at("https://openrouter.ai/api/v1"), None);
    assert_eq!(claude.prices_at("https://API.anthropic.com:443"), Some(here.clone()));
    assert_eq!(here.tiers[0].above_prompt_tokens, 100_000);
}

#[test]
fn every_entry_makes_sense() {
    let mut names = Vec::new();
    for entry in entries() {
        let Entry { as_of, source, window_tokens, max_output_tokens, .. } = entry;
        let lists = &entry.prices;
        let id = &entry.names[0];
        names.extend(entry.names.iter().cloned());
        for day in lists.iter().map(|list| &list.as_of).chain([as_of]).flatten() {
            assert_eq!(day.split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2], "{id}: {day}");
        }
        assert!(
            *source != Source::Unverified || as_of.is_none(),
            "{id}: a day of nothing that was looked up"
        );
        assert!(lists.iter().all(|list| list.source != Source::Unverified), "{id}: a price nobody has seen");
        let window = window_tokens.unwrap();
        assert!(window >= 16_000 && max_output_tokens.is_none_or(|most| most <= window), "{id}");
        assert!(entry.can(Capability::Streaming), "{id}");
        let prices = lists.iter().map(PriceList::prices);
        let rates = prices.flat_map(|it| it.tiers.into_iter().map(|tier| tier.rates).chain([it.rates]));
        for rates in rates {
            // From a tenth of a cent to two hundred dollars: a price of another unit stands out.
            assert!((10_000..=200_000_000).contains(&rates.input), "{id}: {rates:?}");
            assert!(rates.output >= rates.input, "{id}: {rates:?}");
            assert!(rates.cached_input.is_none_or(|cached| cached <= rates.input), "{id}: {rates:?}");
            assert!(rates.cache_write.is_none_or(|write| write >= rates.input), "{id}: {rates:?}");
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands twice");
}
