//! Asks a provider what works: for its list of models, which costs nothing, and by at most two tiny calls: one
//! that is streamed, and then one that offers a tool, or one that is not streamed where the first was refused.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use longhaul_engine::Models as _;
use longhaul_model::{Error, FinishReason, Model, ModelCall, Offers, Part};
use longhaul_session::agent::{Configuration, Limits, ModelChoice, Request, ToolSpec};
use longhaul_session::failure::FailureClass;
use longhaul_session::item::{EffectClass, Item};
use longhaul_session::usage::Usage;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Finding;
use crate::models::AllModels;
use crate::summary;

/// The most tokens of an answer. A model that thinks first needs some for that.
const MAX_OUTPUT_TOKENS: u64 = 256;
/// More tokens than a request has.
const PROMPT_TOKENS: u64 = 500;
/// The most calls.
const CALLS: u64 = 2;
/// Names that are told where another was meant.
const NEAREST: usize = 5;
/// How long a provider has to begin its answer, and to go on with it, in milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// What came of a call.
struct Heard {
    called: bool,
    cut_short: bool,
}

/// Says what will be asked, and what that may cost.
pub(super) fn announced(choice: &ModelChoice) -> Finding {
    let most = Usage { input: PROMPT_TOKENS, output: MAX_OUTPUT_TOKENS, ..Usage::default() };
    let cost = match &choice.prices {
        Some(prices) => format!("at most {}", summary::dollars(CALLS * prices.cost_micros(&most))),
        None => "cost unknown".to_owned(),
    };
    let said = format!(
        "asking the provider for its models, and by at most {CALLS} calls, each with an answer of at most \
         {MAX_OUTPUT_TOKENS} tokens ({cost}); --offline leaves it out"
    );
    Finding::good("asking", said)
}

/// Asks.
pub(super) async fn ask(models: &AllModels, configuration: &Configuration) -> Vec<Finding> {
    let offers = match offers(models, configuration).await {
        Ok(offers) => offers.filter(|offers| !offers.models.is_empty()),
        // Whoever answers nothing here answers nothing at all. A refusal is no fault: many servers have no
        // such list, and many keys may not see it.
        Err(error) if is_away(&error) => return vec![of_failure(&error)],
        Err(_) => None,
    };
    let mut findings = converse(models, configuration).await;
    if let Some(offers) = offers {
        let answers = findings.contains(&answered());
        findings.splice(0..0, of_offers(&offers, configuration, answers));
    }
    findings
}

/// Makes the calls.
async fn converse(models: &AllModels, configuration: &Configuration) -> Vec<Finding> {
    let streamed = configuration.model.stream;
    let first = call(models, configuration, streamed, false).await;
    let error = match first {
        Ok(_) => {
            let mut findings = vec![answered()];
            if streamed {
                findings.push(Finding::good("stream", "answers are streamed"));
            }
            findings.push(of_tools(call(models, configuration, streamed, true).await));
            return findings;
        }
        Err(error) => error,
    };
    if error.class != FailureClass::InvalidRequest || !streamed {
        return vec![of_failure(&error)];
    }
    match call(models, configuration, false, false).await {
        Ok(_) => {
            let said = format!(
                "the server answers, but not in a stream; write stream = false in [model]: {}",
                error.message
            );
            vec![answered(), Finding::bad("stream", said)]
        }
        Err(again) => vec![of_failure(&again)],
    }
}

/// Asks which models there are.
async fn offers(models: &AllModels, configuration: &Configuration) -> Result<Option<Offers>, Error> {
    let model = model(models, configuration, false)?;
    let late = || Error::new(FailureClass::Timeout, "the list of models was not complete in time");
    timeout(Duration::from_millis(PATIENCE_MS), model.offers()).await.unwrap_or_else(|_| Err(late()))
}

/// Says whether the model is one that its provider lists, and whether the provider says that it takes less
/// than is reckoned with.
fn of_offers(offers: &Offers, configuration: &Configuration, answers: bool) -> Vec<Finding> {
    let Configuration { model: ModelChoice { name, window_tokens, .. }, limits, .. } = configuration;
    let count = summary::count(offers.models.len() as u64, "model");
    let Some(offer) = offers.find(name) else {
        let near = nearest(offers, name).join(", ");
        let said = match answers {
            true => format!("the provider lists {count}, and no {name}, which answers all the same"),
            false => format!("the provider lists {count}, and no {name}; nearest are {near}"),
        };
        return vec![Finding { what: "listed", good: answers || offers.more, said }];
    };
    let mut findings =
        vec![Finding::good("listed", format!("the provider lists {count}, {name} among them"))];
    let above = limits.compact_above_tokens;
    match offer.window_tokens {
        Some(takes) if takes <= above => {
            let said = format!(
                "the provider says that the model takes {takes} tokens, and the context is compacted only above \
                 {above}: set window_tokens = {takes} in [model], or lower the threshold of [compaction]"
            );
            findings.push(Finding::bad("window", said));
        }
        Some(takes) if window_tokens.is_none() => {
            let said = format!(
                "the provider says that the model takes {takes} tokens; set window_tokens = {takes} in [model] to \
                 use them"
            );
            findings.push(Finding::good("window", said));
        }
        Some(_) | None => {}
    }
    findings
}

