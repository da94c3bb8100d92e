//! The texts of a manifest: the agent's instructions, and templates in the place of built-in prompts. Each is
//! checked here, so that a session never begins with one that cannot be used.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use longhaul_session::prompts::template::{Fault, check};
use longhaul_session::prompts::{Prompt, Prompts};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::bytes;
use super::error::quoted;
use super::form::{self, Agent};
use super::resolve::Resolver;

/// What to do about a template that cannot be used.
const HINT: &str = "correct it; docs/prompts.md says what it may name. Braces that are meant as they stand go \
                    between {% raw %} and {% endraw %}";

/// A template, as it is written.
#[derive(Debug)]
pub(super) enum Template {
    /// The text itself.
    Text(String),
    /// A file that holds it.
    File(String),
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyTemplate)
    }
}

struct AnyTemplate;

impl<'de> Visitor<'de> for AnyTemplate {
    type Value = Template;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in quotes, or { file = \"…\" }")
    }

    fn visit_str<E>(self, text: &str) -> Result<Template, E> {
        Ok(Template::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Template, A::Error> {
        let hint = "write { file = \"…\" }, or the text itself in quotes";
        let mut file = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "file" {
                return Err(A::Error::custom(format!("there is no key {} here\n{hint}", quoted(&key))));
            }
            file = Some(map.next_value::<String>()?);
        }
        file.map(Template::File).ok_or_else(|| A::Error::custom(format!("no file is named here\n{hint}")))
    }
}

impl JsonSchema for Template {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Template")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "file": { "type": "string" } },
                    "required": ["file"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

impl Resolver<'_> {
    /// Returns the templates that are not to be the built-in ones.
    pub(super) fn prompts(&mut self, written: form::Prompts) -> Prompts {
        let form::Prompts {
            system,
            continuation,
            budget_spent,
            objective_changed,
            goal_removed,
            goal_recalled,
            compaction,
            check_failed,
        } = written;
        let mut prompts = Prompts::default();
        for (prompt, template) in [
            (Prompt::System, system),
            (Prompt::Continuation, continuation),
            (Prompt::BudgetSpent, budget_spent),
            (Prompt::ObjectiveChanged, objective_changed),
            (Prompt::GoalRemoved, goal_removed),
            (Prompt::GoalRecalled, goal_recalled),
            (Prompt::Compaction, compaction),
            (Prompt::CheckFailed, check_failed),
        ] {
            let at = ["prompts", prompt.name()];
            let (text, file) = match template {
                None => continue,
                Some(Template::Text(text)) => (text, None),
                Some(Template::File(file)) => match self.text_file(&at, &file) {
                    Some((text, path)) => (text, Some(path)),
                    None => continue,
                },
            };
            if let Err(fault) = prompts.set(prompt, text) {
                self.unusable(&at, file, &fault);
            }
        }
        prompts
    }

    /// Returns what the agent's author tells it.
    pub(super) fn instructions(&mut self, agent: &Agent) -> Option<String> {
        let (at, text, file) = match (&agent.prompt, &agent.prompt_file) {
            (Some(_), Some(_)) => {
                let what = "there are two prompts: `prompt` and `prompt_file`";
                self.wrong_key(&["agent", "prompt_file"], what, "remove one of them");
                return None;
            }
            (Some(text), None) => (["agent", "prompt"], text.clone(), None),
            (None, Some(file)) => {
                let at = ["agent", "prompt_file"];
                let (text, path) = self.text_file(&at, file)?;
                (at, text, Some(path))
            }
            (None, None) => return None,
        };
        if text.trim().is_empty() {
            let hint = "write what the agent is to know, or remove the key: there is a prompt for all";
            self.wrong(&at, "the prompt is empty", hint);
        } else if let Err(fault) = check(Prompt::Instructions, &text) {
            self.unusable(&at, file, &fault);
        }
        Some(text)
    }

    fn unusable(&mut self, at: &[&str], file: Option<PathBuf>, fault: &Fault) {
        let Fault { line, column, what, .. } = fault;
        let what = match file {
            Some(file) => format!("{}:{line}:{column}: this template cannot be used: {what}", file.display()),
            None => format!("this template cannot be used: line {line}, column {column} of it: {what}"),
        };
        self.wrong(at, what, HINT);
    }

    /// Reads a file of text, and returns where it is.
    fn text_file(&mut self, at: &[&str], file: &str) -> Option<(String, PathBuf)> {
        let path = self.existing(at, file)?;
        let read = bytes(&path).and_then(|bytes| {
            let not_text = |_| ("it is not UTF-8".to_owned(), "save it as UTF-8");
            String::from_utf8(bytes).map_err(not_text)
        });
        match read {
            Ok(text) => Some((text, path)),
            Err((what, hint)) => {
                self.wrong(at, format!("{} cannot be the prompt: {what}", path.display()), hint);
                None
            }
        }
    }
}
