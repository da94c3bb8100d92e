//! What a step takes on disk, against the bytes of its content.

use std::path::Path;

use longhaul_store::SqliteStore;

use crate::endpoint::Endpoint;
use crate::machine::own;
use crate::measure::{Aim, Spread, say};
use crate::rig::{self, Rig};
use crate::wire;

const STEPS: u64 = 200;

/// Measures and reports.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let endpoint = Endpoint::start()?;
    let runtime = rig::runtime()?;
    let path = folder.join("sessions.db");
    runtime
        .block_on(async { anyhow::Ok(longhaul_store::Store::close(&SqliteStore::open(&path)?).await?) })?;
    let empty = std::fs::metadata(&path)?.len();
    let rig = runtime.block_on(Rig::open(folder, rig::models(&endpoint.url()), rig::toolbox(|| {})))?;
    let written = own("io", "write_bytes")?;
    let (content, entries) = runtime.block_on(async {
        let session = rig.begin(&wire::model(STEPS)).await?;
        rig.drive(session).await?;
        let entries = longhaul_store::Store::entries(&*rig.store, session, 1..=u64::MAX / 4).await?;
        let bytes = entries.iter().map(|entry| entry.content.as_ref().map_or(0, Vec::len));
        anyhow::Ok((bytes.sum::<usize>(), entries.len()))
    })?;
    runtime.block_on(rig.close())?;
    let written = own("io", "write_bytes")? - written;
    let kept = std::fs::metadata(&path)?.len() - empty;
    say(&format!("disk: {STEPS} steps, {entries} entries, each step with about 750 bytes of text"));
    let a_step = |what: &str, bytes: u64, aim: Aim| {
        Spread::of(vec![bytes as f64 / 1024.0 / STEPS as f64]).report(what, "KiB a step", aim);
    };
    a_step("content (as it is stored)", content as u64, Aim::None);
    a_step("the database grew by", kept, Aim::AtMost(24.0));
    a_step("written to the disk, log and database", written, Aim::None);
    say(&format!("  kept on disk: {:.2} times the content", kept as f64 / content as f64));
    Ok(())
}
