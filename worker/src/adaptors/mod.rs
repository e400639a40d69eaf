//! The adaptors that runs need: which versions they come down to, and that they are there.
//!
//! One actor owns what is known of the repo and who waits for what (`ledger` decides). All that touches the disk, npm
//! or Node is done by engine hosts that are started for it (`installer`); this process runs none of it.

mod installer;
mod ledger;
mod local;
pub mod manage;
mod npmrc;
mod options;
pub mod progress;
mod snapshots;
pub mod unconfined;
mod wanted;

use std::collections::HashMap;
use std::path::PathBuf;

use hosts::{Broker, HostsOptions, StartError};
use protocol::confinement::Confinement;
use protocol::engine::Adaptor;
use protocol::install::{InstalledAdaptor, Pruned, Repo, SnapshotOutcome, Surveyed};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

pub use self::installer::RepoError;
pub(crate) use self::installer::npm_environment;
use self::installer::{Installer, timed};
use self::ledger::{Action, Event, Ledger, Rules, WantId};
pub use self::local::PACKAGES;
pub(crate) use self::options::default_repo;
pub use self::options::{AdaptorsOptions, RepoPathError};
use self::snapshots::{Set, Snapshots};
pub use self::wanted::{Refused, Requirement, Wanted};

/// What the pool of hosts that look after adaptors is called.
const POOL: &str = "installers";
/// Memory of a host that installs, with npm, esbuild and Node: several times what the largest adaptors take.
const INSTALLER_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A repo of adaptors. Clones share it.
#[derive(Debug, Clone)]
pub struct Adaptors {
    wants: mpsc::UnboundedSender<Message>,
    installer: Installer,
    monorepos: Vec<PathBuf>,
    /// Whether engines start from snapshots.
    snapshots: bool,
    unconfined: Option<&'static str>,
}

enum Message {
    Want(Wanted, oneshot::Sender<Result<InstalledAdaptor, Refused>>),
    /// This name and version is not where it was.
    Gone(String, String),
    /// A run is about to use these.
    Snapshot(Vec<Adaptor>, oneshot::Sender<Option<PathBuf>>),
    /// The snapshot of these is not where it was.
    SnapshotGone(Set),
}

/// Something that was under way has ended.
enum Ended {
    Step(Event),
    Snapshot(Set, Result<SnapshotOutcome, RepoError>),
}

impl Adaptors {
    /// Looks after a repo, with hosts in a pool of their own: of the program of `like`, and with the limits that those
    /// have, but for the files that they may read. Must be called within a tokio runtime.
    pub async fn start(broker: &Broker, like: &HostsOptions, options: AdaptorsOptions) -> Result<Self, StartError> {
        let repo = Repo {
            folder: options.repo,
            lock: options.lock,
            offline: options.offline,
            node: options.node.path,
            node_version: options.node.version,
            job_environment: options.job_environment,
        };
        // One more than installs at once, so that a look-up does not wait for an installation.
        let hosts = HostsOptions {
            environment: npm_environment(&repo.folder, &repo.node),
            confinement: Confinement { readable: None, scratch_bytes: None, ..like.confinement.clone() },
            cgroups: like.cgroups.clone(),
            memory_bytes: Some(INSTALLER_BYTES),
            ..HostsOptions::shared(like.program.clone(), options.at_once + 1)
        };
        let hosts = broker.open(POOL, hosts).await?;
        let installer = Installer::new(hosts, repo, options.install_timeout, options.watcher);
        let rules = Rules { tags_for: options.tags_for, at_once: options.at_once, offline: options.offline };
        let (wants, messages) = mpsc::unbounded_channel();
        tokio::spawn(AdaptorsTask::new(rules, installer.clone()).work(messages));
        let AdaptorsOptions { monorepos, snapshots, unconfined, .. } = options;
        Ok(Self { wants, installer, monorepos, snapshots, unconfined })
    }

