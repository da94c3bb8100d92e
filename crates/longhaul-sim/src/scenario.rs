//! The scenarios: scripted long runs of one goal, each a small piece of data, played in the same faulty world
//! as the random runs, with workers that crash, stall and drain until the goal has ended.
//!
//! What their models do is in [`actor`], how that becomes answers and what tools and checks do in [`cast`],
//! how one is played in [`stage`], and what must be so in the end in [`end`].

pub(crate) mod actor;
pub(crate) mod cast;
pub(crate) mod end;
pub(crate) mod stage;

use std::fmt;

use longhaul_session::agent::{Limits, ToolPermission};
use longhaul_session::goal::{Budget, Terms};

use self::actor::{Move, Scene};
use self::end::End;

/// What every goal is to reach.
pub(crate) const OBJECTIVE: &str = "Every part of the house is built, and the roof is tight.";
/// The check of goals that have one: it passes when all parts are built.
pub(crate) const CHECK: &str = "test every part";
/// How long a provider is overloaded, in milliseconds.
pub(crate) const OVERLOADED_MS: u64 = 60 * 60 * 1_000;
const MINUTE_MS: u64 = 60 * 1_000;

/// A scripted long run.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What must come of it.
    pub about: &'static str,
    /// What its goal is held to.
    terms: fn() -> Terms,
    limits: fn() -> Limits,
    /// The permission of all tools.
    permission: ToolPermission,
    /// How many parts there are to build.
    parts: usize,
    /// How much `work` writes for each, in bytes.
    output_bytes: usize,
    /// What the model does.
    acts: fn(&Scene<'_>) -> Move,
    /// What it does when it is asked for a summary.
    summarises: fn(&Scene<'_>) -> Move,
    /// What must be so in the end.
    ends: fn(&End<'_>),
}

impl fmt::Debug for Scenario {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

/// A scenario as it is played once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Play {
    pub(crate) scenario: &'static Scenario,
    /// Which of its variants, from the seed: each takes the remainder it needs.
    pub(crate) variant: u64,
}

/// All scenarios.
pub static SCENARIOS: [Scenario; 11] = [
    Scenario {
        name: "long",
        about: "a goal is complete after 40 turns of work and at least 6 compactions",
        limits: || Limits { compact_above_tokens: 8_000, ..limits() },
        parts: 40,
        output_bytes: 1_500,
        ..Scenario::ordinary(actor::builds, end::long)
    },
    Scenario {
        name: "budget",
        about: "a budget runs out in the middle of a turn: one wrap-up, no more turns",
        terms: || tokens(20_000, false),
        ..Scenario::ordinary(actor::works_until_told, end::budget)
    },
    Scenario {
        name: "hard-budget",
        about: "a hard budget is never crossed, summaries and lost attempts included, and ends the turn",
        terms: || tokens(120_000, true),
        limits: || Limits { compact_above_tokens: 6_000, ..limits() },
        output_bytes: 1_500,
        ..Scenario::ordinary(actor::works_until_told, end::hard_budget)
    },
    Scenario {
        name: "talker",
        about: "a model that never calls a tool is not continued: its goal rests",
        ..Scenario::ordinary(actor::talks, end::at_rest)
    },
    Scenario {
        name: "circles",
        about: "a model that does the same in every turn is blocked after three, with the evidence",
        limits: || Limits { max_steps: 4, ..limits() },
        ..Scenario::ordinary(actor::circles, end::circles)
    },
    Scenario {
        name: "failing",
        about: "a model that always fails blocks the goal with its error; without quota it is limited",
        limits: || Limits { retry_for_goal_ms: 5 * MINUTE_MS, ..limits() },
        ..Scenario::ordinary(actor::fails, end::failing)
    },
    Scenario {
        name: "false-claims",
        about: "completion is claimed falsely five times, refused by a check, and then true",
        terms: || Terms { checks: vec![CHECK.to_owned()], ..Terms::default() },
        parts: 5,
        ..Scenario::ordinary(actor::claims, end::false_claims)
    },
    Scenario {
        name: "denied",
        about: "an agent that may use no tool runs none, and its goal ends",
        terms: || Terms {
            budget: Budget { continuations: Some(12), ..Budget::default() },
            ..Terms::default()
        },
        permission: ToolPermission::Deny,
        ..Scenario::ordinary(actor::is_denied, end::denied)
    },
    Scenario {
        name: "overloaded",
        about: "a provider is overloaded for an hour; the goal lives and is complete after it",
        parts: 2,
        ..Scenario::ordinary(actor::waits, end::overloaded)
    },
    Scenario {
        name: "killer",
        about: "a tool that kills its worker each time fails the session and blocks the goal",
        limits: || Limits { max_crashes: 3, ..limits() },
        ..Scenario::ordinary(actor::kills, end::killer)
    },
    Scenario {
        name: "summaries",
        about: "summaries are empty, too large or fail three times; the goal goes on while its context fits",
        limits: || Limits { compact_above_tokens: 6_000, retry_for_goal_ms: 2 * MINUTE_MS, ..limits() },
        parts: 12,
        output_bytes: 1_500,
        summarises: actor::summarises_badly,
        ..Scenario::ordinary(actor::builds_within_a_window, end::summaries)
    },
];

impl Scenario {
    /// Returns the scenario of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    const fn ordinary(acts: fn(&Scene<'_>) -> Move, ends: fn(&End<'_>)) -> Self {
        Scenario {
            name: "",
            about: "",
            terms: Terms::default,
            limits,
            permission: ToolPermission::Allow,
            parts: 0,
            output_bytes: 0,
            acts,
            summarises: actor::summarises,
            ends,
        }
    }
}

/// Crashes are many here, and only those that a tool brings about count. A worker that stalls is no slow model.
fn limits() -> Limits {
    Limits { max_crashes: 10_000, model_call_ms: 2 * MINUTE_MS, ..Limits::default() }
}

fn tokens(tokens: u64, hard: bool) -> Terms {
    Terms { budget: Budget { tokens: Some(tokens), hard, ..Budget::default() }, ..Terms::default() }
}
