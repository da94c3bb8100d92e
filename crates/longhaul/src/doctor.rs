//! `doctor`: what works here and what does not, found out by trying it.

use std::io::Write as _;
use std::process::ExitCode;

use crate::app::App;
use crate::cli::Options;
use crate::environment;

/// What a look at one thing found.
struct Finding {
    what: &'static str,
    good: bool,
    said: String,
}

/// Looks at all there is to look at. Ends with 1 when something does not work that must.
pub(crate) async fn doctor(options: Options) -> anyhow::Result<ExitCode> {
    let json = options.json;
    let mut findings = vec![Finding {
        what: "version",
        good: true,
        said: format!("longhaul {} on {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS),
    }];
    match App::open(options).await {
        Ok(app) => findings.extend(of_store(&app).await),
        Err(error) => findings.push(Finding { what: "store", good: false, said: format!("{error:#}") }),
    }
    let shell = ["bash", "sh"].into_iter().find(|name| environment::has_program(name));
    findings.push(Finding {
        what: "shell",
        good: shell.is_some(),
        said: shell.map_or("no shell is on the path: the bash tool cannot run".to_owned(), |name| {
            format!("the bash tool runs commands with {name}")
        }),
    });
    findings.push(Finding {
        what: "sandbox",
        good: true,
        said: "none: bash can do what you can do; the file tools stay in their scope".to_owned(),
    });
    let mut out = anstream::stdout();
    for Finding { what, good, said } in &findings {
        if json {
            writeln!(out, "{}", serde_json::json!({ "what": what, "good": good, "said": said }))?;
        } else {
            writeln!(out, "{} {what:<8} {said}", if *good { "ok " } else { "bad" })?;
        }
    }
    Ok(ExitCode::from(u8::from(findings.iter().any(|finding| !finding.good))))
}

async fn of_store(app: &App) -> Vec<Finding> {
    let mut findings =
        vec![Finding { what: "store", good: true, said: format!("sessions are kept in {}", app.kept_in) }];
    match app.engine.store().workers().await {
        Ok(workers) => {
            let alive = workers.iter().filter(|worker| worker.alive).count() as u64;
            let said = format!("{} alive", crate::summary::count(alive, "worker"));
            findings.push(Finding { what: "workers", good: true, said });
        }
        Err(error) => findings.push(Finding { what: "workers", good: false, said: error.to_string() }),
    }
    findings
}
