//! What was stored by every earlier version of the program is read by this one.
//!
//! `tests/golden` holds one file for each version of each kind of entry, a whole small log with its hashes,
//! and a stored state. They are written once: `LONGHAUL_GOLDEN=add cargo nextest run -p longhaul-session
//! golden` adds the files that are missing and leaves the others alone. A kind whose form changes gets a
//! new version and a new file; its old specimen stays, with what the old form means today.

use std::path::PathBuf;

use longhaul_session::entry::{Content, Entry, KINDS, Payload, Record};
use longhaul_session::id::{Digest, EntryNo, Timestamp};
use longhaul_session::log::{SealedEntry, Verifier, open, seal};
use longhaul_session::state::SessionState;
use serde_json::{Value, json};

use crate::driver::fold;
use crate::specimens::{small_log, specimens};

#[test]
fn every_kind_has_a_golden_file_for_every_version() {
    for specimen in specimens() {
        golden(&name_of(&specimen), &text_of(&specimen));
    }
    let mut expected: Vec<String> = specimens().iter().map(name_of).collect();
    expected.extend(["log.v1.json".to_owned(), "state.v1.json".to_owned()]);
    expected.sort_unstable();
    golden("log.v1.json", &text_of_log(&small_log()));
    golden("state.v1.json", &pretty(&json!(fold(&small_log()))));
    let mut there: Vec<String> = std::fs::read_dir(folder())
        .expect("the folder is part of the sources")
        .map(|file| file.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    there.sort_unstable();
    assert_eq!(there, expected, "a golden file without a specimen, or a specimen without a file");
    for kind in KINDS {
        assert!(there.contains(&format!("{kind}.v1.json")), "{kind} has no golden file");
    }
}

#[test]
fn every_golden_entry_is_read_as_what_it_was() {
    for specimen in specimens() {
        let file: Value = read(&name_of(&specimen));
        let record: Record = serde_json::from_value(file["record"].clone()).expect("the record is known");
        let content: Option<Content> = serde_json::from_value(file["content"].clone()).expect("it is known");
        assert_eq!(Entry { record, content: content.map(Payload::new) }, specimen);
    }
}

#[test]
fn today_the_newest_version_of_a_kind_is_written_as_in_its_file() {
    for specimen in specimens() {
        if specimen.record.v == specimen.record.fact.version() {
            let text = std::fs::read_to_string(folder().join(name_of(&specimen))).expect("it was added");
            assert_eq!(text, text_of(&specimen), "a changed form needs a new version");
        }
    }
}

#[test]
fn the_specimens_are_of_all_kinds() {
    let mut kinds: Vec<&str> = specimens().iter().map(|entry| entry.record.fact.kind()).collect();
    kinds.dedup();
    assert_eq!(kinds, KINDS);
}

#[test]
fn the_golden_log_verifies_with_the_hashes_it_has() {
    let log = golden_log();
    let state: SessionState = serde_json::from_value(read("state.v1.json")).expect("the state is known");
    let mut verifier = Verifier::default();
    log.iter().for_each(|entry| verifier.push(entry));
    let newest = log.last().expect("the log has entries");
    assert_eq!(verifier.finish(newest.n, newest.hash, &state), Vec::<String>::new());
}

#[test]
fn the_golden_log_is_sealed_to_the_same_bytes_again() {
    let log = golden_log();
    let entries: Vec<Entry> = log.iter().map(|sealed| open(sealed).expect("it verifies")).collect();
    assert_eq!(seal(Digest::default(), &entries), log);
}

/// Compares with the file, or adds it when that is asked for.
fn golden(name: &str, text: &str) {
    let path = folder().join(name);
    if !path.exists() && adds_files() {
        std::fs::write(&path, text).expect("the folder can be written");
    }
    assert!(path.exists(), "{name} is missing; LONGHAUL_GOLDEN=add adds it");
}

#[expect(clippy::disallowed_methods, reason = "a person decides that stored forms are added")]
fn adds_files() -> bool {
    std::env::var("LONGHAUL_GOLDEN").is_ok_and(|asked| asked == "add")
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(name)).expect("the golden file is there");
    serde_json::from_str(&text).expect("a golden file is JSON")
}

fn name_of(entry: &Entry) -> String {
    format!("{}.v{}.json", entry.record.fact.kind(), entry.record.v)
}

/// The file of an entry: record and content each on a line, byte for byte as they are stored.
fn text_of(entry: &Entry) -> String {
    let record = serde_json::to_string(&entry.record).expect("a record has only string keys");
    let content = entry.content.as_ref().map_or("null".to_owned(), |payload| utf8(&payload.bytes));
    format!("{{\"record\": {record},\n\"content\": {content}}}\n")
}

fn text_of_log(entries: &[Entry]) -> String {
    let line = |sealed: &SealedEntry| {
        json!({
            "n": sealed.n,
            "kind": sealed.kind,
            "at": sealed.at,
            "record": utf8(&sealed.record),
            "content": sealed.content.as_deref().map(utf8),
            "hash": sealed.hash,
        })
    };
    pretty(&seal(Digest::default(), entries).iter().map(line).collect())
}

fn golden_log() -> Vec<SealedEntry> {
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    let entry = |line: &Value| SealedEntry {
        n: EntryNo::from(line["n"].as_u64().expect("it is a number")),
        kind: text(&line["kind"]),
        at: Timestamp(line["at"].as_i64().expect("it is a number")),
        record: text(&line["record"]).into_bytes(),
        content: line["content"].as_str().map(|content| content.as_bytes().to_vec()),
        hash: Digest::from_hex(&text(&line["hash"])).expect("it is a digest"),
    };
    read("log.v1.json").as_array().expect("it is a list").iter().map(entry).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("it is JSON") + "\n"
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8")
}
