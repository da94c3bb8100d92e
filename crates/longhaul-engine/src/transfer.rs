//! Sessions that come from elsewhere or go to another directory: the log of an export, verified and made
//! a session of its own; a session moved. The form of exports is left to the caller.

use std::collections::{BTreeMap, BTreeSet};

use longhaul_session::command::{Command, Refusal};
use longhaul_session::decide::decide;
use longhaul_session::entry::{Content, Fact};
use longhaul_session::evolve::evolve;
use longhaul_session::id::{Digest, EntryNo, SessionId};
use longhaul_session::log::{SealedEntry, Verifier, open, seal};
use longhaul_session::state::SessionState;
use longhaul_store::{Appended, Cursor, Filter, Page, Parent, Row};

use crate::Error;
use crate::engine::{Created, Engine};
use crate::journal::{Committed, Journal};
use crate::limits::READ_BATCH;

/// Rows looked at in one go.
const ROWS: usize = 500;
/// The label that says where a session works.
const DIRECTORY: &str = "directory";

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is a session now.
    New(Created),
    /// This log is here already, as the beginning of this session.
    Known(SessionId),
    /// The log is not sound; nothing was stored. This is all that is wrong with it.
    Broken(Vec<String>),
}

impl Engine {
    /// Lets a session work in another directory from now on; `directory` is absolute.
    ///
    /// # Errors
    /// The store failed, or the session is not there. The inner error: its configuration was redacted.
    pub async fn move_to(&self, session: SessionId, directory: &str) -> Result<Result<(), Refusal>, Error> {
        let mut journal = Journal::load(self.store().clone(), self.host().clone(), session).await?;
        journal.context().await?;
        journal.labels.insert(DIRECTORY.to_owned(), directory.to_owned());
        let make = |journal: &Journal| {
            let context = journal.loaded_context();
            let configuration = context.and_then(|context| context.configuration());
            let mut configuration = configuration.map(|it| (**it).clone()).ok_or(Refusal::Invalid(
                "the configuration of the session was redacted, so no directory can be changed in it",
            ))?;
            directory.clone_into(&mut configuration.directory);
            Ok(Command::Configure(Box::new(configuration)))
        };
        Ok(match journal.command(make, None).await? {
            Committed::Done(_) | Committed::Repeated(_) => Ok(()),
            Committed::Refused(refusal) => Err(refusal),
        })
    }

    /// Returns the entries that a fork begins with whose content was redacted in the sessions it comes
    /// from, after it was made: its own log cannot say so.
    ///
    /// # Errors
    /// The store failed.
    pub async fn redacted_in_origin(&self, row: &Row) -> Result<BTreeSet<EntryNo>, Error> {
        let (mut redacted, mut parent) = (BTreeSet::new(), row.parent);
        while let Some(Parent { session, at }) = parent {
            let mut next = at + 1;
            loop {
                let entries = self.store().entries(session, next..=next + READ_BATCH - 1).await?;
                let Some(last) = entries.last() else { break };
                next = last.n + 1;
                for entry in entries.iter().filter(|entry| entry.kind == "redacted") {
                    if let Fact::Redacted { entry } = open(entry)?.record.fact
                        && entry <= at
                    {
                        redacted.insert(entry);
                    }
                }
            }
            parent = self.store().load(session).await?.and_then(|row| row.parent);
        }
        Ok(redacted)
    }

    /// Makes a session of an exported log, whole from its first entry. Nobody owns it, and nothing of
    /// the original is under way in it. `redacted` names the entries whose content was redacted in a
    /// session it comes from; `place` says where it can run.
    ///
    /// # Errors
    /// The store failed.
    pub async fn import(
        &self,
        origin: SessionId,
        mut entries: Vec<SealedEntry>,
        mut redacted: BTreeSet<EntryNo>,
        place: String,
    ) -> Result<Imported, Error> {
        redacted.retain(|n| entries.iter().any(|entry| entry.n == *n && entry.content.is_none()));
        let (mut state, problems) = folded(&entries, &redacted);
        let Some(last) = entries.last().map(|entry| (entry.n, entry.hash)) else {
            return Ok(Imported::Broken(vec!["the log has no entries".to_owned()]));
        };
        if !problems.is_empty() {
            return Ok(Imported::Broken(problems));
        }
        if let Some(known) = self.begins_with(last.0, last.1).await? {
            return Ok(Imported::Known(known));
        }
        let now = self.host().now();
        let mut head_hash = last.1;
        // What was redacted in the session it comes from, its own log says from now on.
        let redactions = redacted.into_iter().map(|entry| Command::Redact { entry });
        for command in std::iter::once(Command::Import { origin }).chain(redactions) {
            let decision = match decide(&state, command, now) {
                Ok(decision) => decision,
                Err(refusal) => return Ok(Imported::Broken(vec![refusal.to_string()])),
            };
            entries.extend(seal(head_hash, &decision.entries));
            head_hash = entries.last().map(|entry| entry.hash).unwrap_or_default();
            state = decision.state;
        }
        let session = SessionId(self.host().fresh_id());
        let journal = Journal::fresh(self.store().clone(), self.host().clone(), session, place);
        let row = Row { labels: labels(&entries), ..journal.row(&state, head_hash) };
        match self.store().create(row, entries, None).await? {
            Appended::Done => Ok(Imported::New(Created { session, head: state.head, repeated: false })),
            Appended::Conflict { .. } | Appended::Fenced { .. } | Appended::Repeated { .. } => {
                Err(Error::TooBusy { session })
            }
        }
    }

    /// Finds a session whose entry of that number has that hash: it begins with the same log.
    async fn begins_with(&self, n: EntryNo, hash: Digest) -> Result<Option<SessionId>, Error> {
        let mut after: Option<Cursor> = None;
        loop {
            let rows = self.store().list(Filter::default(), Page { after, limit: ROWS }).await?;
            let Some(last) = rows.last() else { return Ok(None) };
            after = Some(last.cursor());
            for row in rows.iter().filter(|row| row.head >= n) {
                let entry = self.store().entries(row.session, n..=n).await?;
                if entry.first().is_some_and(|entry| entry.hash == hash) {
                    return Ok(Some(row.session));
                }
            }
        }
    }
}

/// Folds a log and says all that is wrong with it.
fn folded(entries: &[SealedEntry], redacted: &BTreeSet<EntryNo>) -> (SessionState, Vec<String>) {
    let mut verifier = Verifier::default();
    redacted.iter().for_each(|n| verifier.redacted_in_origin(*n));
    let mut state = SessionState::default();
    for sealed in entries {
        verifier.push(sealed);
        if let Ok(entry) = open(sealed) {
            state = evolve(state, &entry.record);
        }
    }
    let (head, hash) = entries.last().map(|last| (last.n, last.hash)).unwrap_or_default();
    let mut problems = verifier.finish(head, hash, &state);
    if entries.first().is_some_and(|first| first.kind != "created") {
        problems.insert(0, "the log does not begin with the making of a session".to_owned());
    }
    (state, problems)
}

/// Returns the labels a session of this log has: its directory, from its newest configuration.
fn labels(entries: &[SealedEntry]) -> BTreeMap<String, String> {
    let newest = entries.iter().rev().filter(|entry| matches!(&*entry.kind, "configured" | "created"));
    let configured = newest.filter_map(|sealed| open(sealed).ok()?.content).find_map(|payload| {
        if let Content::Configuration { configuration } = payload.content {
            Some(configuration)
        } else {
            None
        }
    });
    configured.map(|configuration| (DIRECTORY.to_owned(), configuration.directory)).into_iter().collect()
}
