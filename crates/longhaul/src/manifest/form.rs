//! The manifest as it is written. The JSON schema is made from these types, and their comments are
//! what an editor shows. What the keys come to is in `resolve`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::prompts::Template;
use super::value::{
    Count, FileSize, Money, Period, Price, Size, Temperature, Threshold, TimeLimit, TokenBudget, Tokens,
    WorkTime,
};
use crate::providers::Provider;

/// What an agent runs with. Only `[model]` is needed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Longhaul manifest", extend("required" = ["model"]))]
pub(super) struct Manifest {
    /// Which model answers.
    pub(super) model: Option<Model>,
    /// Who the agent is and where it works.
    pub(super) agent: Agent,
    /// Which paths may be read and written. Without rules: the directory and everything below it.
    pub(super) scope: Scope,
    /// Settings of tools, by the tool's name.
    pub(super) tools: BTreeMap<String, Tool>,
    /// Bounds on what a session may do before it stops.
    pub(super) limits: Limits,
    /// When the context is compacted.
    pub(super) compaction: Compaction,
    /// What Longhaul itself says to the model, in other words: templates.
    pub(super) prompts: Prompts,
    /// What goals are held to, besides what is said when they are set.
    pub(super) goal: Goal,
    /// Where sessions are kept, unless the command line or the environment says so.
    pub(super) store: Option<Store>,
}

/// A model, and what it is asked with.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["provider"],
    "if" = { "properties": { "provider": { "const": "scripted" } } },
    "then" = { "required": ["script"] },
    "else" = { "required": ["name"] },
))]
pub(super) struct Model {
    /// Who serves the model: `openai-chat` is anyone who speaks Chat Completions, `scripted` plays a
    /// script.
    pub(super) provider: Option<Provider>,
    /// The model's name, as the provider knows it. Needed for every provider but `scripted`.
    pub(super) name: Option<String>,
    /// For `scripted`: the script, relative to the manifest.
    pub(super) script: Option<String>,
    /// Where the API begins, if not at the provider's usual place.
    #[schemars(extend("examples" = ["http://localhost:8080/v1"]))]
    pub(super) base_url: Option<String>,
    /// Where the key is found. A key itself never stands in a manifest.
    pub(super) key: Option<Key>,
    /// How many tokens the model can take in all. Without it, what is known of the model counts; of one
    /// nobody knows, 128000 are assumed.
    pub(super) window_tokens: Option<Tokens>,
    /// The most tokens one answer may have.
    pub(super) max_output_tokens: Option<Tokens>,
    /// What the model's tokens cost, in place of what is known of the model.
    pub(super) prices: Option<Prices>,
    /// How many images the model takes, and how large; what is known of the model unless set.
    pub(super) images: Option<Images>,
    /// A file with certificates (PEM) to trust besides the system's, relative to the manifest, or `~/…`.
    pub(super) ca_file: Option<String>,
    /// How much chance there is in the answers.
    pub(super) temperature: Option<Temperature>,
    /// Whether answers are streamed; true unless set.
    pub(super) stream: Option<bool>,
    /// Headers sent with each request. They are kept in the log: no keys here.
    pub(super) headers: BTreeMap<String, String>,
    /// Parameters passed on to the provider as they are.
    pub(super) parameters: serde_json::Map<String, serde_json::Value>,
    /// Tools that the provider runs itself, in the provider's own form, passed on as they are.
    pub(super) provider_tools: Vec<serde_json::Map<String, serde_json::Value>>,
    /// The form every answer must have.
    pub(super) output: Option<Output>,
    /// Whether the provider keeps the conversation and is sent only what is new. Only `openai-responses`.
    pub(super) chain: Option<bool>,
    /// Whether the provider makes answers in the background, so that one a worker's death cut off is picked
    /// up again. Only `openai-responses`.
    pub(super) resumable: Option<bool>,
    /// Whether reasoning is sent back with the answer it belongs to; true unless set. Not for `gemini`.
    pub(super) replay_reasoning: Option<bool>,
    /// Whether reasoning is sent back under the id it came with, which a few servers demand. Only
    /// `openai-responses`.
    pub(super) item_ids: Option<bool>,
    /// Whether the usage is asked for at the end of a stream; true unless set. Only for Chat Completions.
    pub(super) include_usage: Option<bool>,
    /// Whether the key is sent as a bearer token, as gateways want it. Only `anthropic`.
    pub(super) bearer: Option<bool>,
    /// How long the provider keeps what it has read, so that the next request costs less; `5m` unless set. Only
    /// `anthropic`.
    pub(super) cache: Option<Cache>,
}

/// How long a provider keeps what it has read.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum Cache {
    #[serde(rename = "off")]
    Off,
    #[serde(rename = "5m")]
    FiveMinutes,
    #[serde(rename = "1h")]
    OneHour,
}

/// What a model's tokens cost: US dollars for a million tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Prices {
    /// Of the prompt.
    pub(super) input: Price,
    /// Of the prompt, where it is read from a cache; as `input` unless set.
    pub(super) cached_input: Option<Price>,
    /// Of the prompt, where it is written to a cache; as `input` unless set.
    pub(super) cache_write: Option<Price>,
    /// Of the answer, reasoning included.
    pub(super) output: Price,
}

/// How many images a model takes, and how large.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Images {
    /// The most images of one request.
    pub(super) max_count: Option<Count>,
    /// The most bytes of one image.
    pub(super) max_size: Option<FileSize>,
}