    /// Refuses an adaptor that nothing would confine, where that is not allowed.
    pub fn admit(&self, adaptor: &Adaptor) -> Result<(), Refused> {
        match self.unconfined {
            Some(why) if unconfined::is_unconfined(adaptor.needs) => {
                Err(Refused::Unconfined { adaptor: adaptor.specifier(), why })
            }
            _ => Ok(()),
        }
    }

    /// The Node program that adaptors are prepared for, and its version.
    pub fn node(&self) -> (PathBuf, String) {
        let repo = self.installer.repo();
        (repo.node.clone(), repo.node_version.clone())
    }

    /// Waits until an adaptor is there. Whoever wants the same one meanwhile waits for the same installation.
    pub async fn get(&self, wanted: &Wanted) -> Result<Adaptor, Refused> {
        if wanted.requirement == Requirement::Local {
            return local::find(&wanted.name, &self.monorepos).map_err(|why| wanted.refused(why));
        }
        let mut adaptor = self.ask(wanted).await?.adaptor;
        let parts = [Some(adaptor.folder.clone()), adaptor.bundle.clone()].into_iter().flatten().collect();
        if !are_there(parts).await {
            warn!("{} is no longer in {}", adaptor.specifier(), adaptor.folder.display());
            // Fails when the actor is gone, as does the next line.
            let _ = self.wants.send(Message::Gone(adaptor.name, adaptor.version));
            adaptor = self.ask(wanted).await?.adaptor;
        }
        Ok(adaptor)
    }

