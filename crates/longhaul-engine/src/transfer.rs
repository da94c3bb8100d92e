//! Sessions that come from elsewhere: the log of an export, verified and made a session of its own.

use longhaul_session::agent::Configuration;
use longhaul_session::command::Command;
use longhaul_session::decide::decide;
use longhaul_session::evolve::evolve;
use longhaul_session::id::{Digest, EntryNo, SessionId};
use longhaul_session::log::{SealedEntry, Verifier, open, seal};
use longhaul_session::state::SessionState;
use longhaul_store::{Appended, Cursor, Filter, Page, Row};

use crate::Error;
use crate::engine::{Created, Engine};
use crate::journal::Journal;

/// Rows looked at in one go.
const ROWS: usize = 500;

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
    /// Returns the configuration in force.
    ///
    /// # Errors
    /// The store failed, or the session is not there.
    pub async fn configuration(&self, session: SessionId) -> Result<Option<Configuration>, Error> {
        let mut journal = Journal::load(self.store().clone(), self.host().clone(), session).await?;
        Ok(journal.context().await?.configuration().map(|configuration| (**configuration).clone()))
    }

    /// Makes a session of an exported log, whole from its first entry. Nobody owns it, and nothing of
    /// the original is under way in it. `place` says where it can run.
    ///
    /// # Errors
    /// The store failed.
    pub async fn import(
        &self,
        origin: SessionId,
        mut entries: Vec<SealedEntry>,
        place: String,
    ) -> Result<Imported, Error> {
        let (state, problems) = folded(&entries);
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
        let decision = match decide(&state, Command::Import { origin }, now) {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Imported::Broken(vec![refusal.to_string()])),
        };
        entries.extend(seal(last.1, &decision.entries));
        let head_hash = entries.last().map(|entry| entry.hash).unwrap_or_default();
        let session = SessionId(self.host().fresh_id());
        let journal = Journal::fresh(self.store().clone(), self.host().clone(), session, place);
        let row = Row { labels: labels(&entries), ..journal.row(&decision.state, head_hash) };
        match self.store().create(row, entries, None).await? {
            Appended::Done => Ok(Imported::New(Created { session, head: decision.state.head })),
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
fn folded(entries: &[SealedEntry]) -> (SessionState, Vec<String>) {
    let mut verifier = Verifier::default();
    let mut state = SessionState::default();
    for sealed in entries {
        verifier.push(sealed);
        if let Ok(entry) = open(sealed) {
            state = evolve(state, &entry.record);
        }
    }
    let (head, hash) = entries.last().map(|last| (last.n, last.hash)).unwrap_or_default();
    let problems = verifier.finish(head, hash, &state);
    (state, problems)
}

/// Returns the labels a session of this log has: its directory, from its newest configuration.
fn labels(entries: &[SealedEntry]) -> std::collections::BTreeMap<String, String> {
    use longhaul_session::entry::Content;
    let newest = entries.iter().rev().filter(|entry| matches!(&*entry.kind, "configured" | "created"));
    let configured = newest.filter_map(|sealed| open(sealed).ok()?.content).find_map(|payload| {
        if let Content::Configuration { configuration } = payload.content {
            Some(configuration)
        } else {
            None
        }
    });
    configured.map(|configuration| ("directory".to_owned(), configuration.directory)).into_iter().collect()
}
