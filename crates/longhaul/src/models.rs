//! The models this program can call, and the keys it knows because of them. Which providers there are is
//! left to [`crate::providers`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use longhaul_engine::Models;
use longhaul_model::recording::Tape;
use longhaul_model::scripted::ScriptedModel;
use longhaul_model::{
    Model, Secret, anthropic, gemini, http, openai_chat as chat, openai_responses as responses,
};
use longhaul_session::agent::{Limits, ModelChoice, OutputFormat, PromptCache};
use longhaul_session::failure::{Failure, FailureClass};
use serde_json::{Value, json};

use crate::facts;
use crate::keys::{self, Mask};
use crate::providers::{self, Provider, Wire};

/// Within which time a connection to a provider must stand, in milliseconds.
const CONNECT_MS: u64 = 10_000;

/// All models of this program.
pub(crate) struct AllModels {
    tape: Option<Tape>,
    /// By the file with certificates that they trust.
    connections: Mutex<BTreeMap<Option<String>, http::Connections>>,
    /// Keys that were read: what a tool prints must not hold them.
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    keys: Vec<String>,
    mask: Option<Mask>,
}

impl AllModels {
    /// Makes models whose answers are recorded, or come from a recording.
    pub(crate) fn new(tape: Option<Tape>) -> Self {
        AllModels { tape, connections: Mutex::default(), known: RwLock::default() }
    }

    /// Returns the connections that trust a file with certificates besides the system's.
    fn connections(&self, ca_file: Option<&String>) -> http::Connections {
        let mut all = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let made = all.entry(ca_file.cloned());
        let make = || http::Connections::with_tape(CONNECT_MS, ca_file.map(PathBuf::from), self.tape.clone());
        made.or_insert_with(make).clone()
    }

    fn key(&self, choice: &ModelChoice) -> Result<Option<Secret>, Failure> {
        let Some(source) = &choice.key else { return Ok(None) };
        let key = match (keys::resolve(source), &self.tape) {
            (Ok(key), _) => key,
            // Nobody is shown it; where there is one, it is masked in what tools print.
            (Err(_), Some(Tape::Replay(_))) => return Ok(None),
            (Err(error), Some(Tape::Record(_)) | None) => {
                return Err(Failure { class: FailureClass::Auth, message: error.to_string() });
            }
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.keys.contains(&key) {
            known.keys.push(key.clone());
            known.mask = Some(Mask::new(known.keys.clone()));
        }
        Ok(Some(Secret::new(key)))
    }

    /// Makes a model that is asked over HTTP.
    fn served(&self, provider: Provider, choice: &ModelChoice, limits: &Limits) -> Made {
        let Some(url) = providers::address(choice) else {
            let message = format!(
                "{} has no usual address: say where yours is with `base_url` of [model], or --base-url",
                provider.name()
            );
            return Err(Failure { class: FailureClass::Preparation, message });
        };
        let headers = choice.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone())));
        let line = Line {
            url: url.to_owned(),
            key: self.key(choice)?,
            headers: headers.collect(),
            limits: http::Limits {
                first_byte_ms: limits.model_first_part_ms,
                idle_ms: limits.model_idle_ms,
                whole_answer_ms: limits.model_call_ms,
            },
            connections: self.connections(choice.ca_file.as_ref()),
        };
        let choice = choice.clone();
        match provider.wire() {
            Wire::Chat => spoken_in_chat(choice, line),
            Wire::Responses => spoken_in_responses(choice, line),
            Wire::Anthropic => spoken_in_messages(choice, line),
            Wire::Gemini => spoken_in_contents(choice, line),
            Wire::Scripted => scripted(&choice),
        }
    }
}

/// What is the same for all wires: whom to ask, and over what.
struct Line {
    url: String,
    key: Option<Secret>,
    headers: Vec<(String, Secret)>,
    limits: http::Limits,
    connections: http::Connections,
}

fn spoken_in_chat(choice: ModelChoice, line: Line) -> Made {
    let Line { url, key, headers, limits, connections } = line;
    let mut parameters = choice.parameters;
    if let Some(output) = &choice.output {
        parameters.entry("response_format").or_insert_with(|| response_format(output));
    }
    let unless_said = chat::Options::new(url, choice.name);
    made(chat::openai_chat(chat::Options {
        key,
        headers,
        limits,
        connections,
        parameters,
        max_output_tokens: choice.max_output_tokens,
        temperature: choice.temperature,
        stream: choice.stream,
        include_usage: choice.include_usage.unwrap_or(unless_said.include_usage),
        replay_reasoning: choice.replay_reasoning.unwrap_or(unless_said.replay_reasoning),
        ..unless_said
    }))
}

