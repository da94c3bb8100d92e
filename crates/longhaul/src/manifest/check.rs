//! The commands that look at a manifest: what it comes to, and the schema of all.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use longhaul_engine::with_goal_tools;
use longhaul_model::scripted::ScriptedModel;
use longhaul_session::agent::{
    Configuration, ImageLimits, KeySource, Limits, ModelChoice, PromptCache, ToolPermission,
};
use longhaul_session::goal::Terms;
use longhaul_session::prices::Rates;
use longhaul_session::prompts::Prompt;
use longhaul_tools::scope::Scope;
use longhaul_tools::toolbox::Toolbox;
use serde_json::json;

use super::Kept;
use crate::cli::Options;
use crate::facts;
use crate::keys::{self, Mask};
use crate::providers::{self, Provider};
use crate::summary;

/// Prints what a manifest comes to: the one named, or the one that would be found from here.
pub(crate) fn check(options: &Options, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let path = match file {
        Some(file) => file,
        None => {
            let here = std::env::current_dir().context("the current directory cannot be used")?;
            super::find(&here).with_context(|| {
                format!(
                    "there is no {} in {}, above it, or among your own; name a file",
                    super::FILE,
                    here.display()
                )
            })?
        }
    };
    let all_tools = with_goal_tools(Toolbox::builtin());
    let mut out = anstream::stdout();
    let configuration = match super::load(&path, &all_tools) {
        Ok(configuration) => configuration,
        Err(error) if options.json => {
            writeln!(out, "{}", json!({ "manifest": path, "ok": false, "errors": error.reports() }))?;
            return Ok(ExitCode::from(1));
        }
        Err(error) => return Err(error.into()),
    };
    let tools = if configuration.without_goals { Toolbox::builtin() } else { all_tools };
    let found = Found::new(configuration, super::kept(&path)?, tools)?;
    let text = if options.json { format!("{}\n", found.json(&path)) } else { found.described(&path) };
    out.write_all(found.mask.text(&text).as_bytes())?;
    Ok(if found.problem.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Prints the JSON schema of manifests.
pub(crate) fn schema() -> anyhow::Result<ExitCode> {
    writeln!(anstream::stdout(), "{:#}", super::schema())?;
    Ok(ExitCode::SUCCESS)
}

/// What a manifest comes to, on this machine and now.
struct Found {
    configuration: Configuration,
    kept: Option<Kept>,
    /// What the agent may do with which tool, by name.
    tools: Vec<(String, ToolPermission)>,
    scope: String,
    /// Whether the key is there; `None` when none is named.
    key_is_there: Option<bool>,
    warnings: Vec<String>,
    /// What the manifest itself cannot show: the script cannot be played.
    problem: Option<String>,
    /// The key, should it stand anywhere else as well.
    mask: Mask,
}

impl Found {
    fn new(mut configuration: Configuration, kept: Option<Kept>, tools: Toolbox) -> anyhow::Result<Self> {
        configuration.model = providers::with_usual_key(configuration.model);
        let mut warnings = Vec::new();
        let source = configuration.model.key.as_ref();
        let key = source.map(keys::resolve);
        if let Some(Err(error)) = &key {
            warnings.push(format!("the key is not there: {error}"));
        }
        if let (Some(Ok(_)), Some(KeySource::File(path))) = (&key, source)
            && keys::is_open_to_others(Path::new(path))
        {
            warnings.push(format!("others may be able to read the key; run `chmod 600 {path}`"));
        }
        let scope = Scope::new(&configuration.scope, Path::new(&configuration.directory))?.summary();
        let names: Vec<String> = tools.specs().into_iter().map(|spec| spec.name).collect();
        let tools = tools.configured(&configuration.tools);
        let permitted = names.into_iter().filter_map(|name| tools.permission(&name).map(|may| (name, may)));
        Ok(Found {
            tools: permitted.collect(),
            scope,
            key_is_there: key.as_ref().map(Result::is_ok),
            warnings,
            problem: unplayable(&configuration.model),
            mask: Mask::new(key.and_then(Result::ok)),
            configuration,
            kept,
        })
    }

    fn json(&self, path: &Path) -> serde_json::Value {
        let tools: serde_json::Map<String, serde_json::Value> =
            self.tools.iter().map(|(name, permission)| (name.clone(), json!(permission))).collect();
        json!({
            "manifest": path,
            "ok": self.problem.is_none(),
            "configuration": self.configuration,
            "store": self.kept.as_ref().map(Kept::to_string),
            "tools": tools,
            "scope": self.scope,
            "unknown": facts::unknown(&self.configuration.model),
            "key_is_there": self.key_is_there,
            "warnings": self.warnings,
            "errors": self.problem.iter().map(|what| json!({ "what": what })).collect::<Vec<_>>(),
        })
    }

    fn described(&self, path: &Path) -> String {
        let Configuration { agent, directory, instructions, limits, prompts, goal, .. } = &self.configuration;
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            writeln!(text, "{name:<10} {value}").ok();
        };
        line("manifest", &path.display().to_string());
        line("agent", agent);
        line("model", &described_model(&self.configuration.model));
        line("window", &described_window(&self.configuration.model));
        if let Some(images) = &self.configuration.model.images {
            line("images", &described_images(images));
        }
        line("cost", &described_prices(&self.configuration.model));
        line("key", &self.described_key());
        line("directory", directory);
        let prompt = match instructions {
            Some(text) => format!("{} characters of its own", text.chars().count()),
            None => "the built-in one".to_owned(),
        };
        line("prompt", &prompt);
        let own: Vec<&str> = prompts.own().map(Prompt::name).collect();
        if !own.is_empty() {
            line("prompts", &format!("{} of its own", own.join(", ")));
        }
        line("scope", &self.scope);
        line("tools", &self.described_tools());
        line("limits", &described_limits(limits));
        line("compaction", &described_compaction(&self.configuration));
        if self.configuration.without_goals {
            line("goals", "switched off");
        } else if !goal.is_empty() {
            line("goals", &described_goal(goal));
        }
        if let Some(kept) = &self.kept {
            line("store", &kept.to_string());
        }
        for warning in &self.warnings {
            line("warning", warning);
        }
        if let Some(problem) = &self.problem {
            line("error", problem);
        }
        text
    }

    fn described_key(&self) -> String {
        let Some(source) = &self.configuration.model.key else { return "none".to_owned() };
        let is_there = if self.key_is_there == Some(true) { "which holds one" } else { "where none is" };
        format!("from {}, {is_there}", keys::described(source))
    }

    fn described_tools(&self) -> String {
        let tools = self.tools.iter().map(|(name, permission)| {
            let set = self.configuration.tools.iter().find(|setting| setting.name == *name);
            let output = set.and_then(|setting| setting.max_output_bytes);
            let limit = set.and_then(|setting| setting.time_limit_ms);
            let mut notes = Vec::new();
            match permission {
                ToolPermission::Allow => {}
                ToolPermission::Ask => notes.push("asks first".to_owned()),
                ToolPermission::Deny => notes.push("denied".to_owned()),
            }
            notes.extend(output.map(|bytes| format!("at most {bytes} bytes of output")));
            notes.extend(limit.map(|ms| format!("at most {}", time(ms))));
            if notes.is_empty() { name.clone() } else { format!("{name} ({})", notes.join(", ")) }
        });
        tools.collect::<Vec<_>>().join(", ")
    }
}

/// Says what goals are held to.
fn described_goal(goal: &Terms) -> String {
    let budget = &goal.budget;
    let counts = [(goal.checks.len(), "check"), (goal.protected.len(), "protected path")];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = [
        budget.tokens.map(|tokens| format!("{tokens} tokens")),
        budget.active_ms.map(time),
        budget.cost_micros.map(summary::dollars),
        budget.continuations.map(|turns| summary::count(turns, "turn")),
        budget.hard.then(|| "hard".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    parts.extend(counts.map(|(count, what)| summary::count(*count as u64, what)));
    parts.join(", ")
}

/// Says why a script cannot be played; `None` when it can, or there is none.
fn unplayable(model: &ModelChoice) -> Option<String> {
    let played = (model.provider == Provider::Scripted.name())
        .then(|| ScriptedModel::from_path(Path::new(&model.name)));
    played?.err().map(|error| error.to_string())
}

/// Says which model a choice is, and what it is asked with.
pub(crate) fn described_model(model: &ModelChoice) -> String {
    let provider = Provider::named(&model.provider);
    if provider == Some(Provider::Scripted) {
        return format!("scripted, {} (no language model is involved)", model.name);
    }
    let mut text = format!("{}, {}", model.provider, model.name);
    if let Some(url) = providers::address(model) {
        text.push_str(&format!(", at {url}"));
    }
    if let Some(tokens) = facts::max_output_tokens(model) {
        text.push_str(&format!(", answers of at most {tokens} tokens"));
    }
    if let Some(temperature) = model.temperature {
        text.push_str(&format!(", temperature {temperature}"));
    }
    if !model.stream {
        text.push_str(", not streamed");
    }
    if model.resumable {
        text.push_str(", picked up again after a crash");
    }
    if model.chain {
        text.push_str(", kept by the provider");
    }
    for (said, words) in [
        (model.replay_reasoning == Some(false), "reasoning not sent back"),
        (model.item_ids, "reasoning sent back under its ids"),
        (model.include_usage == Some(false), "usage not asked for"),
        (model.bearer, "the key as a bearer token"),
        (model.cache == Some(PromptCache::Off), "no cache markers"),
        (model.cache == Some(PromptCache::OneHour), "prompts cached for an hour"),
    ] {
        if said {
            text.push_str(&format!(", {words}"));
        }
    }
    if let Some(output) = &model.output {
        text.push_str(&format!(", answers in the form {}", output.name));
    }
    match model.provider_tools.len() {
        0 => {}
        1 => text.push_str(", 1 tool of the provider"),
        tools => text.push_str(&format!(", {tools} tools of the provider")),
    }
    for (kind, names) in [
        ("headers", model.headers.keys().collect::<Vec<_>>()),
        ("parameters", model.parameters.keys().collect::<Vec<_>>()),
    ] {
        if !names.is_empty() {
            let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
            text.push_str(&format!(", {kind} {}", names.join(", ")));
        }
    }
    text
}

fn described_window(model: &ModelChoice) -> String {
    match model.window_tokens {
        Some(tokens) if facts::is_unverified(model) => format!("{tokens} tokens (unverified)"),
        Some(tokens) => format!("{tokens} tokens"),
        None => format!("not known; {} tokens are assumed", facts::ASSUMED_WINDOW_TOKENS),
    }
}

fn described_images(images: &ImageLimits) -> String {
    let count = images.max_count.map(|count| format!("at most {count} in a request"));
    let size = images.max_bytes.map(|bytes| format!("each of at most {}", summary::bytes(bytes)));
    let said: Vec<String> = count.into_iter().chain(size).collect();
    if said.is_empty() { "not limited".to_owned() } else { said.join(", ") }
}

fn described_prices(model: &ModelChoice) -> String {
    let Some(prices) = &model.prices else {
        return match model.provider == Provider::Scripted.name() {
            true => "none".to_owned(),
            false => "not known; [model.prices] says what a million tokens cost".to_owned(),
        };
    };
    let Rates { input, cached_input, cache_write, output } = prices.rates;
    let kinds = [
        (Some(input), "input"),
        (cached_input, "cached input"),
        (cache_write, "cache write"),
        (Some(output), "output"),
    ];
    let kinds =
        kinds.iter().filter_map(|(rate, kind)| Some(format!("{} {kind}", summary::dollars((*rate)?))));
    let mut text = format!("{} for a million tokens", kinds.collect::<Vec<_>>().join(", "));
    let bounds = prices.tiers.iter().map(|tier| tier.above_prompt_tokens).min();
    if let Some(bound) = bounds {
        text.push_str(&format!("; other prices above {bound} tokens of prompt"));
    }
    text
}

fn described_compaction(configuration: &Configuration) -> String {
    let Limits { compact_above_tokens, retained_turns, retained_tokens, .. } = configuration.limits;
    let mut text = format!(
        "above {compact_above_tokens} tokens, keeps the last {retained_turns} turns or {retained_tokens} tokens"
    );
    if let Some(model) = &configuration.summariser {
        text.push_str(&format!(", summaries by {}", described_model(model)));
    }
    text
}

fn described_limits(limits: &Limits) -> String {
    format!(
        "{} steps a turn, {} crashes in a row, retries for {} ({} under a goal), a model call {}, its first \
         part {}, a pause in it {}",
        limits.max_steps,
        limits.max_crashes,
        time(limits.retry_for_ms),
        time(limits.retry_for_goal_ms),
        time(limits.model_call_ms),
        time(limits.model_first_part_ms),
        time(limits.model_idle_ms),
    )
}

/// Writes a time as a manifest would.
fn time(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, unit)| ms.is_multiple_of(*unit)) {
        Some(_) if ms == 0 => "0s".to_owned(),
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}
