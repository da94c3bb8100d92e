//! Forks: a session from any entry of another.

use longhaul_engine::{Driven, Host};
use longhaul_session::command::Refusal;
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_tools::toolbox::Toolbox;

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
