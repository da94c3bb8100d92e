//! The prompts: texts that Longhaul itself says to a model, made from templates.
//!
//! The built-in templates are the files beside this one. An agent's author may put others in their place;
//! those are part of the session's configuration, so every machine renders the same. What is rendered is
//! committed as content and never rendered again. How templates are read is left to [`template`].

pub mod template;

use std::collections::BTreeMap;

use minijinja::{Value, context};
use serde::{Deserialize, Serialize};

use crate::goal::{Budget, BudgetKind, DEFAULT_CONTINUATIONS, Goal};
use template::Fault;

/// A text that Longhaul says to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// The system prompt.
    System,
    /// The instructions of the agent's author, which the system prompt begins with.
    Instructions,
    /// The goal goes on in a new turn.
    Continuation,
    /// A budget of the goal is used up.
    BudgetSpent,
    /// The objective was set or changed in the middle of a turn.
    ObjectiveChanged,
    /// The goal was removed in the middle of a turn.
    GoalRemoved,
    /// What told the model of its goal may have left its context.
    GoalRecalled,
    /// The history is to be summarised.
    Compaction,
    /// A check of the goal did not pass.
    CheckFailed,
}

/// Templates of an agent's author, in place of the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prompts(BTreeMap<Prompt, String>);

/// A text, ready to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Why it is the built-in one although the author had another.
    pub fault: Option<Fault>,
}

/// What the system prompt is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The agent's name.
    pub agent: String,
    /// The day, as `2026-01-31`.
    pub date: String,
    /// The working directory.
    pub directory: String,
    /// What may be read and written.
    pub scope: String,
    /// The names of the tools.
    pub tools: Vec<String>,
    /// The tools for goals are among them.
    pub goals: bool,
}

/// A check of a goal that keeps it from being complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckFailure<'a> {
    /// The command; `None` when no command failed: protected files have changed, or nothing could be run.
    pub command: Option<&'a str>,
    /// How it ended, as the end of a sentence: `exit code 1`, `its time limit of 10 minutes`. Where nothing
    /// could be run, why.
    pub ended: &'a str,
    /// The end of what it wrote.
    pub output: &'a str,
    /// Protected files that have changed.
    pub changed: &'a [String],
}

impl Prompt {
    /// All of them, in the order in which they are listed for people.
    pub const ALL: [Prompt; 9] = [
        Prompt::System,
        Prompt::Instructions,
        Prompt::Continuation,
        Prompt::BudgetSpent,
        Prompt::ObjectiveChanged,
        Prompt::GoalRemoved,
        Prompt::GoalRecalled,
        Prompt::Compaction,
        Prompt::CheckFailed,
    ];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Prompt::System => "system",
            Prompt::Instructions => "instructions",
            Prompt::Continuation => "continuation",
            Prompt::BudgetSpent => "budget_spent",
            Prompt::ObjectiveChanged => "objective_changed",
            Prompt::GoalRemoved => "goal_removed",
            Prompt::GoalRecalled => "goal_recalled",
            Prompt::Compaction => "compaction",
            Prompt::CheckFailed => "check_failed",
        }
    }

    /// Returns the built-in template.
    #[must_use]
    pub fn built_in(self) -> &'static str {
        match self {
            Prompt::System => include_str!("system.md"),
            Prompt::Instructions => "",
            Prompt::Continuation => include_str!("continuation.md"),
            Prompt::BudgetSpent => include_str!("budget_spent.md"),
            Prompt::ObjectiveChanged => include_str!("objective_changed.md"),
            Prompt::GoalRemoved => include_str!("goal_removed.md"),
            Prompt::GoalRecalled => include_str!("goal_recalled.md"),
            Prompt::Compaction => include_str!("compaction.md"),
            Prompt::CheckFailed => include_str!("check_failed.md"),
        }
    }

    /// Returns the variables its template may name.
    #[must_use]
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Prompt::System => &["agent", "date", "directory", "goals", "instructions", "scope", "tools"],
            Prompt::Instructions => &["agent", "date", "directory", "goals", "scope", "tools"],
            Prompt::Continuation | Prompt::ObjectiveChanged | Prompt::GoalRecalled => {
                &["budget", "checks", "hard", "objective"]
            }
            Prompt::BudgetSpent => &["budget", "checks", "hard", "objective", "spent"],
            Prompt::GoalRemoved => &[],
            Prompt::Compaction => &["files"],
            Prompt::CheckFailed => &["changed", "command", "ended", "output"],
        }
    }

    /// Returns the variable its template must name: after a compaction, nothing else tells the model what
    /// it works towards.
    #[must_use]
    pub fn needed(self) -> Option<&'static str> {
        match self {
            Prompt::Continuation | Prompt::ObjectiveChanged | Prompt::GoalRecalled => Some("objective"),
            Prompt::CheckFailed => Some("command"),
            Prompt::System
            | Prompt::Instructions
            | Prompt::BudgetSpent
            | Prompt::GoalRemoved
            | Prompt::Compaction => None,
        }
    }
}

impl Prompts {
    /// Puts an author's template in the place of the built-in one.
    ///
    /// # Errors
    /// The template cannot be used; the fault says where and why.
    pub fn set(&mut self, prompt: Prompt, source: String) -> Result<(), Fault> {
        template::check(prompt, &source)?;
        self.0.insert(prompt, source);
        Ok(())
    }

    /// Tells whether all are the built-in ones.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the prompts that have a template of the author's.
    pub fn own(&self) -> impl Iterator<Item = Prompt> {
        self.0.keys().copied()
    }

