//! Files that people give with their messages. The log names them; their bytes are kept once, as artifacts, and
//! are put back in their places when a request to a model is made.
//!
//! Bytes are kept before the message that names them: a crash between the two leaves bytes that go with the
//! session, never a message without its files. What each provider makes of a file is left to `longhaul-model`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use longhaul_model::files::with_bytes;
use longhaul_session::command::{Command, First, Refusal};
use longhaul_session::decide::decide;
use longhaul_session::id::{Digest, EntryNo, SessionId};
use longhaul_session::item::{Attachment, Item, Message};
use longhaul_session::media;
use longhaul_session::state::{MAX_FILES, SessionState};
use longhaul_store::RequestId;

use crate::Error;
use crate::engine::{Created, Done, Engine, NewSession, done, found, replace};
use crate::journal::{Journal, patiently};
use crate::limits::{MAX_ATTACHMENT_BYTES, MAX_REQUEST_FILE_BYTES};
use crate::runner::Runner;

/// The request id of the message a session begins with, where another request made the session itself.
const FIRST_MESSAGE: &str = "longhaul: the first message";

/// A file as a person gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenFile {
    attachment: Attachment,
    bytes: Vec<u8>,
}

/// Why a file cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitFile {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It has too many bytes.
    #[error("it has more than {MAX_ATTACHMENT_BYTES} bytes; give a part of it, or let the agent read it")]
    TooLarge,
}

impl GivenFile {
    /// Takes a file. What it is, is judged by its bytes.
    ///
    /// # Errors
    /// It is empty, or over [`MAX_ATTACHMENT_BYTES`].
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, UnfitFile> {
        let size = bytes.len() as u64;
        match size {
            0 => return Err(UnfitFile::Empty),
            1..=MAX_ATTACHMENT_BYTES => {}
            _ => return Err(UnfitFile::TooLarge),
        }
        let name = name.into();
        let media_type = media::media_type(&bytes, &name).to_owned();
        let attachment = Attachment { name, media_type, bytes: size, digest: Digest::of(&bytes) };
        Ok(GivenFile { attachment, bytes })
    }

    /// Returns what the log says of it.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

impl Engine {
    /// Makes a session that begins with a message and files, and with the goal that it was to begin with, if it
    /// was. A request id makes it safe to ask again, as for [`Engine::create`].
    ///
    /// # Errors
    /// The store failed.
    pub async fn create_with_files(
        &self,
        new: NewSession,
        text: &str,
        files: &[GivenFile],
        request: Option<&RequestId>,
    ) -> Result<Result<Created, Refusal>, Error> {
        let message = message(text, files);
        let said = match new.first.clone() {
            First::Goal { .. } if files.is_empty() => return self.create(new, request).await,
            First::Nothing | First::Message(_) if files.is_empty() => {
                return self.create(NewSession { first: First::Message(message), ..new }, request).await;
            }
            First::Goal { id, objective, terms } => {
                Command::SetGoal { id, objective, terms, message: Some(message) }
            }
            First::Nothing | First::Message(_) => Command::Send { message, interrupt: false },
        };
        // What is refused makes no session.
        let new = NewSession { first: First::Nothing, ..new };
        let empty = decide(&SessionState::default(), new.clone().command(), self.host.now());
        let begun = empty.and_then(|empty| decide(&empty.state, said.clone(), self.host.now()));
        if let Err(refusal) = begun {
            return Ok(Err(refusal));
        }
        let created = match self.create(new, request).await? {
            Ok(created) => created,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let first = RequestId::new(FIRST_MESSAGE).expect("it is short and printable");
        let sent = self.say(created.session, &said, files, Some(&first)).await?;
        let head = self.snapshot(created.session).await?.row.head;
        Ok(sent.map(|_| Created { head, ..created }))
    }

    /// Says something to the agent, with files; see [`Command::Send`].
    ///
    /// # Errors
    /// The store failed. What the rules forbid is the inner error, and nothing was changed.
    pub async fn send(
        &self,
        session: SessionId,
        text: &str,
        files: &[GivenFile],
        interrupt: bool,
        request: Option<&RequestId>,
    ) -> Result<Result<Done, Refusal>, Error> {
        let send = Command::Send { message: message(text, files), interrupt };
        self.say(session, &send, files, request).await
    }

    /// Does what names these files.
    async fn say(
        &self,
        session: SessionId,
        command: &Command,
        files: &[GivenFile],
        request: Option<&RequestId>,
    ) -> Result<Result<Done, Refusal>, Error> {
        let mut journal = self.journal(session).await?;
        // What is refused keeps no bytes.
        if !files.is_empty()
            && let Err(refusal) = decide(&journal.state, command.clone(), self.host.now())
            && !self.is_done(session, request).await?
        {
            return Ok(Err(refusal));
        }
        self.keep(session, files).await?;
        Ok(done(journal.command(|_| Ok(command.clone()), request).await?))
    }

    /// Replaces a message and its files; see [`Engine::edit`], which leaves the files as they are.
    ///
    /// # Errors
    /// The store failed. What the rules forbid is the inner error, and nothing was changed.
    pub async fn edit_with_files(
        &self,
        session: SessionId,
        entry: Option<EntryNo>,
        text: &str,
        files: &[GivenFile],
        request: Option<&RequestId>,
    ) -> Result<Result<Done, Refusal>, Error> {
        let message = message(text, files);
        if let Some(refusal) = too_many(files) {
            return Ok(Err(refusal));
        }
        self.keep(session, files).await?;
        let mut journal = self.journal(session).await?;
        replace(&mut journal, entry, |_, _| message.clone(), request).await
    }

    /// Lets a fork keep the files of a message that it has from its origin, before an entry of its own names them:
    /// the origin may redact them. Returns those that are gone already.
    pub(crate) async fn keep_inherited(
        &self,
        journal: &mut Journal,
        entry: Option<EntryNo>,
    ) -> Result<BTreeSet<Digest>, Error> {
        let (session, is_fork) = (journal.session, journal.is_fork());
        let context = journal.context().await?;
        let target = found(context, entry).filter(|_| is_fork);
        let files = target.map(|target| context.files(target)).unwrap_or_default();
        let mut gone = BTreeSet::new();
        for file in files {
            if let Some(bytes) = self.store.artifact(file.digest).await? {
                self.store.put_artifact(session, bytes).await?;
            } else {
                gone.insert(file.digest);
            }
        }
        Ok(gone)
    }

    async fn is_done(&self, session: SessionId, request: Option<&RequestId>) -> Result<bool, Error> {
        Ok(match request {
            Some(request) => self.store.request(session, request).await?.is_some(),
            None => false,
        })
    }

    async fn keep(&self, session: SessionId, files: &[GivenFile]) -> Result<(), Error> {
        for file in files {
            self.store.put_artifact(session, file.bytes.clone()).await?;
        }
        Ok(())
    }
}

fn message(text: &str, files: &[GivenFile]) -> Message {
    let files = files.iter().map(|file| file.attachment.clone()).collect();
    Message { text: text.to_owned(), files }
}

fn too_many(files: &[GivenFile]) -> Option<Refusal> {
    (files.len() > MAX_FILES).then_some(Refusal::TooManyFiles { count: files.len() })
}

impl Runner {
    /// Puts the bytes of files in their places. The newest come first: what there is no room for stays a name, as
    /// does what was redacted in the session that this one was forked from.
    ///
    /// The same file is the same item in each request, by which wires know what they have written before.
    pub(crate) async fn fill_in(&mut self, items: &mut [Arc<Item>]) -> Result<(), Error> {
        let mut before = std::mem::take(&mut self.filled);
        let limits = self.configuration().and_then(|configuration| configuration.model.images);
        let pictures = limits.and_then(|limits| limits.max_count).unwrap_or(u32::MAX);
        for at in shown(items, MAX_REQUEST_FILE_BYTES, pictures) {
            let Item::Attachment(file) = &*items[at] else { continue };
            let known = self.filled.get(file).cloned().or_else(|| before.remove(file));
            let whole = match known {
                Some(whole) => whole,
                None => match self.bytes_of(file).await? {
                    Some(bytes) => Arc::new(with_bytes(file, &bytes)),
                    None => continue,
                },
            };
            self.filled.insert(file.clone(), Arc::clone(&whole));
            items[at] = whole;
        }
        Ok(())
    }

