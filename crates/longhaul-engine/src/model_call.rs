//! Model calls: one attempt at a time, streamed to readers, committed as one step or retried as an entry.

use std::sync::Arc;

use futures_util::StreamExt;
use longhaul_model::{Accumulator, Model, ModelCall, Part, Response};
use longhaul_session::agent::{Request, ToolPermission};
use longhaul_session::command::{Basis, Cut, OwnerAction, Refusal, Step};
use longhaul_session::entry::{CallFact, Measured, Place, Timing};
use longhaul_session::failure::{Failure, FailureClass, Retry, retry_delay_ms};
use longhaul_session::goal::GoalStatus;
use longhaul_session::id::{CallId, Digest};
use longhaul_session::item::{EffectClass, Item};
use longhaul_session::prices::Prices;
use longhaul_session::usage::Usage;
use tokio::sync::mpsc;

use crate::Error;
use crate::episode::Live;
use crate::lease::Tenure;
use crate::limits::{PARTS_TOGETHER, PARTS_WAITING};
use crate::runner::{Account, Equipment, Leftover, News, Runner};

/// How an attempt ended.
pub(crate) enum Attempt {
    /// With a whole answer.
    Answered(Response, Timing),
    /// With a failure.
    Failed(longhaul_model::Error),
    /// It was obsolete, the worker stops, its lease or the time of a hard budget is over; this is what there was.
    Cut(Leftover),
}

impl Attempt {
    /// States what the attempt cost, where its provider did not.
    fn priced(self, prices: Option<&Prices>) -> Self {
        let Some(prices) = prices else { return self };
        match self {
            Attempt::Answered(response, timing) => {
                let usage = prices.priced(response.usage);
                Attempt::Answered(Response { usage, ..response }, timing)
            }
            Attempt::Failed(error) => {
                let usage = error.usage.map(|usage| prices.priced(usage));
                Attempt::Failed(longhaul_model::Error { usage, ..error })
            }
            Attempt::Cut(leftover) => {
                let usage = prices.priced(leftover.usage);
                Attempt::Cut(Leftover { usage, ..leftover })
            }
        }
    }
}

/// Why an attempt ends before its answer is whole.
enum End {
    /// It failed.
    Failed(longhaul_model::Error),
    /// The worker stops, or its lease is over.
    Stopped,
    /// A hard budget leaves no more time.
    TimeUp,
    /// Nobody wants its answer any more.
    Obsolete,
}

impl Runner {
    pub(crate) async fn call_model(&mut self) -> Result<(), Error> {
        let equipment = match self.equip().await? {
            Ok(equipment) => equipment,
            Err(failure) => return self.fail(failure, Usage::default()).await,
        };
        let (basis, account) = (self.basis(), self.account());
        let request = self.request(&equipment).await?;
        let context = self.journal.context().await?;
        let (items, bytes) = (context.items().len() as u64, context.bytes());
        let pruned_to = context.outlook().pruned_to;
        match self.attempt(&equipment, request, basis, Live::ModelStarted).await? {
            Attempt::Answered(response, timing) => {
                let input_tokens = response.usage.input;
                let measured = Measured { input_tokens, items, bytes, pruned_to };
                self.commit_answer(&equipment, response, measured, timing, basis, account).await
            }
            Attempt::Failed(error) => self.retry_or_fail(error, basis, account).await,
            Attempt::Cut(leftover) => self.abandon(leftover, account).await,
        }
    }

    /// Assembles the request.
    pub(crate) async fn request(&mut self, equipment: &Equipment) -> Result<Arc<Request>, Error> {
        let context = self.journal.context().await?;
        let mut request = context.request_pruned_to(context.outlook().pruned_to);
        if request.previous.is_some() && !equipment.chained {
            Arc::make_mut(&mut request).previous = None;
        }
        if request.items.iter().any(|item| matches!(**item, Item::Attachment(_))) {
            self.fill_in(&mut Arc::make_mut(&mut request).items).await?;
        }
        Ok(request)
    }

    /// Makes one attempt. Its parts go to readers as they come, and what it cost is stated in it.
    pub(crate) async fn attempt(
        &mut self,
        equipment: &Equipment,
        request: Arc<Request>,
        basis: Basis,
        opening: Live,
    ) -> Result<Attempt, Error> {
        if self.tenure.is_over() {
            return Ok(Attempt::Cut(Leftover::default()));
        }
        let attempt = self.try_once(equipment, request, basis, opening).await?;
        Ok(attempt.priced(equipment.prices.as_ref()))
    }