fn spoken_in_responses(choice: ModelChoice, line: Line) -> Made {
    let Line { url, key, headers, limits, connections } = line;
    let unless_said = responses::Options::new(url, choice.name);
    made(responses::openai_responses(responses::Options {
        key,
        headers,
        limits,
        connections,
        parameters: choice.parameters,
        max_output_tokens: choice.max_output_tokens,
        temperature: choice.temperature,
        stream: choice.stream,
        provider_tools: choice.provider_tools,
        output: choice.output,
        chain: choice.chain,
        resumable: choice.resumable,
        item_ids: choice.item_ids,
        replay_reasoning: choice.replay_reasoning.unwrap_or(unless_said.replay_reasoning),
        ..unless_said
    }))
}

fn spoken_in_messages(choice: ModelChoice, line: Line) -> Made {
    let Line { url, key, headers, limits, connections } = line;
    let max_output_tokens = facts::max_output_tokens(&choice);
    let unless_said = anthropic::Options::new(url, choice.name);
    made(anthropic::anthropic(anthropic::Options {
        key,
        headers,
        limits,
        connections,
        parameters: choice.parameters,
        max_output_tokens,
        temperature: choice.temperature,
        stream: choice.stream,
        provider_tools: choice.provider_tools,
        output: choice.output,
        bearer: choice.bearer,
        cache: choice.cache.map_or(unless_said.cache, cache),
        replay_reasoning: choice.replay_reasoning.unwrap_or(unless_said.replay_reasoning),
        ..unless_said
    }))
}

fn cache(cache: PromptCache) -> anthropic::Cache {
    match cache {
        PromptCache::Off => anthropic::Cache::Off,
        PromptCache::FiveMinutes => anthropic::Cache::FiveMinutes,
        PromptCache::OneHour => anthropic::Cache::OneHour,
    }
}

fn spoken_in_contents(choice: ModelChoice, line: Line) -> Made {
    let Line { url, key, headers, limits, connections } = line;
    made(gemini::gemini(gemini::Options {
        key,
        headers,
        limits,
        connections,
        parameters: choice.parameters,
        max_output_tokens: choice.max_output_tokens,
        temperature: choice.temperature,
        stream: choice.stream,
        provider_tools: choice.provider_tools,
        output: choice.output,
        ..gemini::Options::new(url, choice.name)
    }))
}

type Made = Result<Arc<dyn Model>, Failure>;

fn made(model: Result<impl Model, longhaul_model::Error>) -> Made {
    match model {
        Ok(model) => Ok(Arc::new(model)),
        Err(error) => Err(Failure { class: error.class, message: error.message }),
    }
}

fn scripted(choice: &ModelChoice) -> Made {
    match ScriptedModel::from_path(Path::new(&choice.name)) {
        Ok(model) => Ok(Arc::new(model)),
        Err(error) => Err(Failure { class: FailureClass::Preparation, message: error.to_string() }),
    }
}

/// The form of an answer, as Chat Completions has it.
fn response_format(output: &OutputFormat) -> Value {
    json!({ "type": "json_schema", "json_schema": { "name": output.name, "schema": output.schema } })
}

impl Models for AllModels {
    fn model(&self, choice: &ModelChoice, limits: &Limits) -> Result<Arc<dyn Model>, Failure> {
        match Provider::named(&choice.provider) {
            Some(Provider::Scripted) => scripted(choice),
            Some(provider) => self.served(provider, choice, limits),
            None => {
                let names: Vec<&str> = Provider::ALL.iter().map(|provider| provider.name()).collect();
                let message = format!(
                    "this program knows no provider {:?}; it knows {}",
                    choice.provider,
                    names.join(", ")
                );
                Err(Failure { class: FailureClass::Preparation, message })
            }
        }
    }

    fn mask<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match &known.mask {
            Some(mask) => mask.bytes(bytes),
            None => Cow::Borrowed(bytes),
        }
    }
}
