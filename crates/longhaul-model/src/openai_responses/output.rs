//! One item of an answer while it is made: what of it has been told, and what of it is still to be told
//! when it is said again as a whole. The same text comes up to four times: in pieces, as a whole part, as
//! a whole item, and in the whole answer.

use std::mem::discriminant;

use serde_json::{Map, Value, json};

use super::API;
use super::input::provider;
use crate::Part;
use crate::conversation::{is_whole, rest_of_blank};
use longhaul_session::item::Item;

/// What of a call has its own meaning; the rest is kept for the provider.
const CALL_FIELDS: [&str; 7] = ["type", "id", "call_id", "name", "arguments", "input", "status"];

/// With this begin the ids of calls that xAI makes itself when it searches X: nothing else tells them from ours.
const HOSTED_CALL_IDS: &str = "xs_call";

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Reasoning,
    Call,
    /// Something the provider does itself, or of a kind unknown here.
    Other,
}

impl Kind {
    /// Reads what an item is.
    pub(super) fn of(item: &Value) -> Kind {
        match item.get("type").and_then(Value::as_str) {
            Some("message") => Kind::Message,
            Some("reasoning") => Kind::Reasoning,
            Some("custom_tool_call") if is_hosted(item) => Kind::Other,
            Some("function_call" | "custom_tool_call") => Kind::Call,
            None if item.get("content").is_some() => Kind::Message,
            Some(_) | None => Kind::Other,
        }
    }
}

fn is_hosted(call: &Value) -> bool {
    text(call, "call_id").is_some_and(|id| id.starts_with(HOSTED_CALL_IDS))
}

/// Which text of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Content(u64),
    Refusal(u64),
    Summary(u64),
    Arguments,
}

impl Slot {
    /// Returns the place of a piece of content.
    pub(super) fn of(piece: &Value, at: u64) -> Slot {
        if piece.get("refusal").is_some_and(Value::is_string) { Slot::Refusal(at) } else { Slot::Content(at) }
    }

    /// Returns the place among the pieces of the same field, and whether that field is the summary.
    fn place(self) -> (u64, bool) {
        match self {
            Slot::Content(at) | Slot::Refusal(at) => (at, false),
            Slot::Summary(at) => (at, true),
            Slot::Arguments => (0, false),
        }
    }
}

/// One item of an answer.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) kind: Kind,
    pub(super) id: Option<String>,
    /// Its place in the answer, if that was said.
    pub(super) at: Option<u64>,
    /// It was said to be whole.
    pub(super) done: bool,
    heard: Vec<(Slot, String)>,
    /// Of a call: which one it is, once it was told of.
    index: Option<u32>,
    call_id: Option<String>,
    name: Option<String>,
    custom: bool,
    ended: bool,
    /// Arguments that were there when the call began.
    announced: String,
    /// Of reasoning: the provider's own form of it was handed over.
    kept: bool,
}

impl Output {
    pub(super) fn new(kind: Kind, id: Option<&str>, at: Option<u64>) -> Self {
        Output {
            kind,
            id: id.map(str::to_owned),
            at,
            done: false,
            heard: Vec::new(),
            index: None,
            call_id: None,
            name: None,
            custom: false,
            ended: false,
            announced: String::new(),
            kept: false,
        }
    }

    /// Takes a piece of a text.
    pub(super) fn hear(&mut self, slot: Slot, piece: &str, parts: &mut Vec<Part>) {
        if piece.is_empty() || self.ended {
            return;
        }
        let new = !self.heard.iter().any(|(it, _)| *it == slot);
        let apart = new && !self.heard.is_empty();
        if new {
            self.heard.push((slot, String::new()));
        }
        let heard = self.heard.iter_mut().find(|(it, _)| *it == slot);
        heard.expect("it was pushed if it was not there").1.push_str(piece);
        let text = piece.to_owned();
        match self.kind {
            Kind::Message => match slot {
                Slot::Refusal(_) => parts.push(Part::Refusal { text }),
                Slot::Content(_) | Slot::Summary(_) | Slot::Arguments => parts.push(Part::Text { text }),
            },
            Kind::Reasoning => {
                let text = if apart { format!("\n\n{text}") } else { text };
                parts.push(Part::Reasoning { text });
            }
            Kind::Call => parts.extend(self.index.map(|index| Part::ToolCallArguments { index, text })),
            Kind::Other => {}
        }
    }

