//! The program is killed with SIGKILL two hundred times while it works, in places that are known: it is
//! stopped with SIGSTOP, looked at, and killed where it stands or let go on. What must hold then is checked
//! against its log, and against the file that its tools have written.

#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use longhaul_session::state::{SessionState, Status};
use longhaul_test_postgres::leaves_out;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use serde_json::Value;

use crate::world::{Running, World, pause};

const KILLS: usize = 200;
/// The fewest kills in each place that is aimed at.
const QUOTA: usize = 40;
/// Kills after which the rest of a quota is given up, and the test fails.
const MOST_KILLS: usize = 300;
/// Looks at one process before it is killed wherever it is.
const LOOKS: usize = 400;
const TURNS: usize = 60;
const STEPS: usize = 25;

/// What the model says in each step: long enough to be killed in the middle.
const TEXT: &str = "A line is written, and after some time another one.";

/// Leaves a line when it begins and one when it ends.
const EFFECT: &str = "\
echo \"start $1 $LONGHAUL_IDEMPOTENCY_KEY\" >> effects.log
sleep 0.02
echo \"end $1 $LONGHAUL_IDEMPOTENCY_KEY\" >> effects.log
";

/// Where a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The newest call has left its first line and not its second.
    Tool,
    /// A part of an answer was the last thing that happened, and more of it is to come.
    Stream,
    /// A call is committed, and nothing was started for it yet.
    BeforeStart,
    /// The database is locked for writing, by a process that owns its session.
    Append,
    /// Anywhere else, or nobody looked.
    Elsewhere,
}

const AIMED_AT: [Phase; 4] = [Phase::Tool, Phase::Stream, Phase::BeforeStart, Phase::Append];

/// One kill.
struct Kill {
    phase: Phase,
    /// The newest entry before it, and its hash; zero and nothing if nobody looked.
    head: i64,
    hash: Vec<u8>,
    /// The call that was open.
    call: Option<String>,
}

/// Two hundred kills, and what was seen on the way.
struct Siege {
    world: World,
    session: String,
    chance: Chance,
    /// The entries that any process has printed.
    printed: BTreeMap<u64, String>,
    kills: Vec<Kill>,
    looks: usize,
    turns: usize,
}

#[test]
fn killed_two_hundred_times_it_loses_no_entry_and_repeats_no_effect() {
    if leaves_out("it looks into the file of a stopped process, and at its locks") {
        return;
    }
    let mut siege = Siege::begin();
    while siege.kills.len() < KILLS || siege.wanted().is_some() {
        assert!(siege.kills.len() < MOST_KILLS, "the quota was not reached: {siege}");
        let aim = siege.choose();
        siege.kill_one(aim);
    }
    siege.finish();
    println!("{siege}");
    siege.check();
}

impl Siege {
    fn begin() -> Self {
        let world = World::new();
        std::fs::write(world.work("effect.sh"), EFFECT).unwrap();
        let args = ["--max-crashes", "1000000", "--max-steps", "1000000"];
        let session = world.create(&script(), &args);
        let chance = Chance::of_environment();
        println!("seed {}: to repeat, set LONGHAUL_KILL_SEED={}", chance.seed, chance.seed);
        let (printed, kills) = Default::default();
        Siege { world, session, chance, printed, kills, looks: 0, turns: 1 }
    }

    fn of(&self, phase: Phase) -> impl Iterator<Item = &Kill> {
        self.kills.iter().filter(move |kill| kill.phase == phase)
    }

    fn count(&self, phase: Phase) -> usize {
        self.of(phase).count()
    }

    /// Returns the place with the most kills to go.
    fn wanted(&self) -> Option<Phase> {
        let rarest = AIMED_AT.into_iter().min_by_key(|phase| self.count(*phase));
        rarest.filter(|phase| self.count(*phase) < QUOTA)
    }

    /// Chooses where to kill next: a place that is wanted, and every tenth time anywhere, without a look.
    fn choose(&mut self) -> Option<Phase> {
        if self.chance.below(10) == 0 {
            return None;
        }
        let one = AIMED_AT[self.chance.below(4)];
        if self.count(one) < QUOTA { Some(one) } else { self.wanted() }
    }

    fn start(&self) -> Running {
        self.world.start(&["--json", "resume", &self.session])
    }

    /// Runs the program until it was killed; begins another turn when one has ended.
    fn kill_one(&mut self, aim: Option<Phase>) {
        for _ in 0..TURNS {
            let mut process = Process { running: self.start(), lines: Vec::new(), chars: 0, ended: false };
            let kill = match aim {
                Some(phase) => self.hunt(&mut process, phase),
                None => self.strike(&mut process),
            };
            if let Some(kill) = kill {
                self.kills.push(kill);
                let rest = process.running.kill();
                self.keep(&process.lines);
                self.keep(&rest);
                return;
            }
            self.keep(&process.lines);
            self.next_turn(process);
        }
        panic!("no process lived long enough to be killed: {self}");
    }

