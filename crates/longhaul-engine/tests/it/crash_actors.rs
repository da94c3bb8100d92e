//! Who acts in the sessions of the crash matrix: tools and a model that outlive every process, and remember what
//! they were asked. What is played with them stands in `crash_matrix`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use longhaul_model::{Error, FinishReason, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::failure::FailureClass;
use longhaul_session::item::{EffectClass, Item, Outcome};
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::Usage;
use longhaul_tools::tool::{CallContext, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use tokio::sync::watch;

use crate::puppet::wants_summary;
use crate::world::spec;

/// What the actors of a session remember.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) effects: Effects,
    pub(crate) answers: Arc<Mutex<Answers>>,
    pub(crate) gate: Gate,
    /// What work is measured by, in milliseconds, where it takes as long as the actors say.
    pub(crate) clock: Option<Arc<AtomicU64>>,
    /// How often a model that is metered was asked.
    pub(crate) asked: Arc<AtomicU64>,
}

impl Memory {
    /// Lets time pass.
    pub(crate) fn take_ms(&self, ms: u64) {
        if let Some(clock) = &self.clock {
            clock.fetch_add(ms, Ordering::SeqCst);
        }
    }
}

/// How long a call of a tool takes, in milliseconds, by the actors' clock.
pub(crate) const TOOL_MS: u64 = 10;

/// Open: no effect waits any more.
pub(crate) type Gate = Arc<watch::Sender<bool>>;

/// The answers that the provider has begun, by number, and those it was told to end.
#[derive(Default)]
pub(crate) struct Answers {
    /// The word that each obeys.
    pub(crate) begun: Vec<String>,
    pub(crate) cancelled: BTreeSet<String>,
}

/// What the calls of a scenario have done, by their keys.
pub(crate) type Effects = Arc<Mutex<BTreeMap<String, Effect>>>;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effect {
    pub(crate) begun: u32,
    pub(crate) ended: u32,
}

/// The tools: one of each class, one that asks first, and one that waits to be let go.
pub(crate) fn tools(memory: &Memory, held: &watch::Sender<usize>) -> Toolbox {
    let Memory { effects, gate, .. } = memory;
    let begin = |effects: &Effects, cx: &CallContext| {
        let (effects, key) = (Arc::clone(effects), cx.key.to_string());
        effects.lock().unwrap().entry(key.clone()).or_default().begun += 1;
        move || effects.lock().unwrap().entry(key).or_default().ended += 1
    };
    let note = |name: &str, effect: EffectClass| {
        let (effects, memory) = (Arc::clone(effects), memory.clone());
        function(spec(name, effect), move |_, cx: CallContext| {
            let (end, memory) = (begin(&effects, &cx), memory.clone());
            async move {
                tokio::task::yield_now().await;
                memory.take_ms(TOOL_MS);
                end();
                ToolOutput::ok("done")
            }
        })
    };
    let (effects, gate, held) = (Arc::clone(effects), Arc::clone(gate), held.clone());
    let hold = function(spec("hold", EffectClass::Pure), move |_, cx: CallContext| {
        let (mut gate, holding, end) = (gate.subscribe(), Holding::begin(&held), begin(&effects, &cx));
        async move {
            tokio::select! {
                _ = gate.wait_for(|open| *open) => {}
                () = cx.cancel.cancelled() => return ToolOutput::new(Outcome::Stopped, "told to stop"),
            }
            drop(holding);
            end();
            ToolOutput::ok("done")
        }
    });
    Toolbox::empty()
        .with(note("once", EffectClass::Once))
        .with(note("pure", EffectClass::Pure))
        .with(note("again", EffectClass::Idempotent))
        .with(note("ask", EffectClass::Once))
        .with(note("demand", EffectClass::Once))
        .with(hold)
}

/// Counts an effect as one that waits.
struct Holding(watch::Sender<usize>);

