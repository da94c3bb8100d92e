//! The tools by which the model looks at its goal, sets one, and ends it. They change nothing themselves: what
//! they find is committed in the entry that holds their result. How checks are run is in [`crate::checks`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::agent::ToolSpec;
use longhaul_session::command::GoalStep;
use longhaul_session::entry::{Mode, ModelGoal};
use longhaul_session::goal::{
    Budget, CREATE_GOAL, DEFAULT_CONTINUATIONS, GET_GOAL, Goal, GoalStatus, MAX_CHECKS, MAX_OBJECTIVE_CHARS,
    Terms, UPDATE_GOAL, valid_objective,
};
use longhaul_session::id::{CallId, GoalId};
use longhaul_session::item::{EffectClass, FileSeen, Outcome};
use longhaul_session::prompts::Prompts;
use longhaul_session::state::SessionState;
use longhaul_tools::check::{Checker, STOP_GRACE, Shell};
use longhaul_tools::tool::{CallContext, Tool, ToolOutput};
use longhaul_tools::toolbox::Toolbox;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::checks::{self, Verdict};
use crate::host::Host;
use crate::limits::MAX_NOTE_CHARS;

/// What a goal's tools know of the session, and what they found that is to be committed.
pub(crate) struct Desk {
    host: Arc<dyn Host>,
    checker: Arc<dyn Checker>,
    /// What goals of this session are held to.
    terms: Terms,
    prompts: Prompts,
    check_ms: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    goal: Option<Goal>,
    plans: bool,
    /// The model was not told yet what the objective is now.
    untold: bool,
    /// The files that the goal protects, as they were; `None`: their digests were redacted.
    files: Option<Vec<FileSeen>>,
    found: Option<(CallId, GoalStep)>,
}

/// Adds the tools for goals to others, as every session has them that can have a goal. Only for their names
/// and settings: no session is behind them.
#[must_use]
pub fn with_goal_tools(tools: Toolbox) -> Toolbox {
    let host: Arc<dyn Host> = Arc::new(crate::host::SystemHost::new());
    Arc::new(Desk::new(host, Arc::new(Shell), Terms::default(), Prompts::default(), 0)).registered_in(tools)
}

impl Desk {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        checker: Arc<dyn Checker>,
        terms: Terms,
        prompts: Prompts,
        check_ms: u64,
    ) -> Self {
        Desk { host, checker, terms, prompts, check_ms, known: Mutex::default() }
    }

    /// Adds the tools that know what this desk knows.
    pub(crate) fn registered_in(self: Arc<Self>, tools: Toolbox) -> Toolbox {
        tools.with(GetGoal(self.clone())).with(CreateGoal(self.clone())).with(UpdateGoal(self))
    }

    /// Tells the tools how things stand before their calls begin.
    pub(crate) fn tell(&self, state: &SessionState, files: Option<Vec<FileSeen>>) {
        *self.known() = Known {
            goal: state.goal.clone(),
            plans: state.mode == Mode::Plan,
            untold: state.steering_due.objective_changed,
            files,
            found: None,
        };
    }

    /// Takes what a call found that is to be committed with its result.
    pub(crate) fn take(&self, call: &CallId) -> Option<GoalStep> {
        self.known().found.take_if(|(by, _)| by == call).map(|(_, step)| step)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it is one step, so a panic in a tool left it whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, call: &CallId, step: GoalStep) {
        self.known().found = Some((call.clone(), step));
    }
}

struct GetGoal(Arc<Desk>);

#[async_trait]
impl Tool for GetGoal {
    fn spec(&self) -> ToolSpec {
        let description = "Returns the goal of this session: its objective, where it stands, what was used of its \
                           budget and what is left, and the checks it must pass.";
        spec(GET_GOAL, description, json!({}), &[], EffectClass::Pure)
    }

    async fn call(&self, _: Value, _: &CallContext) -> ToolOutput {
        let known = self.0.known();
        ToolOutput::ok(match &known.goal {
            None => "This session has no goal.".to_owned(),
            Some(goal) => described(goal, known.plans),
        })
    }
}

