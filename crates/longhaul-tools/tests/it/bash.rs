//! `bash`, and that nothing of it is left behind.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use longhaul_session::agent::{Permission, ScopeEffect, ScopeRule, ToolSetting};
use longhaul_session::item::Outcome;
use longhaul_tools::check::{CheckEnd, Checker, Shell};
use longhaul_tools::tool::{Progress, ToolOutput};
use serde_json::json;

use crate::world::{World, eventually, runs};

/// Time limits for what is to run into one, each for a busier machine.
const LIMITS_MS: [u64; 4] = [1_000, 5_000, 25_000, 125_000];
/// How often a command may be killed before it could say anything.
const TRIES: usize = 5;

impl World {
    async fn bash(&self, command: &str) -> ToolOutput {
        self.call("bash", json!({"command": command})).await
    }

    /// Lets a command run into its time limit after it has made the file `begun`. Where a machine is so busy that
    /// it could not even begin, it gets more time. Returns the limit too.
    async fn until_its_limit(&self, command: &str) -> (ToolOutput, u64) {
        for limit_ms in LIMITS_MS {
            let output = self.call("bash", json!({"command": command, "time_limit_ms": limit_ms})).await;
            assert_eq!(output.outcome, Outcome::TimedOut, "{}", output.text);
            if self.directory.join("begun").exists() {
                return (output, limit_ms);
            }
        }
        panic!("the command did not begin in {LIMITS_MS:?} ms");
    }

    /// Waits until a command has written a process id to a file.
    async fn pid(&self, file: &str) -> String {
        let path = self.directory.join(file);
        let written = || fs::read_to_string(&path).unwrap_or_default();
        eventually("a process id is written", || written().ends_with('\n')).await;
        written().trim().to_owned()
    }
}

#[tokio::test]
async fn output_and_errors_come_merged_in_order_with_the_exit_code() {
    let world = World::new();
    let output = world.bash("echo one; echo two >&2; echo three; pwd").await;
    let expected = format!("one\ntwo\nthree\n{}\n[exit code 0 after ", world.directory.display());
    assert!(output.text.starts_with(&expected), "{}", output.text);
    assert_eq!(output.outcome, Outcome::Ok);
    let output = world.bash("printf no-line-end; exit 3").await;
    assert_eq!(output.outcome, Outcome::Error);
    assert!(output.text.starts_with("no-line-end\n[exit code 3 after "), "{}", output.text);
    let output = world.bash("kill -9 $$").await;
    assert_eq!(output.outcome, Outcome::Error);
    assert!(output.text.starts_with("[ended by signal 9 after "), "{}", output.text);
}

#[tokio::test]
async fn a_command_has_no_input_and_knows_its_key_but_no_secrets() {
    let world = World::new();
    let output = world.bash("cat; echo $LONGHAUL_IDEMPOTENCY_KEY; env").await;
    assert!(output.text.starts_with(&format!("{}\n", world.cx.key)), "{}", output.text);
    let secret =
        |name: &str| ["TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"].iter().any(|part| name.contains(part));
    let names: Vec<&str> = output.text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"PATH") && !names.iter().any(|name| secret(&name.to_uppercase())), "{names:?}");
}

/// The variables are set for a child: this process runs other tests at the same time.
#[test]
fn variables_that_look_like_secrets_are_not_passed_on() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["bash::a_command_has_no_input_and_knows_its_key_but_no_secrets", "--exact"])
        .envs([("MY_API_TOKEN", "1"), ("db_password", "2"), ("SECRET_THING", "3")])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && printed.contains("1 passed"), "{printed}");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_replaced() {
    let output = World::new().bash("printf 'a\\377b\\000\\303'").await;
    assert!(output.text.starts_with("a\u{fffd}b\u{fffd}\u{fffd}\n["), "{}", output.text);
}

#[tokio::test]
async fn a_flood_is_read_to_its_end_but_only_its_ends_are_kept() {
    let world = World::new();
    let output = world.bash("echo first; yes | head -c 20000000; echo last").await;
    assert_eq!(output.outcome, Outcome::Ok);
    assert!(output.text.len() <= 32 * 1024);
    assert!(output.text.starts_with("first\ny\n") && output.text.contains("last\n[exit code 0"));
    let whole = output.whole.unwrap();
    assert!(whole.len() < 1024 * 1024 + 200, "{}", whole.len());
    assert!(String::from_utf8(whole).unwrap().contains("[… 18951435 bytes of output were not kept …]"));
}

