//! What holds for every sequence of commands, whoever gives them and however little they fit.

use longhaul_session::command::{Command, OwnerAction};
use longhaul_session::decide::decide;
use longhaul_session::entry::{Fact, Next, Record};
use longhaul_session::id::{Digest, EntryNo};
use longhaul_session::log::{SealedEntry, Verifier, open, seal};
use longhaul_session::state::{SessionState, Status};
use longhaul_session::usage::{Spend, Totals};
use proptest::prelude::*;

use crate::driver::{context_of, fold, read_back, session_id};
use crate::random::{Driven, LATE, Seed, seeds};

/// The most bytes a stored state may have after any number of the random commands.
const MAX_STATE_BYTES: usize = 12 * 1_024;

fn drive(seeds: &[Seed], mut after: impl FnMut(&Command, bool, &Driven)) -> Driven {
    let mut driven = Driven::new();
    for seed in seeds {
        let command = driven.next(*seed);
        let done = driven.session.attempt(command.clone()).is_ok();
        after(&command, done, &driven);
    }
    driven
}

fn driven(seeds: &[Seed]) -> Driven {
    drive(seeds, |_, _, _| ())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn folding_the_log_gives_the_decided_state(seeds in seeds(80)) {
        let session = driven(&seeds).session;
        prop_assert_eq!(fold(&session.entries), session.state);
        let numbers: Vec<EntryNo> = session.entries.iter().map(|entry| entry.record.n).collect();
        prop_assert_eq!(numbers, (1..=session.entries.len() as EntryNo).collect::<Vec<_>>());
    }

    #[test]
    fn the_invariants_hold_after_every_command(seeds in seeds(80)) {
        drive(&seeds, |command, _, driven| {
            assert_eq!(driven.session.state.broken_invariant(), None, "after {command:?}");
        });
    }

    #[test]
    fn a_refused_command_changes_nothing(seeds in seeds(80)) {
        let mut driven = Driven::new();
        for seed in seeds {
            let command = driven.next(seed);
            let before = (driven.session.state.clone(), driven.session.entries.len());
            let done = driven.session.attempt(command.clone()).is_ok();
            prop_assert_eq!(done, before.1 < driven.session.entries.len(), "{:?}", command);
            prop_assert!(done || before.0 == driven.session.state, "{:?}", command);
        }
    }

    #[test]
    fn an_owner_of_an_old_epoch_commits_nothing(seeds in seeds(80)) {
        let mut driven = Driven::new();
        for seed in seeds {
            let command = driven.next(seed);
            let epoch = driven.session.state.epoch;
            let done = driven.session.attempt(command.clone()).is_ok();
            if let Command::Owned { epoch: by, .. } = command {
                prop_assert!(!done || by == epoch);
            }
        }
    }

    #[test]
    fn every_call_in_the_context_has_one_result_or_is_open(seeds in seeds(80)) {
        drive(&seeds, |command, _, driven| {
            assert_eq!(driven.session.broken_pairing(), None, "after {command:?}");
        });
    }

    #[test]
    fn a_context_read_back_is_the_context_folded_from_the_start(seeds in seeds(60)) {
        drive(&seeds, |command, done, driven| {
            if done {
                let session = &driven.session;
                let read = read_back(&session.entries, &session.state);
                assert_eq!(read.read_back(0), session.context.clone().read_back(0), "after {command:?}");
            }
        });
    }

    #[test]
    fn a_fork_of_every_prefix_is_sound_and_rests(seeds in seeds(60)) {
        let session = driven(&seeds).session;
        let mut state = SessionState::default();
        let mut context = context_of(&[]);
        for entry in &session.entries {
            state = longhaul_session::evolve::evolve(state, &entry.record);
            context.apply(entry);
            let fork = decide(&state, Command::Fork { parent: session_id() }, LATE).expect("it exists");
            let mut context = context.clone();
            fork.entries.iter().for_each(|entry| context.apply(entry));
            prop_assert_eq!(fork.state.broken_invariant(), None);
            prop_assert_eq!(fork.state.status, Status::Waiting);
            prop_assert!(fork.state.queue.is_empty() && fork.state.pending.is_empty());
            prop_assert_eq!((fork.state.owner, fork.state.retry), (None, None));
            prop_assert_eq!(fork.state.response_id, None);
            prop_assert_eq!(context.broken_pairing(&[]), None);
        }
    }

    #[test]
    fn the_totals_are_the_sum_of_what_was_spent(seeds in seeds(80)) {
        let mut sum = Totals::default();
        let driven = drive(&seeds, |command, done, _| if done { add(&mut sum, command) });
        let ledger = driven.session.state.ledger;
        prop_assert_eq!((ledger.measured, ledger.active_ms), (sum.measured, sum.active_ms));
        let lost = driven.session.entries.iter().filter_map(|entry| estimate_of(&entry.record.fact));
        prop_assert_eq!(ledger.estimated.input, lost.sum::<u64>());
    }

    #[test]
    fn the_queue_is_first_in_first_out_except_for_what_is_promoted(seeds in seeds(80)) {
        let mut queue = Vec::new();
        let mut seen = 0;
        drive(&seeds, |command, _, driven| {
            let by_name = matches!(command, Command::Promote { .. });
            for entry in &driven.session.entries[seen..] {
                follow_queue(&mut queue, &entry.record, by_name);
            }
            seen = driven.session.entries.len();
            assert_eq!(queue, driven.session.state.queue, "after {command:?}");
        });
    }

    #[test]
    fn what_is_stored_is_read_as_what_it_was(seeds in seeds(80)) {
        let session = driven(&seeds).session;
        for (sealed, entry) in seal(Digest::default(), &session.entries).iter().zip(&session.entries) {
            prop_assert_eq!(&open(sealed).expect("it was sealed by this program"), entry);
        }
        let bytes = serde_json::to_vec(&session.state).expect("a state has only string keys");
        let state: SessionState = serde_json::from_slice(&bytes).expect("it was written by this program");
        prop_assert_eq!(state, session.state);
    }

    #[test]
    fn the_verifier_finds_nothing_in_a_sound_log(seeds in seeds(80)) {
        let session = driven(&seeds).session;
        let sealed = seal(Digest::default(), &session.entries);
        prop_assert_eq!(verify(&sealed, &sealed, &session.state), Vec::<String>::new());
    }

    #[test]
    fn the_verifier_finds_a_flipped_byte(seeds in seeds(20), at: prop::sample::Index, bit in 0..8_u8) {
        let session = driven(&seeds).session;
        let sealed = seal(Digest::default(), &session.entries);
        let mut broken = sealed.clone();
        let mut bytes: Vec<&mut u8> = broken.iter_mut().flat_map(stored_bytes).collect();
        let at = at.index(bytes.len());
        *bytes[at] ^= 1 << bit;
        prop_assert_ne!(&broken, &sealed);
        prop_assert_ne!(verify(&broken, &sealed, &session.state), Vec::<String>::new());
    }

    #[test]
    fn the_verifier_finds_a_kind_or_time_not_the_records(seeds in seeds(20), at: prop::sample::Index) {
        let session = driven(&seeds).session;
        let sealed = seal(Digest::default(), &session.entries);
        let (mut kind, mut time) = (sealed.clone(), sealed.clone());
        at.get_mut(&mut kind).kind.push('s');
        at.get_mut(&mut time).at.0 += 1;
        prop_assert_ne!(verify(&kind, &sealed, &session.state), Vec::<String>::new());
        prop_assert_ne!(verify(&time, &sealed, &session.state), Vec::<String>::new());
    }

    #[test]
    fn the_verifier_finds_a_missing_doubled_or_displaced_entry(seeds in seeds(20), at: prop::sample::Index) {
        let session = driven(&seeds).session;
        let sealed = seal(Digest::default(), &session.entries);
        let at = at.index(sealed.len());
        let (mut dropped, mut doubled, mut swapped) = (sealed.clone(), sealed.clone(), sealed.clone());
        dropped.remove(at);
        doubled.insert(at, sealed[at].clone());
        swapped.swap(at, (at + 1) % sealed.len());
        prop_assert_ne!(verify(&dropped, &sealed, &session.state), Vec::<String>::new());
        prop_assert_ne!(verify(&doubled, &sealed, &session.state), Vec::<String>::new());
        if sealed.len() > 1 {
            prop_assert_ne!(verify(&swapped, &sealed, &session.state), Vec::<String>::new());
        }
    }

    #[test]
    fn redacted_content_leaves_pairing_fold_and_chain_whole(seeds in seeds(60), at: prop::sample::Index) {
        let mut session = driven(&seeds).session;
        let at = at.index(session.entries.len());
        session.run(Command::Redact { entry: at as EntryNo + 1 });
        let sealed = seal(Digest::default(), &session.entries);
        let mut stored = sealed.clone();
        stored[at].content = None;
        session.entries[at].content = None;
        prop_assert_eq!(verify(&stored, &sealed, &session.state), Vec::<String>::new());
        prop_assert_eq!(fold(&session.entries), session.state.clone());
        session.context = context_of(&session.entries);
        prop_assert_eq!(session.broken_pairing(), None);
    }
}

