//! The tools of an agent by name, and the running of one call so that it always ends in a result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jsonschema::Validator;
use longhaul_session::agent::{ToolPermission, ToolSetting, ToolSpec};
use longhaul_session::item::Outcome;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::guard::{self, Ended};
use crate::output::Mask;
use crate::tool::{CallContext, Tool, ToolOutput};
use crate::{builtin, limits, output};

/// The tools of an agent, with its settings. Cheap to clone.
#[derive(Clone, Default)]
pub struct Toolbox {
    tools: BTreeMap<String, Registered>,
    settings: BTreeMap<String, ToolSetting>,
    mask: Option<Arc<dyn Mask>>,
}

#[derive(Clone)]
struct Registered {
    tool: Arc<dyn Tool>,
    spec: Arc<ToolSpec>,
    arguments: Arc<Result<Validator, String>>,
}

impl Toolbox {
    /// Makes a toolbox without tools.
    #[must_use]
    pub fn empty() -> Self {
        Toolbox::default()
    }

    /// Makes a toolbox of the built-in tools: `read`, `write`, `edit`, `glob`, `grep`, `bash`.
    #[must_use]
    pub fn builtin() -> Self {
        Toolbox::empty()
            .with(builtin::read::Read)
            .with(builtin::write::Write)
            .with(builtin::edit::Edit)
            .with(builtin::glob::Glob)
            .with(builtin::grep::Grep)
            .with(builtin::bash::Bash)
    }

    /// Masks what tools write, before it is cut or seen by anybody.
    #[must_use]
    pub fn masked_by(mut self, mask: Arc<dyn Mask>) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Adds a tool. It takes the place of one with the same name, a built-in one included.
    #[must_use]
    pub fn with(mut self, tool: impl Tool) -> Self {
        let spec = tool.spec();
        let arguments = jsonschema::validator_for(&spec.input_schema).map_err(|error| error.to_string());
        let registered =
            Registered { tool: Arc::new(tool), spec: Arc::new(spec), arguments: Arc::new(arguments) };
        self.tools.insert(registered.spec.name.clone(), registered);
        self
    }

    /// Takes an agent's settings in place of those it has. Tools without one are allowed.
    #[must_use]
    pub fn configured(mut self, settings: &[ToolSetting]) -> Self {
        self.settings = settings.iter().map(|setting| (setting.name.clone(), setting.clone())).collect();
        self
    }

    /// Returns the names of settings that no tool has: a denied tool that is misspelled is not denied.
    pub fn settings_without_tool(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().filter(|name| !self.tools.contains_key(*name)).map(String::as_str)
    }

    /// Returns the tools the model may know of, by name: all but the denied ones.
    #[must_use]
    pub fn specs(&self) -> Vec<ToolSpec> {
        self.allowed().map(|registered| (*registered.spec).clone()).collect()
    }

