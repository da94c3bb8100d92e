//! The command line: what can be typed. What it does is in the modules of the commands.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use longhaul_model::recording::Tape;

use crate::amount::{self, Limit};
use crate::providers::Provider;

const EXAMPLES: &str = "\
Sessions are named by the first digits of their id, by their name, or @last.

Exit codes: 0 complete, 1 error, 2 wrong usage, 3 budget used up, 4 goal blocked,
5 waiting for an answer, or a goal that rests, 130 interrupted.";

/// The longest time that may be given.
const MAX_TIME_MS: u64 = 24 * 3_600_000;

/// Runs LLM agents that work for hours and days, and loses nothing on the way.
#[derive(Debug, Parser)]
#[command(name = "longhaul", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Options {
    /// Where sessions are kept [default: $LONGHAUL_HOME, or longhaul below $XDG_DATA_HOME]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub(crate) home: Option<PathBuf>,
    /// The database sessions are kept in: a path, sqlite:PATH, or postgres://user:password@host/database
    /// [default: $LONGHAUL_STORE, else what the manifest says, else a file in the home]
    #[arg(long, global = true, value_name = "STORE", conflicts_with = "home")]
    pub(crate) store: Option<String>,
    /// The name under which this machine's directories are known to workers
    /// [default: this host's name with a database of several machines, else local]
    #[arg(long, global = true, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) place: Option<String>,
    /// Write JSON lines for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub(crate) color: When,
    /// Where what goes to and from providers is written to, or comes from.
    #[arg(skip)]
    pub(crate) tape: Option<Tape>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a session in this directory and stream it until it rests
    ///
    /// Ctrl-C interrupts the turn; a second Ctrl-C stops the program, as TERM and a terminal that is closed do.
    /// The session can be resumed.
    #[command(after_help = "Examples:\n  longhaul run \"make the tests pass\"\n  \
        longhaul run --base-url http://localhost:8080/v1 --model qwen3 \"what is in this directory?\"\n  \
        longhaul run --provider anthropic --model claude-sonnet-4-5 \"make the tests pass\"\n  \
        longhaul run --goal \"all tests pass\" --budget 200k --time 2h --check \"make test\" --protect tests\n  \
        longhaul run --script script.toml \"play a script\"")]
    Run(Box<Run>),
    /// See it work: a real run with real tools and a scripted model, offline, in a scratch directory
    Demo(Demo),
    /// Go on with a session: drive it until it rests, or watch the worker that does
    Resume(Resume),
    /// Say something to the agent of a session
    Send(Send),
    /// Stop what a session is doing; what is queued goes on afterwards
    Interrupt(Interrupt),
    /// Set, look at and change the goal of a session
    ///
    /// A goal is worked towards turn after turn until it is reached, its budget is used up, or something
    /// stands in the way.
    #[command(subcommand)]
    Goal(Goal),
    /// Let a session plan, or work: while it plans, its goal is neither pursued nor charged
    Mode(SetMode),
    /// Summarise a session's history now, so that its context is small again
    Compact(Compact),
    /// Watch a session without ever driving it
    Attach(Attach),
    /// Drive whatever sessions have work at this place, until told to stop
    ///
    /// A worker claims sessions that have work and no live owner, up to its capacity, and drives each until it
    /// rests. Several may share a database; a session is driven by one of them, and when that one dies another
    /// goes on. It takes only sessions of its own place, as their directories are there.
    ///
    /// TERM, Ctrl-C or a terminal that is closed drains it: it claims nothing more, lets running model and tool calls finish within the
    /// grace, gives its sessions back and ends. A second signal ends the grace, a third the program.
    #[command(after_help = "Examples:\n  longhaul worker\n  longhaul worker --capacity 64 --grace 2m\n  \
        LONGHAUL_STORE=postgres://me:secret@db/longhaul longhaul worker\n  \
        longhaul run --detach \"make the tests pass\" && longhaul worker --until-idle\n  \
        longhaul --json worker | tee worker.log")]
    Worker(Worker),
    /// Answer an approval or a question, and go on
    #[command(after_help = "Example: longhaul answer @last --allow")]
    Answer(Answer),
    /// List, remove or promote messages that wait in the queue
    Queue(Queue),
    /// Replace a message, the newest one by default, and go on from there
    Edit(Edit),
    /// Make a session that begins as the first entries of another; nothing is copied
    #[command(after_help = "Example: longhaul fork @last --at 12 --dir ../other \"try it another way\"")]
    Fork(Fork),
    /// Start the model's context anew; the log keeps everything
    Clear(One),
    /// Name a session
    Rename(Rename),
    /// Put a session away, or bring it back
    Archive(Archive),
    /// Delete a session and all that only it uses
    Delete(Delete),
    /// Remove the content of entries; that they were there stays
    Redact(Redact),
    /// Write a session as JSON lines, to be imported elsewhere
    Export(Export),
    /// Make a session of an export, if its log is sound
    Import(Import),
    /// Show where two sessions part, and what each did from there
    Diff(Diff),
    /// Watch what is going on: busy sessions, workers and their load
    Top(Top),
    /// Run a command and write what goes between it and the model's provider to a file
    #[command(after_help = "The file holds no key. Example:\n  \
        longhaul record run.jsonl -- run \"make the tests pass\"")]
    Record(Record),
    /// Run a command again with the recorded answers: no key, no network; tools run as always
    #[command(after_help = "It fails where the run asks something else than was recorded, and shows the \
        difference. Examples:\n  longhaul replay run.jsonl\n  \
        longhaul replay run.jsonl -- run \"make the tests pass\"")]
    Replay(Replay),
    /// Say what works here and what does not
    ///
    /// The model's provider is asked as well, by at most two tiny calls; what they may cost is said before.
    Doctor(Doctor),
    /// Print a script that completes commands in a shell
    #[command(
        after_help = "Example: longhaul completions bash > ~/.local/share/bash-completion/completions/longhaul"
    )]
    Completions(Completions),
    /// List sessions, the last active first
    Ls(Ls),
    /// Show a session: what it is doing, what it has spent, what is next
    Show(Show),
    /// Print the log of a session, one line an entry
    Log(Log),
    /// Check logs: the hash chain, the stored state against the fold, the totals, calls and results
    Verify(Verify),
    /// Look at the manifest (longhaul.toml) an agent is configured with
    #[command(subcommand)]
    Agent(Agent),
}

