//! Makes output comparable: what differs from run to run is replaced by a word for what it is.

use crate::world::World;

/// Replaces ids, hashes, times, durations and the root's path. A database of a server is written as the home it
/// stands for, so that both are held to the same words.
pub(crate) fn plain(world: &World, text: &str) -> String {
    let home = world.path("home").display().to_string();
    let text = text.replace(&world.kept.shown(), &home).replace(&*world.root().to_string_lossy(), "ROOT");
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some(letter) = rest.chars().next() {
        let in_word = out.chars().last().is_some_and(|last| last.is_alphanumeric() || last == '-');
        let (word, length) = if in_word { None } else { changing(rest) }.unwrap_or(("", 0));
        if length > 0 {
            out.push_str(word);
            rest = &rest[length..];
        } else {
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    let out = out.replace("DURATION ago", "AGO").replace("just now", "AGO");
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Returns what the text begins with, if that is something that changes, and how long it is.
fn changing(text: &str) -> Option<(&'static str, usize)> {
    let word =
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-:.".contains(letter)).next()?;
    let word = word.trim_end_matches(['.', ':']);
    let hexadecimal = word.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-');
    let hyphens = word.matches('-').count();
    match (word.len(), hexadecimal) {
        (36, true) if hyphens == 4 => return Some(("ID", 36)),
        (13, true) if hyphens == 1 => return Some(("ID", 13)),
        (16, true) if hyphens == 0 => return Some(("HASH", 16)),
        _ => {}
    }
    if word.len() == 8 && word.split(':').count() == 3 {
        return Some(("TIME", 8));
    }
    let number = word.split_once('.').map_or(word, |(whole, _)| whole);
    let unit = text[word.len()..].strip_prefix(' ').and_then(|rest| {
        let unit = rest.split(|letter: char| !letter.is_alphanumeric()).next()?;
        ["ms", "s", "min", "h"].contains(&unit).then_some(unit)
    })?;
    let numeric = !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit());
    numeric.then_some(("DURATION", word.len() + 1 + unit.len()))
}

#[test]
fn what_changes_is_replaced_and_nothing_else_is() {
    let world = World::new();
    let root = world.root();
    let text = format!(
        "01a1f899-086c at 10:55:40 in {}/x: 3 entries, 0.4 s, hash d7bfe75dd828791d, 12 s ago\n\
         01a1f89e-9e51-7470-84ca-029403a31f7f is 33 ms old, 3 s. 1.0k in, 4 steps   \n",
        root.display()
    );
    let expected = "ID at TIME in ROOT/x: 3 entries, DURATION, hash HASH, AGO\n\
                    ID is DURATION old, DURATION. 1.0k in, 4 steps\n";
    assert_eq!(plain(&world, &text), expected);
}
