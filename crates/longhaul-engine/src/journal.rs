//! The one way to change a session: decide on its newest state, append, and decide again when another
//! writer was faster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longhaul_session::agent::Configuration;
use longhaul_session::command::{Command, Refusal};
use longhaul_session::context::{Context, Needed};
use longhaul_session::decide::{Decision, decide_as, may_tell};
use longhaul_session::entry::{Content, Entry, Fact};
use longhaul_session::evolve::evolve;
use longhaul_session::id::{Digest, EntryNo, Epoch, SessionId, Timestamp};
use longhaul_session::item::Item;
use longhaul_session::log::{SealedEntry, open, seal};
use longhaul_session::state::SessionState;
use longhaul_store::{Append, Appended, Parent, RequestId, Row, Store};

use crate::Error;
use crate::host::Host;
use crate::lease::Tenure;
use crate::limits::{
    MAX_LOST_RACES, READ_BATCH, STORE_LONGEST_WAIT_MS, STORE_READER_TRIES, STORE_TRIES, STORE_WAIT_MS,
};
use crate::stop::Stop;

/// A session as its writer knows it: the state, and what a row holds besides.
pub(crate) struct Journal {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    pub(crate) session: SessionId,
    pub(crate) state: SessionState,
    head_hash: Digest,
    place: String,
    parent: Option<Parent>,
    pub(crate) labels: BTreeMap<String, String>,
    created: Timestamp,
    context: Option<Context>,
    pub(crate) patience: Patience,
}

/// What became of a command.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It was done.
    Done(Vec<Entry>),
    /// The same request did it before; this is the last entry it wrote then.
    Repeated(EntryNo),
    /// The rules forbid it.
    Refused(Refusal),
}

impl Journal {
    /// Makes the journal of a session that does not exist yet.
    pub(crate) fn fresh(
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        session: SessionId,
        place: String,
    ) -> Self {
        let created = host.now();
        Journal {
            store,
            host,
            session,
            state: SessionState::default(),
            head_hash: Digest::default(),
            place,
            parent: None,
            labels: BTreeMap::new(),
            created,
            context: None,
            patience: Patience::Brief,
        }
    }

    /// Loads a session's state.
    pub(crate) async fn load(
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        session: SessionId,
    ) -> Result<Self, Error> {
        let row = patiently(&*host, &Patience::Brief, || store.load(session)).await?;
        let row = row.ok_or(longhaul_store::Error::NoSuchSession(session))?;
        Journal::of_row(store, host, row)
    }

    pub(crate) fn of_row(store: Arc<dyn Store>, host: Arc<dyn Host>, row: Row) -> Result<Self, Error> {
        let state = serde_json::from_slice(&row.state)
            .map_err(|source| Error::State { session: row.session, source })?;
        Ok(Journal {
            store,
            host,
            session: row.session,
            state,
            head_hash: row.head_hash,
            place: row.place,
            parent: row.parent,
            labels: row.labels,
            created: row.created,
            context: None,
            patience: Patience::Brief,
        })
    }

    /// Makes this fresh journal the fork of another session's first entries.
    pub(crate) fn fork_of(&mut self, parent: Parent, state: SessionState, head_hash: Digest) {
        self.parent = Some(parent);
        self.state = state;
        self.head_hash = head_hash;
    }

    /// Returns what the model sees. Read from the store once; kept up to date from then on.
    pub(crate) async fn context(&mut self) -> Result<&Context, Error> {
        if self.context.as_ref().is_none_or(Context::is_stale) {
            self.context = Some(self.read_context().await?);
        }
        Ok(self.context.as_ref().expect("it was read just now"))
    }

    async fn read_context(&self) -> Result<Context, Error> {
        let needed = Needed::of(&self.state);
        let range = open_all(&self.entries(*needed.range.start(), *needed.range.end()).await?)?;
        let mut before = Vec::new();
        for n in &needed.kept {
            before.extend(open_all(&self.entries(*n, *n).await?)?);
        }
        let records: Vec<_> = before.iter().chain(&range).map(|entry| &entry.record).collect();
        let mut single = needed.promoted_before(&records);
        single.extend(&needed.single);
        single.sort_unstable();
        single.dedup();
        single.retain(|n| !needed.kept.contains(n));
        for n in single {
            before.extend(open_all(&self.entries(n, n).await?)?);
        }
        before.sort_by_key(|entry| entry.record.n);
        let mut context = Context::default();
        for entry in &before {
            if needed.kept.contains(&entry.record.n) {
                context.apply_kept(entry);
            } else {
                context.apply_single(entry);
            }
        }
        for entry in &range {
            context.apply(entry);
        }
        Ok(context.read_back(self.parent.map_or(0, |parent| parent.at)))
    }

    async fn entries(&self, first: EntryNo, last: EntryNo) -> Result<Vec<SealedEntry>, Error> {
        Ok(patiently(&*self.host, &self.patience, || self.store.entries(self.session, first..=last)).await?)
    }

    /// Reads one entry; `None`: there is none of this number.
    pub(crate) async fn entry(&self, n: EntryNo) -> Result<Option<Entry>, Error> {
        Ok(open_all(&self.entries(n, n).await?)?.pop())
    }

