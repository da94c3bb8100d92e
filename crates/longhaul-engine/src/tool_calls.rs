//! Tool calls: the calls of one step run side by side and commit together, in call order.

use std::collections::VecDeque;
use std::sync::Arc;

use longhaul_session::command::{Basis, Cut, GoalStep, OwnerAction, Ran, Step};
use longhaul_session::goal::UPDATE_GOAL;
use longhaul_session::id::{CallId, Epoch, Timestamp};
use longhaul_session::item::{EffectClass, Outcome, ToolResult};
use longhaul_session::state::PendingCall;
use longhaul_session::usage::Usage;
use longhaul_store::Store;
use longhaul_tools::tool::{CallContext, IdempotencyKey, Progress, ToolOutput};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::engine::Engine;
use crate::episode::{Live, Stage};
use crate::limits::{LONE_RESULT_MS, MAX_PARALLEL_CALLS, PROGRESS_LINES, REAP_MS};
use crate::model_call::call_digest;
use crate::runner::{Equipment, Leftover, News, Runner};

/// The calls of a step while they run.
struct Batch {
    equipment: Arc<Equipment>,
    basis: Basis,
    waiting: VecDeque<PendingCall>,
    started: Vec<PendingCall>,
    tasks: JoinSet<Ran>,
    finished: Vec<Ran>,
    cancel: CancellationToken,
    /// When the oldest uncommitted result that must not be lost was there.
    lone_since_ms: Option<u64>,
}

/// What made a batch stop before its calls had finished.
enum Broken {
    Obsolete,
    /// The worker was told to stop.
    Stop,
    /// The lease is over.
    Lapse,
    /// A hard budget leaves no more time.
    TimeUp,
}

impl Runner {
    /// Runs calls and records those whose outcome is unknown. Returns the calls that were not started, if
    /// the session is to be given back.
    pub(crate) async fn run_calls(
        &mut self,
        run: Vec<CallId>,
        unknown: Vec<CallId>,
    ) -> Result<Option<Vec<CallId>>, Error> {
        let equipment = match self.equip().await? {
            Ok(equipment) => equipment,
            Err(failure) => return self.fail(failure, Usage::default()).await.map(|()| None),
        };
        let mut batch = Batch {
            equipment,
            basis: self.basis(),
            waiting: self.pending(&run).into(),
            started: Vec::new(),
            tasks: JoinSet::new(),
            finished: Vec::new(),
            cancel: self.tenure.effect_token(),
            lone_since_ms: None,
        };
        let ends_goal = batch.waiting.iter().any(|call| call.tool == UPDATE_GOAL);
        let files = if ends_goal { self.guarded_files().await? } else { None };
        batch.equipment.desk.tell(self.state(), files);
        self.stage.begin(self.episode(), self.state().head);
        for call in self.pending(&unknown) {
            if self.tenure.is_over() {
                break;
            }
            let found = self.find_out(&batch, &call).await;
            batch.finished.push(found);
        }
        match self.run_batch(&mut batch).await? {
            None => {
                self.give_up_lost(&mut batch);
                self.commit_results(&mut batch).await?;
                Ok(None)
            }
            Some(Broken::Obsolete) => {
                self.reap(&mut batch, 0).await;
                self.stage.end(false, self.engine.host.monotonic_ms());
                let started = batch.unfinished();
                let cut = Cut { finished: batch.without_goal_steps(), started };
                self.abandon(Leftover { cut, ..Leftover::default() }, self.account()).await?;
                Ok(None)
            }
            Some(Broken::TimeUp) => {
                self.reap(&mut batch, 0).await;
                self.give_up_lost(&mut batch);
                let unbegun: Vec<PendingCall> = batch.waiting.drain(..).collect();
                batch.finished.extend(unbegun.into_iter().map(|call| self.unbegun(call)));
                self.commit_results(&mut batch).await?;
                Ok(None)
            }
            Some(broken @ (Broken::Stop | Broken::Lapse)) => {
                let grace_ms = if matches!(broken, Broken::Stop) { self.stop.grace.tools_ms } else { 0 };
                self.reap(&mut batch, grace_ms).await;
                let waiting = batch.waiting.iter().map(|call| call.id.clone());
                let unbegun = batch.finished.extract_if(.., |ran| ran.result.outcome == Outcome::NotRun);
                let unstarted = waiting.chain(unbegun.map(|ran| ran.result.call)).collect();
                // What ran under a lease that is over is nothing this runner may tell.
                if batch.finished.is_empty() || self.tenure.is_over() {
                    self.stage.end(false, self.engine.host.monotonic_ms());
                } else {
                    self.commit_results(&mut batch).await?;
                }
                Ok(Some(unstarted))
            }
        }
    }

