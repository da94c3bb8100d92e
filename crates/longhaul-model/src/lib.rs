//! The `Model` trait: one attempt at an answer, as a stream of parts.
//!
//! A provider is a pair of pure functions (a request to bytes, bytes to parts; [`codec`]) and
//! something that carries bytes between them ([`http`], one for all); this crate fixes what comes
//! out. What an answer is made of is in [`part`], how parts become an answer in [`response`], why an
//! attempt failed in [`error`]. Each wire format is a module of its own ([`mod@openai_chat`],
//! [`mod@openai_responses`], [`mod@anthropic`], [`mod@gemini`]), and [`scripted`] is a model that needs
//! no provider. Retries and what is stored are left to the engine: nothing here tries twice.

pub mod anthropic;
mod array;
mod base_url;
mod body;
pub mod catalogue;
pub mod codec;
mod conversation;
pub mod error;
pub mod files;
mod frames;
pub mod gemini;
pub mod http;
mod limits;
mod measure;
mod number;
pub mod offers;
pub mod openai_chat;
pub mod openai_responses;
pub mod part;
mod reader;
pub mod recording;
pub mod response;
pub mod scripted;
pub mod secret;
pub mod sse;
mod written;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::Stream;
use longhaul_session::agent::Request;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use anthropic::anthropic;
pub use error::Error;
pub use gemini::gemini;
pub use offers::Offers;
pub use openai_chat::openai_chat;
pub use openai_responses::openai_responses;
pub use part::{FinishReason, Part};
pub use response::{Accumulator, Response};
pub use secret::Secret;

/// The parts of one answer, in order, while it is made.
///
/// [`Part::Finished`] is the last part of a whole answer. A stream that ends without it, or yields
/// an error, is a failed attempt, and nothing follows the error.
pub type PartStream = Pin<Box<dyn Stream<Item = Result<Part, Error>> + Send>>;

/// Something that answers requests.
#[async_trait]
pub trait Model: Send + Sync + 'static {
    /// Says which model this is, for logs and screens.
    fn identity(&self) -> Identity;

    /// Starts one attempt at an answer. Dropping the stream gives the attempt up.
    ///
    /// Once `call.cancel` is cancelled, this returns and the stream ends as soon as they can,
    /// without [`Part::Finished`] and not necessarily with an error: who cancelled knows why.
    ///
    /// # Errors
    /// The attempt failed before its first part.
    async fn call(&self, call: ModelCall) -> Result<PartStream, Error>;

    /// Ends an answer that the provider makes in the background, so that it costs no more. Nothing is done
    /// for one that has ended already, or where the provider has no such thing.
    ///
    /// # Errors
    /// The provider could not be told.
    async fn cancel(&self, _response_id: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Asks the provider which models it serves; `None` where it does not say.
    ///
    /// # Errors
    /// The provider could not be asked, or refused.
    async fn offers(&self) -> Result<Option<Offers>, Error> {
        Ok(None)
    }
}

/// One attempt at an answer.
#[derive(Clone, Debug)]
pub struct ModelCall {
    /// What is asked.
    pub request: Arc<Request>,
    /// How many attempts at this step failed before this one.
    pub attempt: u32,
    /// Ends the attempt.
    pub cancel: CancellationToken,
    /// An answer that the provider makes in the background, from an attempt before: it is picked up from
    /// its beginning, and nothing new is asked for. [`FailureClass::ChainBroken`] says that the provider has
    /// lost it. Where the provider has no such thing, the request is sent.
    ///
    /// [`FailureClass::ChainBroken`]: longhaul_session::failure::FailureClass::ChainBroken
    pub resume: Option<String>,
}

/// Which model answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The provider's name.
    pub provider: String,
    /// The model's name, as the provider knows it.
    pub model: String,
    /// The answers are read from a script: no language model is involved. Surfaces say so.
    pub scripted: bool,
}
