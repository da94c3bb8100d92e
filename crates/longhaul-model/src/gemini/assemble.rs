//! From the JSON of an answer, in chunks or whole, to parts. How the JSON is framed is left to the
//! decoder.

use longhaul_session::failure::FailureClass;
use longhaul_session::item::Item;
use longhaul_session::usage::Usage;
use serde_json::{Map, Value, json};

use super::calls::Calls;
use super::usage::Tally;
use super::{finish, opaque};
use crate::error::{classify_in_answer, says_failure};
use crate::reader::unfinished;
use crate::{Error, Part};

/// What a candidate says about its content: searches, sources, quotations.
const METADATA: [&str; 4] =
    ["groundingMetadata", "urlContextMetadata", "citationMetadata", "groundingAttributions"];

/// Puts one answer together.
#[derive(Debug)]
pub(crate) struct Assembler {
    host: String,
    started: bool,
    thinking: bool,
    answered: bool,
    calls: Calls,
    metadata: Map<String, Value>,
    tally: Tally,
    usage: Option<Usage>,
    reason: Option<String>,
    explained: Option<String>,
    blocked: Option<String>,
}

impl Assembler {
    pub(crate) fn new(host: &str) -> Self {
        Assembler {
            host: host.to_owned(),
            started: false,
            thinking: false,
            answered: false,
            calls: Calls::default(),
            metadata: Map::new(),
            tally: Tally::default(),
            usage: None,
            reason: None,
            explained: None,
            blocked: None,
        }
    }

    /// Returns what the provider said the answer cost, so far.
    pub(crate) fn counted(&self) -> Option<Usage> {
        self.usage
    }

    /// Returns the provider's own word for how the answer ended, if it has said one.
    pub(crate) fn finish_raw(&self) -> Option<&str> {
        self.reason.as_deref().or(self.blocked.as_deref())
    }

    /// Takes a chunk of a stream, or a whole answer. Unknown fields mean nothing.
    pub(crate) fn take(&mut self, chunk: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        // Code Assist puts each chunk into an envelope.
        let chunk = chunk.get("response").filter(|inner| inner.is_object()).unwrap_or(chunk);
        let id = text_at(chunk, "responseId");
        if id.is_some() {
            self.start(id, parts);
        }
        if let Some(candidate) = first_candidate(chunk) {
            self.answered = true;
            self.candidate(candidate, parts)?;
        }
        let blocked = chunk.pointer("/promptFeedback/blockReason").and_then(Value::as_str);
        if let Some(word) = blocked.filter(|word| !finish::says_nothing(word)) {
            self.blocked = Some(word.to_owned());
        }
        if let Some(usage) = chunk.get("usageMetadata") {
            self.count(usage, parts);
        }
        match error_in(chunk) {
            Some(error) => Err(classify_in_answer(error)),
            None => Ok(()),
        }
    }

    /// Ends an answer that came as one document: that it is whole is the proof that it is finished.
    pub(crate) fn finish_document(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        if !self.answered && self.blocked.is_none() {
            let message = "the provider's answer made no sense: it holds no candidate and no error";
            return Err(Error::new(FailureClass::Server, message));
        }
        self.end(parts)
    }

    /// Ends an answer that came as a stream.
    pub(crate) fn finish_stream(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        if self.reason.is_none() && self.blocked.is_none() {
            return Err(unfinished("the stream ended before the answer was complete"));
        }
        self.end(parts)
    }

    fn end(&mut self, parts: &mut Vec<Part>) -> Result<(), Error> {
        let (word, has_calls) = (self.reason.as_deref(), !self.calls.is_empty());
        let reason = match (&self.blocked, word) {
            (Some(_), None) => crate::FinishReason::ContentFilter,
            (Some(_) | None, word) => finish::reason(word, has_calls, self.explained.as_deref())?,
        };
        self.start(None, parts);
        self.end_thinking(parts);
        self.calls.finish(&self.host, !reason.is_natural(), parts);
        let metadata = std::mem::take(&mut self.metadata);
        if !metadata.is_empty() {
            self.keep(opaque::of_metadata(&self.host, metadata), parts);
        }
        let raw = self.finish_raw().map(str::to_owned);
        parts.push(Part::Finished { reason, raw });
        Ok(())
    }

    fn start(&mut self, id: Option<&str>, parts: &mut Vec<Part>) {
        if !std::mem::replace(&mut self.started, true) {
            parts.push(Part::Started { response_id: id.map(str::to_owned) });
        }
    }

