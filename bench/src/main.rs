//! The benchmarks: what durability costs, against bare loops that do the same work in the same run. Nothing
//! here is a test: numbers are for people to read. How to repeat them stands in the README beside.

mod append;
mod bare;
mod context;
mod decode;
mod disk;
mod endpoint;
mod first_part;
mod growth;
mod history;
mod machine;
mod measure;
mod memory;
mod postgres;
mod resume;
mod rig;
mod steps;
mod streams;
mod takeover;
mod wire;

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::measure::say;

const USAGE: &str = "usage: longhaul-bench \
     [append|steps|growth|context|disk|memory|resume|takeover|postgres|decode|firstpart|all] [rounds]\n       \
     longhaul-bench profile <sessions> <steps>";

/// Rounds of a benchmark, when nothing else is said: with fewer, the quarters say little.
const ROUNDS: usize = 11;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [endpoint::ARGUMENT] => endpoint::serve(),
        [memory::ARGUMENT, folder, url, model, sessions] => {
            memory::wait(folder.as_ref(), url, model, sessions.parse()?)
        }
        [resume::ARGUMENT, folder, url, session] => resume::go_on(folder.as_ref(), url, session),
        [takeover::ARGUMENT, folder, database, url] => takeover::take_on(folder.as_ref(), database, url),
        ["profile", sessions, steps] => {
            let folder = tempfile::tempdir()?;
            steps::once(folder.path(), sessions.parse()?, steps.parse()?)
        }
        [] => benchmarks("all", ROUNDS),
        [which] => benchmarks(which, ROUNDS),
        [which, rounds] => benchmarks(which, rounds.parse().context(USAGE)?),
        _ => bail!(USAGE),
    }
}

fn benchmarks(which: &str, rounds: usize) -> anyhow::Result<()> {
    let all = [
        "append",
        "steps",
        "growth",
        "context",
        "disk",
        "memory",
        "resume",
        "takeover",
        "postgres",
        "decode",
        "firstpart",
    ];
    if which != "all" && !all.contains(&which) {
        bail!("there is no benchmark {which:?}\n{USAGE}");
    }
    let folder = tempfile::tempdir()?;
    machine::report(folder.path())?;
    say(&format!("{rounds} rounds; medians, the quarters around them in brackets"));
    for name in all.into_iter().filter(|name| which == "all" || *name == which) {
        let folder: PathBuf = folder.path().join(name);
        std::fs::create_dir(&folder)?;
        say("");
        match name {
            "append" => append::run(&folder, rounds)?,
            "steps" => steps::run(&folder, rounds)?,
            "growth" => growth::run(&folder, rounds)?,
            "context" => context::run(rounds)?,
            "disk" => disk::run(&folder)?,
            "memory" => memory::run(rounds.div_ceil(2))?,
            "resume" => resume::run(&folder, rounds)?,
            "takeover" => takeover::run(&folder, rounds)?,
            "postgres" => postgres::run(&folder, rounds)?,
            "decode" => decode::run(rounds)?,
            "firstpart" => first_part::run(rounds)?,
            other => bail!("there is no benchmark {other:?}"),
        }
    }
    Ok(())
}
