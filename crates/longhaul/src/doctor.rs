//! `doctor`: what works here and what does not, found out by trying it.

use std::io::Write as _;
use std::process::ExitCode;

use longhaul_engine::{Models as _, with_goal_tools};
use longhaul_store::{Filter, Page};
use longhaul_tools::toolbox::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli::Options;
use crate::manifest::{self, check::described_model};
use crate::models::AllModels;
use crate::{environment, keys, providers, summary};

/// Sessions counted at most.
const COUNTED: usize = 1_000;

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
        Ok(app) => {
            findings.extend(of_store(&app).await);
            app.close().await;
        }
        Err(error) => findings.push(Finding { what: "store", good: false, said: format!("{error:#}") }),
    }
    findings.push(of_model());
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
            let said = said.replace('\n', "\n             ");
            writeln!(out, "{} {what:<8} {said}", if *good { "ok " } else { "bad" })?;
        }
    }
    Ok(ExitCode::from(u8::from(findings.iter().any(|finding| !finding.good))))
}

/// Reads and writes the store.
async fn of_store(app: &App) -> Vec<Finding> {
    let page = Page { after: None, limit: COUNTED + 1 };
    let store = match (app.engine.store().list(Filter::default(), page).await, try_write(app).await) {
        (Ok(rows), Ok(())) => {
            let count = summary::count(rows.len().min(COUNTED) as u64, "session");
            let count = if rows.len() > COUNTED { format!("more than {count}") } else { count };
            Finding { what: "store", good: true, said: format!("{count} in {}", app.kept_in) }
        }
        (Err(error), _) => Finding { what: "store", good: false, said: error.to_string() },
        (Ok(_), Err(error)) => Finding { what: "store", good: false, said: format!("{error:#}") },
    };
    let workers = match app.engine.store().workers().await {
        Ok(workers) => {
            let alive = workers.iter().filter(|worker| worker.alive).count() as u64;
            Finding {
                what: "workers",
                good: true,
                said: format!("{} alive", summary::count(alive, "worker")),
            }
        }
        Err(error) => Finding { what: "workers", good: false, said: error.to_string() },
    };
    vec![store, workers]
}

/// Writes what each command that drives a session writes first, and takes it back.
async fn try_write(app: &App) -> anyhow::Result<()> {
    app.worker(0, CancellationToken::new()).await.map(drop)
}

/// Looks at the model that `longhaul run` would use here, and its key. The provider is not asked.
fn of_model() -> Finding {
    let found = std::env::current_dir().ok().and_then(|here| manifest::find(&here));
    let Some(path) = found else {
        let said = "no longhaul.toml here or above: `longhaul run` needs --manifest, --model or --script";
        return Finding { what: "model", good: true, said: said.to_owned() };
    };
    let looked =
        manifest::load(&path, &with_goal_tools(Toolbox::builtin())).map_err(|error| error.to_string());
    let looked = looked.and_then(|configuration| {
        let choice = providers::with_usual_key(configuration.model);
        let model = AllModels::default().model(&choice, &configuration.limits);
        model.map_err(|failure| format!("{}: {}", path.display(), failure.message))?;
        let key = choice.key.as_ref().map(|key| format!(", key from {}", keys::described(key)));
        Ok(format!("{}{}, as {} says", described_model(&choice), key.unwrap_or_default(), path.display()))
    });
    let (good, said) = (looked.is_ok(), looked.unwrap_or_else(|error| error));
    Finding { what: "model", good, said }
}
