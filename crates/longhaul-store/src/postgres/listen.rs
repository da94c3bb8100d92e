//! Hints: from this store's own appends, from the server's notifications, and, behind both, from asking the
//! server what has grown. On a connection of its own, so that no statement delays them, and notifying others
//! delays no append: who commits with a notification holds a lock of the whole server until the disk has it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_session::id::{EntryNo, SessionId};
use tokio::sync::{Notify, broadcast};
use tokio_postgres::Notification;
use uuid::Uuid;

use super::connections::wait;
use super::db::{Db, Opener};
use super::fault::Answer;
use super::read::unsigned;
use super::sql::{channel, xact_step};
use crate::Hint;
use crate::limits::{HINTS_KEPT, HINTS_TOGETHER, LISTEN_WAIT_MS, TRY_WAIT_MS};

/// Who is told of growth, and what they were told lately: most growth is heard of in three ways.
pub(super) struct Listeners {
    hints: broadcast::Sender<Hint>,
    told: Mutex<Told>,
    /// Growth that others are not notified of yet.
    news: Mutex<BTreeMap<SessionId, EntryNo>>,
    /// There is some.
    grown: Notify,
}

/// How often a store looks for growth, and how often it tells others of its own at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    pub(super) look_every_ms: u64,
    pub(super) tell_every_ms: u64,
}

