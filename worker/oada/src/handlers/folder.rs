//! The folder: which handlers there are, and what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hosts::Hosts;
use protocol::handler::{Module, NodeHandler};
use tracing::{error, info};

use super::module::{self, InspectError};
use super::run::Runner;
use super::{FolderError, HandlerOptions};
use crate::service::{Service, TypeOptions};

/// How handlers' files end.
const EXTENSIONS: [&str; 4] = ["js", "mjs", "cjs", "ts"];
/// How long jobs of a type are left alone whose handler is gone: files are replaced in many ways, and some take a while.
const GONE_FOR_GOOD: Duration = Duration::from_secs(60);

/// How long until a file is looked at again that cannot be used: what it lacks may have come, such as a package.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A file, and what tells one version of it from another without reading it.
type FileStamp = (PathBuf, Option<SystemTime>, u64);

/// What tells one version of a handler's own file from another; of more than one file, if they are for the same type.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    files: Vec<FileStamp>,
}

impl Stamp {
    fn of(files: Vec<PathBuf>) -> Self {
        let stamp = |file: PathBuf| {
            let found = std::fs::metadata(&file).ok();
            let modified = found.as_ref().and_then(|found| found.modified().ok());
            (file, modified, found.map_or(0, |found| found.len()))
        };
        Self { files: files.into_iter().map(stamp).collect() }
    }

    /// Of the same files, as they are now.
    fn again(&self) -> Self {
        Self::of(self.files.iter().map(|(file, ..)| file.clone()).collect())
    }

    fn is_as_it_was(&self) -> bool {
        *self == self.again()
    }
}

/// A handler that can be used.
pub(super) struct Handler {
    pub(super) options: TypeOptions,
    pub(super) runner: Arc<Runner>,
}

/// What becomes of a type's jobs from now on.
pub(super) enum Change {
    /// This handles them.
    Use(Handler),
    /// They are left alone: why.
    Withhold(String),
    /// They are of an unknown type.
    Forget,
}

pub(super) struct Folder {
    hosts: Hosts,
    options: HandlerOptions,
    /// By type, as they were when they were looked at last.
    known: BTreeMap<String, Stamp>,
    /// What handlers import, by type.
    imports: BTreeMap<String, Stamp>,
    /// Loads so far.
    revision: u64,
    /// Types that have a handler.
    handled: BTreeSet<String>,
    /// Types whose file cannot be used as it is now, and why.
    unusable: BTreeMap<String, String>,
    /// When they were looked at.
    tried: BTreeMap<String, Instant>,
    /// Types whose file is gone, and since when.
    gone: BTreeMap<String, Instant>,
    changes: Vec<(String, Change)>,
}

impl Folder {
    pub(super) fn new(hosts: Hosts, options: HandlerOptions) -> Self {
        let (known, imports, handled, unusable, tried, gone) = Default::default();
        let (revision, changes) = Default::default();
        Self { hosts, options, known, imports, revision, handled, unusable, tried, gone, changes }
    }

    /// What the last looks have found that nobody has taken.
    pub(super) fn take_changes(&mut self) -> Vec<(String, Change)> {
        std::mem::take(&mut self.changes)
    }

    /// Types whose file cannot be used, and why.
    pub(super) fn unusable(&self) -> &BTreeMap<String, String> {
        &self.unusable
    }

    /// Types that have a handler.
    pub(super) fn handled(&self) -> &BTreeSet<String> {
        &self.handled
    }

    /// Looks at the folder now and then, for ever. Jobs that run go on with the handlers that they were begun with.
    pub(super) async fn follow(mut self, service: Arc<Service>) {
        let mut unreadable = None;
        loop {
            for (kind, change) in self.take_changes() {
                match change {
                    Change::Use(Handler { options, runner }) => {
                        service.on(&kind, options, move |job, context| Arc::clone(&runner).run(job, context));
                    }
                    Change::Withhold(why) => service.withhold(&kind, &why),
                    Change::Forget => drop(service.off(&kind)),
                }
            }
            tokio::time::sleep(self.options.poll).await;
            let failed = self.look().await.err().map(|error| error.to_string());
            if let Some(error) = failed.as_ref().filter(|_| failed != unreadable) {
                error!("{error}");
            }
            unreadable = failed;
        }
    }

    /// Finds what is new, has changed, or is gone. A handler that cannot be used does not take the place of one that can.
    pub(super) async fn look(&mut self) -> Result<(), FolderError> {
        let folder = self.options.folder.clone();
        let mut found = scan(&folder).map_err(|source| FolderError { folder: folder.clone(), source })?;
        self.miss(&found, Instant::now());
        let changed = found.iter().filter(|(kind, stamp)| self.known.get(*kind) != Some(*stamp) || self.is_due(kind));
        for (kind, stamp) in changed.map(|(kind, stamp)| (kind.clone(), stamp.clone())).collect::<Vec<_>>() {
            match self.load(&kind, &stamp).await {
                Ok((handler, imports)) => {
                    self.imports.insert(kind.clone(), imports);
                    self.handled.insert(kind.clone());
                    self.unusable.remove(&kind);
                    self.changes.push((kind, Change::Use(handler)));
                }
                Err(why) => {
                    if let InspectError::Host(_) = why {
                        // It is for the next look.
                        found.remove(&kind);
                    }
                    self.cannot_use(kind, why.to_string());
                }
            }
        }
        self.known = found;
        Ok(())
    }

