//! What must be so when a scenario has ended by itself: the state, the reason a person is shown, the budget, and
//! what is in the log.

use longhaul_engine::Engine;
use longhaul_session::entry::{CallFact, Entry, Fact, ModelGoal, Next, ResultFact};
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::{Goal, GoalStatus, GoalUsage, UPDATE_GOAL};
use longhaul_session::id::SessionId;
use longhaul_session::item::{Item, Outcome, ToolResult};
use longhaul_session::state::{SessionState, Status};
use longhaul_session::usage::Usage;

use super::{CHECK, OVERLOADED_MS, Play};
use crate::world::World;

/// A scenario that has ended.
pub(crate) struct End<'a> {
    world: &'a World,
    play: Play,
    state: SessionState,
    goal: Goal,
    entries: Vec<Entry>,
}

/// Checks how a scenario has ended.
pub(crate) async fn check(world: &World, engine: &Engine, play: Play, session: SessionId) {
    let read = async {
        let state = engine.snapshot(session).await?.state;
        let entries = engine.entries(session, 1..=state.head).await?;
        Ok::<_, longhaul_engine::Error>((state, entries))
    };
    let (state, entries) = match read.await {
        Ok(read) => read,
        Err(error) => return world.broken("Scenario", format!("its session cannot be read: {error}")),
    };
    let Some(goal) = state.goal.clone() else { return world.broken("Scenario", "its goal is gone") };
    let end = End { world, play, state, goal, entries };
    end.is_accounted();
    (play.scenario.ends)(&end);
}

impl End<'_> {
    fn hold(&self, holds: bool, what: impl FnOnce() -> String) {
        self.world.hold(holds, "Scenario", || {
            let Goal { status, reason, used, .. } = &self.goal;
            let state = self.state.status.name();
            format!("{}; it is {state}, the goal {status:?} because of {reason:?}, {used:?}", what())
        });
    }

    /// Holds where session and goal stand, and the reason that a person is shown.
    fn ends(&self, status: Status, goal: GoalStatus, reason: Option<&str>) {
        let as_told = self.state.status == status && self.goal.status == goal;
        self.hold(as_told && self.goal.reason.as_deref() == reason, || {
            format!("it should be {}, the goal {goal:?} because of {reason:?}", status.name())
        });
    }

    fn has_continuations(&self, continuations: u64) {
        let used = self.goal.used.continuations;
        self.hold(used == continuations, || format!("{used} continuations in place of {continuations}"));
    }

    /// Usage is the sum over the calls that were paid for, and each continuation was counted and begun once.
    fn is_accounted(&self) {
        let (ledger, used) = (&self.state.ledger, &self.goal.used);
        let mut reported = Usage::default();
        for attempt in self.world.truth().attempts.values().filter(|attempt| attempt.charged.is_some()) {
            reported += attempt.reported.last().copied().unwrap_or_default();
        }
        self.hold(ledger.measured == reported, || {
            format!("the ledger says {:?}, models reported {reported:?}", ledger.measured)
        });
        let (measured, estimated) = (reported.budget_tokens(), ledger.estimated.budget_tokens());
        self.hold(used.tokens == measured + estimated && used.estimated_tokens == estimated, || {
            format!("{measured} tokens were measured and {estimated} estimated")
        });
        let (active_ms, elapsed_ms) = (used.active_ms, self.world.elapsed_ms());
        self.hold(active_ms == ledger.active_ms && active_ms <= elapsed_ms, || {
            format!("{active_ms} ms of work, {} ms in the ledger, in {elapsed_ms} ms", ledger.active_ms)
        });
        let begun = self.entries.iter().filter(|entry| continues(&entry.record.fact)).count() as u64;
        self.has_continuations(begun);
    }

    /// Returns what the goal had used before an entry.
    fn used_before(&self, n: usize) -> GoalUsage {
        let mut used = GoalUsage::default();
        for entry in &self.entries[..n] {
            if let Some(charge) = entry.record.fact.charge() {
                used.add(&charge.spend);
            }
            if let Fact::Acquired { estimate, .. } = &entry.record.fact {
                used.add_estimate(estimate);
            }
        }
        used
    }

    fn count(&self, is_one: impl Fn(&Fact) -> bool) -> usize {
        self.entries.iter().filter(|entry| is_one(&entry.record.fact)).count()
    }

    fn calls_of(&self, tool: &str) -> Vec<(&CallFact, &ResultFact)> {
        let mut calls = Vec::new();
        let mut open: &[CallFact] = &[];
        for entry in &self.entries {
            if let Fact::ModelStep { calls, .. } = &entry.record.fact {
                open = calls;
            }
            let (Fact::ToolStep { results, .. } | Fact::Failed { results, .. }) = &entry.record.fact else {
                continue;
            };
            for result in results {
                calls.extend(open.iter().filter(|call| call.id == result.call).map(|call| (call, result)));
            }
        }
        calls.retain(|(call, _)| call.tool == tool);
        calls
    }

    fn results(&self) -> impl Iterator<Item = &ToolResult> {
        self.entries.iter().flat_map(Entry::items).filter_map(Item::tool_result)
    }

    fn failed_as(&self, class: FailureClass, message: &str) {
        let error = self.state.last_error.as_ref();
        let told = error.is_some_and(|error| error.class == class && error.message == message);
        self.hold(told, || format!("{error:?} in place of {class:?}: {message}"));
    }
}

