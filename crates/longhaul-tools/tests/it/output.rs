//! Cutting of long output.

use longhaul_session::id::Digest;
use longhaul_tools::limits::MAX_WHOLE_BYTES;
use longhaul_tools::output::{cut, limited};
use longhaul_tools::tool::ToolOutput;
use proptest::prelude::*;

fn note(bytes: usize) -> String {
    format!("[{bytes} cut]")
}

#[test]
fn a_text_within_the_limit_is_left_alone() {
    let output = limited(ToolOutput::ok("12345"), 5);
    assert_eq!((output.text.as_str(), output.whole), ("12345", None));
}

#[test]
fn characters_of_several_bytes_are_never_cut_apart() {
    for character in ["é", "€", "🦀"] {
        let text = character.repeat(200);
        for limit in 0..text.len() {
            let cut = cut(&text, limit, note);
            assert!(cut.len() <= limit, "{character} at {limit}");
            let kept = cut.matches(character).count() * character.len();
            match cut.split_once('\n') {
                Some((_, rest)) => assert!(rest.starts_with(&note(text.len() - kept)), "{cut}"),
                None => assert_eq!(cut.len(), kept),
            }
        }
    }
}

#[test]
fn a_cut_output_names_its_whole_by_digest() {
    let text = "line\n".repeat(1_000);
    let output = limited(ToolOutput::ok(&text), 1_000);
    let whole = output.whole.unwrap();
    assert_eq!(whole, text.as_bytes());
    assert!(output.text.contains(&format!("artifact:{}", Digest::of(&whole))), "{}", output.text);
    assert!(output.text.len() <= 1_000);
}

#[test]
fn a_whole_given_by_the_tool_is_the_one_that_is_named() {
    let output = ToolOutput { whole: Some(b"raw".to_vec()), ..ToolOutput::ok("x".repeat(2_000)) };
    let output = limited(output, 1_000);
    assert!(output.text.contains(&Digest::of(b"raw").to_hex()));
    assert_eq!(output.whole.unwrap(), b"raw");
}

#[test]
fn a_whole_beyond_its_own_limit_says_what_was_not_kept() {
    let output = limited(ToolOutput::ok("x".repeat(MAX_WHOLE_BYTES + 1)), 1_000);
    let whole = String::from_utf8(output.whole.unwrap()).unwrap();
    assert!(whole.len() <= MAX_WHOLE_BYTES);
    assert!(whole.contains("were cut here and not kept"));
}

proptest! {
    #[test]
    fn a_cut_text_is_a_head_and_a_tail_of_the_original_within_the_limit(text in "(?s).{0,300}", limit in 0_usize..400) {
        let result = cut(&text, limit, |bytes| format!("\u{1}{bytes}\u{1}"));
        prop_assert!(result.len() <= limit.max(text.len().min(limit)));
        if text.len() <= limit {
            prop_assert_eq!(&result, &text);
        } else if let Some((head, tail)) = marked(&result, &text) {
            prop_assert!(text.starts_with(head) && text.ends_with(tail));
        } else {
            prop_assert!(text.starts_with(&result));
        }
    }
}

/// Finds the mark whose count fits what is around it: the text may hold look-alikes.
fn marked<'a>(result: &'a str, text: &str) -> Option<(&'a str, &'a str)> {
    (0..=result.len()).filter(|at| result.is_char_boundary(*at)).find_map(|at| {
        let (head, rest) = result.split_at(at);
        let (number, tail) = rest.strip_prefix("\n\u{1}")?.split_once("\u{1}\n")?;
        (number.parse() == Ok(text.len() - head.len() - tail.len())).then_some((head, tail))
    })
}