    /// Calls those unknown that were started, are open still, and came to no end that was noticed.
    fn give_up_lost(&self, batch: &mut Batch) {
        let lost = batch.unfinished().into_iter().filter(|id| self.state().pending_call(id).is_some());
        let lost: Vec<Ran> = lost.map(unknown_result).collect();
        batch.finished.extend(lost);
    }

    /// Makes the result of a call that there is no time for. Somebody may have started it before.
    fn unbegun(&self, call: PendingCall) -> Ran {
        let never = call.startable_by == Some(self.epoch) && !self.started.contains(&call.id);
        let outcome = if never { Outcome::NotRun } else { Outcome::Unknown };
        let output = outcome.notice().to_owned();
        Ran {
            result: ToolResult { call: call.id, outcome, output, files: Vec::new(), artifact: None },
            ran: None,
        }
    }

    fn pending(&self, ids: &[CallId]) -> Vec<PendingCall> {
        ids.iter().filter_map(|id| self.state().pending_call(id).cloned()).collect()
    }

    /// Starts what may start and collects what finishes, until nothing is left or something breaks in.
    async fn run_batch(&mut self, batch: &mut Batch) -> Result<Option<Broken>, Error> {
        let (host, stop, tenure) = (Arc::clone(&self.engine.host), self.stop.clone(), self.tenure.clone());
        loop {
            if tenure.is_over() {
                return Ok(Some(Broken::Lapse));
            }
            if stop.is_told() {
                return Ok(Some(Broken::Stop));
            }
            let left_ms = self.hard_time_left_ms();
            if left_ms == Some(0) {
                return Ok(Some(Broken::TimeUp));
            }
            while batch.tasks.len() < MAX_PARALLEL_CALLS
                && let Some(call) = batch.waiting.pop_front()
            {
                self.start(batch, call);
            }
            if batch.tasks.is_empty() {
                return Ok(None);
            }
            let lone_ms = batch
                .lone_since_ms
                .map(|since| LONE_RESULT_MS.saturating_sub(host.monotonic_ms().saturating_sub(since)));
            // A batch has few calls: their ends cannot keep the others from being seen.
            tokio::select! {
                biased;
                Some(done) = batch.tasks.join_next() => batch.finish(done, host.monotonic_ms()),
                () = stop.told.cancelled() => {}
                () = tenure.over() => {}
                () = self.hinted() => if self.look(batch.basis).await? == News::Obsolete {
                    return Ok(Some(self.broken()));
                },
                () = host.sleep_ms(left_ms.unwrap_or_default()), if left_ms.is_some() => {}
                () = host.sleep_ms(lone_ms.unwrap_or_default()), if lone_ms.is_some() => {
                    self.commit_part(batch).await?;
                    if !self.is_valid(batch.basis) {
                        return Ok(Some(self.broken()));
                    }
                }
            }
        }
    }

    /// Says why work is no longer valid.
    fn broken(&self) -> Broken {
        if self.tenure.is_over() { Broken::Lapse } else { Broken::Obsolete }
    }

    fn start(&mut self, batch: &mut Batch, call: PendingCall) {
        self.started.push(call.id.clone());
        let context = self.journal.loaded_context();
        let arguments = context.and_then(|context| context.call(&call.id)).map(|call| call.arguments.clone());
        let arguments = arguments.unwrap_or_default();
        if call_digest(&call.tool, &arguments) != call.digest {
            batch.finished.push(redacted_result(call, self.epoch));
            return;
        }
        let (progress, mut lines) = Progress::channel(PROGRESS_LINES);
        let cx = self.call_context(batch, &call, progress);
        let (equipment, stage) = (Arc::clone(&batch.equipment), Arc::clone(&self.stage));
        let tenure = self.tenure.clone();
        let Engine { store, host, models, .. } = self.engine.clone();
        stage.add(Live::ToolStarted { call: call.id.clone(), tool: call.tool.clone() });
        batch.started.push(call.clone());
        batch.tasks.spawn(async move {
            let show = |line: String| {
                let line = String::from_utf8_lossy(&models.mask(line.as_bytes())).into_owned();
                stage.add(Live::ToolLine { call: call.id.clone(), line });
            };
            let (started, started_ms) = (host.now(), host.monotonic_ms());
            // Time may have passed before the task came to run.
            let output = if tenure.is_over() {
                ToolOutput::new(Outcome::NotRun, Outcome::NotRun.notice())
            } else {
                let run = equipment.toolbox.run(&call.tool, &arguments, &cx);
                tokio::pin!(run);
                loop {
                    tokio::select! {
                        biased;
                        Some(line) = lines.recv() => show(line),
                        output = &mut run => break output,
                    }
                }
            };
            while let Ok(line) = lines.try_recv() {
                show(line);
            }
            let took_ms = host.monotonic_ms() - started_ms;
            announce_end(&stage, &call.id, output.outcome, took_ms);
            let began = output.outcome.ran() || output.outcome == Outcome::Stopped;
            keep(&*store, cx.key, output, began.then(|| (started, host.now()))).await
        });
    }