/// Returns the names of models that are most like one.
fn nearest<'o>(offers: &'o Offers, name: &str) -> Vec<&'o str> {
    let mut names: Vec<&str> = offers.models.iter().map(|offer| offer.name.as_str()).collect();
    let likeness = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    names.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
    names.truncate(NEAREST);
    names
}

fn answered() -> Finding {
    Finding::good("provider", "it can be reached, accepts the key, and the model answers")
}

/// Tells whether a server could not be reached, rather than that it refused.
fn is_away(error: &Error) -> bool {
    matches!(error.class, FailureClass::Network | FailureClass::Timeout)
}

/// Says at which point asking failed, and what to do.
fn of_failure(error: &Error) -> Finding {
    let Error { class, message, .. } = error;
    let what = match class {
        FailureClass::Network | FailureClass::Timeout => return Finding::bad("reach", message),
        FailureClass::Auth => "key",
        FailureClass::InvalidRequest => "model",
        FailureClass::Overloaded
        | FailureClass::RateLimited
        | FailureClass::Server
        | FailureClass::ContextOverflow
        | FailureClass::ContentFilter
        | FailureClass::Quota
        | FailureClass::ChainBroken
        | FailureClass::Unknown
        | FailureClass::CrashLoop
        | FailureClass::ContextStillOverLimit
        | FailureClass::Preparation
        | FailureClass::Corrupt => "provider",
    };
    Finding::bad(what, format!("{message}\n{}", class.advice()))
}

fn of_tools(heard: Result<Heard, Error>) -> Finding {
    let choose = "agents work by calling tools: choose a model that can";
    match heard {
        Ok(Heard { called: true, .. }) => Finding::good("tools", "the model calls tools"),
        Ok(Heard { called: false, cut_short: true }) => {
            let said = format!("not known: the model did not come to it within {MAX_OUTPUT_TOKENS} tokens");
            Finding::good("tools", said)
        }
        Ok(Heard { called: false, cut_short: false }) => {
            Finding::bad("tools", format!("the model was told to call a tool and did not; {choose}"))
        }
        Err(error) if error.class == FailureClass::InvalidRequest => {
            Finding::bad("tools", format!("{}\n{choose}", error.message))
        }
        Err(error) => of_failure(&error),
    }
}

/// Makes the model, for short answers and a short wait.
fn model(models: &AllModels, configuration: &Configuration, streamed: bool) -> Result<Arc<dyn Model>, Error> {
    let choice = ModelChoice {
        stream: streamed,
        max_output_tokens: Some(MAX_OUTPUT_TOKENS),
        provider_tools: Vec::new(),
        output: None,
        chain: false,
        resumable: false,
        ..configuration.model.clone()
    };
    let limits = Limits {
        model_first_part_ms: PATIENCE_MS,
        model_idle_ms: PATIENCE_MS,
        model_call_ms: PATIENCE_MS,
        ..configuration.limits.clone()
    };
    models.model(&choice, &limits).map_err(|failure| Error::new(failure.class, failure.message))
}

/// Makes one call and hears it to its end.
async fn call(
    models: &AllModels,
    configuration: &Configuration,
    streamed: bool,
    with_tool: bool,
) -> Result<Heard, Error> {
    let model = model(models, configuration, streamed)?;
    let cancel = CancellationToken::new();
    let call = ModelCall { request: Arc::new(request(with_tool)), attempt: 0, cancel, resume: None };
    let whole = async {
        let mut parts = model.call(call).await?;
        let mut heard = Heard { called: false, cut_short: false };
        while let Some(part) = parts.next().await {
            match part? {
                Part::ToolCallStarted { .. } => heard.called = true,
                Part::Finished { reason, .. } => heard.cut_short = reason == FinishReason::Length,
                Part::Started { .. }
                | Part::Text { .. }
                | Part::Refusal { .. }
                | Part::Reasoning { .. }
                | Part::ReasoningEnd { .. }
                | Part::ToolCallArguments { .. }
                | Part::ToolCallEnd { .. }
                | Part::Item { .. }
                | Part::Usage { .. } => {}
            }
        }
        Ok(heard)
    };
    let late = || {
        let message = format!("the answer was not complete after {} s", 2 * PATIENCE_MS / 1_000);
        Error::new(FailureClass::Timeout, message)
    };
    timeout(Duration::from_millis(2 * PATIENCE_MS), whole).await.unwrap_or_else(|_| Err(late()))
}

fn request(with_tool: bool) -> Request {
    let (text, tools) = match with_tool {
        true => ("Call the tool `ping` now.", vec![ping()]),
        false => ("Answer with the word yes.", Vec::new()),
    };
    Request {
        system: "You are being tested for whether you can be reached. Be brief.".to_owned(),
        items: vec![Arc::new(Item::User { text: text.to_owned() })],
        tools: Arc::new(tools),
        previous: None,
    }
}

fn ping() -> ToolSpec {
    ToolSpec {
        name: "ping".to_owned(),
        description: "Tells that you can call tools.".to_owned(),
        input_schema: serde_json::json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        effect: EffectClass::Pure,
        exclusive: false,
        stop_after: false,
    }
}
