//! Plays a scenario: a person sets the goal and goes away. The faults go on until the session rests by itself.

use std::collections::BTreeMap;

use longhaul_engine::{Engine, NewSession};
use longhaul_session::command::First;
use longhaul_session::entry::Mode;
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::state::SessionState;
use longhaul_store::RequestId;

use super::{OBJECTIVE, Play};
use crate::limits::SCENARIO_WITHIN_MS;
use crate::store::{Disk, short};
use crate::users::PLACE;
use crate::world::World;

/// How often the session is looked at, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// Looks that must find it at rest: longer than any write that comes late.
const QUIET_LOOKS: u32 = 8;
/// How long a person waits for an answer before they ask again, in milliseconds.
const PATIENCE_MS: u64 = 20_000;

/// Sets the goal and waits until its session rests. Returns it.
pub(crate) async fn play(world: &World, disk: &Disk, engine: &Engine, play: Play) -> Option<SessionId> {
    world.note("scene", format_args!("{}, variant {}", play.scenario.name, play.variant));
    let session = set_goal(world, engine, play).await;
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        world.sleep_ms(LOOK_MS).await;
        let row = disk.rows().into_iter().find(|row| row.session == session)?;
        let state: SessionState = serde_json::from_slice(&row.state).ok()?;
        let rests = state.status.is_resting() && state.owner.is_none();
        quiet = if rests { quiet + 1 } else { 0 };
        if world.elapsed_ms() > SCENARIO_WITHIN_MS {
            let minutes = SCENARIO_WITHIN_MS / 60_000;
            world.broken(
                "Liveness",
                format!("{} is {} after {minutes} minutes", short(session), state.status.name()),
            );
            return None;
        }
    }
    Some(session)
}

/// Makes the session, under one request id until there is an answer.
async fn set_goal(world: &World, engine: &Engine, play: Play) -> SessionId {
    let id = GoalId(world.fresh_id());
    let first = First::Goal { id, objective: OBJECTIVE.to_owned(), terms: play.terms() };
    let request = RequestId::new("the goal".to_owned()).expect("it is short");
    let new = NewSession {
        configuration: play.configuration(),
        place: PLACE.to_owned(),
        ephemeral: false,
        mode: Mode::Default,
        name: None,
        labels: BTreeMap::new(),
        first,
    };
    loop {
        tokio::select! {
            biased;
            made = engine.create(new.clone(), Some(&request)) => match made {
                Ok(Ok(created)) => return created.session,
                Ok(Err(refusal)) => world.broken("Scenario", format!("the goal is refused: {refusal}")),
                Err(error) => world.note("person", format_args!("error: {error}")),
            },
            () = world.sleep_ms(PATIENCE_MS) => {}
        }
        world.sleep_ms(LOOK_MS).await;
    }
}
