//! The demo: a real run with real tools and a scripted model, offline, in a scratch directory. With
//! `--crash` its worker is killed twice, and a new one goes on.

mod crash;
mod project;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use longhaul_session::command::First;
use longhaul_session::entry::Mode;

use crate::app::App;
use crate::cli::{self, Options};
use crate::drive::drive;
use crate::environment;
use crate::render::Renderer;
use crate::start;
use project::Project;

/// Lays out the project, runs the session, says what to try next.
pub(crate) async fn run(options: &Options, args: cli::Demo) -> anyhow::Result<ExitCode> {
    let root = root(args.dir)?;
    let project = project::lay_out(&root, args.crash)?;
    let home = Some(project.home.clone());
    let app = App::open(Options { home, store: None, ..options.clone() }).await?;
    let played = play(&app, options, args.crash, &project).await;
    app.close().await;
    played
}

async fn play(app: &App, options: &Options, crash: bool, project: &Project) -> anyhow::Result<ExitCode> {
    let configuration = start::scripted(&project.script, &project.directory.canonicalize()?)?;
    app.check_model(&configuration.model, &configuration.limits)?;
    let mut renderer = Renderer::new(options.json);
    introduce(&mut renderer, project)?;
    let (name, first) = (Some("demo".to_owned()), First::Message(project.message.into()));
    let new = start::New { configuration, mode: Mode::Default, name, first, files: &[] };
    let session = start::create(app, new, None).await?.session;
    let code = if crash {
        crash::run(app, session, project, &mut renderer).await?
    } else {
        drive(app, session, 0).await?
    };
    conclude(&mut renderer, project, crash)?;
    Ok(code)
}

fn root(wanted: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let fresh = || environment::temporary_directory().join(format!("longhaul-demo-{}", &id[..8]));
    let root = wanted.unwrap_or_else(fresh);
    if root.exists() {
        bail!("{} exists already; name a directory for the demo that does not", root.display());
    }
    Ok(std::path::absolute(root)?)
}

fn introduce(renderer: &mut Renderer, project: &Project) -> std::io::Result<()> {
    renderer.say(&format!(
        "Longhaul demo · a small {} project with a failing test, in {}\n\
         The model is scripted: its answers are read from {}, and no language model is\n\
         involved. The tools, the files and the log are real.\n",
        project.language,
        project.directory.display(),
        project.script.display(),
    ))
}

fn conclude(renderer: &mut Renderer, project: &Project, crash: bool) -> std::io::Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| "longhaul".to_owned());
    let home = project.home.display();
    let with_home = format!("{program} --home {home}");
    renderer.say(&format!(
        "\nThe session is kept in {home}. Try next:\n  {with_home} log\n  {with_home} show\n  {with_home} verify"
    ))?;
    if !crash {
        renderer.say(&format!("  {program} demo --crash"))?;
    }
    Ok(())
}
