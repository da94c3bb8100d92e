//! What a script may say, and how its mistakes are told.

use std::fs;

use longhaul_model::Model;
use longhaul_model::scripted::{ScriptError, ScriptedModel};

fn refusal(script: &str) -> String {
    match script.parse::<ScriptedModel>() {
        Ok(_) => panic!("the script was taken:\n{script}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_mistake_is_shown_with_its_line_and_column() {
    let script = "name = \"x\"\n[[turn]]\n  [[turn.step]]\n  texts = \"hello\"\n";
    let told = "cannot play the script (unnamed): TOML parse error at line 4, column 3
  |
4 |   texts = \"hello\"
  |   ^^^^^
unknown field `texts`, expected one of `reasoning`, `text`, `call`, `fail`, `usage`, `finish`, `repeat`, \
        `delay_ms`, `first_delay_ms`";
    assert_eq!(refusal(script), told);
}

#[test]
fn every_kind_of_mistake_is_told_where_it_is() {
    let check = |script: &str, place: &str, why: &str| {
        let told = refusal(script);
        assert!(told.contains(place) && told.contains(why), "{told}");
    };
    check("", "line 1, column 1", "missing field `turn`");
    check("turns = 1", "line 1, column 1", "unknown field `turns`");
    check("[[turn]]\n[[turn.step]]\ntext = 1", "line 3, column 8", "expected a string");
    check("[[turn]]\n[[turn.step]]\nrepeat = 0", "line 3, column 10", "expected a nonzero");
    check("[[turn]]\n[[turn.step]]\ntext = 'a", "line 3, column 10", "expected `'`");
    check(
        "[[turn]]\n[[turn.step]]\ncall = [{ tool = 't', arguments = 3 }]",
        "line 3, column 35",
        "word for word",
    );
    check(
        "[[turn]]\n[[turn.step]]\ncall = [{ tool = 't', arguments = { a = nan } }]",
        "line 3, column 35",
        "no such number",
    );
    check("[[turn]]\n[[turn.step]]\nfail = { class = 'odd' }", "line 3, column 18", "unknown variant `odd`");
    check("[[turn]]\n[[turn.step]]\nfail = { times = 2 }", "line 3, column 8", "exactly one of");
    check(
        "[[turn]]\n[[turn.step]]\nfail = [{ cut = true, hang = true }]",
        "line 3, column 8",
        "exactly one of",
    );
    check(
        "[[turn]]\n[[turn.step]]\nfail = { hang = true, message = 'm' }",
        "line 3, column 8",
        "add `class`",
    );
    check("[[turn]]\n[[turn.step]]\nfail = 3", "line 3, column 8", "a table or a list of tables");
    check("turn = []\n[[aside]]\nwhen = ''\nstep = {}", "line 2, column 1", "would match every request");
    check("turn = []\n[[aside]]\nwhen = 'a'\nstep = { repeat = 2 }", "line 2, column 1", "remove `repeat`");
}

#[test]
fn a_script_is_read_from_a_file_and_named_by_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("demo.toml");
    fs::write(&path, "[[turn]]\nstep = []").unwrap();
    let model = ScriptedModel::from_path(&path).unwrap();
    assert_eq!(model.identity().model, path.display().to_string());

    fs::write(&path, "odd = 1").unwrap();
    let error = ScriptedModel::from_path(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot play the script {}: ", path.display())), "{error}");
}

#[test]
fn a_file_that_cannot_be_a_script_is_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.toml");
    let error = ScriptedModel::from_path(&path).unwrap_err();
    assert!(matches!(&error, ScriptError::Read { .. }), "{error}");
    assert!(error.to_string().contains("none.toml"), "{error}");

    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    let error = ScriptedModel::from_path(&path).unwrap_err();
    assert!(matches!(error, ScriptError::TooLarge { bytes: 1_073_741_824, .. }), "{error}");
}
