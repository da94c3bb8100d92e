//! Files that a person gave: what each wire makes of one that it carries, of a text, of one that it does not
//! carry, and of one that is gone.

use std::sync::Arc;

use longhaul_model::codec::Codec;
use longhaul_model::files::with_bytes;
use longhaul_model::{anthropic, gemini, openai_chat, openai_responses};
use longhaul_session::agent::Request;
use longhaul_session::id::Digest;
use longhaul_session::item::{Attachment, Item};
use longhaul_session::media;
use serde_json::{Value, json};

use crate::support::user;

fn attachment(name: &str, media_type: &str, bytes: &[u8]) -> Attachment {
    let (name, media_type) = (name.to_owned(), media_type.to_owned());
    Attachment { name, media_type, bytes: bytes.len() as u64, digest: Digest::of(bytes) }
}

fn given(name: &str, media_type: &str, bytes: &[u8]) -> Item {
    with_bytes(&attachment(name, media_type, bytes), bytes)
}

fn wires() -> [(&'static str, Box<dyn Codec>); 4] {
    let (url, model) = ("https://provider.test/v1", "test-model");
    [
        ("/messages/0/content", Box::new(openai_chat::Codec::new(openai_chat::Options::new(url, model)))),
        (
            "/input/0/content",
            Box::new(openai_responses::Codec::new(openai_responses::Options::new(url, model))),
        ),
        ("/messages/0/content", Box::new(anthropic::Codec::new(anthropic::Options::new(url, model)))),
        ("/contents/0/parts", Box::new(gemini::Codec::new(gemini::Options::new(url, model)))),
    ]
}

/// Returns the requests for a message with a file: Chat Completions, Responses, Messages, Gemini.
fn requests(file: &Item) -> [(&'static str, Value); 4] {
    let items = [user("Look."), file.clone()].map(Arc::new).to_vec();
    wires().map(|(at, codec)| {
        let tools = Arc::default();
        let request = Request { system: String::new(), items: items.clone(), tools, previous: None };
        (at, serde_json::from_slice(&codec.request(&request).body).unwrap())
    })
}

/// Returns what the message says in each.
fn sent(file: &Item) -> [Value; 4] {
    requests(file).map(|(at, body)| body.pointer(at).unwrap_or_else(|| panic!("{at} in {body}")).clone())
}

#[test]
fn each_wire_carries_a_picture_in_its_own_form() {
    let url = "data:image/png;base64,aGk=";
    let [chat, responses, messages, contents] = sent(&given("a.png", "image/png", b"hi"));
    assert_eq!(chat[1], json!({ "type": "image_url", "image_url": { "url": url } }));
    assert_eq!(responses[1], json!({ "type": "input_image", "image_url": url, "detail": "auto" }));
    let source = json!({ "type": "base64", "media_type": "image/png", "data": "aGk=" });
    assert_eq!((&messages[1]["type"], &messages[1]["source"]), (&json!("image"), &source));
    assert_eq!(contents[1], json!({ "inlineData": { "mimeType": "image/png", "data": "aGk=" } }));
}

#[test]
fn a_text_is_given_as_words_with_its_name() {
    let words = "<file name=\"a &quot;b&quot;.csv\" type=\"text/csv\">\na,b\n</file>";
    let [chat, responses, messages, contents] = sent(&given("a \"b\".csv", "text/csv", b"a,b\n"));
    assert_eq!(chat, json!(format!("Look.\n\n{words}")));
    assert_eq!(responses[1], json!({ "type": "input_text", "text": words }));
    let source = json!({ "type": "text", "media_type": "text/plain", "data": "a,b\n" });
    assert_eq!((&messages[1]["type"], &messages[1]["source"]), (&json!("document"), &source));
    assert_eq!(contents[1], json!({ "text": words }));
}

#[test]
fn a_file_that_a_wire_does_not_carry_is_named() {
    for says in sent(&given("a.zip", "application/zip", b"PK\x03\x04\0")) {
        let note = "[A file was here that this model cannot read: a.zip, application/zip]";
        assert!(says.to_string().contains(note), "{says}");
    }
}

#[test]
fn a_file_whose_bytes_are_gone_is_named() {
    for (_, says) in requests(&Item::Attachment(attachment("a.png", "image/png", b"hi"))) {
        let note = "[A file was here that is not shown any more: a.png, image/png, 2 bytes]";
        assert!(says.to_string().contains(note), "{says}");
    }
}

#[test]
fn what_a_wire_takes_it_carries_and_what_it_does_not_it_does_not() {
    let takes = [openai_chat::takes, openai_responses::takes, anthropic::takes, gemini::takes];
    let office = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    let types = [
        ("image/png", [true; 4]),
        ("image/gif", [true, true, true, false]),
        ("image/tiff", [false; 4]),
        ("application/pdf", [true; 4]),
        ("text/markdown", [true; 4]),
        ("application/json", [true; 4]),
        (office, [false, true, false, false]),
        ("audio/wav", [true, false, false, true]),
        ("video/mp4", [false, false, false, true]),
        ("application/zip", [false; 4]),
    ];
    for (media_type, expected) in types {
        assert_eq!(takes.map(|takes| takes(media_type)), expected, "{media_type}");
        let bytes: &[u8] = if media::is_text(media_type) { b"hi" } else { b"\0" };
        let carried =
            sent(&given("a", media_type, bytes)).map(|says| !says.to_string().contains("cannot read"));
        assert_eq!(carried, expected, "{media_type}");
    }
}