    /// Notes the entries among lines.
    fn keep(&mut self, lines: &[String]) {
        for line in lines.iter().filter(|line| line.starts_with("{\"type\":\"entry\"")) {
            let entry: Value = serde_json::from_str(line).unwrap();
            let n = entry["record"]["n"].as_u64().unwrap();
            let before = self.printed.insert(n, line.clone());
            assert!(before.is_none_or(|before| before == *line), "entry {n} was printed in two forms");
        }
    }

    fn next_turn(&mut self, process: Process) {
        let ran = process.running.finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        self.turns += 1;
        assert!(self.turns < TURNS, "the script is used up: {self}");
        self.world.succeed(&["send", &self.session, "go on", "--detach"]);
    }

    /// Kills a process after a while, wherever it is.
    fn strike(&mut self, process: &mut Process) -> Option<Kill> {
        pause(Duration::from_micros(self.chance.below(150_000) as u64));
        process.read();
        let kill = Kill { phase: Phase::Elsewhere, head: 0, hash: Vec::new(), call: None };
        (!process.ended).then_some(kill)
    }

    /// Stops a process again and again until it is found in a place. `None`: its turn has ended.
    fn hunt(&mut self, process: &mut Process, aim: Phase) -> Option<Kill> {
        process.await_any(&["\"kind\":\"acquired\""])?;
        for _ in 0..LOOKS {
            let (marks, up_to_micros) = marks(aim);
            process.await_any(marks)?;
            pause(Duration::from_micros(self.chance.below(up_to_micros) as u64));
            if !process.stop() {
                return None;
            }
            self.looks += 1;
            let found = self.look(process);
            if found.as_ref().is_some_and(|kill| kill.phase == aim) {
                return found;
            }
            process.running.signal(Signal::CONT);
        }
        self.strike(process)
    }

    /// Finds out where a stopped process is; `None` when it has nothing to do any more, or nobody can tell.
    fn look(&self, process: &mut Process) -> Option<Kill> {
        process.read();
        let database = self.world.path("home/sessions.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // Opened for this look only: after the kill nobody else has the database open, and whoever opens
        // it next must recover it.
        let database = Connection::open_with_flags(database, flags).unwrap();
        database.busy_timeout(Duration::ZERO).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?));
        let (head, hash, state) =
            match database.query_row("SELECT head, head_hash, state FROM sessions", [], row) {
                // It holds what even readers need: it closes the database, or was about to tell them of
                // what it wrote.
                Err(error) if is_busy(&error) => return None,
                found => found.unwrap(),
            };
        let state: SessionState = serde_json::from_slice(&state).unwrap();
        if state.status != Status::Running {
            return None;
        }
        let call = state.pending.first().map(|call| format!("{}/{}", call.step, call.id));
        let phase = if is_locked(&database) {
            Phase::Append
        } else if let Some(call) = &call {
            self.phase_of_call(process, call)
        } else if (1..TEXT.len()).contains(&process.chars) {
            Phase::Stream
        } else {
            Phase::Elsewhere
        };
        Some(Kill { phase, head, hash, call })
    }

    fn phase_of_call(&self, process: &Process, call: &str) -> Phase {
        let effects = read(&self.world.work("effects.log"));
        let says = |what: &str| effects.lines().any(|line| line.starts_with(what) && line.ends_with(call));
        match (says("start "), says("end ")) {
            (true, false) => Phase::Tool,
            (false, false) if !process.has_children() => Phase::BeforeStart,
            _ => Phase::Elsewhere,
        }
    }

    /// Runs the program to the end of the turn.
    fn finish(&mut self) {
        let mut running = self.start();
        let lines: Vec<String> = std::iter::from_fn(|| running.next_line()).collect();
        self.keep(&lines);
        let ran = running.finish();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        assert_eq!((&last["status"], &last["exit"]), (&"waiting".into(), &0.into()), "{last}");
    }
}

/// Says what happens just before a process comes to a place, and within which time it does, in microseconds.
fn marks(aim: Phase) -> (&'static [&'static str], usize) {
    match aim {
        Phase::Tool => (&["tool_started"], 40_000),
        Phase::Stream => (&["model_started"], 40_000),
        Phase::BeforeStart => (&["\"finished\"", "\"model_step\""], 3_000),
        Phase::Append => (&["\"finished\"", "tool_ended"], 1_500),
        Phase::Elsewhere => (&[""], 50_000),
    }
}

