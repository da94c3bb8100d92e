//! The tool calls of one answer. Each is begun with its name; its arguments come in pieces, told apart by the
//! number of the block.

use longhaul_session::failure::FailureClass;
use serde_json::{Map, Value};

use super::opaque;
use crate::conversation::{is_whole, rest_of_blank};
use crate::limits::MAX_CALLS;
use crate::reader::nonsense;
use crate::{Error, Part};

/// The tool calls of one answer.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

#[derive(Debug)]
struct Call {
    block: Option<u64>,
    arguments: String,
    /// Arguments that came with the beginning. Pieces that follow take their place.
    input: Option<String>,
    /// What else the provider said of the call.
    fields: Map<String, Value>,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins a call.
    pub(super) fn begin(
        &mut self,
        number: Option<u64>,
        block: &Map<String, Value>,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let text = |key: &str| block.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let Some(name) = text("name") else {
            return Err(nonsense("a tool call had no name"));
        };
        if self.0.len() == MAX_CALLS {
            let message = format!("the answer had more than {MAX_CALLS} tool calls and was given up");
            return Err(Error::new(FailureClass::Server, message));
        }
        let input = match block.get("input") {
            None | Some(Value::Null) => None,
            Some(Value::Object(input)) if input.is_empty() => None,
            Some(Value::String(input)) => Some(input.clone()).filter(|input| !input.trim().is_empty()),
            Some(input) => Some(input.to_string()),
        };
        let more = |key: &str, value: &Value| {
            let usual = key == "caller" && value["type"] == "direct";
            !["type", "id", "name", "input"].contains(&key) && !value.is_null() && !usual
        };
        let fields = block.iter().filter(|(key, value)| more(key, value));
        let fields = fields.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (id, name) = (text("id").map(str::to_owned), name.to_owned());
        parts.push(Part::ToolCallStarted { index: index(self.0.len()), id, name });
        self.0.push(Call { block: number, arguments: String::new(), input, fields });
        Ok(())
    }

    /// Takes a piece of the arguments of the call in a block, or of the newest; tells whether there is one.
    pub(super) fn arguments(&mut self, number: Option<u64>, piece: &str, parts: &mut Vec<Part>) -> bool {
        let of_block = |call: &Call| number.is_none() || call.block.is_none() || call.block == number;
        let Some(at) = self.0.iter().rposition(of_block) else { return false };
        if !piece.is_empty() {
            self.0[at].arguments.push_str(piece);
            parts.push(Part::ToolCallArguments { index: index(at), text: piece.to_owned() });
        }
        true
    }

    /// Ends the calls. When something else than the model stopped the answer (`cut`), those that may be half
    /// stay open.
    pub(super) fn finish(&mut self, host: &str, cut: bool, parts: &mut Vec<Part>) {
        let newest = self.0.len().saturating_sub(1);
        for (at, call) in self.0.iter_mut().enumerate() {
            let silent = call.arguments.trim().is_empty();
            let half = match (silent, &call.input) {
                (true, Some(_)) => false,
                (true, None) => at == newest,
                (false, _) => !is_whole(&call.arguments),
            };
            if cut && half {
                continue;
            }
            let index = index(at);
            let input = call.input.take().filter(|_| silent);
            let rest = input.or_else(|| rest_of_blank(&call.arguments).map(str::to_owned));
            parts.extend(rest.map(|text| Part::ToolCallArguments { index, text }));
            let fields = std::mem::take(&mut call.fields);
            let opaque = (!fields.is_empty()).then(|| opaque::fields(host, fields));
            parts.push(Part::ToolCallEnd { index, opaque });
        }
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("there are at most MAX_CALLS calls")
}
