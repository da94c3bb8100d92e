//! Where the API is, from any way to write its base URL, and how a key is shown there.

use crate::base_url::{host, with_query, without_query};
use crate::secret::Secret;

/// Hosts of Azure end like this.
const AZURE: [&str; 3] = [".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"];

const RESPONSES: &str = "/responses";

/// Where the API is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Without a slash at its end.
    base: String,
    /// Without its question mark; empty if there is none.
    query: String,
    host: String,
}

impl Place {
    /// Reads a base URL. One without a path is given the usual one.
    pub(super) fn of(base_url: &str) -> Self {
        let (base, query) = without_query(base_url);
        let base = base.strip_suffix(RESPONSES).unwrap_or(base).trim_end_matches('/');
        let (scheme, rest) = base.split_once("://").map_or(("", base), |(scheme, rest)| (scheme, rest));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host(authority);
        let dated = query.contains("api-version=");
        let path = match (is_azure(&host), path) {
            (true, "" | "openai") => if dated { "/openai" } else { "/openai/v1" }.to_owned(),
            // Chat is asked for by deployment, this API by model.
            (true, path) if path.starts_with("openai/deployments/") => "/openai".to_owned(),
            (false, "") => "/v1".to_owned(),
            (true | false, path) => format!("/{path}"),
        };
        let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
        Place { base: format!("{scheme}{authority}{path}"), query: query.to_owned(), host }
    }

    /// Returns the host, with its port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Returns where answers are asked for.
    pub(super) fn responses(&self) -> String {
        self.url("", &[])
    }

    /// Returns where an answer is that the provider keeps, or what can be done with it.
    pub(super) fn stored(&self, response_id: &str, what: &str, query: &[(&str, &str)]) -> String {
        self.url(&format!("/{}{what}", escaped(response_id)), query)
    }

    /// Returns where the list of models is.
    pub(super) fn models(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        format!("{}/models{mark}{}", self.base, self.query)
    }

    /// Returns the header that a key is shown in.
    pub(super) fn key(&self, key: &Secret) -> (String, Secret) {
        // Azure's keys are of its own kind; a token of an identity is shown as everywhere.
        match is_azure(&self.host) && !key.expose().starts_with("eyJ") {
            true => ("api-key".to_owned(), key.clone()),
            false => ("authorization".to_owned(), Secret::new(format!("Bearer {}", key.expose()))),
        }
    }

    fn url(&self, behind: &str, query: &[(&str, &str)]) -> String {
        let more = query.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
        let query: Vec<String> =
            Some(self.query.clone()).filter(|query| !query.is_empty()).into_iter().chain(more).collect();
        with_query(&format!("{}{RESPONSES}{behind}", self.base), &query.join("&"))
    }
}

fn is_azure(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or_default();
    AZURE.iter().any(|end| name.ends_with(end))
}

/// Escapes what means something in a URL: ids come from outside.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
