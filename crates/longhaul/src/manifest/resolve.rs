//! What a manifest comes to: paths resolved, defaults filled in, and what no type can say checked.

use std::io;
use std::path::{Path, PathBuf};

use longhaul_session::agent::{
    Configuration, ImageLimits, KeySource, Limits, ModelChoice, Permission, PromptCache, ScopeEffect,
    ScopeRule, ToolPermission, ToolSetting,
};
use longhaul_session::goal::{
    Budget, MAX_CHECK_BYTES, MAX_CHECKS, MAX_PROTECTED, MAX_PROTECTED_BYTES, Terms,
};
use longhaul_session::prices::{Prices, Rates};
use longhaul_tools::guarded::Guarded;
use longhaul_tools::scope::Scope;
use longhaul_tools::toolbox::Toolbox;
use serde_json::Value;

use super::error::{Fault, one_of, quoted, suggestion};
use super::form::{Agent, Compaction, Consent, Key, Level, Manifest, Model, Rule};
use super::source::{Source, is_variable};
use super::value::Threshold;
use super::{form, users_folder};
use crate::environment;
use crate::facts::{self, ASSUMED_WINDOW_TOKENS, THRESHOLD_PERCENT};
use crate::providers::{self, Provider};

/// The longest name of an agent, in characters.
const MAX_NAME: usize = 100;
/// Headers that hold a key. Headers are kept in the log, and a key never is.
const KEY_HEADERS: [&str; 6] =
    ["authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"];

/// Resolves what was read. Adds the faults it finds; where there is any, the result is not to be used.
pub(super) fn resolve(
    manifest: Manifest,
    source: &Source<'_>,
    folder: PathBuf,
    tools: &Toolbox,
    faults: &mut Vec<Fault>,
) -> Option<Configuration> {
    let mut resolver = Resolver::new(source, folder, faults);
    let Manifest { model, agent, scope, tools: settings, limits, compaction, prompts, goal, store } =
        manifest;
    resolver.know_tools(tools);
    store.map(|store| resolver.store(store));
    let compact_above_tokens = resolver.compact_above(model.as_ref(), &compaction);
    let usual = bounds(&limits);
    let limits = Limits {
        compact_above_tokens,
        check_ms: goal.check_time.map_or(usual.check_ms, |limit| limit.0),
        retained_turns: compaction.retained_turns.map_or(usual.retained_turns, |count| count.0),
        retained_tokens: compaction.retained_tokens.map_or(usual.retained_tokens, |tokens| tokens.0),
        ..usual
    };
    let model = resolver.model(model);
    let summariser = resolver.summariser(compaction.model);
    let directory = resolver.directory(&agent);
    let instructions = resolver.instructions(&agent);
    let name = resolver.name(agent.name);
    let scope = resolver.scope(scope, directory.as_deref());
    let tools = settings.into_iter().map(|(name, tool)| setting(name, &tool)).collect();
    let prompts = resolver.prompts(prompts);
    let without_goals = !goal.enabled.unwrap_or(true);
    let goal = resolver.goal(goal, directory.as_deref());
    let directory = resolver.text(&["agent", "directory"], &directory?)?;
    Some(Configuration {
        agent: name,
        model: model?,
        directory,
        instructions,
        scope,
        tools,
        limits,
        summariser,
        prompts,
        goal,
        without_goals,
    })
}

