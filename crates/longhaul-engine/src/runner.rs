//! The runner: one task that drives one session in one epoch. It sees what is owed, does it, appends.
//!
//! It holds the state and the model's context in memory and never reads history to take a step. While an
//! effect is under way it listens: an interrupt, an edit or a lost ownership ends the effect at once.

use std::pin::Pin;
use std::sync::Arc;

use longhaul_model::Model;
use longhaul_session::agent::{Configuration, Limits};
use longhaul_session::bound;
use longhaul_session::command::{Basis, Command, Cut, OwnerAction, Refusal};
use longhaul_session::context::Context;
use longhaul_session::entry::{Content, FinishReason, Place};
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::id::{CallId, EntryNo, Epoch, GoalId, SessionId, Timestamp};
use longhaul_session::item::{FileSeen, Item};
use longhaul_session::owed::{View, Work, owed};
use longhaul_session::prices::Prices;
use longhaul_session::prompts::Rendered;
use longhaul_session::state::{SessionState, Status};
use longhaul_session::usage::{Spend, Usage};
use longhaul_store::Hint;
use longhaul_tools::toolbox::Toolbox;
use longhaul_tools::workspace::Workspace;
use tokio::sync::broadcast;

use crate::Error;
use crate::attachments::Filled;
use crate::checks;
use crate::engine::{Engine, KnownKeys, StoredArtifacts};
use crate::episode::{EpisodeKey, Stage};
use crate::goal_tools::Desk;
use crate::journal::{Committed, Journal, Patience};
use crate::lease::Tenure;
use crate::limits::{MAX_IDLE_ROUNDS, POLL_MS, PREPARE_TRIES, PREPARE_WAIT_MS};
use crate::prompt;
use crate::stop::Stop;
use crate::surroundings::{Look, Surroundings};

/// How long a caller has to answer a client call, in milliseconds.
const CLIENT_CALL_MS: u64 = 5 * 60 * 1_000;

/// Drives one session in one epoch.
pub(crate) struct Runner {
    pub(crate) engine: Engine,
    pub(crate) journal: Journal,
    pub(crate) epoch: Epoch,
    pub(crate) stop: Stop,
    pub(crate) tenure: Tenure,
    /// The calls this epoch has started.
    pub(crate) started: Vec<CallId>,
    pub(crate) stage: Arc<Stage>,
    /// What an interrupted effect left, for the entry that ends the interruption.
    pub(crate) leftover: Leftover,
    /// What work has used that lasted longer than the lease, and on whose account.
    unpaid: Option<(Usage, Account)>,
    hints: broadcast::Receiver<Hint>,
    equipment: Option<Arc<Equipment>>,
    pub(crate) filled: Filled,
    /// What was last seen of the workspace.
    surroundings: Option<Surroundings>,
    billed_ms: u64,
    /// Up to when the bill made last reaches; it counts once it is committed.
    bill_until_ms: Option<u64>,
    /// Ends when it is time to look without a hint. Kept from one wait to the next: most are short.
    poll: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Why a runner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The session rests.
    Rested,
    /// Another epoch has the session.
    Fenced,
    /// The session was given back.
    Released,
}

/// What a session needs to run.
#[derive(Clone)]
pub(crate) struct Equipment {
    pub(crate) configured_at: EntryNo,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) prices: Option<Prices>,
    /// Its answers can be picked up again.
    pub(crate) resumable: bool,
    /// Its provider keeps the conversation.
    pub(crate) chained: bool,
    pub(crate) toolbox: Toolbox,
    pub(crate) desk: Arc<Desk>,
    pub(crate) workspace: Arc<Workspace>,
}

/// What an interrupted effect left.
#[derive(Default)]
pub(crate) struct Leftover {
    pub(crate) cut: Cut,
    pub(crate) partial: Vec<Item>,
    pub(crate) usage: Usage,
    /// On whose account it was; `None`: whose it is when it is paid for.
    pub(crate) account: Option<Account>,
}

