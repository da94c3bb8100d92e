//! One run: troubles for a while, then peace, in which everything must come to rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use longhaul_engine::Engine;
use longhaul_session::command::Command;
use longhaul_session::id::{EntryNo, SessionId};
use longhaul_session::state::{SessionState, Status};

use crate::chance::Chance;
use crate::engine_log::{EngineLog, with_panics};
use crate::limits::{PATIENCE_MS, REST_WITHIN_MS};
use crate::oracle::Oracle;
use crate::plan::{Flaw, Plan};
use crate::process::Process;
use crate::scenario::{Scenario, end, stage};
use crate::store::{Disk, short};
use crate::users::{User, answer};
use crate::watchers::Reader;
use crate::workers::{self, Fleet};
use crate::world::{Broken, Coverage, World};
use crate::{final_check, workers::engine};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The name of the scenario, if one was played.
    pub scenario: Option<&'static str>,
    /// The first invariant that did not hold.
    pub broken: Option<Broken>,
    /// What happened, a line each: virtual time, who, what.
    pub log: Vec<String>,
    /// How often each thing happened.
    pub coverage: Coverage,
}

impl Outcome {
    /// Returns the command that runs it again.
    #[must_use]
    pub fn replay(&self) -> String {
        let scenario = self.scenario.map_or_else(String::new, |name| format!(" --scenario {name}"));
        format!("cargo xtask sim{scenario} --seed {} --log", self.seed)
    }
}

/// How far each reader has come, and in which session.
pub(crate) type Seen = Arc<Mutex<Option<(SessionId, EntryNo)>>>;

/// How often a world at rest is looked at, in milliseconds.
const LOOK_MS: u64 = 500;
/// Looks that must find everything at rest: longer than any write that comes late.
const QUIET_LOOKS: u32 = 12;

/// Runs the world of a seed; with a flaw, its store leaves out a rule.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn run(seed: u64, flaw: Option<Flaw>) -> Outcome {
    run_planned(seed, flaw, None)
}

/// Plays a scenario in the world of a seed.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn play(scenario: &'static Scenario, seed: u64) -> Outcome {
    run_planned(seed, None, Some(scenario))
}

fn run_planned(seed: u64, flaw: Option<Flaw>, scenario: Option<&'static Scenario>) -> Outcome {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime of one thread is made");
    let mut chance = Chance::new(seed);
    let plan = match scenario {
        None => Plan::draw(&mut chance),
        Some(scenario) => Plan::draw_for(scenario, &mut chance),
    };
    // Outside of its runtime the clock would be the machine's.
    let entered = runtime.enter();
    let world = Arc::new(World::new(plan, chance, flaw));
    world.note("seed", format_args!("{seed}: {:?}", world.plan));
    let log = EngineLog { world: Arc::clone(&world) };
    let ((), panic) = with_panics(|| {
        tracing::subscriber::with_default(log, || runtime.block_on(happen(&world)));
    });
    if let Some(panic) = panic {
        world.broken("Panic", panic);
    }
    drop(entered);
    drop(runtime);
    let (log, coverage, broken) = world.finish();
    Outcome { seed, scenario: scenario.map(|scenario| scenario.name), broken, log, coverage }
}

async fn happen(world: &Arc<World>) {
    let disk = Disk::new(Arc::clone(world), Some(Oracle::default()));
    let fleet = Arc::new(Fleet::default());
    let kind = if world.plan.lease { "run under leases" } else { "run under locks" };
    world.count(kind);
    for slot in 1..=world.plan.workers {
        tokio::spawn(workers::keep(Arc::clone(world), Arc::clone(&disk), Arc::clone(&fleet), slot));
    }
    let surface = |name: String| {
        let process = Process::new(name.clone(), None, world.below(world.plan.skew_ms + 1));
        engine(world, &disk, &process)
    };
    let mut users = tokio::task::JoinSet::new();
    for n in 1..=world.plan.users {
        let name = format!("user{n}");
        let (world, disk, engine) = (Arc::clone(world), Arc::clone(&disk), surface(name.clone()));
        users.spawn(User { name, world, disk, engine }.live());
    }
    let mut readers: Vec<Seen> = Vec::new();
    for n in 1..=world.plan.watchers {
        let seen = Seen::default();
        let (world, disk, fleet) = (Arc::clone(world), Arc::clone(&disk), Arc::clone(&fleet));
        tokio::spawn(Reader { name: format!("read{n}"), world, disk, fleet }.read(Arc::clone(&seen)));
        readers.push(seen);
    }
    let caretaker = surface("peace".to_owned());
    let story = async {
        let played = match world.plan.play {
            Some(play) => stage::play(world, &disk, &surface("person".to_owned()), play).await,
            None => {
                world.sleep_ms(world.plan.trouble_ms).await;
                None
            }
        };
        world.note("world", format_args!("the troubles are over"));
        world.calm_down();
        while users.join_next().await.is_some() {}
        settle(world, &disk, &caretaker).await;
        final_check::check(world, &disk, &caretaker, &readers).await;
        if let (Some(play), Some(session)) = (world.plan.play, played) {
            end::check(world, &caretaker, play, session).await;
        }
    };
    tokio::select! {
        biased;
        () = world.over.cancelled() => {}
        () = story => {}
    }
}

/// Waits until everything rests, doing what a person would: answering what is asked, stopping what hangs.
async fn settle(world: &World, disk: &Disk, engine: &Engine) {
    let deadline_ms = world.elapsed_ms() + REST_WITHIN_MS;
    let mut busy_since: BTreeMap<SessionId, u64> = BTreeMap::new();
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        world.sleep_ms(LOOK_MS).await;
        let mut busy = Vec::new();
        for row in disk.rows() {
            let Ok(state) = serde_json::from_slice::<SessionState>(&row.state) else { continue };
            let asked = match state.status {
                Status::Waiting | Status::Failed if state.owner.is_none() => {
                    busy_since.remove(&row.session);
                    continue;
                }
                Status::RequiresAction => answer(world, &state),
                Status::Running | Status::Interrupting | Status::Waiting | Status::Failed => None,
            };
            busy.push(format!("{} {}", short(row.session), state.status.name()));
            let since = busy_since.entry(row.session).or_insert_with(|| world.elapsed_ms());
            let impatient = world.elapsed_ms() - *since > PATIENCE_MS;
            let stop = Command::Interrupt { drop_queue: world.happens(500) };
            if impatient {
                *since = world.elapsed_ms();
            }
            if let Some(command) = asked.or(impatient.then_some(stop)) {
                drop(engine.command(row.session, command, None).await);
            }
        }
        quiet = if busy.is_empty() { quiet + 1 } else { 0 };
        if world.elapsed_ms() > deadline_ms {
            let minutes = REST_WITHIN_MS / 60_000;
            world.broken("Liveness", format!("{minutes} minutes after the troubles: {}", busy.join(", ")));
            return;
        }
    }
}
