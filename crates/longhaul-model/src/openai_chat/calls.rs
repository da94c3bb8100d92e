//! Which tool call a piece of one belongs to. By the wire's rules its index says so, but servers
//! leave out indexes and ids, or give every call the index 0.

use serde_json::{Value, json};

use longhaul_session::failure::FailureClass;

use super::API;
use crate::conversation::{is_plain_id, is_whole, rest_of_blank};
use crate::limits::MAX_CALLS;
use crate::reader::nonsense;
use crate::{Error, Part};

/// The tool calls of one answer.
#[derive(Debug, Default)]
pub(crate) struct Calls(Vec<Call>);

#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: Option<String>,
    /// The call is told of once its name is known.
    name: Option<String>,
    arguments: String,
    /// An empty object came, which may be all of the arguments or stand before them.
    empty: bool,
    /// The arguments are a text of any kind.
    custom: bool,
    extra: Option<Value>,
}

/// A piece as the wire has it.
struct Piece<'a> {
    index: Option<u64>,
    place: Option<usize>,
    id: Option<&'a str>,
    name: Option<&'a str>,
    arguments: String,
    custom: bool,
    extra: Option<&'a Value>,
}

impl Calls {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a piece of a call. `place` is where it stands among the pieces of several that came together.
    pub(crate) fn take(
        &mut self,
        piece: &Value,
        place: Option<usize>,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let piece = Piece { place, ..read(piece) };
        let says_nothing = piece.id.is_none() && piece.name.is_none() && piece.arguments.is_empty();
        let at = match self.position(&piece) {
            Some(at) => at,
            None if says_nothing => return Ok(()),
            None if self.0.len() < MAX_CALLS => {
                self.0.push(Call { index: piece.index, ..Call::default() });
                self.0.len() - 1
            }
            None => {
                let message = format!("the answer had more than {MAX_CALLS} tool calls and was given up");
                return Err(Error::new(FailureClass::Server, message));
            }
        };
        let index = u32::try_from(at).expect("there are at most MAX_CALLS calls");
        let call = &mut self.0[at];
        if let (None, Some(id)) = (&call.id, piece.id) {
            call.id = Some(id.to_owned());
        }
        call.custom |= piece.custom;
        if let Some(extra) = piece.extra {
            call.extra = Some(extra.clone());
        }
        let mut news = piece.arguments;
        if call.arguments.is_empty() && news.trim() == "{}" && !call.custom {
            call.empty = true;
            news.clear();
        }
        call.arguments.push_str(&news);
        match (&call.name, piece.name) {
            (None, Some(name)) => {
                call.name = Some(name.to_owned());
                let (id, name) = (call.id.clone(), name.to_owned());
                parts.push(Part::ToolCallStarted { index, id, name });
                news.clone_from(&call.arguments);
            }
            (None, None) => return Ok(()),
            (Some(_), _) => {}
        }
        if !news.is_empty() {
            parts.push(Part::ToolCallArguments { index, text: news });
        }
        Ok(())
    }

    /// Ends the calls. When something else than the model stopped
    /// the answer (`cut`), only those whose arguments are whole end; the others stay open.
    pub(crate) fn finish(&mut self, host: &str, cut: bool, parts: &mut Vec<Part>) -> Result<(), Error> {
        for (at, call) in self.0.iter().enumerate() {
            if call.name.is_none() && !cut {
                return Err(nonsense("a tool call had no name"));
            }
            if call.name.is_some() && (!cut || call.is_whole()) {
                let index = u32::try_from(at).expect("there are at most MAX_CALLS calls");
                let rest = call.rest().map(str::to_owned);
                parts.extend(rest.map(|text| Part::ToolCallArguments { index, text }));
                let opaque = call.opaque(host);
                parts.push(Part::ToolCallEnd { index, opaque });
            }
        }
        Ok(())
    }

