//! The fold that says what was spent, and on what.

use longhaul_session::agent::{Configuration, ModelChoice};
use longhaul_session::command::{Command, OwnerAction};
use longhaul_session::entry::Entry;
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::Budget;
use longhaul_session::ledger::{Ledger, ModelName, Spent};
use longhaul_session::prices::{Prices, Rates};
use longhaul_session::usage::{Spend, Totals, Usage};
use proptest::prelude::*;

use crate::driver::{Session, call, configuration, failure, goal_id, retry, set_goal};
use crate::random::{Driven, Seed, seeds};

fn ledger(entries: &[Entry]) -> Ledger {
    let mut ledger = Ledger::default();
    for entry in entries {
        ledger.push(&entry.record, entry.content.as_ref().map(|payload| &payload.content));
    }
    ledger
}

fn drive(seeds: &[Seed]) -> Session {
    let mut driven = Driven::new();
    for seed in seeds {
        let command = driven.next(*seed);
        let _may_be_refused = driven.session.attempt(command);
    }
    driven.session
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_the_log_says_was_spent_is_what_the_state_counts(seeds in seeds(120)) {
        let session = drive(&seeds);
        let ledger = ledger(&session.entries);
        prop_assert_eq!(ledger.disagreements(&session.state), Vec::<String>::new());
        prop_assert_eq!(ledger.total.totals, session.state.ledger);
        let goal = session.state.goal.as_ref().map(|goal| (Some(goal.id), goal.used));
        prop_assert_eq!(ledger.present_goal().map(|goal| (goal.goal, goal.used)), goal);
    }

    #[test]
    fn models_goals_and_work_each_come_to_all_that_was_spent(seeds in seeds(120)) {
        let ledger = ledger(&drive(&seeds).entries);
        let work = ledger.work;
        let work = [
            work.turns, work.failed, work.compactions, work.obsolete, work.interrupted, work.lost,
        ];
        prop_assert_eq!(ledger.models.iter().map(|model| model.spent).sum::<Spent>(), ledger.total);
        prop_assert_eq!(ledger.goals.iter().map(|goal| goal.spent).sum::<Spent>(), ledger.total);
        prop_assert_eq!(work.into_iter().sum::<Spent>(), ledger.total);
    }
}

/// What a call of so many tokens costs that took a second.
fn spend(session: &Session, tokens: u64) -> Spend {
    Spend { active_ms: 1_000, configured_at: session.state.configured_at, ..session.spend(tokens) }
}

fn input(spent: Spent) -> u64 {
    spent.totals.measured.input
}

#[test]
fn each_kind_of_work_counts_apart() {
    let mut session = Session::running();
    session.model_for(&[call("a")], spend(&session, 1));
    session.tools(&[("a", longhaul_session::item::Outcome::Ok)]);
    let again = retry(FailureClass::Overloaded, session.now);
    let failed = failure(FailureClass::Overloaded);
    let basis = session.basis();
    session.own(OwnerAction::BeginRetry { basis, failure: failed, retry: again, spend: spend(&session, 2) });
    let (basis, failed) = (session.basis(), failure(FailureClass::Server));
    let paid = spend(&session, 4);
    session.own(OwnerAction::FailCompaction { basis, failure: failed, spend: paid, automatic_off: false });
    let (basis, keep_from, paid) = (session.basis(), session.state.head + 1, spend(&session, 8));
    let summary = "What was done.".to_owned();
    session.own(OwnerAction::Compact { basis, summary, keep_from, kept: Vec::new(), spend: paid });
    session.own(OwnerAction::Settle { spend: spend(&session, 16) });
    let estimate = Usage { input: 32, ..Usage::default() };
    let (worker, lost) = (session.state.owner.unwrap().worker, session.state.owner);
    session.run(Command::Acquire { worker, lost, estimate });
    session.run(Command::Interrupt { drop_queue: false });
    let (cut, partial, paid) = (longhaul_session::command::Cut::default(), Vec::new(), spend(&session, 64));
    session.own(OwnerAction::FinishInterruption { cut, partial, spend: paid });

    let ledger = ledger(&session.entries);
    let work = ledger.work;
    assert_eq!((input(work.turns), work.turns.calls, work.turns.attempts), (1, 1, 1));
    assert_eq!((input(work.failed), work.failed.calls, work.failed.attempts), (2, 0, 1));
    assert_eq!((input(work.compactions), work.compactions.calls, work.compactions.attempts), (12, 1, 2));
    assert_eq!((input(work.obsolete), work.obsolete.attempts), (16, 1));
    assert_eq!((input(work.interrupted), work.interrupted.attempts), (64, 1));
    assert_eq!((work.lost.totals, work.lost.attempts), (Totals::of_lost(estimate), 1));
    assert_eq!((input(ledger.total), ledger.total.calls, ledger.total.attempts), (95, 2, 7));
    assert_eq!((ledger.total.totals.estimated, ledger.total.totals.active_ms), (estimate, 6_000));
}

