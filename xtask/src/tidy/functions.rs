//! Finds the functions of a Rust source and how long they are. Whether that is too long is for
//! `sources` to say.

use super::mask::{identifiers, line_at, mask};

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// The line of its `fn`, counted from one.
    pub(super) line: usize,
    /// From its `fn` to its closing brace, both included.
    pub(super) lines: usize,
}

/// Finds the functions of masked code, those inside other functions too.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let words = identifiers(code);
    let mut found = Vec::new();
    for pair in words.windows(2) {
        let [(at, keyword), (name_at, name)] = *pair else {
            continue;
        };
        let between = &code[at + keyword.len()..name_at];
        if keyword != "fn" || !between.chars().all(char::is_whitespace) {
            continue;
        }
        let Some(open) = body_start(code, name_at) else {
            continue;
        };
        let end = closing_brace(code, open);
        let line = line_at(code, at);
        found.push(Function { name: name.to_owned(), line, lines: line_at(code, end) - line + 1 });
    }
    found
}

/// Finds the names of the functions of a source.
pub(super) fn names(text: &str) -> impl Iterator<Item = String> {
    functions(&mask(text).code).into_iter().map(|function| function.name)
}

/// The offset of the brace that closes the one at `open`, or the end of an unfinished text.
pub(super) fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The offset of the body's brace; none for a function that is only declared.
fn body_start(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::functions;
    use crate::tidy::mask::mask;

    fn lengths(source: &str) -> Vec<(String, usize, usize)> {
        let found = functions(&mask(source).code);
        found.into_iter().map(|function| (function.name, function.line, function.lines)).collect()
    }

    #[test]
    fn a_function_is_as_long_as_from_its_keyword_to_its_brace() {
        let source = "\n/// Doc.\nfn one(\n    a: [u8; 3],\n) -> u8 {\n    a[0]\n}\nfn two() {}\n";
        assert_eq!(lengths(source), [("one".to_owned(), 3, 5), ("two".to_owned(), 8, 1)]);
    }

    #[test]
    fn braces_in_strings_and_comments_do_not_count() {
        let source = "fn one() {\n    let a = \"}\"; // }\n    let b = '}';\n}\nfn two() {\n}";
        assert_eq!(lengths(source), [("one".to_owned(), 1, 4), ("two".to_owned(), 5, 2)]);
    }

    #[test]
    fn inner_functions_count_alone_and_in_the_outer_one() {
        let source = "fn outer() {\n    fn inner() {\n    }\n}";
        assert_eq!(lengths(source), [("outer".to_owned(), 1, 4), ("inner".to_owned(), 2, 2)]);
    }

    #[test]
    fn what_has_no_body_is_no_function() {
        let source = "trait T { fn declared(&self) -> [u8; 2]; }\ntype F = fn(u8) -> u8;\nfn real() {}";
        assert_eq!(lengths(source), [("real".to_owned(), 3, 1)]);
    }
}