#[test]
fn a_state_does_not_grow_with_its_log() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut driven = Driven::new();
    let mut longest = 0;
    for _ in 0..5_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [.., a, b, c] = (random >> 24).to_be_bytes();
        let command = driven.next(Seed::new([a, b, c]));
        let _may_be_refused = driven.session.attempt(command);
        let bytes = serde_json::to_vec(&driven.session.state).expect("a state has only string keys");
        longest = longest.max(bytes.len());
    }
    assert!(driven.session.state.head > 2_500, "only {} entries were made", driven.session.state.head);
    assert!(longest < MAX_STATE_BYTES, "a state had {longest} bytes");
}

/// What is wrong with a log beside the row of the sound one.
fn verify(log: &[SealedEntry], sound: &[SealedEntry], state: &SessionState) -> Vec<String> {
    let mut verifier = Verifier::default();
    log.iter().for_each(|entry| verifier.push(entry));
    verifier.finish(state.head, sound.last().expect("a session has entries").hash, state)
}

fn add(sum: &mut Totals, command: &Command) {
    let Command::Owned { action, .. } = command else { return };
    if let Some(Spend { usage, active_ms, .. }) = spend_of(action) {
        sum.measured += usage;
        sum.active_ms += active_ms;
    }
}

fn spend_of(action: &OwnerAction) -> Option<Spend> {
    match action {
        OwnerAction::CommitStep { spend, .. }
        | OwnerAction::Settle { spend }
        | OwnerAction::BeginRetry { spend, .. }
        | OwnerAction::Compact { spend, .. }
        | OwnerAction::FailCompaction { spend, .. }
        | OwnerAction::FinishTurn { spend, .. }
        | OwnerAction::FinishInterruption { spend, .. }
        | OwnerAction::Fail { spend, .. } => Some(*spend),
        OwnerAction::Prepare { .. }
        | OwnerAction::Release { .. }
        | OwnerAction::RecordResponse { .. }
        | OwnerAction::CommitContext { .. }
        | OwnerAction::CommitSteering
        | OwnerAction::GuardFiles { .. }
        | OwnerAction::RecordHook { .. }
        | OwnerAction::AwaitAction { .. }
        | OwnerAction::CancelAction => None,
    }
}

