//! The people: they do everything that can be done, at any time, sometimes twice, and do not always
//! wait for the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longhaul_engine::{Created, Done, Engine, Error, GivenFile, Imported, NewSession};
use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::{Answer, Command, First, Refusal};
use longhaul_session::decide::decide;
use longhaul_session::entry::{Mode, Place};
use longhaul_session::goal::{Budget, Terms};
use longhaul_session::id::{Digest, EntryNo, GoalId, SessionId};
use longhaul_session::log::seal;
use longhaul_session::prompts::{Prompt, Prompts};
use longhaul_session::state::SessionState;
use longhaul_store::RequestId;

use crate::store::{Disk, short};
use crate::tools;
use crate::truth::{Answered, Sent};
use crate::world::World;

/// Where all sessions and workers are.
pub(crate) const PLACE: &str = "here";

/// What a person may do.
const ACTIONS: [(u64, &str); 28] = [
    (4, "user creates"),
    (14, "user sends"),
    (6, "user sends and interrupts"),
    (4, "user gives a file"),
    (5, "user edits"),
    (6, "user interrupts"),
    (3, "user interrupts and drops the queue"),
    (3, "user unqueues"),
    (3, "user promotes"),
    (12, "user answers"),
    (3, "user submits results"),
    (4, "user forks"),
    (2, "user imports"),
    (3, "user archives"),
    (4, "user unarchives"),
    (3, "user clears"),
    (4, "user asks for a compaction"),
    (5, "user sets a goal"),
    (3, "user edits the goal"),
    (3, "user pauses the goal"),
    (3, "user resumes the goal"),
    (2, "user clears the goal"),
    (3, "user sets the mode"),
    (2, "user renames"),
    (2, "user redacts"),
    (2, "user configures"),
    (2, "user grants"),
    (1, "user moves the session"),
];

/// A person.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) world: Arc<World>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) engine: Engine,
}

/// The answer to something a person asked; `None` when none came, or it was that nobody knows.
type Heard<T> = Option<Result<T, Refusal>>;

impl User {
    /// Does things until the troubles are over.
    pub(crate) async fn live(self) {
        let world = &self.world;
        self.create().await;
        for _ in 0..world.plan.actions {
            let pause_ms = world.below(2 * world.plan.trouble_ms / world.plan.actions);
            world.sleep_ms(pause_ms).await;
            if world.is_calm() {
                return;
            }
            let weight = world.below(ACTIONS.iter().map(|(weight, _)| weight).sum());
            let mut reached = 0;
            let chosen = ACTIONS.iter().find(|(weight_of, _)| {
                reached += weight_of;
                weight < reached
            });
            let action = chosen.expect("the weights cover their sum").1;
            self.act(action).await;
        }
    }

    async fn act(&self, action: &'static str) {
        let rows = self.disk.rows();
        if rows.is_empty() || action == "user creates" {
            return self.create().await;
        }
        let row = self.world.chance().pick(&rows).clone();
        let Ok(state) = serde_json::from_slice::<SessionState>(&row.state) else { return };
        self.world.count(action);
        self.world.note(&self.name, format_args!("{action}: {}", short(row.session)));
        match action {
            "user sends" => self.send(row.session, false).await,
            "user sends and interrupts" => self.send(row.session, true).await,
            "user gives a file" => self.give(row.session).await,
            "user edits" => self.edit(row.session, &state).await,
            "user forks" => {
                let at = 1 + self.world.below(row.head);
                drop(self.hear(self.engine.fork(row.session, at)).await);
            }
            "user imports" => self.import().await,
            "user moves the session" => {
                drop(self.hear(self.engine.move_to(row.session, "/")).await);
            }
            _ => {
                if let Some(command) = self.command(action, &state) {
                    self.ask(row.session, command).await;
                }
            }
        }
    }

    fn goal_id(&self) -> GoalId {
        GoalId(self.world.fresh_id())
    }

    fn budget(&self) -> Budget {
        let world = &self.world;
        let tokens = world.happens(400).then(|| 1 + world.below(400));
        let active_ms = world.happens(200).then(|| 1 + world.below(20_000));
        let (continuations, hard) = (Some(1 + world.below(6)), world.happens(150));
        Budget { tokens, active_ms, continuations, hard, ..Budget::default() }
    }

