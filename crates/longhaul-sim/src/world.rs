//! The world of one run: its clock, its chance, what happened in it, and the first thing that broke.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use longhaul_session::id::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::chance::Chance;
use crate::limits::MAX_LINE_CHARS;
use crate::plan::{Flaw, Plan, Rates};
use crate::truth::Truth;

/// The instant at which every run begins.
const BEGINNING: Timestamp = Timestamp(1_800_000_000_000);

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.invariant, self.what)
    }
}

/// How often each thing happened, by name.
pub type Coverage = BTreeMap<&'static str, u64>;

#[derive(Debug, Default)]
struct Happened {
    lines: Vec<String>,
    coverage: Coverage,
    broken: Option<Broken>,
}

/// The world of one run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) flaw: Option<Flaw>,
    chance: Mutex<Chance>,
    started: tokio::time::Instant,
    happened: Mutex<Happened>,
    truth: Mutex<Truth>,
    calm: AtomicBool,
    steps: AtomicU64,
    ids: AtomicU64,
    /// Fires when the troubles end.
    pub(crate) calmed: CancellationToken,
    /// Fires when something broke.
    pub(crate) over: CancellationToken,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "the clock of the simulated world")]
    pub(crate) fn new(plan: Plan, chance: Chance, flaw: Option<Flaw>) -> Self {
        World {
            plan,
            flaw,
            chance: Mutex::new(chance),
            started: tokio::time::Instant::now(),
            happened: Mutex::default(),
            truth: Mutex::default(),
            calm: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            ids: AtomicU64::new(1),
            calmed: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    /// Milliseconds since the run began.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant by the world's own clock, which is the store's.
    pub(crate) fn now(&self) -> Timestamp {
        BEGINNING.plus_ms(self.elapsed_ms())
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of the simulated world")]
    pub(crate) async fn sleep_ms(&self, delay_ms: u64) {
        tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
    }

    pub(crate) fn chance(&self) -> MutexGuard<'_, Chance> {
        lock(&self.chance)
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        self.chance().below(end)
    }

    /// Tells whether something of that probability happens: never, once the troubles are over.
    pub(crate) fn strikes(&self, rate: impl Fn(&Rates) -> u64) -> bool {
        !self.is_calm() && self.chance().happens(rate(&self.plan.rates))
    }

    pub(crate) fn happens(&self, per_mille: u64) -> bool {
        self.chance().happens(per_mille)
    }

    /// Makes an id that is later than those before it.
    pub(crate) fn fresh_id(&self) -> Uuid {
        let n = u128::from(self.ids.fetch_add(1, Ordering::Relaxed));
        Uuid::from_u128((n << 64) | u128::from(self.chance().next() >> 16))
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Ends the troubles.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.calmed.cancel();
    }

    pub(crate) fn truth(&self) -> MutexGuard<'_, Truth> {
        lock(&self.truth)
    }

    /// Notes that something happened, for readers of the log.
    pub(crate) fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        let mut line = format!("{:>9.3} {who:<6} {what}", self.elapsed_ms() as f64 / 1_000.0);
        if let Some((at, _)) = line.char_indices().nth(MAX_LINE_CHARS) {
            line.truncate(at);
        }
        lock(&self.happened).lines.push(line.replace('\n', "⏎"));
    }

    /// Counts that something happened.
    pub(crate) fn count(&self, what: &'static str) {
        *lock(&self.happened).coverage.entry(what).or_default() += 1;
    }

    /// Counts and notes a fault.
    pub(crate) fn fault(&self, who: &str, what: &'static str) {
        self.count(what);
        self.note(who, format_args!("! {what}"));
    }

    /// Notes that an invariant does not hold. The first is the one that counts.
    pub(crate) fn broken(&self, invariant: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.note("oracle", format_args!("BROKEN {invariant}: {what}"));
        lock(&self.happened).broken.get_or_insert(Broken { invariant, what });
        self.over.cancel();
    }

    /// Holds an invariant.
    pub(crate) fn hold(&self, holds: bool, invariant: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(invariant, what());
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Counts a step of the world; a run of too many does not come to rest.
    pub(crate) async fn step(&self) {
        let most = self.plan.steps;
        if self.steps.fetch_add(1, Ordering::Relaxed) == most {
            self.broken("Liveness", format!("the run took {most} steps and has not come to rest"));
        }
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns what happened, and what broke.
    pub(crate) fn finish(&self) -> (Vec<String>, Coverage, Option<Broken>) {
        let mut happened = lock(&self.happened);
        let Happened { lines, coverage, broken } = std::mem::take(&mut *happened);
        (lines, coverage, broken)
    }
}
