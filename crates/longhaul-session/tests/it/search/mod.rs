//! The exhaustive search of the session machine: in small worlds, everything that can happen does, in every
//! order, and every rule is checked after every step. The rules are the real ones; what is small is the
//! number of runners, of faults, of wishes, and of calls.
//!
//! `LONGHAUL_SEARCH=large` allows one more fault and one more wish, and takes minutes instead of seconds.

mod action;
mod canonical;
mod explore;
mod landing;
mod oracle;
mod reply;
mod runner;
mod stand;
mod world;

use longhaul_session::agent::Limits;
use longhaul_session::goal::Budget;
use longhaul_session::id::Digest;

use action::{Size, Wish, Word};
use reply::Reply;
use world::{Left, Start, limits};

/// What can happen in one search.
#[derive(Debug)]
struct Scenario {
    name: &'static str,
    start: Start,
    /// The budget of the goal it starts with.
    budget: Budget,
    /// The budget of goals that are set or changed.
    raised: Budget,
    left: Left,
    replies: &'static [Reply],
    wishes: &'static [Wish],
    words: &'static [Word],
    sizes: &'static [Size],
    /// The digest of the workspace's context files.
    files: Option<Digest>,
    limits: Limits,
    max_states: usize,
}

impl Scenario {
    fn new(name: &'static str, users: u8, faults: u8, replies: u8) -> Self {
        let more = u8::from(is_large());
        Scenario {
            name,
            start: Start::Message,
            budget: Budget { continuations: Some(2), ..Budget::default() },
            raised: Budget { continuations: Some(3), ..Budget::default() },
            left: Left { users: users + more, faults: faults + more, replies },
            replies: &[],
            wishes: &[],
            words: &[Word::Nothing],
            sizes: &[Size::Small],
            files: None,
            limits: limits(4),
            max_states: if is_large() { 20_000_000 } else { 2_000_000 },
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the size of a search is chosen by who runs it")]
fn is_large() -> bool {
    std::env::var("LONGHAUL_SEARCH").is_ok_and(|size| size == "large")
}

/// Searches, and fails with the counterexample if there is one.
#[expect(
    clippy::print_stdout,
    clippy::panic,
    reason = "a search tells its size, or fails with what it found"
)]
fn check(scenario: &Scenario) {
    match explore::search(scenario) {
        Ok(searched) => println!(
            "{}: {} states, {} transitions, {} steps deep",
            scenario.name, searched.states, searched.transitions, searched.depth
        ),
        Err(found) => {
            println!("{found}");
            panic!("the search of {} found that a rule does not hold", scenario.name);
        }
    }
}

/// Local calls of every class, crashes, stalled runners, releases, interrupts.
#[test]
fn search_tools() {
    check(&Scenario {
        replies: &[Reply::Once, Reply::Pure, Reply::TwoOnce, Reply::OnceAndIdempotent, Reply::StopAfter],
        wishes: &[Wish::Interrupt, Wish::SendNow, Wish::Edit],
        ..Scenario::new("tools", 1, 2, 2)
    });
}

/// Calls that others answer: clients, approvals, questions, deadlines.
#[test]
fn search_actions() {
    check(&Scenario {
        replies: &[
            Reply::OnceAndClient,
            Reply::TwoClients,
            Reply::Approval,
            Reply::TwoApprovals,
            Reply::OnceAndApproval,
            Reply::ApprovalAndClient,
            Reply::Question,
            Reply::Crowded,
        ],
        wishes: &[Wish::Interrupt, Wish::SendNow, Wish::Send, Wish::Promote, Wish::Edit],
        ..Scenario::new("actions", 2, 2, 1)
    });
}

/// Messages: queued, promoted, removed, edited, in every state.
#[test]
fn search_queue() {
    check(&Scenario {
        replies: &[Reply::Client, Reply::Refused],
        wishes: &[
            Wish::Send,
            Wish::SendNow,
            Wish::Edit,
            Wish::LateEdit,
            Wish::Unqueue,
            Wish::Promote,
            Wish::Interrupt,
            Wish::InterruptAll,
            Wish::Archive,
            Wish::Unarchive,
        ],
        ..Scenario::new("queue", 3, 1, 1)
    });
}

/// Goals: set, changed, paused, resumed, removed, at every moment, in both modes.
#[test]
fn search_goals() {
    check(&Scenario {
        start: Start::Goal,
        replies: &[Reply::Pure, Reply::Refused],
        wishes: &[
            Wish::Send,
            Wish::Interrupt,
            Wish::SetGoal(0),
            Wish::SetGoal(1),
            Wish::PauseGoal,
            Wish::ResumeGoal,
            Wish::ClearGoal,
            Wish::Plan,
            Wish::Work,
        ],
        words: &[Word::Nothing, Word::Create, Word::Complete, Word::Blocked],
        ..Scenario::new("goals", 2, 1, 2)
    });
}

/// Budgets that are crossed in the middle of a turn, and raised.
#[test]
fn search_budgets() {
    check(&Scenario {
        start: Start::Goal,
        budget: Budget { tokens: Some(15), continuations: Some(3), ..Budget::default() },
        raised: Budget { tokens: Some(35), continuations: Some(3), ..Budget::default() },
        replies: &[Reply::Once, Reply::Overloaded],
        wishes: &[Wish::RaiseBudget, Wish::SetGoal(1), Wish::ResumeGoal, Wish::Plan, Wish::Work, Wish::Edit],
        limits: limits(2),
        ..Scenario::new("budgets", 2, 1, 2)
    });
}

/// Compactions asked for and owed, failed attempts, context files.
#[test]
fn search_compaction() {
    check(&Scenario {
        replies: &[Reply::Pure, Reply::Overloaded, Reply::Overflow],
        wishes: &[Wish::Compaction, Wish::Clear, Wish::Send, Wish::Edit, Wish::SetGoal(0)],
        sizes: &[Size::Small, Size::Idle, Size::Over],
        files: Some(Digest([9; 32])),
        ..Scenario::new("compaction", 2, 1, 2)
    });
}

/// A little of everything, for what only shows where two features meet.
#[test]
fn search_everything() {
    check(&Scenario {
        start: Start::Goal,
        budget: Budget { tokens: Some(25), continuations: Some(2), ..Budget::default() },
        replies: &[Reply::OnceAndClient, Reply::OnceAndApproval, Reply::Overloaded],
        wishes: &[
            Wish::Send,
            Wish::SendNow,
            Wish::Edit,
            Wish::Promote,
            Wish::Interrupt,
            Wish::Compaction,
            Wish::Clear,
            Wish::SetGoal(1),
            Wish::RaiseBudget,
            Wish::PauseGoal,
            Wish::ResumeGoal,
            Wish::Plan,
        ],
        sizes: &[Size::Small, Size::Over],
        ..Scenario::new("everything", 2, 1, 1)
    });
}
