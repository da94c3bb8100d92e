//! What a provider says of the models it serves: which there are, and how much they take. Every provider
//! lists them in a form of its own, so that what it calls them is looked for under all the names in use.
//! Asking is left to [`crate::http`].

use serde_json::Value;

/// The longest name of a model, in bytes.
const MAX_NAME_BYTES: usize = 200;

/// What providers call the most tokens that a model takes.
const WINDOWS: [&str; 7] = [
    "context_length",
    "context_window",
    "max_model_len",
    "max_context_length",
    "max_input_tokens",
    "inputTokenLimit",
    "input_token_limit",
];

/// A model that a provider says it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The name it is asked for by.
    pub name: String,
    /// The most tokens it takes, where the provider says so.
    pub window_tokens: Option<u64>,
}

/// What a provider lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// In the provider's order.
    pub models: Vec<Offer>,
    /// There are more, which were not asked for.
    pub more: bool,
}

impl Offers {
    /// Finds a model by its name; how it is written does not matter, nor does a folder before it that all
    /// models of the provider are in.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Offer> {
        let name = bare(name.trim());
        self.models.iter().find(|offer| offer.name.eq_ignore_ascii_case(name))
    }

    /// Reads a list; `None` where the document is none.
    pub(crate) fn read(document: &[u8]) -> Option<Offers> {
        let document: Value = serde_json::from_slice(document).ok()?;
        let listed = ["data", "models"].iter().find_map(|name| document.get(name)?.as_array());
        let models = listed.or(document.as_array())?.iter().filter_map(offer).collect();
        let is_set = |name: &str| {
            document.get(name).is_some_and(|it| it == true || it.as_str().is_some_and(|it| !it.is_empty()))
        };
        Some(Offers { models, more: is_set("has_more") || is_set("nextPageToken") })
    }
}

fn offer(value: &Value) -> Option<Offer> {
    let named = ["id", "name", "model"].iter().find_map(|key| value.get(key)?.as_str());
    let name = bare(named.or(value.as_str())?.trim());
    let plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain);
    let window_tokens = WINDOWS.iter().find_map(|key| value.get(key)?.as_u64()).filter(|tokens| *tokens > 0);
    fits.then(|| Offer { name: name.to_owned(), window_tokens })
}

/// Returns a name without the folder that Google's models are in.
fn bare(name: &str) -> &str {
    name.strip_prefix("models/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::{Offer, Offers};

    fn read(document: &str) -> Option<Vec<(String, Option<u64>)>> {
        let models = Offers::read(document.as_bytes())?.models;
        Some(models.into_iter().map(|Offer { name, window_tokens }| (name, window_tokens)).collect())
    }

    #[test]
    fn a_list_is_read_in_any_form() {
        let model = |window| Some(vec![("m".to_owned(), window)]);
        for (document, models) in [
            (r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#, model(None)),
            (r#"{"data":[{"id":"m","context_length":1000}]}"#, model(Some(1_000))),
            (r#"{"data":[{"id":"m","max_model_len":1000}]}"#, model(Some(1_000))),
            (r#"{"data":[{"id":"m","context_window":null,"max_input_tokens":1000}]}"#, model(Some(1_000))),
            (r#"{"models":[{"name":"models/m","inputTokenLimit":1000}]}"#, model(Some(1_000))),
            (r#"[{"id":"m","context_length":0}]"#, model(None)),
            (r#"{"data":["m", 1, {}, {"id":""}, {"id":"a\nb"}, {"id":null,"name":7}]}"#, model(None)),
            (r#"{"data":[]}"#, Some(Vec::new())),
            (r#"{"data":{}}"#, None),
            ("{}", None),
            ("null", None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(read(document), models, "{document}");
        }
    }

    #[test]
    fn whether_there_are_more_is_told_and_a_name_is_found_as_people_write_it() {
        for (document, more) in [
            (r#"{"data":[],"has_more":true}"#, true),
            (r#"{"data":[],"has_more":false}"#, false),
            (r#"{"models":[],"nextPageToken":"x"}"#, true),
            (r#"{"models":[],"nextPageToken":""}"#, false),
        ] {
            assert_eq!(Offers::read(document.as_bytes()).unwrap().more, more, "{document}");
        }
        let offers = Offers::read(br#"{"models":[{"name":"models/Some-1"}]}"#).unwrap();
        assert!(offers.find("models/some-1").is_some() && offers.find("some").is_none());
    }
}
