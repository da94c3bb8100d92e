//! The simulated model: it answers, calls tools, and goes wrong in every way a provider can.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use async_trait::async_trait;
use futures_util::Stream;
use longhaul_engine::Models;
use longhaul_model::files::with_bytes;
use longhaul_model::{Error, FinishReason, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::agent::{Limits, ModelChoice, Previous, Request};
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::id::Digest;
use longhaul_session::item::{Attachment, Item};
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::Usage;
use tokio::task::Id as TaskId;

use crate::oracle::unanswered;
use crate::process::Process;
use crate::scenario::cast::Player;
use crate::tools::NAMES;
use crate::truth::{Answer, Attempt};
use crate::world::World;

/// The classes of failure that a provider can have.
pub(crate) const CLASSES: [(FailureClass, &str); 12] = [
    (FailureClass::Overloaded, "model overloaded"),
    (FailureClass::RateLimited, "model rate limited"),
    (FailureClass::Timeout, "model timeout"),
    (FailureClass::Network, "model network"),
    (FailureClass::Server, "model server error"),
    (FailureClass::Auth, "model auth"),
    (FailureClass::InvalidRequest, "model invalid request"),
    (FailureClass::ContextOverflow, "model context overflow"),
    (FailureClass::ContentFilter, "model content filter"),
    (FailureClass::Quota, "model quota"),
    (FailureClass::ChainBroken, "model chain broken"),
    (FailureClass::Unknown, "model unknown failure"),
];

/// Gives each runner a model of its own.
pub(crate) struct SimModels {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
}

impl Models for SimModels {
    fn model(&self, choice: &ModelChoice, _: &Limits) -> Result<Arc<dyn Model>, Failure> {
        if self.world.strikes(|rates| rates.model / 20) {
            self.world.fault(&self.process.name, "preparing failed");
            self.world.truth().unready.extend(self.process.worker);
            let message = "simulated".to_owned();
            return Err(Failure { class: FailureClass::Preparation, message });
        }
        let (world, process) = (Arc::clone(&self.world), Arc::clone(&self.process));
        let (runner, resumable) = (tokio::task::try_id(), choice.resumable);
        Ok(match world.plan.play {
            Some(play) => Arc::new(Player { world, process, runner, play }),
            None => Arc::new(SimModel { world, process, runner, resumable }),
        })
    }
}

struct SimModel {
    world: Arc<World>,
    process: Arc<Process>,
    /// The task of the runner it was given to.
    runner: Option<TaskId>,
    /// Its answers go on without a connection, and are picked up by their ids.
    resumable: bool,
}

/// One thing a stream does.
pub(crate) enum Act {
    Pause(u64),
    Say(Part),
    Fail(Error),
    Hang,
}

#[async_trait]
impl Model for SimModel {
    fn identity(&self) -> Identity {
        Identity { provider: "sim".to_owned(), model: "sim".to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let world = &self.world;
        let resumed = call.resume.as_deref().filter(|_| self.resumable);
        let id = begin(world, &self.process, self.runner, &call, resumed).await;
        for item in &call.request.items {
            self.look_at(item);
        }
        match (resumed, &call.request.previous) {
            (Some(_), _) => self.still_has(id)?,
            (None, Some(previous)) => self.goes_on_from(previous, &call.request)?,
            (None, None) => {}
        }
        let trouble = world.strikes(|rates| rates.model);
        let kind = if trouble { world.below(10) } else { 10 };
        match kind {
            0 => {
                world.fault(&self.process.name, "model hangs");
                if world.happens(500) {
                    call.cancel.cancelled().await;
                } else {
                    std::future::pending::<()>().await;
                }
                Err(Error::new(FailureClass::Network, "cancelled"))
            }
            1..=3 => {
                let error = self.failure(id);
                reported(world, id, error.usage);
                Err(error)
            }
            _ => {
                let mut acts = match resumed {
                    Some(_) => self.pick_up(id),
                    None => self.answer(id, &call.request),
                };
                if trouble {
                    self.spoil(id, kind, &mut acts);
                }
                Ok(Box::pin(Stated::new(id, Arc::clone(world), Arc::clone(&self.process), acts)))
            }
        }
    }

    async fn cancel(&self, response_id: &str) -> Result<(), Error> {
        let world = &self.world;
        self.process.gate().await;
        world.step().await;
        world.fault(&self.process.name, "answer ended at its provider");
        if let Some(answer) = world.truth().answers.get_mut(response_id) {
            answer.ended = true;
        }
        if !world.strikes(|rates| rates.model) {
            return Ok(());
        }
        if world.happens(500) {
            std::future::pending::<()>().await;
        }
        Err(Error::new(FailureClass::Network, "nobody knows whether it was ended"))
    }
}

/// Names an answer by the number of the attempt that asked for it.
fn name(id: u64) -> String {
    format!("r{id}")
}

fn number(name: &str) -> u64 {
    name.trim_start_matches('r').parse().expect("an answer's name holds its number")
}

impl SimModel {
    /// Sees whether the provider has an answer still.
    fn still_has(&self, id: u64) -> Result<(), Error> {
        let world = &self.world;
        world.count("answer picked up");
        let loses = world.strikes(|rates| rates.model / 4);
        let mut truth = world.truth();
        if truth.attempts.get(&id).is_some_and(|attempt| attempt.process != self.process.name) {
            world.count("answer picked up by another");
        }
        let answer = truth.answers.entry(name(id)).or_default();
        answer.lost |= loses || answer.ended;
        if !answer.lost {
            return Ok(());
        }
        drop(truth);
        world.fault(&self.process.name, "answer lost by its provider");
        Err(Error::new(FailureClass::ChainBroken, format!("answer {id} is lost")))
    }

    /// Sees that a request goes on from what the provider has kept, and whether it has it still.
    fn goes_on_from(&self, previous: &Previous, request: &Request) -> Result<(), Error> {
        let world = &self.world;
        world.count("conversation gone on from");
        let loses = world.strikes(|rates| rates.model / 4);
        let mut truth = world.truth();
        let Some(answer) = truth.answers.get_mut(&previous.response_id) else {
            drop(truth);
            let what = format!("a request goes on from {}, which was never given", previous.response_id);
            world.broken("Answered", what);
            return Ok(());
        };
        answer.lost |= loses;
        let (lost, asked) = (answer.lost, answer.asked.clone());
        drop(truth);
        let whole = asked.len() <= previous.items && previous.items <= request.items.len();
        world.hold(whole && request.items.starts_with(&asked), "Answered", || {
            format!("a request goes on from {}, which answered something else", previous.response_id)
        });
        if !lost {
            return Ok(());
        }
        world.fault(&self.process.name, "conversation lost by its provider");
        Err(Error::new(FailureClass::ChainBroken, format!("{} is lost", previous.response_id)))
    }

    /// Says again what an answer says, from its beginning.
    fn pick_up(&self, id: u64) -> Vec<Act> {
        let truth = self.world.truth();
        let parts = truth.answers.get(&name(id)).map(|answer| answer.parts.clone()).unwrap_or_default();
        parts.into_iter().flat_map(|part| [Act::Pause(3), Act::Say(part)]).collect()
    }

    /// A file that a person gave holds its own name.
    fn look_at(&self, item: &Item) {
        let Item::File { name: Some(name), media_type, .. } = item else { return };
        let (name, media_type, bytes) = (name.clone(), media_type.clone(), name.len() as u64);
        let digest = Digest::of(name.as_bytes());
        let whole =
            with_bytes(&Attachment { name: name.clone(), media_type, bytes, digest }, name.as_bytes());
        self.world
            .hold(*item == whole, "Files", || format!("the file {name:?} reaches the model as another"));
        self.world.count("model sees a file");
    }

    fn failure(&self, id: u64) -> Error {
        let world = &self.world;
        let (class, fault) = *world.chance().pick(&CLASSES);
        world.fault(&self.process.name, fault);
        if class == FailureClass::ChainBroken
            && let Some(answer) = world.truth().answers.get_mut(&name(id))
        {
            answer.lost = true;
        }
        let retry_after_ms = world.happens(300).then(|| world.below(30_000));
        if retry_after_ms.is_some() {
            world.count("retry-after");
        }
        let usage = world.happens(200).then(|| report(id, 10, world.below(20)));
        // A provider that goes on with an answer says at its end what it cost.
        let usage = usage.filter(|_| !(self.resumable && class == FailureClass::Network));
        Error { retry_after_ms, usage, ..Error::new(class, format!("simulated failure {id}")) }
    }

    /// Makes a whole answer.
    fn answer(&self, id: u64, request: &Request) -> Vec<Act> {
        let world = &self.world;
        let calm = world.is_calm();
        let mut acts = vec![Act::Say(Part::Started { response_id: Some(name(id)) })];
        let bytes: u64 = request.items.iter().map(|item| item.text_bytes()).sum();
        let (input, output) = (input_tokens(request), 1 + world.below(40));
        let usage = |output| Act::Say(Part::Usage { usage: report(id, input, output) });
        let slow_ms = if calm { 5 } else { *world.chance().pick(&[0, 3, 60, 900]) };
        if world.happens(200) {
            acts.push(Act::Say(Part::Reasoning { text: "thinking ".to_owned() }));
            acts.push(Act::Say(Part::ReasoningEnd { opaque: None }));
        }
        if world.happens(300) {
            world.count("usage reported twice");
            acts.push(usage(output / 2));
        }
        let summary = is_for_summary(request);
        let empty = !calm && world.happens(if summary { 250 } else { 40 });
        let too_large = !calm && summary && !empty && world.happens(250);
        if empty {
            world.count(if summary { "summary empty" } else { "empty answer" });
        } else if too_large {
            world.count("summary too large");
            let text = format!("summary {id} {}", "x".repeat(usize::try_from(bytes).expect("small")));
            acts.push(Act::Say(Part::Text { text }));
        } else {
            for piece in 0..=world.below(2) {
                let long = !calm && world.happens(80);
                let text =
                    format!("answer {id} piece {piece} {}", "word ".repeat(if long { 200 } else { 3 }));
                acts.push(Act::Pause(slow_ms));
                acts.push(Act::Say(Part::Text { text }));
            }
        }
        let wants_tools = !calm && !empty && world.happens(if summary { 100 } else { 550 });
        if summary && wants_tools {
            world.count("summary calls tools");
        }
        let calls = if wants_tools { 1 + world.below(3) } else { 0 };
        for index in 0..calls {
            self.tool_call(id, u32::try_from(index).expect("small"), request, &mut acts);
        }
        acts.push(Act::Pause(slow_ms));
        if world.happens(850) {
            acts.push(usage(output));
        } else {
            world.count("usage not reported at the end");
        }
        let length = !calm && calls == 0 && world.happens(30);
        let reason = match (length, calls) {
            (true, _) => FinishReason::Length,
            (false, 0) => FinishReason::Stop,
            (false, _) => FinishReason::ToolCalls,
        };
        acts.push(Act::Say(Part::Finished { reason, raw: None }));
        let said = |act: &Act| if let Act::Say(part) = act { Some(part.clone()) } else { None };
        let parts = acts.iter().filter(|_| self.resumable).filter_map(said).collect();
        let answer = Answer { asked: request.items.clone(), parts, ..Answer::default() };
        world.truth().answers.insert(name(id), answer);
        acts
    }

    fn tool_call(&self, id: u64, index: u32, request: &Request, acts: &mut Vec<Act>) {
        let world = &self.world;
        let used = |item: &Arc<Item>| item.tool_call().map(|call| call.id.0.clone());
        let call_id = match world.below(10) {
            0 => {
                world.count("call without an id");
                None
            }
            1 if request.items.iter().any(|item| used(item).is_some()) => {
                world.count("call with a used id");
                request.items.iter().find_map(used)
            }
            _ => Some(format!("c{id}_{index}")),
        };
        let name = if world.happens(60) {
            world.count("unknown tool");
            "nonsense".to_owned()
        } else {
            (*world.chance().pick(&NAMES)).to_owned()
        };
        acts.push(Act::Say(Part::ToolCallStarted { index, id: call_id, name }));
        let text = if world.happens(60) {
            world.count("invalid arguments");
            "{\"n\":".to_owned()
        } else {
            format!("{{\"n\":{}}}", world.below(3))
        };
        acts.push(Act::Say(Part::ToolCallArguments { index, text }));
        acts.push(Act::Say(Part::ToolCallEnd { index, opaque: None }));
    }

    /// Cuts an answer at any part, or makes nonsense of it.
    fn spoil(&self, id: u64, kind: u64, acts: &mut Vec<Act>) {
        let world = &self.world;
        let at = usize::try_from(world.below(acts.len() as u64)).expect("an index fits");
        let ending = match kind {
            4 | 5 => {
                world.fault(&self.process.name, "stream cut");
                None
            }
            6 | 7 => {
                world.fault(&self.process.name, "stream stalls");
                Some(Act::Hang)
            }
            8 => {
                world.fault(&self.process.name, "stream of nonsense");
                Some(Act::Say(Part::ToolCallArguments { index: 99, text: "?".to_owned() }))
            }
            _ => {
                world.fault(&self.process.name, "stream fails");
                Some(Act::Fail(self.failure(id)))
            }
        };
        acts.truncate(at);
        acts.extend(ending);
    }
}

/// The parts of one answer as they come over a connection.
pub(crate) struct Stated {
    id: u64,
    world: Arc<World>,
    process: Arc<Process>,
    /// What is still to come, the next one last.
    acts: Vec<Act>,
    waits: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stated {
    pub(crate) fn new(id: u64, world: Arc<World>, process: Arc<Process>, mut acts: Vec<Act>) -> Self {
        acts.reverse();
        Stated { id, world, process, acts, waits: None }
    }
}

impl Stream for Stated {
    type Item = Result<Part, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(waits) = &mut self.waits {
                std::task::ready!(waits.as_mut().poll(cx));
                self.waits = None;
            }
            let Some(act) = self.acts.pop() else { return Poll::Ready(None) };
            let (world, process) = (Arc::clone(&self.world), Arc::clone(&self.process));
            match act {
                Act::Pause(delay_ms) => {
                    self.waits = Some(Box::pin(async move {
                        world.sleep_ms(delay_ms).await;
                        process.gate().await;
                    }));
                }
                Act::Hang => self.waits = Some(Box::pin(std::future::pending())),
                Act::Fail(error) => {
                    reported(&world, self.id, error.usage);
                    return Poll::Ready(Some(Err(error)));
                }
                Act::Say(part) => {
                    if let Part::Usage { usage } = &part {
                        reported(&world, self.id, Some(*usage));
                    }
                    return Poll::Ready(Some(Ok(part)));
                }
            }
        }
    }
}

/// Notes that a model is called, with a sound request. Returns the number of the attempt, or of the one that asked
/// for the answer that is picked up.
pub(crate) async fn begin(
    world: &World,
    process: &Process,
    runner: Option<TaskId>,
    call: &ModelCall,
    resumed: Option<&str>,
) -> u64 {
    process.gate().await;
    world.step().await;
    if let Some(what) = unanswered(&call.request.items) {
        world.broken("Answered", format!("a request reaches the model in which {what}"));
    }
    let id = resumed.map_or_else(
        || {
            let mut truth = world.truth();
            let id = truth.attempts.len() as u64 + 1;
            let process = process.name.clone();
            truth.attempts.insert(id, Attempt { runner, process, ..Attempt::default() });
            let runner = runner.and_then(|task| truth.runners.get(&task).copied());
            truth.calling.extend(runner.map(|runner| (runner, id)));
            id
        },
        number,
    );
    let (items, again) = (call.request.items.len(), if resumed.is_some() { ", picked up" } else { "" });
    world
        .note(&process.name, format_args!("model call {id}, {items} items, attempt {}{again}", call.attempt));
    id
}

/// Makes a report of what an attempt has used. Its cost names the attempt, so that the log can be compared
/// report by report.
pub(crate) fn report(id: u64, input: u64, output: u64) -> Usage {
    Usage { input, output, cached_input: input / 3, cost_micros: id, ..Usage::default() }
}

/// Counts the tokens of a request, as the simulated provider does.
pub(crate) fn input_tokens(request: &Request) -> u64 {
    let items: u64 = request.items.iter().map(|item| item.text_bytes()).sum();
    let tools = serde_json::to_vec(&*request.tools).expect("tools are JSON");
    10 + (items + (tools.len() + request.system.len()) as u64) / 4
}

/// Tells whether a request is for a summary of the conversation.
pub(crate) fn is_for_summary(request: &Request) -> bool {
    let newest = request.items.last().map(|item| &**item);
    matches!(newest, Some(Item::Steering { reason: SteeringReason::Compaction, .. }))
}

/// Notes what a model said an attempt has used.
fn reported(world: &World, id: u64, usage: Option<Usage>) {
    if let (Some(usage), Some(attempt)) = (usage, world.truth().attempts.get_mut(&id)) {
        attempt.reported.push(usage);
    }
}
