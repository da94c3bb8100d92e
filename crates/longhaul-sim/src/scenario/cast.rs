//! The cast of a scenario: a model that performs what its actor decides, the tools it calls, and the check that
//! judges it. All of them pass the gate of their process, so they die and stall with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_model::{Error, FinishReason, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::agent::{Configuration, ModelChoice, Request, ToolSetting};
use longhaul_session::goal::{CREATE_GOAL, GET_GOAL, Terms, UPDATE_GOAL};
use longhaul_session::item::Item;
use longhaul_tools::check::{CheckEnd, CheckError, Checked, Checker};
use longhaul_tools::tool::{CallContext, ToolOutput};
use tokio::task::Id as TaskId;

use super::actor::{Move, Scene};
use super::{OBJECTIVE, Play};
use crate::model::{Act, Answer, begin, input_tokens, is_for_summary, report};
use crate::process::Process;
use crate::truth::CallKey;
use crate::world::World;

/// The tools of scenarios, besides those for goals.
pub(crate) const TOOLS: [&str; 3] = ["work", "look", "kill"];

/// The most tokens of one answer: a hard budget counts with them.
const MAX_OUTPUT_TOKENS: u64 = 1_000;

impl Play {
    pub(crate) fn terms(self) -> Terms {
        (self.scenario.terms)()
    }

    pub(crate) fn configuration(self) -> Configuration {
        let setting = |name: &str| ToolSetting {
            name: name.to_owned(),
            permission: self.scenario.permission,
            max_output_bytes: None,
            time_limit_ms: None,
        };
        let tools = TOOLS.into_iter().chain([GET_GOAL, CREATE_GOAL, UPDATE_GOAL]);
        Configuration {
            agent: "sim".to_owned(),
            model: ModelChoice {
                max_output_tokens: Some(MAX_OUTPUT_TOKENS),
                ..ModelChoice::new("sim", self.scenario.name)
            },
            directory: "/".to_owned(),
            instructions: Some("Simulate.".to_owned()),
            scope: Vec::new(),
            tools: tools.map(setting).collect(),
            prompts: longhaul_session::prompts::Prompts::default(),
            limits: (self.scenario.limits)(),
            summariser: None,
            goal: Terms::default(),
            without_goals: false,
        }
    }
}

/// Performs what an actor decides.
pub(crate) struct Player {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
    pub(crate) runner: Option<TaskId>,
    pub(crate) play: Play,
}

#[async_trait]
impl Model for Player {
    fn identity(&self) -> Identity {
        Identity { provider: "sim".to_owned(), model: self.play.scenario.name.to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        let (world, request) = (&self.world, &*call.request);
        let id = begin(world, &self.process, self.runner, &call).await;
        let told = |item: &Item| matches!(item, Item::Steering { text, .. } if text.contains(OBJECTIVE));
        world.hold(request.items.iter().any(|item| told(item)), "Goal", || {
            format!("model call {id} is not told the objective")
        });
        let scene = Scene { world, request, play: self.play, id };
        let scenario = self.play.scenario;
        let done =
            if is_for_summary(request) { (scenario.summarises)(&scene) } else { (scenario.acts)(&scene) };
        world.sleep_ms(world.below(200)).await;
        self.process.gate().await;
        let acts = match done {
            Move::Fail(error) => return Err(error),
            Move::Say(text) => self.answer(id, request, text, None),
            Move::Call(tool, arguments) => self.answer(id, request, String::new(), Some((tool, arguments))),
        };
        Ok(Box::pin(Answer::new(id, Arc::clone(world), Arc::clone(&self.process), acts)))
    }
}

impl Player {
    fn answer(
        &self,
        id: u64,
        request: &Request,
        text: String,
        call: Option<(&str, serde_json::Value)>,
    ) -> Vec<Act> {
        let world = &self.world;
        let pause = || Act::Pause(world.below(400));
        let mut parts = Vec::new();
        let mut reason = FinishReason::Stop;
        if !text.is_empty() {
            parts.push(Part::Text { text });
        }
        if let Some((name, arguments)) = call {
            let (index, name, text) = (0, name.to_owned(), arguments.to_string());
            parts.push(Part::ToolCallStarted { index, id: Some(format!("c{id}")), name });
            parts.push(Part::ToolCallArguments { index, text });
            parts.push(Part::ToolCallEnd { index, opaque: None });
            reason = FinishReason::ToolCalls;
        }
        let usage = report(id, input_tokens(request), 1 + world.below(40));
        let mut acts = vec![Act::Say(Part::Started { response_id: None }), pause()];
        acts.extend(parts.into_iter().map(Act::Say));
        acts.extend([pause(), Act::Say(Part::Usage { usage })]);
        acts.push(Act::Say(Part::Finished { reason, raw: None }));
        acts
    }
}

/// What a call of a scenario's tool does.
pub(crate) async fn perform(
    world: &World,
    process: &Process,
    play: Play,
    name: &str,
    call: CallKey,
) -> ToolOutput {
    if name == "kill" {
        world.fault(&process.name, "tool kills its worker");
        process.kill();
        return std::future::pending().await;
    }
    world.sleep_ms(world.below(300)).await;
    process.gate().await;
    if name == "look" {
        return ToolOutput::ok("No part has changed.");
    }
    let built = {
        let mut truth = world.truth();
        truth.parts.insert(call);
        truth.parts.len()
    };
    ToolOutput::ok(format!("Part {built} is built. {}", "#".repeat(play.scenario.output_bytes)))
}

/// Sees whether all parts are built.
pub(crate) struct Inspector {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
    pub(crate) play: Play,
}

#[async_trait]
impl Checker for Inspector {
    async fn run(&self, command: &str, _: Duration, cx: &CallContext) -> Result<Checked, CheckError> {
        self.world.note(&self.process.name, format_args!("check \"{command}\" begins"));
        let takes_ms = self.world.below(3_000);
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => {
                return Ok(Checked { ended: CheckEnd::Cancelled, output: String::new() });
            }
            () = self.world.sleep_ms(takes_ms) => {}
        }
        self.process.gate().await;
        let (built, parts) = (self.world.truth().parts.len(), self.play.scenario.parts);
        let ended = CheckEnd::Exit(if built >= parts { 0 } else { 1 });
        Ok(Checked { ended, output: format!("{built} of {parts} parts stand") })
    }
}