pub(super) struct Resolver<'a> {
    pub(super) source: &'a Source<'a>,
    /// The manifest's folder, canonical: relative paths begin here.
    folder: PathBuf,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(source: &'a Source<'a>, folder: PathBuf, faults: &'a mut Vec<Fault>) -> Self {
        Resolver { source, folder, faults }
    }

    pub(super) fn wrong(&mut self, at: &[&str], what: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Fault { span: self.source.value(at), what: what.into(), hint: hint.into() });
    }

    pub(super) fn wrong_key(&mut self, at: &[&str], what: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Fault { span: self.source.key(at), what: what.into(), hint: hint.into() });
    }

    /// Notes that something is not there, unless that was said already: it is there and could not be
    /// read, or it is there and misspelled.
    pub(super) fn missing(&mut self, at: &[&str], what: &str, hint: &str) {
        let Some((name, parents)) = at.split_last() else { return };
        let table = self.source.table(parents);
        let said = |key: &str| key == *name || suggestion(key, &[name]).is_some();
        if !table.is_some_and(|table| table.keys().any(|key| said(key.get_ref()))) {
            let span = self.source.value(parents);
            self.faults.push(Fault { span, what: what.to_owned(), hint: hint.to_owned() });
        }
    }

    /// Makes a path absolute: `~/` is the user's home, the rest is relative to the manifest.
    pub(super) fn path(&mut self, at: &[&str], written: &str) -> Option<PathBuf> {
        if written.is_empty() {
            self.wrong(at, "this path is empty", "name a path, or remove the key");
            return None;
        }
        let Some(below_home) = below_home(written) else { return Some(self.folder.join(written)) };
        match environment::home_directory() {
            Some(home) => Some(home.join(below_home)),
            None => {
                self.wrong(at, "`~` stands for nothing: HOME is not set", "write the whole path");
                None
            }
        }
    }

    /// Makes a path canonical, which says that it exists.
    pub(super) fn existing(&mut self, at: &[&str], written: &str) -> Option<PathBuf> {
        let path = self.path(at, written)?;
        match path.canonicalize() {
            Ok(path) => Some(path),
            Err(error) => {
                self.wrong(at, not_usable(&path, &error), "correct the path, or make what it names");
                None
            }
        }
    }

    fn text(&mut self, at: &[&str], path: &Path) -> Option<String> {
        let text = path.to_str().map(str::to_owned);
        if text.is_none() {
            let what = format!("{} is not valid UTF-8, which a session cannot keep", path.display());
            self.wrong(at, what, "rename it");
        }
        text
    }

    fn model(&mut self, model: Option<Model>) -> Option<ModelChoice> {
        let Some(model) = model else {
            let what = "there is no [model], the one thing a manifest needs";
            self.missing(&["model"], what, "add [model] with provider = \"openai-chat\" and name = \"…\"");
            return None;
        };
        self.outputs_fit(&model);
        match model.provider {
            Some(Provider::Scripted) => self.scripted(&model),
            Some(provider) => self.served(model, Some(provider)),
            None => {
                let hint = "add provider = \"openai-chat\", or \"scripted\" to play a script";
                self.missing(&["model", "provider"], "`provider` is missing in [model]", hint);
                // What is wrong besides is told as well.
                self.served(model, None)
            }
        }
    }

    /// Resolves the model that summarises: a model like any other, in another table.
    fn summariser(&mut self, model: Option<Model>) -> Option<Box<ModelChoice>> {
        let source = self.source.below("compaction")?;
        let mut resolver =
            Resolver { source: &source, folder: self.folder.clone(), faults: &mut *self.faults };
        resolver.model(Some(model?)).map(providers::with_usual_key).map(Box::new)
    }

    fn scripted(&mut self, model: &Model) -> Option<ModelChoice> {
        let served = [
            "name",
            "base_url",
            "key",
            "max_output_tokens",
            "prices",
            "images",
            "ca_file",
            "temperature",
            "stream",
            "headers",
            "parameters",
            "provider_tools",
            "output",
            "chain",
            "resumable",
            "replay_reasoning",
            "item_ids",
            "include_usage",
            "bearer",
            "cache",
        ];
        for key in served.into_iter().filter(|key| self.source.node(&["model", key]).is_some()) {
            let hint = match key {
                "name" => "name the script instead: script = \"script.toml\"",
                _ => "remove it, or choose another provider",
            };
            self.wrong_key(&["model", key], format!("a scripted model takes no `{key}`"), hint);
        }
        let Some(script) = &model.script else {
            let hint = "add script = \"script.toml\", a path relative to this file";
            self.missing(&["model", "script"], "a scripted model needs a `script`", hint);
            return None;
        };
        let at = ["model", "script"];
        let script = self.existing(&at, script)?;
        if !script.is_file() {
            self.wrong(&at, format!("{} is not a file", script.display()), "name the script itself");
            return None;
        }
        Some(ModelChoice::new(Provider::Scripted.name(), self.text(&at, &script)?))
    }

    fn served(&mut self, model: Model, provider: Option<Provider>) -> Option<ModelChoice> {
        if model.script.is_some() && provider.is_some() {
            let what = "only a scripted model has a `script`";
            self.wrong_key(&["model", "script"], what, "remove it, or write provider = \"scripted\"");
        }
        if let Some(provider) = provider {
            self.is_offered(provider, &model);
        }
        let name = model.name.filter(|name| !name.trim().is_empty());
        if name.is_none() && provider.is_some() {
            let hint = "add name = \"…\", as the provider calls the model";
            if self.source.node(&["model", "name"]).is_some_and(|node| node.get_ref().is_str()) {
                self.wrong(&["model", "name"], "the model's name is empty", hint);
            } else {
                self.missing(&["model", "name"], "`name` is missing in [model]", hint);
            }
        }
        self.url(model.base_url.as_deref());
        self.headers(model.headers.keys());
        let output = model.output.and_then(|output| self.output(output));
        let key = model.key.and_then(|key| self.key(key));
        let ca_file = model.ca_file.as_deref().and_then(|file| self.certificates(file));
        let mut choice = ModelChoice {
            base_url: model.base_url,
            key,
            max_output_tokens: model.max_output_tokens.map(|tokens| tokens.0),
            temperature: model.temperature.map(|temperature| temperature.0),
            stream: model.stream.unwrap_or(true),
            headers: model.headers,
            parameters: model.parameters,
            provider_tools: model.provider_tools.into_iter().map(Value::Object).collect(),
            output,
            chain: model.chain.unwrap_or_default(),
            resumable: model.resumable.unwrap_or_default(),
            window_tokens: model.window_tokens.map(|tokens| tokens.0),
            prices: model.prices.as_ref().map(prices),
            images: model.images.map(|images| ImageLimits {
                max_count: images.max_count.map(|count| count.0),
                max_bytes: images.max_size.map(|size| size.0),
            }),
            ca_file,
            replay_reasoning: model.replay_reasoning,
            item_ids: model.item_ids.unwrap_or_default(),
            include_usage: model.include_usage,
            bearer: model.bearer.unwrap_or_default(),
            cache: model.cache.map(|cache| match cache {
                form::Cache::Off => PromptCache::Off,
                form::Cache::FiveMinutes => PromptCache::FiveMinutes,
                form::Cache::OneHour => PromptCache::OneHour,
            }),
            ..ModelChoice::new(provider?.name(), name?)
        };
        facts::complete(&mut choice);
        Some(choice)
    }

    fn certificates(&mut self, file: &str) -> Option<String> {
        let at = ["model", "ca_file"];
        let path = self.existing(&at, file)?;
        self.text(&at, &path)
    }

    fn outputs_fit(&mut self, model: &Model) {
        if let (Some(window), Some(output)) = (model.window_tokens, model.max_output_tokens)
            && output >= window
        {
            let what = format!("an answer of {} tokens leaves no room in a window of {}", output.0, window.0);
            self.wrong(
                &["model", "max_output_tokens"],
                what,
                "lower it; the window holds the request as well",
            );
        }
    }

    fn url(&mut self, url: Option<&str>) {
        let Some(url) = url else { return };
        let at = ["model", "base_url"];
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        match authority {
            Some(authority) if authority.contains('@') => {
                let hint = "remove what stands before the @, and say where the key is: key = { env = \"…\" }";
                self.wrong(&at, "this address holds a name or a password", hint);
            }
            Some(authority) if !authority.is_empty() && !url.contains(char::is_whitespace) => {}
            Some(_) | None => {
                let hint = "write it whole, such as \"http://localhost:8080/v1\"";
                self.wrong(&at, "this is no address of a server", hint);
            }
        }
    }

    fn headers<'h>(&mut self, names: impl Iterator<Item = &'h String>) {
        for name in names {
            let at = ["model", "headers", name];
            if KEY_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                let hint =
                    "remove it, and say where the key is: key = { env = \"…\" }; headers are kept in the log";
                self.wrong_key(&at, format!("the header {} would hold a key", quoted(name)), hint);
            } else if name.is_empty() || !name.bytes().all(is_token) {
                let hint = "use letters, digits and hyphens";
                self.wrong_key(&at, format!("{} cannot be the name of a header", quoted(name)), hint);
            }
        }
    }

    fn key(&mut self, key: Key) -> Option<KeySource> {
        let at = ["model", "key"];
        match (key.env, key.file) {
            (Some(name), None) if is_variable(&name) => Some(KeySource::Env(name)),
            (Some(_), None) => {
                let hint = "write the variable's name, such as \"OPENAI_API_KEY\"; a key itself does not belong here";
                self.wrong(&["model", "key", "env"], "this is no name of a variable", hint);
                None
            }
            (None, Some(file)) => {
                let at = ["model", "key", "file"];
                let path = self.path(&at, &file)?;
                Some(KeySource::File(self.text(&at, &path)?))
            }
            (Some(_), Some(_)) => {
                self.wrong(&at, "the key has two places", "remove `env` or `file`");
                None
            }
            (None, None) => {
                // What stands there and could not be read was told of.
                if self.source.table(&at).is_some_and(|table| table.is_empty()) {
                    self.wrong(&at, "the key has no place", "write key = { env = \"OPENAI_API_KEY\" }");
                }
                None
            }
        }
    }

    fn name(&mut self, name: Option<String>) -> String {
        let Some(name) = name else { return "default".to_owned() };
        let fits = !name.trim().is_empty() && !name.contains(char::is_control);
        if !fits || name.chars().count() > MAX_NAME {
            let hint = format!("write one line of at most {MAX_NAME} characters, or remove it");
            self.wrong(&["agent", "name"], "this cannot be the agent's name", hint);
        }
        name
    }

    /// Returns the working directory: the manifest's folder unless set. The user's own manifest is for
    /// all directories: there, it is the current one.
    fn directory(&mut self, agent: &Agent) -> Option<PathBuf> {
        let at = ["agent", "directory"];
        let users = users_folder().and_then(|folder| folder.canonicalize().ok());
        let found = match &agent.directory {
            Some(written) => self.existing(&at, written)?,
            None if users.as_ref() == Some(&self.folder) => match std::env::current_dir() {
                Ok(current) => current,
                Err(error) => {
                    let what = format!("the current directory cannot be used: {error}");
                    self.wrong(&at, what, "change to another directory");
                    return None;
                }
            },
            None => self.folder.clone(),
        };
        if !found.is_dir() {
            self.wrong(&at, format!("{} is not a directory", found.display()), "name a directory");
            return None;
        }
        Some(found)
    }

    fn scope(&mut self, scope: form::Scope, directory: Option<&Path>) -> Vec<ScopeRule> {
        let sound = self.faults.is_empty();
        let mut rules = Vec::new();
        for (list, effect, written) in
            [("allow", ScopeEffect::Allow, scope.allow), ("deny", ScopeEffect::Deny, scope.deny)]
        {
            // With one left out, the others' places are not known.
            let elements = self.source.node(&["scope", list]).and_then(|node| node.get_ref().as_array());
            if elements.map_or(0, |elements| elements.len()) != written.len() {
                continue;
            }
            for (index, rule) in written.into_iter().enumerate() {
                let number = index.to_string();
                let at = ["scope", list, &number, "target"];
                rules.extend(self.rule(&at, effect, rule, directory.filter(|_| sound)));
            }
        }
        // A rule that is missing for a fault would make others seem wrong.
        if let Some(directory) = directory.filter(|_| self.faults.is_empty()) {
            self.directory_is_in_scope(&rules, directory);
        }
        rules
    }

    fn rule(
        &mut self,
        at: &[&str],
        effect: ScopeEffect,
        rule: Rule,
        directory: Option<&Path>,
    ) -> Option<ScopeRule> {
        let target = match below_home(&rule.target) {
            Some(_) => {
                let path = self.path(at, &rule.target)?;
                self.text(at, &path)?
            }
            None if rule.target.is_empty() => {
                self.wrong(at, "this path is empty", "write \".\" for the working directory itself");
                return None;
            }
            None => rule.target,
        };
        let rule = ScopeRule {
            effect,
            target,
            permission: match rule.permission {
                Level::Read => Permission::Read,
                Level::Write => Permission::Write,
            },
            recursive: rule.recursive.unwrap_or(true),
        };
        if let Some(directory) = directory
            && let Err(error) = Scope::new(std::slice::from_ref(&rule), directory)
        {
            self.wrong(at, error.to_string(), "");
        }
        Some(rule)
    }

    fn directory_is_in_scope(&mut self, rules: &[ScopeRule], directory: &Path) {
        let checked =
            Scope::new(rules, directory).and_then(|scope| scope.require(directory, Permission::Read));
        if checked.is_err() {
            let what = format!("the working directory {} is outside of the scope", directory.display());
            let hint = "add [[scope.allow]] with target = \".\" and permission = \"read\" or \"write\", or \
                        name another directory";
            let named = self.source.node(&["agent", "directory"]).is_some();
            self.wrong(if named { &["agent", "directory"] } else { &["scope"] }, what, hint);
        }
    }

    fn compact_above(&mut self, model: Option<&Model>, compaction: &Compaction) -> u64 {
        // A summary is made of the whole context: the smaller window of the two counts.
        let models = || [model, compaction.model.as_ref()].into_iter().flatten();
        let stated = models().filter_map(|model| model.window_tokens).map(|tokens| tokens.0).min();
        let window = models().map(window_of).min().unwrap_or(ASSUMED_WINDOW_TOKENS);
        let percent = match compaction.threshold {
            Some(Threshold::Tokens(tokens)) => {
                if stated.is_some_and(|window| tokens >= window) {
                    let what = format!("a window of {window} tokens is full before {tokens} are in it");
                    self.wrong(
                        &["compaction", "threshold"],
                        what,
                        "lower it, or write a part such as \"80%\"",
                    );
                }
                return tokens;
            }
            Some(Threshold::Percent(percent)) => percent,
            None => THRESHOLD_PERCENT,
        };
        // A window has at most a thousand million tokens.
        (window * percent / 100).max(1)
    }

    /// Resolves what goals are held to. Whether the files are there is asked when a goal is set.
    fn goal(&mut self, goal: form::Goal, directory: Option<&Path>) -> Terms {
        let form::Goal {
            enabled: _,
            tokens,
            time,
            cost,
            continuations,
            hard,
            checks,
            check_time: _,
            protected,
        } = goal;
        let fits = |text: &String, most: usize| !text.trim().is_empty() && text.len() <= most;
        if checks.len() > MAX_CHECKS || !checks.iter().all(|check| fits(check, MAX_CHECK_BYTES)) {
            let what = format!(
                "there are at most {MAX_CHECKS} checks, of 1 to {MAX_CHECK_BYTES} bytes each, none of them blank"
            );
            self.wrong(&["goal", "checks"], what, "put more into a script, and name that");
        }
        if protected.len() > MAX_PROTECTED || !protected.iter().all(|path| fits(path, MAX_PROTECTED_BYTES)) {
            let what = format!(
                "there are at most {MAX_PROTECTED} protected paths, of 1 to {MAX_PROTECTED_BYTES} bytes each, \
                 none of them blank"
            );
            self.wrong(
                &["goal", "protected"],
                what,
                "name a directory, or a pattern such as \"tests/**/*.py\"",
            );
        } else if let Err(error) = Guarded::new(&protected, directory.unwrap_or(Path::new("/"))) {
            self.wrong(&["goal", "protected"], error.to_string(), "correct it");
        }
        let budget = Budget {
            tokens: tokens.map(|tokens| tokens.0),
            active_ms: time.map(|time| time.0),
            cost_micros: cost.map(|cost| cost.0),
            continuations: continuations.map(|count| count.0.into()),
            hard: hard.unwrap_or_default(),
        };
        Terms { budget, checks, protected }
    }

    fn know_tools(&mut self, tools: &Toolbox) {
        let mut known: Vec<String> = tools.specs().into_iter().map(|spec| spec.name).collect();
        known.sort();
        for (key, _) in self.source.table(&["tools"]).into_iter().flatten() {
            let name = key.get_ref();
            if tools.get(name).is_none() {
                let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                let hint = suggestion(name, &known)
                    .unwrap_or_else(|| format!("remove it; there is {}", one_of(&names)));
                let fault =
                    Fault { span: key.span(), what: format!("there is no tool {}", quoted(name)), hint };
                self.faults.push(fault);
            }
        }
    }
}

