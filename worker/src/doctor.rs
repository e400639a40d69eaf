//! `worker doctor`: what the worker finds where it is to run, and what is wrong with that.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use base::dial::{dial, resolve};
use base::escape::{one_line, without_url_secrets};
use base::node::NodeProgram;
use base::room::{files_needed, raise_files};
use hosts::{HostProgram, Hosts, HostsOptions, Means, PoolSize};
use jiff::Timestamp;
use lightning::{Endpoint, LEEWAY, server_time};
use protocol::socket::RuntimeDir;
use rustix::fs::{Access, PROC_SUPER_MAGIC, access, statfs};
use rustix::io::Errno;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::adaptors::{AdaptorsOptions, npm_environment};
use crate::cli::{EngineKind, MOCK_ENDPOINT, NodeStart, StartOptions};
use crate::ctl::{self, Answer, FindError, Request};
use crate::embedded::EMBEDDED;
use crate::forking;
use crate::start;

/// How long Lightning may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a worker that runs may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the registry of npm may take to answer.
const REGISTRY: Duration = Duration::from_secs(10);

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, derive_more::Display, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    #[display("ok  ")]
    Good,
    /// The worker runs, with less than there could be.
    #[display("note")]
    Lacking,
    /// The worker does not run like this.
    #[display("BAD ")]
    Bad,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, derive_more::Display, Serialize)]
#[display("{verdict}  {what:<12} {text}")]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and what would be right.
    pub text: String,
}

/// How something is, and the words for it.
type Found = (Verdict, String);

fn good(text: impl Into<String>) -> Found {
    (Verdict::Good, text.into())
}

fn lacking(text: impl Into<String>) -> Found {
    (Verdict::Lacking, text.into())
}

fn bad(text: impl Into<String>) -> Found {
    (Verdict::Bad, text.into())
}

/// Looks at everything that `worker start` with these options needs. `warnings` are what reading them was warned of.
pub async fn examine(options: &StartOptions, warnings: &[String]) -> Vec<Finding> {
    let (host, node, lightning, clock, running) = tokio::join!(
        engine_host(options),
        node(options),
        lightning(options),
        clock(&options.lightning.lightning),
        running()
    );
    let mut found = vec![("options", of_options(options))];
    found.extend(warnings.iter().map(|warning| ("variable", lacking(warning))));
    found.push(("engine-host", host));
    found.extend(node);
    found.extend(forks(options).await.map(|forks| ("forks", forks)));
    found.extend([
        ("memory", memory(options)),
        ("landlock", landlock(options)),
        ("open files", open_files(options)),
        ("folder", runtime_folder()),
        ("running", running),
    ]);
    found.extend(lightning.into_iter().map(|lightning| ("lightning", lightning)));
    found.extend(clock.map(|clock| ("clock", clock)));
    found.push(("key", key(options)));
    found.into_iter().map(|(what, (verdict, text))| Finding { what, verdict, text }).collect()
}

fn of_options(options: &StartOptions) -> Found {
    match start::check(options) {
        Ok(()) => good("they are valid"),
        Err(error) => bad(error.to_string()),
    }
}

async fn engine_host(options: &StartOptions) -> Found {
    try_host(options).await.map_or_else(|error| bad(error.to_string()), good)
}

/// Starts a host as the worker does.
async fn try_host(options: &StartOptions) -> anyhow::Result<String> {
    // What the program has to be unpacked into goes when this returns.
    let folder = RuntimeDir::create(None)?;
    let program = HostProgram::find_to_try(options.hosts.engine_host.as_deref(), EMBEDDED, folder.path())?;
    let path = program.path().display().to_string();
    let mut options = options.clone();
    options.hosts.engine_host = Some(program.path().to_owned());
    let as_started = start::hosts_options_of(&options, None)?;
    let one = HostsOptions { size: PoolSize::OneRunEach { warm: 1 }, validation_retries: 0, ..as_started };
    let before = std::time::Instant::now();
    let hosts = Hosts::start(one).await.map_err(|error| anyhow!("{path}: {error}"))?;
    let after = before.elapsed();
    hosts.shutdown(Duration::from_secs(2)).await;
    Ok(format!("{path} answers after {:.0} ms", after.as_secs_f64() * 1e3))
}

/// What Node and the adaptors that it loads need.
async fn node(options: &StartOptions) -> Vec<(&'static str, Found)> {
    let (engine, repo) = (options.hosts.engine(), &options.adaptors.repo);
    if matches!(engine, Some(EngineKind::Embedded | EngineKind::Mock)) {
        return Vec::new();
    }
    match NodeProgram::find(repo.node.as_deref()).await {
        Ok(node) => {
            let mut found = vec![("node", good(format!("{} at {}", node.version, node.path.display())))];
            match AdaptorsOptions::new(repo, &options.adaptors.monorepo_dir, node.clone()) {
                Ok(AdaptorsOptions { repo, .. }) => {
                    found.push(("adaptors", adaptors(&repo)));
                    found.push(("npm", registry(&node.path, &repo).await));
                }
                Err(error) => found.push(("adaptors", bad(error.to_string()))),
            }
            found
        }
        Err(error) if engine.is_none() && repo.node.is_none() => {
            vec![("node", lacking(format!("{error}: only the embedded engine can be used")))]
        }
        Err(error) => vec![("node", bad(error.to_string()))],
    }
}

