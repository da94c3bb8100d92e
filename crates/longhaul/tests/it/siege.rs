//! Workers on one Postgres under siege: killed, stopped past their lease and continued, with a database that
//! restarts under them. What must hold then is checked against the logs, and against the files that the calls
//! have written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longhaul_test_postgres::{Database, Server, Settings, leaves_out};
use rustix::process::Signal;
use serde_json::Value;

use crate::workers::rested;
use crate::world::{Running, World, pause, until};

/// Short, so that a test need not wait long for a session to be free; and longer than a busy machine lets a
/// process that nobody has stopped wait for its turn.
const LEASE_MS: u64 = 8_000;
/// Longer than a lease: who is stopped for so long has lost its sessions.
const STALL: Duration = Duration::from_millis(LEASE_MS * 8 / 5);
const OUTAGE: Duration = Duration::from_secs(1);
/// Looks for the end, a second apart.
const LOOKS: usize = 600;

/// Leaves a line when it begins and one when it ends: which call it is, and who ran it.
const EFFECT: &str = "\
echo \"start $LONGHAUL_IDEMPOTENCY_KEY $2 $(date +%s%3N)\" >> effects.log
sleep $1
echo \"end $LONGHAUL_IDEMPOTENCY_KEY $2 $(date +%s%3N)\" >> effects.log
";

/// What happens to the oldest worker, or to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    Stall,
    Restart,
    Crash,
}

/// How large a siege is.
struct Scale {
    sessions: usize,
    workers: usize,
    capacity: &'static str,
    /// Three steps each, of two calls each.
    rounds: usize,
    blows: &'static [Blow],
}

#[test]
fn fifty_sessions_outlive_killed_and_stalled_workers_and_a_database_that_restarts() {
    if leaves_out("it is on Postgres wherever the others are") {
        return;
    }
    use Blow::{Crash, Kill, Restart, Stall};
    let blows = &[Kill, Stall, Restart, Kill, Stall, Crash, Stall, Kill, Stall, Kill];
    survive(&Scale { sessions: 50, workers: 3, capacity: "25", rounds: 5, blows });
}

fn survive(scale: &Scale) {
    let server = Server::start(&Settings { durable: true, ..Settings::default() }).unwrap();
    let database = Database::create_on_aside(&server.url()).unwrap();
    let mut siege = Siege::begin(World::in_database(database).losing_the_dead_soon(), scale);
    for blow in scale.blows {
        siege.strike(*blow, &server);
    }
    siege.finish();
    siege.check(scale);
}

struct Siege {
    world: World,
    capacity: &'static str,
    sessions: Vec<String>,
    /// The oldest first.
    workers: Vec<Running>,
    /// The processes of all workers there have been.
    processes: BTreeMap<String, i64>,
    /// Those that were stopped and continued.
    stalled: BTreeSet<i64>,
}

impl Siege {
    fn begin(world: World, scale: &Scale) -> Self {
        std::fs::write(world.work("effect.sh"), EFFECT).unwrap();
        world.write("script.toml", &script(scale.rounds));
        let create = |n| {
            let directory = format!("work/{n}");
            std::fs::create_dir(world.path(&directory)).unwrap();
            let args = ["run", "--script", "script.toml", "--dir", &directory, "--detach", "go"];
            let limits = ["--max-crashes", "1000000"];
            world.succeed(&[&args[..], &limits].concat()).trim().to_owned()
        };
        let sessions = (0..scale.sessions).map(create).collect();
        let (workers, processes, stalled) = Default::default();
        let mut siege = Siege { world, capacity: scale.capacity, sessions, workers, processes, stalled };
        (0..scale.workers).for_each(|_| siege.reinforce());
        siege
    }

    /// Starts another worker.
    fn reinforce(&mut self) {
        let args = ["--json", "worker", "--capacity", self.capacity, "--grace", "500ms"];
        let mut worker = self.world.start(&args);
        worker.wait_for("\"type\":\"worker\"");
        let started: Value = serde_json::from_str(&worker.next_line().unwrap()).unwrap();
        let name = started["worker"].as_str().unwrap().to_owned();
        self.processes.insert(name, started["pid"].as_i64().unwrap());
        self.workers.push(worker);
    }

