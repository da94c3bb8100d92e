//! Calls that wait for a person's yes.

use longhaul_engine::Driven;
use longhaul_session::agent::{Configuration, ToolPermission, ToolSetting};
use longhaul_session::command::{Answer, Command, First};
use longhaul_session::id::SessionId;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_tools::toolbox::Toolbox;

use crate::world::{Probe, World, calling};

/// A session whose tool `risky` asks first, driven until it rests.
async fn asking(probe: &Probe, script: &str) -> (World, SessionId) {
    let tools = Toolbox::empty()
        .with(probe.tool("risky", EffectClass::Once))
        .with(Probe::open().tool("safe", EffectClass::Once));
    let world = World::new(script, tools);
    let setting = ToolSetting {
        name: "risky".to_owned(),
        permission: ToolPermission::Ask,
        max_output_bytes: None,
        time_limit_ms: None,
    };
    let configuration = Configuration { tools: vec![setting], ..world.configuration() };
    let session = world.create(configuration, First::Message("go".into())).await;
    assert_eq!(world.run(session).await, Driven::RequiresAction);
    assert_eq!(probe.count(), 0);
    (world, session)
}

async fn answer(world: &World, session: SessionId, answer: Answer, remember: bool) {
    let call = world.state(session).await.pending[0].id.clone();
    world.command(session, Command::Answer { call, answer, remember }).await;
}

#[tokio::test(start_paused = true)]
async fn an_allowed_call_runs_once() {
    let probe = Probe::open();
    let (world, session) = asking(&probe, &calling(&["risky"])).await;
    answer(&world, session, Answer::Allow, false).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!((probe.count(), world.outcomes(session).await), (1, vec![Outcome::Ok]));
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_denied_call_tells_the_model_why() {
    let probe = Probe::open();
    let (world, session) = asking(&probe, &calling(&["risky"])).await;
    answer(&world, session, Answer::Deny { reason: Some("not today".to_owned()) }, false).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let results = world.results(session).await;
    assert_eq!((results[0].outcome, results[0].output.as_str()), (Outcome::Denied, "not today"));
    assert_eq!(probe.count(), 0);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_yes_that_is_remembered_is_not_asked_for_again() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        repeat = 3
        [[turn.step.call]]
        tool = "risky"
        [[turn.step]]
        text = "Done."
    "#;
    let probe = Probe::open();
    let (world, session) = asking(&probe, script).await;
    answer(&world, session, Answer::Allow, true).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!((probe.count(), world.state(session).await.grants), (3, vec!["risky".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn calls_that_need_no_yes_run_before_it_is_asked_for() {
    let probe = Probe::open();
    let (world, session) = asking(&probe, &calling(&["risky", "safe"])).await;
    let state = world.state(session).await;
    assert_eq!((world.outcomes(session).await, state.pending.len()), (vec![Outcome::Ok], 1));
    assert_eq!(state.owner, None);
    answer(&world, session, Answer::Allow, false).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!(world.outcomes(session).await, [Outcome::Ok; 2]);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_answers_what_was_asked() {
    let probe = Probe::open();
    let (world, session) = asking(&probe, &calling(&["risky"])).await;
    world.interrupt(session).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    assert_eq!((world.outcomes(session).await, probe.count()), (vec![Outcome::NotRun], 0));
    world.sound(session).await;
}