/// Whether adaptors can be put where they are to be.
fn adaptors(repo: &Path) -> Found {
    let told = repo.display();
    // Nothing is made: whoever asks may be another user than the worker.
    let there = repo.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let can_write = if there.is_dir() { access(there, Access::WRITE_OK | Access::EXEC_OK) } else { Err(Errno::NOTDIR) };
    match can_write {
        Ok(()) if is_of_the_kernel(there) => {
            bad(format!("{told} cannot be made (--repo-dir, WORKER_REPO_DIR): the kernel makes the folders there"))
        }
        // What stands beside a repo that is still to be made is not its own.
        Ok(()) => match foreign_folder(repo) {
            None => good(format!("can be installed into {told}")),
            Some(folder) => {
                let remedy = chown(&folder, repo);
                lacking(format!("{told} has a folder that cannot be written to, {}{remedy}", folder.display()))
            }
        },
        Err(error) => {
            let is_read = "what is there already can be used, nothing can be installed";
            let remedy = match there.is_dir() {
                true if there == repo => chown(there, there),
                true => make(repo, there, access(there, Access::EXEC_OK).is_ok(), own()),
                false => String::new(),
            };
            let text = format!("{told} cannot be written to (--repo-dir, WORKER_REPO_DIR): {error}{remedy}");
            if there == repo { lacking(format!("{text}; {is_read}")) } else { bad(text) }
        }
    }
}

/// Whether the registry of npm answers, as npm is set up here.
async fn registry(node: &Path, repo: &Path) -> Found {
    const LACK: &str = "runs whose adaptors are not installed yet will fail";
    let beside = node.parent().map(|folder| folder.join("npm")).filter(|npm| npm.exists());
    let mut command = Command::new(beside.unwrap_or_else(|| "npm".into()));
    let kept = ["HOME", "PATH"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command
        .args(["view", "@openfn/language-common", "version", "dist.tarball", "--no-update-notifier"])
        .env_clear()
        .envs(npm_environment(repo, node))
        .envs(kept)
        .current_dir("/")
        .kill_on_drop(true);
    match timeout(REGISTRY, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            let told = String::from_utf8_lossy(&output.stdout);
            let version = told.lines().find_map(|line| line.strip_prefix("version = ")).unwrap_or("some version");
            good(format!("the registry answers: @openfn/language-common is at {}", version.trim_matches('\'')))
        }
        Ok(Ok(output)) => {
            let told = String::from_utf8_lossy(&output.stderr);
            let why = told.lines().find(|line| !line.trim().is_empty()).unwrap_or("npm failed").to_owned();
            lacking(format!("the registry does not answer: {}; {LACK}", without_url_secrets(&one_line(&why))))
        }
        Ok(Err(error)) => lacking(format!("cannot run npm: {error}; {LACK}")),
        Err(_) => lacking(format!("the registry has not answered within {REGISTRY:?}; {LACK}")),
    }
}

/// How far this clock is from Lightning's, if that can be had.
async fn clock(endpoint: &Endpoint) -> Option<Found> {
    let theirs = timeout(CONNECT, server_time(endpoint)).await.ok()??;
    Some(told_of_clocks(Timestamp::now().as_second() - theirs.as_second()))
}

/// What it means that this clock is so many seconds ahead of Lightning's, which tells whole seconds.
fn told_of_clocks(ahead: i64) -> Found {
    let by = ahead.unsigned_abs();
    let text = match ahead {
        -1..=1 => "this clock is Lightning's, to the second".to_owned(),
        2.. => format!("this clock is {by} s ahead of Lightning's"),
        _ => format!("this clock is {by} s behind Lightning's"),
    };
    if by > LEEWAY {
        bad(format!("{text}, and tokens may differ by {LEEWAY} s: set it, by NTP for example"))
    } else {
        good(text)
    }
}

/// Whether it is checked that Lightning made the tokens of runs.
fn key(options: &StartOptions) -> Found {
    match &options.lightning.lightning_public_key {
        Some(_) => good("an RSA public key, by which run tokens are verified"),
        None => lacking("run tokens are not verified: WORKER_LIGHTNING_PUBLIC_KEY is not set"),
    }
}