fn continues(fact: &Fact) -> bool {
    fact.next() == Some(Next::Continue)
}

fn is_told_of_a_budget(fact: &Fact) -> bool {
    matches!(fact, Fact::Steering { budget: Some(_), .. })
}

/// Complete after a turn for each part and one that says so, over many compactions.
pub(crate) fn long(end: &End<'_>) {
    let parts = end.play.scenario.parts as u64;
    end.ends(Status::Waiting, GoalStatus::Complete, None);
    end.has_continuations(parts + 1);
    let compactions = end.count(|fact| matches!(fact, Fact::Compacted { .. }));
    end.hold(compactions >= 6, || format!("{compactions} compactions"));
    let works = end.calls_of("work").len() as u64;
    end.hold(works == parts, || format!("{works} turns of work"));
}

/// One wrap-up after the call that crossed it, and nothing more.
pub(crate) fn budget(end: &End<'_>) {
    end.ends(Status::Waiting, GoalStatus::BudgetLimited, Some("the token budget is used up"));
    end.has_continuations(1);
    let told = end.count(is_told_of_a_budget);
    end.hold(told == 1, || format!("the model was told {told} times to wrap up"));
    let crosses = |entry: &Entry| {
        let crossed = entry.record.fact.charge().and_then(|charge| charge.crossed);
        let by_estimate = matches!(entry.record.fact, Fact::Acquired { crossed: Some(_), .. });
        crossed.is_some() || by_estimate
    };
    let Some(at) = end.entries.iter().position(crosses) else {
        return end.hold(false, || "no entry crossed the budget".to_owned());
    };
    let (before, limit) = (end.used_before(at).tokens, end.goal.budget.tokens.unwrap_or_default());
    end.hold(before < limit, || format!("{before} tokens were used before the entry that crosses"));
    let answers = end.entries[at + 1..].iter();
    let answers = answers.filter(|entry| matches!(entry.record.fact, Fact::ModelStep { .. })).count();
    end.hold(answers == 1, || format!("{answers} answers after the budget was crossed"));
}

/// Never over it, whatever was lost on the way.
pub(crate) fn hard_budget(end: &End<'_>) {
    let reason = "the token budget leaves no room for another call";
    end.ends(Status::Waiting, GoalStatus::BudgetLimited, Some(reason));
    end.has_continuations(1);
    let (used, limit) = (end.goal.used.tokens, end.goal.budget.tokens.unwrap_or_default());
    end.hold(0 < used && used <= limit, || format!("{used} tokens of {limit}"));
    let told = end.count(is_told_of_a_budget);
    end.hold(told == 0, || format!("{told} wrap-ups under a hard budget"));
}

/// Active still, and not continued.
pub(crate) fn at_rest(end: &End<'_>) {
    end.ends(Status::Waiting, GoalStatus::Active, None);
    end.has_continuations(1);
    end.hold(end.goal.suppressed, || "nothing says why it rests".to_owned());
}

pub(crate) fn circles(end: &End<'_>) {
    let same = match end.state.turn.tool_calls {
        1 => "call with the same result".to_owned(),
        calls => format!("{calls} calls with the same results"),
    };
    let reason = format!("the last 3 turns made the same {same}");
    end.ends(Status::Waiting, GoalStatus::Blocked, Some(&reason));
    end.has_continuations(3);
}

pub(crate) fn failing(end: &End<'_>) {
    let class = end.play.failure();
    let quota = class == FailureClass::Quota;
    let status = if quota { GoalStatus::UsageLimited } else { GoalStatus::Blocked };
    let reason = end.goal.reason.clone().unwrap_or_default();
    end.ends(Status::Failed, status, Some(&reason));
    if class == FailureClass::ContextOverflow {
        end.failed_as(FailureClass::ContextStillOverLimit, &reason);
        let told =
            reason.ends_with(" tokens, more than the model takes, and there is nothing left to summarise");
        end.hold(told, || "the reason is not the provider's".to_owned());
    } else {
        end.failed_as(class, "the provider always fails");
    }
    end.has_continuations(1);
}

