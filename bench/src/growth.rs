//! What a step costs late in a session against early in it, from one tool call to the next. Both the
//! engine's growth and the bare loop's, which has none but that of the request it must send.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::bare::{self, Committer, Log, Loop};
use crate::endpoint::Endpoint;
use crate::history::History;
use crate::measure::{Aim, Cost, Moment, Pairs, Spread, in_turn, say};
use crate::rig::{self, Rig};
use crate::wire;

/// Calls made before the measured ones; each is two entries.
const LATE: u64 = 500;
const EARLY: u64 = 5;
/// Calls of one round. The first are not counted.
const CALLS: u64 = 24;
const WARM_UP: usize = 4;

/// Moments at which the tool was called.
type Calls = Arc<Mutex<Vec<Moment>>>;

/// Measures and reports.
pub(crate) fn run(folder: &Path, pairs: usize) -> anyhow::Result<()> {
    let endpoint = Endpoint::start()?;
    let runtime = rig::runtime()?;
    let calls = Calls::default();
    let (noted, by_bare) = (Arc::clone(&calls), Arc::clone(&calls));
    let toolbox = rig::toolbox(move || note(&noted));
    let rig = runtime.block_on(Rig::open(folder, rig::models(&endpoint.url()), toolbox))?;
    let longhaul = |made: u64| {
        let mut history = History::begin(folder, &wire::model(made + CALLS))?;
        for n in 1..=made {
            history.step(n)?;
        }
        let session = runtime.block_on(history.store(&*rig.store))?;
        runtime.block_on(rig.drive(session))?;
        Ok(a_step(&calls))
    };
    let alone = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let http = bare::client()?;
    let log = Arc::new(Mutex::new(Log::open(&folder.join("growth-bare.db"))?));
    let bare = |made: u64| {
        let session = Uuid::new_v4().into_bytes();
        log.lock().unwrap_or_else(PoisonError::into_inner).begin(session)?;
        let committer = Committer::Alone(Arc::clone(&log));
        let run = Loop::new(http.clone(), &endpoint.url(), committer, session, made, made + CALLS)?;
        let noted = Arc::clone(&by_bare);
        alone.block_on(run.run(move || note(&noted)))?;
        Ok(a_step(&calls))
    };
    say("growth: a step after 1,000 entries against one after 10, all of them in the context");
    let measured = in_turn(pairs, || longhaul(LATE), || longhaul(EARLY))?;
    Pairs::of(&measured, |cost: &Cost| cost.wall_us).report("longhaul, wall time", "us", Aim::AtMost(1.3));
    let processor = |cost: &Cost| cost.processor_us;
    Pairs::of(&measured, processor).report("longhaul, processor time", "us", Aim::None);
    let measured = in_turn(pairs, || bare(LATE), || bare(EARLY))?;
    Pairs::of(&measured, |cost: &Cost| cost.wall_us).report("bare loop, wall time", "us", Aim::None);
    Pairs::of(&measured, processor).report("bare loop, processor time", "us", Aim::None);
    let measured = in_turn(pairs, || longhaul(LATE), || bare(LATE))?;
    Pairs::of(&measured, |cost: &Cost| cost.wall_us).report(
        "longhaul / bare loop, late, wall time",
        "us",
        Aim::None,
    );
    Pairs::of(&measured, processor).report("longhaul / bare loop, late, processor time", "us", Aim::None);
    Ok(())
}

fn note(calls: &Calls) {
    calls.lock().unwrap_or_else(PoisonError::into_inner).push(Moment::now());
}

/// Returns what a step of the calls noted took, and forgets them.
fn a_step(calls: &Calls) -> Cost {
    let moments = std::mem::take(&mut *calls.lock().unwrap_or_else(PoisonError::into_inner));
    let steps: Vec<Cost> = moments.windows(2).skip(WARM_UP).map(|two| two[1].since(two[0])).collect();
    let median = |number: fn(&Cost) -> f64| Spread::of(steps.iter().map(number).collect()).median;
    Cost { wall_us: median(|cost| cost.wall_us), processor_us: median(|cost| cost.processor_us) }
}
