//! What the crate promises, by behaviour.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail it by panicking")]

mod anthropic_conversation;
mod anthropic_decoder;
mod anthropic_request;
mod catalogue;
mod chat_decoder;
mod chat_request;
mod chat_sessions;
mod classify;
mod conversation;
mod decode;
#[path = "../../examples/decode/exchange.rs"]
mod exchange;
mod files;
mod fuzz;
mod gemini_decoder;
mod gemini_request;
mod gemini_sessions;
mod http;
mod offers;
mod opaque;
mod response;
mod responses_decoder;
mod responses_request;
mod resume;
mod rules;
mod scripted;
mod scripted_failures;
mod scripted_position;
mod scripted_text;
mod sse;
mod support;
mod wire;
