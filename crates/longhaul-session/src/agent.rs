//! The configuration a session runs with, and its limits. Resolved once, pinned in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::goal::Terms;
use crate::item::{EffectClass, Item};
use crate::prices::Prices;
use crate::prompts::Prompts;

/// What a session runs with: the resolved form of an agent's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// The agent's name.
    pub agent: String,
    /// Which model, from whom, with what parameters.
    pub model: ModelChoice,
    /// The working directory, absolute.
    pub directory: String,
    /// Instructions of the agent's author: a template, which the system prompt begins with.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Which paths may be read and written.
    #[serde(default)]
    pub scope: Vec<ScopeRule>,
    /// Which tools exist, and with what permission.
    #[serde(default)]
    pub tools: Vec<ToolSetting>,
    /// Limits of turns, crashes and retries.
    #[serde(default)]
    pub limits: Limits,
    /// The model that summarises what leaves the context; `None`: the one that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summariser: Option<Box<ModelChoice>>,
    /// Templates of what Longhaul itself says to the model, where they are not the built-in ones.
    #[serde(default, skip_serializing_if = "Prompts::is_empty")]
    pub prompts: Prompts,
    /// What its goals are held to besides what is said when they are set.
    #[serde(default, skip_serializing_if = "Terms::is_empty")]
    pub goal: Terms,
    /// Its sessions have no goals, and the model is offered no tools for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_goals: bool,
}

/// Which model answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelChoice {
    /// The provider's name; `scripted` is the built-in script player.
    pub provider: String,
    /// The model's name, as the provider knows it; the path of the script for `scripted`.
    pub name: String,
    /// Where the provider is, if not at its usual place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Where its key is found. The key itself is never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
    /// The most tokens one answer may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// How much chance there is in the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Whether answers are streamed.
    #[serde(default = "default_true")]
    pub stream: bool,
    /// Headers sent with each request. They are kept in the log: a key belongs in `key`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Parameters passed on to the provider as they are.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Tools that the provider runs itself, in the provider's own form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provider_tools: Vec<Value>,
    /// The form every answer must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputFormat>,
    /// The provider keeps the conversation, and gets only what is new (OpenAI Responses).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chain: bool,
    /// Answers are made in the background at the provider, so that one a worker's death cut off is picked
    /// up again (OpenAI Responses).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumable: bool,
    /// How many tokens it can take in all; `None` where that is not known and only assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_tokens: Option<u64>,
    /// What its tokens cost; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
    /// The most tokens that one answer can have, as far as it is known and not said in `max_output_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_answer_tokens: Option<u64>,
    /// How many images it takes and how large; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageLimits>,
    /// A file with certificates (PEM) to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Whether reasoning is sent back with the answer it belongs to; the client decides if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_reasoning: Option<bool>,
    /// Reasoning is sent back under the id it came with (OpenAI Responses).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub item_ids: bool,
    /// Whether the usage is asked for at the end of a stream (Chat Completions); it is if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<bool>,
    /// The key is sent as a bearer token (Anthropic Messages).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bearer: bool,
    /// How long the provider is to keep what it has read (Anthropic Messages); five minutes if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PromptCache>,
}

/// How many images a model takes, and how large. What is not known is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageLimits {
    /// The most images of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_count: Option<u32>,
    /// The most bytes of one image, before they are written in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// How long a provider is to keep a prompt that it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromptCache {
    /// Not at all.
    #[serde(rename = "off")]
    Off,
    /// Five minutes after it was last used.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// An hour after it was last used.
    #[serde(rename = "1h")]
    OneHour,
}

/// The form of an answer: a JSON document under a schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputFormat {
    /// What it is called: letters, digits, `_` and `-`.
    pub name: String,
    /// Its JSON schema.
    pub schema: Value,
}

impl ModelChoice {
    /// Chooses a model of a provider, with nothing else said.
    #[must_use]
    pub fn new(provider: impl Into<String>, name: impl Into<String>) -> Self {
        ModelChoice {
            provider: provider.into(),
            name: name.into(),
            base_url: None,
            key: None,
            max_output_tokens: None,
            temperature: None,
            stream: true,
            headers: BTreeMap::new(),
            parameters: Map::new(),
            provider_tools: Vec::new(),
            output: None,
            chain: false,
            resumable: false,
            window_tokens: None,
            prices: None,
            longest_answer_tokens: None,
            images: None,
            ca_file: None,
            replay_reasoning: None,
            item_ids: false,
            include_usage: None,
            bearer: false,
            cache: None,
        }
    }
}