fn estimate_of(fact: &Fact) -> Option<u64> {
    if let Fact::Acquired { lost: true, estimate, .. } = fact { Some(estimate.input) } else { None }
}

/// Keeps a queue by the records alone, and checks that only a person lets a message overtake another.
fn follow_queue(queue: &mut Vec<EntryNo>, record: &Record, by_name: bool) {
    let fact = &record.fact;
    if matches!(fact, Fact::Queued) {
        queue.push(record.n);
    } else if let Fact::Unqueued { message } = fact {
        queue.retain(|queued| queued != message);
    } else if let Fact::Interrupting { promote, dropped, .. } = fact {
        queue.retain(|queued| !dropped.contains(queued));
        if let Some(message) = promote {
            let at = queue.iter().position(|queued| queued == message).expect("it was queued");
            queue[..=at].rotate_right(1);
        }
    } else if matches!(fact, Fact::Forked { .. } | Fact::Imported { .. }) {
        queue.clear();
    } else if let Fact::Promoted { message }
    | Fact::TurnFinished { next: Next::Promote(message), .. }
    | Fact::Interrupted { next: Next::Promote(message), .. }
    | Fact::Goal { next: Some(Next::Promote(message)), .. }
    | Fact::Mode { next: Some(Next::Promote(message)), .. } = fact
    {
        let at = queue.iter().position(|queued| queued == message).expect("it was queued");
        assert!(at == 0 || by_name, "entry {} lets message {message} overtake others", record.n);
        queue.remove(at);
    }
}

fn stored_bytes(entry: &mut SealedEntry) -> impl Iterator<Item = &mut u8> {
    entry.record.iter_mut().chain(entry.content.iter_mut().flatten()).chain(&mut entry.hash.0)
}
