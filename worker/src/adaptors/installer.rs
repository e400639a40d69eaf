//! What has adaptors installed: engine hosts that are lent for it, from a pool of their own.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use base::execution::ReserveError;
use base::folders;
use base::metrics::metrics;
use hosts::{Hosts, LentHostError};
use protocol::engine::Adaptor;
use protocol::install::{
    Install, InstalledAdaptor, MakeSnapshot, Progress, Prune, Pruned, Repo, Resolve, Resolved, SnapshotOutcome, Survey,
    Surveyed, UNSET_VARIABLE,
};
use protocol::link::{Call, CallError, WorkerSide};
use protocol::message::{RefusalCode, WorkerNotice};
use protocol::queue;
use tracing::{info, warn};

use super::ledger::InstallFailure;
use super::npmrc::{self, Named};
use super::progress::Watcher;

/// How long a look into the repo, or at the registry, may take.
const QUICK: Duration = Duration::from_secs(60);
/// How often a host may die of one thing before that is given up.
const MOST_DEATHS: u32 = 3;

/// Everything that is asked about one repo. Clones share the means.
#[derive(Debug, Clone)]
pub(super) struct Installer {
    hosts: Hosts,
    repo: Repo,
    /// How long an installation may take.
    limit: Duration,
    watcher: Option<Watcher>,
}

impl Installer {
    pub(super) fn new(hosts: Hosts, repo: Repo, limit: Duration, watcher: Option<Watcher>) -> Self {
        Self { hosts, repo, limit, watcher }
    }

    pub(super) fn repo(&self) -> &Repo {
        &self.repo
    }

    pub(super) async fn survey(&self) -> Result<Surveyed, RepoError> {
        let repo = self.repo.clone();
        self.ask("the repo", QUICK, || Survey { repo: repo.clone() }).await
    }

    pub(super) async fn look_up(&self, name: &str) -> Result<Resolved, RepoError> {
        let resolve = || Resolve { repo: self.repo.clone(), name: name.to_owned() };
        self.ask(name, QUICK, resolve).await
    }

    pub(super) async fn install(&self, name: &str, version: &str) -> Result<InstalledAdaptor, InstallFailure> {
        let install = || Install { repo: self.repo.clone(), name: name.to_owned(), version: version.to_owned() };
        let began = Instant::now();
        let installed = self.watched(&format!("{name}@{version}"), install).await;
        metrics().adaptor_installed(installed.is_ok(), began.elapsed());
        installed.map_err(|error| InstallFailure { why: error.to_string(), registry_down: error.is_registry_down() })
    }

    pub(super) async fn make_snapshot(&self, adaptors: Vec<Adaptor>) -> Result<SnapshotOutcome, RepoError> {
        let make = || MakeSnapshot { repo: self.repo.clone(), adaptors: adaptors.clone() };
        let names: Vec<_> = adaptors.iter().map(Adaptor::specifier).collect();
        self.watched(&format!("start-up snapshot of {}", names.join(", ")), make).await
    }

    pub(super) async fn prune(&self, versions: Option<usize>) -> Result<Pruned, RepoError> {
        let prune = || Prune { repo: self.repo.clone(), versions };
        self.ask("the repo", self.limit, prune).await
    }

    /// Asks for something that takes its time, and shows how far it is.
    async fn watched<C: Call<WorkerSide>>(&self, thing: &str, call: impl Fn() -> C) -> Result<C::Answer, RepoError> {
        if let Some(watcher) = &self.watcher {
            watcher.began(thing);
        }
        let answer = self.ask(thing, self.limit, call).await;
        if let Some(watcher) = &self.watcher {
            watcher.ended(thing, answer.is_ok());
        }
        answer
    }

    /// Asks a host. One that dies did no harm, whatever it was at, so another one is asked.
    async fn ask<C: Call<WorkerSide>>(
        &self,
        thing: &str,
        limit: Duration,
        call: impl Fn() -> C,
    ) -> Result<C::Answer, RepoError> {
        let mut deaths = 0;
        loop {
            let mut host = self.hosts.lend().await?;
            let showing = host.take_notices().map(|notices| {
                tokio::spawn(show(notices, self.watcher.clone().map(|watcher| (watcher, thing.to_owned()))))
            });
            let answer = host.call(call(), limit).await;
            drop(host);
            if let Some(showing) = showing {
                showing.abort();
            }
            match answer {
                Err(LentHostError::Died(death)) if deaths + 1 < MOST_DEATHS => {
                    deaths += 1;
                    warn!("{}: the engine host {death}; trying again", C::NAME);
                }
                answer => return Ok(answer?),
            }
        }
    }
}

