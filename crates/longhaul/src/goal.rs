//! The commands about a session's goal and mode, and what a goal is held to: what the agent's configuration
//! says, with what is said on the command line.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use longhaul_engine::Snapshot;
use longhaul_session::agent::{Configuration, Permission};
use longhaul_session::bound;
use longhaul_session::command::{Command, Refusal};
use longhaul_session::entry::{Content, Mode};
use longhaul_session::goal::{Budget, DEFAULT_CONTINUATIONS, Goal, GoalStatus, Terms};
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::state::SessionState;
use longhaul_tools::guarded::Guarded;
use longhaul_tools::scope::Scope;
use serde_json::json;

use crate::app::App;
use crate::cli::{self, Budgets, GoalTerms};
use crate::drive::goal_code;
use crate::facts;
use crate::manage::say;
use crate::next;
use crate::start::go_on;
use crate::summary;

/// Does a command about a goal.
pub(crate) async fn goal(app: &App, command: cli::Goal) -> anyhow::Result<ExitCode> {
    match command {
        cli::Goal::Set(args) => set(app, args).await,
        cli::Goal::Show(args) => show(app, &args.session).await,
        cli::Goal::Edit(args) => edit(app, args).await,
        cli::Goal::Pause(args) => pause(app, &args.session).await,
        cli::Goal::Resume(args) => {
            let Snapshot { row, .. } = with_goal(app, &args.session).await?;
            let session = row.session;
            match resume(app, session).await? {
                Some(code) => Ok(code),
                None if args.detach => say(app, session, "the goal is active"),
                None => go_on(app, session, row.head, false).await,
            }
        }
        cli::Goal::Budget(args) => budget(app, args).await,
        cli::Goal::Clear(args) => {
            let session = with_goal(app, &args.session).await?.row.session;
            change(app, session, Command::ClearGoal, "the goal is removed").await
        }
    }
}

/// Lets a session plan, or work.
pub(crate) async fn mode(app: &App, args: cli::SetMode) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let (mode, done) = match args.mode {
        cli::Mode::Plan => (Mode::Plan, "in plan mode; its goal is not pursued"),
        cli::Mode::Work => (Mode::Default, "at work"),
    };
    let head = app.engine.snapshot(session).await?.row.head;
    app.engine.command(session, Command::SetMode(mode), None).await??;
    after(app, session, head, args.detach, done).await
}

async fn set(app: &App, args: cli::SetGoal) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let Snapshot { row, state } = app.engine.snapshot(session).await?;
    let configuration = configuration(app, session, &state).await?;
    let terms = terms(&configuration, &args.terms)?;
    check(&terms, &configuration, !app.is_elsewhere(&row))?;
    let id = GoalId(app.engine.host().fresh_id());
    let command = Command::SetGoal { id, objective: args.objective, terms, message: None };
    app.engine.command(session, command, None).await??;
    after(app, session, row.head, args.detach, "the goal is set").await
}

async fn edit(app: &App, args: cli::EditGoal) -> anyhow::Result<ExitCode> {
    let list = |given: Vec<String>, none: bool| (none || !given.is_empty()).then_some(given);
    let (checks, protected) = (list(args.checks, args.no_checks), list(args.protected, args.no_protect));
    if args.objective.is_none() && checks.is_none() && protected.is_none() {
        bail!(
            "there is nothing to change: give an objective, --check, --protect, --no-checks or --no-protect"
        );
    }
    let Snapshot { row, state } = with_goal(app, &args.session).await?;
    let session = row.session;
    let configuration = configuration(app, session, &state).await?;
    let new = Terms {
        checks: checks.clone().unwrap_or_default(),
        protected: protected.clone().unwrap_or_default(),
        ..Terms::default()
    };
    check(&new, &configuration, !app.is_elsewhere(&row))?;
    let command = Command::EditGoal { objective: args.objective, budget: None, checks, protected };
    app.engine.command(session, command, None).await??;
    after(app, session, row.head, args.detach, "the goal is changed").await
}

async fn budget(app: &App, args: cli::BudgetGoal) -> anyhow::Result<ExitCode> {
    if args.budgets.is_empty() {
        bail!("there is nothing to change: give --budget, --time, --cost, --continuations, --hard or --soft");
    }
    let Snapshot { row, state } = with_goal(app, &args.session).await?;
    let session = row.session;
    let configuration = configuration(app, session, &state).await?;
    let budget = args.budgets.over(state.goal.map(|goal| goal.budget).unwrap_or_default());
    holdable(&budget, &configuration)?;
    let command = Command::EditGoal { objective: None, budget: Some(budget), checks: None, protected: None };
    app.engine.command(session, command, None).await??;
    after(app, session, row.head, args.detach, "the budget is changed").await
}