    /// Renders the system prompt. `instructions` are the author's; what of them cannot be rendered is said
    /// as it stands.
    #[must_use]
    pub fn system(&self, setting: &Setting, instructions: Option<&str>) -> Rendered {
        let mut values = setting_values(setting);
        let rendered = instructions.map(|source| {
            template::render(Prompt::Instructions, source, &values)
                .unwrap_or_else(|fault| Rendered { text: source.to_owned(), fault: Some(fault) })
        });
        let (text, fault) = rendered.map_or((None, None), |it| (Some(it.text), it.fault));
        values.insert("instructions", text.map_or(Value::from(()), Value::from_safe_string));
        let system = self.render(Prompt::System, &values);
        Rendered { fault: system.fault.or(fault), ..system }
    }

    /// Renders what the model is told when its goal goes on in a new turn.
    #[must_use]
    pub fn continuation(&self, goal: &Goal) -> Rendered {
        self.render(Prompt::Continuation, &goal_values(goal))
    }

    /// Renders what the model is told when a budget of its goal is used up.
    #[must_use]
    pub fn budget_spent(&self, goal: &Goal, spent: BudgetKind) -> Rendered {
        let mut values = goal_values(goal);
        values.insert("spent", Value::from(spent.name()));
        self.render(Prompt::BudgetSpent, &values)
    }

    /// Renders what the model is told when its goal was set or changed in the middle of a turn.
    #[must_use]
    pub fn objective_changed(&self, goal: &Goal) -> Rendered {
        self.render(Prompt::ObjectiveChanged, &goal_values(goal))
    }

    /// Renders what the model is told when its goal was removed in the middle of a turn.
    #[must_use]
    pub fn goal_removed(&self) -> Rendered {
        self.render(Prompt::GoalRemoved, &BTreeMap::new())
    }

    /// Renders what the model is told when its goal may have left its context.
    #[must_use]
    pub fn goal_recalled(&self, goal: &Goal) -> Rendered {
        self.render(Prompt::GoalRecalled, &goal_values(goal))
    }

    /// Renders the request for a summary. `files` are those touched recently, the newest first.
    #[must_use]
    pub fn compaction(&self, files: &[String]) -> Rendered {
        self.render(Prompt::Compaction, &BTreeMap::from([("files", list(files))]))
    }

    /// Renders what the model reads when a check keeps its goal from being complete.
    #[must_use]
    pub fn check_failed(&self, failure: &CheckFailure<'_>) -> Rendered {
        let values = BTreeMap::from([
            ("command", Value::from(failure.command)),
            ("ended", Value::from(failure.ended)),
            ("output", Value::from(failure.output.trim_end())),
            ("changed", list(failure.changed)),
        ]);
        self.render(Prompt::CheckFailed, &values)
    }

    /// Renders a prompt. A template of the author's that fails, although it was checked, must not stop a
    /// session: the built-in one takes its place.
    fn render(&self, prompt: Prompt, values: &Values) -> Rendered {
        let own = self.0.get(&prompt).map(|source| template::render(prompt, source, values));
        match own {
            Some(Ok(rendered)) => rendered,
            Some(Err(fault)) => Rendered { text: template::built_in(prompt, values), fault: Some(fault) },
            None => Rendered { text: template::built_in(prompt, values), fault: None },
        }
    }
}

/// What a template is rendered with.
type Values = BTreeMap<&'static str, Value>;

fn list(texts: &[String]) -> Value {
    texts.iter().map(String::as_str).collect()
}

/// What stands in a line of its own cannot leave it; it is shown as it is otherwise, since a path is to be
/// used.
fn line(text: &str) -> Value {
    let shown: String =
        text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    Value::from_safe_string(shown)
}

fn setting_values(setting: &Setting) -> Values {
    BTreeMap::from([
        ("agent", line(&setting.agent)),
        ("date", line(&setting.date)),
        ("directory", line(&setting.directory)),
        ("scope", line(&setting.scope)),
        ("tools", setting.tools.iter().map(|name| line(name)).collect()),
        ("goals", Value::from(setting.goals)),
    ])
}

fn goal_values(goal: &Goal) -> Values {
    BTreeMap::from([
        ("objective", Value::from(goal.objective.as_str())),
        ("budget", budget_parts(goal).into_iter().collect()),
        ("hard", Value::from(goal.budget.hard)),
        ("checks", list(&goal.checks)),
    ])
}

/// Says of each budget what is used, and what there is, where it is limited.
fn budget_parts(goal: &Goal) -> Vec<Value> {
    let (Budget { tokens, active_ms, cost_micros, continuations, hard: _ }, used) = (goal.budget, goal.used);
    let part = |name: &str, shown: fn(u64) -> String, used: u64, limit: Option<u64>| {
        let left = limit.map(|limit| shown(limit.saturating_sub(used)));
        let limit = limit.map(shown);
        context! { name, used => shown(used), limit, left }
    };
    let turns = Some(continuations.unwrap_or(DEFAULT_CONTINUATIONS));
    let mut parts = vec![
        part("tokens", |count| count.to_string(), used.tokens, tokens),
        part("time", time, used.active_ms, active_ms),
        part("turns", |count| count.to_string(), used.continuations, turns),
    ];
    // Without prices nothing is known of the cost.
    if cost_micros.is_some() || used.cost_micros > 0 {
        parts.insert(2, part("cost", cost, used.cost_micros, cost_micros));
    }
    parts
}

/// Writes milliseconds in whole seconds, minutes and hours.
fn time(ms: u64) -> String {
    let seconds = ms / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Writes millionths of a dollar.
fn cost(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let shown = text.trim_end_matches('0').len().max(text.len() - 4);
    format!("{} USD", &text[..shown])
}
