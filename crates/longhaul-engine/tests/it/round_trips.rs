//! What steps cost on Postgres: statements, each in a round trip of its own, counted by the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use longhaul_engine::{Driven, Engine, Host, NewSession, SystemHost, Worker};
use longhaul_model::Model;
use longhaul_model::scripted::ScriptedModel;
use longhaul_session::agent::{Configuration, Limits, ModelChoice};
use longhaul_session::command::First;
use longhaul_session::entry::Mode;
use longhaul_session::id::{Timestamp, WorkerId};
use longhaul_session::item::EffectClass;
use longhaul_session::prompts::Prompts;
use longhaul_store::postgres::{Counters, Options};
use longhaul_store::{Lease, PostgresStore, Store as _, WorkerInfo};
use longhaul_test_postgres::{Database, leaves_out};
use longhaul_tools::toolbox::Toolbox;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{ModelsBy, Probe};

const HOUR_MS: u64 = 3_600_000;

/// The machine, on which no time to wait ever ends: nothing is looked for, or renewed, beside the steps.
struct Waitless(SystemHost);

#[async_trait]
impl Host for Waitless {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.monotonic_ms()
    }

    async fn sleep_ms(&self, _: u64) {
        std::future::pending().await
    }

    fn jitter(&self) -> f64 {
        0.0
    }

    fn fresh_id(&self) -> Uuid {
        self.0.fresh_id()
    }
}

/// Runs a session of so many model steps, each with a tool step, and a last answer.
async fn cost(database: &Database, steps: usize) -> Counters {
    let options =
        Options { lease: Lease::lasting(HOUR_MS), poll_every_ms: HOUR_MS, notify_every_ms: HOUR_MS };
    let store = Arc::new(PostgresStore::open(&database.url(), options).await.unwrap());
    let script = format!(
        "[[turn]]\n[[turn.step]]\ntext = \"Next.\"\nrepeat = {steps}\n\
         [[turn.step.call]]\ntool = \"probe\"\n[[turn.step]]\ntext = \"Done.\"\n"
    );
    let model: Arc<dyn Model> = Arc::new(script.parse::<ScriptedModel>().unwrap());
    let models = Arc::new(ModelsBy(move |_: &ModelChoice| Ok(model.clone())));
    let probe = Probe::open();
    let tools = Toolbox::empty().with(probe.tool("probe", EffectClass::Once));
    let engine = Engine::new(store.clone(), Arc::new(Waitless(SystemHost::new())), models, tools);
    let configuration = Configuration {
        agent: "tester".to_owned(),
        model: ModelChoice::new("scripted", "script"),
        directory: std::env::temp_dir().display().to_string(),
        instructions: None,
        scope: Vec::new(),
        tools: Vec::new(),
        prompts: Prompts::default(),
        limits: Limits::default(),
        summariser: None,
        goal: longhaul_session::goal::Terms::default(),
        without_goals: false,
    };
    let new = NewSession {
        configuration,
        place: "here".to_owned(),
        ephemeral: false,
        mode: Mode::Default,
        name: None,
        labels: BTreeMap::new(),
        first: First::Message("go".into()),
    };
    let session = engine.create(new, None).await.unwrap().unwrap().session;
    let info = WorkerInfo {
        worker: WorkerId(Uuid::new_v4()),
        place: "here".to_owned(),
        host: "test".to_owned(),
        pid: std::process::id(),
        version: "0".to_owned(),
        address: None,
        started: engine.host().now(),
        capacity: 0,
        running: 0,
        alive: true,
    };
    let worker = Worker::start(engine, info, CancellationToken::new()).await.unwrap();
    settle(database).await;
    let before = store.counters();
    assert_eq!(worker.drive(session).await.unwrap(), Driven::Waiting);
    assert_eq!(probe.count(), steps as u64);
    let after = store.counters();
    drop(worker);
    store.close().await.unwrap();
    Counters {
        statements: after.statements - before.statements,
        appends: after.appends - before.appends,
        entries_read: after.entries_read - before.entries_read,
        entries_written: after.entries_written - before.entries_written,
        ..after
    }
}

/// Waits until others were notified of the session, which is the last that the store does by itself.
async fn settle(database: &Database) {
    for _ in 0..1_200 {
        if database.idle_after("pg_notify").await.unwrap() == 1 {
            return;
        }
        SystemHost::new().sleep_ms(50).await;
    }
    panic!("the store is never quiet");
}

#[tokio::test]
async fn a_step_is_one_statement_and_one_round_trip() {
    if leaves_out("it is on Postgres wherever the others are") {
        return;
    }
    let database = Database::create().await.unwrap();
    let (few, many) = (cost(&database, 5).await, cost(&database, 45).await);
    // A model step and a tool step each.
    assert_eq!(many.statements - few.statements, 2 * 40, "{few:?} {many:?}");
    assert_eq!(many.appends - few.appends, 2 * 40);
    assert_eq!(many.entries_written - few.entries_written, 2 * 40);
    assert_eq!(many.entries_read, few.entries_read, "no step reads the log");
}
