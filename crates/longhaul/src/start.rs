//! The commands that give a session work: `run`, `resume`, `send`, `interrupt`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use longhaul_engine::{Created, Event, GivenFile, NewSession, Snapshot, Watcher, with_goal_tools};
use longhaul_session::agent::{
    Configuration, KeySource, Limits, ModelChoice, Permission, ScopeEffect, ScopeRule, ToolPermission,
    ToolSetting,
};
use longhaul_session::command::{Command, First};
use longhaul_session::entry::Mode;
use longhaul_session::goal::{Terms, valid_objective};
use longhaul_session::id::{EntryNo, GoalId, SessionId};
use longhaul_session::prompts::Prompts;
use longhaul_session::state::Status;
use longhaul_store::RequestId;
use longhaul_tools::scope::Scope;
use longhaul_tools::toolbox::Toolbox;

use crate::app::{App, check_directory, check_name, passing, path_text};
use crate::attach;
use crate::cli;
use crate::drive::{Keys, LOOK_MS, Wanted, drive, drive_to, name_earlier_calls, stopped_by};
use crate::facts;
use crate::goal;
use crate::line::Line;
use crate::manage::say;
use crate::manifest;
use crate::next;
use crate::providers::{self, Provider};
use crate::render::Renderer;
use crate::signals::Termination;
use crate::summary;

/// Starts a session and drives it until it rests.
pub(crate) async fn run(app: &App, args: cli::Run) -> anyhow::Result<ExitCode> {
    if args.message.trim().is_empty() {
        let what = if args.goal { "objective" } else { "message" };
        bail!("there is nothing to do: the {what} is empty");
    }
    args.name.as_deref().map_or(Ok(()), check_name)?;
    let request = args.request_id.clone().map(RequestId::new).transpose()?;
    let configuration = configuration(&args)?;
    let first = first(app, &args, &configuration)?;
    let files = attach::read(&args.attach, &configuration.model)?;
    app.check_model(&configuration.model, &configuration.limits)?;
    let head = header(&configuration);
    let new = New {
        configuration,
        mode: if args.plan { Mode::Plan } else { Mode::Default },
        name: args.name,
        first,
        files: &files,
    };
    let created = create(app, new, request.as_ref()).await?;
    let session = created.session;
    if args.detach {
        return made(app, session);
    }
    // What is shown can be interrupted.
    let keys = Keys::listen()?;
    let mut renderer = Renderer::new(app.options.json);
    let id = summary::short_id(session);
    if created.repeated {
        renderer.say(&format!("session {id} was begun with this request id; going on with it"))?;
        return drive_to(app, session, created.head, Wanted::Rest, keys).await;
    }
    renderer.say(&format!("session {id} · {head}")).map_err(|error| stopped_by(error, session))?;
    drive_to(app, session, 0, Wanted::Rest, keys).await
}

/// Says nothing but the id of a session that was made.
fn made(app: &App, session: SessionId) -> anyhow::Result<ExitCode> {
    if app.options.json {
        return say(app, session, "the session is made");
    }
    writeln!(anstream::stdout(), "{session}")?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what a run begins with: a message, or a goal.
fn first(app: &App, args: &cli::Run, configuration: &Configuration) -> anyhow::Result<First> {
    if !args.goal {
        return Ok(First::Message(args.message.as_str().into()));
    }
    let terms = goal::terms(configuration, &args.terms)?;
    goal::check(&terms, configuration, true)?;
    let Some(objective) = valid_objective(&args.message) else {
        bail!("an objective has at most 4,000 characters; put the rest in a file and name it");
    };
    Ok(First::Goal { id: GoalId(app.engine.host().fresh_id()), objective, terms })
}

/// A session that is to be made.
pub(crate) struct New<'a> {
    pub(crate) configuration: Configuration,
    pub(crate) mode: Mode,
    pub(crate) name: Option<String>,
    pub(crate) first: First,
    /// What goes with it.
    pub(crate) files: &'a [GivenFile],
}

