//! Files given with messages: they reach the model, are kept once, and go when nobody names them any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use longhaul_engine::{Done, Driven, GivenFile, MAX_ATTACHMENT_BYTES, NewSession, UnfitFile};
use longhaul_model::ModelCall;
use longhaul_model::files::with_bytes;
use longhaul_session::command::{Command, First, Refusal};
use longhaul_session::entry::Mode;
use longhaul_session::goal::Terms;
use longhaul_session::id::{GoalId, SessionId};
use longhaul_session::item::Item;
use longhaul_session::state::MAX_FILES;
use longhaul_session::steering::SteeringReason;
use longhaul_store::{Filter, Page, RequestId};
use longhaul_tools::toolbox::Toolbox;

use crate::puppet::{By, says};
use crate::world::World;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

/// What the model was asked, call by call.
type Asked = Arc<Mutex<Vec<Vec<Arc<Item>>>>>;

fn world() -> (World, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let model = By(move |call: &ModelCall| {
        noted.lock().unwrap().push(call.request.items.clone());
        says("I see.")
    });
    (World::of(Arc::new(model), Toolbox::empty()), asked)
}

fn file(name: &str, bytes: &[u8]) -> GivenFile {
    GivenFile::new(name, bytes.to_vec()).unwrap()
}

fn whole(file: &GivenFile, bytes: &[u8]) -> Item {
    with_bytes(file.attachment(), bytes)
}

fn new(world: &World) -> NewSession {
    NewSession {
        configuration: world.configuration(),
        place: "here".to_owned(),
        ephemeral: false,
        mode: Mode::Default,
        name: None,
        labels: BTreeMap::new(),
        first: First::Nothing,
    }
}

/// Makes a session that begins with a file.
async fn begun(world: &World, file: &GivenFile) -> SessionId {
    let files = [file.clone()];
    world.engine.create_with_files(new(world), "look", &files, None).await.unwrap().unwrap().session
}

async fn send(world: &World, session: SessionId, text: &str, files: &[GivenFile]) {
    world.engine.send(session, text, files, false, None).await.unwrap().unwrap();
}

async fn is_kept(world: &World, file: &GivenFile) -> bool {
    world.engine.store().artifact(file.attachment().digest).await.unwrap().is_some()
}

fn owned(items: &[Arc<Item>]) -> Vec<Item> {
    items.iter().map(|item| (**item).clone()).collect()
}

