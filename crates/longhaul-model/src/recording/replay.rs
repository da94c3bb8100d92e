//! Serves recorded answers in the order of their requests, as long as each request is the recorded one.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longhaul_session::failure::FailureClass;
use reqwest::Url;

use super::compare::{Places, difference};
use super::record::noted;
use super::scrub::Scrubber;
use super::{End, Exchange, FORM, Head};
use crate::Error;
use crate::codec::{HttpRequest, ResponseHead};

/// A recording that was read.
#[derive(Debug)]
pub struct Recording {
    head: Head,
    exchanges: Vec<Exchange>,
}

/// A recording that is served. Clones serve the same one.
#[derive(Clone, Debug)]
pub struct Replay(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The places of the recording and those of this run.
    places: (Places, Places),
    total: u64,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    exchanges: VecDeque<Exchange>,
    scrubber: Scrubber,
    unlike: Option<Unlike>,
}

/// Why a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the recording {path} cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A line is not what stands in a recording.
    #[error(
        "line {line} of {path} does not belong in a recording: {why}. `longhaul record` makes recordings"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// How a run was not the recorded one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlike {
    /// A request was another.
    #[error(
        "request {n} of {total} is not the one that was recorded: the prompt, the configuration, or something a \
         tool read has changed. Change it back, or make a new recording\n{difference}"
    )]
    Request {
        /// Which request, from 1.
        n: u64,
        /// How many were recorded.
        total: u64,
        /// What differs, as lines of a unified diff.
        difference: String,
    },
    /// The run asked for more than was recorded.
    #[error(
        "the run makes more requests than the {total} that were recorded: it goes on where the recorded one had \
         ended. Let it do what was recorded, or make a new recording"
    )]
    More {
        /// How many were recorded.
        total: u64,
    },
    /// The run asked for less than was recorded.
    #[error(
        "the run made {made} of the {total} requests that were recorded: it ended earlier. Let it do what was \
         recorded, or make a new recording"
    )]
    Fewer {
        /// How many were made.
        made: u64,
        /// How many were recorded.
        total: u64,
    },
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// The file cannot be read, or is no recording.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let broken = |source| ReadError::Io { path: path.to_owned(), source };
        let wrong = |line: usize, why: String| ReadError::Line { path: path.to_owned(), line, why };
        let mut lines = BufReader::new(File::open(path).map_err(broken)?).lines().enumerate();
        let (_, first) = lines.next().ok_or_else(|| wrong(1, "the file is empty".to_owned()))?;
        let head: Head =
            serde_json::from_str(&first.map_err(broken)?).map_err(|error| wrong(1, error.to_string()))?;
        if head.recording != FORM {
            let why = format!("its form is {}, and this program reads form {FORM}", head.recording);
            return Err(wrong(1, why));
        }
        let mut exchanges = Vec::new();
        for (at, line) in lines {
            let parsed = serde_json::from_str::<Exchange>(&line.map_err(broken)?);
            exchanges.push(parsed.map_err(|error| wrong(at + 1, error.to_string()))?);
        }
        exchanges.sort_by_key(|exchange| exchange.n);
        Ok(Recording { head, exchanges })
    }

    /// Returns what was run, and where.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Serves the recording to a run in these directories, by the names they have in its head.
    #[must_use]
    pub fn replay(self, directories: &BTreeMap<String, String>) -> Replay {
        let Recording { head, exchanges } = self;
        let places = (Places::new(&head.directories), Places::new(directories));
        let total = exchanges.len() as u64;
        let left = Left { exchanges: exchanges.into(), scrubber: Scrubber::default(), unlike: None };
        Replay(Arc::new(Shared { places, total, left: Mutex::new(left) }))
    }
}

impl Replay {
    /// Ends the replay. Returns how many requests there were.
    ///
    /// # Errors
    /// The run was not the recorded one; the first difference counts.
    pub fn finish(&self) -> Result<u64, Unlike> {
        let mut left = self.lock();
        let (total, rest) = (self.0.total, left.exchanges.len() as u64);
        match left.unlike.take() {
            Some(unlike) => Err(unlike),
            None if rest > 0 => Err(Unlike::Fewer { made: total - rest, total }),
            None => Ok(total),
        }
    }

    /// Takes the answer to a request.
    ///
    /// # Errors
    /// It is not the request that was recorded.
    pub(crate) fn begin(&self, request: &HttpRequest, url: &Url) -> Result<Playing, Error> {
        let mut left = self.lock();
        let asked = noted(&mut left.scrubber, request, url);
        let total = self.0.total;
        if left.unlike.is_none() {
            left.unlike = match left.exchanges.front() {
                None => Some(Unlike::More { total }),
                Some(recorded) => difference(&recorded.request, &asked, &self.0.places)
                    .map(|difference| Unlike::Request { n: recorded.n, total, difference }),
            };
        }
        let fits = left.unlike.is_none();
        left.exchanges.pop_front_if(|_| fits).map(Playing::new).ok_or_else(|| {
            let message = "this is not the run that was recorded; the end of the replay says how they differ";
            Error::new(FailureClass::Preparation, message)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recorded answer while it is served.
#[derive(Debug)]
pub(crate) struct Playing {
    exchange: Exchange,
    /// How much of the body was served, in bytes.
    served: usize,
}

impl Playing {
    fn new(exchange: Exchange) -> Self {
        Playing { exchange, served: 0 }
    }

    /// Returns how the answer begins, or why none came.
    pub(crate) fn head(&self) -> Result<ResponseHead, Error> {
        match &self.exchange.response {
            Some(response) => Ok(ResponseHead { status: response.status, headers: response.headers.clone() }),
            None => Err(self.broken()),
        }
    }

    /// Returns the next bytes, an event at a time; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        let body = self.exchange.response.as_ref().map(|response| response.body.as_str()).unwrap_or_default();
        let rest = &body[self.served..];
        if rest.is_empty() {
            return if self.exchange.end == End::Complete { Ok(None) } else { Err(self.broken()) };
        }
        let length = rest.find("\n\n").map_or(rest.len(), |at| at + 2);
        self.served += length;
        Ok(Some(&rest.as_bytes()[..length]))
    }

    fn broken(&self) -> Error {
        match &self.exchange.end {
            End::Failed { class, message } => Error::new(*class, message.clone()),
            End::Complete | End::Left => {
                let message =
                    "the recorded run was interrupted here, so nothing more is known of this answer";
                Error::new(FailureClass::Preparation, message)
            }
        }
    }
}
