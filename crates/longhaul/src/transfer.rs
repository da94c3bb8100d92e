//! `export` and `import`: a session as JSON lines. The first line is a header, then one entry a line with
//! its exact bytes as text, then the artifacts its results and messages name. Whether the log is sound is for the
//! engine to say; here only the file is checked to be whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use longhaul_engine::Imported;
use longhaul_session::id::{Digest, SessionId, Timestamp};
use longhaul_session::item::Item;
use longhaul_session::log::{SealedEntry, open};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::cli;
use crate::summary;

const FORMAT: &str = "longhaul-session/1";
/// Entries read at once.
const BATCH: u64 = 500;
/// The longest line that is read, in bytes: an entry with its content, or an artifact.
const MAX_LINE_BYTES: usize = 256 << 20;

/// One line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Exported {
    Session {
        format: String,
        session: SessionId,
        head: u64,
        head_hash: Digest,
        exported: Timestamp,
        /// Entries whose content was redacted in the session that this one was forked from.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        redacted: BTreeSet<u64>,
    },
    Entry {
        n: u64,
        kind: String,
        at: Timestamp,
        record: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
        hash: Digest,
    },
    /// An artifact; with neither text nor digits, one that the exporting store had lost.
    Artifact {
        digest: Digest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Bytes that are no UTF-8, as hexadecimal digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    },
}

/// Writes a session to a file or to standard output.
pub(crate) async fn export(app: &App, args: cli::Export) -> anyhow::Result<ExitCode> {
    let session = app.find(&args.session).await?;
    match &args.output {
        None => {
            let written = write(app, session, &mut std::io::stdout().lock()).await;
            written.context("the export could not be written to the end")?;
        }
        Some(path) => write_file(app, session, path).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a session to a new file; what could not be written to the end is not left behind.
async fn write_file(app: &App, session: SessionId, path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    let file = std::fs::File::create_new(path)
        .with_context(|| format!("{name} cannot be written; it must not exist yet"))?;
    let mut file = std::io::BufWriter::new(file);
    let mut written = write(app, session, &mut file).await;
    if written.is_ok() {
        written = file.get_ref().sync_all().map_err(Into::into);
    }
    if written.is_err() {
        // Where even this fails, the import still tells that the file was cut off.
        std::fs::remove_file(path).ok();
    }
    written.with_context(|| format!("{name} could not be written to the end, and was removed"))
}

async fn write(app: &App, session: SessionId, out: &mut impl Write) -> anyhow::Result<()> {
    let row = app.engine.snapshot(session).await?.row;
    let header = Exported::Session {
        format: FORMAT.to_owned(),
        session,
        head: row.head,
        head_hash: row.head_hash,
        exported: app.engine.host().now(),
        redacted: app.engine.redacted_in_origin(&row).await?,
    };
    line(out, &header)?;
    let (mut next, mut artifacts) = (1, BTreeSet::new());
    while next <= row.head {
        let entries = app.engine.store().entries(session, next..=row.head.min(next + BATCH - 1)).await?;
        for entry in entries {
            next = entry.n + 1;
            artifacts.extend(named(&entry)?);
            line(out, &exported(entry)?)?;
        }
    }
    for digest in artifacts {
        line(out, &artifact(digest, app.engine.store().artifact(digest).await?))?;
    }
    out.flush()?;
    Ok(())
}

/// Returns the artifacts that an entry names.
fn named(entry: &SealedEntry) -> Result<Vec<Digest>, longhaul_session::log::Error> {
    let entry = open(entry)?;
    Ok(entry.items().iter().filter_map(Item::artifact).collect())
}

fn line(out: &mut impl Write, value: &Exported) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn exported(entry: SealedEntry) -> anyhow::Result<Exported> {
    let SealedEntry { n, kind, at, record, content, hash } = entry;
    let record = String::from_utf8(record).with_context(|| format!("entry {n} is not text"))?;
    let content = content.map(String::from_utf8).transpose();
    let content = content.with_context(|| format!("the content of entry {n} is not text"))?;
    Ok(Exported::Entry { n, kind, at, record, content, hash })
}

fn artifact(digest: Digest, bytes: Option<Vec<u8>>) -> Exported {
    let (text, hex) = match bytes.map(String::from_utf8) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(error)) => (None, Some(error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect())),
    };
    Exported::Artifact { digest, text, hex }
}

