//! What a live session takes of memory beside its context: many that wait, in one worker. Each size is
//! a process of its own, for memory that was freed is not always given back.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;
use tokio::sync::Semaphore;

use crate::endpoint::Endpoint;
use crate::machine::own;
use crate::measure::{Aim, Spread, in_turn, say};
use crate::rig::{self, Rig};
use crate::wire;

/// The argument that makes this program a worker with many sessions.
pub(crate) const ARGUMENT: &str = "waiting-sessions";

const FEW: u64 = 64;
const MANY: u64 = 512;
/// Looks at whether all requests have arrived, 10 ms apart.
const LOOKS: usize = 3_000;

/// Measures and reports.
pub(crate) fn run(pairs: usize) -> anyhow::Result<()> {
    say(&format!("memory: {MANY} sessions that wait against {FEW}, what each more of them takes"));
    for (what, model) in
        [("waiting for a tool", wire::model(1)), ("waiting for a model", wire::SILENT.into())]
    {
        let measured = in_turn(pairs, || resident_kib(&model, MANY), || resident_kib(&model, FEW))?;
        let each = measured.iter().map(|(many, few)| (many - few) / (MANY - FEW) as f64);
        Spread::of(each.collect()).report(what, "KiB a session", Aim::AtMost(32.0));
        let whole = Spread::of(measured.iter().map(|(_, few)| *few).collect());
        whole.report("  the whole process with the few", "KiB", Aim::None);
    }
    Ok(())
}

fn resident_kib(model: &str, sessions: u64) -> anyhow::Result<f64> {
    let endpoint = Endpoint::start()?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT).arg(folder.path()).args([endpoint.url().as_str(), model, &sessions.to_string()]);
    let output = command.output()?;
    if !output.status.success() {
        bail!("the worker failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// Runs sessions until all of them wait, and says how much memory this process has then, in KiB.
pub(crate) fn wait(folder: &Path, url: &str, model: &str, sessions: u64) -> anyhow::Result<()> {
    let runtime = rig::runtime_for_many()?;
    runtime.block_on(async {
        let waiting = Arc::new(Semaphore::new(0));
        let begun = Arc::clone(&waiting);
        let forever = function(wire::tool(), move |_, cx| {
            begun.add_permits(1);
            async move {
                cx.cancel.cancelled().await;
                ToolOutput::ok("")
            }
        });
        let rig = Rig::open(folder, rig::models(url), Toolbox::empty().with(forever)).await?;
        let before = seen(url).await?;
        for _ in 0..sessions {
            let (rig, session) = (rig.clone(), rig.begin(model).await?);
            tokio::spawn(async move { rig.drive(session).await });
        }
        if model == wire::SILENT {
            for _ in 0..LOOKS {
                if seen(url).await? - before >= sessions {
                    break;
                }
                rig.engine.host().sleep_ms(10).await;
            }
            if seen(url).await? - before < sessions {
                bail!("not all sessions called the model");
            }
        } else {
            let all = u32::try_from(sessions)?;
            drop(waiting.acquire_many(all).await?);
        }
        // What was still under way when the last one began to wait is over by then.
        rig.engine.host().sleep_ms(300).await;
        say(&own("status", "VmRSS")?.to_string());
        // The sessions wait for ever.
        std::process::exit(0);
    })
}

async fn seen(url: &str) -> anyhow::Result<u64> {
    let address = url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let ask = move || Endpoint::ask(address.parse()?).map(|seen| seen.requests);
    tokio::task::spawn_blocking(ask).await?
}
