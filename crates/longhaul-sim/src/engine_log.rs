//! What the engine says of itself goes to the log of the run; a fault it reports in itself breaks the run.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::{Arc, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::world::World;

/// Words in which the engine reports what no fault of the world explains.
const FAULTS: [&str; 3] = ["broke down", "cannot be done", "cannot be read"];

/// Listens to the engine.
pub(crate) struct EngineLog {
    pub(crate) world: Arc<World>,
}

impl Subscriber for EngineLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("longhaul") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.world.note("engine", format_args!("{}{}", event.metadata().level(), line.0));
        if *event.metadata().level() == Level::ERROR && FAULTS.iter().any(|fault| line.0.contains(fault)) {
            self.world.broken("Engine", line.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes everything");
    }
}

thread_local! {
    /// The first panic of this thread's run; `None` while there is no run.
    static PANIC: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Runs something and returns the first panic that its tasks hid, besides what it gave.
pub(crate) fn with_panics<T>(run: impl FnOnce() -> T) -> (T, Option<String>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANIC.with_borrow_mut(|panic| match panic {
                Some(first) => {
                    first.get_or_insert_with(|| info.to_string());
                    true
                }
                None => false,
            });
            if !noted {
                before(info);
            }
        }));
    });
    PANIC.set(Some(None));
    let made = run();
    (made, PANIC.take().flatten())
}