/// Reads an export and makes a session of it, if its log is sound.
pub(crate) async fn import(app: &App, args: cli::Import) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let file = std::fs::File::open(&args.file).with_context(|| format!("{name} cannot be read"))?;
    let read = read(std::io::BufReader::new(file))
        .with_context(|| format!("nothing was imported: {name} is no whole export"))?;
    let (session, new) =
        match app.engine.import(read.session, read.entries, read.redacted, app.place()).await? {
            Imported::New(created) => (created.session, true),
            Imported::Known(session) => (session, false),
            Imported::Broken(problems) => {
                bail!("nothing was imported: the log in {name} is not sound:\n  {}", problems.join("\n  "))
            }
        };
    // Also where the log is known: the import that made it may have been cut short before this.
    keep(app, session, read.head, read.artifacts).await?;
    let mut out = anstream::stdout();
    let (id, entries) = (summary::short_id(session), summary::entries(read.head));
    if app.options.json {
        writeln!(out, "{}", serde_json::json!({ "session": session, "new": new, "entries": read.head }))?;
    } else if new {
        writeln!(out, "imported {entries} · session {id}")?;
    } else {
        writeln!(out, "nothing to do: this log is here already · session {id}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps the artifacts that the session's entries name: not those of what was redacted here.
async fn keep(
    app: &App,
    session: SessionId,
    head: u64,
    mut artifacts: BTreeMap<Digest, Vec<u8>>,
) -> anyhow::Result<()> {
    let (store, mut next) = (app.engine.store(), 1);
    while next <= head && !artifacts.is_empty() {
        let entries = store.entries(session, next..=head.min(next + BATCH - 1)).await?;
        next += BATCH;
        for entry in entries {
            for digest in named(&entry)? {
                if let Some(bytes) = artifacts.remove(&digest) {
                    store.put_artifact(session, bytes).await?;
                }
            }
        }
    }
    Ok(())
}

struct Read {
    session: SessionId,
    head: u64,
    entries: Vec<SealedEntry>,
    redacted: BTreeSet<u64>,
    artifacts: BTreeMap<Digest, Vec<u8>>,
}

/// What the first line of an export of any version says.
#[derive(Deserialize)]
struct Version {
    format: String,
}

fn read(mut file: impl std::io::BufRead) -> anyhow::Result<Read> {
    let mut bytes = Vec::new();
    let mut header = None;
    let (mut entries, mut artifacts, mut lost) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
    for number in 1_u64.. {
        bytes.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        if std::io::Read::take(&mut file, limit).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        if number == 1
            && let Ok(Version { format }) = serde_json::from_slice(&bytes)
            && format != FORMAT
        {
            bail!(
                "its format is {format:?}, and this program reads {FORMAT:?}; import it with the program that wrote it"
            );
        }
        let line = serde_json::from_slice(&bytes)
            .with_context(|| format!("line {number} is not a line of an export"))?;
        match (line, &header) {
            (Exported::Session { session, head, head_hash, redacted, .. }, None) => {
                header = Some((session, head, head_hash, redacted));
            }
            (Exported::Entry { n, kind, at, record, content, hash }, Some(_)) => {
                let (record, content) = (record.into_bytes(), content.map(String::into_bytes));
                entries.push(SealedEntry { n, kind, at, record, content, hash });
            }
            (Exported::Artifact { digest, text: None, hex: None }, Some(_)) => {
                lost.insert(digest);
            }
            (Exported::Artifact { digest, text, hex }, Some(_)) => {
                let bytes = text.map(String::into_bytes).or_else(|| hex.as_deref().and_then(unhex));
                let bytes = bytes.filter(|bytes| Digest::of(bytes) == digest);
                let bytes = bytes.with_context(|| format!("line {number}: the artifact is damaged"))?;
                artifacts.insert(digest, bytes);
            }
            (Exported::Session { .. }, Some(_)) => bail!("line {number} is a second header"),
            (Exported::Entry { .. } | Exported::Artifact { .. }, None) => {
                bail!("it does not begin with a header")
            }
        }
    }
    let (session, head, head_hash, redacted) = header.context("it is empty")?;
    let last = entries.last().map(|entry| (entry.n, entry.hash));
    if last != Some((head, head_hash)) {
        bail!(
            "its header names {} and another end than it has: it was cut off or changed",
            summary::entries(head)
        );
    }
    for entry in &entries {
        // An entry that cannot be read is for the engine to tell of, with all else that is wrong.
        let mut named = named(entry).unwrap_or_default().into_iter();
        if let Some(digest) = named.find(|it| !artifacts.contains_key(it) && !lost.contains(it)) {
            bail!(
                "entry {} names the artifact {digest}, which is not in it: it was cut off or changed",
                entry.n
            );
        }
    }
    Ok(Read { session, head, entries, redacted, artifacts })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