    fn command(&self, action: &str, state: &SessionState) -> Option<Command> {
        let world = &self.world;
        let queued = || (!state.queue.is_empty()).then(|| *world.chance().pick(&state.queue));
        Some(match action {
            "user interrupts" => Command::Interrupt { drop_queue: false },
            "user interrupts and drops the queue" => Command::Interrupt { drop_queue: true },
            "user unqueues" => Command::Unqueue { message: queued()? },
            "user promotes" => Command::Promote { message: queued()? },
            "user answers" => answer(world, state)?,
            "user submits results" => Command::SubmitToolResults { results: Vec::new() },
            "user archives" => Command::Archive,
            "user unarchives" => Command::Unarchive,
            "user clears" => Command::ClearContext,
            "user asks for a compaction" => Command::RequestCompaction,
            "user sets a goal" => Command::SetGoal {
                id: self.goal_id(),
                objective: format!("objective {}", world.below(3)),
                terms: Terms { budget: self.budget(), ..Terms::default() },
                message: None,
            },
            "user edits the goal" => Command::EditGoal {
                objective: world.happens(500).then(|| format!("objective {}", world.below(3))),
                budget: world.happens(500).then(|| self.budget()),
                checks: None,
                protected: None,
            },
            "user pauses the goal" => Command::PauseGoal,
            "user resumes the goal" => Command::ResumeGoal,
            "user clears the goal" => Command::ClearGoal,
            "user sets the mode" => {
                Command::SetMode(if state.mode == Mode::Plan { Mode::Default } else { Mode::Plan })
            }
            "user renames" => Command::Rename { name: world.happens(700).then(|| "a name".to_owned()) },
            "user redacts" => Command::Redact { entry: 1 + world.below(state.head) },
            "user configures" => Command::Configure(Box::new(configuration(world))),
            "user grants" => Command::Grant { tool: "ask".to_owned() },
            _ => return None,
        })
    }

    /// Waits for an answer, but not for ever: a caller that gives up may be one that has died.
    async fn hear<T>(&self, asked: impl Future<Output = Result<Result<T, Refusal>, Error>>) -> Heard<T> {
        let patience_ms = 200 + self.world.below(20_000);
        let heard = tokio::select! {
            biased;
            heard = asked => heard,
            () = self.world.sleep_ms(patience_ms) => {
                self.world.count("user gave up waiting");
                return None;
            }
        };
        match heard {
            Ok(Ok(done)) => {
                self.world.count("user was answered");
                Some(Ok(done))
            }
            Ok(Err(refusal)) => {
                self.world.count("user was refused");
                self.world.note(&self.name, format_args!("refused: {refusal}"));
                Some(Err(refusal))
            }
            Err(error) => {
                self.world.count("user got an error");
                self.world.note(&self.name, format_args!("error: {error}"));
                None
            }
        }
    }

    /// Asks for something, now and then twice under one request id.
    async fn ask(&self, session: SessionId, command: Command) -> Answered {
        let world = &self.world;
        let id = format!("{}-{}", self.name, world.chance().next());
        let request = world.happens(500).then(|| RequestId::new(id).expect("it is short"));
        let mut answered = Answered::Refused;
        let mut applied = BTreeSet::new();
        for _ in 0..3 {
            match self.hear(self.engine.command(session, command.clone(), request.as_ref())).await {
                Some(Ok(Done::Now(entries))) => {
                    applied.extend(entries.last().map(|entry| entry.record.n));
                    answered = Answered::Accepted;
                }
                Some(Ok(Done::Before(head))) => {
                    applied.insert(head);
                    answered = Answered::Accepted;
                }
                Some(Err(_)) => {}
                None if answered == Answered::Refused => answered = Answered::Unknown,
                None => {}
            }
            let again = request.is_some() && (answered == Answered::Unknown || world.happens(300));
            if !again {
                break;
            }
            world.count("request repeated");
            world.sleep_ms(world.below(3_000)).await;
        }
        world.hold(applied.len() <= 1, "Once", || {
            format!("{} in {} was done at the entries {applied:?}", command.name(), short(session))
        });
        answered
    }

    fn text(&self) -> String {
        format!("message {} of {}", self.world.chance().next() % 1_000_000_007, self.name)
    }

    async fn send(&self, session: SessionId, interrupt: bool) {
        let text = self.text();
        let answered = self.ask(session, Command::Send { message: text.clone().into(), interrupt }).await;
        self.world.truth().sent.push(Sent { session, text, answered });
    }

    /// Sends a message with a file that holds its text.
    async fn give(&self, session: SessionId) {
        let (text, interrupt) = (self.text(), self.world.happens(300));
        let file = [given(&text)];
        let answered = match self.hear(self.engine.send(session, &text, &file, interrupt, None)).await {
            Some(Ok(_)) => Answered::Accepted,
            Some(Err(_)) => Answered::Refused,
            None => Answered::Unknown,
        };
        self.world.truth().sent.push(Sent { session, text, answered });
    }

    async fn edit(&self, session: SessionId, state: &SessionState) {
        let text = self.text();
        let message = self.world.happens(500).then(|| 1 + self.world.below(state.head));
        let answered = match self.hear(self.engine.edit(session, message, &text, None)).await {
            Some(Ok(_)) => Answered::Accepted,
            Some(Err(_)) => Answered::Refused,
            None => Answered::Unknown,
        };
        self.world.truth().sent.push(Sent { session, text, answered });
    }

