//! The stored form of the log: sealing, opening, and what the verifier says of damage by name. That it
//! finds any damage at all is a property, tested with the others.

use longhaul_session::command::Command;
use longhaul_session::id::Digest;
use longhaul_session::log::{Error, SealedEntry, Verifier, chain, open, seal};

use crate::driver::Session;

fn sealed() -> (Session, Vec<SealedEntry>) {
    let session = Session::finished();
    let log = seal(Digest::default(), &session.entries);
    (session, log)
}

fn problems(session: &Session, log: &[SealedEntry], head_hash: Digest) -> Vec<String> {
    let mut verifier = Verifier::default();
    log.iter().for_each(|entry| verifier.push(entry));
    verifier.finish(session.state.head, head_hash, &session.state)
}

#[test]
fn each_hash_follows_from_the_one_before_and_the_record() {
    let (_, log) = sealed();
    let mut before = Digest::default();
    for entry in &log {
        assert_eq!(entry.hash, chain(before, &entry.record));
        before = entry.hash;
    }
}

#[test]
fn a_log_sealed_in_parts_has_the_same_hashes() {
    let (session, log) = sealed();
    let (first, second) = session.entries.split_at(2);
    let mut parts = seal(Digest::default(), first);
    parts.extend(seal(parts[1].hash, second));
    assert_eq!(parts, log);
}

#[test]
fn content_that_is_not_the_records_is_not_opened() {
    let (_, log) = sealed();
    let changed = SealedEntry { content: Some(b"{}".to_vec()), ..log[1].clone() };
    assert!(matches!(open(&changed), Err(Error::Digest { n: 2 })));
}

#[test]
fn an_entry_stored_under_another_number_is_not_opened() {
    let (_, log) = sealed();
    let moved = SealedEntry { n: 9, ..log[1].clone() };
    assert!(matches!(open(&moved), Err(Error::Number { n: 9, record: 2 })));
}

#[test]
fn a_record_or_content_of_an_unknown_form_says_which_entry_it_is() {
    let (_, log) = sealed();
    let record = SealedEntry { record: b"{\"v\":99}".to_vec(), ..log[1].clone() };
    assert!(open(&record).unwrap_err().to_string().starts_with("entry 2: the record cannot be read"));
    let bytes = b"{\"type\":\"of tomorrow\"}".to_vec();
    let text = String::from_utf8(log[1].record.clone()).unwrap();
    let known = open(&log[1]).unwrap().record.content.unwrap().to_hex();
    let record = text.replace(&known, &Digest::of(&bytes).to_hex()).into_bytes();
    let content = SealedEntry { record, content: Some(bytes), ..log[1].clone() };
    assert!(open(&content).unwrap_err().to_string().starts_with("entry 2: the content cannot be read"));
}

#[test]
fn the_verifier_names_what_is_wrong() {
    let (session, log) = sealed();
    let head_hash = log.last().unwrap().hash;
    assert_eq!(problems(&session, &log, head_hash), Vec::<String>::new());
    let mut emptied = log.clone();
    emptied[1].content = None;
    let gone = "entry 2: the content is gone, and no entry redacts it";
    assert_eq!(problems(&session, &emptied, head_hash), [gone]);
    let wrong_hash = "the row's hash is not the hash of the newest entry";
    assert_eq!(problems(&session, &log, Digest::default()), [wrong_hash]);
    let mut row = session.clone();
    row.state.crashes += 1;
    assert_eq!(problems(&row, &log, head_hash), ["the row's state is not the fold of the log"]);
    let mut cut = problems(&session, &log[..log.len() - 1], head_hash);
    assert_eq!(cut.remove(0), "the row says 6 entries, the log has 5");
}

#[test]
fn redacted_content_is_no_damage() {
    let (mut session, _) = sealed();
    session.run(Command::Redact { entry: 2 });
    let mut log = seal(Digest::default(), &session.entries);
    log[1].content = None;
    assert_eq!(problems(&session, &log, log.last().unwrap().hash), Vec::<String>::new());
}