impl Leftover {
    /// What is left of an answer that nobody wants: paid is paid.
    pub(crate) fn of(usage: Usage) -> Self {
        Leftover { usage, ..Leftover::default() }
    }
}

/// On whose account work is done, and with which configuration, as it was when the work began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) goal: Option<GoalId>,
    pub(crate) configured_at: EntryNo,
    pub(crate) summary: bool,
}

/// What happened while an effect was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing that concerns it.
    None,
    /// The work is obsolete: interrupted, edited away, or another's.
    Obsolete,
}

/// However a runner ends, what it was showing is over.
impl Drop for Runner {
    fn drop(&mut self) {
        self.stage.end_of(self.epoch, self.engine.host.monotonic_ms());
    }
}

impl Runner {
    pub(crate) fn new(
        engine: Engine,
        mut journal: Journal,
        hints: broadcast::Receiver<Hint>,
        stop: Stop,
        tenure: Tenure,
    ) -> Self {
        journal.patience = Patience::Worker { stop: stop.clone(), tenure: tenure.clone() };
        Runner {
            stage: engine.episodes.stage(journal.session),
            epoch: journal.state.epoch,
            billed_ms: engine.host.monotonic_ms(),
            bill_until_ms: None,
            poll: None,
            engine,
            journal,
            stop,
            tenure,
            started: Vec::new(),
            leftover: Leftover::default(),
            unpaid: None,
            hints,
            equipment: None,
            filled: Filled::default(),
            surroundings: None,
        }
    }

    /// Runs until the session rests, is another's, or is given back.
    pub(crate) async fn run(&mut self) -> Result<Ended, Error> {
        let result = self.drive().await;
        if let Err(error) = result {
            tracing::error!(session = %self.journal.session, %error, "giving the session back");
            let unstarted = self.startable();
            return match self.release(unstarted).await {
                // The store did not answer in time; it does now.
                Ok(ended) if self.tenure.is_over() => Ok(ended),
                Ok(_) | Err(_) => Err(error),
            };
        }
        result
    }

    async fn drive(&mut self) -> Result<Ended, Error> {
        let mut idle_rounds = 0;
        loop {
            // An interruption is finished first: only this runner knows which calls it had started.
            let stops = self.stop.is_told() && self.owns() && self.state().status != Status::Interrupting;
            if stops || self.tenure.is_over() {
                let unstarted = self.startable();
                return self.release(unstarted).await;
            }
            let (head, work) = (self.state().head, self.owed().await?);
            let waits = matches!(work, Work::WaitUntil(_));
            if let Some(ended) = self.perform(work.clone()).await? {
                return Ok(ended);
            }
            // What the rules forbid although it is owed would be tried for ever.
            idle_rounds = if self.state().head == head && !waits { idle_rounds + 1 } else { 0 };
            if idle_rounds >= MAX_IDLE_ROUNDS {
                let detail = format!("{work:?} is owed at entry {head} and cannot be done");
                return Err(Error::Runner { session: self.session(), detail });
            }
        }
    }