/// Makes a session that begins with something; the one that the same request made before, if there is one.
pub(crate) async fn create(app: &App, new: New<'_>, request: Option<&RequestId>) -> anyhow::Result<Created> {
    let New { configuration, mode, name, first, files } = new;
    let labels = BTreeMap::from([("directory".to_owned(), configuration.directory.clone())]);
    let (place, ephemeral) = (app.place(), app.ephemeral);
    let new = NewSession { configuration, place, ephemeral, mode, name, labels, first };
    let text = match &new.first {
        First::Message(message) => message.text.clone(),
        First::Goal { objective, .. } => objective.clone(),
        First::Nothing => return Ok(app.engine.create(new, request).await??),
    };
    Ok(app.engine.create_with_files(new, &text, files, request).await??)
}

/// Says which model and directory a session has. A script is called a script.
fn header(configuration: &Configuration) -> String {
    let model = &configuration.model;
    let directory = &configuration.directory;
    if model.provider == Provider::Scripted.name() {
        return format!("scripted model {} (no language model is involved)\n  in {directory}", model.name);
    }
    let place = model.base_url.as_deref().map(|url| format!(" at {url}")).unwrap_or_default();
    let unknown = facts::unknown(model).map(|unknown| format!("\n  {unknown}")).unwrap_or_default();
    format!("{}{place}\n  in {directory}{unknown}", model.name)
}

/// Puts together what a session runs with: a script, or a manifest with what the command line changes.
fn configuration(args: &cli::Run) -> anyhow::Result<Configuration> {
    let mut configuration = match &args.script {
        Some(script) => {
            let script = script.canonicalize().with_context(|| {
                format!("the script {} cannot be read; --script names a TOML file", script.display())
            })?;
            scripted(&script, &directory(args.dir.as_deref().unwrap_or(Path::new(".")))?)?
        }
        None => from_manifest(args)?,
    };
    if let Some(wanted) = &args.dir {
        let directory = directory(wanted)?;
        if Scope::new(&configuration.scope, &directory)?.require(&directory, Permission::Read).is_err() {
            bail!(
                "the scope of the manifest does not let the agent read {}; choose another directory with --dir, or \
                 allow this one with [[scope.allow]]",
                directory.display()
            );
        }
        configuration.directory = path_text(&directory)?;
    }
    let limits = &mut configuration.limits;
    limits.max_crashes = args.max_crashes.unwrap_or(limits.max_crashes);
    limits.max_steps = args.max_steps.unwrap_or(limits.max_steps);
    deny(&mut configuration, &args.deny)?;
    Ok(configuration)
}

fn directory(wanted: &Path) -> anyhow::Result<PathBuf> {
    let directory = wanted.canonicalize().with_context(|| {
        format!("the working directory {} cannot be used; choose one with --dir", wanted.display())
    })?;
    if !directory.is_dir() {
        bail!("{} is not a directory; choose one with --dir", directory.display());
    }
    check_directory(&directory).with_context(|| {
        format!("the working directory {} cannot be read; choose one with --dir", directory.display())
    })?;
    Ok(directory)
}

/// Returns the manifest that is named, or the one for the directory.
pub(crate) fn manifest_for(args: &cli::Run) -> Option<PathBuf> {
    args.manifest.clone().or_else(|| manifest::find(args.dir.as_deref().unwrap_or(Path::new("."))))
}

/// Reads the manifest that is named or found; a model on the command line needs none.
fn from_manifest(args: &cli::Run) -> anyhow::Result<Configuration> {
    let here = directory(args.dir.as_deref().unwrap_or(Path::new(".")))?;
    let mut configuration = match (manifest_for(args), &args.choice.model) {
        (Some(path), _) => manifest::load(&path, &with_goal_tools(Toolbox::builtin()))?,
        (None, Some(model)) => with_model(ModelChoice::new(Provider::OpenaiChat.name(), model), &here)?,
        (None, None) => bail!(
            "no model is chosen: there is no longhaul.toml here or above, and none of --manifest, --model and \
             --script is given; `longhaul run --help` has examples"
        ),
    };
    choose(&mut configuration, &args.choice);
    Ok(configuration)
}