/// The commands about goals.
#[derive(Debug, Subcommand)]
pub(crate) enum Goal {
    /// Set a goal; the same objective updates the one there is, another one replaces it
    #[command(
        after_help = "Example: longhaul goal set @last \"all tests pass\" --budget 200k --check \"make test\""
    )]
    Set(SetGoal),
    /// Show where the goal stands: its budget, its checks, and why it rests
    Show(One),
    /// Change the objective, the checks or the protected files of the goal
    Edit(EditGoal),
    /// Keep the goal from going on; the turn under way ends as it would
    Pause(One),
    /// Go on with a goal that is paused, blocked, limited or at rest
    Resume(ResumeGoal),
    /// Raise, lower or remove limits; what is not named stays as it is
    #[command(after_help = "Examples:\n  longhaul goal budget @last --budget 500k\n  \
        longhaul goal budget @last --time none --hard")]
    Budget(BudgetGoal),
    /// Remove the goal; the turn under way ends as it would
    Clear(One),
}

/// The limits of a goal.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Budgets {
    /// The most tokens it may use, uncached input and output: 50000, 200k, 1.5M, or none
    #[arg(long, allow_negative_numbers = true, value_name = "TOKENS", value_parser = |text: &str| amount::limit(text, amount::tokens))]
    pub(crate) budget: Option<Limit>,
    /// The longest it may be worked on: 90s, 2h, 1h30m, or none
    #[arg(long, allow_negative_numbers = true, value_name = "TIME", value_parser = |text: &str| amount::limit(text, amount::time))]
    pub(crate) time: Option<Limit>,
    /// The most it may cost in US dollars, where prices are known: 5usd, $5, 0.50, or none
    #[arg(long, allow_negative_numbers = true, value_name = "MONEY", value_parser = |text: &str| amount::limit(text, amount::money))]
    pub(crate) cost: Option<Limit>,
    /// How many turns it may take [default: 100]
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = amount::turns)]
    pub(crate) continuations: Option<u64>,
    /// Begin nothing that could cross a limit; otherwise the call in flight and a last one to wrap up may
    #[arg(long)]
    pub(crate) hard: bool,
    /// Take --hard back
    #[arg(long, conflicts_with = "hard")]
    pub(crate) soft: bool,
}

