//! Agent skills: folders with a `SKILL.md` whose head says its name and what it is for. They are listed for
//! the model, which reads the rest when it needs it.
//!
//! The heads are YAML. Of it only what heads are written in is understood: keys at the start of a line, with
//! a plain, quoted or block value. What else stands there is passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::context_files::source;
use crate::limits::{MAX_SKILL_DESCRIPTION_CHARS, MAX_SKILL_FOLDERS, MAX_SKILL_NAME_CHARS, MAX_SKILLS};
use crate::workspace::Workspace;

/// Where a directory keeps its skills.
const FOLDER: &str = ".agents/skills";
/// The file that makes a folder a skill.
const FILE: &str = "SKILL.md";

/// A skill that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skill {
    /// Its folder, resolved.
    pub(crate) folder: PathBuf,
    file: PathBuf,
    name: String,
    description: String,
}

/// Finds the skills of a user and of these folders. Of two with the same name the later one counts, which is
/// the nearer one.
pub(crate) fn find(workspace: &Workspace, folders: &[PathBuf], users: Option<&Path>) -> Vec<Skill> {
    let mut skills = BTreeMap::new();
    let mut add = |folder: &Path, resolve: &dyn Fn(&Path) -> Option<PathBuf>| {
        for file in skill_files(folder) {
            if let Some(skill) = resolve(&file).and_then(|file| read(&file)) {
                skills.insert(skill.name.clone(), skill);
            }
        }
    };
    if let Some(users) = users {
        add(users, &of_the_users);
    }
    for folder in folders {
        add(&folder.join(FOLDER), &|file| workspace.told_by(file));
    }
    skills.into_values().take(MAX_SKILLS).collect()
}

/// Resolves a skill's file among the user's own. Where a link to a whole skill leads is the user's choice; one
/// to its file alone would make another folder readable.
fn of_the_users(file: &Path) -> Option<PathBuf> {
    let file = file.parent()?.canonicalize().ok()?.join(FILE);
    file.canonicalize().ok().filter(|resolved| *resolved == file)
}

/// Lists skills for the model; `None` when there are none.
pub(crate) fn list(skills: &[Skill]) -> Option<String> {
    let lines = skills.iter().map(|Skill { file, name, description, .. }| {
        format!("- {name}: {description}\n  {}", file.display())
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| {
        format!(
            "Skills are instructions for a kind of work. When one fits what you are asked, read its file with \
             `read` before you begin, and follow it; paths in it are relative to its folder.\n{}",
            lines.join("\n")
        )
    })
}

/// Returns what may be the files of the skills in a folder, in the order of their names.
fn skill_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().take(MAX_SKILL_FOLDERS);
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path().join(FILE))).collect();
    files.sort();
    files
}

fn read(file: &Path) -> Option<Skill> {
    let text = String::from_utf8(source(file)?).ok()?;
    let head = head(&text)?;
    let name = value(&head, "name").filter(|name| is_name(name))?;
    let description: String =
        value(&head, "description")?.chars().take(MAX_SKILL_DESCRIPTION_CHARS).collect();
    let folder = file.parent()?.to_owned();
    let fits = !description.is_empty() && file.to_str().is_some_and(|path| !path.contains(char::is_control));
    fits.then(|| Skill { folder, file: file.to_owned(), name, description })
}

fn is_name(name: &str) -> bool {
    (1..=MAX_SKILL_NAME_CHARS).contains(&name.chars().count()) && !name.contains(char::is_control)
}

/// Returns the lines between the first line `---` and the next.
fn head(text: &str) -> Option<Vec<&str>> {
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines();
    lines.next().filter(|line| line.trim_end() == "---")?;
    let head: Vec<&str> =
        lines.by_ref().map_while(|line| (line.trim_end() != "---").then_some(line)).collect();
    // Without an end it is no head.
    text.lines().skip(1).nth(head.len()).map(|_| head)
}

/// Returns the value of a key, in one line; `None` when it is not there or is no text.
fn value(head: &[&str], key: &str) -> Option<String> {
    let at = head
        .iter()
        .position(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':')))?;
    let (_, first) = head[at].split_once(':')?;
    let first = first.trim();
    let is_block = first.starts_with('>') || first.starts_with('|');
    let more =
        head[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t']) || line.trim().is_empty());
    let lines = std::iter::once(first).filter(|_| !is_block).chain(more.map(|line| line.trim()));
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let text = if is_block { text } else { scalar(&text)? };
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Reads a plain or quoted value.
fn scalar(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('\'') {
        return Some(rest[..rest.rfind('\'')?].replace("''", "'"));
    }
    if let Some(rest) = text.strip_prefix('"') {
        let mut letters = rest.chars();
        let mut read = String::new();
        loop {
            match letters.next()? {
                '"' => return Some(read),
                '\\' => match letters.next()? {
                    'n' | 't' | 'r' => read.push(' '),
                    letter => read.push(letter),
                },
                letter => read.push(letter),
            }
        }
    }
    let plain = text.find(" #").map_or(text, |at| &text[..at]).trim();
    (!plain.starts_with(['[', '{', '&', '*', '!', '#'])).then(|| plain.to_owned())
}
