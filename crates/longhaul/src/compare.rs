//! `diff`: where two sessions part, and what each did from there. Forks of one session share a beginning.

use std::io::Write as _;
use std::process::ExitCode;

use longhaul_session::id::{EntryNo, SessionId};

use crate::app::App;
use crate::cli;
use crate::inspect::print_entry;
use crate::summary;

/// Entries compared at once.
const BATCH: u64 = 500;

/// Shows where two sessions part.
pub(crate) async fn diff(app: &App, args: cli::Diff) -> anyhow::Result<ExitCode> {
    let (one, other) = (app.find(&args.one).await?, app.find(&args.other).await?);
    let shared = shared(app, one, other).await?;
    let mut out = anstream::stdout();
    if app.options.json {
        writeln!(out, "{}", serde_json::json!({ "one": one, "other": other, "shared": shared }))?;
    } else {
        writeln!(out, "both begin with the same {}", summary::entries(shared))?;
    }
    for session in [one, other] {
        let head = app.engine.snapshot(session).await?.row.head;
        let own = head - shared;
        if app.options.json {
            writeln!(out, "{}", serde_json::json!({ "session": session, "own": own }))?;
        } else {
            writeln!(out, "\n{} · {} of its own", summary::short_id(session), summary::entries(own))?;
        }
        let mut next = shared + 1;
        while next <= head {
            let entries = app.engine.entries(session, next..=head.min(next + BATCH - 1)).await?;
            next += entries.len().max(1) as u64;
            for entry in entries {
                print_entry(app, entry)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts the entries that both begin with: equal hashes mean an equal log up to there.
async fn shared(app: &App, one: SessionId, other: SessionId) -> anyhow::Result<EntryNo> {
    let store = app.engine.store();
    let heads = (app.engine.snapshot(one).await?.row.head, app.engine.snapshot(other).await?.row.head);
    let (mut same, mut different) = (0, heads.0.min(heads.1) + 1);
    while different - same > 1 {
        let middle = same + (different - same) / 2;
        let (a, b) =
            (store.entries(one, middle..=middle).await?, store.entries(other, middle..=middle).await?);
        if a.first().map(|entry| entry.hash) == b.first().map(|entry| entry.hash) {
            same = middle;
        } else {
            different = middle;
        }
    }
    Ok(same)
}