    fn position(&self, piece: &Piece<'_>) -> Option<usize> {
        let found = match (piece.index, piece.id, piece.name) {
            (Some(index), _, _) => self.0.iter().rposition(|call| call.index == Some(index)),
            (None, Some(id), _) => self.0.iter().rposition(|call| call.id.as_deref() == Some(id)),
            (None, None, None) if piece.place.is_some_and(|place| place < self.0.len()) => piece.place,
            (None, None, _) => self.0.len().checked_sub(1),
        };
        found.filter(|at| !begins_another(&self.0[*at], piece))
    }
}

fn read(piece: &Value) -> Piece<'_> {
    let held = ["function", "custom"].iter().find_map(|key| piece.get(key).filter(|it| it.is_object()));
    let function = held.unwrap_or(piece);
    let text = |value: &'_ Value| value.as_str().map(str::to_owned);
    let said = function.get("arguments").or_else(|| function.get("input"));
    let arguments = said.filter(|arguments| !arguments.is_null());
    let number = |index: &Value| index.as_u64().or_else(|| index.as_str()?.parse().ok());
    Piece {
        index: piece.get("index").and_then(number),
        place: None,
        id: piece.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()),
        name: function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()),
        arguments: arguments.map_or(String::new(), |it| text(it).unwrap_or_else(|| it.to_string())),
        custom: piece.get("custom").is_some_and(Value::is_object),
        extra: piece.get("extra_content").filter(|extra| !extra.is_null()),
    }
}

impl Call {
    /// Returns what is still to be told of its arguments when it ends.
    fn rest(&self) -> Option<&'static str> {
        match (self.custom, self.arguments.is_empty()) {
            (true, empty) => Some("").filter(|_| empty),
            (false, true) => Some("{}").filter(|_| self.empty),
            (false, false) => rest_of_blank(&self.arguments),
        }
    }

    /// Makes the opaque value of the call. Google's servers sign calls, and want the signature back; LiteLLM hides
    /// it in the id.
    fn opaque(&self, host: &str) -> Option<Value> {
        let mut opaque = json!({ "api": API, "host": host });
        let own_id = self.id.as_deref().is_some_and(|id| !is_plain_id(id));
        if own_id {
            opaque["own_id"] = json!(true);
        }
        if self.custom {
            opaque["custom"] = json!(true);
        }
        if let Some(extra) = &self.extra {
            opaque["extra_content"] = extra.clone();
        }
        (own_id || self.custom || self.extra.is_some()).then_some(opaque)
    }

    /// Tells whether its arguments are all there, as far as can be seen.
    fn is_whole(&self) -> bool {
        if self.arguments.is_empty() { self.empty } else { is_whole(&self.arguments) }
    }
}

/// Tells whether a piece that seems to belong to a call begins the next one. Some servers repeat
/// the name with every piece, and some give one call changing ids, so it must also fit that the
/// call before is complete.
fn begins_another(call: &Call, piece: &Piece<'_>) -> bool {
    if piece.name.is_none() || call.name.is_none() {
        return false;
    }
    match (call.id.as_deref(), piece.id) {
        (Some(old), Some(new)) => old != new && (call.arguments.is_empty() || call.is_whole()),
        (None, None) => !piece.arguments.is_empty() && call.is_whole(),
        (Some(_), None) => piece.index.is_none() && call.is_whole(),
        (None, Some(_)) => call.is_whole(),
    }
}

/// Returns what a call carries for this server, if it came from there.
pub(crate) fn extra<'a>(host: &str, opaque: Option<&'a Value>) -> Option<&'a Value> {
    ours(host, opaque)?.get("extra_content")
}

/// Tells whether a call came from this server with a text of any kind for arguments.
pub(crate) fn is_custom(host: &str, opaque: Option<&Value>) -> bool {
    ours(host, opaque).is_some_and(|it| it["custom"] == true)
}

/// Tells whether a call's id came from this server, and is none that all servers would take.
pub(crate) fn has_own_id(host: &str, opaque: Option<&Value>) -> bool {
    ours(host, opaque).is_some_and(|it| it["own_id"] == true)
}

fn ours<'a>(host: &str, opaque: Option<&'a Value>) -> Option<&'a Value> {
    opaque.filter(|it| it["api"] == API && it["host"] == host)
}