/// A process, and the lines it has printed.
struct Process {
    running: Running,
    lines: Vec<String>,
    /// Characters of the answer under way.
    chars: usize,
    ended: bool,
}

impl Process {
    /// Waits for a line that holds one of these. `None` when the process ends first.
    fn await_any(&mut self, marks: &[&str]) -> Option<()> {
        self.read();
        loop {
            let Some(line) = self.running.next_line() else {
                self.ended = true;
                return None;
            };
            let found = marks.iter().any(|mark| line.contains(mark));
            self.take(line);
            if found {
                return (!self.ended).then_some(());
            }
        }
    }

    /// Takes the lines that are there.
    fn read(&mut self) {
        while let Some(line) = self.running.ready_line() {
            self.take(line);
        }
    }

    fn take(&mut self, line: String) {
        let parsed: Value = serde_json::from_str(&line).unwrap();
        self.ended |= parsed["type"] == "result";
        let part = &parsed["part"]["part"];
        match part["text"].as_str() {
            Some(text) if part["type"] == "text" => self.chars += text.len(),
            // Whatever else follows the text, the answer is no longer in its middle.
            _ => self.chars = 0,
        }
        self.lines.push(line);
    }

    /// Stops all of its threads. False when it has ended instead.
    fn stop(&mut self) -> bool {
        self.running.signal(Signal::STOP);
        let wanted = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.running.pid()), wanted).unwrap().unwrap();
        status.stopped()
    }

    fn has_children(&self) -> bool {
        let pid = self.running.pid().as_raw_nonzero().to_string();
        std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // The name before the last parenthesis may hold anything; then follow state and parent.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            fields.split_whitespace().nth(1) == Some(&pid)
        })
    }
}