/// The last heads that were told. Forgotten after two looks: then no look can find them any more, and if
/// one does, a doubled hint does no harm.
#[derive(Default)]
struct Told {
    lately: HashMap<SessionId, EntryNo>,
    before: HashMap<SessionId, EntryNo>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Listeners {
            hints: broadcast::Sender::new(HINTS_KEPT),
            told: Mutex::default(),
            news: Mutex::default(),
            grown: Notify::new(),
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    /// Tells who listens to this store and, soon, to others, of what this store has committed.
    pub(super) fn tell_all(&self, hint: Hint) {
        self.tell(hint);
        let mut news = self.news();
        // What finds no room is found by those who look.
        if news.len() < HINTS_KEPT || news.contains_key(&hint.session) {
            let head = news.entry(hint.session).or_default();
            *head = hint.head.max(*head);
        }
        drop(news);
        self.grown.notify_one();
    }

    /// Says whether there is growth that others are not notified of.
    pub(super) fn have_news(&self) -> bool {
        !self.news().is_empty()
    }

    fn tell(&self, hint: Hint) {
        let mut told = self.told();
        let before = told.before.get(&hint.session).copied();
        let known = told.lately.get(&hint.session).copied().or(before);
        told.lately.insert(hint.session, known.map_or(hint.head, |known| known.max(hint.head)));
        // Notifications may come late, those of this store's own among them.
        if known.is_none_or(|known| known < hint.head) {
            // Fails when nobody listens, which is no failure.
            let _ = self.hints.send(hint);
        }
    }

    /// Forgets a session that was deleted: another may get its id.
    pub(super) fn forget(&self, session: SessionId) {
        let mut told = self.told();
        told.lately.remove(&session);
        told.before.remove(&session);
        drop(told);
        self.news().remove(&session);
    }

    fn looked(&self) {
        let mut told = self.told();
        told.before = std::mem::take(&mut told.lately);
    }

    fn news(&self) -> std::sync::MutexGuard<'_, BTreeMap<SessionId, EntryNo>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What grew since a snapshot: all rows whose transaction was not over in it. A transaction that began
/// early and commits late is found too, which a sequence of positions would miss.
const GROWN: &str = concat!(
    "WITH moment AS (SELECT pg_current_snapshot() AS now) \
    SELECT pg_snapshot_xmin(moment.now)::text, s.id, s.head FROM moment LEFT JOIN sessions AS s \
      ON s.xact_step >= ",
    xact_step!("$1::text::bigint"),
    " AND s.xact >= $1::text::xid8 AND s.xact < pg_snapshot_xmax(moment.now)"
);

/// Returns the snapshot from which on a store looks for growth: what was before is no news.
pub(super) async fn moment(db: &Db) -> Answer<String> {
    let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text";
    let moment = db.one(sql, &[], |row| Ok(row.try_get(0)?)).await?;
    Ok(moment.ok_or_else(|| db.damaged("the server did not tell its transactions"))?)
}

/// Listens and looks, until it is aborted.
pub(super) async fn listen(
    opener: Arc<Opener>,
    listeners: Arc<Listeners>,
    mut since: String,
    rhythm: Rhythm,
) {
    let mut wait_ms = TRY_WAIT_MS;
    loop {
        // Whoever reads or writes meets the same fault and reports it. Here it costs hints, until the look
        // that follows the next connection.
        let _ = connected(&opener, &listeners, &mut since, rhythm, &mut wait_ms).await;
        wait(wait_ms).await;
        wait_ms = (wait_ms * 2).min(LISTEN_WAIT_MS);
    }
}

/// Listens and looks on one connection for as long as it lasts.
async fn connected(
    opener: &Opener,
    listeners: &Arc<Listeners>,
    since: &mut String,
    rhythm: Rhythm,
    wait_ms: &mut u64,
) -> Answer<()> {
    let told = Arc::clone(listeners);
    let notified = move |notification: Notification| {
        for hint in parse(notification.payload()) {
            told.tell(hint);
        }
    };
    let db = opener.connect_listening(notified).await?;
    let channel = db.one(concat!("SELECT ", channel!()), &[], |row| Ok(row.try_get::<_, String>(0)?)).await?;
    if let Some(channel) = channel {
        db.batch(&format!("LISTEN {channel}")).await?;
    }
    loop {
        look(&db, listeners, since).await?;
        *wait_ms = TRY_WAIT_MS;
        let next_look = wait(rhythm.look_every_ms);
        let telling = async {
            loop {
                while !listeners.have_news() {
                    listeners.grown.notified().await;
                }
                tell_others(&db, listeners).await?;
                wait(rhythm.tell_every_ms).await;
            }
        };
        tokio::select! {
            biased;
            () = next_look => {}
            told = telling => return told,
        }
    }
}

const TELL: &str = concat!("SELECT pg_notify(", channel!(), ", $1)");

/// Notifies others of the growth they were not notified of.
pub(super) async fn tell_others(db: &Db, listeners: &Listeners) -> Answer<()> {
    let news: Vec<(SessionId, EntryNo)> = listeners.news().iter().map(|(id, head)| (*id, *head)).collect();
    for hints in news.chunks(HINTS_TOGETHER) {
        let words: Vec<String> = hints.iter().map(|(id, head)| format!("{}:{head}", id.0.simple())).collect();
        db.one(TELL, &[&words.join(",")], |_| Ok(())).await?;
    }
    // Only now: whoever is interrupted tells them again.
    let mut left = listeners.news();
    for (session, head) in news {
        if left.get(&session) == Some(&head) {
            left.remove(&session);
        }
    }
    Ok(())
}

async fn look(db: &Db, listeners: &Listeners, since: &mut String) -> Answer<()> {
    let grown = db
        .all(GROWN, &[since], |row| {
            let hint = match row.try_get::<_, Option<&[u8]>>(1)? {
                Some(id) => Some(Hint { session: SessionId(Uuid::from_slice(id)?), head: unsigned(row, 2)? }),
                None => None,
            };
            Ok((row.try_get::<_, String>(0)?, hint))
        })
        .await?;
    if let Some((moment, _)) = grown.first() {
        since.clone_from(moment);
    }
    for (_, hint) in grown {
        hint.into_iter().for_each(|hint| listeners.tell(hint));
    }
    listeners.looked();
    Ok(())
}

/// Reads a notification: `session:head`, several joined by commas. What is not of this form is nobody's.
fn parse(payload: &str) -> impl Iterator<Item = Hint> + '_ {
    payload.split(',').filter_map(|part| {
        let (session, head) = part.split_once(':')?;
        Some(Hint { session: SessionId(Uuid::parse_str(session).ok()?), head: head.parse().ok()? })
    })
}
