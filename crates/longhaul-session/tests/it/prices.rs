//! What a call costs: the arithmetic, at its edges and everywhere between.

use longhaul_session::prices::{Prices, Rates, Tier};
use longhaul_session::usage::Usage;
use proptest::prelude::*;

fn flat(input: u64, output: u64) -> Prices {
    Prices { rates: Rates { input, output, ..Rates::default() }, tiers: Vec::new() }
}

fn full() -> Prices {
    let rates = Rates {
        input: 3_000_000,
        cached_input: Some(300_000),
        cache_write: Some(3_750_000),
        output: 15_000_000,
    };
    Prices { rates, tiers: Vec::new() }
}

#[test]
fn each_kind_of_token_has_its_price() {
    let usage = Usage {
        input: 10_000,
        cached_input: 6_000,
        cache_write: 1_000,
        output: 500,
        reasoning: 400,
        cost_micros: 0,
    };
    // 3,000 at 3, 6,000 at 0.30, 1,000 at 3.75, 500 at 15 millionths each; reasoning is in the output.
    assert_eq!(full().cost_micros(&usage), 9_000 + 1_800 + 3_750 + 7_500);
}

#[test]
fn a_cost_is_rounded_up_once() {
    let one = |input, output| Usage { input, output, ..Usage::default() };
    let prices = flat(100_000, 400_000);
    assert_eq!(prices.cost_micros(&one(0, 0)), 0);
    assert_eq!(prices.cost_micros(&one(1, 0)), 1);
    assert_eq!(prices.cost_micros(&one(10, 0)), 1);
    assert_eq!(prices.cost_micros(&one(11, 0)), 2);
    // A tenth and two fifths: half a millionth, not two.
    assert_eq!(prices.cost_micros(&one(1, 1)), 1);
}

#[test]
fn a_tier_holds_for_all_of_a_call_whose_prompt_is_over_its_bound() {
    let tier = |above_prompt_tokens, input| Tier {
        above_prompt_tokens,
        rates: Rates { input, output: 10 * input, ..Rates::default() },
    };
    let prices =
        Prices { tiers: vec![tier(400, 4_000_000), tier(200, 2_000_000)], ..flat(1_000_000, 10_000_000) };
    let cost = |input| prices.cost_micros(&Usage { input, cached_input: 150, output: 1, ..Usage::default() });
    assert_eq!((cost(200), cost(201), cost(400), cost(401)), (210, 422, 820, 1_644));
}

#[test]
fn what_a_provider_states_wins() {
    let usage = Usage { input: 10, output: 10, cost_micros: 7, ..Usage::default() };
    assert_eq!(full().priced(usage), usage);
    let silent = Usage { cost_micros: 0, ..usage };
    assert_eq!(full().priced(silent), Usage { cost_micros: 180, ..usage });
    assert_eq!(full().priced(Usage::default()), Usage::default());
}

#[test]
fn prices_that_are_stored_are_read_again() {
    let prices = Prices { tiers: vec![Tier { above_prompt_tokens: 1, rates: full().rates }], ..flat(1, 2) };
    let text = serde_json::to_string(&prices).unwrap();
    assert!(
        text.starts_with(r#"{"rates":{"input":1,"output":2},"tiers":[{"above_prompt_tokens":1,"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<Prices>(&text).unwrap(), prices);
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0..10_u64, 0..10_000_000_u64, any::<u64>()]
}

prop_compose! {
    fn any_rates()(
        input in any_number(),
        cached_input in prop::option::of(any_number()),
        cache_write in prop::option::of(any_number()),
        output in any_number(),
    ) -> Rates {
        Rates { input, cached_input, cache_write, output }
    }
}

prop_compose! {
    fn any_prices()(
        rates in any_rates(),
        tiers in prop::collection::vec((any_number(), any_rates()), 0..3),
    ) -> Prices {
        let tier = |(above_prompt_tokens, rates)| Tier { above_prompt_tokens, rates };
        Prices { rates, tiers: tiers.into_iter().map(tier).collect() }
    }
}

prop_compose! {
    fn any_usage()(
        (input, cached_input, cache_write) in (any_number(), any_number(), any_number()),
        (output, reasoning) in (any_number(), any_number()),
    ) -> Usage {
        Usage { input, cached_input, cache_write, output, reasoning, cost_micros: 0 }
    }
}

proptest! {
    #[test]
    fn no_call_is_too_dear_to_count(prices in any_prices(), usage in any_usage()) {
        let cost = prices.cost_micros(&usage);
        let dearest = prices.tiers.iter().map(|tier| tier.rates).chain([prices.rates]).flat_map(|rates| {
            [Some(rates.input), rates.cached_input, rates.cache_write, Some(rates.output)]
        }).flatten().max().unwrap();
        let tokens = u128::from(usage.input) + u128::from(usage.output);
        let most = tokens.saturating_mul(u128::from(dearest)).div_ceil(1_000_000);
        prop_assert!(u128::from(cost) <= most.min(u128::from(u64::MAX)));
    }

    #[test]
    fn a_cost_is_exact_but_for_its_rounding(
        (input, cached, written) in (0..1_000_000_u64, 0..1_000_000_u64, 0..1_000_000_u64),
        output in 0..1_000_000_u64,
        rates in (0..1_000_000_000_u64, 0..1_000_000_000_u64, 0..1_000_000_000_u64, 0..1_000_000_000_u64),
    ) {
        let usage = Usage {
            input: input + cached + written, cached_input: cached, cache_write: written, output,
            ..Usage::default()
        };
        let rates = Rates { input: rates.0, cached_input: Some(rates.1), cache_write: Some(rates.2), output: rates.3 };
        let exact = u128::from(input) * u128::from(rates.input)
            + u128::from(cached) * u128::from(rates.cached_input.unwrap())
            + u128::from(written) * u128::from(rates.cache_write.unwrap())
            + u128::from(output) * u128::from(rates.output);
        let cost = u128::from(Prices { rates, tiers: Vec::new() }.cost_micros(&usage)) * 1_000_000;
        prop_assert!(cost >= exact && cost - exact < 1_000_000);
    }

    #[test]
    fn more_output_never_costs_less(prices in any_prices(), usage in any_usage(), more in any_number()) {
        let longer = Usage { output: usage.output.saturating_add(more), ..usage };
        prop_assert!(prices.cost_micros(&longer) >= prices.cost_micros(&usage));
    }
}