    async fn try_once(
        &mut self,
        equipment: &Equipment,
        request: Arc<Request>,
        basis: Basis,
        opening: Live,
    ) -> Result<Attempt, Error> {
        let (cancel, tenure) = (self.tenure.effect_token(), self.tenure.clone());
        let resume = self.begun_before(equipment);
        let call = ModelCall { request, attempt: basis.attempt, cancel: cancel.clone(), resume };
        self.stage.begin(self.episode(), self.state().head);
        let is_summary = matches!(opening, Live::SummaryStarted);
        self.stage.add(opening);
        let (host, stop) = (Arc::clone(&self.engine.host), self.stop.clone());
        let started = host.monotonic_ms();
        let (epoch, history_at) = (self.epoch, basis.history_at);
        let (mut made, mut first_part_ms, mut named) = (0_u32, None, false);
        let mut answer = Accumulator::new(move || {
            made += 1;
            CallId(format!("call_{history_at}_{epoch}_{made}"))
        });
        let mut parts = stream(Arc::clone(&equipment.model), call, tenure.clone());
        let (limit_ms, hard_ms) = (self.limits().model_call_ms, self.hard_time_left_ms());
        let (time_is_up, budget_is_up) =
            (host.sleep_ms(limit_ms), host.sleep_ms(hard_ms.unwrap_or_default()));
        let told_to_cut = stop.cuts_models(&*host);
        tokio::pin!(time_is_up, budget_is_up, told_to_cut);
        let end = loop {
            tokio::select! {
                biased;
                () = &mut told_to_cut => break End::Stopped,
                () = tenure.over() => break End::Stopped,
                () = self.hinted() => if self.look(basis).await? == News::Obsolete {
                    break End::Obsolete;
                },
                () = &mut budget_is_up, if hard_ms.is_some() => break End::TimeUp,
                () = &mut time_is_up => {
                    let message = format!("the model did not finish within {} s", limit_ms / 1_000);
                    break End::Failed(longhaul_model::Error::new(FailureClass::Timeout, message));
                }
                arrived = parts.recv() => {
                    let since_ms = host.monotonic_ms() - started;
                    let Some(arrived) = arrived else {
                        let timing =
                            Timing { first_part_ms: first_part_ms.unwrap_or(since_ms), total_ms: since_ms };
                        return Ok(match answer.finish() {
                            Ok(response) => Attempt::Answered(response, timing),
                            Err(error) => self.failed(error),
                        });
                    };
                    if arrived.first().is_some_and(Result::is_ok) {
                        first_part_ms.get_or_insert(since_ms);
                    }
                    let taken = self.take(&mut answer, arrived);
                    if let Some(id) = answer.response_id().filter(|_| !std::mem::replace(&mut named, true))
                        && self.record_response(equipment, basis, id, is_summary).await? == News::Obsolete
                    {
                        break End::Obsolete;
                    }
                    if let Err(error) = taken {
                        break End::Failed(error);
                    }
                }
            }
        };
        cancel.cancel();
        Ok(self.end(equipment, end, answer, parts).await)
    }

    /// Ends an attempt that did not come to its own end.
    async fn end<F: FnMut() -> CallId>(
        &mut self,
        equipment: &Equipment,
        end: End,
        answer: Accumulator<F>,
        parts: mpsc::Receiver<Arrived>,
    ) -> Attempt {
        let usage = usage_of(&answer, parts);
        match end {
            End::Failed(failure) => {
                let usage = failure.usage.or(usage);
                self.failed(longhaul_model::Error { usage, ..failure })
            }
            // Who picks the answer up again is told what all of it has cost.
            End::Stopped if self.begun_before(equipment).is_some() => self.cut(answer, None),
            // Nobody picks it up any more.
            End::Stopped | End::TimeUp => self.cut(answer, usage),
            End::Obsolete => {
                let response_id = answer.response_id().map(str::to_owned);
                let cut = self.cut(answer, usage);
                if let Some(response_id) = response_id {
                    self.drop_response(equipment, &response_id).await;
                }
                cut
            }
        }
    }

    /// Shows parts and adds them to the answer.
    fn take<F: FnMut() -> CallId>(
        &self,
        answer: &mut Accumulator<F>,
        arrived: Arrived,
    ) -> Result<(), longhaul_model::Error> {
        let mut arrived = arrived.into_iter();
        let taken = arrived.try_for_each(|part| {
            let part = part?;
            self.stage.add(Live::Model { part: part.clone() });
            answer.push(part)
        });
        // What makes no sense is paid for all the same.
        for part in arrived.flatten().filter(|part| matches!(part, Part::Usage { .. })) {
            answer.push(part)?;
        }
        taken
    }

    fn failed(&self, error: longhaul_model::Error) -> Attempt {
        self.stage.end(false, self.engine.host.monotonic_ms());
        Attempt::Failed(error)
    }