    /// Returns a tool by name, denied or not.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&dyn Tool> {
        self.tools.get(name).map(|registered| &*registered.tool)
    }

    /// Returns what a tool's calls need to run; `None`: there is no such tool.
    #[must_use]
    pub fn permission(&self, name: &str) -> Option<ToolPermission> {
        self.tools
            .contains_key(name)
            .then(|| self.setting(name).map(|setting| setting.permission).unwrap_or_default())
    }

    /// Runs one call. Whatever happens becomes a result: an unknown or denied tool, arguments that do
    /// not fit, a panic, a time limit. Asking a person first, where that is set, is up to the caller.
    ///
    /// A call that was cancelled before it began is not run. One that is cancelled while it runs is
    /// stopped; if it finished all the same, its result stands. Dropping this future stops the call.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and I/O.
    pub async fn run(&self, name: &str, arguments: &str, cx: &CallContext) -> ToolOutput {
        let (registered, arguments) = match self.admit(name, arguments) {
            Ok(admitted) => admitted,
            Err(refused) => return output::limited(refused, self.max_output_bytes(name)),
        };
        if cx.cancel.is_cancelled() {
            return ToolOutput::new(Outcome::NotRun, Outcome::NotRun.notice());
        }
        let tool = registered.tool.clone();
        let inner = self.inner_context(name, cx);
        let stop = inner.cancel.clone();
        let call = async move { tool.call(arguments, &inner).await };
        let ended = guard::guarded(call, &cx.cancel, stop, self.bounds(registered)).await;
        self.presentable(guard::result(ended), name)
    }

    /// Asks a tool what became of the call `cx.key` names; `None` when it cannot tell, or fails to.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and I/O.
    pub async fn reconcile(&self, name: &str, cx: &CallContext) -> Option<ToolOutput> {
        let registered = self.tools.get(name)?;
        let tool = registered.tool.clone();
        let inner = self.inner_context(name, cx);
        let stop = inner.cancel.clone();
        let call = async move { tool.reconcile(&inner.key, &inner).await };
        match guard::guarded(call, &cx.cancel, stop, self.bounds(registered)).await {
            Ended::InTime(found) | Ended::Late(found, _) => found.map(|found| self.presentable(found, name)),
            Ended::Panicked(_) | Ended::Abandoned(_) => None,
        }
    }

    /// Finds the tool and reads its arguments, or says why the call is not run.
    fn admit(&self, name: &str, arguments: &str) -> Result<(&Registered, Value), ToolOutput> {
        let Some(registered) = self.tools.get(name) else {
            let names: Vec<&str> = self.allowed().map(|registered| registered.spec.name.as_str()).collect();
            let text = format!(
                "The call was not run: there is no tool \"{name}\". The tools are: {}.",
                names.join(", ")
            );
            return Err(ToolOutput::new(Outcome::Rejected, text));
        };
        if self.permission(name) == Some(ToolPermission::Deny) {
            let text =
                format!("The call was not run: this agent may not use the tool \"{name}\". Do without it.");
            return Err(ToolOutput::new(Outcome::Denied, text));
        }
        match registered.read_arguments(arguments) {
            Ok(arguments) => Ok((registered, arguments)),
            Err(fault) => Err(ToolOutput::new(Outcome::Rejected, format!("The call was not run: {fault}"))),
        }
    }

    fn allowed(&self) -> impl Iterator<Item = &Registered> {
        self.tools
            .values()
            .filter(|registered| self.permission(&registered.spec.name) != Some(ToolPermission::Deny))
    }

    fn setting(&self, name: &str) -> Option<&ToolSetting> {
        self.settings.get(name)
    }

    /// Makes of what a tool gave back what a model may see of it.
    fn presentable(&self, output: ToolOutput, name: &str) -> ToolOutput {
        let output = match &self.mask {
            Some(mask) => output::masked(output, &**mask),
            None => output,
        };
        output::limited(output, self.max_output_bytes(name))
    }

    fn max_output_bytes(&self, name: &str) -> usize {
        self.setting(name).and_then(|setting| setting.max_output_bytes).unwrap_or(limits::MAX_OUTPUT_BYTES)
    }

    fn bounds(&self, registered: &Registered) -> guard::Bounds {
        let set = self.setting(&registered.spec.name).and_then(|setting| setting.time_limit_ms);
        guard::Bounds {
            limit: set.map_or_else(|| registered.tool.time_limit(), Duration::from_millis),
            grace: registered.tool.stop_grace(),
        }
    }

    /// Makes the context the tool sees. Its cancellation is fired by the guard alone, so that what a
    /// tool returns after it was told to stop is known to be late.
    fn inner_context(&self, name: &str, cx: &CallContext) -> CallContext {
        CallContext {
            cancel: CancellationToken::new(),
            max_output_bytes: self.max_output_bytes(name),
            ..cx.clone()
        }
    }
}

impl Registered {
    /// Reads what a model took for JSON that fits the schema.
    fn read_arguments(&self, text: &str) -> Result<Value, String> {
        let name = &self.spec.name;
        let validator = match &*self.arguments {
            Ok(validator) => validator,
            Err(fault) => {
                return Err(format!("the tool \"{name}\" has an invalid schema ({fault}). Do without it."));
            }
        };
        let text = if text.trim().is_empty() { "{}" } else { text };
        let arguments: Value = serde_json::from_str(text).map_err(|error| {
            format!("its arguments are not valid JSON: {error}. Repeat it with one complete JSON object.")
        })?;
        let faults: Vec<String> =
            validator.iter_errors(&arguments).take(limits::MAX_FAULTS).map(fault_line).collect();
        if faults.is_empty() {
            return Ok(arguments);
        }
        Err(format!("its arguments do not fit the schema of \"{name}\":\n{}", faults.join("\n")))
    }
}

fn fault_line(error: jsonschema::ValidationError<'_>) -> String {
    let place = match error.instance_path().as_str() {
        "" => "the arguments".to_owned(),
        path => path.to_owned(),
    };
    // A fault quotes what it is about, which may be a whole file.
    let fault =
        output::cut(&error.to_string(), limits::MAX_FAULT_BYTES, |bytes| format!("… {bytes} bytes …"));
    format!("- {place}: {fault}")
}