    fn call_context(&self, batch: &Batch, call: &PendingCall, progress: Progress) -> CallContext {
        let key = IdempotencyKey { session: self.session(), entry: call.step, call: call.id.clone() };
        CallContext::new(key, batch.cancel.clone(), Arc::clone(&batch.equipment.workspace), progress)
    }

    /// Asks the tool what became of a call of a lost epoch. It is never run again.
    async fn find_out(&mut self, batch: &Batch, call: &PendingCall) -> Ran {
        let cx = self.call_context(batch, call, Progress::none());
        let found = batch.equipment.toolbox.reconcile(&call.tool, &cx).await;
        let output = found.unwrap_or_else(|| ToolOutput::new(Outcome::Unknown, Outcome::Unknown.notice()));
        keep(&*self.engine.store, cx.key, output, None).await
    }

    async fn commit_results(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let goal = batch.goal_step();
        let results = std::mem::take(&mut batch.finished);
        let kept = if goal.is_some() { stopped(results.clone()) } else { results.clone() };
        let spend = self.spend(Usage::default(), self.account());
        let step = Box::new(Step::Tools { results, goal });
        let committed = self.commit(OwnerAction::CommitStep { basis: batch.basis, step, spend }).await?;
        self.stage.end(committed.is_ok(), self.engine.host.monotonic_ms());
        if committed.is_err() {
            let cut = Cut { finished: kept, started: batch.unfinished() };
            self.abandon(Leftover { cut, ..Leftover::default() }, self.account()).await?;
        }
        Ok(())
    }

    /// Commits the results there are: a hanging neighbour and a crash must not turn them into unknowns.
    async fn commit_part(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let results = batch.finished.clone();
        let spend = self.spend(Usage::default(), self.account());
        let step = Box::new(Step::Tools { results, goal: None });
        if self.commit(OwnerAction::CommitStep { basis: batch.basis, step, spend }).await?.is_ok() {
            batch.finished.clear();
            batch.lone_since_ms = None;
            batch.basis = self.basis();
            self.stage.end(true, self.engine.host.monotonic_ms());
            self.stage.begin(self.episode(), self.state().head);
        }
        Ok(())
    }

    /// Lets running calls finish for a while, then stops them and waits until they have ended. What does
    /// not end even then is abandoned, and its outcome is unknown.
    async fn reap(&mut self, batch: &mut Batch, grace_ms: u64) {
        let (stop, tenure) = (self.stop.clone(), self.tenure.clone());
        for grace_ms in [Some(grace_ms), None] {
            let host = Arc::clone(&self.engine.host);
            let deadline = async {
                match grace_ms {
                    Some(grace_ms) => tokio::select! {
                        biased;
                        () = tenure.over() => {}
                        () = stop.grace(&*host, grace_ms) => {}
                    },
                    None => host.sleep_ms(REAP_MS).await,
                }
            };
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    biased;
                    done = batch.tasks.join_next() => match done {
                        Some(done) => batch.finish(done, self.engine.host.monotonic_ms()),
                        None => return,
                    },
                    () = &mut deadline => break,
                }
            }
            batch.cancel.cancel();
        }
        batch.tasks.detach_all();
    }

    /// Answers calls of which one had to be alone and was not. None is run.
    pub(crate) async fn reject_calls(&mut self, calls: Vec<CallId>) -> Result<(), Error> {
        let output = "The call was not run: one of the calls of this step is to a tool that must be called \
                      alone. Call that one by itself.";
        let rejected = |call: CallId| Ran {
            result: ToolResult {
                call,
                outcome: Outcome::Rejected,
                output: output.to_owned(),
                files: Vec::new(),
                artifact: None,
            },
            ran: None,
        };
        let results = calls.into_iter().map(rejected).collect();
        let (basis, spend) = (self.basis(), self.spend(Usage::default(), self.account()));
        let step = Box::new(Step::Tools { results, goal: None });
        self.try_commit(OwnerAction::CommitStep { basis, step, spend }).await
    }
}