/// Tells whether another process is in a transaction that writes.
fn is_locked(database: &Connection) -> bool {
    match database.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
        Err(error) if is_busy(&error) => true,
        done => {
            done.unwrap();
            false
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A script of turns that each write lines, in steps of which none goes on where another was killed.
fn script() -> String {
    let turn = format!(
        "[[turn]]\n\
         [[turn.step]]\n\
         text = {TEXT:?}\n\
         delay_ms = 3\n\
         repeat = {STEPS}\n\
         usage = {{ input = 200, output = 20 }}\n\
         [[turn.step.call]]\n\
         tool = \"bash\"\n\
         arguments = {{ command = \"sh effect.sh {{n}}\" }}\n\
         [[turn.step]]\n\
         text = \"The turn is over.\"\n\
         usage = {{ input = 200, output = 20 }}\n"
    );
    turn.repeat(TURNS)
}

impl Siege {
    fn check(&self) {
        for phase in AIMED_AT {
            assert!(self.count(phase) >= 30, "too few kills in {phase:?}: {self}");
        }
        let log = self.world.succeed(&["--json", "log", &self.session]);
        self.nothing_committed_is_lost(&log);
        let entries: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let outcomes = outcomes(&entries);
        let effects = read(&self.world.work("effects.log"));
        effects_are_as_the_log_says(&self.session, &outcomes, &effects);
        for call in self.of(Phase::BeforeStart).filter_map(|kill| kill.call.as_ref()) {
            assert!(!effects.contains(&format!("{call}\n")), "call {call} was begun by a dead process");
            assert_eq!(outcomes[call], "unknown", "call {call}");
        }
        self.every_crash_is_known(&entries);
        self.appends_are_whole_or_not_there(&entries);
        self.ledger_is_the_sum(&entries);
        let verified = self.world.succeed(&["verify", &self.session]);
        assert!(verified.contains("ok,"), "{verified}");
    }

    fn nothing_committed_is_lost(&self, log: &str) {
        let lines: Vec<&str> = log.lines().collect();
        for (n, line) in &self.printed {
            assert_eq!(lines.get(*n as usize - 1), Some(&line.as_str()), "entry {n} is not what it was");
        }
        let database = Connection::open(self.world.path("home/sessions.db")).unwrap();
        let mut hash_of = database.prepare("SELECT hash FROM entries WHERE n = ?1").unwrap();
        for kill in self.kills.iter().filter(|kill| kill.head > 0) {
            let hash: Vec<u8> = hash_of.query_row([kill.head], |row| row.get(0)).unwrap();
            assert_eq!(hash, kill.hash, "entry {} is not what it was when its process was killed", kill.head);
        }
    }

    /// Each kill of a process that owned the session is an owner lost, and nothing else is.
    fn every_crash_is_known(&self, entries: &[Value]) {
        let lost = |entry: &&Value| fact(entry)["kind"] == "acquired" && fact(entry)["lost"] == true;
        let lost = entries.iter().filter(lost).count();
        let aimed = self.kills.iter().filter(|kill| kill.head > 0).count();
        assert!((aimed..=self.kills.len()).contains(&lost), "{lost} owners were lost: {self}");
    }

    /// Says what became of the appends that were cut: what follows the newest entry that was seen is either
    /// the cut append or, if that never happened, the next owner.
    fn appends_are_whole_or_not_there(&self, entries: &[Value]) {
        let after = |kill: &Kill| entries.get(usize::try_from(kill.head).ok()?);
        let next: Vec<&Value> = self.of(Phase::Append).filter_map(after).collect();
        let gone = next.iter().filter(|entry| fact(entry)["kind"] == "acquired").count();
        println!("appends that were cut: {} on disk already, {gone} never there", next.len() - gone);
        assert_eq!(next.len(), self.count(Phase::Append));
    }

    fn ledger_is_the_sum(&self, entries: &[Value]) {
        let answers = entries.iter().filter(|entry| fact(entry)["kind"] == "model_step").count();
        let ledger = &self.world.show(&self.session)["ledger"];
        println!("ledger: {ledger}");
        let measured = (ledger["measured"]["input"].as_u64(), ledger["measured"]["output"].as_u64());
        assert_eq!(measured, (Some(200 * answers as u64), Some(20 * answers as u64)));
        let cut = self.count(Phase::Stream) as u64;
        let estimated = ledger["estimated"]["input"].as_u64();
        assert!(
            estimated >= Some(200 * cut),
            "{cut} answers were cut off and {estimated:?} tokens estimated"
        );
    }
}

fn fact(entry: &Value) -> &Value {
    &entry["record"]["fact"]
}

/// Returns how each call ended, by the entry and id that make its idempotency key. Each has one result.
fn outcomes(entries: &[Value]) -> BTreeMap<String, String> {
    let mut calls = HashMap::new();
    let mut outcomes = BTreeMap::new();
    for entry in entries {
        for call in fact(entry)["calls"].as_array().into_iter().flatten() {
            let id = call["id"].as_str().unwrap().to_owned();
            assert_eq!(call["effect"], "once");
            assert!(calls.insert(id, entry["record"]["n"].to_string()).is_none(), "two calls have an id");
        }
        for result in fact(entry)["results"].as_array().into_iter().flatten() {
            let id = result["call"].as_str().unwrap();
            let key = format!("{}/{id}", calls.get(id).expect("a result follows its call"));
            let outcome = result["outcome"].as_str().unwrap().to_owned();
            assert!(outcomes.insert(key, outcome).is_none(), "{id} has two results");
        }
    }
    assert_eq!(calls.len(), outcomes.len(), "a call has no result");
    outcomes
}

fn effects_are_as_the_log_says(session: &str, outcomes: &BTreeMap<String, String>, effects: &str) {
    let mut lines: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in effects.lines() {
        let [what, _, key] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("a torn line: {line:?}") };
        let key = key.strip_prefix(session).and_then(|key| key.strip_prefix('/')).unwrap();
        assert!(outcomes.contains_key(key), "an effect of no committed call: {line}");
        *lines.entry((what, key)).or_default() += 1;
    }
    let counted = |what: &'static str, key| lines.get(&(what, key)).copied().unwrap_or_default();
    for (key, outcome) in outcomes {
        let effect = (counted("start", key), counted("end", key));
        let fits = match outcome.as_str() {
            "ok" => effect == (1, 1),
            "not_run" | "rejected" | "denied" => effect == (0, 0),
            "unknown" => effect.0 <= 1 && effect.1 <= effect.0,
            _ => false,
        };
        assert!(fits, "call {key} ended as {outcome}, and began and ended {effect:?} times");
    }
}

impl fmt::Display for Siege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} kills (seed {}):", self.kills.len(), self.chance.seed)?;
        for phase in [&AIMED_AT[..], &[Phase::Elsewhere]].concat() {
            writeln!(
                f,
                "  {:<12} {:>4}  {}",
                format!("{phase:?}"),
                self.count(phase),
                "#".repeat(self.count(phase))
            )?;
        }
        let heads: BTreeSet<i64> = self.kills.iter().map(|kill| kill.head).collect();
        write!(f, "{} looks, {} turns, {} places in the log", self.looks, self.turns, heads.len())
    }
}

/// Chance that can be repeated (xorshift).
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    #[expect(clippy::disallowed_methods, reason = "a seed that is given must reach the test somehow")]
    fn of_environment() -> Self {
        let given = std::env::var("LONGHAUL_KILL_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id())).max(1);
        Chance { seed, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// Returns a number below a bound.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % bound as u64).expect("it is below a usize")
    }
}