    fn cut<F: FnMut() -> CallId>(&self, answer: Accumulator<F>, usage: Option<Usage>) -> Attempt {
        self.stage.end(false, self.engine.host.monotonic_ms());
        let usage = usage.unwrap_or_default();
        Attempt::Cut(Leftover { partial: answer.partial(), usage, ..Leftover::default() })
    }

    async fn commit_answer(
        &mut self,
        equipment: &Equipment,
        response: Response,
        measured: Measured,
        timing: Timing,
        basis: Basis,
        account: Account,
    ) -> Result<(), Error> {
        let mut items = response.items;
        self.make_ids_unique(&mut items);
        let calls = items
            .iter()
            .filter_map(|item| if let Item::ToolCall(call) = item { Some(call) } else { None })
            .map(|call| self.call_fact(equipment, &call.id, &call.name, &call.arguments))
            .collect();
        let step = Step::Model {
            items,
            calls,
            finish: response.finish.name().to_owned(),
            response_id: response.response_id,
            measured,
            timing,
        };
        let usage = response.usage;
        let spend = self.spend(usage, account);
        let action = OwnerAction::CommitStep { basis, step: Box::new(step), spend };
        let committed = self.commit(action).await?;
        self.stage.end(committed.is_ok(), self.engine.host.monotonic_ms());
        match committed {
            Ok(()) => Ok(()),
            // It would be the same whatever the state: a failed attempt, or it would be paid for for ever.
            Err(Refusal::Invalid(why)) => {
                let message = format!("the model's answer cannot be used: {why}");
                let error = longhaul_model::Error::new(FailureClass::Server, message);
                self.retry_or_fail(longhaul_model::Error { usage: Some(usage), ..error }, basis, account)
                    .await
            }
            // The answer came together with something that made it obsolete: paid is paid.
            Err(_) => self.abandon(Leftover::of(usage), account).await,
        }
    }

    /// The model sees each id once; a provider may reuse one.
    fn make_ids_unique(&self, items: &mut [Item]) {
        let Some(context) = self.journal.loaded_context() else { return };
        let next = self.state().head + 1;
        for item in items {
            if let Item::ToolCall(call) = item
                && context.call(&call.id).is_some()
            {
                call.id = CallId(format!("{}_{next}", call.id));
            }
        }
    }

    fn call_fact(&self, equipment: &Equipment, id: &CallId, name: &str, arguments: &str) -> CallFact {
        let spec = equipment.toolbox.get(name).map(|tool| tool.spec());
        let asks = equipment.toolbox.permission(name) == Some(ToolPermission::Ask);
        let granted = self.state().grants.iter().any(|tool| tool == name);
        CallFact {
            id: id.clone(),
            tool: name.to_owned(),
            place: if asks && !granted { Place::Approval } else { Place::Local },
            effect: spec.as_ref().map_or(EffectClass::Pure, |spec| spec.effect),
            exclusive: spec.as_ref().is_some_and(|spec| spec.exclusive),
            stop_after: spec.as_ref().is_some_and(|spec| spec.stop_after),
            digest: call_digest(name, arguments),
        }
    }

    /// Fails the turn, unless history has changed since the attempt began: then its failure says nothing.
    async fn fail_attempt(
        &mut self,
        basis: Basis,
        failure: Failure,
        usage: Usage,
        account: Account,
    ) -> Result<(), Error> {
        self.cancel_recorded().await?;
        let spend = self.spend(usage, account);
        let action = OwnerAction::Fail { failure, cut: Cut::default(), spend };
        match self.commit_on(Some(basis), action).await? {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover::of(usage), account).await,
        }
    }

    /// A retry is an entry: it shows in streams and survives a restart.
    pub(crate) async fn retry_or_fail(
        &mut self,
        error: longhaul_model::Error,
        basis: Basis,
        account: Account,
    ) -> Result<(), Error> {
        if let Some(retry) = self.retry_of(&error, basis) {
            return self.begin_retry(error, retry, basis, account).await;
        }
        let usage = self.usage_now(&error);
        let failure = Failure { class: error.class, message: error.message };
        self.fail_attempt(basis, failure, usage, account).await
    }

    /// Returns when a failed attempt is made again; `None` where its class says that it is not, or it has
    /// been tried for long enough.
    pub(crate) fn retry_of(&self, error: &longhaul_model::Error, basis: Basis) -> Option<Retry> {
        let now = self.engine.host.now();
        let since = self.state().retry.map_or(now, |retry| retry.since);
        let limits = self.limits();
        let pursued = self.state().goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::Active);
        let limit_ms = if pursued { limits.retry_for_goal_ms } else { limits.retry_for_ms };
        let broken_before = self.state().retry.is_some_and(|retry| retry.class == FailureClass::ChainBroken);
        // What was lost once is asked for anew at once; what is lost again waits as any failure does.
        let broken = error.class == FailureClass::ChainBroken && !broken_before;
        let at_once = broken || error.class == FailureClass::ContextOverflow;
        let delay_ms = if at_once {
            0
        } else {
            retry_delay_ms(basis.attempt, error.retry_after_ms, self.engine.host.jitter())
        };
        let not_before = now.plus_ms(delay_ms);
        let goes_on = error.class.is_retryable() && not_before <= since.plus_ms(limit_ms);
        goes_on.then_some(Retry { class: error.class, since, not_before })
    }

    pub(crate) async fn begin_retry(
        &mut self,
        error: longhaul_model::Error,
        retry: Retry,
        basis: Basis,
        account: Account,
    ) -> Result<(), Error> {
        let usage = self.usage_now(&error);
        let failure = Failure { class: error.class, message: error.message };
        if !self.goes_on_at_provider(failure.class) && failure.class != FailureClass::ChainBroken {
            self.cancel_recorded().await?;
        }
        let spend = self.spend(usage, account);
        match self.commit(OwnerAction::BeginRetry { basis, failure, retry, spend }).await? {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover::of(usage), account).await,
        }
    }

    fn goes_on_at_provider(&self, class: FailureClass) -> bool {
        class == FailureClass::Network && self.state().response_id.is_some()
    }

    /// What goes on at the provider is counted when it has been picked up.
    fn usage_now(&self, error: &longhaul_model::Error) -> Usage {
        error.usage.filter(|_| !self.goes_on_at_provider(error.class)).unwrap_or_default()
    }
}

