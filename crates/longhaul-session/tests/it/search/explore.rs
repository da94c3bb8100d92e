//! The search itself: breadth first, every distinct world once, with the way that led to it.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;

use super::Scenario;
use super::action::{Action, actions, perform};
use super::canonical::{self, Name};
use super::stand::{self, Resting};
use super::world::{Broken, World};

/// What was searched.
#[derive(Debug)]
pub(super) struct Searched {
    pub(super) states: usize,
    pub(super) transitions: u64,
    /// The longest way to a state.
    pub(super) depth: u32,
}

/// How a world was reached.
#[derive(Clone, Copy, Debug)]
struct Step {
    from: u32,
    action: Option<Action>,
    depth: u32,
}

/// Searches all worlds of a scenario.
///
/// The error is a counterexample: the invariant that broke, and the way to it.
pub(super) fn search(scenario: &Scenario) -> Result<Searched, String> {
    let broken = |broken: Broken| format!("COUNTEREXAMPLE: {}: {}", broken.invariant, broken.what);
    let first = World::new(scenario.start, scenario.budget, scenario.left).map_err(broken)?;
    let mut seen: HashSet<Name> = HashSet::from([canonical::world(&first, &scenario.limits)]);
    let mut steps = vec![Step { from: 0, action: None, depth: 0 }];
    let mut resting = Resting::default();
    let mut frontier = VecDeque::from([(0_u32, first)]);
    let mut transitions = 0;
    while let Some((from, world)) = frontier.pop_front() {
        for action in actions(&world, scenario) {
            transitions += 1;
            let mut next = world.clone();
            next.trace.clear();
            let happened = perform(&mut next, action, scenario);
            let happened =
                happened.map_err(|broken| counterexample(scenario, &steps, from, action, &broken))?;
            next.forget();
            if !happened || !seen.insert(canonical::world(&next, &scenario.limits)) {
                continue;
            }
            stand::check(&next, scenario.files, &scenario.limits, &mut resting)
                .map_err(|broken| counterexample(scenario, &steps, from, action, &broken))?;
            let place = u32::try_from(steps.len()).expect("fewer states than an index has room for");
            steps.push(Step { from, action: Some(action), depth: steps[from as usize].depth + 1 });
            if steps.len() > scenario.max_states {
                return Err(format!("more than {} states: the scenario is too large", scenario.max_states));
            }
            frontier.push_back((place, next));
        }
    }
    let depth = steps.last().map_or(0, |step| step.depth);
    Ok(Searched { states: steps.len(), transitions, depth })
}

/// Tells the way to what broke, by going it again.
fn counterexample(scenario: &Scenario, steps: &[Step], from: u32, last: Action, broken: &Broken) -> String {
    let mut way = vec![last];
    let mut at = from as usize;
    while let Some(action) = steps[at].action {
        way.push(action);
        at = steps[at].from as usize;
    }
    way.reverse();
    let mut text = format!("COUNTEREXAMPLE: {}: {}\n", broken.invariant, broken.what);
    let Ok(mut world) = World::new(scenario.start, scenario.budget, scenario.left) else { return text };
    for action in way {
        world.trace.clear();
        let result = perform(&mut world, action, scenario);
        world.forget();
        let (status, head) = (world.state.status.name(), world.state.head);
        let _ = writeln!(text, "  {action:?} -> {:?}, {status} at {head}", world.trace);
        if result.is_err() {
            break;
        }
    }
    let _ = write!(text, "  {:?}", world.state);
    text
}