struct CreateGoal(Arc<Desk>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGoal {
    objective: String,
    token_budget: Option<u64>,
}

#[async_trait]
impl Tool for CreateGoal {
    fn spec(&self) -> ToolSpec {
        let description = "Sets a goal that this session then works towards, turn after turn, until it is reached or \
                           its budget is used up. Only when you are asked to set one, and only when there is none or \
                           the last one is complete. It must be called alone.";
        let properties = json!({
            "objective": {
                "type": "string", "minLength": 1, "maxLength": MAX_OBJECTIVE_CHARS,
                "description": "What is to be reached, in the words of whoever asked for it, with every requirement."
            },
            "token_budget": {
                "type": "integer", "minimum": 1,
                "description": "The most tokens it may use. Only if you were told a number."
            }
        });
        let spec = spec(CREATE_GOAL, description, properties, &["objective"], EffectClass::Idempotent);
        ToolSpec { exclusive: true, ..spec }
    }

    async fn call(&self, arguments: Value, cx: &CallContext) -> ToolOutput {
        let wanted: NewGoal = match serde_json::from_value(arguments) {
            Ok(wanted) => wanted,
            Err(error) => return rejected(&format!("{error}.")),
        };
        let Some(objective) = valid_objective(&wanted.objective) else {
            return rejected("an objective has 1 to 4,000 characters.");
        };
        if let Some(goal) = self.0.known().goal.as_ref().filter(|goal| goal.is_unfinished()) {
            let status = status_name(goal.status);
            return rejected(&format!(
                "there is a goal that is not finished ({status}). Work on it; only a person can replace or remove it."
            ));
        }
        let Terms { budget, checks, protected } = self.0.terms.clone();
        let tokens = match (wanted.token_budget, budget.tokens) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
        let budget = Budget { tokens, ..budget };
        let id = GoalId(self.0.host.fresh_id());
        let goal = Goal { protected, ..Goal::new(id, objective, budget, checks, self.0.host.now()) };
        let text = format!("The goal is set.\n{}", described(&goal, self.0.known().plans));
        self.0.find(&cx.key.call, GoalStep { terms: None, change: ModelGoal::Created(Box::new(goal)) });
        ToolOutput::ok(text)
    }
}

struct UpdateGoal(Arc<Desk>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    status: NewStatus,
    note: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum NewStatus {
    Complete,
    Blocked,
}

#[async_trait]
impl Tool for UpdateGoal {
    fn spec(&self) -> ToolSpec {
        let description = "Declares the goal complete or blocked. Complete: every requirement of the objective is met, \
                           and you have looked and seen that it is. If the goal has checks, they are run now, and the \
                           goal is complete only if all of them pass. Blocked: the same obstacle remains after you \
                           really tried to get around it, and only a person can remove it; that something is hard, \
                           long or unclear is no obstacle. It must be called alone.";
        let properties = json!({
            "status": {"type": "string", "enum": ["complete", "blocked"]},
            "note": {
                "type": "string", "minLength": 1, "maxLength": MAX_NOTE_CHARS,
                "description": "For complete: what you ran or read, and what it showed, for each requirement. \
                                For blocked: what stands in the way, what you tried, and what a person must do."
            }
        });
        let spec = spec(UPDATE_GOAL, description, properties, &["status", "note"], EffectClass::Idempotent);
        ToolSpec { exclusive: true, ..spec }
    }

    async fn call(&self, arguments: Value, cx: &CallContext) -> ToolOutput {
        let update: Update = match serde_json::from_value(arguments) {
            Ok(update) => update,
            Err(error) => return rejected(&format!("{error}.")),
        };
        let (goal, files) = {
            let known = self.0.known();
            let Some(goal) = known.goal.clone().filter(Goal::is_unfinished) else {
                return rejected("there is no goal, or it is complete already.");
            };
            if known.untold || goal.is_unguarded() {
                return rejected(
                    "a person has changed the goal since you decided on this. Look at it and judge anew.",
                );
            }
            (goal, known.files.clone())
        };
        let terms = Some(goal.terms());
        match update.status {
            NewStatus::Blocked if goal.status != GoalStatus::Active => {
                let status = status_name(goal.status);
                ToolOutput::error(format!(
                    "The goal is {status} already and nobody works on it. Nothing was changed."
                ))
            }
            NewStatus::Blocked => {
                self.0.find(&cx.key.call, GoalStep { terms, change: ModelGoal::Blocked(update.note) });
                let text =
                    "The goal is blocked and will not go on by itself. Say what a person must do, and stop.";
                ToolOutput::ok(text)
            }
            NewStatus::Complete => {
                let Desk { checker, prompts, check_ms, .. } = &*self.0;
                match checks::run(&**checker, &goal, files, prompts, *check_ms, cx).await {
                    Verdict::Passed(text) => {
                        self.0.find(&cx.key.call, GoalStep { terms, change: ModelGoal::Completed });
                        ToolOutput::ok(text)
                    }
                    Verdict::Failed(text) => ToolOutput::error(text),
                    Verdict::Stopped => ToolOutput::new(
                        Outcome::Stopped,
                        "The checks were stopped before they had all passed. The goal is not complete.",
                    ),
                }
            }
        }
    }

    /// As long as all the checks may take that a goal can have.
    fn time_limit(&self) -> Duration {
        let most = u64::try_from(MAX_CHECKS).unwrap_or(u64::MAX).saturating_add(1);
        Duration::from_millis(self.0.check_ms.saturating_mul(most)).saturating_add(STOP_GRACE)
    }

    fn stop_grace(&self) -> Duration {
        STOP_GRACE
    }
}

fn spec(
    name: &str,
    description: &str,
    properties: Value,
    required: &[&str],
    effect: EffectClass,
) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false
        }),
        effect,
        exclusive: false,
        stop_after: false,
    }
}

