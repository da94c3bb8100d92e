//! What goes over the wire, written to a file and served from it again: the form of that file, what is never
//! in it, and how a request is compared with the one that was recorded. Where bytes go otherwise is left to
//! [`crate::http`].
//!
//! The file holds a JSON object a line: first a [`Head`], then one exchange for each request, in the
//! order they were finished in. Bodies are texts; a body that is JSON stands there as JSON.

mod compare;
mod record;
mod replay;
mod scrub;

use std::collections::BTreeMap;

use longhaul_session::failure::FailureClass;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use record::Recorder;
pub(crate) use record::Taking;
pub(crate) use replay::Playing;
pub use replay::{ReadError, Recording, Replay, Unlike};

/// The form of the file, should it change.
const FORM: u32 = 1;

/// Where exchanges are written to, or read from.
#[derive(Clone, Debug)]
pub enum Tape {
    /// What goes over the wire is written down as well.
    Record(Recorder),
    /// Nothing goes over the wire.
    Replay(Replay),
}

/// The first line of a recording: what was run, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The form of the file.
    pub recording: u32,
    /// The program that wrote it, and its version.
    pub program: String,
    /// The arguments the program was given.
    pub command: Vec<String>,
    /// Directories whose place does not matter, by what stands for them in comparisons.
    pub directories: BTreeMap<String, String>,
}

impl Head {
    /// Makes the first line of a recording of this version.
    #[must_use]
    pub fn new(command: Vec<String>, directories: BTreeMap<String, String>) -> Self {
        let program = concat!("longhaul ", env!("CARGO_PKG_VERSION")).to_owned();
        Head { recording: FORM, program, command, directories }
    }
}

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    /// The number of the request, from 1.
    n: u64,
    request: Request,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    /// With the query.
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    /// The other side had no more to say.
    Complete,
    /// Nobody wanted to hear more: all that was needed had come, or the run was interrupted.
    Left,
    /// The connection failed, or took too long.
    Failed { class: FailureClass, message: String },
}
