//! What a step of a script says.

use std::time::Duration;

use longhaul_model::scripted::END_OF_SCRIPT;
use longhaul_model::{FinishReason, Model, Part};
use longhaul_session::item::Item;
use longhaul_session::usage::Usage;
use serde_json::{Value, json};

use crate::support::{
    answer, assistant, call, calls_of, collect, commit, model, play, result, says, text_of, user,
};

#[tokio::test]
async fn a_step_reasons_speaks_and_calls_in_pieces() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        reasoning = "Tests come first, always."
        text = "I run the tests — now."
        [[turn.step.call]]
        tool = "bash"
        arguments = { command = "cargo test", at = 2026-01-02, deep = [{ a = 1.5, b = true }] }
        [[turn.step.call]]
        tool = "list"
    "#;
    let (parts, error) = play(&model(script), call(&[user("go")], 0)).await;
    assert_eq!(error, None);
    assert!(parts.iter().filter(|part| matches!(part, Part::Text { .. })).count() > 1);
    let response = collect(parts).unwrap();
    assert_eq!(response.finish, FinishReason::ToolCalls);
    assert!(
        matches!(&response.items[0], Item::Reasoning { text, .. } if text == "Tests come first, always.")
    );
    assert_eq!(response.items[1], assistant("I run the tests — now."));
    let calls = calls_of(&response.items);
    assert_eq!(calls[0].name, "bash");
    assert_eq!(
        serde_json::from_str::<Value>(&calls[0].arguments).unwrap(),
        json!({"command": "cargo test", "at": "2026-01-02", "deep": [{"a": 1.5, "b": true}]})
    );
    assert_eq!((calls[1].name.as_str(), calls[1].arguments.as_str()), ("list", "{}"));
    assert_ne!(calls[0].id, calls[1].id);
}

#[tokio::test]
async fn arguments_given_as_a_string_are_taken_word_for_word() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        [[turn.step.call]]
        tool = "bash"
        arguments = "{ not json"
    "#;
    let response = answer(script, &[user("go")]).await;
    assert_eq!(calls_of(&response.items)[0].arguments, "{ not json");
}

#[tokio::test]
async fn a_script_at_its_end_says_so_and_finishes() {
    let script = "[[turn]]\n[[turn.step]]\ntext = 'one'";
    let mut history = vec![user("first")];
    assert_eq!(says(script, &history).await, "one");
    history.extend([assistant("one"), user("second")]);
    let response = answer(script, &history).await;
    assert_eq!(response.items, [assistant(END_OF_SCRIPT)]);
    assert_eq!(response.finish, FinishReason::Stop);
}

#[tokio::test]
async fn repeated_steps_are_numbered_and_each_is_played_once() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "first {n}"
        call = [{ tool = "t" }]
        [[turn.step]]
        repeat = 3
        text = "step {n}"
        call = [{ tool = "t", arguments = { line = "echo {n}", list = ["{n}"] } }]
        [[turn.step]]
        text = "done"
    "#;
    let mut history = vec![user("go")];
    let mut texts = Vec::new();
    for _ in 0..5 {
        let response = answer(script, &history).await;
        texts.push(text_of(&response.items));
        commit(&mut history, response);
    }
    assert_eq!(texts, ["first {n}", "step 1", "step 2", "step 3", "done"]);
    let calls = calls_of(&history);
    assert_eq!(calls[2].arguments, r#"{"line":"echo 2","list":["2"]}"#);
    let ids: std::collections::HashSet<_> = calls.iter().map(|call| &call.id).collect();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn the_last_result_is_filled_in_and_not_read_again() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        repeat = 9
        text = "It says {{last_result}}, {n} {x}"
        call = [{ tool = "t", arguments = { quoted = "{{last_result}}" } }]
    "#;
    let response =
        answer(script, &[user("go"), result(&"a".into(), "old"), result(&"b".into(), "a \"{n}\"")]).await;
    assert_eq!(text_of(&response.items), "It says a \"{n}\", 1 {x}");
    assert_eq!(calls_of(&response.items)[0].arguments, r#"{"quoted":"a \"{n}\""}"#);
    assert_eq!(text_of(&answer(script, &[user("go")]).await.items), "It says , 1 {x}");
}

#[tokio::test]
async fn tokens_are_counted_from_the_request_unless_stated() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        reasoning = "12345"
        text = "1234"
        call = [{ tool = "ab" }]
        [[turn.step]]
        text = "1234"
        usage = { input = 100, cached_input = 60, cost_micros = 7 }
    "#;
    let mut history = vec![user("123456789")];
    let response = answer(script, &history).await;
    assert_eq!(response.usage, Usage { input: 3, output: 4, reasoning: 2, ..Usage::default() });
    commit(&mut history, response);
    let usage = Usage { input: 100, cached_input: 60, output: 1, cost_micros: 7, ..Usage::default() };
    assert_eq!(answer(script, &history).await.usage, usage);
}

#[tokio::test]
async fn a_step_may_state_why_it_ended() {
    let script = "[[turn]]\n[[turn.step]]\ntext = 'long'\nfinish = 'length'";
    assert_eq!(answer(script, &[user("go")]).await.finish, FinishReason::Length);
}

#[tokio::test]
async fn an_aside_answers_what_it_looks_for_and_uses_up_no_step() {
    let script = r#"
        [[turn]]
        step = [{ text = "one" }]
        [[turn]]
        step = [{ text = "two" }]
        [[aside]]
        when = "Summarise"
        step = { text = "a summary" }
    "#;
    let history = [user("a"), assistant("one"), user("Summarise this.")];
    assert_eq!(says(script, &history).await, "a summary");
    let history = [user("Summarise?"), assistant("one"), user("b")];
    assert_eq!(says(script, &history).await, "two");
    let mut asked = call(&[user("a")], 0);
    let request = std::sync::Arc::get_mut(&mut asked.request).unwrap();
    request.system = "Summarise.".to_owned();
    assert_eq!(text_of(&collect(play(&model(script), asked).await.0).unwrap().items), "a summary");
}

#[tokio::test(start_paused = true)]
async fn pieces_and_the_first_sign_of_life_take_their_time() {
    let script = r#"
        delay_ms = 1000
        [[turn]]
        [[turn.step]]
        text = "1234567812345678"
        first_delay_ms = 5000
        [[turn.step]]
        text = "1234567812345678"
        delay_ms = 10
    "#;
    let within = async |ms, items: &[Item]| {
        tokio::time::timeout(Duration::from_millis(ms), says(script, items)).await.is_ok()
    };
    assert!(!within(6_999, &[user("a")]).await);
    assert!(within(7_001, &[user("a")]).await);
    assert!(!within(19, &[user("a"), assistant("1234567812345678")]).await);
    assert!(within(21, &[user("a"), assistant("1234567812345678")]).await);
}

#[test]
fn a_script_says_who_it_is() {
    let script = "name = 'demo'\n[[turn]]\nstep = []";
    let identity = model(script).identity();
    assert_eq!((identity.provider.as_str(), identity.model.as_str()), ("scripted", "demo"));
    assert!(identity.scripted);
}
