//! What a provider can be asked for beyond a text, and the form of answers: checked before anything is sent.

use std::path::Path;

use longhaul_session::agent::OutputFormat;
use serde_json::{Map, Value};

use super::bytes;
use super::form::{Model, Output};
use super::resolve::Resolver;
use crate::providers::{Provider, Wire};

/// What a form of answers is called, if nothing is said.
const OUTPUT_NAME: &str = "answer";
/// The longest name of a form that providers take, in characters.
const MAX_OUTPUT_NAME: usize = 64;

impl Resolver<'_> {
    /// Notes what is wanted of a provider that it cannot do.
    pub(super) fn is_offered(&mut self, provider: Provider, model: &Model) {
        let (name, wire) = (provider.name(), provider.wire());
        if provider.url().is_none() && model.base_url.is_none() {
            let hint =
                "add base_url = \"https://NAME.openai.azure.com/openai/v1\", with the name of your resource";
            self.missing(&["model", "base_url"], &format!("{name} has no usual address"), hint);
        }
        for (key, wanted) in [("chain", model.chain), ("resumable", model.resumable)] {
            if wanted == Some(true) && wire != Wire::Responses {
                let what = match key {
                    "chain" => format!("{name} does not keep conversations"),
                    _ => format!("{name} does not make answers in the background"),
                };
                let hint = "remove it, or write provider = \"openai-responses\"";
                self.wrong_key(&["model", key], what, hint);
            }
        }
        self.is_spoken(name, wire, model);
        if model.resumable == Some(true) && model.stream == Some(false) {
            let what = "an answer that can be picked up again is always streamed";
            self.wrong(&["model", "stream"], what, "remove it, or remove `resumable`");
        }
        if wire == Wire::Chat && !model.provider_tools.is_empty() {
            let what = format!("{name} takes no tools of a provider");
            let hint = "remove them, or choose openai-responses, anthropic or gemini; what a server of Chat \
                        Completions can do besides belongs in `parameters`";
            self.wrong_key(&["model", "provider_tools"], what, hint);
        }
    }

    /// Notes what is said of a provider that has no meaning in the format it is spoken to in.
    fn is_spoken(&mut self, name: &str, wire: Wire, model: &Model) {
        let only = |of: Wire| wire == of;
        let settings = [
            ("replay_reasoning", model.replay_reasoning.is_some(), !only(Wire::Gemini)),
            ("item_ids", model.item_ids.is_some(), only(Wire::Responses)),
            ("include_usage", model.include_usage.is_some(), only(Wire::Chat)),
            ("bearer", model.bearer.is_some(), only(Wire::Anthropic)),
            ("cache", model.cache.is_some(), only(Wire::Anthropic)),
        ];
        for (key, said, has_meaning) in settings {
            if said && !has_meaning {
                let hint = match key {
                    "replay_reasoning" => "remove it; Gemini wants its signatures back in any case",
                    "item_ids" => "remove it; it is for openai-responses",
                    "include_usage" => "remove it; it is for servers of Chat Completions",
                    _ => "remove it; it is for anthropic",
                };
                self.wrong_key(&["model", key], format!("`{key}` has no meaning for {name}"), hint);
            }
        }
    }

    /// Resolves the form of answers.
    pub(super) fn output(&mut self, output: Output) -> Option<OutputFormat> {
        let name = output.name.unwrap_or_else(|| OUTPUT_NAME.to_owned());
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=MAX_OUTPUT_NAME).contains(&name.len()) || !name.bytes().all(fits) {
            let hint = format!("use letters, digits, `_` and `-`, at most {MAX_OUTPUT_NAME} of them");
            self.wrong(&["model", "output", "name"], "this cannot be the name of a form", hint);
        }
        let schema = match (output.schema, output.schema_file) {
            (Some(_), Some(_)) => {
                let what = "there are two schemas: `schema` and `schema_file`";
                self.wrong_key(&["model", "output", "schema_file"], what, "remove one of them");
                return None;
            }
            (Some(schema), None) => schema,
            (None, Some(file)) => self.schema_in(&file)?,
            (None, None) => {
                let hint = "add schema = { … }, or schema_file = \"answer.json\"";
                self.missing(&["model", "output", "schema"], "the form of answers has no schema", hint);
                return None;
            }
        };
        Some(OutputFormat { name, schema: Value::Object(schema) })
    }

    fn schema_in(&mut self, file: &str) -> Option<Map<String, Value>> {
        let at = ["model", "output", "schema_file"];
        let path = self.existing(&at, file)?;
        match read_schema(&path) {
            Ok(schema) => Some(schema),
            Err((what, hint)) => {
                self.wrong(&at, format!("{} cannot be the schema: {what}", path.display()), hint);
                None
            }
        }
    }
}

fn read_schema(path: &Path) -> Result<Map<String, Value>, (String, &'static str)> {
    match serde_json::from_slice(&bytes(path)?) {
        Ok(Value::Object(schema)) => Ok(schema),
        Ok(_) => {
            Err(("it is no JSON object".to_owned(), "write a JSON schema, such as { \"type\": \"object\" }"))
        }
        Err(error) => Err((format!("it is not JSON: {error}"), "correct it")),
    }
}
