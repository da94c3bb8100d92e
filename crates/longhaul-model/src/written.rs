//! What was written before. A request that goes on from another begins with the same bytes, so these are
//! kept, and only what is new is written. What a message looks like is left to each wire.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use longhaul_session::agent::{Request, ToolSpec};
use longhaul_session::id::CallId;
use longhaul_session::item::Item;

use crate::limits::{MAX_KEPT_CONVERSATIONS, MAX_KEPT_REQUEST_BYTES};

/// The requests of a few conversations, as far as nothing that follows can change them.
#[derive(Debug, Default)]
pub(crate) struct Written<P = ()>(Mutex<Vec<Begun<P>>>);

/// A request that is written up to some item.
#[derive(Debug)]
pub(crate) struct Begun<P = ()> {
    system: String,
    tools: Arc<Vec<ToolSpec>>,
    /// Names the items that are written, and keeps none of them: as long as a name is there, no other item
    /// can have it.
    items: Vec<Weak<Item>>,
    pub(crate) bytes: Vec<u8>,
    /// What else a wire must know to go on from there.
    pub(crate) place: P,
}

impl<P: Default> Begun<P> {
    /// Begins with what comes before the items.
    pub(crate) fn new(request: &Request, bytes: Vec<u8>) -> Self {
        let (system, tools) = (request.system.clone(), Arc::clone(&request.tools));
        Begun { system, tools, items: Vec::new(), bytes, place: P::default() }
    }
}

impl<P> Begun<P> {
    /// Returns how many items are written.
    pub(crate) fn written(&self) -> usize {
        self.items.len()
    }

    /// Notes that these items, which follow the ones before, are written too.
    pub(crate) fn goes_on(&mut self, items: &[Arc<Item>]) {
        self.items.extend(items.iter().map(Arc::downgrade));
    }

    fn begins(&self, request: &Request) -> bool {
        self.items.len() <= request.items.len()
            && Arc::ptr_eq(&self.tools, &request.tools)
            && self.system == request.system
            && self.items.iter().zip(&request.items).all(|(name, item)| name.as_ptr() == Arc::as_ptr(item))
    }

    fn is_over(&self) -> bool {
        self.items.last().is_none_or(|item| item.strong_count() == 0)
    }
}

impl<P> Written<P> {
    /// Takes out the request that this one goes on from, if it is kept.
    pub(crate) fn take(&self, request: &Request) -> Option<Begun<P>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = kept.iter().enumerate().filter(|(_, begun)| begun.begins(request));
        let longest = begins.max_by_key(|(_, begun)| begun.written()).map(|(at, _)| at);
        longest.map(|at| kept.remove(at))
    }

    /// Keeps a request, and forgets those whose conversation is over, then the oldest.
    pub(crate) fn keep(&self, begun: Begun<P>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(begun);
        kept.retain(|begun| !begun.is_over());
        let mut bytes: usize = kept.iter().map(|begun| begun.bytes.len()).sum();
        while kept.len() > MAX_KEPT_CONVERSATIONS || bytes > MAX_KEPT_REQUEST_BYTES {
            bytes -= kept.remove(0).bytes.len();
        }
    }
}

/// Returns how many of the items make messages that no later item can change: up to results that directly
/// follow their calls and leave none open. Elsewhere a later text may join the last message, or a later
/// result belong behind an earlier call.
pub(crate) fn settled(items: &[Arc<Item>]) -> usize {
    let mut open: Vec<&CallId> = Vec::new();
    let (mut settled, mut plain, mut answering) = (0, true, false);
    for (at, item) in items.iter().enumerate() {
        match &**item {
            Item::ToolCall(call) => {
                plain &= !answering;
                // Of two open calls with one id, only the newer can get a result.
                if !open.contains(&&call.id) {
                    open.push(&call.id);
                }
            }
            Item::ToolResult(result) => match open.iter().position(|id| **id == result.call) {
                Some(found) => {
                    open.swap_remove(found);
                    answering = true;
                    if open.is_empty() {
                        settled = if plain { at + 1 } else { settled };
                        (plain, answering) = (true, false);
                    }
                }
                None => plain &= open.is_empty(),
            },
            Item::Assistant { .. } | Item::Reasoning { .. } | Item::Opaque { .. } => plain &= !answering,
            Item::User { .. }
            | Item::Summary { .. }
            | Item::Steering { .. }
            | Item::ContextFile { .. }
            | Item::Attachment(_)
            | Item::File { .. }
            | Item::Redacted => plain &= open.is_empty(),
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use longhaul_session::item::{Outcome, ToolCall, ToolResult};
    use proptest::prelude::*;

    use super::*;
    use crate::openai_chat::messages;

    fn any_item() -> impl Strategy<Value = Item> {
        let id = || prop_oneof![Just("a"), Just("b")].prop_map(|id| CallId(id.to_owned()));
        let text = || Just("text".to_owned());
        let call =
            |id| Item::ToolCall(ToolCall { id, name: "read".into(), arguments: "{}".into(), opaque: None });
        let result = |call| {
            let (files, artifact) = (Vec::new(), None);
            Item::ToolResult(ToolResult {
                call,
                outcome: Outcome::Ok,
                output: "done".into(),
                files,
                artifact,
            })
        };
        prop_oneof![
            3 => id().prop_map(call),
            3 => id().prop_map(result),
            1 => text().prop_map(|text| Item::User { text }),
            1 => text().prop_map(|text| Item::Assistant { text, partial: false }),
            1 => text().prop_map(|text| Item::Reasoning { text, opaque: None }),
        ]
    }

    fn bytes(items: &[Arc<Item>]) -> Vec<String> {
        let written = messages("host", true, "", items);
        written.iter().map(|message| serde_json::to_string(message).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// What is settled stays as it is, whatever follows.
        #[test]
        fn settled_items_and_what_follows_them_are_written_apart(
            items in prop::collection::vec(any_item().prop_map(Arc::new), 0..12),
        ) {
            let whole = bytes(&items);
            for end in 0..=items.len() {
                let (before, after) = items.split_at(settled(&items[..end]));
                prop_assert_eq!([bytes(before), bytes(after)].concat(), &whole[..]);
            }
        }
    }

    #[test]
    fn a_step_that_is_over_is_settled() {
        let call = Item::ToolCall(ToolCall {
            id: CallId("a".into()),
            name: "read".into(),
            arguments: String::new(),
            opaque: None,
        });
        let result = Item::ToolResult(ToolResult {
            call: CallId("a".into()),
            outcome: Outcome::Ok,
            output: String::new(),
            files: Vec::new(),
            artifact: None,
        });
        let items = [Item::User { text: "go".into() }, call, result].map(Arc::new);
        assert_eq!([2, 3].map(|end| settled(&items[..end])), [0, 3]);
    }
}
