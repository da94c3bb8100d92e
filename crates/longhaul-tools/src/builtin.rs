//! The tools that come with Longhaul, one file each, and what they share.

pub(crate) mod bash;
pub(crate) mod edit;
pub(crate) mod glob;
pub(crate) mod grep;
pub(crate) mod read;
mod walk;
pub(crate) mod write;

use longhaul_session::item::Outcome;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::scope::ScopeError;
use crate::tool::{CallContext, ToolOutput};
use crate::workspace::Obstacle;

/// Reads arguments that fit the schema into what the tool works with.
fn arguments<T: DeserializeOwned>(arguments: Value) -> Result<T, ToolOutput> {
    serde_json::from_value(arguments)
        .map_err(|error| ToolOutput::new(Outcome::Rejected, format!("The call was not run: {error}.")))
}

/// Does file work on a thread where it may block. A panic of it is one of the call.
async fn blocking(
    cx: &CallContext,
    work: impl FnOnce(&CallContext) -> Result<ToolOutput, Obstacle> + Send + 'static,
) -> ToolOutput {
    let cx = cx.clone();
    match tokio::task::spawn_blocking(move || work(&cx)).await {
        Ok(output) => output.unwrap_or_else(ToolOutput::from),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => ToolOutput::new(Outcome::NotRun, "The call was not run: the worker is shutting down."),
        },
    }
}

impl From<Obstacle> for ToolOutput {
    fn from(obstacle: Obstacle) -> Self {
        let outcome = match obstacle {
            Obstacle::Scope(ScopeError::Denied { .. }) => Outcome::Denied,
            Obstacle::Scope(_) | Obstacle::Stale(_) | Obstacle::File(_) | Obstacle::Unfit(_) => {
                Outcome::Error
            }
        };
        ToolOutput::new(outcome, obstacle.to_string())
    }
}
