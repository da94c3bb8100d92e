//! Where requests go, from a base URL as people write it and the name of a model. What is sent there is
//! left to the codec.

use crate::base_url::{host, with_query, without_query};
use crate::secret::Secret;

/// Added where a base URL names no version.
const VERSION: &str = "/v1beta";

/// Where the requests of one model go.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) url: String,
    /// Where the list of models is.
    pub(crate) offers_url: String,
    /// Who made what is opaque: other servers must not get it.
    pub(crate) host: String,
    /// A key that stood in the URL, where it would end up in logs.
    pub(crate) key: Option<Secret>,
}

impl Address {
    pub(crate) fn new(base_url: &str, model: &str, stream: bool) -> Self {
        let (base, query) = without_query(base_url);
        let mut key = None;
        let mut fields = Vec::new();
        for field in query.split('&').filter(|field| !field.is_empty()) {
            match field.split_once('=') {
                Some(("key", value)) => key = Some(Secret::new(value)).filter(|key| !key.expose().is_empty()),
                Some(("alt", _)) => {}
                Some(_) | None => fields.push(field),
            }
        }
        let listed: Vec<&str> = fields.iter().copied().chain(["pageSize=1000"]).collect();
        fields.extend(stream.then_some("alt=sse"));
        let (base, host) = (root(base), host(base));
        let method = if stream { "streamGenerateContent" } else { "generateContent" };
        let url = with_query(&format!("{base}/{}:{method}", resource(model)), &fields.join("&"));
        let offers_url = with_query(&format!("{base}/models"), &listed.join("&"));
        Address { url, offers_url, host, key }
    }
}

/// Returns where the API begins: without the end of a full endpoint, and with a version.
fn root(base: &str) -> String {
    let base = base.strip_suffix("/models").unwrap_or(base);
    let base = base.rfind("/models/").map_or(base, |at| &base[..at]);
    let (_, path) = path_of(base).unwrap_or((base, ""));
    if path.split('/').any(is_version) {
        // The same server speaks the chat format below this.
        return base.strip_suffix("/openai").unwrap_or(base).to_owned();
    }
    format!("{base}{VERSION}")
}

fn path_of(base: &str) -> Option<(&str, &str)> {
    let after = base.find("://")? + "://".len();
    Some(base.split_at(after + base[after..].find('/')?))
}

/// Tells whether a part of a path is like `v1`, `v1beta` or `v1alpha2`.
fn is_version(part: &str) -> bool {
    let Some(rest) = part.strip_prefix('v') else { return false };
    let stage = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let stage_name = stage.trim_end_matches(|c: char| c.is_ascii_digit());
    stage.len() < rest.len() && matches!(stage_name, "" | "alpha" | "beta")
}

/// Returns the path of a model. A name with a folder, as tuned models have it, stays as it is.
fn resource(model: &str) -> String {
    let model = model.trim().trim_matches('/');
    let mut path = if model.contains('/') { String::new() } else { "models/".to_owned() };
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'@' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}
