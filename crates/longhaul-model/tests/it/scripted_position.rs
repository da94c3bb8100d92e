//! Which step is next: known from the request alone.

use longhaul_model::Response;
use longhaul_session::goal::BudgetKind;
use longhaul_session::id::Digest;
use longhaul_session::item::{Item, ToolCall};
use longhaul_session::steering::SteeringReason;
use serde_json::json;

use crate::support::{
    answer, assistant, call, calls_of, collect, commit, model, play, result, says, text_of, user,
};

const SCRIPT: &str = r#"
    [[turn]]
    step = [{ text = "1.1", call = [{ tool = "a" }, { tool = "b" }] }, { text = "1.2", reasoning = "r" }]
    [[turn]]
    step = [{ text = "2.1", call = [{ tool = "a" }] }, { text = "2.2", call = [{ tool = "a" }] }, { text = "2.3" }]
    [[turn]]
    step = [{ text = "3.1" }, { text = "3.2" }]
"#;

fn steering(reason: SteeringReason) -> Item {
    Item::Steering { reason, text: "Mind this.".to_owned() }
}

fn made_call(id: &str) -> Item {
    Item::ToolCall(ToolCall { id: id.into(), name: "a".to_owned(), arguments: "{}".to_owned(), opaque: None })
}

/// The history after so many answers, a turn after another.
async fn history(answers: usize) -> Vec<Item> {
    let mut history = vec![user("go")];
    for _ in 0..answers {
        let given = answer(SCRIPT, &history).await;
        let ends = calls_of(&given.items).is_empty();
        commit(&mut history, given);
        if ends {
            history.push(user("go on"));
        }
    }
    history
}

#[tokio::test]
async fn a_fresh_instance_goes_on_where_another_was_killed() {
    let kept = model(SCRIPT);
    let mut history = vec![user("go")];
    let mut texts = Vec::new();
    for _ in 0..6 {
        let given: Response = collect(play(&kept, call(&history, 0)).await.0).unwrap();
        assert_eq!(given, answer(SCRIPT, &history).await);
        assert_eq!(given, answer(SCRIPT, &history).await);
        texts.push(text_of(&given.items));
        let ends = calls_of(&given.items).is_empty();
        commit(&mut history, given);
        if ends {
            history.push(user("go on"));
        }
    }
    assert_eq!(texts, ["1.1", "1.2", "2.1", "2.2", "2.3", "3.1"]);
}

#[tokio::test]
async fn a_continuation_begins_a_turn_and_other_steering_does_not() {
    let mut items = history(1).await;
    items.push(steering(SteeringReason::BudgetSpent(BudgetKind::Tokens)));
    assert_eq!(says(SCRIPT, &items).await, "1.2");
    items.push(assistant("1.2"));
    items.push(steering(SteeringReason::Continuation));
    assert_eq!(says(SCRIPT, &items).await, "2.1");
    items.push(steering(SteeringReason::ObjectiveChanged));
    items.push(steering(SteeringReason::Hook));
    assert_eq!(says(SCRIPT, &items).await, "2.1");
}

#[tokio::test]
async fn a_session_that_begins_without_a_message_is_in_its_first_turn() {
    assert_eq!(says(SCRIPT, &[]).await, "1.1");
    assert_eq!(says(SCRIPT, &[steering(SteeringReason::ObjectiveChanged)]).await, "1.1");
    assert_eq!(says(SCRIPT, &[steering(SteeringReason::Continuation)]).await, "1.1");
}

#[tokio::test]
async fn context_files_are_not_counted() {
    let context =
        Item::ContextFile { path: "/w/AGENTS.md".to_owned(), digest: Digest::of(b""), text: String::new() };
    let mut items = vec![context.clone(), user("go"), context.clone()];
    assert_eq!(says(SCRIPT, &items).await, "1.1");
    items.extend([assistant("1.1"), context]);
    assert_eq!(says(SCRIPT, &items).await, "1.2");
}