impl Holding {
    fn begin(held: &watch::Sender<usize>) -> Self {
        held.send_modify(|held| *held += 1);
        Holding(held.clone())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

/// A model that does what the newest message says, word by word, one for each step: `once+pure` calls tools,
/// `retry` fails the first time, `quota` fails for good, `stall` never ends; without a word left it is done.
struct Obedient {
    answers: Arc<Mutex<Answers>>,
    held: watch::Sender<usize>,
}

pub(crate) fn model(memory: &Memory, held: &watch::Sender<usize>) -> Arc<dyn Model> {
    Arc::new(Obedient { answers: Arc::clone(&memory.answers), held: held.clone() })
}

impl Obedient {
    /// Begins an answer, or finds the one that is to be picked up. Returns its id and its word.
    fn begin(&self, call: &ModelCall) -> (String, String) {
        let mut answers = self.answers.lock().unwrap();
        if let Some(id) = &call.resume {
            assert!(!answers.cancelled.contains(id), "{id} was ended");
            return (id.clone(), answers.begun[id.parse::<usize>().unwrap()].clone());
        }
        let (id, word) = (answers.begun.len().to_string(), next_word(call));
        answers.begun.push(word.clone());
        (id, word)
    }
}

#[async_trait]
impl Model for Obedient {
    fn identity(&self) -> Identity {
        Identity { provider: "test".to_owned(), model: "obedient".to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let (id, word) = self.begin(&call);
        let said = match word.as_str() {
            "retry" if call.attempt == 0 => {
                let mut error = Error::new(FailureClass::Overloaded, "not now");
                error.usage = Some(Usage { input: 5, ..Usage::default() });
                return Err(error);
            }
            "quota" => return Err(Error::new(FailureClass::Quota, "no more")),
            "poorly" => "",
            _ => "As you wish.",
        };
        let mut parts = vec![
            Part::Started { response_id: Some(id) },
            Part::Text { text: said.to_owned() },
            Part::Usage { usage: Usage { input: 20, output: 1, ..Usage::default() } },
        ];
        if word == "stall" {
            let held = self.held.clone();
            let stalled = stream::once(async move {
                // What was said before is handed over first: it is to be paid whoever comes in between.
                tokio::task::yield_now().await;
                let _holding = Holding::begin(&held);
                std::future::pending().await
            });
            return Ok(Box::pin(stream::iter(parts.into_iter().map(Ok)).chain(stalled)));
        }
        let tools: Vec<&str> = word.split('+').filter(|tool| TOOLS.contains(tool)).collect();
        for (index, tool) in (0..).zip(&tools) {
            parts.push(Part::ToolCallStarted { index, id: None, name: (*tool).to_owned() });
            parts.push(Part::ToolCallEnd { index, opaque: None });
        }
        let reason = if tools.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
        parts.push(Part::Finished { reason, raw: None });
        Ok(Box::pin(stream::iter(parts.into_iter().map(Ok))))
    }

    async fn cancel(&self, response_id: &str) -> Result<(), Error> {
        self.answers.lock().unwrap().cancelled.insert(response_id.to_owned());
        Ok(())
    }
}

const TOOLS: [&str; 6] = ["once", "pure", "again", "ask", "demand", "hold"];

/// Finds the word for this step; a turn of the goal is told by its number.
fn next_word(call: &ModelCall) -> String {
    let items = &call.request.items;
    let continues = |item: &Item| matches!(item, Item::Steering { reason: SteeringReason::Continuation, .. });
    let mut text = String::new();
    let (mut said, mut continuations) = (0, 0);
    for item in items {
        match &**item {
            Item::User { text: told } => (text, said) = (told.clone(), 0),
            item @ Item::Steering { .. } if !wants_summary(call) => {
                continuations += usize::from(continues(item));
                let turn = if continues(item) { GOAL_TURNS.get(continuations - 1) } else { None };
                (text, said) = (turn.copied().unwrap_or_default().to_owned(), 0);
            }
            Item::Assistant { partial: false, .. } => said += 1,
            Item::Assistant { partial: true, .. }
            | Item::Steering { .. }
            | Item::Reasoning { .. }
            | Item::Attachment(_)
            | Item::ToolCall(_)
            | Item::ToolResult(_)
            | Item::Summary { .. }
            | Item::ContextFile { .. }
            | Item::File { .. }
            | Item::Opaque { .. }
            | Item::Redacted => {}
        }
    }
    let word = if wants_summary(call) { 0 } else { said };
    text.split(' ').nth(word).unwrap_or_default().to_owned()
}

const GOAL_TURNS: [&str; 3] = ["once", "once+pure", "hold"];
