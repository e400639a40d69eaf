//! Looks after a repo of adaptors: installs them with npm, gets them ready to be loaded quickly, knows what is there.
//!
//! Owns the layout of a repo. Whatever happens, and whenever this process is killed, nothing that is unfinished counts
//! as installed: things are made in a folder of their own and get their name when they are complete. Decides nothing
//! about which adaptors and versions are wanted. Code of adaptors runs in Node processes of its own here, never in
//! this one.

mod adaptor;
mod bundle;
mod files;
mod layout;
mod lock;
mod npm;
mod process;
mod process_id;
mod prune;
mod record;
mod reference;
mod retry;
mod snapshot;
mod survey;
mod tags;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::install::{InstallerReply, InstallerRequest, Progress, Repo};
use protocol::link::{HostSide, Link, Responder};
use protocol::message::{HostReply, Refusal, RefusalCode, WorkerNotice};
use rustix::process::{getegid, geteuid};
use tokio::task::JoinSet;

use self::layout::Layout;
use self::lock::Lock;
use self::npm::NpmFailure;

/// What a host does that looks after a repo: any number of things at once.
#[derive(Debug, Default)]
pub struct Installer {
    tasks: JoinSet<()>,
}

impl Installer {
    /// Does what is asked, and answers when it is done. Reports progress over the link.
    pub fn take(&mut self, request: InstallerRequest, link: Link<HostSide>, responder: Responder<HostSide>) {
        self.tasks.spawn(async move {
            match perform(request, link).await {
                Ok(reply) => responder.reply(HostReply::Installer(reply)),
                Err(failure) => responder.refuse(failure.into()),
            }
        });
    }

    /// Whether everything is done.
    pub fn is_done(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until one of the things is done; for ever if there is none.
    pub async fn one_done(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending().await
        }
    }
}

async fn perform(request: InstallerRequest, link: Link<HostSide>) -> Result<InstallerReply, Failure> {
    let workshop = |repo| Workshop::new(repo, link);
    Ok(match request {
        InstallerRequest::Survey(it) => InstallerReply::Surveyed(survey::survey(&workshop(it.repo))),
        InstallerRequest::Resolve(it) => InstallerReply::Resolved(tags::resolve(&workshop(it.repo), &it.name).await?),
        InstallerRequest::Install(it) => {
            InstallerReply::Installed(adaptor::install(&workshop(it.repo), &it.name, &it.version).await?)
        }
        InstallerRequest::MakeSnapshot(it) => {
            InstallerReply::Snapshotted(snapshot::make(&workshop(it.repo), it.adaptors).await?)
        }
        InstallerRequest::Prune(it) => InstallerReply::Pruned(prune::prune(&workshop(it.repo), it.versions).await?),
    })
}

/// Where this process works. The worker removes it when the process has ended, whatever ended it.
const OWN_FOLDER: &str = ".";

/// A repo that something is done to.
struct Workshop {
    repo: Repo,
    layout: Layout,
    link: Link<HostSide>,
}

impl Workshop {
    fn new(repo: Repo, link: Link<HostSide>) -> Self {
        Self { layout: Layout::of(&repo.folder), repo, link }
    }

    /// Tells the worker how far something has come.
    async fn tell(&self, what: impl fmt::Display) {
        // When the link has ended so has this process, in a moment.
        let _ = self.link.notify(WorkerNotice::Progress(Progress { what: what.to_string() })).await;
    }

    /// Waits until no other process does something to `thing`.
    async fn lock(&self, thing: &str) -> Result<Lock, Failure> {
        if !self.repo.lock {
            return Ok(Lock::Unlocked);
        }
        let path = self.layout.lock(thing);
        let link = self.link.clone();
        let what = format!("{thing}: another process is at it; waiting");
        let on_wait = || {
            tokio::spawn(async move { link.notify(WorkerNotice::Progress(Progress { what })).await });
        };
        Lock::acquire(&path, on_wait).await.map_err(|source| Failure::io(path, &source))
    }
}

/// Something was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// npm did not do its part.
    #[error(transparent)]
    Npm(#[from] NpmFailure),
    /// Something in the repo cannot be read or written.
    #[error("{}: {why}", .path.display())]
    Disk { path: PathBuf, why: String },
    /// Anything else, in one line.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        let path = path.into();
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => whose(&path).map_or_else(String::new, |whose| format!("; {whose}")),
            _ => String::new(),
        };
        Self::Disk { why: format!("{error}{remedy}"), path }
    }
}

/// Whose the part of the repo is that this process may not write to, and what mends that: `npm` and the worker, run by
/// root, leave files of root in it.
fn whose(path: &Path) -> Option<String> {
    let (own, group) = (geteuid().as_raw(), getegid().as_raw());
    let repo = path.ancestors().filter(|folder| folder.ends_with(layout::OWN)).last().and_then(Path::parent);
    let there = path.ancestors().find_map(|folder| Some((folder, std::fs::symlink_metadata(folder).ok()?.uid())));
    let (folder, owner) = there.filter(|(_, owner)| *owner != own)?;
    let repo = repo.unwrap_or(path).display();
    let folder = folder.display();
    Some(format!(
        "{folder} belongs to user {owner}, and this is user {own}: run `chown -R {own}:{group} {repo}` as root"
    ))
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::Npm(failure) if failure.is_registry_trouble() => RefusalCode::RegistryDown,
            _ => RefusalCode::Failed,
        };
        Self::new(code, failure.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn a_repo_of_another_user_is_told_with_what_mends_it() {
        let repo = tempfile::tempdir().unwrap();
        let locks = repo.path().join(layout::OWN).join("locks");
        std::fs::create_dir_all(&locks).unwrap();
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let told = |error: &std::io::Error| Failure::io(locks.join("missing"), error).to_string();
        assert!(!told(&denied).contains("chown"), "it is this user's own");
        if !geteuid().is_root() {
            eprintln!("only root can give a folder to another user");
            return;
        }
        chown(&locks, Some(65_534), None).unwrap();
        let command = format!("run `chown -R 0:{} {}` as root", getegid().as_raw(), repo.path().display());
        let text = told(&denied);
        assert!(text.contains("belongs to user 65534, and this is user 0") && text.ends_with(&command), "{text}");
        assert!(!told(&std::io::ErrorKind::StorageFull.into()).contains("chown"));
        // The folder above a repo that cannot be made stays whose it is.
        let above = repo.path().join("above");
        std::fs::create_dir(&above).unwrap();
        chown(&above, Some(65_534), None).unwrap();
        let text = Failure::io(above.join("repo"), &denied).to_string();
        let command = format!("run `chown -R 0:{} {}/repo` as root", getegid().as_raw(), above.display());
        assert!(text.ends_with(&command), "{text}");
    }
}
