//! One mutant as its file describes it, and how its patch applies. Nothing is written here.

use std::path::Path;

use serde::Deserialize;

use crate::workspace;

/// Where the mutants stand, one in each `.toml` file.
const FOLDER: &str = "xtask/mutants";

/// One rule, and how to break it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    /// The name, which is also its file's.
    pub(super) name: String,
    /// The rule it breaks, as a sentence.
    pub(super) rule: String,
    /// The source it changes, relative to the root.
    pub(super) file: String,
    /// The text it changes; it stands in the source exactly once.
    find: String,
    /// What the text is changed into.
    replace: String,
    /// Which tests must notice: parts of names, separated by spaces.
    test: String,
    /// The crate whose `it` tests they are.
    package: String,
    /// The simulator must notice too.
    #[serde(default)]
    simulated: bool,
}

/// The simulator's crate, and its test that runs a budget of worlds.
const SIMULATOR: (&str, &str) = ("longhaul-sim", "nothing_breaks_within_the_budget");

impl Mutant {
    /// Applies the patch to the source below `root` and gives the changed text.
    ///
    /// # Errors
    /// When the source cannot be read, or the text is not there exactly once.
    pub(super) fn apply(&self, root: &Path) -> Result<String, String> {
        let source = workspace::read(root, &self.file)
            .map_err(|error| format!("the mutant `{}` does not apply: {error}", self.name))?;
        self.patched(&source)
    }

    /// The crates and tests of which each must notice.
    pub(super) fn measures(&self) -> Vec<(&str, &str)> {
        let simulator = self.simulated.then_some(SIMULATOR);
        std::iter::once((&*self.package, &*self.test)).chain(simulator).collect()
    }

    fn patched(&self, source: &str) -> Result<String, String> {
        match source.matches(&self.find).count() {
            1 => Ok(source.replacen(&self.find, &self.replace, 1)),
            count => Err(format!(
                "the mutant `{}` does not apply: its text stands {count} times in {}, not once. \
                 Correct `find` in {FOLDER}/{}.toml",
                self.name, self.file, self.name
            )),
        }
    }

    fn parse(stem: &str, text: &str) -> Result<Self, String> {
        let file = format!("{FOLDER}/{stem}.toml");
        let mutant: Mutant = toml::from_str(text).map_err(|error| format!("{file} is not valid: {error}"))?;
        let problem = if mutant.name != stem {
            format!("its name is `{}`; give the file and the mutant one name", mutant.name)
        } else if mutant.find.is_empty() || mutant.find == mutant.replace {
            "it changes nothing; `find` and `replace` must differ".to_owned()
        } else if mutant.test.trim().is_empty() || mutant.test.contains("--") {
            "`test` must name tests by parts of their names, without options".to_owned()
        } else {
            return Ok(mutant);
        };
        Err(format!("{file} is not valid: {problem}"))
    }
}

/// Loads the mutants with the given names, or all, in the order of their names.
///
/// # Errors
/// When there are none, one is not valid, or a name fits none.
pub(super) fn load(root: &Path, names: &[String]) -> Result<Vec<Mutant>, String> {
    let files = if root.join(FOLDER).is_dir() { workspace::files_below(root, FOLDER)? } else { Vec::new() };
    let mut mutants = Vec::new();
    for file in &files {
        let stem = file.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/'));
        if let Some(stem) = stem.and_then(|name| name.strip_suffix(".toml")) {
            mutants.push(Mutant::parse(stem, &workspace::read(root, file)?)?);
        }
    }
    if mutants.is_empty() {
        return Err(format!(
            "there are no mutants in {FOLDER}; without one this check checks nothing. Describe \
             one in {FOLDER}/<name>.toml with name, rule, file, find, replace, test, package"
        ));
    }
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(unknown) = names.iter().find(|name| mutants.iter().all(|mutant| mutant.name != **name)) {
        let known: Vec<&str> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
        return Err(format!("there is no mutant `{unknown}`; there are: {}", known.join(", ")));
    }
    if !names.is_empty() {
        mutants.retain(|mutant| names.contains(&mutant.name));
    }
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use super::Mutant;

    fn text(name: &str, find: &str, test: &str) -> String {
        format!(
            "name = \"{name}\"\nrule = \"One plus one is two.\"\nfile = \"a.rs\"\nfind = '''\n{find}'''\n\
             replace = '''\nminus'''\ntest = \"{test}\"\npackage = \"a\"\n"
        )
    }

    #[test]
    fn a_patch_applies_when_its_text_stands_once() {
        let mutant = Mutant::parse("sum", &text("sum", "plus", "adds")).unwrap();
        assert_eq!(mutant.patched("one plus one").unwrap(), "one minus one");
        assert!(mutant.patched("one").unwrap_err().contains("0 times"));
        assert!(mutant.patched("one plus one plus one").unwrap_err().contains("2 times"));
    }

    #[test]
    fn a_mutant_that_could_prove_nothing_is_refused() {
        let cases = [
            (text("other", "plus", "adds"), "one name"),
            (text("sum", "minus", "adds"), "changes nothing"),
            (text("sum", "plus", " "), "name tests"),
            (text("sum", "plus", "-- --list"), "without options"),
            (text("sum", "plus", "adds") + "also = 1\n", "also"),
        ];
        for (text, expected) in cases {
            let problem = Mutant::parse("sum", &text).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
