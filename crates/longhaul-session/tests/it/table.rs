//! The table of commands and states, printed. One representative of every command is tried in several
//! states of every standing; what they are decided to do is tested by the rules' own tests.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::successors;
use std::sync::Arc;

use longhaul_session::agent::Configuration;
use longhaul_session::command::{Answer, Command, Cut, First, OwnerAction, Refusal, Standing};
use longhaul_session::context::UserMessage;
use longhaul_session::decide::{decide_as, may_tell, permit, standing};
use longhaul_session::entry::{CallFact, FinishReason, Mode, Place};
use longhaul_session::failure::FailureClass;
use longhaul_session::goal::{Budget, Goal, Terms};
use longhaul_session::id::{CallId, Digest};
use longhaul_session::item::{Item, Outcome};
use longhaul_session::prompts::{Prompt, Prompts};
use longhaul_session::usage::Spend;

use crate::driver::{
    Session, acquire, call, configuration, create, edit_budget, failure, goal_id, model_step, result, retry,
    send, session_id, set_goal,
};

#[test]
fn every_command_lands_where_the_table_says() {
    let mut text = format!("{:<20}", "");
    Standing::ALL.iter().for_each(|at| text.push_str(&format!("{:<24}", at.name())));
    for name in all_names() {
        text.push_str(&format!("\n{name:<20}"));
        for at in Standing::ALL {
            text.push_str(&format!("{:<24}", cell(&name, at)));
        }
    }
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn no_command_is_forgotten() {
    let names = all_names();
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(names.len(), 44, "{names:?}");
    assert_eq!(distinct.len(), names.len());
}

#[test]
fn a_command_the_table_forbids_says_what_is_possible_instead() {
    for (at, session) in Standing::ALL.into_iter().flat_map(|at| states(at).into_iter().map(move |s| (at, s)))
    {
        for command in commands(&session) {
            if let Err(refusal) = permit(&session.state, &command) {
                let Refusal::NotNow { standing, allowed, .. } = &refusal else {
                    panic!("{} is refused by {refusal:?}", command.name())
                };
                assert_eq!((*standing, allowed.is_empty()), (at, false));
                assert_eq!(session.refusal(command), refusal);
            }
        }
    }
}

#[test]
fn whether_a_command_may_tell_the_model_something_is_known_before_it_is_decided() {
    let words: BTreeMap<&str, &str> = Prompt::ALL.map(|prompt| (prompt.name(), "Own words.")).into();
    let words = serde_json::to_value(words).expect("it has only string keys");
    let prompts: Prompts = serde_json::from_value(words).expect("what is stored is not checked");
    let own = Arc::new(Configuration { prompts, ..configuration() });
    let mut telling = BTreeSet::new();
    for session in Standing::ALL.into_iter().flat_map(states) {
        for command in commands(&session) {
            let decided = |own| decide_as(own, &session.state, command.clone(), session.now.plus_ms(1));
            let (Ok(built_in), Ok(owns)) = (decided(None), decided(Some(&own))) else { continue };
            if built_in.entries != owns.entries {
                assert!(may_tell(&command), "{}", command.name());
                telling.insert(command.name());
            }
        }
    }
    assert!(telling.contains("SetGoal") && telling.contains("CommitSteering"), "{telling:?}");
    let silent = commands(&Session::running()).filter(|command| !may_tell(command)).count();
    assert!(silent > 30, "{silent} commands need no configuration");
}

/// Where a command lands from the states of a standing; a dash when all of them refuse it.
/// Only a state that breaks its invariants can be reconciled, so that command gets broken ones.
fn cell(name: &str, at: Standing) -> String {
    let mut landings = BTreeSet::new();
    for session in states(at) {
        assert_eq!(standing(&session.state), at, "the state is one of its row");
        for command in commands(&session).filter(|command| command.name() == name) {
            let mut session = session.clone();
            if name == "Reconcile" {
                session.state.history_at = session.state.head + 1;
            }
            if session.attempt(command).is_ok() {
                landings.insert(standing(&session.state).name());
            }
        }
    }
    let landings: Vec<&str> = landings.into_iter().collect();
    if landings.is_empty() { "–".to_owned() } else { landings.join("|") }
}

fn all_names() -> Vec<String> {
    commands(&Session::default()).map(|command| command.name().to_owned()).collect()
}

/// States that stand for all of their standing: with and without a queue, a goal, open calls, an owner.
fn states(at: Standing) -> Vec<Session> {
    use longhaul_session::state::Status::{Failed, Interrupting, RequiresAction, Running, Waiting};
    let with = |session: &Session, command: Command| {
        let mut session = session.clone();
        session.run(command);
        session
    };
    match at {
        Standing::Nothing => vec![Session::default()],
        Standing::Is(Waiting) => waiting_states(),
        Standing::Is(Running) => {
            let model = Session::running();
            let mut tools = model.clone();
            tools.model(&[call("a")]);
            let mut done = model.clone();
            done.model(&[]);
            let mut foreign = model.clone();
            foreign.model(&[CallFact { place: Place::Client, ..call("a") }]);
            let goal = with(&done, set_goal(1, "objective", Budget::default()));
            let mut free = with(&model, send("queued"));
            free.own(OwnerAction::Release { not_started: vec![] });
            let fresh = with(&Session::created(), send("begin"));
            let unprepared = with(&fresh, acquire(None));
            let terms = Terms { protected: vec!["tests".to_owned()], ..Terms::default() };
            let objective = "objective".to_owned();
            let guarded = with(&model, Command::SetGoal { id: goal_id(2), objective, terms, message: None });
            vec![with(&done, send("queued")), unprepared, model, tools, done, foreign, goal, guarded, free]
        }
        Standing::Is(Interrupting) => {
            let stopping = with(&Session::running(), Command::Interrupt { drop_queue: false });
            let goal = with(&stopping, set_goal(1, "objective", Budget::default()));
            vec![with(&stopping, send("queued")), goal, stopping]
        }
        Standing::Is(RequiresAction) => {
            let client = Session::awaiting(Place::Client);
            let mut deadline = Session::running();
            deadline.model(&[CallFact { place: Place::Client, ..call("a") }]);
            let deadlines = vec![(CallId::from("a"), deadline.now)];
            deadline.own(OwnerAction::AwaitAction { deadlines }).acquire();
            let goal = with(&client, set_goal(1, "objective", Budget::default()));
            let (two, asked) = (awaiting_two(Place::Client), awaiting_two(Place::Approval));
            let approval = Session::awaiting(Place::Approval);
            vec![with(&client, send("queued")), approval, client, deadline, goal, two, asked]
        }
        Standing::Is(Failed) => {
            let mut queued = Session::running();
            queued.model(&[]).send("queued").fail(FailureClass::Auth);
            let mut goal = Session::failed();
            goal.run(set_goal(1, "objective", Budget::default())).acquire().fail(FailureClass::Auth);
            vec![Session::failed(), queued, goal]
        }
        Standing::Archived => {
            let waiting = waiting_states().into_iter();
            waiting.chain([Session::failed()]).map(|session| with(&session, Command::Archive)).collect()
        }
    }
}

/// A session that awaits an answer to `a`, the deadline of which has passed, and to a question.
fn awaiting_two(place: Place) -> Session {
    let mut session = Session::running();
    session.model(&[CallFact { place, ..call("a") }, CallFact { place: Place::Question, ..call("b") }]);
    let deadlines = vec![(CallId::from("a"), session.now)];
    session.own(OwnerAction::AwaitAction { deadlines }).acquire();
    session
}

fn waiting_states() -> Vec<Session> {
    let mut paused = Session::finished();
    paused.run(set_goal(1, "objective", Budget::default())).run(Command::Interrupt { drop_queue: false });
    paused.acquire().own(interrupted(Spend::default()));
    let mut planning = Session::finished();
    planning.run(Command::SetMode(Mode::Plan)).run(set_goal(1, "objective", Budget::default()));
    vec![Session::created(), Session::finished(), paused, planning]
}

/// One representative of every command, fit for this session as far as it can be.
///
/// Each is made by the one before it: a new command does not compile until it has its place in the row.
fn commands(session: &Session) -> impl Iterator<Item = Command> {
    let first = create(First::Nothing, false);
    successors(Some(first), |command| following(command, session))
}

fn following(command: &Command, session: &Session) -> Option<Command> {
    let queued = session.state.queue.first().copied().unwrap_or(1);
    let text = || "text".to_owned();
    let next = match command {
        Command::Create { .. } => Command::Fork { parent: session_id() },
        Command::Fork { .. } => Command::Import { origin: session_id() },
        Command::Import { .. } => send("text"),
        Command::Send { interrupt: false, .. } => Command::Send { message: text().into(), interrupt: true },
        Command::Send { interrupt: true, .. } => {
            Command::Edit { target: message(session), message: text().into() }
        }
        Command::Edit { .. } => Command::Unqueue { message: queued },
        Command::Unqueue { .. } => Command::Promote { message: queued },
        Command::Promote { .. } => Command::Interrupt { drop_queue: false },
        Command::Interrupt { .. } => Command::SubmitToolResults { results: vec![result("a", Outcome::Ok)] },
        Command::SubmitToolResults { .. } => {
            Command::Answer { call: "a".into(), answer: Answer::Allow, remember: false }
        }
        Command::Answer { .. } => Command::RequestCompaction,
        Command::RequestCompaction => Command::ClearContext,
        Command::ClearContext => set_goal(2, "another objective", Budget::default()),
        Command::SetGoal { .. } => edit_budget(Budget::default()),
        Command::EditGoal { .. } => Command::PauseGoal,
        Command::PauseGoal => Command::ResumeGoal,
        Command::ResumeGoal => Command::ClearGoal,
        Command::ClearGoal => Command::SetMode(match session.state.mode {
            Mode::Default => Mode::Plan,
            Mode::Plan => Mode::Default,
        }),
        Command::SetMode(_) => Command::Configure(Box::new(configuration())),
        Command::Configure(_) => Command::Grant { tool: "write".to_owned() },
        Command::Grant { .. } => Command::Rename { name: None },
        Command::Rename { .. } => Command::Redact { entry: 1 },
        Command::Redact { .. } => Command::Archive,
        Command::Archive => Command::Unarchive,
        Command::Unarchive => acquire(session.state.owner),
        Command::Acquire { .. } => Command::Reconcile,
        Command::Reconcile => {
            session.owned(OwnerAction::Prepare { system: String::new(), tools: Vec::new() })
        }
        Command::Owned { action, .. } => return Some(session.owned(following_action(action, session)?)),
    };
    Some(next)
}

fn following_action(action: &OwnerAction, session: &Session) -> Option<OwnerAction> {
    let (basis, spend) = (session.basis(), Spend::default());
    let (class, point, name) = (FailureClass::Server, "pre_model".to_owned(), "guard".to_owned());
    let step = || {
        if session.state.pending.is_empty() {
            let step = Box::new(model_step(&[]));
            OwnerAction::CommitStep { basis, step, spend }
        } else {
            session.tool_step(&[("a", Outcome::Ok)])
        }
    };
    let next = match action {
        OwnerAction::Prepare { .. } => OwnerAction::Release { not_started: Vec::new() },
        OwnerAction::Release { .. } => step(),
        OwnerAction::CommitStep { .. } => session.naming("response", false),
        OwnerAction::RecordResponse { .. } => {
            OwnerAction::CommitContext { items: vec![Item::Redacted], digest: Digest::of(b"files") }
        }
        OwnerAction::CommitContext { .. } => OwnerAction::CommitSteering,
        OwnerAction::CommitSteering => {
            let terms = session.state.goal.as_ref().map(Goal::terms).unwrap_or_default();
            OwnerAction::GuardFiles { terms, files: Vec::new() }
        }
        OwnerAction::GuardFiles { .. } => {
            OwnerAction::RecordHook { point, name, decision: "continue".to_owned(), items: Vec::new() }
        }
        OwnerAction::RecordHook { .. } => OwnerAction::Settle { spend },
        OwnerAction::Settle { .. } => OwnerAction::BeginRetry {
            basis,
            failure: failure(class),
            retry: retry(class, session.now),
            spend,
        },
        OwnerAction::BeginRetry { .. } => {
            let keep_from = session.state.head + 1;
            let summary = "summary".to_owned();
            OwnerAction::Compact { basis, summary, keep_from, kept: Vec::new(), spend }
        }
        OwnerAction::Compact { .. } => {
            OwnerAction::FailCompaction { basis, failure: failure(class), spend, automatic_off: false }
        }
        OwnerAction::FailCompaction { .. } => OwnerAction::AwaitAction { deadlines: Vec::new() },
        OwnerAction::AwaitAction { .. } => OwnerAction::CancelAction,
        OwnerAction::CancelAction => OwnerAction::FinishTurn { reason: FinishReason::MaxSteps, spend },
        OwnerAction::FinishTurn { .. } => interrupted(spend),
        OwnerAction::FinishInterruption { .. } => {
            OwnerAction::Fail { failure: failure(class), cut: Cut::default(), spend }
        }
        OwnerAction::Fail { .. } => return None,
    };
    Some(next)
}

fn interrupted(spend: Spend) -> OwnerAction {
    OwnerAction::FinishInterruption { cut: Cut::default(), partial: Vec::new(), spend }
}

/// The newest message of the session, or evidence from another one where it has none.
fn message(session: &Session) -> UserMessage {
    let other = || Session::running().context.last_user_message().expect("it began with a message");
    session.context.last_user_message().unwrap_or_else(other)
}
