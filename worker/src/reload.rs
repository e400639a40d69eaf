//! Changes while the worker runs: other options for hosts, and another host program.

use std::future::ready;
use std::path::PathBuf;
use std::sync::Arc;

use base::optional::or_never;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hosts::{Broker, Hosts, HostsOptions, watch_files};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::cli::{Effective, StartOptions};
use crate::start::{StartError, template_options_of};

/// Options with what is in force of each.
pub type Options = (StartOptions, Vec<Effective>);

/// Reads the options again.
pub type Reread = fn() -> Result<Options, ReloadError>;

/// The options that the worker is to go by from now on are wrong.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] clap::Error),
    /// They do not fit each other or this machine.
    #[error(transparent)]
    Options(#[from] StartError),
}

/// What options count at once for: hosts that start from now on. The names of those, without dashes.
const RELOADED: [&str; 14] = [
    "engine-host",
    "warm-hosts",
    "warm-memory-mb",
    "engine-validation-timeout-ms",
    "engine-validation-retries",
    "host-max-processes",
    "host-max-open-files",
    "scratch-mb",
    "landlock-read",
    "host-start-timeout",
    "host-stop-timeout",
    "host-kill-timeout",
    "host-max-age",
    "host-max-memory",
];

/// What options mean for hosts.
pub(crate) type Translate = dyn Fn(&StartOptions) -> Result<HostsOptions, StartError> + Send + Sync;

/// What the worker goes by.
pub(crate) struct Reload {
    /// All hosts.
    pub(crate) broker: Broker,
    /// Those that execute runs.
    pub(crate) engines: Arc<Hosts>,
    /// The options that are in force.
    pub(crate) in_force: Vec<Effective>,
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
    pub(crate) async fn follow(mut self, mut hangup: Signal) {
        let mut changes = watch_files(self.config.iter().chain(&self.program).cloned().collect());
        let mut ordered = FuturesUnordered::new();
        loop {
            let orders = tokio::select! {
                _ = hangup.recv() => self.reconfigure(),
                change = next(&mut changes) => {
                    if Some(&change) == self.program.as_ref() {
                        info!("{} has changed", change.display());
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
        if let Some(templates) = self.broker.templates() {
            templates.start_afresh();
        }
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

    fn reconfigure(&mut self) -> Vec<Order> {
        let reread = (self.reread)().and_then(|(read, now)| Ok(((self.hosts_options)(&read)?, now)));
        let (options, now) = match reread {
            Ok(reread) => reread,
            Err(why) => {
                error!("options not reloaded: {}", why.to_string().trim_end());
                return Vec::new();
            }
        };
        let (reloaded, restart) = changed(&self.in_force, &now);
        if !restart.is_empty() {
            warn!("changed options that need a restart: {}", restart.join(", "));
        }
        if !reloaded.is_empty() {
            info!("changed: {}", reloaded.join(", "));
        }
        for option in now.into_iter().filter(|option| RELOADED.contains(&option.key())) {
            if let Some(old) = self.in_force.iter_mut().find(|old| old.key() == option.key()) {
                *old = option;
            }
        }
        let engines = Arc::clone(&self.engines);
        let templates = self.broker.templates();
        let reconfigure = async move {
            if let Some(templates) = templates
                && let Err(failure) = templates.reconfigure(template_options_of(&options), options.warm_bytes).await
            {
                error!("cannot apply the new options to templates: {failure}");
            }
            match engines.reconfigure(options).await {
                Ok(()) => info!("hosts go by the options as they are now"),
                Err(failure) => error!("hosts do not all go by the options as they are now: {failure}"),
            }
        };
        vec![reconfigure.boxed()]
    }
}

/// Names of the options that are not what they were: those that count now, and those that count after a restart.
fn changed(before: &[Effective], now: &[Effective]) -> (Vec<String>, Vec<String>) {
    let differs = |option: &&Effective| !before.iter().any(|old| old.is_as(option));
    let names = now.iter().filter(differs).map(|option| option.key().to_owned());
    names.partition(|name| RELOADED.contains(&name.as_str()))
}

/// What pools are told to do. Polled once it is told, and it ends when it is done.
type Order = BoxFuture<'static, ()>;

/// The next change; waits for ever if nothing is watched any more.
async fn next(changes: &mut mpsc::Receiver<PathBuf>) -> PathBuf {
    or_never(changes.recv().await.map(ready)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    fn options(arguments: &[&str]) -> Vec<Effective> {
        let arguments = ["worker", "start", "-l", "mock"].iter().chain(arguments).map(Into::into);
        Cli::read(arguments).expect("they are options").effective
    }

    #[test]
    fn what_needs_a_restart_is_told_apart() {
        let before = options(&["--warm-hosts", "2", "--secret", "s"]);
        let cases: [(&[&str], &[&str], &[&str]); 5] = [
            (&["--warm-hosts", "2", "--secret", "t"], &[], &[]),
            (&["--warm-hosts", "2"], &[], &[]),
            (&["--warm-hosts", "3"], &["warm-hosts"], &[]),
            (&["--warm-hosts", "2", "--backoff", "2/3"], &[], &["backoff"]),
            (&["--warm-hosts", "2", "--scratch-mb", "5", "--no-landlock"], &["scratch-mb"], &["no-landlock"]),
        ];
        for (arguments, reloaded, restart) in cases {
            let expected: (Vec<String>, Vec<String>) =
                (reloaded.iter().map(ToString::to_string).collect(), restart.iter().map(ToString::to_string).collect());
            assert_eq!(changed(&before, &options(arguments)), expected, "{arguments:?}");
        }
    }

    #[test]
    fn all_that_is_reloaded_is_an_option() {
        let all = options(&[]);
        for name in RELOADED {
            assert!(all.iter().any(|option| option.key() == name), "{name}");
        }
    }
}
