//! Requests that follow each other begin with the same bytes, through the whole engine: steps, messages,
//! interrupts, edits, pruning, compactions, and runners that take over.

use std::sync::{Arc, Mutex};

use longhaul_model::codec::Codec as _;
use longhaul_model::openai_chat::{Codec, Options};
use longhaul_model::{Error, FinishReason, ModelCall, Part};
use longhaul_session::agent::{Configuration, Limits, Request};
use longhaul_session::command::First;
use longhaul_session::entry::Fact;
use longhaul_session::id::EntryNo;
use longhaul_session::item::EffectClass;
use longhaul_session::usage::Usage;
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;

use crate::puppet::{By, answers, tokens, wants_summary};
use crate::world::{World, bounded, spec};

/// Turns of the session; each calls the tool a few times.
const TURNS: u64 = 120;

/// What was asked, and whether it was for a summary.
type Asked = (Arc<Request>, bool);

/// What comes after the last message of a body, and may have changed although the message has not.
const CLOSING: usize = "\"}]}".len();

/// Answers by the place in the session alone.
fn answer(call: &ModelCall, asked: u64) -> Result<Vec<Part>, Error> {
    if wants_summary(call) {
        return answers(&format!("what was done before request {asked}"), tokens(call));
    }
    let calls = asked * 7 % 3;
    if calls == 0 || asked.is_multiple_of(6) {
        return answers(&format!("answer {asked}"), tokens(call));
    }
    let mut parts = Vec::new();
    for index in 0..u32::try_from(calls).unwrap() {
        parts.push(Part::ToolCallStarted { index, id: None, name: "probe".to_owned() });
        parts.push(Part::ToolCallEnd { index, opaque: None });
    }
    parts.push(Part::Usage { usage: Usage { input: tokens(call), output: 1, ..Usage::default() } });
    parts.push(Part::Finished { reason: FinishReason::ToolCalls, raw: None });
    Ok(parts)
}

fn body(request: &Request) -> Vec<u8> {
    Codec::new(Options::new("http://localhost/v1", "m")).request(request).body
}

#[tokio::test(start_paused = true)]
async fn a_request_begins_with_the_bytes_of_the_one_before_up_to_what_has_changed() {
    let seen: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let spy = Arc::clone(&seen);
    let model = By(move |call: &ModelCall| {
        let mut seen = spy.lock().unwrap();
        seen.push((Arc::clone(&call.request), wants_summary(call)));
        answer(call, seen.len() as u64)
    });
    let probe =
        function(spec("probe", EffectClass::Once), |_, _| async { ToolOutput::ok("word ".repeat(600)) });
    let world = World::of(Arc::new(model), Toolbox::empty().with(probe)).in_memory();
    let limits = Limits { compact_above_tokens: 30_000, ..Limits::default() };
    let configuration = Configuration { limits, ..world.configuration() };
    let session = world.create(configuration, First::Nothing).await;
    for turn in 0..TURNS {
        world.send(session, &format!("message {turn} {}", "word ".repeat(400)), false).await;
        // Each turn has a worker of its own, which reads the context back.
        bounded(world.run(session)).await;
        if turn % 11 == 8 {
            let edited = world.engine.edit(session, None, &format!("rather {turn}"), None).await.unwrap();
            // Not where a compaction has taken it: there it is refused.
            if edited.is_ok() {
                bounded(world.run(session)).await;
            }
        }
    }
    world.sound(session).await;
    let log = world.log(session).await;
    let count = |wanted: fn(&Fact) -> bool| log.iter().filter(|entry| wanted(&entry.record.fact)).count();
    let compacted = count(|fact| matches!(fact, Fact::Compacted { .. }));
    let edited = count(|fact| matches!(fact, Fact::Edited { .. }));
    let pruned = log.iter().filter_map(|entry| {
        let Fact::ModelStep { measured, .. } = &entry.record.fact else { return None };
        (measured.pruned_to > 0).then_some(measured.pruned_to)
    });
    let mut pruned: Vec<EntryNo> = pruned.collect();
    pruned.dedup();
    assert!(compacted >= 2 && edited >= 3 && pruned.len() >= 2, "{compacted} {edited} {pruned:?}");
    let seen = seen.lock().unwrap();
    let mut changes = 0;
    for two in seen.windows(2) {
        let [(before, asked_for_summary), (now, _)] = two else { continue };
        // What asks for a summary is said to nobody else.
        let sent = before.items.len() - usize::from(*asked_for_summary);
        let alike =
            before.items.iter().zip(&now.items).take(sent).take_while(|(one, two)| one == two).count();
        changes += usize::from(alike < sent);
        if alike == 0 {
            continue;
        }
        let shared = Request { items: now.items[..alike - 1].to_vec(), ..(**now).clone() };
        let (shared, before, now) = (body(&shared), body(before), body(now));
        let common = before.iter().zip(&now).take_while(|(one, two)| one == two).count();
        assert!(common + CLOSING >= shared.len(), "{common} of {} bytes", shared.len());
    }
    assert!(changes <= compacted + edited + pruned.len(), "{changes} of {} requests", seen.len());
}
