//! Forks: a session from any entry of another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use longhaul_engine::{Driven, Host};
use longhaul_model::{FinishReason, ModelCall, Part};
use longhaul_session::agent::Request;
use longhaul_session::command::{Command, First, Refusal};
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_tools::toolbox::Toolbox;

use crate::puppet::{By, calls_probe};
use crate::world::{Probe, World, bounded, calling, is_tool_start, until};

#[tokio::test(start_paused = true)]
async fn a_fork_of_any_entry_is_sound_and_goes_on() {
    let probe = Probe::open();
    let tools = Toolbox::empty().with(probe.tool("probe", EffectClass::Once));
    let world = World::new(&calling(&["probe", "probe"]), tools);
    let session = world.session("first").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    world.send(session, "second", false).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let log = world.log(session).await;
    for at in 1..=log.len() as u64 {
        let fork = world.engine.fork(session, at).await.unwrap().unwrap().session;
        world.sound(fork).await;
        assert_eq!(world.log(fork).await[..at as usize], log[..at as usize]);
        world.send(fork, "another way", false).await;
        assert_eq!(bounded(world.run(fork)).await, Driven::Waiting, "a fork at {at}");
        world.sound(fork).await;
    }
    assert_eq!(world.log(session).await, log, "the original is as it was");
}

#[tokio::test(start_paused = true)]
async fn a_call_open_in_the_original_is_not_run_in_the_fork() {
    let probe = Probe::shut();
    let tools = Toolbox::empty().with(probe.tool("wait", EffectClass::Once));
    let world = World::new(&calling(&["wait"]), tools);
    let session = world.session("go").await;
    let mut watcher = world.engine.watch(session, 0);
    let driving = world.spawn(session).await;
    until(&mut watcher, is_tool_start).await;
    world.host.sleep_ms(1).await;
    let head = world.state(session).await.head;
    let fork = world.engine.fork(session, head).await.unwrap().unwrap().session;
    world.send(fork, "go on", false).await;
    assert_eq!(bounded(world.run(fork)).await, Driven::Waiting);
    assert_eq!(world.outcomes(fork).await, [Outcome::Foreign]);
    probe.gate.cancel();
    assert_eq!(bounded(driving).await.unwrap(), Driven::Waiting);
    assert_eq!((world.outcomes(session).await, probe.count()), (vec![Outcome::Ok], 1));
    world.sound(fork).await;
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn there_is_no_fork_of_what_is_not_there() {
    let world = World::new(&calling(&[]), Toolbox::empty());
    let session = world.session("go").await;
    for at in [0, 3] {
        let refused = world.engine.fork(session, at).await.unwrap();
        assert_eq!(refused.unwrap_err(), Refusal::NoSuchEntry(at));
    }
}

/// Each turn calls a tool first; each answer has a name by which its provider keeps the conversation.
fn keeping(seen: Arc<Mutex<Vec<Arc<Request>>>>) -> By<impl Fn(&ModelCall) -> Answer> {
    let made = AtomicU64::new(0);
    By(move |call: &ModelCall| {
        seen.lock().unwrap().push(Arc::clone(&call.request));
        let begun = matches!(call.request.items.last().map(|item| &**item), Some(Item::User { .. }));
        let text = Part::Text { text: "done".to_owned() };
        let ends = vec![text, Part::Finished { reason: FinishReason::Stop, raw: None }];
        let response_id = Some(format!("r{}", made.fetch_add(1, Ordering::SeqCst)));
        let parts = if begun { calls_probe(10)? } else { ends };
        Ok([Part::Started { response_id }].into_iter().chain(parts).collect())
    })
}

type Answer = Result<Vec<Part>, longhaul_model::Error>;

/// What a provider keeps of a conversation is not gone on from when some of it was redacted where it began.
#[tokio::test(start_paused = true)]
async fn a_fork_does_not_go_on_from_an_answer_to_what_its_origin_has_redacted() {
    let seen: Arc<Mutex<Vec<Arc<Request>>>> = Arc::default();
    let tools = Toolbox::empty().with(Probe::open().tool("probe", EffectClass::Once));
    let world = World::of(Arc::new(keeping(Arc::clone(&seen))), tools);
    let mut configuration = world.configuration();
    configuration.model.chain = true;
    let session = world.create(configuration, First::Message("a secret".into())).await;
    let turn = async |session| {
        assert_eq!(bounded(world.run(session)).await, Driven::Waiting);
        let requests = std::mem::take(&mut *seen.lock().unwrap());
        let from = |request: &Arc<Request>| request.previous.as_ref().map(|it| it.response_id.clone());
        let knows = |request: &Arc<Request>| {
            let secret = |item: &Item| matches!(item, Item::User { text } if text == "a secret");
            request.items.iter().any(|item| secret(item))
        };
        let known = requests.iter().any(knows);
        (requests.iter().map(from).collect::<Vec<_>>(), known)
    };
    let from = |from: &str| Some(from.to_owned());
    assert_eq!(turn(session).await, (vec![None, from("r0")], true));
    let head = world.state(session).await.head;
    let fork = world.engine.fork(session, head).await.unwrap().unwrap().session;
    world.send(fork, "go on", false).await;
    assert_eq!(turn(fork).await, (vec![from("r1"), from("r2")], true), "nothing is redacted");
    world.command(session, Command::Redact { entry: 2 }).await;
    world.send(fork, "go on", false).await;
    assert_eq!(turn(fork).await, (vec![None, from("r4")], false), "its own answers were told it, too");
    world.sound(fork).await;
}