#[tokio::test]
async fn a_text_that_steering_or_an_interrupt_cut_off_was_a_step() {
    let partial = Item::Assistant { text: "3.".to_owned(), partial: true };
    let mut items = history(5).await;
    items.push(assistant("3.1"));
    items.push(steering(SteeringReason::Hook));
    assert_eq!(says(SCRIPT, &items).await, "3.2");
    let items = [user("go"), partial, user("and now?")];
    assert_eq!(says(SCRIPT, &items).await, "2.1");
}

#[tokio::test]
async fn results_that_arrive_between_the_calls_of_a_step_do_not_split_it() {
    let mut items = vec![user("go")];
    for item in answer(SCRIPT, &items).await.items {
        let id = if let Item::ToolCall(call) = &item { Some(call.id.clone()) } else { None };
        items.push(item);
        items.extend(id.map(|id| result(&id, "done")));
    }
    assert_eq!(says(SCRIPT, &items).await, "1.2");
}

#[tokio::test]
async fn an_edit_answers_the_turn_of_the_message_again() {
    let mut items = history(4).await;
    let edited = items.iter().rposition(|item| matches!(item, Item::User { .. })).unwrap();
    items.truncate(edited);
    items.push(user("go on, but otherwise"));
    assert_eq!(says(SCRIPT, &items).await, "2.1");
}

#[tokio::test]
async fn compaction_in_a_turn_goes_on_from_the_newest_call() {
    let items = history(3).await;
    let call = items.iter().rposition(|item| matches!(item, Item::ToolCall(_))).unwrap();
    let mut compacted = vec![Item::Summary { text: "much happened".to_owned() }];
    compacted.extend_from_slice(&items[call..]);
    assert_eq!(says(SCRIPT, &compacted).await, "2.2");
}

#[tokio::test]
async fn compaction_between_turns_goes_on_from_the_newest_reasoning() {
    let items = history(2).await;
    let reasoning = items.iter().rposition(|item| matches!(item, Item::Reasoning { .. })).unwrap();
    let mut compacted = vec![Item::Summary { text: "much happened".to_owned() }];
    compacted.extend_from_slice(&items[reasoning..]);
    assert_eq!(says(SCRIPT, &compacted).await, "2.1");
}

#[tokio::test]
async fn compaction_that_leaves_nothing_of_the_script_begins_again() {
    let compacted = [Item::Summary { text: "much happened".to_owned() }, user("go on")];
    assert_eq!(says(SCRIPT, &compacted).await, "1.1");
}

#[tokio::test]
async fn ids_of_other_models_are_not_taken_for_positions() {
    let foreign = |id: &str| Item::Reasoning { text: String::new(), opaque: Some(json!(id)) };
    for id in ["call_9", "script_", "script_x_y", "script_9", "9_9"] {
        assert_eq!(says(SCRIPT, &[user("a"), foreign(id), user("b")]).await, "2.1", "{id}");
    }
}

#[tokio::test]
async fn an_absurd_position_is_the_end_of_the_script() {
    let most = u64::MAX;
    let said = says(SCRIPT, &[made_call(&format!("script_{most}_{most}_0")), user("b")]).await;
    assert_eq!(said, longhaul_model::scripted::END_OF_SCRIPT);
}

#[tokio::test]
async fn a_long_run_is_cheap_to_write_and_to_play() {
    let script =
        "[[turn]]\nstep = [{ repeat = 20000, text = '{n}', call = [{ tool = 'a' }], usage = { input = 1 } }]";
    let model = model(script);
    let mut items = vec![user("go")];
    for number in 1..=200 {
        let given = collect(play(&model, call(&items, 0)).await.0).unwrap();
        assert_eq!(text_of(&given.items), number.to_string());
        commit(&mut items, given);
    }
    let late = made_call("script_1_19998_39997_0");
    assert_eq!(says(script, &[user("go"), late]).await, "20000");
}