/// Why something was not done with a repo, in one line.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// There is nobody to do it.
    #[error(transparent)]
    NoHost(#[from] ReserveError),
    /// It failed, or took too long.
    #[error("{}", in_one_line(.0))]
    Host(#[from] LentHostError),
}

impl RepoError {
    fn is_registry_down(&self) -> bool {
        matches!(self, Self::Host(LentHostError::Call(CallError::Refused(it))) if it.code == RefusalCode::RegistryDown)
    }
}

fn in_one_line(error: &LentHostError) -> String {
    match error {
        LentHostError::Call(CallError::Refused(refusal)) => refusal.message.clone(),
        LentHostError::Call(CallError::Timeout { after, .. }) => format!("it was not done within {after:?}"),
        other => other.to_string(),
    }
}

/// Shows what a host tells of its progress with a thing to whoever watches, or logs it.
async fn show(mut notices: queue::Receiver<WorkerNotice>, watcher: Option<(Watcher, String)>) {
    while let Some(notice) = notices.recv().await {
        if let WorkerNotice::Progress(Progress { what }) = notice {
            match &watcher {
                Some((watcher, thing)) => watcher.phase(thing, &what),
                None => info!("{what}"),
            }
        }
    }
}

/// What hosts that install get of the worker's environment: what npm needs to reach its registry, and where it may
/// keep what it fetched. They run no users' code.
pub(crate) fn npm_environment(repo: &Path, node: &Path) -> Vec<(String, String)> {
    // What is no Unicode is no setting of npm's.
    let variables = std::env::vars_os();
    let variables: Vec<(String, String)> =
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let setting = |name: &str| {
        variables.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    let named = npmrc::named(repo, node, folders::home().as_deref(), setting);
    of_npm(variables, &named)
}

/// npm's cache is in the user's home unless it is told otherwise, and that may be read-only where there is a folder for
/// caches. `named` has what npm's settings files want beside npm's own variables.
fn of_npm(mut variables: Vec<(String, String)>, named: &Named) -> Vec<(String, String)> {
    const CACHE: &str = "npm_config_cache";
    let caches = variables.iter().find(|(name, value)| name == "XDG_CACHE_HOME" && value.starts_with('/'));
    let cache = caches.map(|(_, folder)| (CACHE.to_owned(), format!("{folder}/npm")));
    let is_told = variables.iter().any(|(name, value)| name.eq_ignore_ascii_case(CACHE) && !value.is_empty());
    let is_set = |name: &str| variables.iter().any(|(known, value)| known == name && !value.is_empty());
    let unset = named.iter().filter(|(name, _)| !is_set(name));
    let unset: Vec<String> = unset.map(|(name, file)| format!("{name} in {}", file.display())).collect();
    variables.retain(|(name, _)| is_for_npm(name) || named.contains_key(name));
    variables.extend(cache.filter(|_| !is_told));
    variables.extend((!unset.is_empty()).then(|| (UNSET_VARIABLE.to_owned(), unset.join(", "))));
    variables
}

fn is_for_npm(variable: &str) -> bool {
    const NAMES: &[&str] = &["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NODE_AUTH_TOKEN", "NO_PROXY", "NPM_TOKEN"];
    const CONFIG: &str = "npm_config_";
    let is_config = variable.get(..CONFIG.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONFIG));
    is_config
        || NAMES.contains(&variable)
        || (variable.ends_with("_proxy") && NAMES.contains(&&*variable.to_uppercase()))
}

/// Runs `work`, and tells how long it took.
pub(super) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = tokio::time::Instant::now();
    let result = work.await;
    (result, began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npms_cache_is_in_the_folder_for_caches_unless_it_is_told_otherwise() {
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Variables<'_>, Variables<'_>)] = &[
            (&[("HOME", "/home/x")], &[]),
            (&[("XDG_CACHE_HOME", "/cache"), ("HOME", "/")], &[("npm_config_cache", "/cache/npm")]),
            (&[("XDG_CACHE_HOME", "relative")], &[]),
            (&[("XDG_CACHE_HOME", "/cache"), ("NPM_CONFIG_CACHE", "/mine")], &[("NPM_CONFIG_CACHE", "/mine")]),
        ];
        let owned = |pairs: Variables<'_>| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (variables, expected) in cases {
            assert_eq!(of_npm(owned(variables), &Named::new()), owned(expected));
        }
    }

    #[test]
    fn what_npms_settings_name_is_passed_on_or_told_to_be_unset() {
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let named = ["A", "B", "C"].map(|name| (name.to_owned(), "/r/.npmrc".into())).into();
        let all = [owned("A", "secret"), owned("B", ""), owned("OTHER", "x")].to_vec();
        let expected = [owned("A", "secret"), owned("B", ""), owned(UNSET_VARIABLE, "B in /r/.npmrc, C in /r/.npmrc")];
        assert_eq!(of_npm(all, &named), expected);
    }

    #[test]
    fn only_what_npm_needs_is_passed_on() {
        for (variable, expected) in [
            ("https_proxy", true),
            ("NO_PROXY", true),
            ("NPM_CONFIG_REGISTRY", true),
            ("npm_config_@openfn:registry", true),
            ("npm_confi", false),
            ("NODE_OPTIONS", false),
            ("WORKER_SECRET", false),
            ("my_proxy", false),
        ] {
            assert_eq!(is_for_npm(variable), expected, "{variable}");
        }
    }
}
