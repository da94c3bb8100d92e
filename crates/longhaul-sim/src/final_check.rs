//! What must hold when a run has come to rest: all logs are sound, and what the world knows is in them.

use std::collections::BTreeMap;

use longhaul_engine::Engine;
use longhaul_session::entry::{Entry, Fact};
use longhaul_session::id::{EntryNo, SessionId};
use longhaul_session::item::Item;
use longhaul_session::ledger::Ledger;
use longhaul_session::usage::Usage;

use crate::oracle::charged;
use crate::run::Seen;
use crate::store::{Disk, short};
use crate::truth::Answered;
use crate::users::occurrences;
use crate::world::World;

/// A session's log, and how much of it it began with.
type Log = (EntryNo, Vec<Entry>);

/// Checks everything once more, as a whole.
pub(crate) async fn check(world: &World, disk: &Disk, engine: &Engine, readers: &[Seen]) {
    let mut logs: BTreeMap<SessionId, Log> = BTreeMap::new();
    for row in disk.rows() {
        match engine.verify(row.session).await {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => world.broken("Chain", format!("{}: {problems:?}", short(row.session))),
            Err(error) => world.broken("Chain", format!("{}: {error}", short(row.session))),
        }
        match engine.entries(row.session, 1..=row.head).await {
            Ok(entries) => {
                let begins_after = row.parent.map_or(0, |parent| parent.at);
                let whole = entries.iter().map(|entry| entry.record.n).eq(1..=row.head);
                world.hold(whole, "Chain", || format!("{} has gaps", short(row.session)));
                logs.insert(row.session, (begins_after, entries));
            }
            Err(error) => world.broken("Chain", format!("{}: {error}", short(row.session))),
        }
    }
    messages(world, &logs);
    files(world, &logs, engine).await;
    paid(world, &logs);
    ledgers(world, &logs);
    for seen in readers {
        let Some((session, seen)) = *seen.lock().expect("nobody panics here") else { continue };
        let head = logs.get(&session).map_or(0, |(_, entries)| entries.len() as EntryNo);
        world.hold(seen == head, "Stream", || format!("a reader of {} saw {seen} of {head}", short(session)));
        world.count("watcher saw everything");
    }
    world.count("run came to rest");
}

/// What was accepted is in the log once, what was refused is not, and nothing is there twice.
fn messages(world: &World, logs: &BTreeMap<SessionId, Log>) {
    for sent in &world.truth().sent {
        let Some((begins_after, entries)) = logs.get(&sent.session) else { continue };
        let (times, redacted) = occurrences(entries, *begins_after, &sent.text);
        let right = match sent.answered {
            Answered::Accepted => times == 1 || times == 0 && redacted,
            Answered::Refused => times == 0,
            Answered::Unknown => times <= 1,
        };
        world.hold(right, "Queue", || {
            let session = short(sent.session);
            format!("\"{}\" was {:?} and is {times} times in {session}", sent.text, sent.answered)
        });
    }
}

/// The files that a session's own entries name are kept, as long as these are not redacted.
async fn files(world: &World, logs: &BTreeMap<SessionId, Log>, engine: &Engine) {
    for (session, (begins_after, entries)) in logs {
        let own = entries.iter().filter(|entry| entry.record.n > *begins_after);
        let file = |item: &Item| if let Item::Attachment(file) = item { Some(file.digest) } else { None };
        for digest in own.flat_map(Entry::items).filter_map(file) {
            let kept = matches!(engine.store().artifact(digest).await, Ok(Some(_)));
            world.hold(kept, "Files", || format!("a file of {} is gone", short(*session)));
            world.count("file kept");
        }
    }
}

/// What a model reported is paid for, unless the runner that had asked it was lost or could not write.
fn paid(world: &World, logs: &BTreeMap<SessionId, Log>) {
    let truth = world.truth();
    for (id, attempt) in &truth.attempts {
        let Some(runner) = attempt.runner.filter(|_| attempt.charged.is_none()) else { continue };
        if attempt.reported.is_empty() || truth.failed.contains(&runner) {
            continue;
        }
        let Some((session, epoch)) = truth.runners.get(&runner) else { continue };
        let Some((_, entries)) = logs.get(session) else { continue };
        let lost = entries.iter().any(|entry| {
            matches!(entry.record.fact, Fact::Acquired { epoch: next, lost: true, .. } if next == epoch + 1)
        });
        world.hold(lost, "Ledger", || {
            format!(
                "attempt {id} by {} in epoch {epoch} of {} reported {:?} and was not paid for",
                attempt.process,
                short(*session),
                attempt.reported
            )
        });
    }
}

/// What a ledger says was spent is what the entries cost. That its parts and the state say the same was checked
/// with the log.
fn ledgers(world: &World, logs: &BTreeMap<SessionId, Log>) {
    for (session, (_, entries)) in logs {
        let (mut ledger, mut cost) = (Ledger::default(), Usage::default());
        for Entry { record, content } in entries {
            ledger.push(record, content.as_ref().map(|payload| &payload.content));
            cost += charged(&record.fact).unwrap_or_default();
        }
        let measured = ledger.total.totals.measured;
        world.hold(measured == cost, "Ledger", || {
            format!("{} spent {cost:?}, its ledger says {measured:?}", short(*session))
        });
    }
}