/// Chooses another model, another place, or another key, in place of what the configuration says, and adds
/// what is known of the model and where its key usually is.
pub(crate) fn choose(configuration: &mut Configuration, wanted: &cli::Choice) {
    let mut choice = configuration.model.clone();
    // What is known or stated of one model, or costs in one place, does not hold for another.
    if let Some(name) = &wanted.model {
        let scripted = choice.provider == Provider::Scripted.name();
        let provider = wanted.provider.or(scripted.then_some(Provider::OpenaiChat));
        match provider.filter(|provider| provider.name() != choice.provider) {
            // What is said of one provider, its key before all, is not for another.
            Some(provider) => choice = ModelChoice::new(provider.name(), name),
            None => choice.name.clone_from(name),
        }
        (choice.window_tokens, choice.prices, choice.images) = (None, None, None);
    }
    if wanted.base_url.is_some() {
        choice.base_url.clone_from(&wanted.base_url);
        choice.prices = None;
    }
    if let Some(variable) = &wanted.key_env {
        choice.key = Some(KeySource::Env(variable.clone()));
    }
    facts::complete(&mut choice);
    if wanted.model.is_some() {
        let above_tokens = &mut configuration.limits.compact_above_tokens;
        *above_tokens = facts::compact_above_tokens(&choice).min(*above_tokens);
    }
    configuration.model = providers::with_usual_key(choice);
}

/// Denies tools, in place of what the configuration says of them.
fn deny(configuration: &mut Configuration, names: &[String]) -> anyhow::Result<()> {
    let tools = with_goal_tools(Toolbox::builtin());
    if let Some(unknown) = names.iter().find(|name| tools.get(name).is_none()) {
        let names: Vec<String> = tools.specs().into_iter().map(|spec| spec.name).collect();
        bail!("--deny names no tool: {unknown:?}; the tools are {}", names.join(", "));
    }
    configuration.tools.retain(|setting| !names.contains(&setting.name));
    configuration.tools.extend(names.iter().map(|name| ToolSetting {
        name: name.clone(),
        permission: ToolPermission::Deny,
        max_output_bytes: None,
        time_limit_ms: None,
    }));
    Ok(())
}

/// Makes the configuration of an agent that plays a script and may write in its directory.
pub(crate) fn scripted(script: &Path, directory: &Path) -> anyhow::Result<Configuration> {
    with_model(ModelChoice::new(Provider::Scripted.name(), path_text(script)?), directory)
}

/// Makes the configuration of an agent about which nothing but its model and its directory is said.
pub(crate) fn with_model(mut model: ModelChoice, directory: &Path) -> anyhow::Result<Configuration> {
    facts::complete(&mut model);
    let scope = ScopeRule {
        effect: ScopeEffect::Allow,
        target: ".".to_owned(),
        permission: Permission::Write,
        recursive: true,
    };
    let limits = Limits { compact_above_tokens: facts::compact_above_tokens(&model), ..Limits::default() };
    Ok(Configuration {
        agent: "default".to_owned(),
        model,
        directory: path_text(directory)?,
        instructions: None,
        scope: vec![scope],
        tools: Vec::new(),
        limits,
        summariser: None,
        prompts: Prompts::default(),
        goal: Terms::default(),
        without_goals: false,
    })
}

/// Goes on with a session.
pub(crate) async fn resume(app: &App, args: cli::Resume) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let Snapshot { row, state } = app.engine.snapshot(session).await?;
    let head = row.head;
    let goal_is_held = goal::is_held(&state) && !state.archived;
    if goal_is_held && let Some(code) = goal::resume(app, session).await? {
        return Ok(code);
    }
    if !goal_is_held && state.status == Status::Failed {
        let told = "the turn failed earlier; it is not tried again before somebody says something";
        Renderer::new(app.options.json).say(told)?;
    }
    drive(app, session, args.after.map_or(head, |after| after.min(head))).await
}

/// Says something, and drives the session unless a live worker does.
pub(crate) async fn send(app: &App, args: cli::Send) -> anyhow::Result<ExitCode> {
    if args.message.trim().is_empty() {
        bail!("there is nothing to send: the message is empty");
    }
    let session = app.find(&args.session).await?;
    let request = args.request_id.map(RequestId::new).transpose()?;
    let snapshot = app.engine.snapshot(session).await?;
    let files = attach::read_for(app, &snapshot, &args.attach).await?;
    app.engine.send(session, &args.message, &files, args.interrupt, request.as_ref()).await??;
    go_on(app, session, snapshot.row.head, args.detach).await
}

/// Stops what a session is doing. Where no worker lives to do so, this process does.
pub(crate) async fn interrupt(app: &App, args: cli::Interrupt) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let head = app.engine.snapshot(session).await?.row.head;
    let keys = Keys::listen()?;
    let interrupt = Command::Interrupt { drop_queue: args.drop_queue };
    app.engine.command(session, interrupt, None).await??;
    drive_to(app, session, head, Wanted::Interruption, keys).await
}

