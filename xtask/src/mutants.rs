//! Breaks one rule at a time, in a copy of the repository, and expects a test to notice. A rule
//! whose breaking goes unnoticed is a rule without a test. The patches stand in `xtask/mutants`.

mod patch;
mod tree;
mod verdict;

use std::collections::BTreeSet;
use std::path::Path;

use crate::process::{seconds, timed};
use crate::table;
use patch::Mutant;
use tree::Tree;
use verdict::{Verdict, judge};

/// Sees that the patches apply: that each finds its text exactly once. Builds nothing.
///
/// # Errors
/// When a patch does not apply, or there are none.
pub(crate) fn check(root: &Path, names: &[String]) -> Result<(), String> {
    let count = applicable(root, names)?.len();
    println!("mutants: {count} of {count} patches apply");
    Ok(())
}

/// Runs the mutants and reports who noticed each.
///
/// # Errors
/// When one survives, cannot be judged, or the repository's own tests fail without any.
pub(crate) fn run(root: &Path, names: &[String]) -> Result<(), String> {
    let mutants = applicable(root, names)?;
    let tree = Tree::copy(root)?;
    rehearse(&tree, &mutants)?;
    let mut rows = Vec::new();
    let mut missed = 0_usize;
    for (index, mutant) in mutants.iter().enumerate() {
        println!("== {}/{} {}: {}", index + 1, mutants.len(), mutant.name, mutant.rule);
        let (verdict, duration) = timed(|| try_one(&tree, mutant));
        let verdict = verdict?;
        println!("   {verdict}");
        missed += usize::from(!matches!(verdict, Verdict::Found { .. }));
        rows.push([mutant.name.clone(), mutant.rule.clone(), verdict.to_string(), seconds(duration)]);
    }
    println!("\n{}", table::render(["mutant", "rule", "found by", "time"], &rows));
    if missed > 0 {
        return Err(format!(
            "{missed} of {} mutants were not found by a test. For one that survived, write the \
             test that notices, or correct which test its patch names; for the others see above",
            mutants.len()
        ));
    }
    Ok(())
}

/// The mutants meant, all of whose patches apply.
fn applicable(root: &Path, names: &[String]) -> Result<Vec<Mutant>, String> {
    let mutants = patch::load(root, names)?;
    let problems: Vec<String> = mutants.iter().filter_map(|mutant| mutant.apply(root).err()).collect();
    if problems.is_empty() { Ok(mutants) } else { Err(problems.join("\nerror: ")) }
}

/// Runs each named test once without any mutant: a test that fails anyway finds nothing, and
/// a name that fits no test never will.
fn rehearse(tree: &Tree, mutants: &[Mutant]) -> Result<(), String> {
    let tests: BTreeSet<(&str, &str)> = mutants.iter().flat_map(Mutant::measures).collect();
    let packages: BTreeSet<&str> = tests.iter().map(|(package, _)| *package).collect();
    for package in packages {
        println!("== building {package} without a mutant");
        tree.build_first(package)?;
    }
    for (package, test) in tests {
        println!("== {package}: `{test}` without a mutant");
        match judge(&tree.test(package, test)?) {
            Verdict::Survived => {}
            unfit @ (Verdict::Found { .. } | Verdict::TimedOut | Verdict::Unclear { .. }) => {
                return Err(format!(
                    "the tests `{test}` of {package} are no measure, for without any mutant the \
                     result is: {unfit}. They must pass first"
                ));
            }
        }
    }
    Ok(())
}

fn try_one(tree: &Tree, mutant: &Mutant) -> Result<Verdict, String> {
    let original = tree.replace(&mutant.file, &mutant.apply(tree.root())?)?;
    let verdicts: Result<Vec<Verdict>, String> =
        mutant.measures().into_iter().map(|(package, test)| measure(tree, package, test)).collect();
    tree.replace(&mutant.file, &original)?;
    Ok(verdict::all(verdicts?))
}

fn measure(tree: &Tree, package: &str, test: &str) -> Result<Verdict, String> {
    Ok(match tree.build(package)? {
        Some(complaint) => Verdict::Unclear { cause: format!("the patch does not build: {complaint}") },
        None => judge(&tree.test(package, test)?),
    })
}
