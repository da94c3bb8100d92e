//! What `tidy` finds in a repository, and how it says so.

use crate::repository::Repository;

#[test]
fn a_tidy_repository_passes() {
    let outcome = Repository::new().xtask(&["tidy"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.contains("nothing found"), "{outcome:?}");
}

#[test]
fn each_kind_of_fault_is_found_with_its_file_and_line() {
    let source = "crates/small/src/lib.rs";
    let cases = [
        ("crates/small/Cargo.toml", "[dependencies]\nother = \"1\"\n", ":6: `small` may not depend"),
        (source, "mod utils;\n", ":12: the module's name"),
        (source, "// as Oracle does\n", ":12: names the database"),
        (source, "fn f() { todo!() }\n", ":12: `todo!` marks"),
        ("README.md", "See `docs/none.md`.\n", ":2: `docs/none.md` is not"),
        ("README.md", "Run `longhaul fly`.\n", ":2: `longhaul fly` does not"),
        ("Cargo.lock", "# secret 12\n", ":6: says `secret <n>`: nobody"),
    ];
    for (file, text, expected) in cases {
        let repository = Repository::new();
        repository.append(file, text);
        let outcome = repository.xtask(&["tidy"]);
        assert_eq!(outcome.code, Some(1), "{text}: {outcome:?}");
        assert!(outcome.output.contains(&format!("{file}{expected}")), "{text}: {outcome:?}");
        assert!(outcome.errors.contains("found 1 place"), "{text}: {outcome:?}");
    }
}

#[test]
fn the_commands_of_the_program_come_from_its_sources() {
    let repository = Repository::new();
    repository.append("README.md", "Run `longhaul fly`.\n");
    repository.write(
        "crates/longhaul/src/main.rs",
        "//! Flies.\n#[derive(clap::Subcommand)]\nenum Command {\n    Fly,\n}\n",
    );
    let outcome = repository.xtask(&["tidy"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

#[test]
fn rules_that_cannot_be_read_are_an_error() {
    let repository = Repository::new();
    repository.append("xtask/tidy.toml", "unknown = 1\n");
    let outcome = repository.xtask(&["tidy"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.errors.contains("xtask/tidy.toml is not valid"), "{outcome:?}");
}
