//! The models this program can call, and the keys it knows because of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use longhaul_engine::Models;
use longhaul_model::openai_chat::Options;
use longhaul_model::recording::Tape;
use longhaul_model::scripted::ScriptedModel;
use longhaul_model::{Model, Secret, http, openai_chat};
use longhaul_session::agent::{Limits, ModelChoice};
use longhaul_session::failure::{Failure, FailureClass};

use crate::keys::{self, Mask};

/// The provider name of scripted models.
pub(crate) const SCRIPTED: &str = "scripted";
/// The provider name of everything that speaks Chat Completions.
pub(crate) const OPENAI_CHAT: &str = "openai-chat";
/// Where Chat Completions are at home.
const OPENAI_URL: &str = "https://api.openai.com/v1";
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

    fn chat(&self, choice: &ModelChoice, limits: &Limits) -> Result<Arc<dyn Model>, Failure> {
        let url = choice.base_url.as_deref().unwrap_or(OPENAI_URL);
        let headers = choice.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone())));
        let options = Options {
            key: self.key(choice)?,
            max_output_tokens: choice.max_output_tokens,
            temperature: choice.temperature,
            stream: choice.stream,
            parameters: choice.parameters.clone(),
            headers: headers.collect(),
            limits: http::Limits {
                first_byte_ms: limits.model_first_part_ms,
                idle_ms: limits.model_idle_ms,
                whole_answer_ms: limits.model_call_ms,
            },
            connections: self.connections(choice.ca_file.as_ref()),
            ..Options::new(url, &choice.name)
        };
        match openai_chat(options) {
            Ok(model) => Ok(Arc::new(model)),
            Err(error) => Err(Failure { class: error.class, message: error.message }),
        }
    }
}

impl Models for AllModels {
    fn model(&self, choice: &ModelChoice, limits: &Limits) -> Result<Arc<dyn Model>, Failure> {
        let failed = |message| Failure { class: FailureClass::Preparation, message };
        match choice.provider.as_str() {
            SCRIPTED => match ScriptedModel::from_path(Path::new(&choice.name)) {
                Ok(model) => Ok(Arc::new(model)),
                Err(error) => Err(failed(error.to_string())),
            },
            OPENAI_CHAT => self.chat(choice, limits),
            other => Err(failed(format!(
                "this program knows no provider {other:?}; it knows {SCRIPTED:?} and {OPENAI_CHAT:?}"
            ))),
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