    /// Does what is owed. Returns why the runner ends, if it does.
    async fn perform(&mut self, work: Work) -> Result<Option<Ended>, Error> {
        match work {
            Work::Rest => return Ok(Some(Ended::Rested)),
            Work::Leave => return Ok(Some(Ended::Fenced)),
            Work::WaitUntil(at) => self.wait_until(at).await?,
            Work::FinishInterruption => self.finish_interruption().await?,
            Work::CancelAction => self.try_commit(OwnerAction::CancelAction).await?,
            Work::Fail(failure) => self.fail(failure, Usage::default()).await?,
            Work::RejectCalls(calls) => self.reject_calls(calls).await?,
            Work::RunCalls { run, unknown } => {
                if let Some(unstarted) = self.run_calls(run, unknown).await?
                    && self.state().status != Status::Interrupting
                {
                    return self.release(unstarted).await.map(Some);
                }
            }
            Work::AwaitAction => self.await_action().await?,
            Work::FinishTurn(reason) => {
                // What was begun under a hard budget that is used up is not picked up again.
                if matches!(reason, FinishReason::HardBudget(_)) {
                    self.cancel_recorded().await?;
                }
                let spend = self.spend(Usage::default(), self.account());
                self.try_commit(OwnerAction::FinishTurn { reason, spend }).await?;
            }
            Work::Compact => self.compact().await?,
            Work::Prepare => self.prepare().await?,
            Work::CommitSteering => self.try_commit(OwnerAction::CommitSteering).await?,
            Work::GuardFiles => self.guard_files().await?,
            Work::CommitContext => self.commit_context().await?,
            Work::CallModel if self.look_around().await? => {}
            Work::CallModel => self.call_model().await?,
        }
        Ok(None)
    }

    async fn owed(&mut self) -> Result<Work, Error> {
        let (told, unpaid_ms) = (self.journal.state.context_digest, self.unpaid_ms());
        self.journal.context().await?;
        let (state, now) = (&self.journal.state, self.engine.host.now());
        let view = View {
            epoch: self.epoch,
            context_digest: self.surroundings.as_ref().and_then(|seen| seen.digest(told)),
            ..seen(state, self.journal.loaded_context(), now, unpaid_ms)
        };
        Ok(owed(&self.journal.state, &view, &self.limits()))
    }

    pub(crate) fn state(&self) -> &SessionState {
        &self.journal.state
    }

    pub(crate) fn session(&self) -> SessionId {
        self.journal.session
    }

    pub(crate) fn configuration(&self) -> Option<&Arc<Configuration>> {
        self.journal.loaded_context().and_then(|context| context.configuration())
    }

    pub(crate) fn limits(&self) -> Limits {
        self.configuration().map(|configuration| configuration.limits.clone()).unwrap_or_default()
    }

    pub(crate) fn basis(&self) -> Basis {
        Basis { history_at: self.state().history_at, attempt: self.state().attempt }
    }

    /// Returns on whose account work begins now.
    pub(crate) fn account(&self) -> Account {
        let state = self.state();
        Account { goal: state.works_for(), configured_at: state.configured_at, summary: false }
    }

    /// Returns the time since the last account, in milliseconds.
    fn unpaid_ms(&self) -> u64 {
        self.engine.host.monotonic_ms().saturating_sub(self.billed_ms)
    }

    /// Returns how long an effect may go on under a hard budget, in milliseconds.
    pub(crate) fn hard_time_left_ms(&self) -> Option<u64> {
        self.state().hard_time_left_ms(self.unpaid_ms())
    }

    /// Tells whether this runner may still act for the session.
    pub(crate) fn owns(&self) -> bool {
        self.is_owner() && !self.tenure.is_over()
    }

    fn is_owner(&self) -> bool {
        self.state().owner.is_some_and(|owner| owner.epoch == self.epoch)
    }

    /// Tells whether work that began from this basis may still commit.
    pub(crate) fn is_valid(&self, basis: Basis) -> bool {
        self.owns() && self.state().status == Status::Running && self.basis() == basis
    }

    pub(crate) fn episode(&self) -> EpisodeKey {
        let Basis { history_at, attempt } = self.basis();
        EpisodeKey { history_at, epoch: self.epoch, attempt }
    }

    /// Makes the bill of some work: its usage, and the time since the last bill.
    pub(crate) fn spend(&mut self, usage: Usage, account: Account) -> Spend {
        let now = self.engine.host.monotonic_ms();
        let active_ms = now.saturating_sub(self.billed_ms);
        self.bill_until_ms = Some(now);
        let Account { goal, configured_at, summary } = account;
        Spend { usage, active_ms, goal, configured_at, summary }
    }

