//! A scratch directory with a toolbox over it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longhaul_session::agent::ScopeRule;
use longhaul_session::id::{CallId, Digest, SessionId};
use longhaul_tools::tool::{CallContext, IdempotencyKey, Progress, ToolOutput};
use longhaul_tools::toolbox::Toolbox;
use longhaul_tools::workspace::{ArtifactReader, Workspace};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(crate) struct Artifacts(Mutex<HashMap<Digest, Vec<u8>>>);

#[async_trait]
impl ArtifactReader for Artifacts {
    async fn read(&self, digest: Digest) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(&digest).cloned()
    }
}

impl Artifacts {
    pub(crate) fn keep(&self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.0.lock().unwrap().insert(digest, bytes);
        digest
    }
}

pub(crate) struct World {
    pub(crate) directory: PathBuf,
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) toolbox: Toolbox,
    pub(crate) cx: CallContext,
    _scratch: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        World::with_rules(&[])
    }

    /// The working directory is `work` in a scratch directory of its own.
    pub(crate) fn with_rules(rules: &[ScopeRule]) -> Self {
        let scratch = TempDir::new().unwrap();
        let directory = scratch.path().canonicalize().unwrap().join("work");
        fs::create_dir(&directory).unwrap();
        let artifacts = Arc::new(Artifacts::default());
        let workspace = Workspace::new(&directory, rules, artifacts.clone()).unwrap();
        let cx = CallContext::new(key(), CancellationToken::new(), Arc::new(workspace), Progress::none());
        World { directory, artifacts, toolbox: Toolbox::builtin(), cx, _scratch: scratch }
    }

    pub(crate) async fn call(&self, name: &str, arguments: Value) -> ToolOutput {
        self.toolbox.run(name, &arguments.to_string(), &self.cx).await
    }

    /// The directory around the working directory.
    pub(crate) fn outside(&self) -> &Path {
        self.directory.parent().unwrap()
    }

    pub(crate) fn put(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.directory.join(path)).unwrap()
    }
}

pub(crate) fn key() -> IdempotencyKey {
    IdempotencyKey { session: SessionId(uuid::Uuid::from_u128(7)), entry: 3, call: CallId::from("call_1") }
}

/// Asks again and again until it is so, for at most a minute.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tick.tick().await;
    }
    panic!("it never came to be: {what}");
}

/// Tells whether a process exists and has not ended.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}