    fn candidate(&mut self, candidate: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        match candidate.pointer("/content/parts") {
            Some(Value::Array(all)) => all.iter().try_for_each(|part| self.part(part, parts))?,
            Some(one) => self.part(one, parts)?,
            None => {}
        }
        for name in METADATA {
            let said = candidate.get(name).filter(|said| !said.is_null() && **said != json!({}));
            if let Some(said) = said {
                // A later one replaces an earlier one: it repeats it, and says more.
                self.metadata.insert(name.to_owned(), said.clone());
            }
        }
        if let Some(word) = text_at(candidate, "finishReason").filter(|word| !finish::says_nothing(word)) {
            self.reason = Some(word.to_owned());
        }
        if let Some(text) = text_at(candidate, "finishMessage") {
            self.explained = Some(text.to_owned());
        }
        Ok(())
    }

    fn part(&mut self, part: &Value, parts: &mut Vec<Part>) -> Result<(), Error> {
        if part.get("functionCall").is_some_and(Value::is_object) {
            self.start(None, parts);
            self.end_thinking(parts);
            return self.calls.take(&self.host, part, parts);
        }
        let text = part.get("text").and_then(Value::as_str);
        let thought = part.get("thought") == Some(&Value::Bool(true));
        let fields = opaque::beside(part, &["text", "thought"]);
        // An empty text stands beside a signature alone, or is no text: other kinds of parts are objects.
        let other_kind = fields.values().any(Value::is_object);
        match text.filter(|text| !text.is_empty() || !other_kind) {
            Some(text) if thought => self.think(text, fields, parts),
            Some(text) => self.say(text, fields, parts),
            None if fields.is_empty() => {}
            None => {
                self.start(None, parts);
                self.end_thinking(parts);
                self.keep(opaque::of_part(&self.host, part), parts);
            }
        }
        Ok(())
    }

    /// Takes a piece of text. One that is signed is a part of its own, and its signature is kept behind it.
    fn say(&mut self, text: &str, fields: Map<String, Value>, parts: &mut Vec<Part>) {
        if text.is_empty() && fields.is_empty() {
            return;
        }
        self.start(None, parts);
        self.end_thinking(parts);
        if !text.is_empty() {
            parts.push(Part::Text { text: text.to_owned() });
        }
        if !fields.is_empty() {
            self.keep(opaque::of_text(&self.host, text.len(), fields), parts);
        }
    }

    fn think(&mut self, text: &str, fields: Map<String, Value>, parts: &mut Vec<Part>) {
        if text.is_empty() && fields.is_empty() {
            return;
        }
        self.start(None, parts);
        if !fields.is_empty() {
            self.end_thinking(parts);
        }
        if !text.is_empty() {
            self.thinking = true;
            parts.push(Part::Reasoning { text: text.to_owned() });
        }
        if !fields.is_empty() {
            self.thinking = false;
            let opaque = Some(opaque::of_fields(&self.host, fields, Map::new()));
            parts.push(Part::ReasoningEnd { opaque });
        }
    }

    fn end_thinking(&mut self, parts: &mut Vec<Part>) {
        if std::mem::take(&mut self.thinking) {
            parts.push(Part::ReasoningEnd { opaque: None });
        }
    }

    fn keep(&self, value: Value, parts: &mut Vec<Part>) {
        parts.push(Part::Item { item: Item::Opaque { provider: self.host.clone(), value } });
    }

    fn count(&mut self, said: &Value, parts: &mut Vec<Part>) {
        let usage = self.tally.take(said).filter(|usage| self.usage != Some(*usage));
        if let Some(usage) = usage {
            self.start(None, parts);
            self.usage = Some(usage);
            parts.push(Part::Usage { usage });
        }
    }
}

fn text_at<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn first_candidate(chunk: &Value) -> Option<&Value> {
    let candidates = chunk.get("candidates")?;
    let candidates = candidates.as_array().map_or(std::slice::from_ref(candidates), Vec::as_slice);
    let first = |candidate: &&Value| candidate.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
    candidates.iter().filter(|candidate| candidate.is_object()).find(first)
}

/// Finds the error that a chunk or document holds or is.
fn error_in(chunk: &Value) -> Option<&Value> {
    if chunk.get("error").is_some_and(says_failure) {
        return Some(chunk);
    }
    let bare = ["message", "detail"].iter().any(|key| chunk.get(key).is_some_and(Value::is_string));
    Some(chunk).filter(|_| bare && chunk.get("candidates").is_none())
}
