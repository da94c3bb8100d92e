//! The commands that change a session without giving it work by themselves, or that make another of it:
//! `queue`, `edit`, `answer`, `fork`, `clear`, `compact`, `rename`, `archive`, `delete`, `redact`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use longhaul_engine::Snapshot;
use longhaul_session::command::{Answer, Command, Refusal};
use longhaul_session::entry::Place;
use longhaul_session::id::{CallId, SessionId};
use longhaul_session::state::PendingCall;
use longhaul_store::Deleted;

use crate::app::{App, check_name, path_text};
use crate::attach;
use crate::cli;
use crate::drive::drive;
use crate::start::go_on;
use crate::summary;

/// The widest a queued message is on paper; a terminal may be narrower.
const QUEUE_COLUMNS: usize = 160;

/// Does one command and says what was done.
async fn change(app: &App, session: SessionId, command: Command, done: &str) -> anyhow::Result<ExitCode> {
    app.engine.command(session, command, None).await??;
    say(app, session, done)
}

pub(crate) fn say(app: &App, session: SessionId, done: &str) -> anyhow::Result<ExitCode> {
    let mut out = anstream::stdout();
    if app.options.json {
        writeln!(out, "{}", serde_json::json!({ "session": session, "done": done }))?;
    } else {
        writeln!(out, "{} · session {}", done, summary::short_id(session))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists, removes or promotes queued messages.
pub(crate) async fn queue(app: &App, args: cli::Queue) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    if let Some(message) = args.drop {
        return change(app, session, Command::Unqueue { message }, "removed from the queue").await;
    }
    if let Some(message) = args.promote {
        let head = app.engine.snapshot(session).await?.row.head;
        app.engine.command(session, Command::Promote { message }, None).await??;
        return go_on(app, session, head, args.detach).await;
    }
    let state = app.engine.snapshot(session).await?.state;
    let mut out = anstream::stdout();
    if state.queue.is_empty() && !app.options.json {
        writeln!(out, "Nothing is queued.")?;
    }
    for n in state.queue {
        for entry in app.engine.entries(session, n..=n).await? {
            let content = entry.content.as_ref().map(|payload| &payload.content);
            if app.options.json {
                writeln!(out, "{}", serde_json::json!({ "message": n, "items": entry.items() }))?;
                continue;
            }
            let text = format!("{n:>5}  {}", summary::entry(&entry.record, content));
            let columns = console::Term::stdout().size_checked().map_or(QUEUE_COLUMNS, |size| size.1.into());
            writeln!(out, "{}", console::truncate_str(&text, columns, "…"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces a message, the newest one by default, and goes on from there.
pub(crate) async fn edit(app: &App, args: cli::Edit) -> anyhow::Result<ExitCode> {
    if args.message.trim().is_empty() {
        bail!("there is nothing to say: the new message is empty");
    }
    let session = app.find(&args.session).await?;
    let snapshot = app.engine.snapshot(session).await?;
    let (engine, text) = (&app.engine, &args.message);
    let edited = if args.attach.is_empty() && !args.no_attachments {
        engine.edit(session, args.entry, text, None).await?
    } else {
        let files = attach::read_for(app, &snapshot, &args.attach).await?;
        engine.edit_with_files(session, args.entry, text, &files, None).await?
    };
    match (edited, args.entry) {
        (Ok(_), _) => go_on(app, session, snapshot.row.head, args.detach).await,
        (Err(Refusal::NotEditable(_)), Some(entry)) if snapshot.state.queue.contains(&entry) => bail!(
            "entry {entry} is a message that waits in the queue; remove it with `longhaul queue --drop {entry}` \
             and send another"
        ),
        (Err(Refusal::NotEditable(_)), None) => {
            bail!("the model sees no message of yours that could be edited; send one instead")
        }
        (Err(refusal), _) => Err(refusal.into()),
    }
}

/// Answers an open approval or question, and goes on.
pub(crate) async fn answer(app: &App, args: cli::Answer) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let snapshot = app.engine.snapshot(session).await?;
    let open: Vec<&PendingCall> = snapshot
        .state
        .pending
        .iter()
        .filter(|call| matches!(call.place, Place::Approval | Place::Question))
        .collect();
    let call = match (&args.call, &open[..]) {
        (Some(id), _) => CallId(id.clone()),
        (None, [one]) => one.id.clone(),
        (None, []) => bail!("no call of this session waits for an answer; `longhaul show` says what it does"),
        (None, several) => {
            let ids: Vec<String> =
                several.iter().map(|call| format!("{} ({})", call.id, call.tool)).collect();
            bail!("several calls wait for an answer: {}; name one with --call", ids.join(", "))
        }
    };
    let answer = match (args.allow, args.text) {
        (true, _) => Answer::Allow,
        (false, Some(text)) => Answer::Value(text),
        (false, None) => Answer::Deny { reason: args.reason },
    };
    let command = Command::Answer { call, answer, remember: args.remember };
    app.engine.command(session, command, None).await??;
    go_on(app, session, snapshot.row.head, args.detach).await
}

/// Makes a session that begins as the first entries of another.
pub(crate) async fn fork(app: &App, args: cli::Fork) -> anyhow::Result<ExitCode> {
    if args.message.as_ref().is_some_and(|text| text.trim().is_empty()) {
        bail!("there is nothing to say to the fork: the message is empty");
    }
    let directory = args.dir.as_deref().map(usable_directory).transpose()?;
    let parent = app.find(&args.session).await?;
    let snapshot = app.engine.snapshot(parent).await?;
    let files = attach::read_for(app, &snapshot, &args.attach).await?;
    let head = snapshot.row.head;
    let at = args.at.unwrap_or(head);
    let fork = match app.engine.fork(parent, at).await? {
        Ok(fork) => fork.session,
        Err(Refusal::NoSuchEntry(at)) => {
            bail!("there is no entry {at} to fork at; the first is 1, the last is {head}")
        }
        Err(refusal) => return Err(refusal.into()),
    };
    if let Some(directory) = &directory {
        if let Err(refusal) = app.engine.move_to(fork, directory).await? {
            app.engine.store().delete(fork).await?;
            return Err(refusal.into());
        }
    } else if !app.options.json {
        let note = "both work in the same directory; --dir gives the fork another";
        writeln!(anstream::stderr(), "note: {note}")?;
    }
    if let Some(text) = args.message {
        let head = app.engine.snapshot(fork).await?.row.head;
        app.engine.send(fork, &text, &files, false, None).await??;
        return drive(app, fork, head).await;
    }
    say(app, fork, &format!("forked at entry {at}"))
}

fn usable_directory(directory: &Path) -> anyhow::Result<String> {
    let path = directory
        .canonicalize()
        .with_context(|| format!("the directory {} cannot be used; make it first", directory.display()))?;
    if !path.is_dir() {
        bail!("{} is not a directory; choose one with --dir", path.display());
    }
    path_text(&path)
}

/// Starts the model's context anew; the log keeps everything.
pub(crate) async fn clear(app: &App, args: cli::One) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    change(app, session, Command::ClearContext, "the model's context starts anew; the log keeps all").await
}

/// Summarises the history now.
pub(crate) async fn compact(app: &App, args: cli::Compact) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let head = app.engine.snapshot(session).await?.row.head;
    app.engine.command(session, Command::RequestCompaction, None).await??;
    go_on(app, session, head, args.detach).await
}

/// Names a session.
pub(crate) async fn rename(app: &App, args: cli::Rename) -> anyhow::Result<ExitCode> {
    check_name(&args.name)?;
    let session = app.find(&args.session).await?;
    change(app, session, Command::Rename { name: Some(args.name) }, "renamed").await
}

/// Puts a session away, or brings it back.
pub(crate) async fn archive(app: &App, args: cli::Archive) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let is_archived = app.engine.snapshot(session).await?.state.archived;
    if args.undo {
        if !is_archived {
            bail!("the session is not archived");
        }
        return change(app, session, Command::Unarchive, "brought back").await;
    }
    if is_archived {
        bail!("the session is archived already");
    }
    let id = summary::short_id(session);
    change(
        app,
        session,
        Command::Archive,
        &format!("archived; `longhaul archive --undo {id}` brings it back"),
    )
    .await
}

/// Removes a session and all that only it uses.
pub(crate) async fn delete(app: &App, args: cli::Delete) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    if !args.yes {
        bail!("{session} would be gone for good; say --yes to delete it, or archive it instead");
    }
    match app.engine.store().delete(session).await? {
        Deleted::Done => {
            tidy_away(app).await?;
            say(app, session, "deleted")
        }
        Deleted::NoSuchSession => bail!("{session} is gone already"),
        Deleted::NeededBy { fork } => {
            bail!(
                "{session} cannot be deleted: the fork {fork} begins with its entries; delete the fork first"
            )
        }
        Deleted::Owned { worker } => {
            bail!("{session} cannot be deleted: worker {worker} is running it; interrupt it first")
        }
    }
}

/// Removes the content of entries; that they were there, and their digests, stay. All of them, or none.
pub(crate) async fn redact(app: &App, args: cli::Redact) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    let Snapshot { row, state } = app.engine.snapshot(session).await?;
    let entries = BTreeSet::from_iter(args.entries);
    if let Some(parent) = row.parent.filter(|parent| entries.iter().any(|n| (1..=parent.at).contains(n))) {
        bail!(
            "the first {} belong to {}, from which this session was forked; redact them there",
            summary::entries(parent.at),
            parent.session
        );
    }
    for n in &entries {
        if !state.archived && [state.configured_at, state.prepared_at].contains(n) && *n > 0 {
            bail!(
                "entry {n} is what the session runs with, and it could not go on without it; \
                 archive the session first if it is over"
            );
        }
        let found = app.engine.store().entries(session, *n..=*n).await?;
        match &found[..] {
            [] => bail!("there is no entry {n}; the first is 1, the last is {}", row.head),
            [entry, ..] if entry.content.is_none() => {
                bail!("entry {n} has no content that could be redacted")
            }
            _ => {}
        }
    }
    for entry in &entries {
        app.engine.command(session, Command::Redact { entry: *entry }, None).await??;
    }
    tidy_away(app).await?;
    say(app, session, &format!("{} redacted", summary::entries(entries.len() as u64)))
}

/// Closes the store properly: the last to do so empties its write-ahead log, in which what was removed
/// would live on.
async fn tidy_away(app: &App) -> anyhow::Result<()> {
    Ok(app.engine.store().close().await?)
}
