//! A tool that kills its worker every time is stopped.

use crate::plain::plain;
use crate::world::World;

const KILLER: &str = r#"
[[turn]]
[[turn.step]]
text = "I do it again."
repeat = 20
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo {n} >> tries; kill -9 $PPID; sleep 60" }
[[turn]]
[[turn.step]]
text = "I leave it."
"#;

#[test]
fn a_tool_that_kills_its_worker_fails_the_session_after_three_times_and_a_message_goes_on() {
    let world = World::new();
    let session = world.create(KILLER, &[]);
    for _ in 0..3 {
        let ran = world.run(&["resume", &session]);
        assert_eq!(ran.code, -9, "{ran:?}");
        world.until_all_are_dead();
    }
    let failed = world.run(&["resume", &session]);
    assert_eq!((failed.code, failed.stderr.as_str()), (1, ""));
    insta::assert_snapshot!(plain(&world, &failed.stdout), @r#"
      ⟳ taken over from a worker that was lost
      ! bash echo 3 >> tries; kill -9 $PPID; sleep 60  outcome unknown, not run again
        The worker running this call was lost and its outcome is unknown. It may have had effects, in …
    failed: the worker died 3 times without getting further
      A tool or call seems to kill its worker. Look at the newest call, then send a message to go on.
    not done · 177 in, 54 out, DURATION of work
      go on with: longhaul send ID "try again"
    "#);
    let log = world.log(&session);
    let failure = &log.last().unwrap()["record"]["fact"];
    assert_eq!((&failure["kind"], &failure["failure"]["class"]), (&"failed".into(), &"crash_loop".into()));
    let tries = std::fs::read_to_string(world.work("tries")).unwrap();
    assert_eq!(tries, "1\n2\n3\n", "each call was started once");
    let again = world.run(&["resume", &session]);
    assert_eq!(again.code, 1, "nothing is tried again by itself");
    let sent = world.succeed(&["send", &session, "leave it"]);
    assert!(sent.contains("I leave it."), "{sent}");
    assert!(world.succeed(&["verify", &session]).contains("ok,"));
}
