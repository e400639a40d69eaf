//! The engines that execute runs, and what has to be in place for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use base::execution::{Executor, Reservation, ReserveError};
use base::node::{NodeError, NodeProgram};
use futures_util::future::try_join_all;
use hosts::{self, Broker, Hosts, HostsOptions};
use protocol::engine::{Adaptor, EngineSpec, ForkOrigin, NodeSpec};
use protocol::message::Prepare;
use protocol::run::{Exit, RunSpec, Step};
use tokio::sync::watch;
use tracing::warn;

use crate::adaptors::{Adaptors, AdaptorsOptions, Refused, RepoPathError, Requirement, Wanted};
use crate::cli::{EngineKind, RepoArgs};

/// The adaptor of jobs that name none, where it is at hand.
const DEFAULT_ADAPTOR: &str = "@openfn/language-common";

/// Stands for what those jobs name.
const NO_ADAPTOR: &str = "";

/// What jobs of the mock engine have beside the core operations, as with the reference worker.
const MOCK_GLOBALS: &str = "export const wait = milliseconds => state => \
                            new Promise(resolve => setTimeout(() => resolve(state), milliseconds));";

/// The engine that the options name cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// There is no Node for it.
    #[error("--engine node needs a Node, named by --node (WORKER_NODE) or on the PATH: {0}")]
    NoNode(#[source] NodeError),
    /// Its adaptors have no place.
    #[error(transparent)]
    Repo(#[from] RepoPathError),
    /// It is not forked here, because of this.
    #[error("--node-start fork (WORKER_NODE_START) cannot be: {0}")]
    NotForked(String),
}

/// Which engine executes runs, with what it needs.
#[derive(Debug, Clone)]
pub enum Choice {
    /// The embedded engine. It refuses jobs whose adaptors it does not have.
    Embedded,
    /// The embedded engine, with the core operations in place of every adaptor.
    Mock,
    /// Node, with the adaptors that jobs name.
    Node(AdaptorsOptions),
}

impl Choice {
    /// What the option `--engine` calls it.
    pub fn name(&self) -> &'static str {
        let kind = match self {
            Self::Embedded => EngineKind::Embedded,
            Self::Mock => EngineKind::Mock,
            Self::Node(_) => EngineKind::Node,
        };
        kind.name()
    }

    /// The same, where runs are refused for this reason whose adaptors nothing would confine.
    pub fn refusing(self, unconfined: Option<&'static str>) -> Self {
        match self {
            Self::Node(adaptors) => Self::Node(AdaptorsOptions { unconfined, ..adaptors }),
            other => other,
        }
    }

    /// What Node needs; none for the others.
    pub fn adaptors(&self) -> Option<&AdaptorsOptions> {
        match self {
            Self::Embedded | Self::Mock => None,
            Self::Node(adaptors) => Some(adaptors),
        }
    }
}

/// What runs get before they are executed.
#[derive(Debug, Clone)]
enum Equipment {
    Nothing,
    Mock,
    Adaptors(Box<Adaptors>),
}

/// Engine hosts and, where runs are executed on Node, the adaptors for them.
#[derive(Debug, Clone)]
pub struct Engines {
    hosts: Arc<Hosts>,
    equipment: Equipment,
}

impl Engines {
    /// Hosts of these options that run jobs in the engine that was chosen. Adaptors are installed by hosts of their own.
    pub async fn start(
        choice: Choice,
        broker: &Broker,
        options: &HostsOptions,
        hosts: Arc<Hosts>,
    ) -> Result<Self, hosts::StartError> {
        let equipment = match choice {
            Choice::Embedded => Equipment::Nothing,
            Choice::Mock => Equipment::Mock,
            Choice::Node(adaptors) => Equipment::Adaptors(Box::new(Adaptors::start(broker, options, adaptors).await?)),
        };
        Ok(Self { hosts, equipment })
    }
}

impl Executor for Engines {
    async fn equip(&self, spec: &mut RunSpec) -> Result<(), Exit> {
        match &self.equipment {
            Equipment::Nothing => Ok(()),
            Equipment::Mock => {
                equip_mock(spec);
                Ok(())
            }
            Equipment::Adaptors(adaptors) => equip_node(adaptors, spec).await.map_err(|refused| refused.exit()),
        }
    }

    fn availability(&self) -> watch::Receiver<bool> {
        self.hosts.availability()
    }

    async fn reserve(&self, wanted: Prepare) -> Result<Reservation, ReserveError> {
        self.hosts.reserve(wanted).await
    }
}

