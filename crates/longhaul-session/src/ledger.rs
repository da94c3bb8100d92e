//! What a session has spent, and on what: a fold over its log, for people and programs who ask. No rule reads it. The
//! state keeps the totals and what its goal has used, and must come to the same to the token.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::AddAssign;

use serde::Serialize;

use crate::agent::ModelChoice;
use crate::entry::{Charge, Content, Fact, ModelGoal, Next, Record};
use crate::goal::{Goal, GoalUsage};
use crate::id::{EntryNo, GoalId, Timestamp};
use crate::state::SessionState;
use crate::usage::{Totals, Usage};

/// What a session has spent: in all, and the same once more by model, by goal and by what became of the work.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// In all.
    pub total: Spent,
    /// By model, in the order of their first use. What tools took counts for the model in force.
    pub models: Vec<ModelSpent>,
    /// By goal, in the order in which they were set, and the work that was for none.
    pub goals: Vec<GoalSpent>,
    /// By what became of the work.
    pub work: WorkSpent,
    /// The models of each configuration, by the entry that holds it.
    #[serde(skip)]
    configured: BTreeMap<EntryNo, Models>,
    /// The place among the goals of the one there is.
    #[serde(skip)]
    present: Option<usize>,
}

/// What some part of the work spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Tokens, cost and time.
    #[serde(flatten)]
    pub totals: Totals,
    /// Of the tokens measured, prompts and answers, those whose price is not known: they are in no cost.
    pub unpriced_tokens: u64,
    /// Model calls that gave a step or a summary.
    pub calls: u64,
    /// Tries at model calls that the log tells of, these among them. One that was cut before its provider had
    /// reported anything is in no log.
    pub attempts: u64,
}

/// What a model spent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ModelSpent {
    /// The model; `None` where the configuration that named it was redacted.
    pub model: Option<ModelName>,
    /// What it spent.
    #[serde(flatten)]
    pub spent: Spent,
}

/// A model, by what it is called where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelName {
    /// The provider.
    pub provider: String,
    /// The model's name there.
    pub name: String,
}

/// What was spent on a goal.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GoalSpent {
    /// The goal; `None` for work that was for none.
    pub goal: Option<GoalId>,
    /// What it asks for.
    pub objective: Option<String>,
    /// What counts against a budget of it.
    pub used: GoalUsage,
    /// What was spent.
    #[serde(flatten)]
    pub spent: Spent,
    /// When it was set: that and its id tell it from others.
    #[serde(skip)]
    created: Timestamp,
}

/// What was spent, by what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorkSpent {
    /// Steps of turns: answers that were committed, and tools.
    pub turns: Spent,
    /// Attempts that failed: made again, or the end of their turn.
    pub failed: Spent,
    /// Summaries, those that were of no use among them.
    pub compactions: Spent,
    /// Work that was obsolete when it came: answers to a history that had changed.
    pub obsolete: Spent,
    /// Work that somebody stopped.
    pub interrupted: Spent,
    /// Attempts that were lost with their worker. Only estimated.
    pub lost: Spent,
}

/// The models of a configuration; `None` where nobody can know them any more.
type Models = Option<[Known; 2]>;

/// What is known of a model.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    name: ModelName,
    is_priced: bool,
}

impl Known {
    fn of(choice: &ModelChoice) -> Self {
        let name = ModelName { provider: choice.provider.clone(), name: choice.name.clone() };
        Known { name, is_priced: choice.prices.is_some() }
    }
}

impl Ledger {
    /// Adds the next entry of the log. Of contents only configurations are looked at.
    pub fn push(&mut self, record: &Record, content: Option<&Content>) {
        let fact = &record.fact;
        if is_configuration(fact) {
            self.configured.insert(record.n, models(content));
        }
        if let Some(charge) = fact.charge() {
            self.charge(fact, charge);
        }
        if let Fact::Acquired { estimate, goal, .. } = fact
            && !estimate.is_zero()
        {
            self.lose(*estimate, *goal);
        }
        if let Fact::Goal { goal, .. } = fact {
            self.set_goal(goal.as_ref());
        }
        if let Fact::ToolStep { goal: Some(ModelGoal::Created(goal)), .. } = fact {
            self.set_goal(Some(goal));
        }
        if fact.next() == Some(Next::Continue)
            && let Some(at) = self.present
        {
            self.goals[at].used.continuations += 1;
        }
    }

    /// Returns where a state counts something else than its log does; nothing where they agree to the token.
    #[must_use]
    pub fn disagreements(&self, state: &SessionState) -> Vec<String> {
        let mut found = Vec::new();
        if self.total.totals != state.ledger {
            found.push("the totals are not the sum over the entries".to_owned());
        }
        if self.parts().iter().any(|part| *part != self.total) {
            found.push("what was spent by model, goal or outcome is not what was spent in all".to_owned());
        }
        let present = self.present_goal().map(|goal| (goal.goal, goal.used));
        if present != state.goal.as_ref().map(|goal| (Some(goal.id), goal.used)) {
            found.push("what the goal has used is not the sum over the entries".to_owned());
        }
        found
    }

    /// Returns what was spent on the goal there is.
    #[must_use]
    pub fn present_goal(&self) -> Option<&GoalSpent> {
        self.present.map(|at| &self.goals[at])
    }