    async fn create(&self) {
        let world = &self.world;
        world.count("user creates");
        let text = self.text();
        let first = match world.below(4) {
            0 => First::Nothing,
            1 => First::Goal {
                id: self.goal_id(),
                objective: "objective 0".to_owned(),
                terms: Terms { budget: self.budget(), ..Terms::default() },
            },
            _ => First::Message(text.clone().into()),
        };
        let with_files = first != First::Nothing && world.happens(200);
        let message = with_files || matches!(first, First::Message(_));
        let new = NewSession {
            configuration: configuration(world),
            place: PLACE.to_owned(),
            ephemeral: false,
            mode: if world.happens(50) { Mode::Plan } else { Mode::Default },
            name: None,
            labels: BTreeMap::new(),
            first,
        };
        let created = if with_files {
            self.hear(self.engine.create_with_files(new, &text, &[given(&text)], None)).await
        } else {
            self.hear(self.engine.create(new, None)).await
        };
        if let Some(Ok(Created { session, .. })) = created
            && message
        {
            world.truth().sent.push(Sent { session, text, answered: Answered::Accepted });
        }
    }

    /// Imports the log of a session that was made elsewhere.
    async fn import(&self) {
        let (world, origin) = (&self.world, SessionId(self.world.fresh_id()));
        let create = Command::Create {
            configuration: Box::new(configuration(world)),
            ephemeral: false,
            name: None,
            mode: Mode::Default,
            first: First::Message("from elsewhere".into()),
        };
        let Ok(made) = decide(&SessionState::default(), create, world.now()) else { return };
        let entries = seal(Digest::default(), &made.entries);
        let import = async {
            let imported = self.engine.import(origin, entries, BTreeSet::new(), PLACE.to_owned()).await?;
            if let Imported::Broken(problems) = &imported {
                world.broken("Chain", format!("a sound log is not imported: {problems:?}"));
            }
            Ok(Ok(imported))
        };
        drop(self.hear(import).await);
    }
}

/// A file that holds a text and is called by it.
fn given(text: &str) -> GivenFile {
    GivenFile::new(text, text.as_bytes().to_vec()).expect("it is short, and not empty")
}

/// Answers one of the approvals that a session waits for.
pub(crate) fn answer(world: &World, state: &SessionState) -> Option<Command> {
    let asked = state.pending.iter().find(|call| matches!(call.place, Place::Approval | Place::Question))?;
    let answer = match asked.place {
        Place::Question => Answer::Value("yes".to_owned()),
        Place::Approval | Place::Local | Place::Client if world.happens(600) => Answer::Allow,
        Place::Approval | Place::Local | Place::Client => Answer::Deny { reason: None },
    };
    Some(Command::Answer { call: asked.id.clone(), answer, remember: world.happens(200) })
}

fn configuration(world: &World) -> Configuration {
    let (resumable, chain) = (world.happens(400), world.happens(400));
    Configuration {
        agent: "sim".to_owned(),
        model: ModelChoice { resumable, chain, ..ModelChoice::new("sim", "sim") },
        directory: "/".to_owned(),
        instructions: Some("Simulate.".to_owned()),
        scope: Vec::new(),
        tools: tools::settings(),
        prompts: prompts(),
        limits: Limits {
            max_steps: world.plan.max_steps,
            max_crashes: 3,
            retry_for_ms: 90_000,
            retry_for_goal_ms: 200_000,
            compact_above_tokens: world.plan.compact_above_tokens,
            model_call_ms: 25_000,
            ..Limits::default()
        },
        summariser: world.plan.summariser.then(|| Box::new(ModelChoice::new("sim", "summariser"))),
        goal: Terms::default(),
        without_goals: false,
    }
}

/// Short ones, as the contexts are: the built-in prompts alone would fill them.
fn prompts() -> Prompts {
    let mut prompts = Prompts::default();
    for prompt in [Prompt::Continuation, Prompt::BudgetSpent, Prompt::ObjectiveChanged, Prompt::GoalRecalled]
    {
        let template =
            "Goal: {{ objective }}{% for part in budget %}, {{ part.used }} {{ part.name }}{% endfor %}.";
        prompts.set(prompt, template.to_owned()).expect("the template names what there is");
    }
    prompts
}

/// Where a message stands in a log: how often its text is there, and whether it may have been redacted.
pub(crate) fn occurrences(
    entries: &[longhaul_session::entry::Entry],
    after: EntryNo,
    text: &str,
) -> (usize, bool) {
    use longhaul_session::entry::Fact;
    use longhaul_session::item::Item;
    let own = entries.iter().filter(|entry| entry.record.n > after);
    let messages =
        own.filter(|entry| matches!(entry.record.fact, Fact::Message | Fact::Queued | Fact::Edited { .. }));
    let (mut times, mut redacted) = (0, false);
    for entry in messages {
        redacted |= entry.content.is_none();
        times +=
            entry.items().iter().filter(|item| matches!(item, Item::User { text: it } if it == text)).count();
    }
    (times, redacted)
}