/// Chooses the engine: the one that is named, else Node where there is one that can be used.
pub async fn choose(named: Option<EngineKind>, repo: &RepoArgs, monorepos: &[PathBuf]) -> Result<Choice, ChoiceError> {
    match named {
        Some(EngineKind::Embedded) => return Ok(Choice::Embedded),
        Some(EngineKind::Mock) => return Ok(Choice::Mock),
        Some(EngineKind::Node) | None => {}
    }
    match NodeProgram::find(repo.node.as_deref()).await {
        Ok(node) => Ok(Choice::Node(AdaptorsOptions::new(repo, monorepos, node)?)),
        Err(error) if named.is_none() && repo.node.is_none() => {
            warn!(
                "{error}, so jobs run in the embedded engine: it has the core operations of {DEFAULT_ADAPTOR} and no \
                 other adaptor. Say --engine embedded if that is meant, or name a Node by --node (WORKER_NODE)"
            );
            Ok(Choice::Embedded)
        }
        Err(error) => Err(ChoiceError::NoNode(error)),
    }
}

/// The core operations in place of whatever the jobs name, so that nothing is looked up or installed.
fn equip_mock(spec: &mut RunSpec) {
    for step in with_code(&mut spec.steps) {
        step.adaptors = vec![DEFAULT_ADAPTOR.to_owned()];
    }
    spec.globals.get_or_insert_with(|| MOCK_GLOBALS.to_owned());
}

async fn equip_node(adaptors: &Adaptors, spec: &mut RunSpec) -> Result<(), Refused> {
    let wanted = wanted(&spec.steps)?;
    let found = try_join_all(
        wanted
            .iter()
            .map(|(text, wanted)| async move { Ok::<_, Refused>((text.clone(), adaptors.get(wanted).await?)) }),
    );
    let mut found: HashMap<String, Adaptor> = found.await?.into_iter().collect();
    if with_code(&mut spec.steps).any(|step| step.adaptors.is_empty()) {
        // Without it such a job has no adaptor, which is what it says.
        let default = Wanted { name: DEFAULT_ADAPTOR.to_owned(), requirement: Requirement::Installed };
        found.extend(adaptors.get(&default).await.ok().map(|adaptor| (NO_ADAPTOR.to_owned(), adaptor)));
    }
    for step in with_code(&mut spec.steps) {
        let named = std::mem::take(&mut step.adaptors);
        let named = if named.is_empty() { vec![NO_ADAPTOR.to_owned()] } else { named };
        step.adaptors = named.iter().filter_map(|text| Some(found.get(text)?.specifier())).collect();
    }
    let unique: BTreeMap<String, Adaptor> = found.into_values().map(|adaptor| (adaptor.specifier(), adaptor)).collect();
    let adaptors_of_run: Vec<Adaptor> = unique.into_values().collect();
    adaptors_of_run.iter().try_for_each(|adaptor| adaptors.admit(adaptor))?;
    let (program, version) = adaptors.node();
    let snapshot = adaptors.snapshot(&adaptors_of_run).await;
    spec.engine = EngineSpec::Node(NodeSpec {
        program,
        version,
        adaptors: adaptors_of_run,
        snapshot,
        origin: ForkOrigin::default(),
    });
    Ok(())
}

/// What the steps with code need, each once. The first thing that is refused is told before anything is fetched.
fn wanted(steps: &[Step]) -> Result<Vec<(String, Wanted)>, Refused> {
    let with_code = steps.iter().filter(|step| step.expression.is_some());
    let named: BTreeSet<&String> = with_code.flat_map(|step| &step.adaptors).collect();
    named.into_iter().map(|text| Wanted::read(text).map(|wanted| (text.clone(), wanted))).collect()
}

fn with_code(steps: &mut [Step]) -> impl Iterator<Item = &mut Step> {
    steps.iter_mut().filter(|step| step.expression.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(expression: Option<&str>, adaptors: &[&str]) -> Step {
        Step {
            id: "s".into(),
            name: None,
            expression: expression.map(str::to_owned),
            adaptors: adaptors.iter().map(|name| (*name).to_owned()).collect(),
            configuration: None,
            state: None,
            next: Vec::new(),
        }
    }

    #[test]
    fn each_adaptor_is_wanted_once_and_jobs_without_one_want_none() {
        let steps = [
            step(None, &["left-pad@1.0.0"]),
            step(Some("get('/')"), &["@openfn/language-http@latest"]),
            step(Some("get('/')"), &["@openfn/language-http@latest", "@openfn/language-common"]),
            step(Some("export default [s => s]"), &[]),
        ];
        let wanted = wanted(&steps).unwrap();
        let named: Vec<&str> = wanted.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(named, ["@openfn/language-common", "@openfn/language-http@latest"]);
    }

    #[test]
    fn what_is_not_on_the_whitelist_is_refused_before_anything_is_wanted() {
        let steps = [step(Some("x"), &["@openfn/language-http"]), step(Some("x"), &["left-pad"])];
        assert_eq!(wanted(&steps).unwrap_err(), Refused::Blacklisted("left-pad".into()));
    }
}
