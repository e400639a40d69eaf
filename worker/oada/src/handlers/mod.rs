//! Handlers out of process: each `<type>.js` in a folder works on jobs of that type, every job in a fresh host.
//!
//! The host has no token: what a handler wants of the store comes here, and is done in the name of its job.

mod folder;
mod module;
mod run;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::node::NodeProgram;
use hosts::Hosts;
use tokio::task::JoinHandle;

use self::folder::{Change, Folder, Handler};
use super::service::{Service, ServiceBuilder};

/// How handlers are run.
#[derive(Debug, Clone)]
pub struct HandlerOptions {
    /// Where they are.
    pub folder: PathBuf,
    /// How long a job may take whose handler does not say.
    pub timeout: Duration,
    /// Memory that a handler may use, in bytes.
    pub memory_bytes: u64,
    /// Time between looks at the folder.
    pub poll: Duration,
    /// The Node that runs handlers; none for the embedded engine.
    pub node: Option<NodeProgram>,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the folder of handlers {} cannot be read: {source}; it holds a file <type>.js for each type of jobs", .folder.display())]
pub struct FolderError {
    folder: PathBuf,
    source: std::io::Error,
}

/// The handlers of a folder.
pub struct Handlers(Folder);

impl Handlers {
    /// Looks at the folder. A handler that cannot be used is logged, and jobs of its type are left alone.
    pub async fn load(hosts: Hosts, options: HandlerOptions) -> Result<Self, FolderError> {
        let mut folder = Folder::new(hosts, options);
        folder.look().await?;
        Ok(Self(folder))
    }

    /// Registers them.
    #[must_use]
    pub fn register(&mut self, mut service: ServiceBuilder) -> ServiceBuilder {
        for (kind, change) in self.0.take_changes() {
            service = match change {
                Change::Use(Handler { options, runner }) => {
                    service.on_with(&kind, options, move |job, context| Arc::clone(&runner).run(job, context))
                }
                Change::Withhold(why) => service.withhold(&kind, &why),
                Change::Forget => service,
            };
        }
        service
    }

    /// Types whose file cannot be used, and why.
    pub fn unusable(&self) -> &BTreeMap<String, String> {
        self.0.unusable()
    }

    /// Types that have a handler.
    pub fn handled(&self) -> &BTreeSet<String> {
        self.0.handled()
    }

    /// Goes on to register what changes in the folder, for as long as the result lives.
    pub fn follow(self, service: Arc<Service>) -> Following {
        Following(tokio::spawn(self.0.follow(service)))
    }
}

/// Keeps a service's handlers as their folder has them.
#[derive(Debug)]
pub struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}
