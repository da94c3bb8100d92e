//! The watchers: readers that come, read at their own pace, lose their connection and resume.

use std::sync::Arc;

use longhaul_engine::{EpisodeKey, Event};
use longhaul_session::id::{EntryNo, SessionId};

use crate::store::{Disk, short};
use crate::workers::Fleet;
use crate::world::World;

/// A reader of one session.
pub(crate) struct Reader {
    pub(crate) name: String,
    pub(crate) world: Arc<World>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) fleet: Arc<Fleet>,
}

impl Reader {
    /// Reads a session until the run ends, from a cursor of its own choice, wherever it can connect.
    pub(crate) async fn read(self, seen: Arc<std::sync::Mutex<Option<(SessionId, EntryNo)>>>) {
        let world = &self.world;
        world.sleep_ms(world.below(world.plan.trouble_ms)).await;
        let rows = self.disk.rows();
        // A scenario may be over by now.
        if rows.is_empty() || world.is_calm() {
            return;
        }
        let row = world.chance().pick(&rows).clone();
        if !self.fleet.take(row.session) {
            return;
        }
        let mut cursor = world.below(row.head + 1);
        loop {
            let note = |cursor| *seen.lock().expect("nobody panics here") = Some((row.session, cursor));
            note(cursor);
            let Some((process, engine)) = self.fleet.any(world) else {
                world.sleep_ms(500).await;
                continue;
            };
            world.count("watcher connects");
            let mut watcher = engine.watch(row.session, cursor);
            let mut live: Option<(EpisodeKey, usize)> = None;
            loop {
                let leaves_ms = if world.is_calm() { u64::MAX / 4 } else { 100 + world.below(20_000) };
                let event = tokio::select! {
                    biased;
                    () = process.killed() => break,
                    event = watcher.next() => event,
                    () = world.sleep_ms(leaves_ms) => break,
                };
                match event {
                    Err(error) => {
                        world.note(&self.name, format_args!("disconnected: {error}"));
                        world.sleep_ms(300).await;
                        break;
                    }
                    Ok(Event::Entry(entry)) => {
                        let n = entry.record.n;
                        world.count("watcher sees an entry");
                        self.hold(n == cursor + 1, row.session, || format!("entry {n} came after {cursor}"));
                        let stored = self.disk.entries(row.session, n..=n).unwrap_or_default();
                        let same = stored.first().is_some_and(|it| it.kind == entry.record.fact.kind());
                        self.hold(same, row.session, || format!("entry {n} is not the stored one"));
                        cursor = n;
                        note(cursor);
                    }
                    Ok(Event::Live { episode, k, .. }) => {
                        world.count("watcher sees a live part");
                        let before = live.filter(|(key, _)| *key == episode).map_or(0, |(_, k)| k);
                        let next = k == before + 1;
                        self.hold(next, row.session, || {
                            format!("part {k} of {episode:?} came after {before}")
                        });
                        live = Some((episode, k));
                    }
                    Ok(Event::PreviewReset { episode }) => {
                        world.count("watcher sees a reset");
                        let shown = live.take().is_some_and(|(key, _)| key == episode);
                        self.hold(shown, row.session, || format!("{episode:?} is reset and was not shown"));
                    }
                }
                if !world.is_calm() && world.happens(300) {
                    world.sleep_ms(world.below(1_500)).await;
                }
            }
        }
    }

    fn hold(&self, holds: bool, session: SessionId, what: impl FnOnce() -> String) {
        self.world.hold(holds, "Stream", || format!("{} of {}: {}", self.name, short(session), what()));
    }
}
