//! The manifest of an agent, `longhaul.toml`: found, read, and resolved to the configuration a session
//! is started with. All faults that can be found are told at once, each with its place. Reading a key
//! where the manifest says it is, is left to [`crate::keys`].

pub(crate) mod check;
mod error;
mod form;
mod kept;
mod offer;
mod prompts;
mod reader;
mod resolve;
mod source;
mod value;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use longhaul_session::agent::Configuration;
use longhaul_tools::toolbox::Toolbox;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use toml::de::DeTable;

pub(crate) use error::Error;
pub(crate) use kept::{Kept, kept};

use crate::environment;
use error::{Fault, Hidden};
use form::Manifest;
use source::Source;

/// The name of a manifest.
const FILE: &str = "longhaul.toml";
/// The largest manifest, in bytes, and the largest file it may name for its text.
const MAX_BYTES: u64 = 1024 * 1024;
/// Syntax errors that are told at once, one a line: one often leads to others that are none.
const MAX_SYNTAX_FAULTS: usize = 3;

/// Reads a manifest and resolves it. Nothing is asked of the model's provider.
///
/// # Errors
/// The file cannot be read, or something in it cannot be used. All that can be found is told at once.
pub(crate) fn load(path: &Path, tools: &Toolbox) -> Result<Configuration, Error> {
    Document::read(path)?.resolved(|source, folder, faults| {
        let manifest = reader::read::<Manifest>(source.root(), faults)?;
        resolve::resolve(manifest, source, folder, tools, faults)
    })
}

/// The text of a manifest and where it stands.
struct Document<'p> {
    path: &'p Path,
    text: String,
    folder: PathBuf,
    /// The one key that is looked at, if not all are.
    only: Option<&'static str>,
}

impl<'p> Document<'p> {
    fn read(path: &'p Path) -> Result<Self, Error> {
        Ok(Document { path, text: text(path)?, folder: folder(path)?, only: None })
    }

    /// Leaves all but one key unread.
    fn only(self, key: &'static str) -> Self {
        Document { only: Some(key), ..self }
    }

    /// Parses the text, and makes of it what is wanted, if that has no faults.
    fn resolved<T>(
        self,
        resolve: impl FnOnce(&Source<'_>, PathBuf, &mut Vec<Fault>) -> Option<T>,
    ) -> Result<T, Error> {
        let Document { path, text, folder, only } = self;
        let (root, mut syntax) = DeTable::parse_recoverable(&text);
        let mut source = Source::new(root);
        let hidden = Hidden { spans: source.hidden(), parsed: syntax.is_empty() };
        let fail = |faults| Error::new(path, &text, faults, &hidden);
        if !syntax.is_empty() {
            let line =
                |error: &toml::de::Error| error.span().map(|span| text[..span.start].matches('\n').count());
            syntax.sort_by_key(|error| error.span().map(|span| span.start));
            syntax.dedup_by_key(|error| line(error));
            return Err(fail(syntax.into_iter().take(MAX_SYNTAX_FAULTS).map(Fault::from).collect()));
        }
        let mut faults = match only {
            Some(key) => {
                source.keep_only(key);
                Vec::new()
            }
            None => source.refuse(),
        };
        let resolved = resolve(&source, folder, &mut faults);
        resolved.filter(|_| faults.is_empty()).ok_or_else(|| fail(faults))
    }
}

/// Finds the manifest for work in a directory: there, else the nearest one up the tree, else the
/// user's own.
///
/// One that belongs to neither the user, nor root, nor the owner of the directory is passed over: in
/// a directory that all may write in, anyone could say what an agent of ours may do.
pub(crate) fn find(from: &Path) -> Option<PathBuf> {
    let from = from.canonicalize().ok()?;
    let trusted = [Some(rustix::process::getuid().as_raw()), Some(0), owner(&from)];
    let near = from.ancestors().map(|folder| folder.join(FILE));
    let near = near.filter(|file| file.is_file()).find(|file| trusted.contains(&owner(file)));
    near.or_else(|| users_folder().map(|folder| folder.join(FILE)).filter(|file| file.is_file()))
}

/// Returns the JSON schema of manifests, of the 2020-12 draft.
pub(crate) fn schema() -> Value {
    let mut schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Manifest>().to_value();
    without_null(&mut schema);
    schema
}

/// Returns the folder of the user's own manifest.
fn users_folder() -> Option<PathBuf> {
    Some(environment::configuration_home()?.join("longhaul"))
}

fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata().ok().map(|metadata| metadata.uid())
}

/// Takes null out of a schema: an optional key may be left out, but TOML has no null.
fn without_null(schema: &mut Value) {
    if let Value::Array(values) = schema {
        values.iter_mut().for_each(without_null);
    }
    let Value::Object(fields) = schema else { return };
    fields.retain(|key, value| key != "default" || !value.is_null());
    fields.values_mut().for_each(without_null);
    for key in ["type", "anyOf", "enum"] {
        let Some(Value::Array(options)) = fields.get_mut(key) else { continue };
        options.retain(|option| !option.is_null() && option != "null" && option["type"] != "null");
        if options.len() > 1 || key == "enum" {
            continue;
        }
        let only = options.pop().unwrap_or_default();
        fields.remove(key);
        if let Value::Object(only) = only {
            for (key, value) in only {
                fields.entry(key).or_insert(value);
            }
        } else {
            fields.insert(key.to_owned(), only);
        }
    }
}

/// Returns the folder a manifest stands in, canonical. That of a link is where the link is: that is the
/// place it was put for.
fn folder(path: &Path) -> Result<PathBuf, Error> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).canonicalize().map_err(|error| {
        Error::whole(
            path,
            format!("its folder cannot be used: {error}"),
            "check the path and its permissions",
        )
    })
}

/// Reads the text of a manifest.
fn text(path: &Path) -> Result<String, Error> {
    let bytes = bytes(path).map_err(|(what, hint)| Error::whole(path, what, hint))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let what = "this is not UTF-8, which a manifest is written in".to_owned();
        let hint = "save the file as UTF-8".to_owned();
        Error::new(path, &text, vec![Fault { span: valid..valid + 1, what, hint }], &Hidden::default())
    })
}

/// Reads a file that belongs to a manifest, or says what is wrong and what to do.
fn bytes(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    let check = "check the path and its permissions";
    let broken = |error: std::io::Error| (format!("the file cannot be read: {error}"), check);
    let metadata = path.metadata().map_err(broken)?;
    if !metadata.is_file() {
        return Err(("this is not a file".to_owned(), "name a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(broken)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(("the file is larger than 1 MiB".to_owned(), "make it shorter"));
    }
    Ok(bytes)
}

impl From<toml::de::Error> for Fault {
    fn from(error: toml::de::Error) -> Self {
        Fault {
            span: error.span().unwrap_or_default(),
            what: format!("this is not TOML: {}", error.message()),
            hint: "correct it; https://toml.io describes how TOML is written".to_owned(),
        }
    }
}
