//! Keys, and texts that might hold one. Where keys come from is left to whoever configures a client.

use std::fmt;

pub(crate) const MASK: &str = "[masked]";

/// The shortest key that is looked for in texts: shorter ones are placeholders ("none", "ollama"),
/// and masking them would garble words.
const SHORTEST: usize = 8;

/// How providers' keys begin. The rest of the word is masked.
const PREFIXES: [&str; 11] =
    ["sk-", "sk_", "gsk_", "xai-", "AIza", "AKIA", "ASIA", "hf_", "nvapi-", "pplx-", "ghp_"];

/// A key. It is shown as a mask, compared with nothing and written nowhere.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a key; white space around it, as files have it, is dropped.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into().trim().to_owned())
    }

    /// Returns the key itself, for the request it is sent with.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Masks the key wherever a text holds it.
    #[must_use]
    pub(crate) fn masked_in(&self, text: &str) -> String {
        let bare = self.0.strip_prefix("Bearer ").unwrap_or(&self.0);
        if bare.len() < SHORTEST { text.to_owned() } else { text.replace(bare, MASK) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Masks what looks like a key in a text that somebody else wrote.
pub(crate) fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut after_bearer = false;
    for piece in text.split_inclusive(is_boundary) {
        let word = piece.trim_end_matches(is_boundary);
        if after_bearer && word.len() >= SHORTEST || looks_like_key(word) {
            masked.push_str(MASK);
            masked.push_str(&piece[word.len()..]);
        } else {
            masked.push_str(piece);
        }
        if !word.is_empty() {
            after_bearer = word.eq_ignore_ascii_case("bearer");
        }
    }
    masked
}

fn is_boundary(c: char) -> bool {
    c.is_whitespace() || "\"'`,;:()[]{}<>=&?".contains(c)
}

fn looks_like_key(word: &str) -> bool {
    PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= SHORTEST))
}