async fn pause(app: &App, name: &str) -> anyhow::Result<ExitCode> {
    let Snapshot { row, state } = with_goal(app, name).await?;
    if let Some(goal) = state.goal.filter(|goal| goal.status != GoalStatus::Active) {
        bail!("there is nothing to pause: the goal is {}", summary::goal_status(goal.status));
    }
    let done = format!("the goal is paused; `longhaul resume {}` goes on", summary::short_id(row.session));
    change(app, row.session, Command::PauseGoal, &done).await
}

/// Finds a session that has a goal.
async fn with_goal(app: &App, name: &str) -> anyhow::Result<Snapshot> {
    let snapshot = app.engine.snapshot(app.find(name).await?).await?;
    if snapshot.state.goal.is_none() {
        bail!("the session has no goal; `longhaul goal set` sets one");
    }
    Ok(snapshot)
}

async fn change(app: &App, session: SessionId, command: Command, done: &str) -> anyhow::Result<ExitCode> {
    app.engine.command(session, command, None).await??;
    say(app, session, done)
}

/// Goes on with a session to which a change gave work, and says what was done to one that rests.
async fn after(
    app: &App,
    session: SessionId,
    head: u64,
    detach: bool,
    done: &str,
) -> anyhow::Result<ExitCode> {
    let state = app.engine.snapshot(session).await?.state;
    if detach || !state.status.is_resting() {
        return if detach { say(app, session, done) } else { go_on(app, session, head, false).await };
    }
    match summary::why_goal_rests(&state) {
        Some(why) if is_out_of_budget(&state) => {
            say_with_next(app, session, &state, &format!("{done}, but {why}"))?;
            Ok(ExitCode::from(goal_code(&state)))
        }
        Some(_) | None => say_with_next(app, session, &state, done),
    }
}

fn is_out_of_budget(state: &SessionState) -> bool {
    state.goal.as_ref().is_some_and(|goal| goal.status == GoalStatus::BudgetLimited)
}

