//! How a script fails, and how an attempt is cancelled.

use std::time::Duration;

use futures_util::StreamExt;
use longhaul_model::{Error, Model, Part, Response};
use longhaul_session::failure::FailureClass;
use longhaul_session::usage::Usage;

use crate::support::{call, collect, model, play, text_of, user};

async fn attempt(script: &str, attempt: u32) -> Result<Response, Error> {
    let (parts, error) = play(&model(script), call(&[user("go")], attempt)).await;
    let collected = collect(parts);
    match error {
        Some(error) => Err(error),
        None => collected,
    }
}

fn texts(parts: &[Part]) -> String {
    parts
        .iter()
        .filter_map(|part| if let Part::Text { text } = part { Some(text.as_str()) } else { None })
        .collect()
}

#[tokio::test]
async fn a_step_fails_as_often_as_the_script_says_and_then_answers() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "at last"
        fail = { class = "overloaded", retry_after_ms = 100, times = 2, usage = { input = 7 } }
    "#;
    for failed in 0..2 {
        let error = attempt(script, failed).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Overloaded);
        assert_eq!(error.message, "The script lets this attempt fail.");
        assert_eq!(error.retry_after_ms, Some(100));
        assert_eq!(error.usage, Some(Usage { input: 7, ..Usage::default() }));
    }
    assert_eq!(text_of(&attempt(script, 2).await.unwrap().items), "at last");
    assert_eq!(text_of(&attempt(script, 9).await.unwrap().items), "at last");
}

#[tokio::test]
async fn failures_of_a_list_are_used_up_in_order() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "at last"
        fail = [{ class = "server", message = "down" }, { cut = true, times = 2 }, { class = "timeout" }]
    "#;
    let mut classes = Vec::new();
    for failed in 0..4 {
        classes.push(attempt(script, failed).await.unwrap_err().class);
    }
    use FailureClass::{Network, Server, Timeout};
    assert_eq!(classes, [Server, Network, Network, Timeout]);
    assert_eq!(attempt(script, 0).await.unwrap_err().message, "down");
    assert!(attempt(script, 4).await.is_ok());
}

#[tokio::test]
async fn an_error_in_the_middle_comes_after_the_characters_before_it() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        text = "zwölf Zeichen und mehr"
        fail = { class = "server", after_chars = 12 }
    "#;
    let (parts, error) = play(&model(script), call(&[user("go")], 0)).await;
    assert_eq!(texts(&parts), "zwölf Zeiche");
    assert_eq!(error.unwrap().class, FailureClass::Server);
}

#[tokio::test]
async fn a_cut_stream_ends_without_its_end_and_still_tells_its_usage() {
    let script = r#"
        [[turn]]
        [[turn.step]]
        reasoning = "abc"
        text = "defgh"
        fail = { cut = true, after_chars = 5, usage = { input = 7, output = 2 } }
    "#;
    let (parts, error) = play(&model(script), call(&[user("go")], 0)).await;
    assert_eq!(error, None);
    assert_eq!(texts(&parts), "de");
    let error = collect(parts).unwrap_err();
    assert_eq!(error.class, FailureClass::Network);
    assert_eq!(error.usage, Some(Usage { input: 7, output: 2, ..Usage::default() }));
}

#[tokio::test]
async fn a_cut_behind_the_last_character_still_lacks_the_end() {
    let script = "[[turn]]\nstep = [{ text = 'abc', fail = { cut = true, after_chars = 99 } }]";
    let (parts, _) = play(&model(script), call(&[user("go")], 0)).await;
    assert_eq!(texts(&parts), "abc");
    assert!(collect(parts).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_stream_says_nothing_more_until_it_is_cancelled() {
    let script = "[[turn]]\nstep = [{ text = 'abcdef', fail = { hang = true, after_chars = 3 } }]";
    let call = call(&[user("go")], 0);
    let cancel = call.cancel.clone();
    let mut stream = model(script).call(call).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Part::Started { .. }))));
    assert!(matches!(stream.next().await, Some(Ok(Part::Text { text })) if text == "abc"));
    assert!(tokio::time::timeout(Duration::from_secs(86_400), stream.next()).await.is_err());
    cancel.cancel();
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_a_delay_at_once() {
    let script = "[[turn]]\nstep = [{ text = 'abc', delay_ms = 3600000 }]";
    let call = call(&[user("go")], 0);
    let cancel = call.cancel.clone();
    let mut stream = model(script).call(call).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Part::Started { .. }))));
    let (next, ()) = tokio::join!(tokio::time::timeout(Duration::from_millis(1), stream.next()), async {
        cancel.cancel()
    });
    assert!(next.expect("the delay ended").is_none());
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_the_first_delay_at_once() {
    let script = "[[turn]]\nstep = [{ text = 'abc', first_delay_ms = 3600000 }]";
    let model = model(script);
    let call = call(&[user("go")], 0);
    let cancel = call.cancel.clone();
    let (called, ()) =
        tokio::join!(tokio::time::timeout(Duration::from_millis(1), model.call(call)), async {
            cancel.cancel()
        });
    assert!(called.expect("the delay ended").unwrap().next().await.is_none());
}

#[tokio::test]
async fn a_cancelled_attempt_is_never_whole() {
    let script = "[[turn]]\nstep = [{ text = 'abc' }]";
    let call = call(&[user("go")], 0);
    let cancel = call.cancel.clone();
    let mut stream = model(script).call(call).await.unwrap();
    assert!(stream.next().await.is_some());
    cancel.cancel();
    assert!(stream.next().await.is_none());
}
