//! Compaction: the history before the kept tail is summarised by a model call and leaves the context.

use std::sync::Arc;

use longhaul_session::command::{Basis, OwnerAction};
use longhaul_session::context::Context;
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::id::{CallId, EntryNo, GoalId};
use longhaul_session::item::Item;
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::Usage;

use crate::Error;
use crate::episode::Live;
use crate::model_call::Attempt;
use crate::prompt;
use crate::runner::{Leftover, Runner};

/// Turns whose items are kept word for word.
const RETAINED_TURNS: usize = 2;

impl Runner {
    pub(crate) async fn compact(&mut self) -> Result<(), Error> {
        let equipment = match self.equip().await? {
            Ok(equipment) => equipment,
            Err(failure) => return self.fail(failure, Usage::default()).await,
        };
        let (basis, goal) = (self.basis(), self.goal());
        let (head, room_tokens) = (self.state().head, self.limits().compact_above_tokens / 2);
        let mut request = self.request(&equipment).await?;
        let context = self.journal.context().await?;
        let keep_from = kept_tail(context, head, room_tokens);
        let wording = prompt::compaction(context);
        let text = self.worded(wording);
        request.tools = Arc::default();
        request.items.push(Arc::new(Item::Steering { reason: SteeringReason::Compaction, text }));
        let (summary, usage) =
            match self.attempt(&equipment, Arc::new(request), basis, Live::SummaryStarted).await? {
                Attempt::Answered(response, _) => (text_of(&response.items), response.usage),
                Attempt::Failed(error)
                    if error.class.is_retryable() && error.class != FailureClass::ContextOverflow =>
                {
                    return self.retry_or_fail(error, basis, goal).await;
                }
                Attempt::Failed(error) => {
                    let usage = error.usage.unwrap_or_default();
                    let failure = Failure { class: error.class, message: error.message };
                    return self.compaction_failed(basis, failure, usage, goal).await;
                }
                // Half a summary is no part of the conversation.
                Attempt::Cut(leftover) => {
                    let Leftover { usage, .. } = leftover;
                    return self.abandon(Leftover { usage, ..Leftover::default() }, goal).await;
                }
            };
        if summary.trim().is_empty() {
            self.stage.end(false, self.engine.host.monotonic_ms());
            let message = "the summary was empty".to_owned();
            let failure = Failure { class: FailureClass::Unknown, message };
            return self.compaction_failed(basis, failure, usage, goal).await;
        }
        let spend = self.spend(usage, goal);
        let committed = self.commit(OwnerAction::Compact { basis, summary, keep_from, spend }).await?;
        self.stage.end(committed.is_ok(), self.engine.host.monotonic_ms());
        match committed {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover { usage, ..Leftover::default() }, goal).await,
        }
    }

    async fn compaction_failed(
        &mut self,
        basis: Basis,
        failure: Failure,
        usage: Usage,
        goal: Option<GoalId>,
    ) -> Result<(), Error> {
        self.cancel_recorded().await?;
        let spend = self.spend(usage, goal);
        match self.commit(OwnerAction::FailCompaction { basis, failure, spend }).await? {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover { usage, ..Leftover::default() }, goal).await,
        }
    }
}

/// Returns the first entry that is kept: the newest turns whole, as many as have room. Where not even the
/// turn under way has, only what the model has not answered yet stays.
fn kept_tail(context: &Context, head: EntryNo, room_tokens: u64) -> EntryNo {
    let items = context.items();
    let first = items.first().map_or(head, |(n, _)| *n);
    let tokens_from = |from: EntryNo| {
        let kept = items.iter().filter(|(n, _)| *n >= from);
        kept.map(|(_, item)| item.text_bytes()).sum::<u64>() / 4
    };
    let newest_turns = items.iter().rev().filter(|(_, item)| begins_turn(item)).take(RETAINED_TURNS);
    let fitting = newest_turns
        .map(|(n, _)| with_calls(context, *n))
        .take_while(|from| *from > first && tokens_from(*from) <= room_tokens)
        .last();
    let unanswered = items.iter().rev().take_while(|(_, item)| is_input(item)).last();
    let unanswered = unanswered.map(|(n, _)| with_calls(context, *n)).filter(|from| *from > first);
    fitting.or(unanswered).unwrap_or(head + 1)
}

fn begins_turn(item: &Item) -> bool {
    matches!(item, Item::User { .. } | Item::Steering { reason: SteeringReason::Continuation, .. })
}

fn is_input(item: &Item) -> bool {
    matches!(item, Item::User { .. } | Item::Steering { .. } | Item::ContextFile { .. })
}

/// Moves a place back to where no call is parted from its result: an entry that ends an interruption
/// holds results of older calls beside the message that begins the next turn.
fn with_calls(context: &Context, from: EntryNo) -> EntryNo {
    let items = context.items();
    let answered: Vec<&CallId> = items
        .iter()
        .filter(|(n, _)| *n == from)
        .filter_map(
            |(_, item)| if let Item::ToolResult(result) = &**item { Some(&result.call) } else { None },
        )
        .collect();
    let made = |item: &Item| matches!(item, Item::ToolCall(call) if answered.contains(&&call.id));
    items.iter().find(|(n, item)| *n < from && made(item)).map_or(from, |(n, _)| *n)
}

fn text_of(items: &[Item]) -> String {
    let texts = items
        .iter()
        .filter_map(|item| if let Item::Assistant { text, .. } = item { Some(text.as_str()) } else { None });
    texts.collect::<Vec<_>>().join("\n")
}