fn user(text: &str) -> Item {
    Item::User { text: text.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_goal_that_is_set_with_files_is_worked_for_with_them() {
    let (world, asked) = world();
    let png = file("drawing.png", PNG);
    let goal = |objective: &str| First::Goal {
        id: GoalId(world.engine.host().fresh_id()),
        objective: objective.to_owned(),
        terms: Terms::default(),
    };
    let objective = "Build what is drawn.";
    let new = NewSession { first: goal(objective), ..new(&world) };
    let (files, request) = ([png.clone()], RequestId::new("once").unwrap());
    let make = || world.engine.create_with_files(new.clone(), objective, &files, Some(&request));
    let session = make().await.unwrap().unwrap().session;
    let again = make().await.unwrap().unwrap();
    assert_eq!((again.session, again.repeated), (session, true));
    assert_eq!(world.kinds(session).await, "created message goal");
    assert_eq!(world.run(session).await, Driven::Waiting);
    let first = owned(&asked.lock().unwrap()[0]);
    assert_eq!(first[..2], [user(objective), whole(&png, PNG)]);
    let Item::Steering { reason: SteeringReason::ObjectiveChanged, text } = &first[2] else {
        panic!("it is told of its goal: {first:?}")
    };
    assert!(text.contains(objective));
    world.sound(session).await;
    let mut without = NewSession { first: goal(objective), ..new.clone() };
    without.configuration.without_goals = true;
    let refused = world.engine.create_with_files(without, objective, &files, None).await.unwrap();
    assert!(matches!(refused.unwrap_err(), Refusal::Invalid(_)));
    let listed = world.engine.store().list(Filter::default(), Page { after: None, limit: 9 }).await.unwrap();
    assert_eq!(listed.len(), 1, "what is refused makes no session");
}

#[tokio::test(start_paused = true)]
async fn a_file_reaches_the_model_with_its_message_and_the_log_names_it() {
    let (world, asked) = world();
    let (png, text) = (file("a.jpg", PNG), file("b.md", b"# words"));
    assert_eq!((&*png.attachment().media_type, png.attachment().bytes), ("image/png", PNG.len() as u64));
    let session = begun(&world, &png).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    send(&world, session, "and this", &[text.clone(), png.clone()]).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let expected = [user("look"), whole(&png, PNG)];
    let items = |at: usize| owned(&asked.lock().unwrap()[at]);
    assert_eq!(items(0), expected);
    assert_eq!(items(1)[..2], expected);
    assert_eq!(items(1)[3..], [user("and this"), whole(&text, b"# words"), whole(&png, PNG)]);
    let named = [
        user("and this"),
        Item::Attachment(text.attachment().clone()),
        Item::Attachment(png.attachment().clone()),
    ];
    let said = world.items(session).await;
    assert!(said.windows(3).any(|items| items == named), "{said:?}");
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_is_the_same_item_in_each_request_of_a_runner() {
    let (world, asked) = world();
    let session = begun(&world, &file("a.png", PNG)).await;
    send(&world, session, "and?", &[]).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(Arc::ptr_eq(&asked[0][1], &asked[1][1]), "a wire must see that it has written it before");
}

#[tokio::test(start_paused = true)]
async fn a_redacted_file_is_gone_once_no_other_message_names_it() {
    let (world, asked) = world();
    let png = file("a.png", PNG);
    let session = begun(&world, &png).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    send(&world, session, "again", std::slice::from_ref(&png)).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let log = world.log(session).await;
    let naming = log.iter().filter(|entry| entry.items().iter().any(|item| item.artifact().is_some()));
    let naming: Vec<u64> = naming.map(|entry| entry.record.n).collect();
    assert_eq!(naming.len(), 2);
    world.command(session, Command::Redact { entry: naming[0] }).await;
    assert!(is_kept(&world, &png).await, "the second message names it");
    send(&world, session, "and now?", &[]).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let newest = asked.lock().unwrap().last().unwrap().clone();
    let seen = newest.iter().filter(|item| ***item == whole(&png, PNG)).count();
    assert_eq!((&*newest[0], seen), (&Item::Redacted, 1));
    world.command(session, Command::Redact { entry: naming[1] }).await;
    assert!(!is_kept(&world, &png).await);
    world.sound(session).await;
}

#[tokio::test(start_paused = true)]
async fn a_fork_shares_the_files_before_it_and_keeps_those_it_names_itself() {
    let (world, asked) = world();
    let (png, other) = (file("a.png", PNG), file("b.txt", b"words"));
    let session = begun(&world, &png).await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let message = world.log(session).await.iter().find(|entry| !entry.items().is_empty()).unwrap().record.n;
    let head = world.state(session).await.head;
    let sharing = world.engine.fork(session, head).await.unwrap().unwrap().session;
    let editing = world.engine.fork(session, head).await.unwrap().unwrap().session;
    send(&world, sharing, "and?", &[]).await;
    assert_eq!(world.run(sharing).await, Driven::Waiting);
    assert_eq!(*asked.lock().unwrap().last().unwrap()[1], whole(&png, PNG), "it is the original's");
    world.engine.edit(editing, None, "look again", None).await.unwrap().unwrap();
    world.command(session, Command::Redact { entry: message }).await;
    assert_eq!(world.run(editing).await, Driven::Waiting);
    let newest = owned(asked.lock().unwrap().last().unwrap());
    assert_eq!(
        newest,
        [Item::Redacted, user("look again"), whole(&png, PNG)],
        "an edit keeps the files, and the fork its own"
    );
    let files = [other.clone()];
    world.engine.edit_with_files(editing, None, "this", &files, None).await.unwrap().unwrap();
    assert_eq!(world.run(editing).await, Driven::Waiting);
    assert_eq!(owned(asked.lock().unwrap().last().unwrap())[1..], [user("this"), whole(&other, b"words")]);
    for session in [session, sharing, editing] {
        world.sound(session).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_with_files_is_made_once_also_where_the_first_try_was_cut_short() {
    let (world, _) = world();
    let request = RequestId::new("r").unwrap();
    let begun = world.engine.create(new(&world), Some(&request)).await.unwrap().unwrap();
    let files = [file("a.png", PNG)];
    for _ in 0..2 {
        let made = world.engine.create_with_files(new(&world), "look", &files, Some(&request));
        let made = made.await.unwrap().unwrap();
        assert_eq!((made.session, made.repeated, made.head), (begun.session, true, 2));
    }
    assert_eq!(world.kinds(begun.session).await, "created message");
    let again = || world.engine.send(begun.session, "again", &files, false, Some(&request));
    assert!(matches!(again().await.unwrap().unwrap(), Done::Before(1)), "the request has made the session");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_keeps_no_bytes() {
    let (world, _) = world();
    let session = world.session("go").await;
    assert_eq!(world.run(session).await, Driven::Waiting);
    let png = file("a.png", PNG);
    let many = vec![png.clone(); MAX_FILES + 1];
    let refused = Refusal::TooManyFiles { count: MAX_FILES + 1 };
    let engine = &world.engine;
    assert_eq!(engine.send(session, "look", &many, false, None).await.unwrap(), Err(refused.clone()));
    assert_eq!(
        engine.edit_with_files(session, None, "look", &many, None).await.unwrap(),
        Err(refused.clone())
    );
    let made = engine.create_with_files(new(&world), "look", &many, None).await.unwrap();
    assert_eq!(made, Err(refused));
    world.command(session, Command::Archive).await;
    let files = [png.clone()];
    assert!(matches!(
        engine.send(session, "look", &files, false, None).await.unwrap(),
        Err(Refusal::NotNow { .. })
    ));
    assert!(!is_kept(&world, &png).await);
}

#[test]
fn an_empty_file_and_one_that_is_too_large_are_unfit() {
    assert_eq!(GivenFile::new("a", Vec::new()), Err(UnfitFile::Empty));
    let bytes = MAX_ATTACHMENT_BYTES + 1;
    let large = vec![0; usize::try_from(bytes).unwrap()];
    assert_eq!(GivenFile::new("a", large.clone()), Err(UnfitFile::TooLarge));
    assert!(GivenFile::new("a", large[1..].to_vec()).is_ok());
}
