//! Workers as processes: several on one database, killed and told to stop while they work.

use std::collections::BTreeSet;

use longhaul_test_postgres::{Database, Server, Settings, is_chosen};
use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Running, World, pause, until};

/// A step with two calls, each of which leaves a line when it begins and one when it ends.
const STEP: &str = r#"
[[turn.step]]
text = "I do two things."
[[turn.step.call]]
tool = "bash"
arguments = { command = "sh ./effect.sh" }
[[turn.step.call]]
tool = "bash"
arguments = { command = "sh ./effect.sh" }
"#;

const EFFECT: &str = "\
echo \"start $LONGHAUL_IDEMPOTENCY_KEY\" >> effects.log
sleep 0.05
echo \"end $LONGHAUL_IDEMPOTENCY_KEY\" >> effects.log
";

/// Calls that go on until they are let go; each says that it has begun.
const HELD: &str = "\
echo up > \"up.$(echo $LONGHAUL_IDEMPOTENCY_KEY | tr / .)\"; while [ ! -e go ]; do sleep 0.05; done; echo over";

fn held(calls: usize) -> String {
    let call = "[[turn.step.call]]\ntool = \"bash\"\narguments = { command = \"sh ./held.sh\" }\n";
    format!(
        "[[turn]]\n[[turn.step]]\ntext = \"I wait.\"\n{}[[turn.step]]\ntext = \"Done.\"\n",
        call.repeat(calls)
    )
}

fn write_work(world: &World, name: &str, text: &str) {
    std::fs::write(world.work(name), text).unwrap();
}

/// Makes so many sessions that no process drives yet.
fn create_many(world: &World, script: &str, many: usize) -> Vec<String> {
    (0..many).map(|_| world.create(script, &["--max-crashes", "1000000"])).collect()
}

fn worker(world: &World, args: &[&str]) -> Running {
    let mut worker = world.start(&[&["--json", "worker"], args].concat());
    worker.wait_for("\"type\":\"worker\"");
    worker
}

fn count_up(world: &World) -> usize {
    let names = std::fs::read_dir(world.path("work")).unwrap();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("up.")).count()
}

/// Returns the outcomes of a session's calls, in call order.
fn outcomes(world: &World, session: &str) -> Vec<String> {
    let results = |entry: &Value| entry["record"]["fact"]["results"].as_array().cloned().unwrap_or_default();
    let results = world.log(session).iter().flat_map(results).collect::<Vec<_>>();
    results.iter().map(|result| result["outcome"].as_str().unwrap().to_owned()).collect()
}

fn top(world: &World) -> Value {
    serde_json::from_str(&world.succeed(&["--json", "top"])).unwrap()
}

/// Returns how many sessions have come to rest.
pub(crate) fn rested(world: &World) -> usize {
    let listed = world.succeed(&["--json", "ls", "--limit", "100"]);
    listed.lines().filter(|line| line.contains("\"status\":\"waiting\"")).count()
}

#[test]
fn three_workers_are_killed_and_stopped_and_every_session_completes() {
    // Where what a killed one had is free only after its lease, later workers would find nothing to claim.
    survive(&World::with_short_leases(), if is_chosen() { 4 } else { 8 });
}

/// Lets three workers share sessions; so many times one of them is killed or told to stop.
fn survive(world: &World, rounds: u64) {
    const SESSIONS: usize = 24;
    write_work(world, "effect.sh", EFFECT);
    let script = format!("[[turn]]\n{}[[turn.step]]\ntext = \"Done.\"\n", STEP.repeat(4));
    let sessions = create_many(world, &script, SESSIONS);
    let start = || worker(world, &["--capacity", "4", "--grace", "300ms"]);
    let mut workers: Vec<Running> = (0..3).map(|_| start()).collect();
    // While they work, the oldest is now killed, now told to stop, and another takes its place.
    for round in 0..rounds {
        let mut oldest = workers.remove(0);
        oldest.wait_for("\"type\":\"claimed\"");
        pause(std::time::Duration::from_millis(60 + 17 * round));
        if round % 2 == 0 {
            oldest.kill();
        } else {
            oldest.signal(Signal::TERM);
            let ran = oldest.finish();
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
        }
        workers.push(start());
        if rested(world) == SESSIONS {
            break;
        }
    }
    until("all sessions rest", || rested(world) == SESSIONS);
    for last in workers {
        last.signal(Signal::TERM);
        assert_eq!(last.finish().code, 0);
    }
    world.succeed(&["verify", "--all"]);

    let effects = std::fs::read_to_string(world.work("effects.log")).unwrap();
    let began: Vec<&str> = effects.lines().filter_map(|line| line.strip_prefix("start ")).collect();
    let once: BTreeSet<&&str> = began.iter().collect();
    assert_eq!(began.len(), once.len(), "no call was started twice");
    let ended = effects.lines().filter(|line| line.starts_with("end ")).count();
    let all: Vec<String> = sessions.iter().flat_map(|session| outcomes(world, session)).collect();
    let ok = all.iter().filter(|outcome| *outcome == "ok").count();
    assert_eq!(all.len(), SESSIONS * 8, "every call has one result");
    assert!(ok <= ended, "what is said to be done was done: {ok} of {ended}");
    assert!(all.iter().all(|outcome| ["ok", "unknown", "stopped"].contains(&outcome.as_str())), "{all:?}");
    assert_eq!(top(world)["sessions"].as_array().unwrap().len(), 0);
}

