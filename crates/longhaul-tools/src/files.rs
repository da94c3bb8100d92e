//! Opens, reads and replaces single files by their resolved paths. Which paths is not asked here.
//!
//! A resolved path holds no link. It is opened name by name from the root, following none, so that
//! a link put in its place after it was checked is refused and not followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicU64, Ordering};

use longhaul_session::id::Digest;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fstat, fsync, mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::limits::MAX_FILE_BYTES;

/// A file, read.
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) mode: Mode,
}

/// Why a file could not be read or replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{0} does not exist. Check the path; `glob` finds files by name.")]
    Missing(String),
    #[error("{0} is a directory, not a file. `glob` lists what is in it.")]
    Directory(String),
    #[error("{0} is not a regular file (a device, pipe or socket), which this tool does not touch.")]
    Special(String),
    #[error(
        "{path} has {bytes} bytes; this tool takes files of at most {MAX_FILE_BYTES}. Use `grep`, or a \
         command on a part of it."
    )]
    TooLarge { path: String, bytes: u64 },
    #[error("{path} cannot be used: {source}.")]
    Io { path: String, source: io::Error },
}

impl FileError {
    fn of(path: &Path, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.display().to_string(), source.into());
        if source.kind() == io::ErrorKind::NotFound {
            FileError::Missing(path)
        } else if source.kind() == io::ErrorKind::IsADirectory {
            FileError::Directory(path)
        } else {
            FileError::Io { path, source }
        }
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Content, FileError> {
    let failed = |error| FileError::of(path, error);
    let file = open(path)?;
    let stat = fstat(&file).map_err(|error| FileError::of(path, error))?;
    let too_large = |bytes| FileError::TooLarge { path: path.display().to_string(), bytes };
    let bytes_now = u64::try_from(stat.st_size).unwrap_or(0);
    if bytes_now > MAX_FILE_BYTES as u64 {
        return Err(too_large(bytes_now));
    }
    let mut bytes = Vec::with_capacity(bytes_now as usize);
    // It may grow while it is read.
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(Content { digest: Digest::of(&bytes), bytes, mode: Mode::from_raw_mode(stat.st_mode) })
}

/// Opens a regular file for reading.
pub(crate) fn open(path: &Path) -> Result<File, FileError> {
    let failed = |error: Errno| FileError::of(path, error);
    let Some(name) = path.file_name() else {
        return Err(FileError::Directory(path.display().to_string()));
    };
    let parent = open_parent(path, false).map_err(failed)?;
    // A pipe without a writer would block the opening.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(parent, name, flags, Mode::empty()).map_err(failed)?;
    let kind = FileType::from_raw_mode(fstat(&file).map_err(failed)?.st_mode);
    if kind.is_file() {
        Ok(File::from(file))
    } else if kind.is_dir() {
        Err(FileError::Directory(path.display().to_string()))
    } else {
        Err(FileError::Special(path.display().to_string()))
    }
}

/// Replaces a file, or creates it and its directories, so that a reader finds the old content or the
/// new one, and a crash leaves one of them. `mode` is that of the file replaced.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: Option<Mode>) -> Result<(), FileError> {
    let Some(name) = path.file_name() else {
        return Err(FileError::Directory(path.display().to_string()));
    };
    replace_in(path, name, bytes, mode).map_err(|error| FileError::of(path, error))
}

fn replace_in(path: &Path, name: &OsStr, bytes: &[u8], mode: Option<Mode>) -> io::Result<()> {
    let parent = open_parent(path, true)?;
    let (mut file, draft) = create_draft(&parent, mode)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| mode.map_or(Ok(()), |mode| Ok(fchmod(&file, mode)?)))
        .and_then(|()| file.sync_all())
        .and_then(|()| Ok(renameat(&parent, &draft, &parent, name)?));
    if let Err(error) = written {
        // What failed first is what the reader needs to know.
        let _ = unlinkat(&parent, &draft, AtFlags::empty());
        return Err(error);
    }
    Ok(sync_directory(&parent)?)
}

/// Makes the names in a directory outlast a crash of the machine. One that may be written but not
/// read cannot be synced: what was done in it is done all the same.
fn sync_directory(directory: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(directory, ".", flags, Mode::empty()) {
        Ok(directory) => fsync(directory),
        Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates the file that is to be renamed. Its name is free of other processes and other calls; one
/// that a dead process of the same id left behind is passed over.
fn create_draft(parent: &OwnedFd, mode: Option<Mode>) -> io::Result<(File, String)> {
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    const TRIES: usize = 100;
    // The content of a private file is private from its first byte on.
    let mode = mode.map_or(Mode::from_raw_mode(0o666), |_| Mode::RUSR | Mode::WUSR);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        let draft =
            format!(".longhaul-{}-{}.tmp", std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed));
        match openat(parent, &draft, flags, mode) {
            Ok(file) => return Ok((File::from(file), draft)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("its directory is full of files named .longhaul-*.tmp; remove them"))
}

/// Opens the directory a resolved path is in, and makes the missing ones on the way if told to.
fn open_parent(path: &Path, create: bool) -> Result<OwnedFd, Errno> {
    // Passing through a directory takes no right to read it.
    #[cfg(target_os = "linux")]
    let pass = OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    let pass = OFlags::RDONLY;
    let flags = pass | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open("/", flags, Mode::empty())?;
    for component in path.parent().unwrap_or(path).components() {
        let Component::Normal(name) = component else { continue };
        directory = match openat(&directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) if create => {
                match mkdirat(&directory, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) => sync_directory(&directory)?,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                openat(&directory, name, flags, Mode::empty())?
            }
            opened => opened?,
        };
    }
    Ok(directory)
}
