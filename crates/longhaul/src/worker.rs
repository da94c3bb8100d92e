//! `worker`: drives whatever sessions have work at its place, and drains when it is told to stop.

use std::io::Write as _;
use std::process::ExitCode;

use longhaul_engine::{Driven, Grace, Service, Told};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli;
use crate::signals::Termination;
use crate::summary;

/// What there is to say: for people, and for programs.
struct News {
    text: String,
    json: Value,
}

/// Serves until it is told to stop, then drains.
pub(crate) async fn work(app: &App, args: cli::Worker) -> anyhow::Result<ExitCode> {
    // Listened to from here on: a signal that comes while it starts is not lost.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, Termination::listen()?);
    let (drain, at_once) = (CancellationToken::new(), CancellationToken::new());
    let grace = Grace { model_ms: args.grace, tools_ms: args.grace };
    let worker = app.worker(args.capacity, drain.clone()).await?.with_grace(grace, at_once.clone());
    say(app.options.json, &started(app, worker.id().to_string(), &args))?;
    let (as_json, unheard) = (app.options.json, drain.clone());
    let tell = move |told| {
        // Whoever started it listens no more: nobody would know what it does.
        if say(as_json, &of_service(&told)).is_err() {
            unheard.cancel();
        }
    };
    let service = Service { capacity: usize::try_from(args.capacity)?, until_idle: args.until_idle };
    let serving = worker.serve(service, tell);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            served = &mut serving => {
                served?;
                break;
            }
            _ = interrupt.recv() => {}
            () = terminate.recv() => {}
        }
        if at_once.is_cancelled() {
            // What is left behind is resumed as after a crash.
            return Ok(ExitCode::from(130));
        }
        let news = if drain.is_cancelled() {
            at_once.cancel();
            stopping(0)
        } else {
            drain.cancel();
            stopping(args.grace)
        };
        say(app.options.json, &news).ok();
    }
    say(app.options.json, &News { text: "stopped".to_owned(), json: json!({ "type": "stopped" }) }).ok();
    Ok(ExitCode::SUCCESS)
}

fn say(as_json: bool, News { text, json }: &News) -> std::io::Result<()> {
    let line = if as_json { format!("{json}\n") } else { format!("{text}\n") };
    let mut out = anstream::stdout();
    out.write_all(line.as_bytes())?;
    out.flush()
}

fn started(app: &App, worker: String, args: &cli::Worker) -> News {
    let (place, capacity, kept_in) = (app.place(), args.capacity, &app.kept_in);
    News {
        text: format!("worker {worker} · place {place} · capacity {capacity}\n  sessions in {kept_in}"),
        json: json!({
            "type": "worker", "worker": worker, "pid": std::process::id(), "place": place,
            "capacity": capacity, "grace_ms": args.grace, "store": kept_in,
        }),
    }
}

fn stopping(grace_ms: u64) -> News {
    let text = if grace_ms == 0 {
        "stopping now: running calls are cancelled, sessions given back; again to leave them behind"
            .to_owned()
    } else {
        let grace = summary::duration(grace_ms);
        format!("stopping: running calls may go on for {grace}, then they are cancelled; again to stop now")
    };
    News { text, json: json!({ "type": "stopping", "grace_ms": grace_ms }) }
}

fn of_service(told: &Told) -> News {
    match told {
        Told::Claimed { session } => News {
            text: format!("  claimed {}", summary::short_id(*session)),
            json: json!({ "type": "claimed", "session": session }),
        },
        Told::Ended { session, driven } => {
            let (name, text) = end(driven);
            News {
                text: format!("  rested  {} · {text}", summary::short_id(*session)),
                json: json!({ "type": "rested", "session": session, "driven": name, "said": text }),
            }
        }
        Told::Trouble { session, error, wait_ms } => {
            let what = session.map_or("looking for work".to_owned(), |session| {
                format!("session {}", summary::short_id(session))
            });
            let wait = summary::duration(*wait_ms);
            News {
                text: format!("  trouble {what}: {error}; trying again in {wait}"),
                json: json!({ "type": "trouble", "session": session, "error": error, "wait_ms": wait_ms }),
            }
        }
    }
}

fn end(driven: &Driven) -> (&'static str, String) {
    match driven {
        Driven::Waiting => ("waiting", "waits for a message".to_owned()),
        Driven::RequiresAction => ("requires_action", "waits for an answer".to_owned()),
        Driven::Failed(failure) => ("failed", format!("failed: {}", summary::one_line(&failure.message))),
        Driven::OwnedBy(_) => ("owned", "another worker has it".to_owned()),
        Driven::Stopped => ("stopped", "given back".to_owned()),
    }
}
