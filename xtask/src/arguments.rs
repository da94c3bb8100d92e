//! The command line: which commands and options exist, and what is wrong with one that does not.

/// The names of the commands, as the documentation may mention them.
pub(crate) const COMMANDS: [&str; 7] = ["verify", "tidy", "mutants", "search", "sim", "sdks", "postgres"];

/// What every error about the command line ends with.
pub(crate) const USAGE: &str = "\
usage: cargo xtask <command>

  verify [--full]           everything a change must pass; --full adds mutants, large search, sdks
  tidy                      crate edges, sizes, names in the documentation, forbidden words
  mutants [NAME…]           break one rule at a time and expect a test to notice
  mutants --check [NAME…]   only see that the patches in xtask/mutants still apply
  search [--large]          the exhaustive search of the session machine, with its output
  sim --seeds N [--from S]  the real engine in N simulated worlds, with what they covered
  sim --seed S [--log]      one of them again, with its log
  sim --scenario NAME …     the same with a scripted long run; `all` plays each
  sdks [CASE…]              read every wire case with the vendors' own libraries too, and compare
  postgres -- <program…>    run a program with a private Postgres server, for tests, in its environment";

/// One parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print the usage.
    Help,
    /// Everything a change must pass.
    Verify {
        /// With the mutants, the large search and the vendors' libraries.
        full: bool,
    },
    /// The checks of form.
    Tidy,
    /// See that the patches apply.
    MutantsCheck {
        /// The mutants meant; all when empty.
        names: Vec<String>,
    },
    /// Break rules and expect tests to notice.
    Mutants {
        /// The mutants meant; all when empty.
        names: Vec<String>,
    },
    /// Run a program beside a database server.
    Postgres {
        /// The program and its arguments.
        program: Vec<String>,
    },
    /// The simulator.
    Sim {
        /// Its own arguments.
        arguments: Vec<String>,
    },
    /// The vendors' own libraries against our decoders.
    Sdks {
        /// The cases meant, to be shown; all when empty.
        cases: Vec<String>,
    },
    /// The exhaustive search.
    Search {
        /// The larger world.
        large: bool,
    },
}

impl Command {
    /// Parses the words after `cargo xtask`.
    ///
    /// # Errors
    /// Says which word is not understood and what exists in its place.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let Some((command, rest)) = words.split_first() else {
            return Err("no command was given".to_owned());
        };
        match command.as_str() {
            "help" | "--help" | "-h" => Ok(Command::Help),
            "verify" => Ok(Command::Verify { full: switch(command, rest, "--full")? }),
            "tidy" => match rest.first() {
                None => Ok(Command::Tidy),
                Some(word) => Err(format!("`tidy` takes no arguments, but got `{word}`")),
            },
            "mutants" => mutants(rest),
            "search" => Ok(Command::Search { large: switch(command, rest, "--large")? }),
            "sdks" => Ok(Command::Sdks { cases: rest.to_vec() }),
            "sim" => Ok(Command::Sim { arguments: sim(rest)? }),
            "postgres" => match rest {
                [dashes, program @ ..] if dashes == "--" && !program.is_empty() => {
                    Ok(Command::Postgres { program: program.to_vec() })
                }
                _ => Err("`postgres` takes `--` and the program to run".to_owned()),
            },
            unknown => {
                let known = COMMANDS.join(", ");
                Err(format!("there is no command `{unknown}`; there are: {known}"))
            }
        }
    }
}

fn switch(command: &str, words: &[String], name: &str) -> Result<bool, String> {
    match words.iter().find(|word| *word != name) {
        None => Ok(!words.is_empty()),
        Some(word) => Err(format!("`{command}` does not know `{word}`; its only argument is `{name}`")),
    }
}

/// Passes on what the simulator understands.
fn sim(words: &[String]) -> Result<Vec<String>, String> {
    let mut words_left = words.iter();
    let mut count = 0;
    while let Some(word) = words_left.next() {
        match word.as_str() {
            "--log" => continue,
            "--seed" | "--seeds" => count += 1,
            "--from" => {}
            "--scenario" => match words_left.next() {
                Some(_) => continue,
                None => return Err("`sim` needs a name after `--scenario`".to_owned()),
            },
            _ => {
                let known = "--seeds, --from, --seed, --scenario, --log";
                return Err(format!("`sim` does not know `{word}`; it takes {known}"));
            }
        }
        if words_left.next().is_none_or(|number| number.parse::<u64>().is_err()) {
            return Err(format!("`sim` needs a number after `{word}`"));
        }
    }
    if count == 1 { Ok(words.to_vec()) } else { Err("`sim` takes either --seeds or --seed".to_owned()) }
}

fn mutants(words: &[String]) -> Result<Command, String> {
    let (options, names): (Vec<String>, Vec<String>) =
        words.iter().cloned().partition(|word| word.starts_with('-'));
    if let Some(word) = options.iter().find(|word| *word != "--check") {
        return Err(format!("`mutants` does not know `{word}`; it takes `--check` and the names of mutants"));
    }
    if options.is_empty() { Ok(Command::Mutants { names }) } else { Ok(Command::MutantsCheck { names }) }
}

#[cfg(test)]
mod tests {
    use super::Command;

    fn parse(line: &str) -> Result<Command, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Command::parse(&words)
    }

    #[test]
    fn every_command_is_understood_with_its_options() {
        let names = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(parse("verify"), Ok(Command::Verify { full: false }));
        assert_eq!(parse("verify --full"), Ok(Command::Verify { full: true }));
        assert_eq!(parse("tidy"), Ok(Command::Tidy));
        assert_eq!(parse("mutants one two"), Ok(Command::Mutants { names: names.clone() }));
        assert_eq!(parse("mutants --check one two"), Ok(Command::MutantsCheck { names: names.clone() }));
        assert_eq!(parse("sdks one two"), Ok(Command::Sdks { cases: names }));
        assert_eq!(parse("search --large"), Ok(Command::Search { large: true }));
        let program = ["cargo", "test"].map(str::to_owned).to_vec();
        assert_eq!(parse("postgres -- cargo test"), Ok(Command::Postgres { program }));
        assert_eq!(parse("--help"), Ok(Command::Help));
        let arguments = ["--seed", "7", "--log"].map(str::to_owned).to_vec();
        assert_eq!(parse("sim --seed 7 --log"), Ok(Command::Sim { arguments }));
        let arguments = ["--scenario", "all", "--seeds", "7"].map(str::to_owned).to_vec();
        assert_eq!(parse("sim --scenario all --seeds 7"), Ok(Command::Sim { arguments }));
    }

    #[test]
    fn an_unknown_word_is_an_error_that_lists_what_exists() {
        let cases = [
            ("", "no command"),
            ("deploy", "verify, tidy, mutants, search, sim, sdks, postgres"),
            ("sim", "--seeds or --seed"),
            ("sim --seeds many", "a number"),
            ("sim --fast", "--seeds"),
            ("sim --seeds 7 --scenario", "a name"),
            ("verify --fast", "`--full`"),
            ("tidy crates", "no arguments"),
            ("mutants --all", "`--check`"),
            ("search small", "`--large`"),
            ("postgres", "the program to run"),
            ("postgres --", "the program to run"),
        ];
        for (line, expected) in cases {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }
}