/// What a goal is held to.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GoalTerms {
    #[command(flatten)]
    pub(crate) budgets: Budgets,
    /// A command that must pass before the goal is complete; may be given several times
    #[arg(long = "check", value_name = "COMMAND", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) checks: Vec<String>,
    /// A path or pattern of files that must stay as they are for checks to count; may be given several times
    #[arg(long = "protect", value_name = "PATH", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) protected: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SetGoal {
    /// The session
    pub(crate) session: String,
    /// What is to be reached
    pub(crate) objective: String,
    #[command(flatten)]
    pub(crate) terms: GoalTerms,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EditGoal {
    /// The session
    pub(crate) session: String,
    /// The new objective [default: it stays]
    pub(crate) objective: Option<String>,
    /// The checks from now on, in place of those there are; may be given several times
    #[arg(long = "check", value_name = "COMMAND", conflicts_with = "no_checks")]
    pub(crate) checks: Vec<String>,
    /// Without checks from now on
    #[arg(long)]
    pub(crate) no_checks: bool,
    /// The protected files from now on, as they are now; may be given several times
    #[arg(long = "protect", value_name = "PATH", conflicts_with = "no_protect")]
    pub(crate) protected: Vec<String>,
    /// Without protected files from now on
    #[arg(long)]
    pub(crate) no_protect: bool,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeGoal {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BudgetGoal {
    /// The session
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) budgets: Budgets,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetMode {
    /// The session
    pub(crate) session: String,
    /// What it is to do
    #[arg(value_enum)]
    pub(crate) mode: Mode,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Plan: a goal waits
    Plan,
    /// Work: a goal goes on
    Work,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

/// The commands about manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Say what a manifest comes to, or everything that is wrong with it
    Check {
        /// The manifest [default: longhaul.toml here or in a directory above, else the user's own]
        file: Option<PathBuf>,
    },
    /// Print the JSON schema of manifests, for editors
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// What the agent is to do
    pub(crate) message: String,
    /// A file to give with it: a picture, a PDF, a text; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) attach: Vec<PathBuf>,
    /// Make it a goal: go on, turn after turn, until it is reached, blocked, or its budget is used up
    #[arg(long, conflicts_with = "ephemeral")]
    pub(crate) goal: bool,
    /// Begin in plan mode, in which a goal is not pursued, while tools work as ever; `longhaul mode` leaves it
    #[arg(long)]
    pub(crate) plan: bool,
    /// The manifest of the agent [default: longhaul.toml here or in a directory above, else the user's own]
    #[arg(long, value_name = "FILE", conflicts_with = "script")]
    pub(crate) manifest: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Play a script (TOML) instead of asking a model; no language model is involved
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "model", "base_url", "key_env"])]
    pub(crate) script: Option<PathBuf>,
    /// The directory the agent works in [default: the manifest's, else this one]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
    /// A name for the session
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How often in a row a worker may die without progress before the session fails
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_crashes: Option<u32>,
    /// How many model calls a turn may make
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_steps: Option<u32>,
    /// Tools the agent may not use, separated by commas
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    pub(crate) deny: Vec<String>,
    /// Only create the session; another process drives it
    #[arg(long, conflicts_with = "ephemeral")]
    pub(crate) detach: bool,
    /// Makes it safe to run again: the same id goes on with the session it began
    #[arg(long, value_name = "ID", conflicts_with = "ephemeral")]
    pub(crate) request_id: Option<String>,
    /// Keep the log in memory only: the session is gone when the program ends
    #[arg(long)]
    pub(crate) ephemeral: bool,
    // The last: its heading would hold for what follows it.
    #[command(flatten, next_help_heading = "With --goal")]
    pub(crate) terms: GoalTerms,
}

