//! Takes what must not be in a recording out of it: headers that are not known to be harmless, and keys
//! wherever a text holds one.

use serde_json::Value;

use crate::secret::{MASK, Secret, mask};

/// Headers of requests that say how to understand them, and nothing else.
const REQUEST_HEADERS: [&str; 5] =
    ["content-type", "accept", "anthropic-version", "anthropic-beta", "openai-beta"];

/// How headers of answers begin that somebody may want to read, or that decide what happens next.
const RESPONSE_HEADERS: [&str; 9] = [
    "content-type",
    "date",
    "retry-after",
    "ratelimit-",
    "x-ratelimit-",
    "anthropic-ratelimit-",
    "request-id",
    "x-request-id",
    "x-should-retry",
];

/// Names of parameters of an address that hold a key hold one of these words.
const KEY_WORDS: [&str; 5] = ["key", "token", "secret", "sig", "password"];

/// The shortest value that is looked for: shorter ones are placeholders ("none"), and masking them would
/// garble words.
const SHORTEST: usize = 6;

/// A key is looked for as it is, in JSON, and in JSON that is a text in JSON: arguments of tools in a stream.
const FORMS: usize = 3;

/// Knows the keys of a run.
#[derive(Debug, Default)]
pub(super) struct Scrubber {
    /// Each in its forms, the longest first: one may be the beginning of another.
    keys: Vec<String>,
}

impl Scrubber {
    /// Adds a key. Of a header's value, its last word counts on its own: what stands before it names the
    /// scheme.
    pub(super) fn know(&mut self, secret: &Secret) {
        let value = secret.expose();
        let words = [value, value.rsplit(' ').next().unwrap_or(value)];
        for word in words.into_iter().filter(|word| word.len() >= SHORTEST) {
            let forms = std::iter::successors(Some(word.to_owned()), |form| {
                let quoted = Value::from(form.as_str()).to_string();
                Some(quoted[1..quoted.len() - 1].to_owned())
            });
            for form in forms.take(FORMS) {
                if !self.keys.contains(&form) {
                    self.keys.push(form);
                }
            }
        }
        self.keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
    }

    /// Masks the keys it knows in a text, and what looks like one.
    pub(super) fn text(&self, text: &str) -> String {
        mask(&self.keys.iter().fold(text.to_owned(), |text, key| text.replace(key, MASK)))
    }

    /// Masks the same in all texts of a value, names included.
    pub(super) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => values.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (self.text(&name), self.value(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// Masks keys in a path and its query, and learns those that stand in the query.
    pub(super) fn path(&mut self, path: &str, query: Option<&str>) -> String {
        let Some(query) = query else { return self.text(path) };
        let parameters: Vec<String> = query
            .split('&')
            .map(|parameter| match parameter.split_once('=') {
                Some((name, value)) if is_key(name) => {
                    self.know(&Secret::new(value));
                    format!("{name}={MASK}")
                }
                Some(_) | None => parameter.to_owned(),
            })
            .collect();
        self.text(&format!("{path}?{}", parameters.join("&")))
    }
}

fn is_key(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    KEY_WORDS.iter().any(|word| name.contains(word))
}

/// Tells whether a header of a request may be written down.
pub(super) fn keeps_of_request(name: &str) -> bool {
    REQUEST_HEADERS.iter().any(|kept| name.eq_ignore_ascii_case(kept))
}

/// Tells whether a header of an answer may be written down.
pub(super) fn keeps_of_response(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESPONSE_HEADERS.iter().any(|kept| name.starts_with(kept))
}
