//! `export` and `import`: a session as JSON lines. The first line is a header, then one entry a line with
//! its exact bytes as text, then the artifacts its results name.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write};
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
        None => write(app, session, &mut std::io::stdout().lock()).await?,
        Some(path) => {
            let name = path.display();
            let mut file = std::fs::File::create_new(path)
                .with_context(|| format!("{name} cannot be written; it must not exist yet"))?;
            write(app, session, &mut file).await?;
            file.sync_all().with_context(|| format!("{name} could not be written to the end"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(app: &App, session: SessionId, out: &mut impl Write) -> anyhow::Result<()> {
    let row = app.engine.snapshot(session).await?.row;
    let header = Exported::Session {
        format: FORMAT.to_owned(),
        session,
        head: row.head,
        head_hash: row.head_hash,
        exported: app.engine.host().now(),
    };
    line(out, &header)?;
    let (mut next, mut artifacts) = (1, BTreeSet::new());
    while next <= row.head {
        let entries = app.engine.store().entries(session, next..=row.head.min(next + BATCH - 1)).await?;
        for entry in entries {
            next = entry.n + 1;
            let opened = open(&entry)?;
            let results = opened.items().iter().filter_map(Item::tool_result);
            artifacts.extend(results.filter_map(|result| result.artifact));
            line(out, &exported(entry)?)?;
        }
    }
    for digest in artifacts {
        if let Some(bytes) = app.engine.store().artifact(digest).await? {
            line(out, &artifact(digest, bytes))?;
        }
    }
    out.flush()?;
    Ok(())
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

fn artifact(digest: Digest, bytes: Vec<u8>) -> Exported {
    match String::from_utf8(bytes) {
        Ok(text) => Exported::Artifact { digest, text: Some(text), hex: None },
        Err(error) => {
            let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            Exported::Artifact { digest, text: None, hex: Some(hex) }
        }
    }
}

/// Reads an export and makes a session of it, if its log is sound.
pub(crate) async fn import(app: &App, args: cli::Import) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let file = std::fs::File::open(&args.file).with_context(|| format!("{name} cannot be read"))?;
    let read = read(std::io::BufReader::new(file)).with_context(|| format!("{name} is no whole export"))?;
    let mut out = anstream::stdout();
    match app.engine.import(read.session, read.entries, app.place()).await? {
        Imported::New(created) => {
            for bytes in read.artifacts {
                app.engine.store().put_artifact(created.session, bytes).await?;
            }
            let entries = summary::entries(read.head);
            writeln!(out, "imported {entries} · session {}", summary::short_id(created.session))?;
            Ok(ExitCode::SUCCESS)
        }
        Imported::Known(session) => {
            writeln!(
                out,
                "nothing to do: this log is here already · session {}",
                summary::short_id(session)
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Imported::Broken(problems) => {
            bail!("nothing was imported: the log in {name} is not sound:\n  {}", problems.join("\n  "))
        }
    }
}

struct Read {
    session: SessionId,
    head: u64,
    entries: Vec<SealedEntry>,
    artifacts: Vec<Vec<u8>>,
}

fn read(mut file: impl std::io::BufRead) -> anyhow::Result<Read> {
    let mut bytes = Vec::new();
    let mut header = None;
    let (mut entries, mut artifacts) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        bytes.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        if std::io::Read::take(&mut file, limit).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let line = serde_json::from_slice(&bytes)
            .with_context(|| format!("line {number} is not a line of an export"))?;
        match (line, &header) {
            (Exported::Session { format, session, head, head_hash, .. }, None) => {
                if format != FORMAT {
                    bail!("its format is {format:?}, and this program reads {FORMAT:?}");
                }
                header = Some((session, head, head_hash));
            }
            (Exported::Entry { n, kind, at, record, content, hash }, Some(_)) => {
                let (record, content) = (record.into_bytes(), content.map(String::into_bytes));
                entries.push(SealedEntry { n, kind, at, record, content, hash });
            }
            (Exported::Artifact { digest, text, hex }, Some(_)) => {
                let bytes = text.map(String::into_bytes).or_else(|| hex.as_deref().and_then(unhex));
                let bytes = bytes.filter(|bytes| Digest::of(bytes) == digest);
                artifacts.push(bytes.with_context(|| format!("line {number}: the artifact is damaged"))?);
            }
            (Exported::Session { .. }, Some(_)) => bail!("line {number} is a second header"),
            (Exported::Entry { .. } | Exported::Artifact { .. }, None) => {
                bail!("it does not begin with a header")
            }
        }
    }
    let (session, head, head_hash) = header.context("it is empty")?;
    let last = entries.last().map(|entry| (entry.n, entry.hash));
    if last != Some((head, head_hash)) {
        bail!(
            "its header names {} and another end than it has: it was cut off or changed",
            summary::entries(head)
        );
    }
    Ok(Read { session, head, entries, artifacts })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
