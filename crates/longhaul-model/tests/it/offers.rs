//! Where each wire is asked which models there are.

use longhaul_model::codec::{Codec, HttpRequest, Method};
use longhaul_model::{Secret, anthropic, gemini, openai_chat, openai_responses};

fn asked(wire: &str, url: &str) -> HttpRequest {
    let key = Some(Secret::new("a-key"));
    let asked = match wire {
        "chat" => {
            openai_chat::Codec::new(openai_chat::Options { key, ..openai_chat::Options::new(url, "m") })
                .offers()
        }
        "responses" => {
            let options = openai_responses::Options { key, ..openai_responses::Options::new(url, "m") };
            openai_responses::Codec::new(options).offers()
        }
        "messages" => {
            anthropic::Codec::new(anthropic::Options { key, ..anthropic::Options::new(url, "m") }).offers()
        }
        _ => gemini::Codec::new(gemini::Options { key, ..gemini::Options::new(url, "m") }).offers(),
    };
    asked.unwrap()
}

#[test]
fn the_list_of_models_is_beside_where_answers_are_asked_for() {
    for (wire, url, list) in [
        ("chat", "https://a.test/v1/", "https://a.test/v1/models"),
        ("chat", "https://a.test/v1/chat/completions?x=1", "https://a.test/v1/models?x=1"),
        ("responses", "https://a.test", "https://a.test/v1/models"),
        ("responses", "https://a.test/v1/responses?x=1", "https://a.test/v1/models?x=1"),
        ("messages", "https://a.test", "https://a.test/v1/models?limit=1000"),
        ("messages", "https://a.test/v1/messages?x=1", "https://a.test/v1/models?x=1&limit=1000"),
        ("contents", "https://a.test", "https://a.test/v1beta/models?pageSize=1000"),
        (
            "contents",
            "https://a.test/v1/models/m:generateContent?alt=sse&x=1",
            "https://a.test/v1/models?x=1&pageSize=1000",
        ),
    ] {
        let HttpRequest { method, url: asked_url, headers, body, streamed } = asked(wire, url);
        assert_eq!((asked_url.as_str(), method), (list, Method::Get), "{wire} {url}");
        assert!(body.is_empty() && !streamed);
        assert!(headers.iter().any(|(_, value)| value.expose().ends_with("a-key")), "{wire}");
    }
}
