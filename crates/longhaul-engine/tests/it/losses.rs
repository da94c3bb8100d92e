//! What is lost with a worker is counted as what it can have cost, and where no call can have been under way nothing is.

use longhaul_engine::{Driven, Host as _};
use longhaul_session::command::{Command, First};
use longhaul_session::entry::Fact;
use longhaul_session::goal::{Budget, GoalStatus, Terms};
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::item::EffectClass;
use longhaul_tools::toolbox::Toolbox;
use uuid::Uuid;

use crate::world::{Probe, World, bounded, calling, is_kind, until};

const HANGS: &str = "[[turn]]\n[[turn.step]]\nfail = { hang = true }\ntext = \"Never.\"\n";

/// The tokens that each takeover took to be lost.
async fn estimates(world: &World, session: SessionId) -> Vec<u64> {
    let log = world.log(session).await;
    let of = |fact: &Fact| {
        if let Fact::Acquired { lost: true, estimate, .. } = fact { Some(estimate.tokens()) } else { None }
    };
    log.iter().filter_map(|entry| of(&entry.record.fact)).collect()
}

/// Kills a worker that waits for its model.
async fn killed_while_calling(world: &World, session: SessionId) {
    let driving = world.spawn(session).await;
    world.host.sleep_ms(1_000).await;
    driving.abort();
    drop(driving.await);
}

#[tokio::test(start_paused = true)]
async fn a_worker_lost_between_its_last_answer_and_the_end_of_the_turn_costs_nothing() {
    let probe = Probe::open();
    let tools = Toolbox::empty().with(probe.tool("probe", EffectClass::Once));
    let world = World::new(&calling(&["probe"]), tools);
    let session = world.session("go").await;
    let (stall, mut watcher) = (world.store.stall_at("turn_finished"), world.engine.watch(session, 0));
    let driving = world.spawn(session).await;
    until(&mut watcher, is_kind("tool_step")).await;
    until(&mut watcher, is_kind("model_step")).await;
    driving.abort();
    drop(driving.await);
    stall.cancel();
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(estimates(&world, session).await, [0]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_interrupted_after_its_worker_was_lost_is_counted_once() {
    let world = World::new(HANGS, Toolbox::empty());
    let session = world.session("go").await;
    killed_while_calling(&world, session).await;
    world.interrupt(session).await;
    let stall = world.store.stall_at("interrupted");
    killed_while_calling(&world, session).await;
    stall.cancel();
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let estimates = estimates(&world, session).await;
    assert!(matches!(estimates[..], [1..=u64::MAX, 0]), "{estimates:?}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_edited_away_as_its_worker_was_lost_is_counted() {
    let world = World::new(HANGS, Toolbox::empty());
    let session = world.session("go").await;
    killed_while_calling(&world, session).await;
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    world.command(session, Command::SetGoal { id, objective, terms: Terms::default(), message: None }).await;
    world.engine.edit(session, None, "rather that", None).await.unwrap().unwrap();
    assert!(world.state(session).await.steering_is_due(), "no call is owed now");
    killed_while_calling(&world, session).await;
    let estimates = estimates(&world, session).await;
    assert!(matches!(estimates[..], [1..=u64::MAX]), "{estimates:?}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_of_which_nothing_is_left_is_counted_still() {
    let world = World::new(HANGS, Toolbox::empty());
    let session = world.session("go").await;
    killed_while_calling(&world, session).await;
    world.command(session, Command::Redact { entry: 2 }).await;
    world.command(session, Command::Configure(Box::new(world.configuration()))).await;
    killed_while_calling(&world, session).await;
    let estimates = estimates(&world, session).await;
    assert!(matches!(estimates[..], [1..=u64::MAX]), "{estimates:?}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_begun_before_a_hard_budget_was_lowered_is_counted_for_all_it_can_have_cost() {
    let world = World::new(HANGS, Toolbox::empty());
    let budget = |tokens| Budget { tokens: Some(tokens), hard: true, ..Budget::default() };
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    let terms = Terms { budget: budget(1_000_000), ..Terms::default() };
    let session = world.create(world.configuration(), First::Goal { id, objective, terms }).await;
    killed_while_calling(&world, session).await;
    let lowered = budget(1_000);
    let edit = Command::EditGoal { objective: None, budget: Some(lowered), checks: None, protected: None };
    world.command(session, edit).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = world.state(session).await.goal.unwrap();
    assert_eq!(goal.status, GoalStatus::BudgetLimited);
    assert!(goal.used.estimated_tokens > 100_000, "an answer may be long: {:?}", goal.used);
    assert_eq!(goal.used.tokens, goal.used.estimated_tokens);
    assert!(!world.kinds(session).await.contains("model_step"));
    world.sound(session).await;
}
