//! The engine's surface: make sessions, change them, look at them, watch them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use longhaul_model::Model;
use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::{Command, First, Refusal};
use longhaul_session::context::{Context, Estimate, UserMessage};
use longhaul_session::entry::{Entry, Mode};
use longhaul_session::evolve::evolve;
use longhaul_session::failure::Failure;
use longhaul_session::id::{Digest, EntryNo, SessionId};
use longhaul_session::item::Message;
use longhaul_session::ledger::{Ledger, is_configuration};
use longhaul_session::log::{Verifier, open, open_record};
use longhaul_session::state::SessionState;
use longhaul_store::{Parent, RequestId, Row, Store};
use longhaul_tools::check::{Checker, Shell};
use longhaul_tools::output::Mask;
use longhaul_tools::toolbox::Toolbox;
use longhaul_tools::workspace::ArtifactReader;

use crate::Error;
use crate::episode::Episodes;
use crate::host::Host;
use crate::journal::{Committed, Journal, open_all};
use crate::limits::READ_BATCH;
use crate::watcher::Watcher;

/// Gives the models that sessions ask for.
pub trait Models: Send + Sync + 'static {
    /// Returns the model of a choice.
    ///
    /// # Errors
    /// It cannot be had; the failure says why and what to do.
    fn model(&self, choice: &ModelChoice, limits: &Limits) -> Result<Arc<dyn Model>, Failure>;

    /// Masks the keys it knows in what a tool wrote. What a tool wrote reaches logs and models.
    fn mask<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        Cow::Borrowed(bytes)
    }
}

/// Drives sessions. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) models: Arc<dyn Models>,
    pub(crate) tools: Toolbox,
    /// Runs the checks of goals.
    pub(crate) checker: Arc<dyn Checker>,
    pub(crate) episodes: Arc<Episodes>,
    /// Where the user keeps skills.
    pub(crate) skills: Option<Arc<Path>>,
}

/// A session to be made.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// What it runs with.
    pub configuration: Configuration,
    /// Where its directory is: only workers of this place run it.
    pub place: String,
    /// Its log is in memory only.
    pub ephemeral: bool,
    /// Whether it plans or works at first.
    pub mode: Mode,
    /// Its name.
    pub name: Option<String>,
    /// Labels, for people and queries.
    pub labels: BTreeMap<String, String>,
    /// What it begins with.
    pub first: First,
}

impl NewSession {
    pub(crate) fn command(self) -> Command {
        let NewSession { configuration, ephemeral, name, mode, first, .. } = self;
        Command::Create { configuration: Box::new(configuration), ephemeral, name, mode, first }
    }
}

/// A session that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub session: SessionId,
    /// The number of its newest entry.
    pub head: EntryNo,
    /// The same request made it before.
    pub repeated: bool,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// It was done now, with these entries.
    Now(Vec<Entry>),
    /// The same request did it before; this is the last entry it wrote then.
    Before(EntryNo),
}

/// A session at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its row, without the state.
    pub row: Row,
    /// Its state.
    pub state: SessionState,
}

/// How full a session's context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fullness {
    /// The size of the next request.
    pub next_request: Estimate,
    /// The size above which the context is compacted first, in tokens.
    pub compact_above_tokens: u64,
    /// It is done without being asked for; not after too many failures in a row.
    pub automatic: bool,
}

