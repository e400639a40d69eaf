//! Changes while the worker runs: other options for hosts, and another host program.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::cli::StartOptions;
use crate::hosts::{Broker, Change, Hosts, HostsOptions, watch_files};

/// Reads the options again, or says what is wrong with them.
pub type Reread = fn() -> Result<StartOptions, String>;

/// What options mean for hosts.
pub(crate) type Translate = dyn Fn(&StartOptions) -> Result<HostsOptions, String> + Send + Sync;

/// What the worker goes by.
pub(crate) struct Reload {
    /// All hosts.
    pub(crate) broker: Broker,
    /// Those that execute runs.
    pub(crate) engines: Arc<Hosts>,
    /// Reads the options again.
    pub(crate) reread: Reread,
    /// What options mean for hosts that execute runs.
    pub(crate) hosts_options: Box<Translate>,
    /// The configuration file.
    pub(crate) config: Option<PathBuf>,
    /// The host program, if it is watched.
    pub(crate) program: Option<PathBuf>,
}

impl Reload {
    /// Goes by what changes, for ever. `hangup` is the signal that asks for it.
    pub(crate) async fn follow(self, mut hangup: Signal) {
        let mut changes = watch_files(self.config.iter().chain(&self.program).cloned().collect());
        let mut ordered = FuturesUnordered::new();
        loop {
            let orders = tokio::select! {
                _ = hangup.recv() => self.reconfigure(),
                change = next(&mut changes) => {
                    if Some(&change.0) == self.program.as_ref() {
                        info!("{} has changed", change.0.display());
                        self.recycle()
                    } else {
                        self.reconfigure()
                    }
                }
                Some(()) = ordered.next() => continue,
            };
            for mut order in orders {
                // Given now, in this order. That it is done, which may take as long as a run, is not waited for.
                if (&mut order).now_or_never().is_none() {
                    ordered.push(order);
                }
            }
        }
    }

    fn recycle(&self) -> Vec<Order> {
        let recycle = |hosts: Hosts| {
            async move {
                if let Err(failure) = hosts.recycle().await {
                    error!(pool = hosts.pool(), "hosts were not replaced: {failure}");
                }
            }
            .boxed()
        };
        self.broker.all().into_iter().map(recycle).collect()
    }

    fn reconfigure(&self) -> Vec<Order> {
        let options = match (self.reread)().and_then(|options| (self.hosts_options)(&options)) {
            Ok(options) => options,
            Err(why) => {
                error!("the options are not changed: {}", why.trim_end());
                return Vec::new();
            }
        };
        let engines = Arc::clone(&self.engines);
        let reconfigure = async move {
            match engines.reconfigure(options).await {
                Ok(()) => info!("hosts go by the options as they are now"),
                Err(failure) => error!("hosts do not all go by the options as they are now: {failure}"),
            }
        };
        vec![reconfigure.boxed()]
    }
}

/// What pools are told to do. Polled once it is told, and it ends when it is done.
type Order = BoxFuture<'static, ()>;

/// The next change; waits for ever if nothing is watched any more.
async fn next(changes: &mut mpsc::Receiver<Change>) -> Change {
    match changes.recv().await {
        Some(change) => change,
        None => std::future::pending().await,
    }
}
