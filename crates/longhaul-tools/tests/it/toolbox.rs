//! Whatever happens to a call, it ends in a result.

use std::future::pending;
use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::agent::{ToolPermission, ToolSetting, ToolSpec};
use longhaul_session::item::{EffectClass, Outcome};
use longhaul_tools::tool::{CallContext, IdempotencyKey, Progress, Tool, ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use serde_json::{Value, json};

use crate::world::{World, key};

fn spec(name: &str, input_schema: Value) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        input_schema,
        effect: EffectClass::Once,
        exclusive: false,
        stop_after: false,
    }
}

fn anything(name: &str) -> ToolSpec {
    spec(name, json!({"type": "object"}))
}

fn setting(name: &str) -> ToolSetting {
    ToolSetting {
        name: name.to_owned(),
        permission: ToolPermission::Allow,
        max_output_bytes: None,
        time_limit_ms: None,
    }
}

async fn run(toolbox: Toolbox, name: &str, arguments: &str) -> (Outcome, String) {
    let output = toolbox.run(name, arguments, &World::new().cx).await;
    (output.outcome, output.text)
}

#[tokio::test]
async fn an_unknown_tool_is_answered_with_the_names_of_the_known() {
    let (outcome, text) = run(Toolbox::builtin(), "raed", "{}").await;
    assert_eq!(outcome, Outcome::Rejected);
    assert!(
        text.contains("no tool \"raed\"") && text.contains("bash, edit, glob, grep, read, write"),
        "{text}"
    );
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_explained() {
    for (arguments, faults) in [
        ("{\"path\": ", &["not valid JSON", "line 1 column"][..]),
        ("[]", &["the arguments", "object"]),
        ("", &["\"path\" is a required property"]),
        ("{\"path\": \"a\", \"offset\": 0, \"lines\": 1}", &["/offset", "0", "lines"]),
        ("{\"path\": 5}", &["/path", "5", "string"]),
    ] {
        let (outcome, text) = run(Toolbox::builtin(), "read", arguments).await;
        assert_eq!(outcome, Outcome::Rejected, "{arguments}");
        assert!(faults.iter().all(|fault| text.contains(fault)), "{arguments}: {text}");
    }
}

#[tokio::test]
async fn a_fault_in_a_huge_argument_is_told_briefly() {
    let huge = json!({"path": ["x".repeat(100_000)]}).to_string();
    let (outcome, text) = run(Toolbox::builtin(), "read", &huge).await;
    assert_eq!(outcome, Outcome::Rejected);
    assert!(text.len() < 1_000, "{} bytes", text.len());
}

#[tokio::test]
async fn empty_arguments_count_as_an_empty_object() {
    let toolbox = Toolbox::empty().with(function(anything("echo"), |arguments, _| async move {
        ToolOutput::ok(arguments.to_string())
    }));
    assert_eq!(run(toolbox, "echo", " \n").await, (Outcome::Ok, "{}".to_owned()));
}

#[tokio::test]
async fn a_tool_with_an_invalid_schema_is_not_run() {
    let tool = function(spec("odd", json!({"type": "no such type"})), |_, _| async { ToolOutput::ok("ran") });
    let (outcome, text) = run(Toolbox::empty().with(tool), "odd", "{}").await;
    assert_eq!(outcome, Outcome::Rejected);
    assert!(text.contains("invalid schema"), "{text}");
}

#[tokio::test]
async fn a_panic_becomes_a_result() {
    let tool = function(anything("broken"), |_, _| async { panic!("out of {}", "cheese") });
    let (outcome, text) = run(Toolbox::empty().with(tool), "broken", "{}").await;
    assert_eq!(outcome, Outcome::Error);
    assert!(text.contains("out of cheese"), "{text}");
}

#[tokio::test]
async fn a_denied_tool_is_neither_offered_nor_run() {
    let deny = ToolSetting { permission: ToolPermission::Deny, ..setting("bash") };
    let ask = ToolSetting { permission: ToolPermission::Ask, ..setting("edit") };
    let toolbox = Toolbox::builtin().configured(&[deny, ask, setting("bsah")]);
    let names: Vec<String> = toolbox.specs().into_iter().map(|spec| spec.name).collect();
    assert_eq!(names, ["edit", "glob", "grep", "read", "write"]);
    assert_eq!(toolbox.permission("bash"), Some(ToolPermission::Deny));
    assert_eq!(toolbox.permission("edit"), Some(ToolPermission::Ask));
    assert_eq!(toolbox.permission("read"), Some(ToolPermission::Allow));
    assert_eq!(toolbox.permission("bsah"), None);
    assert_eq!(toolbox.settings_without_tool().collect::<Vec<_>>(), ["bsah"]);
    let (outcome, _) = run(toolbox, "bash", "{\"command\": \"true\"}").await;
    assert_eq!(outcome, Outcome::Denied);
}

#[tokio::test]
async fn a_tools_own_output_limit_holds() {
    let toolbox = Toolbox::empty()
        .with(function(anything("long"), |_, cx: CallContext| async move {
            ToolOutput::ok(format!("{}{}", cx.max_output_bytes, "x".repeat(5_000)))
        }))
        .configured(&[ToolSetting { max_output_bytes: Some(500), ..setting("long") }]);
    let output = toolbox.run("long", "", &World::new().cx).await;
    assert!(output.text.starts_with("500x") && output.text.len() <= 500);
    assert_eq!(output.whole.unwrap().len(), 5_003);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_ends_when_told_to_is_stopped() {
    let world = World::new();
    let toolbox = Toolbox::empty().with(function(anything("polite"), |_, cx: CallContext| async move {
        cx.cancel.cancelled().await;
        ToolOutput::error("half done")
    }));
    let cancel = world.cx.cancel.clone();
    let (output, ()) = tokio::join!(toolbox.run("polite", "", &world.cx), async { cancel.cancel() });
    assert_eq!(output.outcome, Outcome::Stopped);
    assert!(output.text.starts_with("half done\n["), "{}", output.text);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_finished_all_the_same_has_finished() {
    let world = World::new();
    let toolbox = Toolbox::empty().with(function(anything("quick"), |_, cx: CallContext| async move {
        cx.cancel.cancelled().await;
        ToolOutput::ok("done")
    }));
    let cancel = world.cx.cancel.clone();
    let (output, ()) = tokio::join!(toolbox.run("quick", "", &world.cx), async { cancel.cancel() });
    assert_eq!(output, ToolOutput::ok("done"));
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_ignores_its_cancellation_is_abandoned() {
    let world = World::new();
    let toolbox = Toolbox::empty().with(function(anything("deaf"), |_, _| pending()));
    let cancel = world.cx.cancel.clone();
    let began = tokio::time::interval(Duration::from_secs(1)).tick().await;
    let (output, ()) = tokio::join!(toolbox.run("deaf", "", &world.cx), async { cancel.cancel() });
    assert_eq!(output.outcome, Outcome::Stopped);
    assert!(output.text.contains("outcome is unknown"), "{}", output.text);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tool_over_its_time_limit_is_told_to_stop() {
    let world = World::new();
    let tool = |name| {
        function(anything(name), |_, cx: CallContext| async move {
            cx.cancel.cancelled().await;
            ToolOutput::new(Outcome::Stopped, "half done")
        })
    };
    let limited = ToolSetting { time_limit_ms: Some(1_500), ..setting("slow") };
    let toolbox = Toolbox::empty()
        .with(tool("slow"))
        .with(function(anything("deaf"), |_, _| pending()))
        .configured(&[limited]);
    let output = toolbox.run("slow", "", &world.cx).await;
    assert_eq!(output.outcome, Outcome::TimedOut);
    assert!(output.text.contains("half done") && output.text.contains("limit of 1.5 s"), "{}", output.text);
    let output = toolbox.run("deaf", "", &world.cx).await;
    assert_eq!(output.outcome, Outcome::TimedOut);
    assert!(output.text.contains("limit of 600 s") && output.text.contains("unknown"), "{}", output.text);
    assert!(!world.cx.cancel.is_cancelled(), "one call's limit is not the caller's");
}

#[tokio::test]
async fn a_call_cancelled_before_it_began_is_not_run() {
    let world = World::new();
    world.cx.cancel.cancel();
    let output = world.call("write", json!({"path": "a", "content": "x"})).await;
    assert_eq!(output.outcome, Outcome::NotRun);
    assert!(!world.directory.join("a").exists());
}

struct Ledger;

#[async_trait]
impl Tool for Ledger {
    fn spec(&self) -> ToolSpec {
        anything("ledger")
    }

    async fn call(&self, _: Value, _: &CallContext) -> ToolOutput {
        ToolOutput::ok("paid")
    }

    async fn reconcile(&self, key: &IdempotencyKey, _: &CallContext) -> Option<ToolOutput> {
        (key.call.0 == "call_1").then(|| ToolOutput::ok(format!("paid as {key}")))
    }
}

#[tokio::test]
async fn a_tool_may_find_out_what_became_of_a_call() {
    let mut cx = World::new().cx;
    let toolbox = Toolbox::builtin().with(Ledger);
    let found = toolbox.reconcile("ledger", &cx).await.unwrap();
    assert_eq!(found.text, "paid as 00000000-0000-0000-0000-000000000007/3/call_1");
    assert_eq!(toolbox.reconcile("bash", &cx).await, None);
    assert_eq!(toolbox.reconcile("nothing", &cx).await, None);
    cx.key.call = "call_2".into();
    assert_eq!(toolbox.reconcile("ledger", &cx).await, None);
}

#[tokio::test]
async fn progress_drops_what_does_not_fit_and_never_blocks() {
    let (progress, mut lines) = Progress::channel(2);
    for line in ["one", "two", "three"] {
        progress.line(line.as_bytes());
    }
    drop(progress);
    assert_eq!(lines.recv().await.as_deref(), Some("one"));
    assert_eq!(lines.recv().await.as_deref(), Some("two"));
    assert_eq!(lines.recv().await, None);
}

#[test]
fn a_key_is_written_as_one_stable_string() {
    assert_eq!(key().to_string(), "00000000-0000-0000-0000-000000000007/3/call_1");
}