/// Where a key is found when it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// In this variable of the environment.
    Env(String),
    /// In this file; spaces and line ends around it are dropped.
    File(String),
}

/// One rule of a scope: allow grants up to a level, deny caps strictly below its level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeRule {
    /// Whether the rule grants or caps.
    pub effect: ScopeEffect,
    /// A path, absolute or relative to the working directory.
    pub target: String,
    /// The level granted, or the level no longer reached.
    pub permission: Permission,
    /// Whether everything below the target is meant too.
    #[serde(default = "default_true")]
    pub recursive: bool,
}

fn default_true() -> bool {
    true
}

/// Whether a scope rule grants or caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeEffect {
    /// Grants up to the level.
    Allow,
    /// Caps strictly below the level. Deny wins.
    Deny,
}

/// What may be done with a path. Each level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Read files and list directories.
    Read,
    /// Also create, change and remove.
    Write,
}

/// What an agent may do with one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolSetting {
    /// The tool's name.
    pub name: String,
    /// Whether its calls run at once, after a person's yes, or never.
    #[serde(default)]
    pub permission: ToolPermission,
    /// The longest output a call may return to the model, in bytes.
    #[serde(default)]
    pub max_output_bytes: Option<usize>,
    /// How long one call may take, in milliseconds.
    #[serde(default)]
    pub time_limit_ms: Option<u64>,
}

/// Whether a tool's calls run at once, after a person's yes, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolPermission {
    /// At once.
    #[default]
    Allow,
    /// After a person's yes.
    Ask,
    /// Never.
    Deny,
}

/// Bounds on what a session may do before it stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Model steps in one turn.
    pub max_steps: u32,
    /// Worker deaths in a row without progress.
    pub max_crashes: u32,
    /// How long a failing model call is retried, in milliseconds.
    pub retry_for_ms: u64,
    /// The same under an active goal.
    pub retry_for_goal_ms: u64,
    /// Compactions that may fail in a row before they are no longer tried by themselves.
    pub max_compaction_failures: u32,
    /// The size of a request, in tokens, above which the context is compacted first.
    pub compact_above_tokens: u64,
    /// The newest turns that a compaction keeps whole, as far as they take up half of that at most.
    pub retained_turns: u32,
    /// How many tokens of the newest steps a compaction keeps, a quarter of that at most.
    pub retained_tokens: u64,
    /// How long one model call may take, in milliseconds.
    pub model_call_ms: u64,
    /// How long a provider may take to begin its answer, in milliseconds.
    pub model_first_part_ms: u64,
    /// How long a provider may pause within its answer, in milliseconds.
    pub model_idle_ms: u64,
    /// How long one check of a goal may take, in milliseconds.
    pub check_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_steps: 200,
            max_crashes: 3,
            retry_for_ms: 15 * 60 * 1_000,
            retry_for_goal_ms: 24 * 60 * 60 * 1_000,
            max_compaction_failures: 3,
            compact_above_tokens: 102_400,
            retained_turns: 2,
            retained_tokens: 8_192,
            model_call_ms: 30 * 60 * 1_000,
            model_first_part_ms: 5 * 60 * 1_000,
            model_idle_ms: 2 * 60 * 1_000,
            check_ms: 10 * 60 * 1_000,
        }
    }
}

/// What the model is told of a tool, and what the machine must know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name the model calls it by.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// The JSON schema of its arguments.
    pub input_schema: Value,
    /// How often one call may run.
    pub effect: EffectClass,
    /// The call must be alone in its step.
    #[serde(default)]
    pub exclusive: bool,
    /// A result of it ends the turn.
    #[serde(default)]
    pub stop_after: bool,
}

/// A request to a model, in no provider's form. The same log gives the same request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The system prompt, as it was rendered and committed once.
    pub system: String,
    /// What the model sees, in order.
    pub items: Vec<Arc<Item>>,
    /// The tools it may call.
    pub tools: Arc<Vec<ToolSpec>>,
    /// The newest answer of the model that these items go on from; `None` when something before it has
    /// changed since.
    pub previous: Option<Previous>,
}

/// An answer that a provider may have kept, with all that came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The provider's name for it.
    pub response_id: String,
    /// How many items of the request it includes: itself and all before it.
    pub items: usize,
}