pub(crate) async fn go_on(
    app: &App,
    session: SessionId,
    head: EntryNo,
    detach: bool,
) -> anyhow::Result<ExitCode> {
    if detach { Ok(ExitCode::SUCCESS) } else { drive(app, session, head).await }
}

/// Watches a session until it rests, and never drives it.
pub(crate) async fn attach(app: &App, args: cli::Attach) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let head = app.engine.snapshot(session).await?.row.head;
    watch(app, session, args.after.map_or(head, |after| after.min(head))).await
}

/// Shows a session from the entry after `after` on, until it rests.
pub(crate) async fn watch(app: &App, session: SessionId, after: EntryNo) -> anyhow::Result<ExitCode> {
    let mut watcher = app.engine.watch(session, after);
    let mut renderer = Renderer::new(app.options.json);
    let from = watcher.seen();
    // Listened to from here on: a key pressed while something is shown is not lost.
    let mut leave = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = Termination::listen()?;
    renderer.follow(app.engine.snapshot(session).await?.state);
    name_earlier_calls(app, session, after, &mut renderer).await?;
    loop {
        if let Some(snapshot) = passing(look(app, session).await)?
            && snapshot.state.status.is_resting()
            && watcher.seen() >= snapshot.row.head
        {
            renderer.settle()?;
            renderer.say(&at_rest(&snapshot, watcher.seen() > from))?;
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            event = next_attended(app, session, &mut watcher, &mut renderer) => {
                if let Some(event) = event? {
                    renderer.show(&event.into())?;
                }
                continue;
            }
            _ = leave.recv() => {}
            () = terminate.recv() => {}
        }
        let row = app.engine.snapshot(session).await?.row;
        let goes_on = if app.is_owned(&row).await? { "; the session goes on" } else { "" };
        renderer.say(&format!("  no longer watching{goes_on}"))?;
        return Ok(ExitCode::SUCCESS);
    }
}

async fn look(app: &App, session: SessionId) -> anyhow::Result<Snapshot> {
    Ok(app.engine.snapshot(session).await?)
}

/// Says that nothing more comes, why, and which command would change that.
fn at_rest(Snapshot { row, state }: &Snapshot, something_was_seen: bool) -> String {
    let what = if something_was_seen { "the session rests" } else { "nothing to watch, the session rests" };
    let mut text = format!("{what}: {}", summary::status(state, false));
    let error = state.last_error.as_ref().filter(|_| state.status == Status::Failed);
    if let Some(why) = error.map(|error| error.message.clone()).or_else(|| summary::why_goal_rests(state)) {
        text.push_str(&format!("\n  {why}"));
    }
    if let Some(next) = next::command(state, &summary::short_id(row.session)) {
        text.push_str(&format!("\n  go on with: {next}"));
    }
    text
}

/// Waits for the next event, and says so if nobody is there to bring it about; `None` when there is none to wait
/// for.
async fn next_attended(
    app: &App,
    session: SessionId,
    watcher: &mut Watcher,
    renderer: &mut Renderer,
) -> anyhow::Result<Option<Event>> {
    // It may lie between two workers for a moment: only what is so at two looks is told, once.
    let (mut alone, mut told) = (false, false);
    let seen = watcher.seen();
    let next = watcher.next();
    tokio::pin!(next);
    loop {
        tokio::select! {
            event = &mut next => return Ok(Some(event?)),
            () = app.engine.host().sleep_ms(LOOK_MS) => {}
        }
        let Some(Snapshot { row, state }) = passing(look(app, session).await)? else { continue };
        if state.status.is_resting() && seen >= row.head {
            return Ok(None);
        }
        let Some(owned) = passing(app.is_owned(&row).await)? else { continue };
        let unattended = !state.status.is_resting() && !owned;
        if unattended && alone && !std::mem::replace(&mut told, true) {
            renderer.show(&unattended_line(session))?;
        }
        alone = unattended;
    }
}

fn unattended_line(session: SessionId) -> Line {
    let id = summary::short_id(session);
    let hint = format!("no live worker runs this session; `longhaul resume {id}` goes on with it");
    Line::Unattended { session: session.to_string(), hint }
}
