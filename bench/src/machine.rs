//! What the numbers depend on: the machine, and how busy it is.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::Context as _;

use crate::measure::{Moment, Spread, say};

const SYNCS: usize = 200;

/// Writes what is known of the machine.
pub(crate) fn report(folder: &Path) -> anyhow::Result<()> {
    let system = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = processor().unwrap_or_else(|| "an unknown processor".to_owned());
    say(&format!("{} {}, {cores} cores, {model}", text(system.sysname()), text(system.release())));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    say(&format!("load average {}", load.split(' ').take(3).collect::<Vec<_>>().join(" ")));
    let Spread { low, median, high } = sync_us(folder)?;
    say(&format!("fdatasync after a write of 4 KiB: {median:.0} us [{low:.0}..{high:.0}]"));
    Ok(())
}

fn text(name: &std::ffi::CStr) -> String {
    name.to_string_lossy().into_owned()
}

fn processor() -> Option<String> {
    let about = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = about.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Overwrites the same page, as a log that was cut back does: the file's length stays.
fn sync_us(folder: &Path) -> anyhow::Result<Spread> {
    let path = folder.join("sync");
    let mut file =
        fs::File::create(&path).with_context(|| format!("cannot write in {}", folder.display()))?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[7; 4096])?;
        let start = Moment::now();
        file.sync_data()?;
        times.push(start.cost().wall_us);
    }
    fs::remove_file(path)?;
    Ok(Spread::of(times))
}

/// Returns a number of this process from `/proc/self/status` or `/proc/self/io`, by its name.
pub(crate) fn own(file: &str, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/self/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{path} has no {name}"))
}