    async fn bytes_of(&mut self, file: &Attachment) -> Result<Option<Vec<u8>>, Error> {
        let (store, patience) = (&self.engine.store, &self.journal.patience);
        Ok(patiently(&*self.engine.host, patience, || store.artifact(file.digest)).await?)
    }
}

/// Files with their bytes, as the newest request carried them.
pub(crate) type Filled = BTreeMap<Attachment, Arc<Item>>;

/// Returns the places of the newest files for whose bytes there is room, and of no more pictures than a model takes.
fn shown(items: &[Arc<Item>], room: u64, mut pictures: u32) -> Vec<usize> {
    let mut used = 0_u64;
    let file = |item: &Item| if let Item::Attachment(file) = item { Some(file.clone()) } else { None };
    let files = items.iter().enumerate().rev().filter_map(|(at, item)| Some((at, file(item)?)));
    let fits = |(_, file): &(usize, Attachment)| {
        used = used.saturating_add(file.bytes);
        let is_picture = file.media_type.starts_with("image/");
        let left = pictures.checked_sub(u32::from(is_picture));
        pictures = left.unwrap_or(0);
        used <= room && left.is_some()
    };
    files.take_while(fits).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use longhaul_session::id::Digest;
    use longhaul_session::item::{Attachment, Item};

    use super::shown;

    #[test]
    fn the_newest_files_are_shown_as_far_as_there_is_room() {
        let file = |bytes: u64| {
            let (name, media_type) = ("a".to_owned(), "image/png".to_owned());
            Arc::new(Item::Attachment(Attachment { name, media_type, bytes, digest: Digest::default() }))
        };
        let text = Arc::new(Item::User { text: "look".to_owned() });
        let items = [file(1), text, file(50), file(30), file(20)];
        assert_eq!(shown(&items, 100, 9), [4, 3, 2]);
        assert_eq!(shown(&items, 99, 9), [4, 3], "what is older than one without room is not shown either");
        assert_eq!(shown(&items, 0, 9), [0; 0]);
        assert_eq!(shown(&items, 100, 2), [4, 3], "of pictures only as many as the model takes");
    }
}
