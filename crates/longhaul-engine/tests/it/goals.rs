//! Goals: they go on by themselves, and stop by themselves.

use longhaul_engine::Driven;
use longhaul_session::command::{Command, First};
use longhaul_session::entry::Fact;
use longhaul_session::goal::{Budget, BudgetKind, Goal, GoalStatus, Terms};
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::item::EffectClass;
use longhaul_tools::toolbox::Toolbox;
use uuid::Uuid;

use crate::world::{Probe, World, bounded, is_tool_start, until};

/// Turns that call a tool, each with another text, then one that calls none.
const WORKING: &str = r#"
    [[turn]]
    [[turn.step]]
    [[turn.step.call]]
    tool = "probe"
    arguments = { n = 1 }
    [[turn.step]]
    text = "One thing done."
    [[turn]]
    [[turn.step]]
    [[turn.step.call]]
    tool = "probe"
    arguments = { n = 2 }
    [[turn.step]]
    text = "Another done."
    [[turn]]
    [[turn.step]]
    text = "Nothing left."
    [[turn]]
    [[turn.step]]
    text = "Never reached."
"#;

async fn pursuing(world: &World, budget: Budget) -> SessionId {
    let (id, objective) = (GoalId(Uuid::new_v4()), "make it work".to_owned());
    let first = First::Goal { id, objective, terms: Terms { budget, ..Terms::default() } };
    world.create(world.configuration(), first).await
}

async fn goal(world: &World, session: SessionId) -> Goal {
    world.state(session).await.goal.unwrap()
}

fn world(script: &str, probe: &Probe) -> World {
    World::new(script, Toolbox::empty().with(probe.tool("probe", EffectClass::Once)))
}

#[tokio::test(start_paused = true)]
async fn a_goal_goes_on_until_a_turn_calls_no_tool() {
    let probe = Probe::open();
    let world = world(WORKING, &probe);
    let session = pursuing(&world, Budget::default()).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let goal = goal(&world, session).await;
    assert_eq!((goal.status, goal.suppressed, goal.used.continuations), (GoalStatus::Active, true, 3));
    assert_eq!(world.said(session).await.last().unwrap(), "model: Nothing left.");
    let state = world.state(session).await;
    assert_eq!(goal.used.tokens, state.ledger.measured.budget_tokens());
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_crossed_budget_is_told_once_and_nothing_is_continued() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        repeat = 3
        usage = { input = 60, output = 1 }
        [[turn.step.call]]
        tool = "probe"
        [[turn.step]]
        text = "Wrapped up."
        [[turn]]
        [[turn.step]]
        text = "Never reached."
    "#;
    let world = world(script, &Probe::open());
    let session = pursuing(&world, Budget { tokens: Some(50), ..Budget::default() }).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    let log = world.log(session).await;
    let told: Vec<_> =
        log.iter()
            .filter_map(|entry| {
                if let Fact::Steering { budget, .. } = entry.record.fact { Some(budget) } else { None }
            })
            .collect();
    assert_eq!(told, [Some(BudgetKind::Tokens)]);
    assert_eq!(goal(&world, session).await.status, GoalStatus::BudgetLimited);
    assert_eq!(world.said(session).await.last().unwrap(), "model: Wrapped up.");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_pauses_the_goal_and_it_can_be_resumed() {
    let probe = Probe::shut();
    let world = world(WORKING, &probe);
    let session = pursuing(&world, Budget::default()).await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.interrupt(session).await;
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Paused);
    probe.gate.cancel();
    world.command(session, Command::ResumeGoal).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!(goal(&world, session).await.status, GoalStatus::Active);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_goal_that_turns_in_circles_is_blocked() {
    let turn =
        "[[turn]]\n[[turn.step]]\n[[turn.step.call]]\ntool = \"probe\"\n[[turn.step]]\ntext = \"Hm.\"\n";
    let probe = Probe::open();
    let world = world(&turn.repeat(10), &probe);
    let session = pursuing(&world, Budget::default()).await;
    assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
    assert_eq!((goal(&world, session).await.status, probe.count()), (GoalStatus::Blocked, 3));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_blocks_the_goal() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "Never."
        fail = { class = "quota" }
    "#;
    let world = world(script, &Probe::open());
    let session = pursuing(&world, Budget::default()).await;
    assert!(matches!(bounded(world.run(session)).await, Driven::Failed(_)));
    assert_eq!(goal(&world, session).await.status, GoalStatus::UsageLimited);
    world.sound(session).await;
}
