//! `worker adaptors`: a repo of adaptors is filled, shown and cleared by hand, as for images that are built ahead.

use std::collections::HashMap;
use std::fmt::Write as _;

use base::node::NodeProgram;
use futures_util::future::join_all;
use hosts::{self, Broker, HostProgram, HostsOptions};
use protocol::engine::Adaptor;
use protocol::install::{InstalledAdaptor, KnownSnapshot, SnapshotOutcome, Surveyed};

use super::progress::Watcher;
use super::{Adaptors, AdaptorsOptions, Refused, RepoError, Wanted};

use crate::cli::{AdaptorsCommand, RepoCommandArgs};
use crate::ctl;
use crate::embedded::EMBEDDED;
use crate::engines::ChoiceError;
use crate::start::StartError;

/// How long hosts may take to stop.
const STOP: std::time::Duration = std::time::Duration::from_secs(5);

/// Something about the repo was not done.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// There is nothing to do it with.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An adaptor cannot be had.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What is to be installed is no adaptor.
    #[error("{0} is no adaptor: only packages of @openfn can be installed, such as @openfn/language-http")]
    NoAdaptor(String),
    /// What was to be done with the repo failed.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// Some adaptors were not installed: each with the reason, in one line.
    #[error("{0}")]
    NotInstalled(String),
}

impl ManageError {
    /// Whether other options would help.
    pub fn is_about_options(&self) -> bool {
        match self {
            Self::Start(error) => error.is_about_options(),
            Self::NoAdaptor(_) | Self::Refused(Refused::Unreadable { .. }) => true,
            Self::Refused(_) | Self::Repo(_) | Self::NotInstalled(_) => false,
        }
    }
}

/// Does what is asked, and returns what is to be printed.
pub async fn run(command: AdaptorsCommand) -> Result<String, ManageError> {
    let shows_progress = command.shows_progress();
    match command {
        AdaptorsCommand::Install { adaptors, repo } => {
            // Before anything is started: what may not be installed needs nobody to say so.
            let wanted = adaptors.iter().map(|text| read(text)).collect::<Result<Vec<_>, _>>()?;
            if !shows_progress {
                return with(&repo, None, async |repo| install(repo, &wanted).await).await;
            }
            let (watcher, drawing) = Watcher::on_terminal();
            let done = with(&repo, Some(watcher), async |repo| install(repo, &wanted).await).await;
            // It ends with the last of those that tell it something. It cannot panic.
            let _ = drawing.await;
            done
        }
        AdaptorsCommand::List { repo } => {
            with(&repo, None, async |repo| Ok(table(&repo.survey().await?, repo.has_snapshots()))).await
        }
        AdaptorsCommand::Prune { keep, repo } => {
            with(&repo, None, async |repo| {
                let pruned = repo.prune(keep).await?;
                let lines: String = pruned.removed.iter().map(|what| format!("removed {what}\n")).collect();
                Ok(match pruned.removed.is_empty() {
                    true => "nothing to remove\n".to_owned(),
                    false => format!("{lines}{} freed\n", ctl::megabytes(pruned.bytes)),
                })
            })
            .await
        }
    }
}

fn read(text: &str) -> Result<Wanted, ManageError> {
    Wanted::read(text).map_err(|refused| match refused {
        Refused::Blacklisted(name) => ManageError::NoAdaptor(name),
        other => other.into(),
    })
}

async fn with(
    arguments: &RepoCommandArgs,
    watcher: Option<Watcher>,
    work: impl AsyncFnOnce(&Adaptors) -> Result<String, ManageError>,
) -> Result<String, ManageError> {
    let program = HostProgram::find(arguments.engine_host.as_deref(), EMBEDDED).map_err(StartError::from)?;
    let node = NodeProgram::find(arguments.repo.node.as_deref()).await;
    let node = node.map_err(|error| StartError::Options(format!("{error}. Name one by --node or WORKER_NODE")))?;
    let options =
        AdaptorsOptions::new(&arguments.repo, &[], node).map_err(ChoiceError::from).map_err(StartError::from)?;
    let options = AdaptorsOptions { watcher, ..options };
    let broker = Broker::start(None).map_err(|error| StartError::Hosts(hosts::StartError::from(error)))?;
    let adaptors = Adaptors::start(&broker, &HostsOptions::new(program), options).await.map_err(StartError::Hosts)?;
    let done = work(&adaptors).await;
    broker.shutdown(STOP).await;
    done
}

/// Installs all, then makes a snapshot of each and one of all together where Node can. What failed is told
/// when all were tried.
async fn install(repo: &Adaptors, wanted: &[Wanted]) -> Result<String, ManageError> {
    let installed = join_all(wanted.iter().map(|wanted| repo.get(wanted))).await;
    let refused = installed.iter().filter_map(|installed| Some(installed.as_ref().err()?.to_string()));
    let refused = refused.collect::<Vec<_>>().join("; ");
    let installed: Vec<Adaptor> = installed.into_iter().flatten().collect();
    let mut sets: Vec<Vec<Adaptor>> = installed.iter().map(|adaptor| vec![adaptor.clone()]).collect();
    if installed.len() > 1 {
        sets.push(installed.clone());
    }
    let has_snapshots = repo.has_snapshots();
    for set in sets.into_iter().filter(|_| has_snapshots) {
        repo.make_snapshot(set).await?;
    }
    if !refused.is_empty() {
        return Err(ManageError::NotInstalled(refused));
    }
    let specifiers: Vec<String> = installed.iter().map(Adaptor::specifier).collect();
    let mut surveyed = repo.survey().await?;
    surveyed.adaptors.retain(|it| specifiers.contains(&it.adaptor.specifier()));
    Ok(table(&surveyed, has_snapshots))
}