/// The form of an answer. Exactly one of `schema` and `schema_file`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Output {
    /// What the provider is told it is called: letters, digits, `_` and `-`; `answer` unless set.
    pub(super) name: Option<String>,
    /// Its JSON schema.
    pub(super) schema: Option<serde_json::Map<String, serde_json::Value>>,
    /// The same in a file of JSON, relative to the manifest.
    pub(super) schema_file: Option<String>,
}

/// Where a key is found: exactly one of the two.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct Key {
    /// In this variable of the environment.
    pub(super) env: Option<String>,
    /// In this file, relative to the manifest, or `~/…`.
    pub(super) file: Option<String>,
}

/// Where sessions are kept: exactly one of the three.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct Store {
    /// In this file, relative to the manifest, or `~/…`.
    pub(super) path: Option<String>,
    /// In the Postgres database at this address, which holds no password.
    #[schemars(extend("examples" = ["postgres://longhaul@db.example.com/longhaul"]))]
    pub(super) url: Option<String>,
    /// In the database that this variable of the environment names.
    pub(super) env: Option<String>,
}

/// Who the agent is and where it works.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Agent {
    /// The agent's name; `default` unless set.
    pub(super) name: Option<String>,
    /// What the agent is told before anything else: a template.
    pub(super) prompt: Option<String>,
    /// The same in a file, relative to the manifest. Only one of the two.
    pub(super) prompt_file: Option<String>,
    /// The working directory, relative to the manifest; the manifest's own unless set.
    pub(super) directory: Option<String>,
}

/// Which paths may be read and written: what is allowed, capped by what is denied.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Scope {
    /// Each grants a path up to a level.
    pub(super) allow: Vec<Rule>,
    /// Each caps a path strictly below a level, whatever is allowed.
    pub(super) deny: Vec<Rule>,
}

/// One rule of the scope.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// A path, relative to the working directory, or `~/…`.
    pub(super) target: String,
    /// The level granted, or the level no longer reached. Who may write may read.
    pub(super) permission: Level,
    /// Whether everything below the target is meant too; true unless set.
    pub(super) recursive: Option<bool>,
}

/// What may be done with a path.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Level {
    Read,
    Write,
}

/// Settings of one tool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tool {
    /// Whether its calls run at once, after a person's yes, or never; `allow` unless set.
    pub(super) permission: Option<Consent>,
    /// The longest output the model is shown.
    pub(super) max_output: Option<Size>,
    /// How long one call may take.
    pub(super) time_limit: Option<TimeLimit>,
}

/// Whether a tool's calls run at once, after a person's yes, or never.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Consent {
    Allow,
    Ask,
    Deny,
}

/// Bounds on what a session may do before it stops.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// Model calls in one turn.
    pub(super) max_steps: Option<Count>,
    /// Worker deaths in a row without progress.
    pub(super) max_crashes: Option<Count>,
    /// How long a failing model call is retried.
    pub(super) retry_for: Option<Period>,
    /// The same while a goal is active.
    pub(super) retry_for_goal: Option<Period>,
    /// How long one model call may take.
    pub(super) model_call: Option<TimeLimit>,
    /// How long a provider may take to begin its answer.
    pub(super) model_first_part: Option<TimeLimit>,
    /// How long a provider may pause within its answer.
    pub(super) model_idle: Option<TimeLimit>,
}

/// When the context is compacted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Compaction {
    /// How large a request may be before the context is compacted: a part of the model's window, or
    /// tokens; 80 % unless set.
    pub(super) threshold: Option<Threshold>,
    /// The newest turns that are kept whole, as far as they take up half of that at most; 2 unless set.
    pub(super) retained_turns: Option<Count>,
    /// How many tokens of the newest steps are kept, a quarter of that at most; 8192 unless set.
    pub(super) retained_tokens: Option<Tokens>,
    /// Which model summarises what leaves the context; the one that answers unless set.
    pub(super) model: Option<Model>,
}

/// Templates in the place of the built-in ones. Each is a text, or a file, relative to the manifest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Prompts {
    /// The whole system prompt.
    pub(super) system: Option<Template>,
    /// The goal goes on in a new turn.
    pub(super) continuation: Option<Template>,
    /// A budget of the goal is used up.
    pub(super) budget_spent: Option<Template>,
    /// The objective was set or changed in the middle of a turn.
    pub(super) objective_changed: Option<Template>,
    /// The goal was removed in the middle of a turn.
    pub(super) goal_removed: Option<Template>,
    /// The goal is told again, since the context in which it was told may be gone.
    pub(super) goal_recalled: Option<Template>,
    /// The history is to be summarised.
    pub(super) compaction: Option<Template>,
    /// A check of the goal did not pass.
    pub(super) check_failed: Option<Template>,
}

/// What goals are held to, besides what is said when they are set.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Goal {
    /// Whether sessions can have goals; they can unless it is false, and then the model is told nothing of goals.
    pub(super) enabled: Option<bool>,
    /// The most tokens, uncached input and output.
    pub(super) tokens: Option<TokenBudget>,
    /// The longest it may be worked on.
    pub(super) time: Option<WorkTime>,
    /// The most it may cost, in US dollars.
    pub(super) cost: Option<Money>,
    /// How many turns it may take; 100 unless set.
    pub(super) continuations: Option<Count>,
    /// Whether nothing is begun that could cross a limit.
    pub(super) hard: Option<bool>,
    /// Commands that must pass before a goal is complete.
    pub(super) checks: Vec<String>,
    /// How long one of them may take; 10 minutes unless set.
    pub(super) check_time: Option<TimeLimit>,
    /// Paths and patterns of files that must stay as they are for a check to count, relative to the working
    /// directory.
    pub(super) protected: Vec<String>,
}
