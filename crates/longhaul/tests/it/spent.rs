//! What a session has spent, as people and programs are told.

use insta::assert_snapshot;
use serde_json::Value;

use crate::plain::plain;
use crate::world::World;

/// Two turns, the first with an attempt that fails and with tokens from a cache.
const SCRIPT: &str = r#"
[[turn]]
[[turn.step]]
text = "Begun."
usage = { input = 1200, cached_input = 200, output = 34, reasoning = 30 }
fail = { class = "overloaded", message = "busy", times = 1, usage = { input = 7 } }
[[turn.step.call]]
tool = "bash"
arguments = { command = "echo one" }
[[turn.step]]
text = "That was the first part."
usage = { input = 1300, cached_input = 1200, output = 5 }
[[turn]]
[[turn.step]]
text = "And now the second."
usage = { input = 400, output = 6 }
"#;

#[test]
fn what_was_spent_is_shown_by_goal_and_by_what_became_of_it() {
    let world = World::new();
    world.write("script.toml", SCRIPT);
    let told = world.run(&["run", "--script", "script.toml", "--dir", "work", "Do the first part."]);
    assert!(told.stdout.contains("done · 2.5k in, 39 out, "), "{}", told.stdout);
    world.succeed(&["compact"]);
    world.run(&["goal", "set", "@last", "the second part"]);
    assert_snapshot!(plain(&world, &world.succeed(&["show"])));
    let shown = world.show("@last");
    let (spent, ledger) = (&shown["spent"], &shown["ledger"]);
    for key in ["measured", "estimated", "active_ms"] {
        assert_eq!(spent["total"][key], ledger[key], "{key}");
    }
    let attempts = |part: &Value| part["attempts"].as_u64().unwrap();
    let sum = |parts: &Value| parts.as_array().unwrap().iter().map(attempts).sum::<u64>();
    let all = attempts(&spent["total"]);
    assert_eq!([sum(&spent["models"]), sum(&spent["goals"])], [all; 2]);
    assert_eq!(spent["work"].as_object().unwrap().values().map(attempts).sum::<u64>(), all);
    assert_eq!(spent["goals"][1]["used"], shown["goal"]["used"]);
    assert_eq!(spent["goals"][1]["objective"], "the second part");
    world.succeed(&["verify"]);
}
