//! Short ways to build requests and play scripts.

use std::sync::Arc;

use futures_util::StreamExt;
use longhaul_model::codec::Codec;
use longhaul_model::scripted::ScriptedModel;
use longhaul_model::{Accumulator, Error, Model, ModelCall, Part, Response};
use longhaul_session::agent::Request;
use longhaul_session::id::CallId;
use longhaul_session::item::{Item, Outcome, ToolCall, ToolResult};
use tokio_util::sync::CancellationToken;

pub(crate) fn model(script: &str) -> ScriptedModel {
    script.parse().unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn call(items: &[Item], attempt: u32) -> ModelCall {
    let request = Request {
        system: "Be brief.".to_owned(),
        items: items.iter().cloned().map(Arc::new).collect(),
        tools: Arc::default(),
        previous: None,
    };
    ModelCall { request: Arc::new(request), attempt, cancel: CancellationToken::new(), resume: None }
}

/// Plays one attempt to its end: its parts, and the error it ended with.
pub(crate) async fn play(model: &impl Model, call: ModelCall) -> (Vec<Part>, Option<Error>) {
    let mut stream = match model.call(call).await {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut parts = Vec::new();
    while let Some(part) = stream.next().await {
        match part {
            Ok(part) => parts.push(part),
            Err(error) => return (parts, Some(error)),
        }
    }
    (parts, None)
}

pub(crate) fn collect(parts: impl IntoIterator<Item = Part>) -> Result<Response, Error> {
    let mut made = 0;
    let mut answer = Accumulator::new(move || {
        made += 1;
        CallId(format!("made_{made}"))
    });
    for part in parts {
        answer.push(part)?;
    }
    answer.finish()
}

/// The answer of a new model to a request, without an earlier failure.
pub(crate) async fn answer(script: &str, items: &[Item]) -> Response {
    let (parts, error) = play(&model(script), call(items, 0)).await;
    assert_eq!(error, None);
    collect(parts).unwrap()
}

/// Its text.
pub(crate) async fn says(script: &str, items: &[Item]) -> String {
    text_of(&answer(script, items).await.items)
}

pub(crate) fn text_of(items: &[Item]) -> String {
    items
        .iter()
        .filter_map(|item| if let Item::Assistant { text, .. } = item { Some(text.as_str()) } else { None })
        .collect()
}

pub(crate) fn calls_of(items: &[Item]) -> Vec<ToolCall> {
    items
        .iter()
        .filter_map(|item| if let Item::ToolCall(call) = item { Some(call.clone()) } else { None })
        .collect()
}

pub(crate) fn user(text: &str) -> Item {
    Item::User { text: text.to_owned() }
}

pub(crate) fn assistant(text: &str) -> Item {
    Item::Assistant { text: text.to_owned(), partial: false }
}

pub(crate) fn result(call: &CallId, output: &str) -> Item {
    Item::ToolResult(ToolResult {
        call: call.clone(),
        outcome: Outcome::Ok,
        output: output.to_owned(),
        files: Vec::new(),
        artifact: None,
    })
}

/// Adds an answer to the history, with a result for each of its calls.
pub(crate) fn commit(history: &mut Vec<Item>, answer: Response) {
    let calls = calls_of(&answer.items);
    history.extend(answer.items);
    history.extend(calls.iter().map(|call| result(&call.id, &format!("result of {}", call.arguments))));
}

/// Decodes a whole answer.
pub(crate) fn decoded(codec: &impl Codec, body: &str) -> Vec<Item> {
    let (mut decoder, mut parts) = (codec.decoder(), Vec::new());
    decoder.push(body.as_bytes(), &mut parts).unwrap();
    decoder.finish(&mut parts).unwrap();
    collect(parts).unwrap().items
}
