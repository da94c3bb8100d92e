//! `doctor`: what works here and what does not, found out by trying it.

mod provider;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use longhaul_engine::{Models as _, with_goal_tools};
use longhaul_session::agent::{Configuration, ModelChoice};
use longhaul_store::{Filter, Page};
use longhaul_tools::toolbox::Toolbox;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli::{self, Options};
use crate::manifest::{self, check::described_model};
use crate::models::AllModels;
use crate::providers::Provider;
use crate::{environment, facts, keys, start, summary};

/// Sessions counted at most.
const COUNTED: usize = 1_000;

/// What a look at one thing found.
#[derive(PartialEq)]
struct Finding {
    what: &'static str,
    good: bool,
    said: String,
}

/// Looks at all there is to look at. Ends with 1 when something does not work that must.
pub(crate) async fn doctor(options: Options, args: cli::Doctor) -> anyhow::Result<ExitCode> {
    let json = options.json;
    let models = AllModels::new(options.tape.clone());
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
    let (finding, configuration) = of_model(&models, &args);
    findings.push(finding);
    let unknown = configuration.as_ref().and_then(|configuration| facts::unknown(&configuration.model));
    findings.extend(unknown.map(|unknown| Finding::good("unknown", unknown)));
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
    let mut works = true;
    for finding in &findings {
        works &= finding.tell(json)?;
    }
    let served =
        configuration.filter(|configuration| configuration.model.provider != Provider::Scripted.name());
    if let Some(configuration) = served.filter(|_| !args.offline) {
        provider::announced(&configuration.model).tell(json)?;
        for finding in provider::ask(&models, &configuration).await {
            works &= finding.tell(json)?;
        }
    }
    Ok(ExitCode::from(u8::from(!works)))
}

impl Finding {
    fn good(what: &'static str, said: impl Into<String>) -> Self {
        Finding { what, good: true, said: said.into() }
    }

    fn bad(what: &'static str, said: impl Into<String>) -> Self {
        Finding { what, good: false, said: said.into() }
    }

    /// Prints it. Returns whether it is good.
    fn tell(&self, json: bool) -> anyhow::Result<bool> {
        let Finding { what, good, said } = self;
        let mut out = anstream::stdout();
        if json {
            writeln!(out, "{}", serde_json::json!({ "what": what, "good": good, "said": said }))?;
        } else {
            let said = said.replace('\n', "\n             ");
            writeln!(out, "{} {what:<8} {said}", if *good { "ok " } else { "bad" })?;
        }
        Ok(*good)
    }
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

/// Looks at the model that `longhaul run` would use here, or the one that was named, and its key.
fn of_model(models: &AllModels, args: &cli::Doctor) -> (Finding, Option<Configuration>) {
    let found = std::env::current_dir().ok().and_then(|here| manifest::find(&here));
    if found.is_none() && args.choice.model.is_none() {
        let said = "no longhaul.toml here or above: `longhaul run` needs --manifest, --model or --script";
        return (Finding::good("model", said), None);
    }
    let looked = (|| -> anyhow::Result<(String, Configuration)> {
        let mut configuration = match (&found, &args.choice.model) {
            (Some(path), _) => manifest::load(path, &with_goal_tools(Toolbox::builtin()))?,
            (None, name) => {
                let name = name.as_deref().unwrap_or_default();
                let choice = ModelChoice::new(Provider::OpenaiChat.name(), name);
                start::with_model(choice, &std::env::current_dir()?)?
            }
        };
        start::choose(&mut configuration, &args.choice);
        let choice = &configuration.model;
        if let Err(failure) = models.model(choice, &configuration.limits) {
            let problem = anyhow::anyhow!(failure.message);
            return match &found {
                Some(path) => Err(problem).with_context(|| path.display().to_string()),
                None => Err(problem),
            };
        }
        let key = choice.key.as_ref().map(|key| format!(", key from {}", keys::described(key)));
        let mut said = format!("{}{}", described_model(choice), key.unwrap_or_default());
        if let (Some(path), None) = (&found, &args.choice.model) {
            said.push_str(&format!(", as {} says", path.display()));
        }
        Ok((said, configuration))
    })();
    match looked {
        Ok((said, configuration)) => (Finding::good("model", said), Some(configuration)),
        Err(error) => (Finding::bad("model", format!("{error:#}")), None),
    }
}