    /// Takes a whole text: what was not heard of it is told. Some servers give reasoning in both of its places,
    /// or tell it in one and repeat it in the other.
    pub(super) fn settle(&mut self, slot: Slot, whole: &str, parts: &mut Vec<Part>) {
        let elsewhere = |it: &Slot| discriminant(it) != discriminant(&slot);
        let twice = self.heard.iter().any(|(it, text)| elsewhere(it) && text == whole);
        if twice && self.kind == Kind::Reasoning {
            return;
        }
        let rest = whole.strip_prefix(self.text(slot)).unwrap_or_default();
        self.hear(slot, rest, parts);
    }

    /// Takes what is said of an item when it begins; `next` is the number of the next call. Texts come
    /// later, and some servers say them here as well.
    pub(super) fn announce(&mut self, item: &Value, next: &mut u32, parts: &mut Vec<Part>) {
        if self.kind == Kind::Call {
            self.announced = arguments(item);
            self.custom |= item.get("type").is_some_and(|kind| kind == "custom_tool_call");
            self.call_id = self.call_id.take().or_else(|| text(item, "call_id"));
            self.name = self.name.take().or_else(|| text(item, "name"));
            self.start(next, parts);
        }
    }

    /// Takes the texts of a whole item.
    pub(super) fn read(&mut self, item: &Value, next: &mut u32, parts: &mut Vec<Part>) {
        match self.kind {
            Kind::Message | Kind::Reasoning => {
                for (at, part) in pieces(item, "summary") {
                    let slot = self.heard_as(Slot::Summary(at), pieces(item, "summary").count());
                    self.settle(slot, text_of(part), parts);
                }
                for (at, part) in pieces(item, "content") {
                    let slot = self.heard_as(Slot::of(part, at), pieces(item, "content").count());
                    self.settle(slot, text_of(part), parts);
                }
            }
            Kind::Call => {
                self.announce(item, next, parts);
                self.settle(Slot::Arguments, &arguments(item), parts);
            }
            Kind::Other => {}
        }
    }

    /// Finds the place that a piece had while it came, of so many in its field: vLLM counts on from item to item.
    fn heard_as(&self, slot: Slot, pieces: usize) -> Slot {
        let (at, summary) = slot.place();
        let beyond = |it: &Slot| {
            let (place, of_summary) = it.place();
            of_summary == summary && usize::try_from(place).is_ok_and(|place| place >= pieces)
        };
        let mut heard = self.heard.iter().map(|(it, _)| *it);
        if heard.clone().any(|it| it == slot) {
            return slot;
        }
        let nth = usize::try_from(at).unwrap_or(usize::MAX);
        let found = heard.by_ref().filter(beyond).nth(nth);
        found.filter(|it| discriminant(it) == discriminant(&slot)).unwrap_or(slot)
    }

