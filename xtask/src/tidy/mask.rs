//! Tells apart the code, the comments and the literals of a Rust source, so that the other checks
//! never take a word in a string for code. It knows tokens, not grammar.

/// A source twice, each the length of the original and with all else blank, so that offsets and
/// lines are the same in all three.
pub(super) struct Masked {
    /// The code, without comments and literals.
    pub(super) code: String,
    /// The comments, documentation included.
    pub(super) comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Separates code from comments.
pub(super) fn mask(source: &str) -> Masked {
    let bytes = source.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut comments = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (kind, end) = piece(bytes, at);
        let end = end.clamp(at + 1, bytes.len());
        for &byte in &bytes[at..end] {
            let blank = if byte == b'\n' { b'\n' } else { b' ' };
            code.push(if kind == Kind::Code { byte } else { blank });
            comments.push(if kind == Kind::Comment { byte } else { blank });
        }
        at = end;
    }
    // Comments and literals begin and end at ASCII characters, so no character is cut in two.
    Masked {
        code: String::from_utf8_lossy(&code).into_owned(),
        comments: String::from_utf8_lossy(&comments).into_owned(),
    }
}

/// The identifiers and keywords of masked code, with their offsets.
pub(super) fn identifiers(code: &str) -> Vec<(usize, &str)> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = word_end(bytes, at);
        if end > at && !bytes[at].is_ascii_digit() {
            found.push((at, &code[at..end]));
        }
        at = end.max(at + 1);
    }
    found
}

/// The line of an offset, counted from one.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Whether a byte continues an identifier. Bytes of other scripts count, so that none is cut.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn word_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| !is_word(*byte)).map_or(bytes.len(), |length| at + length)
}

/// What begins at `at`, and where it ends.
fn piece(bytes: &[u8], at: usize) -> (Kind, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        return (Kind::Comment, at + length);
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, block_comment_end(bytes, at));
    }
    if let Some(end) = raw_string_end(bytes, at) {
        return (Kind::Literal, end);
    }
    match bytes[at] {
        b'"' => (Kind::Literal, quoted_end(bytes, at, b'"')),
        b'\'' if is_character(rest) => (Kind::Literal, quoted_end(bytes, at, b'\'')),
        byte if is_word(byte) => (Kind::Code, word_end(bytes, at)),
        _ => (Kind::Code, at + 1),
    }
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The end of a raw string with any of its prefixes, when one begins at `at`.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let prefix: &[u8] = [&b"r"[..], b"br", b"cr"].into_iter().find(|prefix| {
        let after = bytes.get(at + prefix.len());
        bytes[at..].starts_with(prefix) && matches!(after, Some(b'"' | b'#'))
    })?;
    let hashes_at = at + prefix.len();
    let hashes = bytes[hashes_at..].iter().take_while(|byte| **byte == b'#').count();
    let body = hashes_at + hashes + 1;
    if bytes.get(body - 1) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let length = bytes[body..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| body + length + close.len()))
}

fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Whether a quote opens a character rather than a lifetime or a label.
fn is_character(rest: &[u8]) -> bool {
    match rest.get(1) {
        None => false,
        Some(b'\\') => true,
        Some(first) => {
            let length = match first {
                0xF0.. => 4,
                0xE0.. => 3,
                0xC0.. => 2,
                _ => 1,
            };
            rest.get(1 + length) == Some(&b'\'')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{identifiers, line_at, mask};

    fn code(source: &str) -> String {
        let masked = mask(source);
        assert_eq!(masked.code.len(), source.len());
        assert_eq!(masked.comments.len(), source.len());
        masked.code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let cases = [
            ("a // b\nc", "a c"),
            ("a /* b /* c */ d */ e", "a e"),
            ("a \"b // c\" d", "a d"),
            (r#"a "b\"c" d"#, "a d"),
            ("a r\"b\\\" c", "a c"),
            ("a r#\"b \" c\"# d", "a d"),
            ("a br##\"b\"# c\"## d", "a d"),
            ("a b\"x\" c", "a b c"),
            ("a '\"' b \"c\" d", "a b d"),
            ("a '\\'' b", "a b"),
            ("a 'é' b", "a b"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("'outer: loop {}", "'outer: loop {}"),
            ("r#fn bar\"b\" c", "r#fn bar c"),
            ("a /* open", "a"),
            ("a \"open", "a"),
            ("é // é\né", "é é"),
        ];
        for (source, expected) in cases {
            assert_eq!(code(source), expected, "{source}");
        }
    }

    #[test]
    fn comments_are_kept_apart_and_in_place() {
        let masked = mask("let a = \"// no\"; // yes\n/* and */ b");
        assert_eq!(masked.comments.trim_start(), "// yes\n/* and */  ");
        assert_eq!(line_at(&masked.comments, masked.comments.find("and").unwrap()), 2);
    }

    #[test]
    fn identifiers_are_whole_words() {
        let words: Vec<&str> = identifiers("fn f1(a_b: u8) 12 x").into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["fn", "f1", "a_b", "u8", "x"]);
    }
}