fn rejected(why: &str) -> ToolOutput {
    ToolOutput::new(Outcome::Rejected, format!("The call was not run: {why}"))
}

fn status_name(status: GoalStatus) -> &'static str {
    match status {
        GoalStatus::Active => "active",
        GoalStatus::Paused => "paused",
        GoalStatus::Blocked => "blocked",
        GoalStatus::BudgetLimited => "at the end of its budget",
        GoalStatus::UsageLimited => "at the end of the provider's quota",
        GoalStatus::Complete => "complete",
    }
}

/// Says all of a goal that the model may know.
fn described(goal: &Goal, plans: bool) -> String {
    let mut lines =
        vec![format!("Objective:\n{}", goal.objective), format!("Status: {}", status_name(goal.status))];
    lines.extend(goal.reason.as_ref().map(|reason| format!("Because: {reason}")));
    if plans {
        lines.push(
            "The session is in plan mode: the goal is not pursued until a person leaves it.".to_owned(),
        );
    }
    let (budget, used) = (&goal.budget, &goal.used);
    let mut meter = |what: &str, used: u64, limit: Option<u64>| {
        lines.push(match limit {
            Some(limit) => format!("{what}: {used} used of {limit}, {} left", limit.saturating_sub(used)),
            None => format!("{what}: {used} used, no limit"),
        });
    };
    meter("Tokens", used.tokens, budget.tokens);
    meter("Seconds of work", used.active_ms / 1_000, budget.active_ms.map(|ms| ms / 1_000));
    if budget.cost_micros.is_some() || used.cost_micros > 0 {
        meter("Millionths of a US dollar", used.cost_micros, budget.cost_micros);
    }
    let continuations = budget.continuations.unwrap_or(DEFAULT_CONTINUATIONS);
    meter("Turns", used.continuations, Some(continuations));
    if goal.checks.is_empty() {
        lines.push("Checks: none; the evidence is yours to gather.".to_owned());
    } else {
        lines.push("Checks, run when you declare it complete:".to_owned());
        lines.extend(goal.checks.iter().map(|check| format!("- {check}")));
    }
    if !goal.protected.is_empty() {
        lines.push("Files that must stay as they are for a check to count:".to_owned());
        lines.extend(goal.protected.iter().map(|path| format!("- {path}")));
    }
    lines.join("\n")
}