#[test]
fn each_goal_counts_apart_and_so_does_work_for_none() {
    let mut session = Session::running();
    session.model_for(&[], spend(&session, 1)).finish();
    session.run(set_goal(1, "first", Budget::default())).acquire();
    session.model_for(&[call("a")], spend(&session, 2));
    session.tools(&[("a", longhaul_session::item::Outcome::Ok)]);
    // It began under the first, which is gone when it is paid for.
    let late = spend(&session, 4);
    session.run(set_goal(2, "second", Budget::default()));
    session.own(OwnerAction::CommitSteering);
    session.own(OwnerAction::Settle { spend: late });
    session.model_for(&[], spend(&session, 8));
    let estimate = Usage { input: 16, ..Usage::default() };
    let (worker, lost) = (session.state.owner.unwrap().worker, session.state.owner);
    session.run(Command::Acquire { worker, lost, estimate });

    let ledger = ledger(&session.entries);
    let goals: Vec<_> = ledger.goals.iter().map(|goal| (goal.goal, goal.used.tokens)).collect();
    assert_eq!(goals, [(None, 5), (Some(goal_id(1)), 2), (Some(goal_id(2)), 24)]);
    let second = ledger.present_goal().unwrap();
    assert_eq!((input(second.spent), second.spent.totals.estimated), (8, estimate));
    assert_eq!((second.objective.as_deref(), second.used.estimated_tokens), (Some("second"), 16));
}

/// A model of this name, whose price is known or not, and the one that summarises.
fn configured(name: &str, priced: bool) -> Configuration {
    let prices = priced.then(|| Prices { rates: Rates { input: 1, ..Rates::default() }, tiers: Vec::new() });
    let model = ModelChoice { prices, ..ModelChoice::new("vendor", name) };
    let summariser = Some(Box::new(ModelChoice::new("other", "summaries")));
    Configuration { model, summariser, ..configuration() }
}

#[test]
fn each_model_counts_apart_with_the_configuration_its_call_began_with() {
    let mut session = Session::created();
    session.run(Command::Configure(Box::new(configured("large", true)))).send("begin").acquire().prepare();
    let old = spend(&session, 1);
    session.run(Command::Configure(Box::new(configured("small", false))));
    session.model_for(&[call("a")], old);
    session.tools(&[("a", longhaul_session::item::Outcome::Ok)]);
    let (basis, again) = (session.basis(), retry(FailureClass::Overloaded, session.now));
    let paid = Spend { summary: true, ..spend(&session, 2) };
    let failed = failure(FailureClass::Overloaded);
    session.own(OwnerAction::BeginRetry { basis, failure: failed, retry: again, spend: paid });
    session.own(OwnerAction::Settle { spend: spend(&session, 4) });
    let named = |log: &[Entry]| {
        let models = ledger(log).models;
        let one = |model: longhaul_session::ledger::ModelSpent| {
            let name = model.model.map(|ModelName { provider, name }| format!("{provider} {name}"));
            (name.unwrap_or_default(), input(model.spent), model.spent.unpriced_tokens)
        };
        models.into_iter().map(one).collect::<Vec<_>>()
    };
    let of = |name: &str, tokens, unpriced| (name.to_owned(), tokens, unpriced);
    let [large, small] = [of("vendor large", 1, 0), of("vendor small", 4, 4)];
    assert_eq!(named(&session.entries), [large.clone(), small, of("other summaries", 2, 2)]);
    // What a redacted configuration said, nobody knows.
    let newest = session.state.configured_at;
    session
        .entries
        .iter_mut()
        .filter(|entry| entry.record.n == newest)
        .for_each(|entry| entry.content = None);
    assert_eq!(named(&session.entries), [large, of("", 6, 6)]);
}

#[test]
fn what_was_spent_names_its_configuration_only_where_another_is_in_force() {
    let named = |session: &mut Session, configured_at| {
        let spend = Spend { configured_at, ..session.spend(1) };
        session.own(OwnerAction::Settle { spend });
        session.newest_fact().charge().expect("it was charged").spend.configured_at
    };
    let mut session = Session::running();
    let first = session.state.configured_at;
    assert_eq!(named(&mut session, first), 0);
    session.run(Command::Configure(Box::new(configuration())));
    let second = session.state.configured_at;
    assert_eq!((named(&mut session, first), named(&mut session, second)), (first, 0));
}
