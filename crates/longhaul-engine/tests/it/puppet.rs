//! A model that is a function of the request, where a script would say too little.

use async_trait::async_trait;
use futures_util::stream;
use longhaul_model::{Error, FinishReason, Identity, Model, ModelCall, Part, PartStream};
use longhaul_session::agent::Request;
use longhaul_session::item::Item;
use longhaul_session::steering::SteeringReason;
use longhaul_session::usage::Usage;

/// Answers by a function of the call.
pub(crate) struct By<F>(pub(crate) F);

#[async_trait]
impl<F: Fn(&ModelCall) -> Result<Vec<Part>, Error> + Send + Sync + 'static> Model for By<F> {
    fn identity(&self) -> Identity {
        Identity { provider: "test".to_owned(), model: "by".to_owned(), scripted: true }
    }

    async fn call(&self, call: ModelCall) -> Result<PartStream, Error> {
        Ok(Box::pin(stream::iter((self.0)(&call)?.into_iter().map(Ok))))
    }
}

/// Answers a text.
pub(crate) fn says(text: &str) -> Result<Vec<Part>, Error> {
    answers(text, 10)
}

/// Answers a text, and reports the request as so large.
pub(crate) fn answers(text: &str, input: u64) -> Result<Vec<Part>, Error> {
    let usage = Usage { input, output: 1, ..Usage::default() };
    let text = text.to_owned();
    let finished = Part::Finished { reason: FinishReason::Stop, raw: None };
    Ok(vec![Part::Text { text }, Part::Usage { usage }, finished])
}

/// Calls `probe`, and reports the request as so large.
pub(crate) fn calls_probe(input: u64) -> Result<Vec<Part>, Error> {
    let usage = Usage { input, output: 1, ..Usage::default() };
    Ok(vec![
        Part::ToolCallStarted { index: 0, id: None, name: "probe".to_owned() },
        Part::ToolCallEnd { index: 0, opaque: None },
        Part::Usage { usage },
        Part::Finished { reason: FinishReason::ToolCalls, raw: None },
    ])
}

/// The size of a request in tokens: a quarter of its bytes.
pub(crate) fn tokens(call: &ModelCall) -> u64 {
    let Request { system, items, tools, .. } = &*call.request;
    let prepared = system.len() + serde_json::to_vec(&**tools).expect("tools are JSON").len();
    (items.iter().map(|item| item.text_bytes()).sum::<u64>() + prepared as u64) / 4
}

pub(crate) fn wants_summary(call: &ModelCall) -> bool {
    let newest = call.request.items.last().map(|item| &**item);
    matches!(newest, Some(Item::Steering { reason: SteeringReason::Compaction, .. }))
}