    /// Reads the entries that others appended and folds them. Returns whether there were any.
    pub(crate) async fn catch_up(&mut self) -> Result<bool, Error> {
        let missed = self.entries(self.state.head + 1, EntryNo::MAX / 2).await?;
        for sealed in &missed {
            let entry = open(sealed)?;
            self.state = evolve(std::mem::take(&mut self.state), &entry.record);
            self.head_hash = sealed.hash;
            if let Some(context) = &mut self.context {
                context.apply(&entry);
            }
        }
        Ok(!missed.is_empty())
    }

    /// Decides on the newest state and appends; when another writer was faster, decides again.
    ///
    /// The command is made anew for each try, as it may rest on what the context says.
    pub(crate) async fn command(
        &mut self,
        make: impl Fn(&Journal) -> Result<Command, Refusal>,
        request: Option<&RequestId>,
    ) -> Result<Committed, Error> {
        // Boxed: else each future that appends at some time has room for it while it waits for something else.
        Box::pin(self.decide_and_append(make, request)).await
    }

    async fn decide_and_append(
        &mut self,
        make: impl Fn(&Journal) -> Result<Command, Refusal>,
        request: Option<&RequestId>,
    ) -> Result<Committed, Error> {
        for _ in 0..MAX_LOST_RACES {
            let made = match make(self) {
                Ok(command) => {
                    let (epoch, configuration) = (epoch_of(&command), self.worded_by(&command).await?);
                    let decided = decide_as(configuration.as_ref(), &self.state, command, self.host.now());
                    decided.map(|decision| (epoch, decision))
                }
                Err(refusal) => Err(refusal),
            };
            let (epoch, decision) = match made {
                Ok(made) => made,
                // A refusal on an old state may be none on the newest.
                Err(_) if self.is_stored() && self.catch_up().await? => continue,
                Err(refusal) => return self.refused(refusal, request).await,
            };
            let entries = seal(self.head_hash, &decision.entries);
            let head_hash = entries.last().expect("a decision has entries").hash;
            let appended = self.append(&decision, entries, head_hash, epoch, request).await?;
            match appended {
                Appended::Done => return Ok(Committed::Done(self.accept(decision, head_hash))),
                Appended::Repeated { head } => {
                    self.catch_up().await?;
                    return Ok(Committed::Repeated(head));
                }
                Appended::Conflict { .. } | Appended::Fenced { .. } => {
                    let grown = self.catch_up().await?;
                    // The store may end an ownership without an entry: there is nothing to decide anew.
                    if let (Appended::Fenced { epoch: newest }, Some(epoch), false) = (appended, epoch, grown)
                    {
                        return Ok(Committed::Refused(Refusal::Fenced { epoch, newest }));
                    }
                    if self.context.as_ref().is_some_and(Context::is_stale) {
                        self.context = Some(self.read_context().await?);
                    }
                }
            }
        }
        Err(Error::TooBusy { session: self.session })
    }

    /// Returns the configuration that says how a command words what it tells the model, if it may tell anything.
    async fn worded_by(&self, command: &Command) -> Result<Option<Arc<Configuration>>, Error> {
        if !may_tell(command) || !self.is_stored() {
            return Ok(None);
        }
        if let Some(context) = &self.context {
            return Ok(context.configuration().cloned());
        }
        let at = self.state.configured_at;
        let entries = open_all(&self.entries(at, at).await?)?;
        let content = entries.into_iter().next().and_then(|entry| entry.content);
        Ok(content.and_then(|payload| match payload.content {
            Content::Configuration { configuration } => Some(Arc::from(configuration)),
            Content::Items { .. } | Content::Prepared { .. } | Content::Guarded { .. } => None,
        }))
    }

    /// A request that was done before is not refused for what it has changed itself.
    async fn refused(&self, refusal: Refusal, request: Option<&RequestId>) -> Result<Committed, Error> {
        if let Some(request) = request.filter(|_| self.is_stored())
            && let Some(head) = self.store.request(self.session, request).await?
        {
            return Ok(Committed::Repeated(head));
        }
        Ok(Committed::Refused(refusal))
    }

    pub(crate) fn is_fork(&self) -> bool {
        self.parent.is_some()
    }

    /// Tells whether the store has the session; a new one, or a fork not yet made, it has not.
    fn is_stored(&self) -> bool {
        self.state.head > self.parent.map_or(0, |parent| parent.at)
    }

    async fn append(
        &mut self,
        decision: &Decision,
        entries: Vec<SealedEntry>,
        head_hash: Digest,
        epoch: Option<Epoch>,
        request: Option<&RequestId>,
    ) -> Result<Appended, Error> {
        let row = self.row(&decision.state, head_hash);
        let append = || self.try_append(&row, &entries, decision, epoch, request);
        Ok(patiently(&*self.host, &self.patience, append).await?)
    }

