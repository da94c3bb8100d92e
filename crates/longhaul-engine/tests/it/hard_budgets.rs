//! Hard budgets: nothing is begun that could cross a limit, and what is under way ends in time.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use longhaul_engine::{Driven, Host as _};
use longhaul_model::{Error, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::agent::ModelChoice;
use longhaul_session::command::First;
use longhaul_session::entry::{Fact, FinishReason};
use longhaul_session::goal::{Budget, BudgetKind, Goal, GoalStatus, Terms};
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_session::usage::Usage;
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use uuid::Uuid;

use crate::world::{Probe, World, bounded, calling, is_kind, spec, until};

/// The most tokens of one answer.
const OUTPUT: u64 = 50;

async fn pursuing(world: &World, budget: Budget) -> SessionId {
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    let terms = Terms { budget: Budget { hard: true, ..budget }, ..Terms::default() };
    let mut configuration = world.configuration();
    configuration.model = ModelChoice { max_output_tokens: Some(OUTPUT), ..configuration.model };
    world.create(configuration, First::Goal { id, objective, terms }).await
}

async fn goal(world: &World, session: SessionId) -> Goal {
    world.state(session).await.goal.unwrap()
}

async fn ended_by(world: &World, session: SessionId) -> FinishReason {
    let log = world.log(session).await;
    let reason =
        |fact: &Fact| if let Fact::TurnFinished { reason, .. } = fact { Some(*reason) } else { None };
    log.iter().rev().find_map(|entry| reason(&entry.record.fact)).unwrap()
}

/// A model that works on and on, and reports so much for each answer.
fn working(input: u64, output: u64) -> String {
    format!(
        "[[turn]]\n[[turn.step]]\nrepeat = 1000\nusage = {{ input = {input}, output = {output} }}\n\
         [[turn.step.call]]\ntool = \"probe\"\narguments = {{ n = 1 }}\n"
    )
}

fn world(script: &str, probe: &Probe) -> World {
    World::new(script, Toolbox::empty().with(probe.tool("probe", EffectClass::Once)))
}

#[tokio::test(start_paused = true)]
async fn no_call_is_started_that_could_cross_a_hard_budget() {
    let probe = Probe::open();
    let world = world(&working(1_000, OUTPUT), &probe);
    let limit = 20_000;
    let session = pursuing(&world, Budget { tokens: Some(limit), ..Budget::default() }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert!(probe.count() > 3, "it did work: {} calls", probe.count());
    assert!(goal.used.tokens <= limit, "{} of {limit}", goal.used.tokens);
    assert_eq!(goal.used.tokens, world.state(session).await.ledger.measured.budget_tokens());
    assert_eq!(goal.status, GoalStatus::BudgetLimited);
    assert_eq!(goal.reason.as_deref(), Some("the token budget leaves no room for another call"));
    assert_eq!(ended_by(&world, session).await, FinishReason::HardBudget(BudgetKind::Tokens));
    assert!(!world.kinds(session).await.contains("steering"), "there is no room to be told anything");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_hard_budget_too_small_for_one_call_starts_none() {
    let world = world(&working(10, 1), &Probe::open());
    let session = pursuing(&world, Budget { tokens: Some(100), ..Budget::default() }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!((goal.status, goal.used.tokens), (GoalStatus::BudgetLimited, 0));
    assert!(!world.kinds(session).await.contains("model_step"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_attempt_counts_for_all_it_can_have_cost_under_a_hard_budget() {
    let script = "[[turn]]\n[[turn.step]]\nfail = { hang = true }\ntext = \"Never.\"\n";
    let world = world(script, &Probe::open());
    let session = pursuing(&world, Budget { tokens: Some(100_000), ..Budget::default() }).await;
    let driving = world.spawn(session).await;
    world.host.sleep_ms(1_000).await;
    driving.abort();
    drop(driving.await);
    let worker = world.spawn(session).await;
    world.host.sleep_ms(1_000).await;
    worker.abort();
    drop(worker.await);
    let used = goal(&world, session).await.used;
    assert!(used.estimated_tokens >= OUTPUT + 2_048, "{used:?}");
    assert_eq!(used.tokens, used.estimated_tokens);
}

/// A worker that dies where there was no room for a call was not making one.
#[tokio::test(start_paused = true)]
async fn what_there_was_no_room_for_is_not_estimated_when_its_worker_is_lost() {
    let (limit, probe) = (20_000, Probe::open());
    let world = world(&working(15_000, OUTPUT), &probe);
    let session = pursuing(&world, Budget { tokens: Some(limit), ..Budget::default() }).await;
    let (stall, mut watcher) = (world.store.stall_at("turn_finished"), world.engine.watch(session, 0));
    let driving = world.spawn(session).await;
    until(&mut watcher, is_kind("tool_step")).await;
    driving.abort();
    drop(driving.await);
    stall.cancel();
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!((goal.used.tokens, goal.used.estimated_tokens), (15_000 + OUTPUT, 0));
    assert_eq!(goal.reason.as_deref(), Some("the token budget leaves no room for another call"));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_ends_with_the_time_of_a_hard_budget() {
    let probe = Probe::shut();
    let world = world(&working(10, 1), &probe);
    let session = pursuing(&world, Budget { active_ms: Some(5_000), ..Budget::default() }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!(world.outcomes(session).await, [Outcome::Stopped]);
    assert_eq!(goal.status, GoalStatus::BudgetLimited);
    assert!((5_000..6_000).contains(&goal.used.active_ms), "{} ms", goal.used.active_ms);
    assert_eq!(ended_by(&world, session).await, FinishReason::HardBudget(BudgetKind::Time));
    world.sound(session).await;
}

/// What was committed on the way is not told again when the time is over, and what began is not called not run.
#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_hear_that_its_time_is_over_is_stopped_beside_one_that_was_done() {
    let quick = function(spec("quick", EffectClass::Once), |_, _| async { ToolOutput::ok("done") });
    let deaf = function(spec("deaf", EffectClass::Once), |_, _| std::future::pending());
    let world = World::new(&calling(&["quick", "deaf"]), Toolbox::empty().with(quick).with(deaf));
    let session = pursuing(&world, Budget { active_ms: Some(5_000), ..Budget::default() }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let steps = world.log(session).await;
    let steps = steps.iter().filter(|entry| matches!(entry.record.fact, Fact::ToolStep { .. })).count();
    assert_eq!(steps, 2, "what was done was committed before");
    assert_eq!(world.outcomes(session).await, [Outcome::Ok, Outcome::Stopped]);
    assert_eq!(ended_by(&world, session).await, FinishReason::HardBudget(BudgetKind::Time));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_way_ends_with_the_time_of_a_hard_budget() {
    let script = "[[turn]]\n[[turn.step]]\nfail = { hang = true }\ntext = \"Never.\"\n";
    let world = world(script, &Probe::open());
    let session = pursuing(&world, Budget { active_ms: Some(5_000), ..Budget::default() }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!(goal.status, GoalStatus::BudgetLimited);
    assert!((5_000..6_000).contains(&goal.used.active_ms), "{} ms", goal.used.active_ms);
    world.sound(session).await;
}

/// Names its answer, says what it has used so far, and never ends. Its provider would go on making it.
struct Endless(Mutex<Vec<String>>);

#[async_trait]
impl Model for Endless {
    fn identity(&self) -> Identity {
        Identity { provider: "test".to_owned(), model: "endless".to_owned(), scripted: true }
    }

    async fn call(&self, _: ModelCall) -> Result<PartStream, Error> {
        let usage = Part::Usage { usage: Usage { input: 7, ..Usage::default() } };
        let begun = [Part::Started { response_id: Some("r1".to_owned()) }, usage];
        Ok(Box::pin(stream::iter(begun.map(Ok)).chain(stream::pending())))
    }

    async fn cancel(&self, response_id: &str) -> Result<(), Error> {
        self.0.lock().unwrap().push(response_id.to_owned());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_made_in_the_background_ends_with_the_time_of_a_hard_budget_and_at_its_provider() {
    let model = Arc::new(Endless(Mutex::default()));
    let world = World::of(model.clone(), Toolbox::empty());
    let budget = Budget { active_ms: Some(5_000), hard: true, ..Budget::default() };
    let terms = Terms { budget, ..Terms::default() };
    let mut configuration = world.configuration();
    configuration.model.resumable = true;
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    let session = world.create(configuration, First::Goal { id, objective, terms }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!((goal.status, goal.used.tokens), (GoalStatus::BudgetLimited, 7), "what is known is paid");
    assert_eq!(ended_by(&world, session).await, FinishReason::HardBudget(BudgetKind::Time));
    assert_eq!(*model.0.lock().unwrap(), ["r1"]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_not_waited_for_past_the_time_of_a_hard_budget() {
    let script =
        "[[turn]]\n[[turn.step]]\nfail = { class = \"overloaded\", times = 100 }\ntext = \"Never.\"\n";
    let world = world(script, &Probe::open());
    let session = pursuing(&world, Budget { active_ms: Some(20_000), ..Budget::default() }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!(goal.status, GoalStatus::BudgetLimited);
    assert!((20_000..21_000).contains(&goal.used.active_ms), "{} ms", goal.used.active_ms);
}