    /// Takes the whole item. Half a call, when something cut the answer, is left open.
    pub(super) fn end(&mut self, host: &str, item: &Value, parts: &mut Vec<Part>) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        match self.kind {
            Kind::Message => {}
            Kind::Reasoning => {
                let opaque = self.reasoning(host, item);
                if opaque.is_some() || !self.heard.is_empty() {
                    parts.push(Part::ReasoningEnd { opaque });
                }
            }
            Kind::Call => {
                let cut = item.get("status").is_some_and(|status| status == "incomplete");
                if self.index.is_some() && (!cut || self.is_whole()) {
                    self.end_call(call_opaque(host, item, self.custom), parts);
                }
            }
            Kind::Other => {
                let (provider, value) = (provider(host), item.clone());
                parts.push(Part::Item { item: Item::Opaque { provider, value } });
            }
        }
    }

    /// Takes the whole item at the end of its answer, where it may be said once more. Azure tells the
    /// encrypted form of reasoning only there; `place` is how many items that are no reasoning come
    /// before it.
    pub(super) fn end_late(&mut self, host: &str, item: &Value, place: usize, parts: &mut Vec<Part>) {
        if self.kind != Kind::Reasoning {
            self.end(host, item, parts);
        } else if !self.kept
            && let Some(mut opaque) = self.reasoning(host, item)
        {
            self.done = true;
            opaque["place"] = json!(place);
            parts.push(Part::ReasoningEnd { opaque: Some(opaque) });
        }
    }

    /// Ends what nothing more was said of, when the answer ends; `cut` says that not the model ended it.
    /// False is returned for a call that nobody can make.
    pub(super) fn close(&mut self, host: &str, cut: bool, parts: &mut Vec<Part>) -> bool {
        match self.kind {
            Kind::Message | Kind::Other => {}
            Kind::Reasoning if self.done || self.heard.is_empty() => {}
            Kind::Reasoning => parts.push(Part::ReasoningEnd { opaque: None }),
            Kind::Call if self.ended => {}
            Kind::Call if self.index.is_none() => return cut,
            Kind::Call => {
                if self.heard.is_empty() {
                    let announced = std::mem::take(&mut self.announced);
                    self.hear(Slot::Arguments, &announced, parts);
                }
                if !cut || self.is_whole() {
                    self.end_call(call_opaque(host, &Value::Null, self.custom), parts);
                }
            }
        }
        true
    }

    fn text(&self, slot: Slot) -> &str {
        self.heard.iter().find(|(it, _)| *it == slot).map_or("", |(_, text)| text)
    }

    /// Tells of the call, once its name is known, with the arguments so far.
    fn start(&mut self, next: &mut u32, parts: &mut Vec<Part>) {
        let (None, Some(name)) = (self.index, self.name.clone()) else { return };
        let index = *next;
        *next += 1;
        self.index = Some(index);
        let id = self.call_id.clone().or_else(|| self.id.clone());
        parts.push(Part::ToolCallStarted { index, id, name });
        let text = self.text(Slot::Arguments).to_owned();
        if !text.is_empty() {
            parts.push(Part::ToolCallArguments { index, text });
        }
    }

    fn end_call(&mut self, opaque: Option<Value>, parts: &mut Vec<Part>) {
        let Some(index) = self.index else { return };
        let said = self.text(Slot::Arguments);
        let rest = match self.custom {
            true => Some("").filter(|_| said.is_empty()),
            false => rest_of_blank(said),
        };
        parts.extend(rest.map(|rest| Part::ToolCallArguments { index, text: rest.to_owned() }));
        self.ended = true;
        parts.push(Part::ToolCallEnd { index, opaque });
    }

    /// Tells whether all of these came already, of an item that speaks.
    pub(super) fn told(&self, whole: &[&str]) -> bool {
        let told = |text: &&str| self.heard.iter().any(|(_, heard)| heard == text);
        self.kind != Kind::Call && !whole.is_empty() && whole.iter().all(told)
    }

    /// Tells whether this is the id of the call.
    pub(super) fn is_called(&self, id: Option<&str>) -> bool {
        id.is_some() && self.call_id.as_deref() == id
    }

    /// Tells whether nothing but its being a call is known of it.
    pub(super) fn is_unnamed_call(&self) -> bool {
        self.kind == Kind::Call && self.index.is_none()
    }

    fn is_whole(&self) -> bool {
        is_whole(self.text(Slot::Arguments))
    }

    /// Makes the opaque value of reasoning, if the server can do something with it when it comes back: an
    /// id alone is of no use where nothing is stored. OpenRouter hands on the signatures of other providers.
    fn reasoning(&mut self, host: &str, item: &Value) -> Option<Value> {
        let sealed = ["encrypted_content", "signature"].iter().any(|key| text(item, key).is_some());
        let open = item.get("content").and_then(Value::as_array).is_some_and(|content| !content.is_empty());
        self.kept = sealed || open;
        self.kept.then(|| json!({ "api": API, "host": host, "item": item }))
    }
}

/// Makes the opaque value of a call: what it is, and what it says beyond what every call says.
fn call_opaque(host: &str, item: &Value, custom: bool) -> Option<Value> {
    let fields = item.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, value)| !CALL_FIELDS.contains(&name.as_str()) && !value.is_null());
    let fields: Map<String, Value> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut opaque = json!({ "api": API, "host": host });
    if custom {
        opaque["custom"] = json!(true);
    }
    if !fields.is_empty() {
        opaque["fields"] = Value::Object(fields.clone());
    }
    (custom || !fields.is_empty()).then_some(opaque)
}

/// Returns a text that says something.
pub(super) fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns the text of a piece of content, of any kind.
pub(super) fn text_of(part: &Value) -> &str {
    let field = |key| part.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    part.as_str().or_else(|| field("text")).or_else(|| field("refusal")).unwrap_or_default()
}

/// Returns all that an item says.
pub(super) fn texts_of(item: &Value) -> Vec<&str> {
    let texts = pieces(item, "summary").chain(pieces(item, "content")).map(|(_, part)| text_of(part));
    texts.filter(|text| !text.is_empty()).collect()
}

/// Returns the arguments of a call as text, in whatever form they came.
pub(super) fn arguments(item: &Value) -> String {
    let said = item.get("arguments").or_else(|| item.get("input")).filter(|said| !said.is_null());
    said.map_or(String::new(), |said| said.as_str().map_or_else(|| said.to_string(), str::to_owned))
}

/// Returns the pieces of a field, which may also be one text.
fn pieces<'a>(item: &'a Value, field: &str) -> impl Iterator<Item = (u64, &'a Value)> {
    let field = item.get(field);
    let several = field.and_then(Value::as_array).into_iter().flatten();
    let alone = field.filter(|it| it.is_string());
    (0..).zip(several.chain(alone))
}
