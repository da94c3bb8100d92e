//! The queue, told from the entries alone: first in, first out, unless one is promoted.

use longhaul_session::entry::{Fact, Next};
use longhaul_session::id::EntryNo;

/// The queued messages of a session, by the entries that queued them.
#[derive(Debug, Default)]
pub(super) struct Queue(Vec<EntryNo>);

impl Queue {
    pub(super) fn is(&self, queue: &[EntryNo]) -> bool {
        self.0 == queue
    }

    /// Says why an entry may not follow on this queue.
    pub(super) fn objection(&self, fact: &Fact) -> Option<String> {
        let queue = &self.0;
        let (Fact::TurnFinished { next, .. } | Fact::Interrupted { next, .. }) = fact else {
            let named = match fact {
                Fact::Unqueued { message } | Fact::Promoted { message } => Some(*message),
                Fact::Interrupting { promote, .. } => *promote,
                _ => None,
            };
            let unknown = named.filter(|message| !queue.contains(message));
            return unknown.map(|message| format!("message {message} is not queued"));
        };
        let right = match next {
            Next::Promote(message) => queue.first() == Some(message),
            Next::Continue | Next::Rest => queue.is_empty(),
        };
        (!right).then(|| format!("{next:?} follows while {queue:?} are queued"))
    }

    pub(super) fn fold(&mut self, n: EntryNo, fact: &Fact) {
        let queue = &mut self.0;
        if let Some(message) = fact.promoted() {
            queue.retain(|queued| *queued != message);
        }
        match fact {
            Fact::Queued => queue.push(n),
            Fact::Unqueued { message } => queue.retain(|queued| queued != message),
            Fact::Interrupting { promote, dropped, .. } => {
                queue.retain(|queued| !dropped.contains(queued) && Some(*queued) != *promote);
                if let Some(message) = promote {
                    queue.insert(0, *message);
                }
            }
            Fact::Forked { .. } | Fact::Imported { .. } => queue.clear(),
            _ => {}
        }
    }
}