fn below_home(written: &str) -> Option<&str> {
    if written == "~" { Some("") } else { written.strip_prefix("~/") }
}

fn not_usable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be used: {error}", path.display())
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn window_of(model: &Model) -> u64 {
    let stated = model.window_tokens.map(|tokens| tokens.0);
    let known = || facts::window_tokens(model.name.as_deref()?);
    stated.or_else(known).unwrap_or(ASSUMED_WINDOW_TOKENS)
}

fn setting(name: String, tool: &form::Tool) -> ToolSetting {
    ToolSetting {
        name,
        permission: match tool.permission {
            None | Some(Consent::Allow) => ToolPermission::Allow,
            Some(Consent::Ask) => ToolPermission::Ask,
            Some(Consent::Deny) => ToolPermission::Deny,
        },
        max_output_bytes: tool.max_output.map(|size| size.0),
        time_limit_ms: tool.time_limit.map(|limit| limit.0),
    }
}

fn prices(set: &form::Prices) -> Prices {
    let rates = Rates {
        input: set.input.0,
        cached_input: set.cached_input.map(|price| price.0),
        cache_write: set.cache_write.map(|price| price.0),
        output: set.output.0,
    };
    Prices { rates, tiers: Vec::new() }
}

fn bounds(set: &form::Limits) -> Limits {
    let usual = Limits::default();
    Limits {
        max_steps: set.max_steps.map_or(usual.max_steps, |count| count.0),
        max_crashes: set.max_crashes.map_or(usual.max_crashes, |count| count.0),
        retry_for_ms: set.retry_for.map_or(usual.retry_for_ms, |period| period.0),
        retry_for_goal_ms: set.retry_for_goal.map_or(usual.retry_for_goal_ms, |period| period.0),
        model_call_ms: set.model_call.map_or(usual.model_call_ms, |limit| limit.0),
        model_first_part_ms: set.model_first_part.map_or(usual.model_first_part_ms, |limit| limit.0),
        model_idle_ms: set.model_idle.map_or(usual.model_idle_ms, |limit| limit.0),
        ..usual
    }
}