/// Parts that were there at the same time, or why there are no more.
type Arrived = Vec<Result<Part, longhaul_model::Error>>;

/// Digests what is called with what.
pub(crate) fn call_digest(name: &str, arguments: &str) -> Digest {
    Digest::of(format!("{name}\0{arguments}").as_bytes())
}

/// Returns what an attempt that ended has used, by the newest report that arrived, looked at or not: paid is
/// paid.
fn usage_of<F: FnMut() -> CallId>(
    answer: &Accumulator<F>,
    mut parts: mpsc::Receiver<Arrived>,
) -> Option<Usage> {
    let mut newest = answer.usage();
    while let Ok(arrived) = parts.try_recv() {
        for part in arrived {
            match part {
                Ok(Part::Usage { usage }) => newest = Some(usage),
                Ok(_) => {}
                Err(error) => newest = error.usage.or(newest),
            }
        }
    }
    newest
}

/// Runs an attempt as a task of its own: a provider that hangs or panics is a failed attempt, no more. Parts
/// that arrived together are handed over together: waking the runner costs more than a part.
fn stream(model: Arc<dyn Model>, call: ModelCall, tenure: Tenure) -> mpsc::Receiver<Arrived> {
    let (sender, receiver) = mpsc::channel(PARTS_WAITING);
    let cancel = call.cancel.clone();
    tokio::spawn(async move {
        // Time may have passed before the task came to run.
        if tenure.is_over() {
            return;
        }
        let forward = async {
            match model.call(call).await {
                Ok(parts) => {
                    let mut parts = parts.ready_chunks(PARTS_TOGETHER);
                    while let Some(arrived) = parts.next().await {
                        if sender.send(arrived).await.is_err() {
                            break;
                        }
                    }
                }
                Err(error) => drop(sender.send(vec![Err(error)]).await),
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = forward => {}
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use longhaul_session::failure::FailureClass;

    use super::*;

    #[test]
    fn what_was_reported_and_not_looked_at_is_what_was_used() {
        let report = |input| Part::Usage { usage: Usage { input, ..Usage::default() } };
        let answer = || {
            let mut answer = Accumulator::new(|| CallId("c".to_owned()));
            answer.push(report(1)).unwrap();
            answer
        };
        let used = |arrived: Vec<Arrived>| {
            let (sender, receiver) = mpsc::channel(PARTS_WAITING);
            arrived.into_iter().for_each(|parts| sender.try_send(parts).unwrap());
            usage_of(&answer(), receiver).unwrap().input
        };
        let failure = |usage| {
            Err(longhaul_model::Error { usage, ..longhaul_model::Error::new(FailureClass::Auth, "no") })
        };
        let text = || Ok(Part::Text { text: "more".to_owned() });
        assert_eq!(used(Vec::new()), 1);
        assert_eq!(used(vec![vec![Ok(report(2)), text()], vec![Ok(report(3))], vec![text()]]), 3);
        assert_eq!(used(vec![vec![Ok(report(2))], vec![failure(None)]]), 2);
        let usage = Usage { input: 4, ..Usage::default() };
        assert_eq!(used(vec![vec![Ok(report(2))], vec![failure(Some(usage))]]), 4);
    }
}
