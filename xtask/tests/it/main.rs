//! The program as a person calls it, on small repositories made for each test.

mod mutants;
mod repository;
mod tidy;

use repository::Repository;

#[test]
fn an_unknown_command_ends_with_a_usage_error() {
    let outcome = Repository::new().xtask(&["deploy"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.errors.contains("there is no command `deploy`"), "{outcome:?}");
    assert!(outcome.errors.contains("usage: cargo xtask"), "{outcome:?}");
}

#[test]
fn outside_a_workspace_the_program_says_where_to_run_it() {
    let repository = Repository::new();
    repository.remove("Cargo.toml");
    let outcome = repository.xtask(&["tidy"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.errors.contains("not inside a cargo workspace"), "{outcome:?}");
}

#[test]
fn a_search_in_a_workspace_without_it_fails() {
    let outcome = Repository::new().xtask(&["search"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.errors.contains("longhaul-session"), "{outcome:?}");
}