/// Which model is asked, and where, in place of what a manifest says.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Who serves the model, such as anthropic, gemini, openai-responses, openrouter or ollama
    /// [default: the manifest's, else openai-chat]
    #[arg(long, value_name = "NAME", requires = "model", value_parser = Provider::served)]
    pub(crate) provider: Option<Provider>,
    /// The model, as its provider calls it, in place of the manifest's
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Where the provider is, such as http://localhost:8080/v1
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// The variable of the environment that holds the key for it
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key_env: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Kill the worker with SIGKILL in the middle of a model stream and of a tool call, and go on
    #[arg(long)]
    pub(crate) crash: bool,
    /// Where to lay out the demo; must not exist yet [default: a new directory for temporary files]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// First show what there is after this entry [default: the newest]
    #[arg(long, value_name = "ENTRY")]
    pub(crate) after: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The session
    pub(crate) session: String,
    /// What to say
    pub(crate) message: String,
    /// A file to give with it: a picture, a PDF, a text; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) attach: Vec<PathBuf>,
    /// Stop what is under way for it; otherwise it waits until the turn has ended
    #[arg(long)]
    pub(crate) interrupt: bool,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
    /// Makes it safe to send again: the same id is done once
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Interrupt {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// Also remove what is queued
    #[arg(long)]
    pub(crate) drop_queue: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Also list archived sessions
    #[arg(long)]
    pub(crate) all: bool,
    /// List at most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// Begin after this entry
    #[arg(long, value_name = "ENTRY", default_value_t = 0)]
    pub(crate) after: u64,
    /// Only the last entries
    #[arg(long, value_name = "N", conflicts_with = "after")]
    pub(crate) tail: Option<u64>,
    /// Go on as entries are added
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The session
    #[arg(default_value = "@last", conflicts_with = "all")]
    pub(crate) session: String,
    /// Every session
    #[arg(long)]
    pub(crate) all: bool,
}

/// A command that takes a session and nothing else.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// First show what there is after this entry [default: the newest]
    #[arg(long, value_name = "ENTRY")]
    pub(crate) after: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// How many sessions it drives at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) capacity: u32,
    /// How long running calls may go on once it is told to stop: 10s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = milliseconds)]
    pub(crate) grace: u64,
    /// End when nothing is left to do
    #[arg(long)]
    pub(crate) until_idle: bool,
}

impl Cli {
    /// Reads the command line; what cannot be used is told, and ends the program.
    pub(crate) fn read() -> Self {
        let cli = Cli::parse();
        if let Command::Run(run) = &cli.command
            && !run.goal
            && let Some(option) = run.terms.first_given()
        {
            let what = format!("{option} is about a goal; say --goal to make the message one");
            let mut command = Cli::command();
            // Its commands are known by their whole names only after this.
            command.build();
            let run = command.find_subcommand_mut("run").expect("it is a command");
            run.error(clap::error::ErrorKind::MissingRequiredArgument, what).exit();
        }
        cli
    }
}

impl Budgets {
    /// Tells whether nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        self.first_given().is_none()
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.budget.is_some(), "--budget"),
            (self.time.is_some(), "--time"),
            (self.cost.is_some(), "--cost"),
            (self.continuations.is_some(), "--continuations"),
            (self.hard, "--hard"),
            (self.soft, "--soft"),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, name)| name)
    }
}