    /// Whether a type is to be looked at though its own file is as it was.
    fn is_due(&self, kind: &str) -> bool {
        let tried = self.tried.get(kind).filter(|_| self.options.node.is_some() && self.unusable.contains_key(kind));
        tried.is_some_and(|tried| tried.elapsed() >= LOOK_AGAIN)
            || self.imports.get(kind).is_some_and(|imports| !imports.is_as_it_was())
    }

    /// Notes what is not there any more.
    fn miss(&mut self, found: &BTreeMap<String, Stamp>, now: Instant) {
        self.gone.retain(|kind, _| !found.contains_key(kind));
        let there = self.known.keys().chain(&self.handled).chain(self.unusable.keys());
        let missing: BTreeSet<String> = there.filter(|kind| !found.contains_key(*kind)).cloned().collect();
        for kind in missing {
            info!(kind, "handler removed: its jobs wait {} s for another one", GONE_FOR_GOOD.as_secs());
            self.handled.remove(&kind);
            self.unusable.remove(&kind);
            self.imports.remove(&kind);
            self.gone.insert(kind.clone(), now);
            self.changes.push((kind, Change::Withhold("its handler is gone".to_owned())));
        }
        for (kind, _) in self.gone.extract_if(.., |_, since| now.saturating_duration_since(*since) >= GONE_FOR_GOOD) {
            info!(kind, "no other handler was added: its jobs are of an unknown type");
            self.changes.push((kind, Change::Forget));
        }
    }

    /// A file cannot be used as it is. The embedded engine has what was there before it, and goes on with that; Node
    /// reads the file for each job.
    fn cannot_use(&mut self, kind: String, why: String) {
        let goes_on = self.options.node.is_none() && self.handled.contains(&kind);
        if self.unusable.get(&kind) != Some(&why) {
            let what = if goes_on { "the one before goes on" } else { "jobs of its type wait" };
            error!(kind, "a handler cannot be used: {why}; {what}");
        }
        if !goes_on {
            self.handled.remove(&kind);
            self.changes.push((kind.clone(), Change::Withhold(why.clone())));
        }
        self.tried.insert(kind.clone(), Instant::now());
        if let Some(imports) = self.imports.get_mut(&kind) {
            *imports = imports.again();
        }
        self.unusable.insert(kind, why);
    }

    /// The handler, and what it imports.
    async fn load(&mut self, kind: &str, stamp: &Stamp) -> Result<(Handler, Stamp), InspectError> {
        let unusable = |why: String| InspectError::Unusable(why);
        let [(file, ..)] = stamp.files.as_slice() else {
            let names: Vec<String> = stamp.files.iter().map(|(file, ..)| name(file)).collect();
            return Err(unusable(format!("there is more than one file for it: {}", names.join(", "))));
        };
        let source = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
        let file = file.canonicalize().map_err(|error| unusable(error.to_string()))?;
        self.revision += 1;
        let revision = self.revision;
        let node = self.options.node.as_ref().map(|node| NodeHandler {
            program: node.path.clone(),
            version: node.version.clone(),
            file: file.clone(),
            revision,
        });
        let module = Module { name: name(&file), source, node };
        let (options, imports) = module::inspect(&self.hosts, &module, &self.options).await?;
        info!(kind, timeout = ?options.timeout, "handler added");
        let runner = Runner::new(self.hosts.clone(), module, self.options.memory_bytes);
        runner.expect();
        Ok((Handler { options, runner: Arc::new(runner) }, Stamp::of(imports)))
    }
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The type that a file is a handler of.
fn kind(name: &str) -> Option<&str> {
    let (kind, extension) = name.rsplit_once('.')?;
    (EXTENSIONS.contains(&extension) && !kind.is_empty() && !name.ends_with(".d.ts")).then_some(kind)
}

/// The handlers in a folder, by type.
fn scan(folder: &Path) -> io::Result<BTreeMap<String, Stamp>> {
    let mut found = BTreeMap::<String, Stamp>::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(kind) = name.to_str().and_then(kind) else { continue };
        // One that is gone by now is for the next look.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() {
            let stamp = found.entry(kind.to_owned()).or_insert(Stamp { files: Vec::new() });
            stamp.files.push((entry.path(), metadata.modified().ok(), metadata.len()));
            stamp.files.sort();
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_handlers_by_their_ends() {
        let names = ["a.js", "a.b.mjs", "a.cjs", "a.ts", "a.d.ts", ".js", "a.json", "package.json", "a", "a.jsx"];
        let kinds = names.map(kind);
        let expected = [Some("a"), Some("a.b"), Some("a"), Some("a"), None, None, None, None, None, None];
        assert_eq!(kinds, expected);
    }
}
