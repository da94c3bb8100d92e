//! Compaction: the history before the kept tail is summarised by a model call and leaves the context.

use std::sync::Arc;

use longhaul_session::agent::Request;
use longhaul_session::command::{Basis, OwnerAction};
use longhaul_session::context::Kept;
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::item::Item;
use longhaul_session::state::Overflow;
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::Usage;

use crate::Error;
use crate::episode::Live;
use crate::model_call::Attempt;
use crate::prompt;
use crate::runner::{Account, Equipment, Leftover, Runner};

/// A summary that was asked for: what it replaces, and what stays.
struct Asked {
    kept: Kept,
    /// The bytes of the context that is to become smaller.
    before_bytes: u64,
    basis: Basis,
    account: Account,
}

impl Runner {
    pub(crate) async fn compact(&mut self) -> Result<(), Error> {
        let equipment = match self.equip().await? {
            Ok(equipment) => equipment,
            Err(failure) => return self.fail(failure, Usage::default()).await,
        };
        let (basis, account) = (self.basis(), Account { summary: true, ..self.account() });
        let summariser = match self.summariser(&equipment) {
            Ok(summariser) => summariser,
            Err(failure) => return self.compaction_failed(basis, failure, Usage::default(), account).await,
        };
        let (kept, before_bytes) = self.what_stays().await?;
        let request = self.summary_request(&summariser, &kept).await?;
        let asked = Asked { kept, before_bytes, basis, account };
        match self.attempt(&summariser, Arc::new(request), basis, Live::SummaryStarted).await? {
            Attempt::Answered(response, _) => {
                let summary = text_of(&response.items);
                self.commit_summary(asked, summary, response.usage).await
            }
            Attempt::Failed(error) => match self.retry_of(&error, basis) {
                Some(retry) if error.class != FailureClass::ContextOverflow => {
                    self.begin_retry(error, retry, basis, account).await
                }
                Some(_) | None => {
                    let usage = error.usage.unwrap_or_default();
                    let failure = Failure { class: error.class, message: error.message };
                    self.compaction_failed(basis, failure, usage, account).await
                }
            },
            // Half a summary is no part of the conversation.
            Attempt::Cut(leftover) => self.abandon(Leftover::of(leftover.usage), account).await,
        }
    }

    /// Returns what is to stay, and the size of the context as it is.
    async fn what_stays(&mut self) -> Result<(Kept, u64), Error> {
        self.journal.context().await?;
        let context = self.journal.loaded_context().expect("it was read just now");
        Ok((context.kept(self.state(), &self.limits()), context.bytes()))
    }

    /// Assembles what is asked: the request that the model would be sent, so that its provider's cache holds,
    /// and what to do with it. Where that was too much already, only what is to leave, without the outputs of
    /// tools.
    async fn summary_request(&mut self, summariser: &Equipment, kept: &Kept) -> Result<Request, Error> {
        let overflowed = self.state().overflow != Overflow::None;
        let (head, context) = (self.state().head, self.journal.context().await?);
        let rendered = prompt::compaction(context);
        let mut request = if overflowed {
            let mut request = (*context.request_pruned_to(head)).clone();
            request.items.truncate(kept.items);
            Request { previous: None, ..request }
        } else {
            (*self.request(summariser).await?).clone()
        };
        let text = self.worded(rendered);
        request.items.push(Arc::new(Item::Steering { reason: SteeringReason::Compaction, text }));
        Ok(request)
    }

    /// Commits a summary, if there is one and the context becomes smaller by it.
    async fn commit_summary(&mut self, asked: Asked, summary: String, usage: Usage) -> Result<(), Error> {
        let Asked { kept, before_bytes, basis, account } = asked;
        let after_bytes = kept.bytes + summary.len() as u64;
        let useless = if summary.trim().is_empty() {
            Some("the summary was empty".to_owned())
        } else if after_bytes >= before_bytes {
            Some(format!(
                "the summary made the context no smaller: {after_bytes} bytes, {before_bytes} before"
            ))
        } else {
            None
        };
        if let Some(message) = useless {
            self.stage.end(false, self.engine.host.monotonic_ms());
            let failure = Failure { class: FailureClass::Unknown, message };
            return self.compaction_failed(basis, failure, usage, account).await;
        }
        let spend = self.spend(usage, account);
        let Kept { from: keep_from, messages, .. } = kept;
        let action = OwnerAction::Compact { basis, summary, keep_from, kept: messages, spend };
        let committed = self.commit(action).await?;
        self.stage.end(committed.is_ok(), self.engine.host.monotonic_ms());
        match committed {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover::of(usage), account).await,
        }
    }

    async fn compaction_failed(
        &mut self,
        basis: Basis,
        failure: Failure,
        usage: Usage,
        account: Account,
    ) -> Result<(), Error> {
        self.cancel_recorded().await?;
        let spend = self.spend(usage, account);
        let automatic_off = self.state().compaction_failures + 1 == self.limits().max_compaction_failures;
        let action = OwnerAction::FailCompaction { basis, failure, spend, automatic_off };
        match self.commit(action).await? {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover::of(usage), account).await,
        }
    }
}

fn text_of(items: &[Item]) -> String {
    let texts = items
        .iter()
        .filter_map(|item| if let Item::Assistant { text, .. } = item { Some(text.as_str()) } else { None });
    texts.collect::<Vec<_>>().join("\n")
}