impl GoalTerms {
    fn first_given(&self) -> Option<&'static str> {
        let others = [(!self.checks.is_empty(), "--check"), (!self.protected.is_empty(), "--protect")];
        let other = || others.into_iter().find(|(is_given, _)| *is_given).map(|(_, name)| name);
        self.budgets.first_given().or_else(other)
    }
}

/// Reads a time with its unit.
fn milliseconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("give a number and a unit: 500ms, 10s, 2m or 1h".to_owned()),
    };
    let number: Option<u64> = digits.parse().ok();
    let time_ms =
        number.and_then(|number| number.checked_mul(unit_ms)).filter(|time_ms| *time_ms <= MAX_TIME_MS);
    time_ms.ok_or_else(|| "give a whole number of at most a day, and a unit: 500ms, 10s, 2m or 1h".to_owned())
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("answer").required(true).args(["allow", "deny", "text"])))]
pub(crate) struct Answer {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// The call, where several wait
    #[arg(long, value_name = "ID")]
    pub(crate) call: Option<String>,
    /// The call may run
    #[arg(long)]
    pub(crate) allow: bool,
    /// The call may not run
    #[arg(long)]
    pub(crate) deny: bool,
    /// The answer to a question
    #[arg(long)]
    pub(crate) text: Option<String>,
    /// Why it may not, for the model
    #[arg(long, requires = "deny", conflicts_with_all = ["allow", "text"])]
    pub(crate) reason: Option<String>,
    /// Allow this tool from now on
    #[arg(long, requires = "allow", conflicts_with_all = ["deny", "text"])]
    pub(crate) remember: bool,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Queue {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// Remove the message of this entry
    #[arg(long, value_name = "ENTRY", conflicts_with = "promote")]
    pub(crate) drop: Option<u64>,
    /// Let the message of this entry go first, now
    #[arg(long, value_name = "ENTRY")]
    pub(crate) promote: Option<u64>,
    /// Do not drive the session
    #[arg(long, requires = "promote")]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// The session
    pub(crate) session: String,
    /// What the message says now
    pub(crate) message: String,
    /// A file to give with it, in place of those it had; may be repeated [default: those it had]
    #[arg(long, value_name = "FILE")]
    pub(crate) attach: Vec<PathBuf>,
    /// Give no files with it any more
    #[arg(long, conflicts_with = "attach")]
    pub(crate) no_attachments: bool,
    /// The entry of the message [default: the newest message]
    #[arg(long, value_name = "ENTRY")]
    pub(crate) entry: Option<u64>,
    /// Do not drive the session
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fork {
    /// The session
    pub(crate) session: String,
    /// What to say to the fork; without it, it only is made
    pub(crate) message: Option<String>,
    /// A file to give with it: a picture, a PDF, a text; may be repeated
    #[arg(long, value_name = "FILE", requires = "message")]
    pub(crate) attach: Vec<PathBuf>,
    /// The last entry it begins with [default: the newest]
    #[arg(long, value_name = "ENTRY")]
    pub(crate) at: Option<u64>,
    /// The directory the fork works in [default: the same]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// The session
    pub(crate) session: String,
    /// Its new name
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// The session
    pub(crate) session: String,
    /// Bring it back
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The session
    pub(crate) session: String,
    /// Really
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Redact {
    /// The session
    pub(crate) session: String,
    /// The entries
    #[arg(required = true, value_name = "ENTRY")]
    pub(crate) entries: Vec<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The session
    #[arg(default_value = "@last")]
    pub(crate) session: String,
    /// The file to write; it must not exist yet [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The export
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// A session
    pub(crate) one: String,
    /// Another
    pub(crate) other: String,
}

#[derive(Debug, Args)]
pub(crate) struct Record {
    /// The file to write; it must not exist yet
    pub(crate) file: PathBuf,
    /// What to run, such as: run "make the tests pass"
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The recording
    pub(crate) file: PathBuf,
    /// What to run [default: what was recorded]
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Do not ask the provider
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Look once and end
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