/// Whether a folder is in a file system in which nobody makes any, though root is told that it may write there.
fn is_of_the_kernel(folder: &Path) -> bool {
    const SYSFS_MAGIC: u64 = 0x6265_6572;
    statfs(folder).is_ok_and(|found| [PROC_SUPER_MAGIC as u64, SYSFS_MAGIC].contains(&(found.f_type as u64)))
}

/// A folder at most two levels below the repo that this user may not write to, as root leaves it there.
fn foreign_folder(repo: &Path) -> Option<PathBuf> {
    let folders = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let upper = folders(repo);
    let lower: Vec<_> = upper.iter().flat_map(|folder| folders(folder)).collect();
    upper.into_iter().chain(lower).find(|folder| access(folder.as_path(), Access::WRITE_OK | Access::EXEC_OK).is_err())
}

/// This process's user and group.
fn own() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// What gives a folder back, if it belongs to somebody else.
fn chown(folder: &Path, repo: &Path) -> String {
    let (own, group) = own();
    match std::fs::metadata(folder).map(|found| found.uid()) {
        Ok(owner) if owner != own => {
            format!("; it belongs to user {owner}: run `chown -R {own}:{group} {}` as root", repo.display())
        }
        _ => String::new(),
    }
}

/// What makes a repo that nothing is seen of, below a folder of others, which stays theirs.
fn make(repo: &Path, there: &Path, can_look: bool, (own, group): (u32, u32)) -> String {
    if can_look {
        format!("; it is missing: run `install -d -o {own} -g {group} {}` as root", repo.display())
    } else {
        format!("; this user may not look into {}", there.display())
    }
}

fn memory(options: &StartOptions) -> Found {
    let with_groups = Means::foresee();
    let without = Means::Watch(None);
    match (&with_groups, options.supervision.cgroups) {
        (Means::Groups, true) => good(with_groups.to_string()),
        (_, true) => lacking(format!("--cgroups is not possible here: {with_groups}")),
        (Means::Groups, false) => good(format!("{without}; control groups are possible here, too: --cgroups")),
        (_, false) => good(format!("{without}; with --cgroups: {with_groups}")),
    }
}

/// Whether engines can be forked, where Node executes runs.
async fn forks(options: &StartOptions) -> Option<Found> {
    if matches!(options.hosts.engine(), Some(EngineKind::Embedded | EngineKind::Mock)) {
        return None;
    }
    let node = NodeProgram::find(options.adaptors.repo.node.as_deref()).await.ok()?;
    let has_landlock = crate::sys::landlock_version().is_some() && !options.supervision.no_landlock;
    let refusal = forking::refusal(&node.version, forking::HAS_PLATFORM, has_landlock);
    Some(match (refusal, options.hosts.node_start) {
        (None, NodeStart::Auto | NodeStart::Fork) => good("Node engines are forked from templates"),
        (None, _) => good("Node engines can be forked from templates: --node-start auto"),
        (Some(why), NodeStart::Fork) => bad(format!("--node-start fork (WORKER_NODE_START) cannot be: {why}")),
        (Some(why), _) => good(format!("Node engines are not forked: {why}")),
    })
}

fn landlock(options: &StartOptions) -> Found {
    const SIGNALS_SINCE: u32 = 6;
    const OPEN: &str = "hosts can use any file that this user can, and runs are refused whose adaptors start processes or \
                        load native code, unless --allow-unconfined-adaptors is set";
    let version = crate::sys::landlock_version();
    match (version, options.supervision.no_landlock) {
        (Some(version), false) => {
            // What adaptors start can end the worker otherwise.
            let signals = if version < SIGNALS_SINCE { "; signals are not restricted before Linux 6.12" } else { "" };
            let told = "hosts read what their engine needs, and write nothing but their folders";
            good(format!("{told} (Landlock version {version}){signals}"))
        }
        (Some(_), true) => lacking(format!("--no-landlock: {OPEN}")),
        (None, _) => lacking(format!("the kernel does not have it: {OPEN}")),
    }
}

fn open_files(options: &StartOptions) -> Found {
    let capacity = start::capacity(options);
    let warm = options.hosts.warm_hosts.unwrap_or(capacity);
    let needed = files_needed(capacity.saturating_add(warm), start::connections(options));
    // As the worker does.
    match raise_files() {
        Some(limit) if limit < needed => {
            bad(format!("{limit} are allowed, and {needed} may be needed: raise the limit (ulimit -n)"))
        }
        Some(limit) => good(format!("{limit} are allowed, {needed} may be needed")),
        None => good("as many as needed"),
    }
}

fn runtime_folder() -> Found {
    match RuntimeDir::create(None) {
        Ok(folder) => {
            let below = folder.path().parent().map_or_else(PathBuf::new, Path::to_path_buf);
            good(format!("sockets and hosts' folders can be made in {}", below.display()))
        }
        Err(error) => bad(error.to_string()),
    }
}

