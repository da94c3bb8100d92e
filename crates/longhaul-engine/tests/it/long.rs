//! A long session: what a step costs does not depend on how much came before it.

use std::sync::{Arc, Mutex};

use longhaul_engine::Driven;
use longhaul_session::agent::Limits;
use longhaul_session::item::EffectClass;
use longhaul_store::Row;
use longhaul_tools::tool::{ToolOutput, function};
use longhaul_tools::toolbox::Toolbox;

use crate::kept::Counts;
use crate::wire::Wire;
use crate::world::{World, spec};

/// Steps of a turn that ends with entry 20,000: two entries each, and a few around them.
const STEPS: usize = 9_997;
/// The step whose call runs at about entry 100.
const EARLY: usize = 48;
/// What the larger numbers of a late step may add to the bytes it writes: some digits in each of a dozen
/// numbers, in the record and in the state.
const DIGITS: u64 = 120;

// In real time: paused time runs ahead whenever all wait for the store's thread, by hours over so many steps.
#[tokio::test]
async fn a_step_costs_the_same_at_entry_100_and_at_entry_20_000() {
    let (short, _) = run(EARLY).await;
    let (long, marks) = run(STEPS).await;
    assert_eq!(long.head, 20_000);
    let (early, late) = (price(&marks, EARLY), price(&marks, STEPS - 2));
    println!("early {early:?}\nlate  {late:?}\nstate {} and {} bytes", short.state.len(), long.state.len());
    assert_eq!(early.0, [2, late.0[1], 0, 2], "two appends, nothing read, two entries");
    assert_eq!(early.0, late.0);
    assert!(late.1.abs_diff(early.1) <= DIGITS, "{} and {} bytes", early.1, late.1);
    assert!(long.state.len().abs_diff(short.state.len()) as u64 <= DIGITS);
}

/// Runs a session of so many steps. Returns its row, and what the store had done at each step's call.
async fn run(steps: usize) -> (Row, Vec<Counts>) {
    let script = format!(
        r#"
        [[turn]]
        [[turn.step]]
        repeat = {steps}
        usage = {{ input = 10, output = 1 }}
        text = "a step"
        [[turn.step.call]]
        tool = "mark"
        [[turn.step]]
        usage = {{ input = 10, output = 1 }}
        text = "done"
        "#
    );
    let marks: Arc<Mutex<Vec<Counts>>> = Arc::default();
    let store: Arc<Mutex<Option<Arc<Wire>>>> = Arc::default();
    let (marking, seen) = (Arc::clone(&marks), Arc::clone(&store));
    let mark = function(spec("mark", EffectClass::Once), move |_, _| {
        let counts = seen.lock().unwrap().as_ref().unwrap().counts();
        marking.lock().unwrap().push(counts);
        async { ToolOutput::ok("marked") }
    });
    let world = World::new(&script, Toolbox::empty().with(mark)).in_memory();
    *store.lock().unwrap() = Some(Arc::clone(&world.store));
    let limits = Limits { max_steps: 20_000, compact_above_tokens: u64::MAX / 16, ..Limits::default() };
    let session = world.limited(limits).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let row = world.engine.snapshot(session).await.unwrap().row;
    let marks = marks.lock().unwrap().clone();
    (row, marks)
}

/// The least that one of a few steps in a row cost: a look without a hint, once a second, is not of the step.
fn price(marks: &[Counts], at: usize) -> ([u64; 4], u64) {
    (at - 4..=at).map(|at| price_of_one(marks, at)).min().expect("these are five steps")
}

/// What one step cost: transactions, statements, entries read and written; and bytes written.
fn price_of_one(marks: &[Counts], at: usize) -> ([u64; 4], u64) {
    let (before, after) = (marks[at - 1], marks[at]);
    let counts = [
        after.commits - before.commits,
        after.statements - before.statements,
        after.entries_read - before.entries_read,
        after.entries_written - before.entries_written,
    ];
    (counts, after.bytes_written - before.bytes_written)
}
