//! Compaction: the history before the kept tail is summarised by a model call and leaves the context.

use std::sync::Arc;

use longhaul_session::command::OwnerAction;
use longhaul_session::context::Context;
use longhaul_session::failure::{Failure, FailureClass};
use longhaul_session::id::EntryNo;
use longhaul_session::item::Item;
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::Usage;

use crate::Error;
use crate::model_call::Attempt;
use crate::runner::{Leftover, Runner};

/// Turns whose items are kept word for word.
const RETAINED_TURNS: usize = 2;

const REQUEST: &str = "Summarise the conversation so far for the one who goes on with it and sees nothing \
    else of it. Name the task in the words it was given, the work that is done, what was decided and why, \
    what was found out, the files that matter, where things stand, and the next steps. Call no tool.";

impl Runner {
    pub(crate) async fn compact(&mut self) -> Result<(), Error> {
        let equipment = match self.equip().await? {
            Ok(equipment) => equipment,
            Err(failure) => return self.fail(failure, Usage::default()).await,
        };
        let (basis, goal) = (self.basis(), self.goal());
        let head = self.state().head;
        let context = self.journal.context().await?;
        let keep_from = kept_tail(context, head);
        let mut request = context.request();
        request.tools = Arc::default();
        request
            .items
            .push(Arc::new(Item::Steering { reason: SteeringReason::Compaction, text: REQUEST.to_owned() }));
        let (summary, usage) = match self.attempt(&equipment, Arc::new(request), basis).await? {
            Attempt::Answered(response, _) => {
                self.stage.end(true, self.engine.host.monotonic_ms());
                (text_of(&response.items), response.usage)
            }
            Attempt::Failed(error) => {
                let usage = error.usage.unwrap_or_default();
                let failure = Failure { class: error.class, message: error.message };
                return self.compaction_failed(failure, usage).await;
            }
            Attempt::Cut(leftover) => return self.abandon(leftover, goal).await,
        };
        if summary.trim().is_empty() {
            let message = "the summary was empty".to_owned();
            return self.compaction_failed(Failure { class: FailureClass::Unknown, message }, usage).await;
        }
        let spend = self.spend(usage, goal);
        match self.commit(OwnerAction::Compact { basis, summary, keep_from, spend }).await? {
            Ok(()) => Ok(()),
            Err(_) => self.abandon(Leftover { usage, ..Leftover::default() }, goal).await,
        }
    }

    async fn compaction_failed(&mut self, failure: Failure, usage: Usage) -> Result<(), Error> {
        let (basis, spend) = (self.basis(), self.spend(usage, self.goal()));
        self.try_commit(OwnerAction::FailCompaction { basis, failure, spend }).await
    }
}

/// Returns the first entry that is kept: the newest turns whole, so that no call is parted from its
/// result. In a single long turn nothing before its first message can be kept apart; then only the
/// messages not answered yet stay.
fn kept_tail(context: &Context, head: EntryNo) -> EntryNo {
    let begins_turn = |item: &Item| {
        matches!(item, Item::User { .. } | Item::Steering { reason: SteeringReason::Continuation, .. })
    };
    let items = context.items();
    let first = items.first().map_or(head, |(n, _)| *n);
    let begins: Vec<EntryNo> = items
        .iter()
        .rev()
        .filter(|(_, item)| begins_turn(item))
        .map(|(n, _)| *n)
        .take(RETAINED_TURNS)
        .collect();
    match begins.last() {
        Some(from) if *from > first => *from,
        Some(_) | None => begins.first().filter(|from| **from > first).copied().unwrap_or(head + 1),
    }
}

fn text_of(items: &[Item]) -> String {
    let texts = items
        .iter()
        .filter_map(|item| if let Item::Assistant { text, .. } = item { Some(text.as_str()) } else { None });
    texts.collect::<Vec<_>>().join("\n")
}
