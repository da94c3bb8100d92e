//! Base URLs as people write them, taken apart. Where each wire's endpoint lies below one is left to the wire.

/// Splits off the query, without its question mark, and what stands around the rest without meaning anything.
pub(crate) fn without_query(base_url: &str) -> (&str, &str) {
    let (base, query) = base_url.trim().split_once('?').unwrap_or((base_url.trim(), ""));
    (base.trim().trim_end_matches('/'), query)
}

/// Returns who is asked: host and port in small letters, without user and password.
pub(crate) fn host(base: &str) -> String {
    let authority = base.split_once("://").map_or(base, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase()
}

/// Puts a query behind a URL, if there is one.
pub(crate) fn with_query(url: &str, query: &str) -> String {
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{url}{mark}{query}")
}