/// The worker that runs here, as `worker ctl` finds it.
async fn running() -> Found {
    let socket = match ctl::find() {
        Ok(socket) => socket,
        Err(FindError::None(_)) => return good("no worker that this user could ask runs here"),
        Err(error) => return good(error.to_string()),
    };
    let mut told = None;
    let take = |answer| {
        told = Some(answer);
        Ok(())
    };
    let asked = timeout(ANSWER, ctl::ask(&socket, &Request::Status, take)).await;
    let socket = socket.display();
    match (asked, told) {
        (Ok(Ok(())), Some(Answer::Status(status))) => {
            let lightning::LightningStatus { joined, active_runs, capacity, .. } = status.lightning;
            let joined = if joined { "has joined Lightning's queue" } else { "has not joined Lightning's queue" };
            let text = format!(
                "worker {} (process {}) {joined}, {active_runs} of {capacity} runs active; {socket}",
                status.version, status.pid
            );
            match status.templates.iter().find_map(|it| Some((&it.engine, it.why.as_ref()?))) {
                Some((engine, why)) => lacking(format!("{text}; {engine} is not forked: {why}")),
                None => good(text),
            }
        }
        (Ok(Err(error)), _) => lacking(error.to_string()),
        (Err(_), _) => lacking(format!("the worker at {socket} did not answer within {ANSWER:?}")),
        (Ok(Ok(())), _) => lacking(format!("the worker at {socket} did not say how it is")),
    }
}

/// One finding for each of its addresses: those that the worker tries.
async fn lightning(options: &StartOptions) -> Vec<Found> {
    let endpoint = &options.lightning.lightning;
    if let Some(finding) = through_proxy(endpoint).await {
        return vec![finding];
    }
    let addresses = match resolve(endpoint.host(), endpoint.port()).await {
        Ok(addresses) => addresses,
        Err(error) => return vec![bad(format!("{endpoint}: {error}"))],
    };
    let mut tried = Vec::new();
    for address in addresses {
        tried.push((address, connect(address).await));
    }
    let is_reachable = tried.iter().any(|(_, result)| result.is_ok());
    let told = tried.into_iter().map(|(address, result)| {
        let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        match result {
            Ok(()) => good(format!("{endpoint} takes connections over {family} ({address})")),
            Err(why) if is_reachable => lacking(format!("{endpoint} over {family} ({address}): {why}")),
            Err(why) if endpoint.to_string() == MOCK_ENDPOINT => {
                let hint = "start it with `worker mock-lightning`";
                bad(format!("{endpoint} over {family} ({address}): {why}; {hint}"))
            }
            Err(why) => bad(format!("{endpoint} over {family} ({address}): {why}")),
        }
    });
    told.collect()
}

/// What a proxy on the way to Lightning does, if there is one. It alone knows Lightning's addresses.
async fn through_proxy(endpoint: &Endpoint) -> Option<Found> {
    let proxy = match endpoint.proxy() {
        Ok(proxy) => proxy?,
        Err(error) => return Some(bad(format!("{endpoint}: {error}"))),
    };
    let opened = timeout(CONNECT, dial(endpoint.host(), endpoint.port(), true)).await;
    Some(match opened {
        Ok(Ok(_)) => good(format!("{endpoint} takes connections through the proxy {proxy} (HTTPS_PROXY)")),
        Ok(Err(error)) => bad(format!("{endpoint}: {error}")),
        Err(_) => bad(format!("{endpoint}: no connection through the proxy {proxy} within {CONNECT:?}")),
    })
}

async fn connect(address: SocketAddr) -> Result<(), String> {
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {CONNECT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_off_as_far_as_tokens_may() {
        for (ahead, verdict, part) in [
            (0, Verdict::Good, "to the second"),
            (-1, Verdict::Good, "to the second"),
            (3, Verdict::Good, "3 s ahead"),
            (-5, Verdict::Good, "5 s behind"),
            (-6, Verdict::Bad, "6 s behind"),
            (120, Verdict::Bad, "120 s ahead"),
            (i64::MIN, Verdict::Bad, "behind"),
        ] {
            let (found, text) = told_of_clocks(ahead);
            assert!(found == verdict && text.contains(part), "{ahead}: {found:?} {text}");
        }
    }

    #[test]
    fn a_missing_repo_is_made_and_the_folders_above_it_stay_whose_they_are() {
        let (repo, there) = (Path::new("/var/lib/private/worker/repo"), Path::new("/var/lib/private"));
        let table = [
            (true, "; it is missing: run `install -d -o 997 -g 996 /var/lib/private/worker/repo` as root"),
            (false, "; this user may not look into /var/lib/private"),
        ];
        for (can_look, expected) in table {
            assert_eq!(make(repo, there, can_look, (997, 996)), expected);
        }
    }
}