/// The column of numbers, which stand below its last letter.
const EXPORTS: &str = "exports";

/// What is installed, a line each: the name, how it is loaded, and why not better. Of snapshots it speaks where Node
/// makes any.
fn table(surveyed: &Surveyed, has_snapshots: bool) -> String {
    let snapshots = if has_snapshots { surveyed.snapshots.as_slice() } else { &[] };
    let alone: HashMap<&str, &KnownSnapshot> = snapshots
        .iter()
        .filter_map(|known| match known.adaptors.as_slice() {
            [one] => Some((one.as_str(), known)),
            _ => None,
        })
        .collect();
    let mut rows: Vec<_> = surveyed.adaptors.iter().map(|it| row(it, &alone, has_snapshots)).collect();
    rows.sort();
    let mut text = ctl::table(&["adaptor", "loads", EXPORTS, "why not better"], rows);
    let sets = snapshots.iter().filter(|known| known.adaptors.len() > 1);
    for known in sets {
        let set = known.adaptors.join(" + ");
        let _ = match &known.outcome {
            SnapshotOutcome::Made(_) => writeln!(text, "snapshot of {set}"),
            SnapshotOutcome::Impossible(why) => writeln!(text, "no snapshot of {set}: {why}"),
        };
    }
    text
}

fn row(installed: &InstalledAdaptor, snapshots: &HashMap<&str, &KnownSnapshot>, has_snapshots: bool) -> [String; 4] {
    let name = installed.adaptor.specifier();
    let outcome = snapshots.get(name.as_str()).map(|known| &known.outcome);
    let (loads, why) = match (&installed.adaptor.bundle, outcome) {
        (None, _) => ("installed", installed.unbundled.clone().unwrap_or_default()),
        (Some(_), Some(SnapshotOutcome::Made(_))) => ("snapshot", String::new()),
        (Some(_), Some(SnapshotOutcome::Impossible(why))) => ("bundle", why.clone()),
        (Some(_), None) if !has_snapshots => ("bundle", String::new()),
        (Some(_), None) => match installed.reads.as_deref().unwrap_or_default() {
            [] => ("bundle", "no snapshot was made yet".to_owned()),
            reads => ("bundle", format!("it reads {} when it is imported: no snapshot can have it", reads.join(", "))),
        },
    };
    let exports = installed.adaptor.exports.as_ref().map_or_else(|| "?".to_owned(), |names| names.len().to_string());
    [name, loads.to_owned(), format!("{exports:>0$}", EXPORTS.len()), why]
}

#[cfg(test)]
mod tests {
    use protocol::engine::Needs;

    use super::*;

    #[test]
    fn each_adaptor_is_told_with_how_it_loads_and_why() {
        let adaptor = |name: &str, bundle: bool, unbundled: Option<&str>| InstalledAdaptor {
            adaptor: Adaptor {
                name: name.into(),
                version: "1.0.0".into(),
                folder: "/x".into(),
                bundle: bundle.then(|| "/x/bundle.cjs".into()),
                exports: bundle.then(|| vec!["fn".into()]),
                needs: Needs::default(),
            },
            prepared: bundle,
            unbundled: unbundled.map(str::to_owned),
            reads: (name == "fresh").then(|| vec!["Date.now".into(), "process.pid".into()]),
        };
        let known = |names: &[&str], outcome| KnownSnapshot {
            adaptors: names.iter().map(|name| (*name).to_owned()).collect(),
            outcome,
        };
        let surveyed = Surveyed {
            adaptors: vec![
                adaptor("snap", true, None),
                adaptor("bundled", true, None),
                adaptor("raw", false, Some("native")),
                adaptor("new", true, None),
                adaptor("fresh", true, None),
            ],
            snapshots: vec![
                known(&["snap@1.0.0"], SnapshotOutcome::Made("/s".into())),
                known(&["bundled@1.0.0"], SnapshotOutcome::Impossible("uses wasm".into())),
                known(&["bundled@1.0.0", "snap@1.0.0"], SnapshotOutcome::Made("/t".into())),
            ],
        };
        let expected = "\
adaptor        loads      exports  why not better
bundled@1.0.0  bundle           1  uses wasm
fresh@1.0.0    bundle           1  it reads Date.now, process.pid when it is imported: no snapshot can have it
new@1.0.0      bundle           1  no snapshot was made yet
raw@1.0.0      installed        ?  native
snap@1.0.0     snapshot         1
snapshot of bundled@1.0.0 + snap@1.0.0
";
        assert_eq!(table(&surveyed, true), expected);
        let without = "\
adaptor        loads      exports  why not better
bundled@1.0.0  bundle           1
fresh@1.0.0    bundle           1
new@1.0.0      bundle           1
raw@1.0.0      installed        ?  native
snap@1.0.0     bundle           1
";
        assert_eq!(table(&surveyed, false), without, "a Node without snapshots");
    }
}