/// Refused as often as parts were missing, each time with the check and what it said.
pub(crate) fn false_claims(end: &End<'_>) {
    end.ends(Status::Waiting, GoalStatus::Complete, None);
    let claims = end.calls_of(UPDATE_GOAL);
    let refused = claims.iter().filter(|(_, result)| result.outcome == Outcome::Error).count();
    let parts = end.play.scenario.parts;
    end.hold(refused == parts, || format!("{refused} claims were refused"));
    for missing in 0..parts {
        let said = format!("<check>{CHECK}</check>\nIt ended with exit code 1.");
        let output = format!("{missing} of {parts} parts stand");
        let told = |result: &ToolResult| result.output.contains(&said) && result.output.contains(&output);
        let times = end.results().filter(|result| told(result)).count();
        end.hold(times == 1, || format!("the model was told {times} times that {output}"));
    }
    let completed = |fact: &Fact| matches!(fact, Fact::ToolStep { goal: Some(ModelGoal::Completed), .. });
    let completed = end.count(completed);
    end.hold(completed == 1, || format!("it was completed {completed} times"));
}

/// No call was run, and each says so.
pub(crate) fn denied(end: &End<'_>) {
    let started = end.world.truth().starts.len();
    end.hold(started == 0, || format!("{started} calls of denied tools began"));
    let honest = |result: &ToolResult| {
        result.outcome == Outcome::Denied && result.output.contains("this agent may not use the tool")
    };
    end.hold(end.results().all(honest), || "a denied call does not say so".to_owned());
    match end.play.variant % 4 {
        1 => {
            end.ends(Status::Waiting, GoalStatus::BudgetLimited, Some("the turn budget is used up"));
            end.has_continuations(12);
        }
        3 => at_rest(end),
        _ => circles(end),
    }
}

pub(crate) fn overloaded(end: &End<'_>) {
    end.ends(Status::Waiting, GoalStatus::Complete, None);
    end.has_continuations(end.play.scenario.parts as u64 + 1);
    let retries = end.entries.iter().filter(|entry| matches!(entry.record.fact, Fact::Retry { .. }));
    let began = end.entries[0].record.at;
    let late = retries.filter(|entry| entry.record.at.since_ms(began) > OVERLOADED_MS / 60 * 55).count();
    end.hold(late > 0, || "it was not tried for an hour".to_owned());
}

/// Each call was begun once, and no fourth.
pub(crate) fn killer(end: &End<'_>) {
    let message = end.goal.reason.clone().unwrap_or_default();
    end.ends(Status::Failed, GoalStatus::Blocked, Some(&message));
    end.failed_as(FailureClass::CrashLoop, &message);
    // One more may die as it is about to say so.
    let told = message.starts_with("the worker died ") && message.ends_with(" times without getting further");
    end.hold(told, || "the reason does not say what happened".to_owned());
    let kills: Vec<u32> = end.world.truth().starts.values().copied().collect();
    end.hold(kills.len() <= 3 && kills.iter().all(|times| *times == 1), || format!("calls began {kills:?}"));
    let unknown =
        |(_, result): &(&CallFact, &ResultFact)| matches!(result.outcome, Outcome::Unknown | Outcome::NotRun);
    end.hold(end.calls_of("kill").iter().all(unknown), || "a call that killed has a result".to_owned());
}

/// Three that failed in a row, the third of which says that there will be no more.
pub(crate) fn summaries(end: &End<'_>) {
    let failures = |fact: &Fact| matches!(fact, Fact::CompactionFailed { .. });
    let off = |fact: &Fact| matches!(fact, Fact::CompactionFailed { automatic_off: true, .. });
    let (failures, off) = (end.count(failures), end.count(off));
    end.hold(failures == 3 && off == 1, || format!("{failures} compactions failed, {off} were the last"));
    let compacted = end.count(|fact| matches!(fact, Fact::Compacted { .. }));
    end.hold(compacted == 0, || format!("{compacted} bad summaries were taken"));
    if end.play.is_strict() {
        let message = "the request is larger than the model's window, and could not be summarised";
        end.ends(Status::Failed, GoalStatus::Blocked, Some(message));
        end.failed_as(FailureClass::ContextOverflow, message);
    } else {
        end.ends(Status::Waiting, GoalStatus::Complete, None);
        end.has_continuations(end.play.scenario.parts as u64 + 1);
    }
}