    /// Does what only the owner may. `Err` inside: the rules forbid it now, and the state is the newest.
    pub(crate) async fn commit(&mut self, action: OwnerAction) -> Result<Result<(), Refusal>, Error> {
        self.commit_on(None, action).await
    }

    /// The same, where a basis is given only while that is the newest.
    pub(crate) async fn commit_on(
        &mut self,
        basis: Option<Basis>,
        action: OwnerAction,
    ) -> Result<Result<(), Refusal>, Error> {
        let epoch = self.epoch;
        if self.tenure.is_over() {
            return Ok(Err(Refusal::Fenced { epoch, newest: self.state().epoch }));
        }
        let make = |journal: &Journal| {
            let (history_at, attempt) = (journal.state.history_at, journal.state.attempt);
            match basis.filter(|basis| *basis != Basis { history_at, attempt }) {
                None => Ok(Command::Owned { epoch, action: action.clone() }),
                Some(basis) => Err(Refusal::Obsolete { basis, history_at, attempt }),
            }
        };
        let bill_until_ms = self.bill_until_ms.take();
        match self.journal.command(make, None).await? {
            Committed::Done(_) | Committed::Repeated(_) => {
                self.billed_ms = bill_until_ms.unwrap_or(self.billed_ms);
                Ok(Ok(()))
            }
            Committed::Refused(refusal) => {
                tracing::debug!(session = %self.session(), action = action.name(), %refusal, "refused");
                Ok(Err(refusal))
            }
        }
    }

    /// Waits until another writer may have changed the session. A lost hint costs one poll.
    ///
    /// It may be dropped at any time; looking is left to [`Runner::look`], which may not.
    pub(crate) async fn hinted(&mut self) {
        loop {
            let host = &self.engine.host;
            let poll = self.poll.get_or_insert_with(|| {
                let host = Arc::clone(host);
                Box::pin(async move { host.sleep_ms(POLL_MS).await })
            });
            tokio::select! {
                biased;
                () = poll => {
                    self.poll = None;
                    return;
                }
                hint = self.hints.recv() => match hint {
                    Ok(hint) if hint.session != self.journal.session || hint.head <= self.journal.state.head => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => self.engine.host.sleep_ms(POLL_MS).await,
                },
            }
        }
    }

    /// Reads what others appended and says what it means for work of a basis.
    pub(crate) async fn look(&mut self, basis: Basis) -> Result<News, Error> {
        self.journal.catch_up().await?;
        Ok(if self.is_valid(basis) { News::None } else { News::Obsolete })
    }

    async fn wait_until(&mut self, at: Timestamp) -> Result<(), Error> {
        let (basis, stop, tenure) = (self.basis(), self.stop.clone(), self.tenure.clone());
        loop {
            let wait_ms = at.since_ms(self.engine.host.now());
            if wait_ms == 0 {
                return Ok(());
            }
            let wait_ms = wait_ms.min(self.hard_time_left_ms().unwrap_or(u64::MAX));
            let host = Arc::clone(&self.engine.host);
            tokio::select! {
                biased;
                () = stop.told.cancelled() => return Ok(()),
                () = tenure.over() => return Ok(()),
                () = host.sleep_ms(wait_ms) => return Ok(()),
                () = self.hinted() => if self.look(basis).await? == News::Obsolete {
                    return Ok(());
                }
            }
        }
    }

    /// Does what only the owner may; where the rules forbid it now, what is owed is derived anew.
    pub(crate) async fn try_commit(&mut self, action: OwnerAction) -> Result<(), Error> {
        self.commit(action).await.map(drop)
    }