impl Engine {
    /// Makes an engine.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, host: Arc<dyn Host>, models: Arc<dyn Models>, tools: Toolbox) -> Self {
        let checker = Arc::new(Shell);
        Engine { store, host, models, tools, checker, episodes: Arc::default(), skills: None }
    }

    /// Offers sessions the skills in a folder, besides those of their workspaces.
    #[must_use]
    pub fn with_skills(self, folder: &Path) -> Self {
        Engine { skills: Some(Arc::from(folder)), ..self }
    }

    /// Has the checks of goals run by something else than a shell.
    #[must_use]
    pub fn checked_by(self, checker: Arc<dyn Checker>) -> Self {
        Engine { checker, ..self }
    }

    /// Returns its store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns its host.
    #[must_use]
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// Makes a session. Nothing is stored before this. A request id makes it safe to ask again, as long as
    /// the session is not deleted.
    ///
    /// # Errors
    /// The store failed.
    pub async fn create(
        &self,
        new: NewSession,
        request: Option<&RequestId>,
    ) -> Result<Result<Created, Refusal>, Error> {
        let session = request.map_or_else(|| SessionId(self.host.fresh_id()), session_of);
        if let Some(request) = request
            && self.store.request(session, request).await?.is_some()
        {
            let head = self.row(session).await?.head;
            return Ok(Ok(Created { session, head, repeated: true }));
        }
        let mut journal = Journal::fresh(self.store.clone(), self.host.clone(), session, new.place.clone());
        journal.labels.clone_from(&new.labels);
        self.made(&mut journal, new.command(), request).await
    }

    /// Makes a session that begins as the first `at` entries of another. Nothing is copied.
    ///
    /// # Errors
    /// The store failed, or the other session is not there.
    pub async fn fork(&self, parent: SessionId, at: EntryNo) -> Result<Result<Created, Refusal>, Error> {
        let row = self.row(parent).await?;
        if at == 0 || at > row.head {
            return Ok(Err(Refusal::NoSuchEntry(at)));
        }
        let (state, head_hash) = self.fold(parent, at).await?;
        let session = SessionId(self.host.fresh_id());
        let mut journal = Journal::fresh(self.store.clone(), self.host.clone(), session, row.place);
        journal.labels = row.labels;
        journal.fork_of(Parent { session: parent, at }, state, head_hash);
        self.made(&mut journal, Command::Fork { parent }, None).await
    }

    async fn made(
        &self,
        journal: &mut Journal,
        command: Command,
        request: Option<&RequestId>,
    ) -> Result<Result<Created, Refusal>, Error> {
        let repeated = match journal.command(|_| Ok(command.clone()), request).await? {
            Committed::Done(_) => false,
            Committed::Repeated(_) => true,
            Committed::Refused(refusal) => return Ok(Err(refusal)),
        };
        Ok(Ok(Created { session: journal.session, head: journal.state.head, repeated }))
    }

    /// Folds the first `at` entries of a session.
    async fn fold(&self, session: SessionId, at: EntryNo) -> Result<(SessionState, Digest), Error> {
        let (mut state, mut hash) = (SessionState::default(), Digest::default());
        while state.head < at {
            let last = at.min(state.head + READ_BATCH);
            let sealed = self.store.entries(session, state.head + 1..=last).await?;
            if sealed.is_empty() {
                return Err(longhaul_store::Error::NoSuchSession(session).into());
            }
            for (entry, sealed) in open_all(&sealed)?.iter().zip(&sealed) {
                state = evolve(state, &entry.record);
                hash = sealed.hash;
            }
        }
        Ok((state, hash))
    }

    /// Does what a person or a program asks. A request id makes it safe to ask again.
    ///
    /// # Errors
    /// The store failed. What the rules forbid is the inner error, and nothing was changed.
    pub async fn command(
        &self,
        session: SessionId,
        command: Command,
        request: Option<&RequestId>,
    ) -> Result<Result<Done, Refusal>, Error> {
        if matches!(command, Command::Owned { .. } | Command::Acquire { .. }) {
            return Ok(Err(Refusal::Invalid("only a worker may do this")));
        }
        if matches!(command, Command::Fork { .. } | Command::Import { .. }) {
            return Ok(Err(Refusal::Invalid("a fork or an import is a new session, never this one")));
        }
        let mut journal = self.journal(session).await?;
        Ok(done(journal.command(|_| Ok(command.clone()), request).await?))
    }

    /// Replaces the text of a message; what followed it leaves history. Without `message`, the newest one.
    ///
    /// # Errors
    /// The store failed. What the rules forbid is the inner error, and nothing was changed.
    pub async fn edit(
        &self,
        session: SessionId,
        message: Option<EntryNo>,
        text: &str,
        request: Option<&RequestId>,
    ) -> Result<Result<Done, Refusal>, Error> {
        let mut journal = self.journal(session).await?;
        let gone = self.keep_inherited(&mut journal, message).await?;
        let with_its_files = |context: &Context, target| {
            let mut files = context.files(target);
            files.retain(|file| !gone.contains(&file.digest));
            Message { text: text.to_owned(), files }
        };
        replace(&mut journal, message, with_its_files, request).await
    }

    pub(crate) async fn journal(&self, session: SessionId) -> Result<Journal, Error> {
        Journal::load(self.store.clone(), self.host.clone(), session).await
    }

    async fn row(&self, session: SessionId) -> Result<Row, Error> {
        Ok(self.store.load(session).await?.ok_or(longhaul_store::Error::NoSuchSession(session))?)
    }

    /// Returns a session as it is now.
    ///
    /// # Errors
    /// The store failed, or the session is not there.
    pub async fn snapshot(&self, session: SessionId) -> Result<Snapshot, Error> {
        Snapshot::of_row(self.row(session).await?)
    }

    /// Returns how full a session's context is: reads what the model sees.
    ///
    /// # Errors
    /// The store failed, or the session is not there.
    pub async fn fullness(&self, session: SessionId) -> Result<Fullness, Error> {
        let mut journal = self.journal(session).await?;
        let context = journal.context().await?;
        let next_request = context.outlook().estimate;
        let limits = context.configuration().map(|configured| configured.limits.clone()).unwrap_or_default();
        Ok(Fullness {
            next_request,
            compact_above_tokens: limits.compact_above_tokens,
            automatic: journal.state.compaction_failures < limits.max_compaction_failures,
        })
    }

    /// Returns the entries of a range that exist, in order.
    ///
    /// # Errors
    /// The store failed, or an entry cannot be read.
    pub async fn entries(
        &self,
        session: SessionId,
        range: std::ops::RangeInclusive<EntryNo>,
    ) -> Result<Vec<Entry>, Error> {
        open_all(&self.store.entries(session, range).await?)
    }

    /// Returns what a session has spent, and on what: reads its log.
    ///
    /// # Errors
    /// The store failed, the session is not there, or an entry cannot be read.
    pub async fn ledger(&self, session: SessionId) -> Result<Ledger, Error> {
        let (head, mut next) = (self.row(session).await?.head, 1);
        let mut ledger = Ledger::default();
        while next <= head {
            let entries = self.store.entries(session, next..=head.min(next + READ_BATCH - 1)).await?;
            if entries.is_empty() {
                break;
            }
            for sealed in &entries {
                let record = open_record(sealed)?;
                // What was said costs more to read than all else.
                let content = if is_configuration(&record.fact) { open(sealed)?.content } else { None };
                ledger.push(&record, content.as_ref().map(|payload| &payload.content));
            }
            next += entries.len() as u64;
        }
        Ok(ledger)
    }

    /// Walks a session's log and returns all that is wrong: chain, fold, ledger, calls and results.
    ///
    /// # Errors
    /// The store failed.
    pub async fn verify(&self, session: SessionId) -> Result<Vec<String>, Error> {
        let snapshot = self.snapshot(session).await?;
        let (head, mut next) = (snapshot.row.head, 1);
        let mut verifier = Verifier::default();
        while next <= head {
            let entries = self.store.entries(session, next..=head.min(next + READ_BATCH - 1)).await?;
            if entries.is_empty() {
                break;
            }
            for sealed in &entries {
                verifier.push(sealed);
            }
            next += entries.len() as u64;
        }
        for n in self.redacted_in_origin(&snapshot.row).await? {
            verifier.redacted_in_origin(n);
        }
        Ok(verifier.finish(head, snapshot.row.head_hash, &snapshot.state))
    }

    /// Watches a session from the entry after `after` on.
    #[must_use]
    pub fn watch(&self, session: SessionId, after: EntryNo) -> Watcher {
        let stage = self.episodes.stage(session);
        Watcher::new(self.store.clone(), self.host.clone(), session, after, stage)
    }
}

