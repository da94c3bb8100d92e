//! The scenarios, each with a fixed budget of seeds: all of them together take well under a minute.

use longhaul_sim::{SCENARIOS, Scenario, play, play_many};

use crate::budget::broke;

/// Plays a scenario in so many worlds; each must end as it should.
#[track_caller]
fn ends_as_it_should(name: &str, seeds: u64) {
    let scenario = Scenario::find(name).expect("there is one of this name");
    let summary = play_many(scenario, 1, seeds, 1);
    if let Some(outcome) = &summary.failed {
        broke(outcome);
    }
    let crashes = summary.coverage.iter().filter(|(what, _)| what.contains("crash"));
    let crashes: u64 = crashes.map(|(_, times)| times).sum();
    assert!(crashes > 0, "in {} runs nothing crashed", summary.runs);
}

#[test]
fn a_goal_is_complete_after_forty_turns_and_six_compactions() {
    ends_as_it_should("long", 20);
}

#[test]
fn a_budget_that_runs_out_in_a_turn_is_wrapped_up_once_however_often_workers_crash() {
    ends_as_it_should("budget", 60);
}

#[test]
fn a_hard_budget_is_never_crossed_however_often_workers_crash() {
    ends_as_it_should("hard-budget", 40);
}

#[test]
fn a_goal_whose_model_calls_no_tool_rests() {
    ends_as_it_should("talker", 60);
}

#[test]
fn a_model_that_turns_in_circles_is_blocked_after_three_turns_over_crashes() {
    ends_as_it_should("circles", 60);
}

#[test]
fn a_model_that_always_fails_blocks_or_limits_the_goal() {
    ends_as_it_should("failing", 48);
}

#[test]
fn five_false_claims_are_refused_and_the_true_one_is_taken_over_crashes() {
    ends_as_it_should("false-claims", 60);
}

#[test]
fn an_agent_that_may_use_no_tool_comes_to_an_end() {
    ends_as_it_should("denied", 60);
}

#[test]
fn a_goal_outlives_an_hour_of_an_overloaded_provider() {
    ends_as_it_should("overloaded", 3);
}

#[test]
fn a_tool_that_kills_its_worker_each_time_blocks_the_goal() {
    ends_as_it_should("killer", 60);
}

#[test]
fn summaries_that_are_no_use_end_after_three_and_the_goal_goes_on_while_it_fits() {
    ends_as_it_should("summaries", 40);
}

#[test]
fn a_seed_plays_a_scenario_the_same_way_byte_for_byte() {
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name != "overloaded") {
        assert_eq!(play(scenario, 1), play(scenario, 1), "{}", scenario.name);
    }
}
