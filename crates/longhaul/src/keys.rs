//! Keys of providers: read where a configuration says they are, at the time they are needed, and
//! masked in texts that should not hold them. A key is never printed, logged or kept.

use std::borrow::Cow;
use std::io::{self, Read as _};
use std::path::Path;

use longhaul_session::agent::KeySource;

use crate::environment;

/// The largest file that is taken for a key, in bytes.
const MAX_KEY_BYTES: u64 = 16 * 1024;
/// The shortest value that is masked: shorter ones are placeholders ("none", "ollama"), and masking
/// them would garble words.
const SHORTEST_MASKED: usize = 8;
const MASK: &[u8] = b"[masked]";

/// Why a key is not to be had. Says where it was looked for, and never what was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The variable is not set, or it is empty.
    #[error("the variable {0} is not set, or empty; set it to the key, or change `key` of [model]")]
    Unset(String),
    /// The file cannot be read.
    #[error("the file {path} cannot be read: {source}; write the key into it, or change `key` of [model]")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is nothing in the file.
    #[error("the file {0} is empty; write the key into it")]
    Empty(String),
    /// What was found cannot be sent as a key.
    #[error(
        "what {0} holds cannot be a key: a key is one word of printable ASCII characters; put the key there, \
         alone"
    )]
    Unfit(String),
}

/// Reads a key. Spaces and line ends around it are dropped.
///
/// # Errors
/// [`Error`], which says what to do: it is not there, or it cannot be a key.
pub(crate) fn resolve(source: &KeySource) -> Result<String, Error> {
    let unfit = || Error::Unfit(described(source));
    let found = match source {
        KeySource::Env(name) => {
            let value = environment::secret(name).ok_or_else(|| Error::Unset(name.clone()))?;
            value.into_string().map_err(|_| unfit())?
        }
        KeySource::File(path) => {
            let unreadable = |source| Error::Unreadable { path: path.clone(), source };
            String::from_utf8(read(Path::new(path)).map_err(unreadable)?).map_err(|_| unfit())?
        }
    };
    let key = found.trim();
    if key.is_empty() {
        return Err(match source {
            KeySource::Env(name) => Error::Unset(name.clone()),
            KeySource::File(path) => Error::Empty(path.clone()),
        });
    }
    let fits = found.len() as u64 <= MAX_KEY_BYTES && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(key.to_owned()) } else { Err(unfit()) }
}

/// Says where a key is found.
pub(crate) fn described(source: &KeySource) -> String {
    match source {
        KeySource::Env(name) => format!("the variable {name}"),
        KeySource::File(path) => format!("the file {path}"),
    }
}

/// Tells whether others than the owner may read a file that a key is in.
pub(crate) fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe or a terminal would be waited for.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_KEY_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Known keys, to be masked wherever a text holds one. Texts that come in pieces must be put together
/// first: a key cut in two is not found.
#[derive(Clone)]
pub(crate) struct Mask {
    /// The longest first: one may be the beginning of another.
    values: Vec<Vec<u8>>,
}

impl Mask {
    /// Takes the keys to mask. Those of less than 8 bytes are left alone.
    pub(crate) fn new(keys: impl IntoIterator<Item = String>) -> Self {
        let mut values: Vec<Vec<u8>> = keys.into_iter().map(String::into_bytes).collect();
        values.retain(|value| value.len() >= SHORTEST_MASKED);
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Mask { values }
    }

    /// Masks the keys in a text.
    pub(crate) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(masked) => {
                Cow::Owned(String::from_utf8(masked).expect("whole texts are replaced by a text"))
            }
        }
    }

    /// Masks the keys in what may be a text.
    pub(crate) fn bytes<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let mut masked = Vec::new();
        let (mut kept, mut at) = (0, 0);
        while at < bytes.len() {
            match self.values.iter().find(|value| bytes[at..].starts_with(value)) {
                Some(value) => {
                    masked.extend_from_slice(&bytes[kept..at]);
                    masked.extend_from_slice(MASK);
                    at += value.len();
                    kept = at;
                }
                None => at += 1,
            }
        }
        if kept == 0 {
            return Cow::Borrowed(bytes);
        }
        masked.extend_from_slice(&bytes[kept..]);
        Cow::Owned(masked)
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    fn mask(keys: &[&str]) -> Mask {
        Mask::new(keys.iter().map(|key| (*key).to_owned()))
    }

    #[test]
    fn every_known_key_is_masked_and_nothing_else_is() {
        let mask = mask(&["sk-12345678", "sk-12345678-and-more", "passwörter"]);
        let text = "a sk-12345678-and-more, sk-12345678sk-12345678 é passwörter sk-1234567";
        assert_eq!(mask.text(text), "a [masked], [masked][masked] é [masked] sk-1234567");
        assert_eq!(mask.bytes(b"\xffsk-12345678\xfe")[..], b"\xff[masked]\xfe"[..]);
    }

    #[test]
    fn a_text_without_keys_is_not_copied() {
        use std::borrow::Cow;
        assert!(matches!(mask(&["sk-12345678"]).text("nothing here"), Cow::Borrowed(_)));
    }

    #[test]
    fn short_placeholders_are_left_alone() {
        assert_eq!(mask(&["ollama", "", "1234567"]).text("ollama 1234567"), "ollama 1234567");
    }
}
