//! Starts other programs and measures how long things take. It judges no output.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A program with its arguments and the variables it is started with.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    words: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Program {
    /// Makes a program from a line of words separated by spaces.
    ///
    /// # Panics
    /// On an empty line.
    pub(crate) fn new(line: &str) -> Self {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Program::of(&words)
    }

    /// Makes a program from its words.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn of(words: &[String]) -> Self {
        assert!(!words.is_empty(), "a program has a name");
        Program { words: words.to_vec(), variables: Vec::new() }
    }

    /// Adds an environment variable.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Runs it in `directory` with our own input and output.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed.
    pub(crate) fn run(&self, directory: &Path) -> Result<(), String> {
        let status = self.command(directory).status().map_err(|error| self.not_started(&error))?;
        if status.success() { Ok(()) } else { Err(format!("`{self}` ended with {status}")) }
    }

    /// Runs it in `directory` and keeps what it prints.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn capture(&self, directory: &Path) -> Result<Output, String> {
        let mut command = self.command(directory);
        command.stdin(Stdio::null()).output().map_err(|error| self.not_started(&error))
    }

    /// Runs it in `directory`, handing each line of its standard output to `seen` as it comes.
    ///
    /// # Errors
    /// When it cannot be started, read or does not succeed.
    pub(crate) fn watch(&self, directory: &Path, mut seen: impl FnMut(&str)) -> Result<(), String> {
        let mut child = self
            .command(directory)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        let output = child.stdout.take().expect("the output is piped");
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(|error| format!("cannot read the output of `{self}`: {error}"))?;
            seen(&String::from_utf8_lossy(&line));
        }
        let status = child.wait().map_err(|error| format!("lost `{self}`: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("`{self}` ended with {status}")) }
    }

    /// Whether it can be started and succeeds; what it prints is dropped.
    pub(crate) fn works(&self, directory: &Path) -> bool {
        self.capture(directory).is_ok_and(|output| output.status.success())
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).current_dir(directory);
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        format!("cannot start `{}`: {error}; is it installed and on the PATH?", self.words[0])
    }
}

/// Writes the line that repeats the program in a shell.
impl fmt::Display for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(out, "{name}={value} ")?;
        }
        out.write_str(&self.words.join(" "))
    }
}

/// Runs `work` and says how long it took.
#[expect(clippy::disallowed_methods, reason = "the checks report real durations to a person")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Writes a duration for a person, in seconds.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