    fn strike(&mut self, blow: Blow, server: &Server) {
        self.workers[0].wait_for("\"type\":\"claimed\"");
        pause(Duration::from_millis(700));
        match blow {
            Blow::Kill => {
                self.workers.remove(0).kill();
                self.reinforce();
            }
            Blow::Stall => {
                let stalled = self.workers.remove(0);
                stalled.signal(Signal::STOP);
                let pid = i64::from(stalled.pid().as_raw_nonzero().get());
                let had = self.owned_by(pid);
                pause(STALL);
                until("others have what a stalled worker had", || had == 0 || self.owned_by(pid) < had);
                stalled.signal(Signal::CONT);
                self.stalled.insert(pid);
                self.workers.push(stalled);
            }
            Blow::Restart | Blow::Crash => {
                let stop = if blow == Blow::Crash { Server::crash } else { Server::stop };
                stop(server).unwrap();
                pause(OUTAGE);
                server.start_again().unwrap();
            }
        }
    }

    /// Returns how many sessions a worker's process owns.
    fn owned_by(&self, pid: i64) -> i64 {
        let mut named = self.processes.iter().filter(|(_, process)| **process == pid);
        let name = named.next().map(|(name, _)| name.replace('-', "")).unwrap();
        let owned = format!("SELECT count(*) FROM sessions WHERE owner = decode('{name}', 'hex')");
        self.world.kept.ask(&owned)[0]
    }

    /// Waits until every session rests, and ends the workers.
    fn finish(&mut self) {
        let all = self.sessions.len();
        let done = (0..LOOKS).any(|_| {
            pause(Duration::from_secs(1));
            rested(&self.world) == all
        });
        assert!(done, "{} of {all} sessions rest", rested(&self.world));
        for worker in self.workers.drain(..) {
            worker.signal(Signal::TERM);
            let ran = worker.finish();
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        }
        // What a stalled worker had begun may go on until it is told to stop.
        until("no call runs", || !self.effects().any(|effects| effects.values().any(Effect::is_under_way)));
    }

    fn effects(&self) -> impl Iterator<Item = BTreeMap<String, Effect>> {
        (0..self.sessions.len()).map(|n| read_effects(&self.world, n))
    }

    fn check(&self, scale: &Scale) {
        self.world.succeed(&["verify", "--all"]);
        let mut totals = Totals::default();
        for (n, (session, effects)) in self.sessions.iter().zip(self.effects()).enumerate() {
            let log = Log::read(&self.world, session);
            assert_eq!(log.outcomes.len(), scale.rounds * 6, "every call of session {n} has one result");
            for key in effects.keys() {
                assert!(log.outcomes.contains_key(key), "{key} ran in session {n} and is not in its log");
            }
            for (key, outcome) in &log.outcomes {
                self.judge(key, outcome, effects.get(key).unwrap_or(&Effect::default()), &log, &mut totals);
            }
            totals.losses += log.acquisitions.iter().filter(|it| it.lost).count();
            totals.from_stalled += log
                .acquisitions
                .windows(2)
                .filter(|pair| pair[1].lost && self.stalled.contains(&self.processes[&pair[0].worker]))
                .count();
        }
        println!("{totals:?}, {} workers, of which {} stalled", self.processes.len(), self.stalled.len());
        assert!(totals.from_stalled > 0, "no session was taken from a stalled worker");
        assert!(totals.losses > totals.from_stalled, "no session was taken from a killed worker");
    }