    /// Returns the sums by model, by goal and by what became of the work.
    fn parts(&self) -> [Spent; 3] {
        let WorkSpent { turns, failed, compactions, obsolete, interrupted, lost } = self.work;
        let models = self.models.iter().map(|model| model.spent).sum();
        let goals = self.goals.iter().map(|goal| goal.spent).sum();
        [models, goals, [turns, failed, compactions, obsolete, interrupted, lost].into_iter().sum()]
    }

    fn charge(&mut self, fact: &Fact, charge: &Charge) {
        let spend = &charge.spend;
        let known = self.model(spend.configured_at, spend.summary || is_compaction(fact));
        let unpriced = spend.usage.cost_micros == 0 && known.is_none_or(|known| !known.is_priced);
        let answered = matches!(fact, Fact::ModelStep { .. } | Fact::Compacted { .. });
        let tried = matches!(fact, Fact::Retry { .. } | Fact::CompactionFailed { .. });
        let spent = Spent {
            totals: Totals::of(spend),
            unpriced_tokens: if unpriced { spend.usage.tokens() } else { 0 },
            calls: u64::from(answered),
            attempts: u64::from(answered || tried || !spend.usage.is_zero()),
        };
        self.spend_on_model(known.map(|known| known.name.clone()), spent);
        self.goal(spend.goal).used.add(spend);
        self.goal(spend.goal).spent += spent;
        *self.work.of(fact) += spent;
        self.total += spent;
    }

    fn lose(&mut self, estimate: Usage, goal: Option<GoalId>) {
        let spent = Spent { totals: Totals::of_lost(estimate), attempts: 1, ..Spent::default() };
        let name = self.model(0, false).map(|known| known.name.clone());
        self.spend_on_model(name, spent);
        self.goal(goal).used.add_estimate(&estimate);
        self.goal(goal).spent += spent;
        self.work.lost += spent;
        self.total += spent;
    }

    /// Returns what is known of the model that a configuration asks; 0: of the one in force.
    fn model(&self, configured_at: EntryNo, summary: bool) -> Option<&Known> {
        let named = self.configured.get(&configured_at);
        let newest = || self.configured.last_key_value().map(|(_, models)| models);
        let models = if configured_at == 0 { newest() } else { named };
        models?.as_ref().map(|models| &models[usize::from(summary)])
    }

    fn spend_on_model(&mut self, name: Option<ModelName>, spent: Spent) {
        match self.models.iter_mut().find(|model| model.model == name) {
            Some(model) => model.spent += spent,
            None => self.models.push(ModelSpent { model: name, spent }),
        }
    }

    /// Returns the newest goal of an id.
    fn goal(&mut self, id: Option<GoalId>) -> &mut GoalSpent {
        let at = self.goals.iter().rposition(|goal| goal.goal == id).unwrap_or_else(|| {
            self.goals.push(GoalSpent { goal: id, ..GoalSpent::default() });
            self.goals.len() - 1
        });
        &mut self.goals[at]
    }

    fn set_goal(&mut self, goal: Option<&Goal>) {
        let Some(goal) = goal else {
            self.present = None;
            return;
        };
        let same = self
            .present_goal()
            .is_some_and(|present| (present.goal, present.created) == (Some(goal.id), goal.created));
        if !same {
            let (id, created) = (Some(goal.id), goal.created);
            self.goals.push(GoalSpent { goal: id, created, ..GoalSpent::default() });
            self.present = Some(self.goals.len() - 1);
        }
        self.goal(Some(goal.id)).objective = Some(goal.objective.clone());
    }
}

impl WorkSpent {
    /// Returns where the work counts that a fact charges for.
    fn of(&mut self, fact: &Fact) -> &mut Spent {
        if matches!(fact, Fact::Retry { .. } | Fact::Failed { .. }) {
            &mut self.failed
        } else if is_compaction(fact) {
            &mut self.compactions
        } else if matches!(fact, Fact::Settled { .. }) {
            &mut self.obsolete
        } else if matches!(fact, Fact::Interrupted { .. }) {
            &mut self.interrupted
        } else {
            &mut self.turns
        }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Spent) {
        self.totals += other.totals;
        self.unpriced_tokens = self.unpriced_tokens.saturating_add(other.unpriced_tokens);
        self.calls += other.calls;
        self.attempts += other.attempts;
    }
}

impl Sum for Spent {
    fn sum<I: Iterator<Item = Spent>>(parts: I) -> Spent {
        parts.fold(Spent::default(), |mut sum, part| {
            sum += part;
            sum
        })
    }
}

/// Tells whether the content of such an entry is the configuration in force from there on.
#[must_use]
pub fn is_configuration(fact: &Fact) -> bool {
    matches!(fact, Fact::Created { .. } | Fact::Configured { .. })
}

fn is_compaction(fact: &Fact) -> bool {
    matches!(fact, Fact::Compacted { .. } | Fact::CompactionFailed { .. })
}

/// Returns the model that answers and the one that summarises.
fn models(content: Option<&Content>) -> Models {
    let Some(Content::Configuration { configuration }) = content else { return None };
    let answers = &configuration.model;
    let summarises = configuration.summariser.as_deref().unwrap_or(answers);
    Some([Known::of(answers), Known::of(summarises)])
}