#[test]
fn a_worker_takes_on_no_more_than_its_capacity_and_top_shows_its_load() {
    let world = World::new();
    write_work(&world, "held.sh", HELD);
    create_many(&world, &held(1), 7);
    let working = worker(&world, &["--capacity", "3", "--until-idle"]);
    until("three calls run", || count_up(&world) == 3);
    let shown = top(&world);
    let worker = &shown["workers"][0];
    assert_eq!((&worker["running"], &worker["capacity"]), (&3.into(), &3.into()));
    assert_eq!((&worker["alive"], &worker["place"]), (&true.into(), &world.kept.place().into()));
    assert_eq!(worker["pid"], working.pid().as_raw_pid());
    assert_eq!(shown["sessions"].as_array().unwrap().iter().filter(|it| it["owned"] == true).count(), 3);
    assert!(world.succeed(&["top", "--once"]).contains("3/3"));
    pause(std::time::Duration::from_millis(1_500));
    assert_eq!(count_up(&world), 3, "longer than a poll, and still no more");
    write_work(&world, "go", "");
    let ran = working.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert_eq!((rested(&world), ran.stdout.matches("\"type\":\"rested\"").count()), (7, 7));
}

#[test]
fn a_killed_worker_is_shown_as_dead_until_another_comes() {
    let world = World::with_short_leases();
    worker(&world, &[]).kill();
    world.until_all_are_dead();
    assert_eq!(top(&world)["workers"][0]["alive"], false);
    assert!(world.succeed(&["top", "--once"]).contains(" dead "));
    let living = worker(&world, &[]);
    assert_eq!(top(&world)["workers"].as_array().unwrap().len(), 1);
    living.signal(Signal::INT);
    assert_eq!(living.finish().code, 0);
    assert_eq!(top(&world)["workers"].as_array().unwrap().len(), 0);
}

#[test]
fn a_draining_worker_lets_calls_end_and_gives_back_what_it_did_not_start() {
    let world = World::new();
    write_work(&world, "held.sh", HELD);
    let session = world.create(&held(10), &[]);
    let mut draining = worker(&world, &["--grace", "1m"]);
    until("eight calls run", || count_up(&world) == 8);
    draining.signal(Signal::TERM);
    draining.wait_for("\"type\":\"stopping\"");
    let unclaimed = world.create(&held(1), &[]);
    write_work(&world, "go", "");
    let ran = draining.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("given back") && !ran.stdout.contains(&unclaimed), "{}", ran.stdout);
    assert_eq!((count_up(&world), outcomes(&world, &session)), (8, vec!["ok".to_owned(); 8]));
    assert_eq!(world.kinds(&session).last().unwrap(), "released");

    assert_eq!(worker(&world, &["--until-idle"]).finish().code, 0);
    assert_eq!(outcomes(&world, &session), ["ok"; 10]);
    assert_eq!((rested(&world), world.show(&session)["crashes"].as_u64().unwrap_or_default()), (2, 0));
    world.succeed(&["verify", "--all"]);
}

#[test]
fn a_second_signal_ends_the_grace() {
    let world = World::new();
    write_work(&world, "held.sh", HELD);
    let session = world.create(&held(1), &[]);
    let mut draining = Running::start(world.in_terminal(&["--json", "worker", "--grace", "1h"]));
    until("the call runs", || count_up(&world) == 1);
    draining.signal(Signal::HUP);
    draining.wait_for("\"grace_ms\":3600000,\"type\":\"stopping\"");
    draining.signal(Signal::TERM);
    draining.wait_for("\"grace_ms\":0,");
    let ran = draining.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert_eq!(outcomes(&world, &session), ["stopped"]);
    assert_eq!(world.kinds(&session).last().unwrap(), "released");
}

#[test]
fn others_act_on_a_session_that_a_worker_drives() {
    let world = World::new();
    write_work(&world, "held.sh", HELD);
    let working = worker(&world, &[]);
    // It waits for work when this comes.
    let script = format!("{}[[turn]]\n[[turn.step]]\ntext = \"The second turn.\"\n", held(1));
    let session = world.create(&script, &[]);
    until("the call runs", || count_up(&world) == 1);
    world.succeed(&["send", &session, "and then?", "--detach"]);
    let mut watching = world.start(&["resume", &session]);
    watching.wait_for("a live worker runs this session; watching it");
    let interrupting = world.run(&["interrupt", &session]);
    assert_eq!((interrupting.code, interrupting.stderr.as_str()), (0, ""), "{}", interrupting.stdout);
    let watched = watching.finish();
    assert!(
        watched.stdout.contains("interrupted") && watched.stdout.contains("The second turn."),
        "{}",
        watched.stdout
    );
    assert_eq!(outcomes(&world, &session), ["stopped"]);
    working.signal(Signal::TERM);
    let ran = working.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(world.kinds(&session).iter().filter(|kind| *kind == "acquired").count(), 1);
}

#[test]
fn a_database_that_restarts_costs_a_worker_time_and_no_session() {
    let server = Server::start(&Settings::default()).unwrap();
    let world = World::in_database(Database::create_on_aside(&server.url()).unwrap()).losing_nobody();
    write_work(&world, "held.sh", HELD);
    let session = world.create(&held(2), &[]);
    let working = worker(&world, &["--until-idle"]);
    until("the calls run", || count_up(&world) == 2);
    let mut attached = world.start(&["attach", &session, "--after", "0"]);
    attached.wait_for("I wait.");
    server.stop().unwrap();
    write_work(&world, "go", "");
    pause(std::time::Duration::from_secs(3));
    server.start_again().unwrap();
    let ran = working.finish();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert_eq!(outcomes(&world, &session), ["ok", "ok"]);
    assert_eq!(world.show(&session)["status"], "waiting");
    assert_eq!(world.kinds(&session).iter().filter(|kind| *kind == "acquired").count(), 1);
    let seen = attached.finish();
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
    assert!(seen.stdout.ends_with("Done.\nthe session rests: waiting\n"), "{}", seen.stdout);
}