impl Batch {
    fn finish(&mut self, done: Result<Ran, tokio::task::JoinError>, now_ms: u64) {
        // The toolbox turns a tool's panic into a result, so only our own fault ends a task without one;
        // its call is then unknown, and recorded as that.
        let Ok(ran) = done else { return };
        let once =
            self.started.iter().any(|call| call.id == ran.result.call && call.effect == EffectClass::Once);
        if once {
            self.lone_since_ms.get_or_insert(now_ms);
        }
        self.finished.push(ran);
    }

    /// Takes what a call found that is to become of the goal. Such a call is alone in its step.
    fn goal_step(&self) -> Option<GoalStep> {
        let desk = &self.equipment.desk;
        let ended = self.finished.iter().filter(|ran| ran.result.outcome == Outcome::Ok);
        ended.map(|ran| &ran.result.call).find_map(|call| desk.take(call))
    }

    /// Takes the results of work that is obsolete: what was to become of the goal will not.
    fn without_goal_steps(&mut self) -> Vec<Ran> {
        let goes_with_goal = self.goal_step().is_some();
        let finished = std::mem::take(&mut self.finished);
        if goes_with_goal { stopped(finished) } else { finished }
    }

    /// Names the calls that were started and have no result.
    fn unfinished(&self) -> Vec<CallId> {
        let finished = |id: &CallId| self.finished.iter().any(|ran| ran.result.call == *id);
        self.started.iter().map(|call| &call.id).filter(|id| !finished(id)).cloned().collect()
    }
}

/// Makes the result of a call that was started and whose end nobody saw.
fn unknown_result(call: CallId) -> Ran {
    let (outcome, output) = (Outcome::Unknown, Outcome::Unknown.notice().to_owned());
    Ran { result: ToolResult { call, outcome, output, files: Vec::new(), artifact: None }, ran: None }
}

/// Says of calls that changed the goal that they did not: it can no longer be committed.
fn stopped(results: Vec<Ran>) -> Vec<Ran> {
    let stopped = |ran: Ran| {
        let (outcome, output) = (Outcome::Stopped, "The call was stopped. The goal is as it was.".to_owned());
        Ran { result: ToolResult { outcome, output, artifact: None, ..ran.result }, ..ran }
    };
    results.into_iter().map(stopped).collect()
}

/// Makes the result of a call whose arguments were redacted before it was started: what is left of them is
/// not what was asked. An older epoch may have started it.
fn redacted_result(call: PendingCall, epoch: Epoch) -> Ran {
    let (outcome, output) = if call.startable_by == Some(epoch) {
        (Outcome::Rejected, "The call was not run: its arguments were redacted.")
    } else {
        (Outcome::Unknown, Outcome::Unknown.notice())
    };
    let result =
        ToolResult { call: call.id, outcome, output: output.to_owned(), files: Vec::new(), artifact: None };
    Ran { result, ran: None }
}

fn announce_end(stage: &Stage, call: &CallId, outcome: Outcome, took_ms: u64) {
    stage.add(Live::ToolEnded { call: call.clone(), outcome, took_ms });
}

/// Makes the result of an output; what had to be cut is kept whole as an artifact.
async fn keep(
    store: &dyn Store,
    key: IdempotencyKey,
    output: ToolOutput,
    ran: Option<(Timestamp, Timestamp)>,
) -> Ran {
    let artifact = match output.whole {
        Some(bytes) => match store.put_artifact(key.session, bytes).await {
            Ok(digest) => Some(digest),
            Err(error) => {
                tracing::warn!(session = %key.session, %error, "the whole output could not be kept");
                None
            }
        },
        None => None,
    };
    let result = ToolResult {
        call: key.call,
        outcome: output.outcome,
        output: output.text,
        files: output.files,
        artifact,
    };
    Ran { result, ran }
}
