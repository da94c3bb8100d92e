//! What the crate promises, by behaviour.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail it by panicking")]

mod catalogue;
mod chat_decoder;
mod chat_request;
mod classify;
mod http;
mod response;
mod scripted;
mod scripted_failures;
mod scripted_position;
mod scripted_text;
mod sse;
mod support;
mod wire;