    async fn finish_interruption(&mut self) -> Result<(), Error> {
        self.cancel_recorded().await?;
        let Leftover { cut, partial, usage, account } = std::mem::take(&mut self.leftover);
        let account = account.unwrap_or_else(|| self.account());
        let spend = self.spend(usage, account);
        match self.commit(OwnerAction::FinishInterruption { cut, partial, spend }).await? {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover::of(usage), account).await,
        }
    }

    /// Keeps or pays for what obsolete work left.
    pub(crate) async fn abandon(&mut self, leftover: Leftover, account: Account) -> Result<(), Error> {
        if self.owns() && self.state().status == Status::Interrupting {
            self.leftover = Leftover { account: Some(account), ..leftover };
        } else if self.owns() && !leftover.usage.is_zero() {
            let spend = self.spend(leftover.usage, account);
            self.try_commit(OwnerAction::Settle { spend }).await?;
        } else if self.tenure.is_over() && self.state().response_id.is_none() && !leftover.usage.is_zero() {
            // An answer that the log names is picked up again, and paid by whoever does.
            self.unpaid = Some((leftover.usage, account));
        }
        Ok(())
    }

    pub(crate) async fn fail(&mut self, failure: Failure, usage: Usage) -> Result<(), Error> {
        self.cancel_recorded().await?;
        let spend = self.spend(usage, self.account());
        self.try_commit(OwnerAction::Fail { failure, cut: Cut::default(), spend }).await
    }

    async fn await_action(&mut self) -> Result<(), Error> {
        let until = self.engine.host.now().plus_ms(CLIENT_CALL_MS);
        let client = self.state().pending.iter().filter(|call| call.place == Place::Client);
        let deadlines = client.map(|call| (call.id.clone(), until)).collect();
        self.try_commit(OwnerAction::AwaitAction { deadlines }).await
    }

    /// Names the calls this epoch may start and has not started.
    fn startable(&self) -> Vec<CallId> {
        let calls = self.state().pending.iter().filter(|call| call.startable_by == Some(self.epoch));
        calls.map(|call| call.id.clone()).filter(|id| !self.started.contains(id)).collect()
    }

    /// Gives the session back. Of the calls not started, those are named that are open still and were this
    /// epoch's to start: others may have changed the session in the meantime.
    ///
    /// After the end of a lease the fence decides: either nobody has taken the session over, or nothing is
    /// written. For that answer the store is waited for. What is known to be lost is left alone. What the
    /// lease did not last for is paid first.
    async fn release(&mut self, not_started: Vec<CallId>) -> Result<Ended, Error> {
        let epoch = self.epoch;
        let make = |journal: &Journal| {
            let own = |id: &&CallId| {
                let call = journal.state.pending_call(id);
                call.is_some_and(|call| call.startable_by.is_none_or(|by| by == epoch))
            };
            let not_started = not_started.iter().filter(own).cloned().collect();
            Ok(Command::Owned { epoch, action: OwnerAction::Release { not_started } })
        };
        if self.tenure.is_lost() {
            return Ok(Ended::Fenced);
        }
        if self.is_owner() {
            let tenure = Tenure::endless(Arc::clone(&self.engine.host));
            self.journal.patience = Patience::Worker { stop: self.stop.clone(), tenure };
            let Leftover { usage, account, .. } = std::mem::take(&mut self.leftover);
            let kept = account.map(|account| (usage, account));
            for (usage, account) in self.unpaid.take().into_iter().chain(kept) {
                if !usage.is_zero() {
                    let action = OwnerAction::Settle { spend: self.spend(usage, account) };
                    let settle = |_: &Journal| Ok(Command::Owned { epoch, action: action.clone() });
                    self.journal.command(settle, None).await?;
                }
            }
            self.journal.command(make, None).await?;
        }
        Ok(Ended::Released)
    }

    async fn prepare(&mut self) -> Result<(), Error> {
        let equipment = match self.equip().await? {
            Ok(equipment) => equipment,
            Err(failure) => return self.fail(failure, Usage::default()).await,
        };
        let Some(configuration) = self.configuration().cloned() else {
            let message = "the session's configuration was redacted; configure it anew".to_owned();
            let failure = Failure { class: FailureClass::Preparation, message };
            return self.fail(failure, Usage::default()).await;
        };
        let tools = equipment.toolbox.specs();
        let now = self.engine.host.now();
        let system = self.worded(prompt::system(&configuration, &equipment.workspace, &tools, now));
        self.try_commit(OwnerAction::Prepare { system, tools }).await
    }

    /// Takes a text; where it is not the author's although there is one, that is traced.
    pub(crate) fn worded(&self, rendered: Rendered) -> String {
        if let Some(fault) = rendered.fault {
            tracing::warn!(session = %self.session(), %fault, "a prompt is not as its author wrote it");
        }
        rendered.text
    }

    /// Looks at the workspace, unless it was looked at for this turn. Returns whether it did: what is owed may
    /// be something else then. Where the workspace cannot be had, the call of the model will say so.
    async fn look_around(&mut self) -> Result<bool, Error> {
        if self.has_looked() {
            return Ok(false);
        }
        let Ok(equipment) = self.equip().await? else { return Ok(false) };
        if !self.has_looked() {
            self.surroundings = Some(self.surroundings_of(&equipment.workspace));
        }
        Ok(true)
    }

    fn has_looked(&self) -> bool {
        self.surroundings.as_ref().is_some_and(|seen| seen.are_of(Look::of(self.state())))
    }

    fn surroundings_of(&self, workspace: &Workspace) -> Surroundings {
        Surroundings::look(workspace, self.engine.skills.as_deref(), Look::of(self.state()))
    }

    async fn commit_context(&mut self) -> Result<(), Error> {
        let told = self.state().context_digest;
        let Some(seen) = &self.surroundings else { return Ok(()) };
        let Some(digest) = seen.digest(told) else { return Ok(()) };
        let items = seen.news(self.journal.context().await?);
        self.try_commit(OwnerAction::CommitContext { items, digest }).await
    }

    /// Takes the digests of the files that the goal protects.
    async fn guard_files(&mut self) -> Result<(), Error> {
        let equipment = match self.equip().await? {
            Ok(equipment) => equipment,
            Err(failure) => return self.fail(failure, Usage::default()).await,
        };
        let goal = self.state().goal.as_ref();
        let (terms, protected) =
            goal.map(|goal| (goal.terms(), goal.protected.clone())).expect("a goal is unguarded");
        match checks::digests(protected, equipment.workspace.directory.clone()).await {
            Ok(files) => self.try_commit(OwnerAction::GuardFiles { terms, files }).await,
            Err(error) => {
                let message = format!("the files that the goal protects cannot be digested: {error}");
                self.fail(Failure { class: FailureClass::Preparation, message }, Usage::default()).await
            }
        }
    }

    /// Reads what the protected files were when they were digested; `None` where that was redacted.
    pub(crate) async fn guarded_files(&mut self) -> Result<Option<Vec<FileSeen>>, Error> {
        let guarded_at = self.state().goal.as_ref().map_or(0, |goal| goal.guarded_at);
        if guarded_at == 0 {
            return Ok(None);
        }
        let entry = self.journal.entry(guarded_at).await?;
        let content = entry.and_then(|entry| entry.content).map(|payload| payload.content);
        Ok(if let Some(Content::Guarded { files }) = content { Some(files) } else { None })
    }

    /// Gets what the session needs to run, trying again for a while: a directory may be mounted late.
    pub(crate) async fn equip(&mut self) -> Result<Result<Arc<Equipment>, Failure>, Error> {
        let configured_at = self.state().configured_at;
        if let Some(equipment) = &self.equipment
            && equipment.configured_at == configured_at
        {
            return Ok(Ok(Arc::clone(equipment)));
        }
        self.journal.context().await?;
        let mut wait_ms = PREPARE_WAIT_MS;
        let mut tries = 1;
        loop {
            match self.try_equip(configured_at) {
                Ok(equipment) => {
                    let equipment = Arc::new(equipment);
                    // Calls of a lost runner may read skills.
                    self.surroundings = Some(self.surroundings_of(&equipment.workspace));
                    self.equipment = Some(Arc::clone(&equipment));
                    return Ok(Ok(equipment));
                }
                Err(failure) if tries >= PREPARE_TRIES || failure.class != FailureClass::Preparation => {
                    return Ok(Err(failure));
                }
                Err(_) => self.engine.host.sleep_ms(wait_ms).await,
            }
            wait_ms *= 2;
            tries += 1;
        }
    }

    /// Returns what summaries are asked with: another model, if the configuration names one. Of that one no
    /// answer is picked up again, and it keeps no conversation.
    pub(crate) fn summariser(&self, equipment: &Arc<Equipment>) -> Result<Arc<Equipment>, Failure> {
        let Some(configuration) = self.configuration() else { return Ok(Arc::clone(equipment)) };
        let Some(choice) = &configuration.summariser else { return Ok(Arc::clone(equipment)) };
        let model = self.engine.models.model(choice, &configuration.limits)?;
        let prices = choice.prices.clone();
        let (resumable, chained) = (false, false);
        Ok(Arc::new(Equipment { model, prices, resumable, chained, ..Equipment::clone(equipment) }))
    }

    fn try_equip(&self, configured_at: EntryNo) -> Result<Equipment, Failure> {
        let failed = |message: String| Failure { class: FailureClass::Preparation, message };
        let configuration = self
            .configuration()
            .ok_or_else(|| failed("the session's configuration is gone; configure it anew".to_owned()))?;
        let model = self.engine.models.model(&configuration.model, &configuration.limits)?;
        let artifacts = Arc::new(StoredArtifacts(self.engine.store.clone()));
        let directory = std::path::Path::new(&configuration.directory);
        let workspace = Workspace::new(directory, &configuration.scope, artifacts)
            .map_err(|error| failed(format!("the working directory cannot be used: {error}")))?;
        let context = self.journal.loaded_context();
        for (_, item) in context.map(|context| context.items()).unwrap_or_default() {
            if let Item::ToolResult(result) = &**item {
                result.files.iter().for_each(|file| workspace.tracker().seen(file));
            }
        }
        let mask = Arc::new(KnownKeys(self.engine.models.clone()));
        let (terms, prompts) = (configuration.goal.clone(), configuration.prompts.clone());
        let check_ms = configuration.limits.check_ms;
        let (host, checker) = (Arc::clone(&self.engine.host), Arc::clone(&self.engine.checker));
        let desk = Arc::new(Desk::new(host, checker, terms, prompts, check_ms));
        let mut toolbox = self.engine.tools.clone();
        // All of them or none for the whole session: tools that came and went would spoil what is cached.
        if !self.state().ephemeral && !configuration.without_goals {
            toolbox = Arc::clone(&desk).registered_in(toolbox);
        }
        let toolbox = toolbox.configured(&configuration.tools).masked_by(mask);
        let prices = configuration.model.prices.clone();
        let (resumable, chained) = (configuration.model.resumable, configuration.model.chain);
        let workspace = Arc::new(workspace);
        Ok(Equipment { configured_at, model, prices, resumable, chained, toolbox, desk, workspace })
    }
}

/// Returns what is seen of a session by whoever has read it, after work of so many milliseconds that is not accounted
/// for yet: all but the epoch and the files.
pub(crate) fn seen(state: &SessionState, context: Option<&Context>, now: Timestamp, unpaid_ms: u64) -> View {
    let hard = state.goal.as_ref().is_some_and(|goal| goal.budget.hard);
    // Asked only where it matters: it looks at the items themselves.
    let room_for = |most: fn(&SessionState, &Context) -> Usage| {
        context.filter(|_| hard).and_then(|context| state.without_room(&most(state, context), unpaid_ms))
    };
    View {
        now,
        next_request_tokens: context.map_or(0, |context| context.outlook().estimate.tokens),
        without_room: room_for(bound::next_call),
        without_room_to_compact: room_for(prompt::summary_bound),
        ..View::default()
    }
}
