//! The journal: a small file for each run in flight, so that after a crash of the worker its successor can tell
//! Lightning at once.
//!
//! Off unless a folder is given. A file holds the run's token, the only secret that the worker ever writes to disk: it
//! is readable by the worker's user alone and lives as long as the run. Whoever holds a file's lock owns it; the kernel
//! takes the lock away from a process that dies, so a file that can be locked is a dead worker's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::clock::unix_seconds;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::phoenix::Endpoint;
use super::run::ClaimedRun;

/// The version of the files' format.
const FORMAT: u32 = 1;

/// Longest file that is read. Tokens are a few hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// A file that is still being written after this long never will be.
const STALE: Duration = Duration::from_secs(60);

/// A folder with a file for each run in flight.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    lightning: String,
    since: u64,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the journal's folder {} cannot be used (--journal-dir, WORKER_JOURNAL_DIR): {what}: {source}", folder.display())]
pub struct JournalError {
    folder: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// What a file says.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    /// The endpoint that the token is for.
    lightning: String,
    run: String,
    token: String,
    /// When the token is of no use any more, in seconds since the epoch.
    expires: Option<u64>,
    worker: Writer,
}

/// Who wrote it, for people who look.
#[derive(Debug, Serialize, Deserialize)]
struct Writer {
    pid: u32,
    /// Seconds since the epoch.
    since: u64,
}

/// A run's file, which is this process's while this value lives. Dropping it leaves it for the successor.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

/// A run that a dead worker left behind.
pub(super) struct Orphan {
    pub(super) run: ClaimedRun,
    /// How long the token is good for still, where that is known.
    pub(super) left: Option<Duration>,
    /// Process id of the worker that died.
    pub(super) pid: u32,
    pub(super) entry: Entry,
}

impl Journal {
    /// Makes sure that the folder is there, for this user alone, and that files in it can be written and locked.
    pub fn open(folder: &Path, lightning: &Endpoint) -> Result<Self, JournalError> {
        let failed = |what| move |source| JournalError { folder: folder.to_owned(), what, source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("it cannot be made"))?;
        let it = Self { folder: folder.to_owned(), lightning: lightning.to_string(), since: unix_seconds() };
        let probe = it.write(b"").map_err(failed("no file can be written and locked in it"))?;
        fs::remove_file(&probe.path).map_err(failed("no file can be removed from it"))?;
        Ok(it)
    }

    /// Writes a run down. It is on disk when this returns. Blocks.
    pub(super) fn enter(&self, run: &str, token: &SecretString, lifetime: Option<Duration>) -> io::Result<Entry> {
        let record = Record {
            format: FORMAT,
            lightning: self.lightning.clone(),
            run: run.to_owned(),
            token: token.expose_secret().to_owned(),
            expires: lifetime.map(|lifetime| unix_seconds().saturating_add(lifetime.as_secs())),
            worker: Writer { pid: std::process::id(), since: self.since },
        };
        let entry = self.write(&serde_json::to_vec(&record).map_err(io::Error::from)?)?;
        let name = entry.path.with_file_name(format!("run-{}.json", Uuid::new_v4()));
        // A name that others look for appears with everything in it, and locked.
        let renamed = fs::rename(&entry.path, &name).and_then(|()| File::open(&self.folder)?.sync_all());
        if renamed.is_err() {
            let _ = fs::remove_file(&entry.path);
        }
        renamed.map(|()| Entry { path: name, ..entry })
    }

    /// Writes a file under a name that nobody looks for.
    fn write(&self, bytes: &[u8]) -> io::Result<Entry> {
        let path = self.folder.join(format!(".run-{}.tmp", Uuid::new_v4()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = file.try_lock().map_err(io::Error::from).and_then(|()| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Entry { path, _file: file })
    }

    /// The runs of dead workers on the same Lightning, now owned by this process. What cannot be read is set aside.
    /// Blocks.
    pub(super) fn orphans(&self) -> Vec<Orphan> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!("cannot read the journal in {}: {error}", self.folder.display());
                return Vec::new();
            }
        };
        entries.flatten().filter_map(|entry| self.take_over(&entry.path())).collect()
    }

    fn take_over(&self, path: &Path) -> Option<Orphan> {
        let name = path.file_name()?.to_str()?;
        if name.starts_with(".run-") && name.ends_with(".tmp") {
            remove_stale(path);
            return None;
        }
        if !(name.starts_with("run-") && name.ends_with(".json")) {
            return None;
        }
        match claim(path) {
            Ok(None) => None,
            Ok(Some((record, _))) if record.lightning != self.lightning => {
                tracing::warn!("the journal has a run of {}: leaving it to a worker there", record.lightning);
                None
            }
            Ok(Some((record, file))) => {
                let run = ClaimedRun { id: record.run, token: record.token.into() };
                let left = record.expires.map(|expires| Duration::from_secs(expires.saturating_sub(unix_seconds())));
                let entry = Entry { path: path.to_owned(), _file: file };
                Some(Orphan { run, left, pid: record.worker.pid, entry })
            }
            Err(why) => {
                set_aside(path, &why);
                None
            }
        }
    }
}

impl Entry {
    /// The run is over: nothing is left to tell. Blocks for a moment.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {} from the journal: {error}", self.path.display());
        }
    }
}

/// Locks and reads a file; none if a living worker owns it, or it is gone meanwhile.
fn claim(path: &Path) -> Result<Option<(Record, File)>, String> {
    let text = |error: io::Error| error.to_string();
    match fs::symlink_metadata(path) {
        // To open anything else may block or lead elsewhere.
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err("it is not a plain file".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    let file = File::open(path).map_err(text)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(format!("it cannot be locked: {error}")),
    }
    // Another worker may have dealt with it since the folder was read.
    let still_there = fs::symlink_metadata(path)
        .ok()
        .is_some_and(|there| file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino())));
    if !still_there {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(text)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    // The error must not show what the file holds.
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|error| format!("it cannot be read (line {}, column {})", error.line(), error.column()))?;
    if record.format != FORMAT {
        return Err(format!("its format is {}, this worker knows {FORMAT}", record.format));
    }
    Ok(Some((record, file)))
}

/// Renames what cannot be read, so that it is told once and people can look at it.
fn set_aside(path: &Path, why: &str) {
    let aside = path.with_extension("json.aside");
    match fs::rename(path, &aside) {
        Ok(()) => tracing::error!("{} in the journal is set aside as {}: {why}", path.display(), aside.display()),
        Err(error) => tracing::error!("{} in the journal: {why}; it cannot be set aside: {error}", path.display()),
    }
}

/// Removes a file whose writer died before it was complete.
fn remove_stale(path: &Path) {
    let old = fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > STALE));
    if old && File::open(path).is_ok_and(|file| file.try_lock().is_ok()) {
        // Another worker may have been faster.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
