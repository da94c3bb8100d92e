//! Files given with a message on the command line: read, and held against what the session's model takes. Keeping
//! them is left to the engine.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use longhaul_engine::{GivenFile, MAX_ATTACHMENT_BYTES, Snapshot};
use longhaul_model::{anthropic, gemini, openai_chat, openai_responses};
use longhaul_session::agent::ModelChoice;
use longhaul_session::entry::Content;
use longhaul_session::item::Attachment;
use rustix::fs::{Mode, OFlags};

use crate::app::App;
use crate::providers::{Provider, Wire};
use crate::summary;

/// Reads files for a session that is there.
pub(crate) async fn read_for(
    app: &App,
    snapshot: &Snapshot,
    paths: &[PathBuf],
) -> anyhow::Result<Vec<GivenFile>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let n = snapshot.state.configured_at;
    let entries = app.engine.entries(snapshot.row.session, n..=n).await?;
    let content = entries.first().and_then(|entry| entry.content.as_ref()).map(|payload| &payload.content);
    let Some(Content::Configuration { configuration }) = content else {
        bail!("the configuration of the session was redacted, so nobody knows which files its model takes");
    };
    read(paths, &configuration.model)
}

/// Reads files that are to be given to a model.
pub(crate) fn read(paths: &[PathBuf], model: &ModelChoice) -> anyhow::Result<Vec<GivenFile>> {
    let read_one = |path: &PathBuf| {
        let cannot = || format!("{} cannot be attached", path.display());
        let file = read_one(path).with_context(cannot)?;
        refused(model, file.attachment()).map_or(Ok(file), |why| Err(anyhow::anyhow!(why).context(cannot())))
    };
    let files = paths.iter().map(read_one).collect::<anyhow::Result<Vec<GivenFile>>>()?;
    let pictures = files.iter().filter(|file| is_picture(file.attachment())).count();
    if let Some(most) = model.images.and_then(|images| images.max_count)
        && pictures as u64 > u64::from(most)
    {
        bail!("{pictures} pictures are attached, and {} takes {most} in a request; give fewer", model.name);
    }
    Ok(files)
}

fn is_picture(file: &Attachment) -> bool {
    file.media_type.starts_with("image/")
}

fn read_one(path: &Path) -> anyhow::Result<GivenFile> {
    if path.to_str().is_some_and(|text| text.contains("://")) && !path.exists() {
        bail!("it is an address, and --attach takes files of this machine; download it first");
    }
    // A pipe without a writer would block the opening.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from)?);
    let kind = file.metadata()?;
    if kind.is_dir() {
        bail!("it is a directory; attach its files one by one, or let the agent read them");
    }
    if !kind.is_file() {
        bail!("it is a device, a pipe or a socket; --attach takes files");
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(MAX_ATTACHMENT_BYTES + 1).read_to_end(&mut bytes)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(GivenFile::new(name, bytes)?)
}

/// Says why a model cannot be given a file, if it cannot.
fn refused(model: &ModelChoice, file: &Attachment) -> Option<String> {
    let wire = Provider::named(&model.provider)?.wire();
    let (takes, kinds): (fn(&str) -> bool, _) = match wire {
        Wire::Chat => (openai_chat::takes, "PNG, JPEG, GIF and WebP pictures, PDFs, texts, WAV and MP3"),
        Wire::Responses => {
            (openai_responses::takes, "PNG, JPEG, GIF and WebP pictures, PDFs, office documents and texts")
        }
        Wire::Anthropic => (anthropic::takes, "PNG, JPEG, GIF and WebP pictures, PDFs and texts"),
        Wire::Gemini => (gemini::takes, "PNG, JPEG, WebP and HEIC pictures, PDFs, texts, sounds and films"),
        Wire::Scripted => return None,
    };
    let Attachment { media_type, bytes, .. } = file;
    if !takes(media_type) {
        return Some(format!("it is {media_type}, and {} takes {kinds}", model.provider));
    }
    let usual = (wire == Wire::Anthropic).then_some(anthropic::MAX_IMAGE_BYTES);
    let most = model.images.and_then(|images| images.max_bytes).or(usual)?;
    (is_picture(file) && *bytes > most).then(|| {
        let (size, most) = (summary::bytes(*bytes), summary::bytes(most));
        format!("it has {size}, and {} takes pictures of at most {most}; make it smaller", model.provider)
    })
}