/// Says what was done, and which command goes on where the session does not by itself.
fn say_with_next(
    app: &App,
    session: SessionId,
    state: &SessionState,
    done: &str,
) -> anyhow::Result<ExitCode> {
    say(app, session, done)?;
    if let Some(next) = next::command(state, &summary::short_id(session)).filter(|_| !app.options.json) {
        writeln!(anstream::stdout(), "  go on with: {next}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets the goal of a session go on, if it has one that does not. Where it cannot, says why and returns the
/// exit code.
pub(crate) async fn resume(app: &App, session: SessionId) -> anyhow::Result<Option<ExitCode>> {
    match app.engine.command(session, Command::ResumeGoal, None).await? {
        Ok(_) => Ok(None),
        Err(Refusal::Invalid(why)) => {
            let snapshot = app.engine.snapshot(session).await?;
            if !is_out_of_budget(&snapshot.state) {
                bail!("{why}");
            }
            let why = summary::why_goal_rests(&snapshot.state).unwrap_or_default();
            say_with_next(app, session, &snapshot.state, &format!("not resumed: {why}"))?;
            Ok(Some(ExitCode::from(goal_code(&snapshot.state))))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// Tells whether `resume` is needed for the goal of a session at rest to go on.
pub(crate) fn is_held(state: &SessionState) -> bool {
    let held = |goal: &Goal| match goal.status {
        GoalStatus::Paused | GoalStatus::Blocked | GoalStatus::BudgetLimited | GoalStatus::UsageLimited => {
            true
        }
        GoalStatus::Active => goal.suppressed,
        GoalStatus::Complete => false,
    };
    state.status.is_resting() && state.pending.is_empty() && state.goal.as_ref().is_some_and(held)
}

/// Returns what a session runs with.
async fn configuration(app: &App, session: SessionId, state: &SessionState) -> anyhow::Result<Configuration> {
    let at = state.configured_at;
    let entry = app.engine.entries(session, at..=at).await?.pop();
    match entry.and_then(|entry| entry.content).map(|payload| payload.content) {
        Some(Content::Configuration { configuration }) => Ok(*configuration),
        Some(Content::Items { .. } | Content::Prepared { .. } | Content::Guarded { .. }) | None => {
            bail!("what the session runs with was redacted; configure it anew first")
        }
    }
}

/// Returns what a goal is held to: what the configuration says, and what is said besides.
pub(crate) fn terms(configuration: &Configuration, said: &GoalTerms) -> anyhow::Result<Terms> {
    if configuration.without_goals {
        bail!("this agent's manifest switches goals off: [goal] has `enabled = false`");
    }
    let Terms { budget, mut checks, mut protected } = configuration.goal.clone();
    let add = |list: &mut Vec<String>, more: &[String]| {
        for one in more {
            if !list.contains(one) {
                list.push(one.clone());
            }
        }
    };
    add(&mut checks, &said.checks);
    add(&mut protected, &said.protected);
    let budget = said.budgets.over(budget);
    holdable(&budget, configuration)?;
    Ok(Terms { budget, checks, protected })
}

impl Budgets {
    /// Returns a budget in which what is said takes the place of what there was.
    fn over(&self, before: Budget) -> Budget {
        let limit = |said: Option<crate::amount::Limit>, before| said.map_or(before, |limit| limit.0);
        Budget {
            tokens: limit(self.budget, before.tokens),
            active_ms: limit(self.time, before.active_ms),
            cost_micros: limit(self.cost, before.cost_micros),
            continuations: self.continuations.or(before.continuations),
            hard: (before.hard || self.hard) && !self.soft,
        }
    }
}

/// Refuses a hard budget that cannot be held, or under which nothing could begin. Says so where a soft one may
/// not be held.
fn holdable(budget: &Budget, configuration: &Configuration) -> anyhow::Result<()> {
    if !budget.hard {
        if let Some(cost) = budget.cost_micros
            && facts::may_cost_unseen(&configuration.model)
        {
            writeln!(
                anstream::stderr(),
                "note: the {} may be crossed unseen: what the tokens of {} cost is not known; set [model.prices] in the \
                 manifest, or a token budget besides",
                summary::dollars(cost),
                configuration.model.name
            )?;
        }
        return Ok(());
    }
    let mut models = [Some(&configuration.model), configuration.summariser.as_deref()].into_iter().flatten();
    if budget.cost_micros.is_some()
        && let Some(model) = models.find(|model| model.prices.is_none())
    {
        bail!(
            "a hard budget cannot be held to a cost: what the tokens of {} cost is not known; set its prices in the \
             manifest, or a token budget instead",
            model.name
        );
    }
    let output = bound::answer_tokens(&configuration.model);
    if let Some(tokens) = budget.tokens.filter(|tokens| *tokens <= output) {
        bail!(
            "a hard budget of {tokens} tokens leaves no room for one call: an answer may have {output}; raise it, or \
             lower max_output_tokens of [model]"
        );
    }
    Ok(())
}

/// Refuses terms that no goal here could meet. What depends on files is looked at only where they are.
pub(crate) fn check(terms: &Terms, configuration: &Configuration, here: bool) -> anyhow::Result<()> {
    if !here {
        return Ok(());
    }
    let directory = Path::new(&configuration.directory);
    let needs_directory = !terms.checks.is_empty() || !terms.protected.is_empty();
    let directory = match directory.canonicalize() {
        Ok(directory) => directory,
        Err(_) if !needs_directory => return Ok(()),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("the directory {} cannot be used", directory.display()));
        }
    };
    if !terms.checks.is_empty() {
        let scope = Scope::new(&configuration.scope, &directory)?;
        if scope.require(&directory, Permission::Write).is_err() {
            bail!(
                "a check is a command, which needs the right to write in {}; the agent's scope does not give it",
                directory.display()
            );
        }
    }
    let guarded = Guarded::new(&terms.protected, &directory)?;
    if let [first, ..] = guarded.without_files()?[..] {
        bail!("{first:?} protects nothing: there is no such file in {}; correct it", directory.display());
    }
    guarded.digests(&directory)?;
    Ok(())
}

async fn show(app: &App, name: &str) -> anyhow::Result<ExitCode> {
    let session = app.find(name).await?;
    let snapshot = app.engine.snapshot(session).await?;
    let mut out = anstream::stdout();
    let Some(goal) = &snapshot.state.goal else {
        if app.options.json {
            writeln!(out, "{}", json!({ "session": session, "goal": null }))?;
        } else {
            writeln!(out, "The session has no goal; `longhaul goal set` sets one.")?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    if app.options.json {
        let rests = summary::why_goal_rests(&snapshot.state);
        writeln!(out, "{}", json!({ "session": session, "goal": goal, "goal_rests": rests }))?;
    } else {
        out.write_all(described(goal, &snapshot.state).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Describes a goal in lines, as `show` does.
pub(crate) fn described(goal: &Goal, state: &SessionState) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        writeln!(text, "{name:<10} {value}").ok();
    };
    let status = summary::goal_status(goal.status);
    line("goal", format!("{status}: {}", summary::one_line(&goal.objective)));
    if let Some(why) = summary::why_goal_rests(state) {
        line("rests", why);
    }
    let (budget, used) = (&goal.budget, &goal.used);
    let of = |used: String, limit: Option<String>| match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used,
    };
    let hard = if budget.hard { ", hard" } else { "" };
    line(
        "budget",
        format!(
            "{} tokens, {}, turn {} of {}{hard}",
            of(summary::tokens(used.tokens), budget.tokens.map(summary::tokens)),
            of(summary::duration(used.active_ms), budget.active_ms.map(summary::duration)),
            used.continuations,
            budget.continuations.unwrap_or(DEFAULT_CONTINUATIONS)
        ),
    );
    if budget.cost_micros.is_some() || used.cost_micros > 0 {
        line("cost", of(summary::dollars(used.cost_micros), budget.cost_micros.map(summary::dollars)));
    }
    for check in &goal.checks {
        line("check", summary::one_line(check));
    }
    for path in &goal.protected {
        line("protects", summary::one_line(path));
    }
    text
}