/// Returns the id of the session that a request makes: the same each time, so that the store sees the
/// repetition.
fn session_of(request: &RequestId) -> SessionId {
    let digest = Digest::of(format!("create {}", request.as_str()).as_bytes());
    let (bytes, _) = digest.0.split_first_chunk().expect("a digest is longer than an id");
    SessionId(uuid::Builder::from_custom_bytes(*bytes).into_uuid())
}

impl Snapshot {
    pub(crate) fn of_row(row: Row) -> Result<Self, Error> {
        let state = serde_json::from_slice(&row.state)
            .map_err(|source| Error::State { session: row.session, source })?;
        Ok(Snapshot { row, state })
    }
}

/// Finds a message of a person in what the model sees: the newest, unless an entry is named.
pub(crate) fn found(context: &Context, entry: Option<EntryNo>) -> Option<UserMessage> {
    match entry {
        Some(entry) => context.user_message(entry),
        None => context.last_user_message(),
    }
}

/// Replaces a message by what is made of it.
pub(crate) async fn replace(
    journal: &mut Journal,
    entry: Option<EntryNo>,
    said: impl Fn(&Context, UserMessage) -> Message,
    request: Option<&RequestId>,
) -> Result<Result<Done, Refusal>, Error> {
    journal.context().await?;
    let make = |journal: &Journal| {
        let edit = journal.loaded_context().and_then(|context| {
            let target = found(context, entry)?;
            Some(Command::Edit { target, message: said(context, target) })
        });
        edit.ok_or(Refusal::NotEditable(entry.unwrap_or_default()))
    };
    Ok(done(journal.command(make, request).await?))
}

pub(crate) fn done(committed: Committed) -> Result<Done, Refusal> {
    match committed {
        Committed::Done(entries) => Ok(Done::Now(entries)),
        Committed::Repeated(head) => Ok(Done::Before(head)),
        Committed::Refused(refusal) => Err(refusal),
    }
}

/// Lets tools read the artifacts of the store.
pub(crate) struct StoredArtifacts(pub(crate) Arc<dyn Store>);

#[async_trait]
impl ArtifactReader for StoredArtifacts {
    async fn read(&self, digest: Digest) -> Option<Vec<u8>> {
        self.0.artifact(digest).await.ok().flatten()
    }
}

/// Lets tools' output be masked by who knows the keys.
pub(crate) struct KnownKeys(pub(crate) Arc<dyn Models>);

impl Mask for KnownKeys {
    fn mask<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        self.0.mask(bytes)
    }
}
