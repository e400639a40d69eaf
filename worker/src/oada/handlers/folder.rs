//! The folder: which handlers there are, and what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use protocol::handler::Module;
use tracing::{error, info};

use super::module::{self, InspectError};
use super::run::Runner;
use super::{FolderError, HandlerOptions};
use crate::hosts::Hosts;
use crate::oada::service::{Service, TypeOptions};

/// What tells one version of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

/// A handler that can be used.
pub(super) struct Handler {
    pub(super) options: TypeOptions,
    pub(super) runner: Arc<Runner>,
}

/// A type, and its handler from now on; none if there is none any more.
type Change = (String, Option<Handler>);

pub(super) struct Folder {
    hosts: Hosts,
    options: HandlerOptions,
    /// By type, as they were when they were looked at last.
    known: BTreeMap<String, Stamp>,
    /// Types that have a handler.
    handled: BTreeSet<String>,
    changes: Vec<Change>,
}

impl Folder {
    pub(super) fn new(hosts: Hosts, options: HandlerOptions) -> Self {
        Self { hosts, options, known: BTreeMap::new(), handled: BTreeSet::new(), changes: Vec::new() }
    }

    /// What the last looks have found that nobody has taken.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Looks at the folder now and then, for ever. Jobs that run go on with the handlers that they were begun with.
    pub(super) async fn follow(mut self, service: Arc<Service>) {
        loop {
            for (kind, change) in self.take_changes() {
                match change {
                    Some(Handler { options, runner }) => {
                        service.on(&kind, options, move |job, context| Arc::clone(&runner).run(job, context));
                    }
                    None => drop(service.off(&kind)),
                }
            }
            tokio::time::sleep(self.options.poll).await;
            if let Err(error) = self.look().await {
                error!("{error}");
            }
        }
    }

    /// Finds what is new, has changed, or is gone. A handler that cannot be used does not take the place of one that can.
    pub(super) async fn look(&mut self) -> Result<(), FolderError> {
        let folder = self.options.folder.clone();
        let mut found = scan(&folder).map_err(|source| FolderError { folder: folder.clone(), source })?;
        for kind in self.handled.extract_if(.., |kind| !found.contains_key(kind)) {
            info!(kind, "a handler is gone");
            self.changes.push((kind, None));
        }
        let changed = found.iter().filter(|(kind, stamp)| self.known.get(*kind) != Some(*stamp));
        for kind in changed.map(|(kind, _)| kind.clone()).collect::<Vec<_>>() {
            match self.load(&kind, &folder.join(format!("{kind}.js"))).await {
                Ok(handler) => {
                    self.handled.insert(kind.clone());
                    self.changes.push((kind, Some(handler)));
                }
                Err(why) => {
                    let goes_on = if self.handled.contains(&kind) { "; the one before goes on" } else { "" };
                    error!(kind, "a handler cannot be used: {why}{goes_on}");
                    if let InspectError::Host(_) = why {
                        // It is for the next look.
                        found.remove(&kind);
                    }
                }
            }
        }
        self.known = found;
        Ok(())
    }

    async fn load(&self, kind: &str, file: &Path) -> Result<Handler, InspectError> {
        let source = std::fs::read_to_string(file).map_err(|error| InspectError::Unusable(error.to_string()))?;
        let module = Module { name: format!("{kind}.js"), source };
        let options = module::inspect(&self.hosts, &module, &self.options).await?;
        info!(kind, timeout = ?options.timeout, "a handler is there");
        let runner = Runner::new(self.hosts.clone(), module, self.options.memory_bytes);
        Ok(Handler { options, runner: Arc::new(runner) })
    }
}

/// The handlers in a folder: files that end with `.js`.
fn scan(folder: &Path) -> io::Result<BTreeMap<String, Stamp>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(kind) = name.to_str().and_then(|name| name.strip_suffix(".js")) else { continue };
        // One that is gone by now is for the next look.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() && !kind.is_empty() {
            let stamp = Stamp { modified: metadata.modified().ok(), length: metadata.len() };
            found.insert(kind.to_owned(), stamp);
        }
    }
    Ok(found)
}
