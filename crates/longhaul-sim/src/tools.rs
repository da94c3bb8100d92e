//! The simulated tools: one of each effect class and kind, each call noted in the world as it begins.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::agent::{ToolPermission, ToolSetting, ToolSpec};
use longhaul_session::item::EffectClass;
use longhaul_tools::tool::{CallContext, IdempotencyKey, Tool, ToolOutput};
use longhaul_tools::toolbox::Toolbox;
use serde_json::{Value, json};

use crate::process::Process;
use crate::scenario::cast::{TOOLS, perform};
use crate::store::short;
use crate::truth::CallKey;
use crate::world::World;

/// The tools that models call.
pub(crate) const NAMES: [&str; 8] = ["peek", "put", "send", "known", "ask", "alone", "finish", "forbidden"];

/// How long a call may take, in milliseconds.
const TIME_LIMIT_MS: u64 = 12_000;

/// Makes the settings of an agent: one tool asks first, one is forbidden, all have a short time.
pub(crate) fn settings() -> Vec<ToolSetting> {
    let setting = |name: &&str| ToolSetting {
        name: (*name).to_owned(),
        permission: match *name {
            "ask" => ToolPermission::Ask,
            "forbidden" => ToolPermission::Deny,
            _ => ToolPermission::Allow,
        },
        max_output_bytes: Some(600),
        time_limit_ms: Some(TIME_LIMIT_MS),
    };
    NAMES.iter().map(setting).collect()
}

/// Makes the tools of a process.
pub(crate) fn toolbox(world: &Arc<World>, process: &Arc<Process>) -> Toolbox {
    let tool = |name| SimTool { name, world: Arc::clone(world), process: Arc::clone(process) };
    let names = if world.plan.play.is_some() { &TOOLS[..] } else { &NAMES[..] };
    names.iter().fold(Toolbox::empty(), |toolbox, name| toolbox.with(tool(name)))
}

struct SimTool {
    name: &'static str,
    world: Arc<World>,
    process: Arc<Process>,
}

#[async_trait]
impl Tool for SimTool {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.to_owned(),
            description: "simulated".to_owned(),
            input_schema: json!({
                "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"]
            }),
            effect: match self.name {
                "peek" | "look" => EffectClass::Pure,
                "put" | "work" => EffectClass::Idempotent,
                _ => EffectClass::Once,
            },
            exclusive: self.name == "alone",
            stop_after: self.name == "finish",
        }
    }

    async fn call(&self, arguments: Value, cx: &CallContext) -> ToolOutput {
        self.process.gate().await;
        self.world.step().await;
        self.begin(&cx.key);
        let text = format!("{} {} of {}", self.name, arguments, cx.key.call);
        let world = &self.world;
        if let Some(play) = world.plan.play {
            return perform(world, &self.process, play, self.name, named(&cx.key)).await;
        }
        let quick_ms = world.below(30);
        if world.strikes(|rates| rates.killer) {
            world.fault(&self.process.name, "tool kills its worker");
            self.process.kill();
            return std::future::pending().await;
        }
        let trouble = world.strikes(|rates| rates.tool);
        match if trouble { world.below(7) } else { 7 } {
            0 => {
                world.fault(&self.process.name, "tool panics");
                // Not by the panic hook: what is meant is not to be shown as an accident.
                std::panic::resume_unwind(Box::new("simulated"))
            }
            1 => {
                world.fault(&self.process.name, "tool hangs");
                cx.cancel.cancelled().await;
                ToolOutput::error("stopped")
            }
            2 => {
                world.fault(&self.process.name, "tool ignores cancellation");
                std::future::pending().await
            }
            3 => {
                world.fault(&self.process.name, "tool fails");
                ToolOutput::error(text)
            }
            4 => {
                world.fault(&self.process.name, "tool says too much");
                cx.progress.line(b"on it");
                ToolOutput::ok(format!("{text} {}", "much ".repeat(400)))
            }
            5 => {
                world.fault(&self.process.name, "tool is late");
                cx.cancel.cancelled().await;
                world.sleep_ms(quick_ms).await;
                ToolOutput::ok(text)
            }
            6 => {
                world.fault(&self.process.name, "tool is slow");
                world.sleep_ms(1_000 + world.below(8_000)).await;
                self.process.gate().await;
                ToolOutput::ok(text)
            }
            _ => {
                world.sleep_ms(quick_ms).await;
                self.process.gate().await;
                ToolOutput::ok(text)
            }
        }
    }

    async fn reconcile(&self, key: &IdempotencyKey, _: &CallContext) -> Option<ToolOutput> {
        self.process.gate().await;
        let began = self.world.truth().starts.contains_key(&named(key));
        let can_tell = self.name == "known" && began;
        if can_tell {
            self.world.count("reconciled by its tool");
        }
        can_tell.then(|| ToolOutput::ok("it was done"))
    }

    fn stop_grace(&self) -> Duration {
        Duration::from_millis(400)
    }
}

fn named(key: &IdempotencyKey) -> CallKey {
    (key.session, key.entry, key.call.clone())
}

impl SimTool {
    /// Notes that a call begins, and sees that it may.
    fn begin(&self, key: &IdempotencyKey) {
        let world = &self.world;
        let call = named(key);
        let (starts, not_run, answered, renewed) = {
            let mut truth = world.truth();
            let starts = truth.starts.entry(call.clone()).or_default();
            *starts += 1;
            let starts = *starts;
            let (not_run, answered) = (truth.not_run.contains(&call), truth.answered.contains(&call));
            (starts, not_run, answered, truth.renewals > 0)
        };
        let what = || format!("{} {} of {}", self.name, key.call, short(key.session));
        world.note(&self.process.name, format_args!("tool {} begins, start {starts}", what()));
        world.count("tool begins");
        if starts > 1 {
            world.count("tool begins again");
        }
        let repeatable = matches!(self.name, "peek" | "put" | "look" | "work");
        world.hold(repeatable || starts == 1, "Effects", || format!("{} began {starts} times", what()));
        world.hold(!not_run, "Effects", || format!("{} began and was said not to be run", what()));
        // A stalled worker may begin too late; where nobody renews, so may one whose lease ran out.
        let may_be_late = self.process.has_stalled() || world.plan.lease && !renewed;
        world.hold(!answered || may_be_late, "Effects", || format!("{} began after its result", what()));
    }
}