    /// Holds what the log says of a call against what the call has left.
    fn judge(&self, key: &str, outcome: &Outcome, effect: &Effect, log: &Log, totals: &mut Totals) {
        assert!(effect.begun.len() <= 1, "{key} was started more than once: {effect:?}");
        match outcome.word.as_str() {
            "ok" => {
                assert_eq!((effect.begun.len(), effect.ended), (1, 1), "{key} is said to be done");
                let (process, _) = effect.begun[0];
                assert_eq!(process, self.processes[&outcome.by], "{key}: who ran it committed it");
                totals.done += 1;
            }
            "not_run" => assert!(effect.begun.is_empty(), "{key} is said not to have run: {effect:?}"),
            "unknown" => totals.unknown += 1,
            "stopped" => totals.stopped += 1,
            other => panic!("{key} ended as {other}"),
        }
        for (process, at) in &effect.begun {
            if !self.processes.values().any(|known| known == process) {
                // Its worker was killed before it could ask who that is.
                assert_eq!(outcome.word, "unknown", "{key} was begun by a worker that was killed");
            } else if log.is_late(&self.processes, *process, *at) {
                // It had asked its lease, and was stopped before the call began.
                assert!(self.stalled.contains(process), "{key} was begun by an owner that was not stalled");
                assert_eq!(outcome.word, "unknown", "{key} was begun by an owner of before");
                totals.late += 1;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Totals {
    done: usize,
    unknown: usize,
    stopped: usize,
    /// Begun after another had taken the session over.
    late: usize,
    losses: usize,
    from_stalled: usize,
}

/// What a call has left: who began it and when, and how often it came to its end.
#[derive(Debug, Default)]
struct Effect {
    begun: Vec<(i64, i64)>,
    ended: usize,
}

impl Effect {
    /// Tells whether it may still come to its end. What was killed never does.
    fn is_under_way(&self) -> bool {
        let living = |(process, _): &(i64, i64)| std::path::Path::new(&format!("/proc/{process}")).exists();
        self.ended < self.begun.len() && self.begun.iter().any(living)
    }
}

fn read_effects(world: &World, n: usize) -> BTreeMap<String, Effect> {
    let text = std::fs::read_to_string(world.work(&format!("{n}/effects.log"))).unwrap_or_default();
    let mut effects = BTreeMap::<String, Effect>::new();
    for line in text.lines() {
        let [what, key, process, at] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let effect = effects.entry(key.to_owned()).or_default();
        match what {
            "start" => effect.begun.push((process.parse().unwrap(), at.parse().unwrap())),
            "end" => effect.ended += 1,
            other => panic!("{other:?}"),
        }
    }
    effects
}

/// How a call ended, and who said so.
struct Outcome {
    word: String,
    by: String,
}

struct Acquisition {
    worker: String,
    at: i64,
    lost: bool,
}

/// What a session's log says.
struct Log {
    outcomes: BTreeMap<String, Outcome>,
    acquisitions: Vec<Acquisition>,
}

impl Log {
    /// Reads a log, in which nobody writes who has been followed by another.
    fn read(world: &World, session: &str) -> Self {
        let (outcomes, acquisitions) = Default::default();
        let mut log = Log { outcomes, acquisitions };
        let mut keys = BTreeMap::new();
        for entry in world.log(session) {
            let (record, fact) = (&entry["record"], &entry["record"]["fact"]);
            if fact["kind"] == "acquired" {
                log.acquisitions.push(Acquisition {
                    worker: fact["worker"].as_str().unwrap().to_owned(),
                    at: record["at"].as_i64().unwrap(),
                    lost: fact["lost"] == true,
                });
                assert_eq!(fact["epoch"], log.acquisitions.len(), "epochs follow each other: {record}");
            }
            let Some(by) = record["by"].get("worker") else { continue };
            let newest = log.acquisitions.last().expect("nobody writes before the session was acquired");
            let author = (by["worker"].as_str().unwrap(), by["epoch"].as_u64().unwrap());
            let owner = (newest.worker.as_str(), log.acquisitions.len() as u64);
            assert_eq!(author, owner, "only the newest epoch writes: {record}");
            for call in fact["calls"].as_array().into_iter().flatten() {
                let id = call["id"].as_str().unwrap();
                keys.insert(id.to_owned(), format!("{session}/{}/{id}", record["n"]));
            }
            for result in fact["results"].as_array().into_iter().flatten() {
                let key = &keys[result["call"].as_str().unwrap()];
                let word = result["outcome"].as_str().unwrap().to_owned();
                let by = author.0.to_owned();
                let before = log.outcomes.insert(key.clone(), Outcome { word, by });
                assert!(before.is_none(), "{key} has two results");
            }
        }
        log
    }

    /// Tells whether a process did something after the session was taken over from it.
    fn is_late(&self, processes: &BTreeMap<String, i64>, process: i64, at: i64) -> bool {
        let mine = |it: &Acquisition| processes[&it.worker] == process && it.at <= at;
        let mine = self.acquisitions.iter().rposition(mine);
        let mine = mine.expect("whoever runs a call had acquired its session before");
        self.acquisitions.get(mine + 1).is_some_and(|next| next.at < at)
    }
}

/// Rounds of three steps with two calls each, of which some are slow.
fn script(rounds: usize) -> String {
    let step = |seconds: [&str; 2]| {
        let calls = seconds.map(|seconds| {
            format!(
                "[[turn.step.call]]\ntool = \"bash\"\n\
                 arguments = {{ command = \"sh ../effect.sh {seconds} $PPID\" }}\n"
            )
        });
        format!("[[turn.step]]\ntext = \"I do two things.\"\ndelay_ms = 20\n{}", calls.concat())
    };
    let round = [step(["0.05", "0.1"]), step(["0.1", "0.3"]), step(["0.2", "1.5"])].concat();
    format!("[[turn]]\n{}[[turn.step]]\ntext = \"Done.\"\n", round.repeat(rounds))
}