#[tokio::test]
async fn a_flood_without_end_is_ended_by_its_time_limit() {
    let (output, limit_ms) = World::new().until_its_limit("yes | head -c 2000000; : >begun; yes").await;
    let told = format!("by its time limit of {limit_ms} ms");
    assert!(output.text.contains(&told), "{}", &output.text[output.text.len() - 200..]);
    assert!(output.whole.unwrap().len() < 1024 * 1024 + 200);
}

#[tokio::test]
async fn the_time_limit_ends_grandchildren_too() {
    let world = World::new();
    let command = "(sleep 600 >/dev/null 2>&1 & echo $! >pid); echo started; : >begun; sleep 600";
    let (output, _) = world.until_its_limit(command).await;
    assert!(output.text.starts_with("started\n[ended after "), "{}", output.text);
    let pid = world.pid("pid").await;
    eventually("the grandchild is gone", || !runs(&pid)).await;
}

#[tokio::test]
async fn what_ignores_term_is_killed() {
    let world = World::new();
    world.until_its_limit("trap '' TERM; echo $$ >pid; : >begun; while :; do sleep 1; done").await;
    let pid = world.pid("pid").await;
    eventually("the shell is gone", || !runs(&pid)).await;
}

#[tokio::test]
async fn what_ends_on_term_may_say_so() {
    let command = "trap 'echo cleaned up; exit 1' TERM; echo ready; : >begun; while :; do sleep 0.05; done";
    let mut said = String::new();
    // Two seconds are what it has for it, and on a busy machine it may get no turn in them.
    for _ in 0..TRIES {
        let (output, _) = World::new().until_its_limit(command).await;
        assert!(output.text.starts_with("ready\n"), "{}", output.text);
        if output.text.contains("cleaned up\n[") {
            return;
        }
        said = output.text;
    }
    panic!("{said}");
}

#[tokio::test]
async fn a_background_process_ends_with_the_command_and_the_output_says_so() {
    let world = World::new();
    let output = world.bash("sleep 600 & echo $! >pid; echo done").await;
    assert_eq!(output.outcome, Outcome::Ok);
    assert!(output.text.starts_with("done\n[exit code 0"), "{}", output.text);
    assert!(output.text.ends_with("were ended]"), "{}", output.text);
    let pid = world.pid("pid").await;
    eventually("it is gone", || !runs(&pid)).await;
}

#[tokio::test]
async fn a_command_that_leaves_nothing_behind_is_not_said_to() {
    // The orphan has ended, but perhaps nobody reaps it.
    let command = "sleep 0.01 & wait; (true & echo $! >pid); \
                   while grep -qv ') Z' /proc/$(cat pid)/stat 2>/dev/null; do sleep 0.01; done";
    let output = World::new().bash(command).await;
    assert!(output.text.ends_with(" s]"), "{}", output.text);
}

#[tokio::test]
async fn a_process_that_left_the_group_does_not_hang_the_call() {
    let world = World::new();
    let call = world.bash(
        "setsid sh -c 'echo $$ >pid; exec sleep 600' & while ! [ -s pid ]; do sleep 0.01; done; echo over",
    );
    let output = tokio::time::timeout(Duration::from_secs(120), call).await.unwrap();
    assert!(output.text.starts_with("over\n"), "{}", output.text);
    let pid = world.pid("pid").await;
    assert!(runs(&pid), "what is to stay, as a server does, may");
    Command::new("kill").args(["-9", &pid]).status().unwrap();
}

/// Leaves a process that has left the group, and one that it starts in a group of its own.
const STRAYS: &str = "setsid sh -c 'setsid sleep 600 & echo $! >stray; exec sleep 600' & echo $! >pid; \
                      while ! [ -s stray ]; do sleep 0.01; done; wait";

#[tokio::test]
async fn a_command_that_is_ended_leaves_nothing_even_outside_its_group() {
    let world = World::new();
    let cancel = world.cx.cancel.clone();
    let (output, stray) = tokio::join!(world.bash(STRAYS), async {
        let stray = world.pid("stray").await;
        cancel.cancel();
        stray
    });
    assert_eq!(output.outcome, Outcome::Stopped);
    let pid = world.pid("pid").await;
    eventually("both are gone", || !runs(&pid) && !runs(&stray)).await;
}

#[tokio::test]
async fn a_check_leaves_nothing_even_outside_its_group() {
    let world = World::new();
    let command = format!("{} && true", STRAYS.trim_end_matches("; wait"));
    let checked = Shell.run(&command, Duration::from_secs(60), &world.cx).await.unwrap();
    assert_eq!(checked.ended, CheckEnd::Exit(0));
    let (pid, stray) = (world.pid("pid").await, world.pid("stray").await);
    eventually("both are gone", || !runs(&pid) && !runs(&stray)).await;
}

