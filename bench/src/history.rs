//! Logs of the past: sessions as a worker would have left them, written in one transaction.

use std::collections::BTreeMap;
use std::path::Path;

use longhaul_session::command::{Basis, Command, First, OwnerAction, Ran, Step};
use longhaul_session::decide::decide;
use longhaul_session::entry::{CallFact, Entry, Measured, Mode, Place, Timing};
use longhaul_session::id::{CallId, Digest, SessionId, Timestamp, WorkerId};
use longhaul_session::item::{EffectClass, Item, Outcome, ToolCall, ToolResult};
use longhaul_session::log::seal;
use longhaul_session::state::SessionState;
use longhaul_session::usage::{Spend, Usage};
use longhaul_store::{Row, Store};
use uuid::Uuid;

use crate::rig::{PLACE, configuration};
use crate::wire;

const BEGAN: Timestamp = Timestamp(1_800_000_000_000);

/// A session that was run by a worker which is gone.
#[derive(Default)]
pub(crate) struct History {
    state: SessionState,
    entries: Vec<Entry>,
}

impl History {
    /// Begins a session with a message, owned and prepared.
    pub(crate) fn begin(folder: &Path, model: &str) -> anyhow::Result<Self> {
        let mut history = History::default();
        let configuration = Box::new(configuration(folder, "endpoint", model));
        let first = First::Message("Keep them all.".into());
        history.ask(Command::Create {
            configuration,
            ephemeral: false,
            name: None,
            mode: Mode::Default,
            first,
        })?;
        let worker = WorkerId(Uuid::new_v4());
        history.ask(Command::Acquire { worker, lost: None, estimate: Usage::default() })?;
        history
            .own(OwnerAction::Prepare { system: "You keep notes.".to_owned(), tools: vec![wire::tool()] })?;
        Ok(history)
    }

    fn ask(&mut self, command: Command) -> anyhow::Result<()> {
        let decision = decide(&self.state, command, BEGAN.plus_ms(self.state.head))?;
        self.state = decision.state;
        self.entries.extend(decision.entries);
        Ok(())
    }

    fn own(&mut self, action: OwnerAction) -> anyhow::Result<()> {
        self.ask(Command::Owned { epoch: 1, action })
    }

    fn basis(&self) -> Basis {
        Basis { history_at: self.state.history_at, attempt: 0 }
    }

    fn spend() -> Spend {
        Spend { usage: Usage { input: 10, output: 5, ..Usage::default() }, active_ms: 1, ..Spend::default() }
    }

    /// The n-th call of the model and its result: two entries.
    pub(crate) fn step(&mut self, n: u64) -> anyhow::Result<()> {
        self.call(n)?;
        self.result(n)
    }

    /// The n-th call of the model.
    pub(crate) fn call(&mut self, n: u64) -> anyhow::Result<()> {
        let id = CallId(wire::call_id(n));
        let (name, arguments) = (wire::TOOL.to_owned(), wire::arguments(n));
        let fact = CallFact {
            id: id.clone(),
            tool: name.clone(),
            place: Place::Local,
            effect: EffectClass::Once,
            exclusive: false,
            stop_after: false,
            digest: Digest::of(arguments.as_bytes()),
        };
        let call = Item::ToolCall(ToolCall { id: id.clone(), name, arguments, opaque: None });
        self.commit(Step::Model {
            items: vec![Item::Assistant { text: wire::remark(n), partial: false }, call],
            calls: vec![fact],
            finish: "toolcalls".to_owned(),
            response_id: None,
            measured: Measured { input_tokens: 10, items: 2 * n, bytes: 700 * n, ..Measured::default() },
            timing: Timing::default(),
        })
    }

    /// The result of the n-th call.
    pub(crate) fn result(&mut self, n: u64) -> anyhow::Result<()> {
        let (id, output) = (CallId(wire::call_id(n)), wire::result(n));
        let result = ToolResult { call: id, outcome: Outcome::Ok, output, files: Vec::new(), artifact: None };
        self.commit(Step::Tools { results: vec![Ran { result, ran: Some((BEGAN, BEGAN)) }], goal: None })
    }

    fn commit(&mut self, step: Step) -> anyhow::Result<()> {
        let action =
            OwnerAction::CommitStep { basis: self.basis(), step: Box::new(step), spend: Self::spend() };
        self.own(action)
    }

    /// Takes all that was said so far out of the model's context.
    pub(crate) fn compact(&mut self) -> anyhow::Result<()> {
        let summary = "There were many notes, and all of them were kept.".to_owned();
        let (basis, keep_from) = (self.basis(), self.state.head + 1);
        self.own(OwnerAction::Compact { basis, summary, keep_from, kept: Vec::new(), spend: Self::spend() })
    }

    /// Returns the row of the session as it is now, and its entries since they were taken last.
    pub(crate) fn take(&mut self, session: SessionId, before: Digest) -> Taken {
        let entries = seal(before, &std::mem::take(&mut self.entries));
        let state = &self.state;
        let row = Row {
            session,
            head: state.head,
            head_hash: entries.last().map_or(before, |entry| entry.hash),
            state: serde_json::to_vec(state).expect("a state has only string keys"),
            status: state.status.name().to_owned(),
            archived: false,
            name: None,
            claimable_at: state.claimable_at(),
            owner: state.owner.map(|owner| owner.worker),
            epoch: state.epoch,
            place: PLACE.to_owned(),
            parent: None,
            labels: BTreeMap::new(),
            created: BEGAN,
            updated: BEGAN.plus_ms(state.head),
        };
        Taken { row, entries }
    }

    /// Stores the session. Its owner is dead: whoever wants it may claim it.
    pub(crate) async fn store(mut self, store: &dyn Store) -> anyhow::Result<SessionId> {
        let session = SessionId(Uuid::new_v4());
        let Taken { row, entries } = self.take(session, Digest::default());
        store.create(row, entries, None).await?;
        Ok(session)
    }
}

/// A session as it is handed to a store.
pub(crate) struct Taken {
    pub(crate) row: Row,
    pub(crate) entries: Vec<longhaul_session::log::SealedEntry>,
}
