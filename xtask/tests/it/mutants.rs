//! Mutants of the small crate's sum: found, survived, and unfit to judge.

use crate::repository::Repository;

fn add(repository: &Repository, name: &str, find: &str, replace: &str, test: &str) {
    let text = format!(
        "name = \"{name}\"\nrule = \"The {name} holds.\"\nfile = \"crates/small/src/lib.rs\"\n\
         find = '''{find}'''\nreplace = '''{replace}'''\ntest = \"{test}\"\npackage = \"small\"\n"
    );
    repository.write(&format!("xtask/mutants/{name}.toml"), &text);
}

#[test]
fn mutants_are_judged_by_the_tests_they_name() {
    let repository = Repository::new();
    let before = repository.read("crates/small/src/lib.rs");
    add(&repository, "sum", "a + b", "a - b.min(a)", "one_and");
    let found = repository.xtask(&["mutants"]);
    assert_eq!(found.code, Some(0), "{found:?}");
    let row = "sum     The sum holds.  one_and_two_are_three: Sum: 1 + 2 gave 0";
    assert!(found.output.contains(row), "{found:?}");

    add(&repository, "idle", "    1\n", "    2\n", "three");
    add(&repository, "typing", "a + b", "a + c", "three");
    let mixed = repository.xtask(&["mutants"]);
    assert_eq!(mixed.code, Some(1), "{mixed:?}");
    assert!(mixed.errors.contains("2 of 3 mutants were not found"), "{mixed:?}");
    for row in ["The idle holds.    SURVIVED", "The typing holds.  UNCLEAR: the patch does not build"] {
        assert!(mixed.output.contains(row), "{row}: {mixed:?}");
    }
    assert!(mixed.output.contains("one_and_two_are_three: Sum"), "{mixed:?}");
    assert_eq!(repository.read("crates/small/src/lib.rs"), before);

    let one = repository.xtask(&["mutants", "sum"]);
    assert_eq!(one.code, Some(0), "{one:?}");
}

#[test]
fn tests_that_fail_anyway_or_do_not_exist_judge_nothing() {
    let repository = Repository::new();
    add(&repository, "sum", "a + b", "a", "no_such_test");
    let absent = repository.xtask(&["mutants"]);
    assert_eq!(absent.code, Some(1));
    assert!(absent.errors.contains("no test has such a name"), "{absent:?}");

    add(&repository, "sum", "a + b", "a", "three");
    repository.append("crates/small/tests/it/main.rs", "#[test]\nfn three_fails() {\n    panic!();\n}\n");
    let failing = repository.xtask(&["mutants"]);
    assert_eq!(failing.code, Some(1));
    assert!(failing.errors.contains("They must pass first"), "{failing:?}");
}

#[test]
fn a_check_of_patches_finds_the_ones_that_no_longer_apply() {
    let repository = Repository::new();
    add(&repository, "sum", "a + b", "a", "three");
    let fits = repository.xtask(&["mutants", "--check"]);
    assert_eq!(fits.code, Some(0), "{fits:?}");

    add(&repository, "gone", "a * b", "a", "three");
    let gone = repository.xtask(&["mutants", "--check"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.errors.contains("`gone` does not apply: its text stands 0 times"), "{gone:?}");
    assert_eq!(repository.xtask(&["mutants", "--check", "sum"]).code, Some(0));
}

#[test]
fn no_mutants_and_unknown_ones_are_errors() {
    let repository = Repository::new();
    let none = repository.xtask(&["mutants", "--check"]);
    assert_eq!(none.code, Some(1));
    assert!(none.errors.contains("there are no mutants"), "{none:?}");

    add(&repository, "sum", "a + b", "a", "three");
    let unknown = repository.xtask(&["mutants", "product"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.errors.contains("there is no mutant `product`; there are: sum"), "{unknown:?}");
}