#[tokio::test]
async fn a_cancelled_command_is_ended_with_all_it_started() {
    let world = World::new();
    let cancel = world.cx.cancel.clone();
    let (output, pid) = tokio::join!(world.bash("echo begun; sleep 600 & echo $! >pid; wait"), async {
        let pid = world.pid("pid").await;
        cancel.cancel();
        pid
    });
    assert_eq!(output.outcome, Outcome::Stopped);
    assert!(output.text.starts_with("begun\n[stopped after "), "{}", output.text);
    eventually("it is gone", || !runs(&pid)).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_kills_its_command() {
    let world = World::new();
    let pid = tokio::select! {
        output = world.bash("trap '' TERM; sleep 600 & echo $! >pid; wait") => panic!("{}", output.text),
        pid = world.pid("pid") => pid,
    };
    eventually("the process is gone", || !runs(&pid)).await;
}

#[tokio::test]
async fn the_limit_set_for_the_tool_keeps_what_was_printed() {
    let mut said = String::new();
    // It is ended when it has begun, if need be on a busy machine.
    for (limit_ms, told) in [(1_500, "limit of 1.5 s"), (15_000, "limit of 15 s"), (90_000, "limit of 90 s")]
    {
        let mut world = World::new();
        let setting = ToolSetting {
            name: "bash".to_owned(),
            permission: Default::default(),
            max_output_bytes: None,
            time_limit_ms: Some(limit_ms),
        };
        world.toolbox = world.toolbox.configured(&[setting]);
        let output = world.bash("echo begun; sleep 600").await;
        assert_eq!(output.outcome, Outcome::TimedOut);
        assert!(output.text.contains(told), "{}", output.text);
        if output.text.starts_with("begun\n") {
            return;
        }
        said = output.text;
    }
    panic!("{said}");
}

#[tokio::test]
async fn lines_are_passed_on_while_the_command_runs() {
    let mut world = World::new();
    let (progress, mut lines) = Progress::channel(16);
    world.cx.progress = progress;
    let (output, seen) = tokio::join!(
        world.bash(
            "echo one; printf 'tw'; printf 'o\\n'; while ! [ -e go ]; do sleep 0.01; done; printf rest"
        ),
        async {
            let seen = [lines.recv().await.unwrap(), lines.recv().await.unwrap()];
            world.put("go", "");
            seen
        }
    );
    assert_eq!(seen, ["one", "two"]);
    assert_eq!(lines.recv().await.as_deref(), Some("rest"));
    assert_eq!(output.outcome, Outcome::Ok);
}

#[tokio::test]
async fn bash_needs_the_right_to_write_in_the_working_directory() {
    let read = ScopeRule {
        effect: ScopeEffect::Allow,
        target: ".".to_owned(),
        permission: Permission::Read,
        recursive: true,
    };
    let world = World::with_rules(&[read]);
    let output = world.bash("touch made").await;
    assert_eq!(output.outcome, Outcome::Denied);
    assert!(!world.directory.join("made").exists());
}

#[tokio::test]
async fn commands_run_side_by_side() {
    let world = World::new();
    // Each waits for the other: one after the other they would run into the limit.
    let meet = |mine: &str, other: &str| json!({"command": format!("touch {mine}; while ! [ -e {other} ]; do sleep 0.01; done"), "time_limit_ms": 110_000});
    let (a, b) = tokio::join!(world.call("bash", meet("a", "b")), world.call("bash", meet("b", "a")));
    assert_eq!((a.outcome, b.outcome), (Outcome::Ok, Outcome::Ok));
}

/// Plays the worker that is killed in the test below.
#[tokio::test]
#[ignore = "started by the test below"]
async fn helper_worker_that_runs_a_long_command() {
    let world = World::new();
    println!("{}", world.directory.display());
    world.bash(&format!("trap '' TERM; {STRAYS}")).await;
}

#[tokio::test]
async fn a_command_does_not_outlive_a_killed_worker() {
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["bash::helper_worker_that_runs_a_long_command", "--exact", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let printed = std::io::BufReader::new(worker.stdout.take().unwrap());
    let directory =
        std::io::BufRead::lines(printed).map(Result::unwrap).find(|line| line.starts_with('/')).unwrap();
    let directory = std::path::Path::new(&directory);
    let pid = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    for file in ["pid", "stray"] {
        eventually("a process id is written", || pid(file).ends_with('\n')).await;
        assert!(runs(pid(file).trim()));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    for file in ["pid", "stray"] {
        eventually("the command is gone", || !runs(pid(file).trim())).await;
    }
    fs::remove_dir_all(directory.parent().unwrap()).unwrap();
}