    async fn ask(&self, wanted: &Wanted) -> Result<InstalledAdaptor, Refused> {
        let gone = || wanted.refused("the worker is stopping");
        let (asker, answer) = oneshot::channel();
        self.wants.send(Message::Want(wanted.clone(), asker)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The snapshot of a set that a run is about to use, if there is one. One that there could be is made meanwhile, for
    /// later runs.
    pub async fn snapshot(&self, adaptors: &[Adaptor]) -> Option<PathBuf> {
        if !self.snapshots {
            return None;
        }
        let (asker, answer) = oneshot::channel();
        self.wants.send(Message::Snapshot(adaptors.to_vec(), asker)).ok()?;
        let path = answer.await.ok().flatten()?;
        if are_there(vec![path.clone()]).await {
            return Some(path);
        }
        // Fails when the actor is gone.
        let _ = self.wants.send(Message::SnapshotGone(snapshots::set(adaptors)));
        None
    }

    /// Whether the Node that adaptors are prepared for makes snapshots that the engine can use.
    pub fn has_snapshots(&self) -> bool {
        snapshots::are_possible(&self.installer.repo().node_version)
    }

    /// Makes the snapshot of a set now, unless there is one.
    pub async fn make_snapshot(&self, adaptors: Vec<Adaptor>) -> Result<SnapshotOutcome, RepoError> {
        self.installer.make_snapshot(adaptors).await
    }

    /// Everything that is in the repo.
    pub async fn survey(&self) -> Result<Surveyed, RepoError> {
        self.installer.survey().await
    }

    /// Takes out of the repo what nobody needs, and of each adaptor all but its newest `versions`.
    pub async fn prune(&self, versions: Option<usize>) -> Result<Pruned, RepoError> {
        self.installer.prune(versions).await
    }
}

/// Whether nobody removed these files since they were found.
async fn are_there(paths: Vec<PathBuf>) -> bool {
    // It cannot panic. If the runtime is going down, nothing is going to be loaded either.
    tokio::task::spawn_blocking(move || paths.iter().all(|path| path.exists())).await.unwrap_or(false)
}

/// The actor.
struct AdaptorsTask {
    ledger: Ledger,
    installer: Installer,
    snapshots: Snapshots,
    /// What is under way.
    under_way: JoinSet<Ended>,
    askers: HashMap<WantId, oneshot::Sender<Result<InstalledAdaptor, Refused>>>,
    next_id: WantId,
}

impl AdaptorsTask {
    fn new(rules: Rules, installer: Installer) -> Self {
        let mut under_way = JoinSet::new();
        let surveyor = installer.clone();
        under_way.spawn(async move {
            let surveyed = surveyor.survey().await;
            Ended::Step(Event::Surveyed(surveyed.map_err(|error| error.to_string())))
        });
        let snapshots = Snapshots::new(&installer.repo().node_version);
        Self { ledger: Ledger::new(rules), snapshots, installer, under_way, askers: HashMap::new(), next_id: 0 }
    }

    /// Works until nobody can want anything any more. What is under way then is ended.
    async fn work(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some(ended) = self.under_way.join_next() => match ended {
                    Ok(ended) => self.ended(ended),
                    Err(panic) => return error!("the adaptor task panicked: {panic}"),
                },
            }
            self.make_next_snapshot();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Want(wanted, asker) => {
                self.next_id += 1;
                self.askers.insert(self.next_id, asker);
                self.forget_the_gone();
                self.handle(Event::Wanted(self.next_id, wanted));
            }
            Message::Gone(name, version) => self.handle(Event::Gone(name, version)),
            // Fails when nobody waits any more.
            Message::Snapshot(adaptors, asker) => drop(asker.send(self.snapshots.of(&adaptors))),
            Message::SnapshotGone(set) => self.snapshots.gone(&set),
        }
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Step(event) => {
                if let Event::Surveyed(Ok(surveyed)) = &event {
                    self.snapshots.surveyed(surveyed.snapshots.clone());
                }
                self.forget_the_gone();
                self.handle(event);
            }
            Ended::Snapshot(set, result) => {
                let names = set.join(", ");
                match &result {
                    Ok(SnapshotOutcome::Made(_)) => {
                        info!("made a start-up snapshot of {names}")
                    }
                    Ok(SnapshotOutcome::Impossible(why)) => {
                        info!("{names} cannot be in a start-up snapshot: {why}");
                    }
                    Err(why) => warn!("failed to make a start-up snapshot of {names}: {why}"),
                }
                self.snapshots.made(set, result.ok());
            }
        }
    }

    fn make_next_snapshot(&mut self) {
        let Some(adaptors) = self.snapshots.next() else { return };
        let installer = self.installer.clone();
        let set = snapshots::set(&adaptors);
        self.under_way.spawn(async move { Ended::Snapshot(set, installer.make_snapshot(adaptors).await) });
    }

    /// Takes those off the list who wait no more, so that nothing is begun for them.
    fn forget_the_gone(&mut self) {
        let gone: Vec<WantId> = self.askers.iter().filter(|(_, asker)| asker.is_closed()).map(|(id, _)| *id).collect();
        for id in gone {
            self.askers.remove(&id);
            self.handle(Event::Unwanted(id));
        }
    }

    fn handle(&mut self, event: Event) {
        for action in self.ledger.on(event, Instant::now()) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        let installer = self.installer.clone();
        match action {
            Action::Answer(id, answer) => {
                if let Some(asker) = self.askers.remove(&id) {
                    // Fails when nobody waits any more.
                    let _ = asker.send(answer);
                }
            }
            Action::Warn(text) => warn!("{text}"),
            Action::LookUp(name) => drop(self.under_way.spawn(async move {
                let answer = installer.look_up(&name).await.map_err(|error| error.to_string());
                Ended::Step(Event::LookedUp(name, answer))
            })),
            Action::Install(name, version) => drop(self.under_way.spawn(async move {
                info!("installing {name}@{version}");
                let (result, took) = timed(installer.install(&name, &version.to_string())).await;
                match &result {
                    Ok(_) => info!(?took, "installed {name}@{version}"),
                    Err(failure) => {
                        warn!(?took, "failed to install {name}@{version}: {}", failure.why);
                    }
                }
                Ended::Step(Event::Installed(name, version, result.map(Box::new)))
            })),
        }
    }
}