    async fn try_append(
        &self,
        row: &Row,
        entries: &[SealedEntry],
        decision: &Decision,
        epoch: Option<Epoch>,
        request: Option<&RequestId>,
    ) -> Result<Appended, longhaul_store::Error> {
        let (row, entries, request) = (row.clone(), entries.to_vec(), request.cloned());
        if !self.is_stored() {
            return self.store.create(row, entries, request).await;
        }
        let erase = decision.entries.iter().filter_map(|entry| {
            if let Fact::Redacted { entry } = entry.record.fact { Some(entry) } else { None }
        });
        let erase: Vec<EntryNo> = erase.collect();
        let append = Append {
            session: self.session,
            expected_head: self.state.head,
            epoch,
            entries,
            row,
            forget: self.artifacts_of(&erase).await?,
            erase,
            request,
        };
        self.store.append(append).await
    }

    /// Returns the artifacts that these entries name, and no other of the session's own: outputs that were kept
    /// whole, files that were given.
    async fn artifacts_of(&self, erased: &[EntryNo]) -> Result<Vec<Digest>, longhaul_store::Error> {
        let mut artifacts = BTreeSet::new();
        for n in erased {
            let entries = self.store.entries(self.session, *n..=*n).await?;
            artifacts.extend(entries.iter().flat_map(artifacts_in));
        }
        let mut next = self.parent.map_or(1, |parent| parent.at + 1);
        while !artifacts.is_empty() && next <= self.state.head {
            let last = self.state.head.min(next + READ_BATCH - 1);
            let entries = self.store.entries(self.session, next..=last).await?;
            let others = entries.iter().filter(|entry| !erased.contains(&entry.n));
            for artifact in others.flat_map(artifacts_in) {
                artifacts.remove(&artifact);
            }
            next = last + 1;
        }
        Ok(artifacts.into_iter().collect())
    }

    fn accept(&mut self, decision: Decision, head_hash: Digest) -> Vec<Entry> {
        for fault in &decision.faults {
            tracing::warn!(session = %self.session, %fault, "the built-in prompt is said instead");
        }
        self.head_hash = head_hash;
        self.state = decision.state;
        if let Some(context) = &mut self.context {
            for entry in &decision.entries {
                context.apply(entry);
            }
        }
        decision.entries
    }

    pub(crate) fn row(&self, state: &SessionState, head_hash: Digest) -> Row {
        Row {
            session: self.session,
            head: state.head,
            head_hash,
            state: serde_json::to_vec(state).expect("a state has only string keys"),
            status: state.status.name().to_owned(),
            archived: state.archived,
            name: state.name.clone(),
            claimable_at: state.claimable_at(),
            owner: state.owner.map(|owner| owner.worker),
            epoch: state.epoch,
            place: self.place.clone(),
            parent: self.parent,
            labels: self.labels.clone(),
            created: self.created,
            updated: self.host.now(),
        }
    }

    pub(crate) fn loaded_context(&self) -> Option<&Context> {
        self.context.as_ref()
    }
}

/// How long a store call that fails for a passing reason is made again.
#[derive(Clone)]
pub(crate) enum Patience {
    /// For somebody who waits for the answer: a few times.
    Brief,
    /// For a reader of a session: longer than a database takes to restart.
    Reader,
    /// For a worker: until the store is back, or there is a reason not to wait for it.
    Worker {
        /// It was told to stop.
        stop: Stop,
        /// Its lease is over.
        tenure: Tenure,
    },
}

impl Patience {
    fn bears(&self, failures: u32) -> bool {
        failures < STORE_TRIES
            || match self {
                Patience::Brief => false,
                Patience::Reader => failures < STORE_READER_TRIES,
                Patience::Worker { stop, tenure } => !stop.is_told() && !tenure.is_over(),
            }
    }
}

/// Makes a store call, and makes it again as long as it fails for a passing reason and patience lasts.
pub(crate) async fn patiently<T, F>(
    host: &dyn Host,
    patience: &Patience,
    call: impl Fn() -> F,
) -> Result<T, longhaul_store::Error>
where
    F: Future<Output = Result<T, longhaul_store::Error>>,
{
    let (mut wait_ms, mut failures) = (STORE_WAIT_MS, 0);
    loop {
        match call().await {
            Err(error) if error.is_transient() => {
                failures += 1;
                if !patience.bears(failures) {
                    return Err(error);
                }
                tracing::warn!(%error, wait_ms, "the store cannot be used now; trying again");
                host.sleep_ms(wait_ms).await;
                wait_ms = (wait_ms * 2).min(STORE_LONGEST_WAIT_MS);
            }
            done => return done,
        }
    }
}

/// Opens stored entries.
pub(crate) fn open_all(sealed: &[SealedEntry]) -> Result<Vec<Entry>, Error> {
    sealed.iter().map(|sealed| Ok(open(sealed)?)).collect()
}

/// Returns the artifacts that an entry names. What cannot be read names none.
fn artifacts_in(sealed: &SealedEntry) -> Vec<Digest> {
    let opened = open(sealed).ok();
    opened.iter().flat_map(Entry::items).filter_map(Item::artifact).collect()
}

fn epoch_of(command: &Command) -> Option<Epoch> {
    if let Command::Owned { epoch, .. } = command { Some(*epoch) } else { None }
}
