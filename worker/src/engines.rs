//! The engines that execute runs, and what has to be in place for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::try_join_all;
use protocol::engine::{Adaptor, EngineSpec, NodeSpec};
use protocol::message::Prepare;
use protocol::run::{Exit, RunSpec, Step};
use tracing::warn;

use crate::adaptors::{Adaptors, AdaptorsOptions, NodeProgram, Refused, Wanted};
use crate::cli::{EngineKind, RepoArgs};
use crate::execution::{Executor, Reservation, ReserveError};
use crate::hosts::Hosts;

/// The adaptor of jobs that name none.
const DEFAULT_ADAPTOR: &str = "@openfn/language-common";

/// Engine hosts and, where runs are executed on Node, the adaptors for them.
#[derive(Debug, Clone)]
pub struct Engines {
    hosts: Arc<Hosts>,
    adaptors: Option<Adaptors>,
}

impl Engines {
    /// Hosts that run jobs in the embedded engine.
    pub fn embedded(hosts: Arc<Hosts>) -> Self {
        Self { hosts, adaptors: None }
    }

    /// Hosts that run jobs on Node, with these adaptors.
    pub fn node(hosts: Arc<Hosts>, adaptors: Adaptors) -> Self {
        Self { hosts, adaptors: Some(adaptors) }
    }
}

impl Executor for Engines {
    async fn equip(&self, spec: &mut RunSpec) -> Result<(), Exit> {
        match &self.adaptors {
            None => Ok(()),
            Some(adaptors) => equip_node(adaptors, spec).await.map_err(|refused| refused.exit()),
        }
    }

    async fn reserve(&self, wanted: Prepare) -> Result<Reservation, ReserveError> {
        self.hosts.reserve(wanted).await
    }
}

/// Chooses the engine: the one that is named, else Node where there is one that can be used. Returns what Node needs,
/// none for the embedded engine. An error says what would be right.
pub async fn choose(
    named: Option<EngineKind>,
    repo: &RepoArgs,
    monorepos: &[PathBuf],
) -> Result<Option<AdaptorsOptions>, String> {
    if named == Some(EngineKind::Embedded) {
        return Ok(None);
    }
    match NodeProgram::find(repo.node.as_deref()).await {
        Ok(node) => AdaptorsOptions::new(repo, monorepos, node).map(Some),
        Err(error) if named.is_none() && repo.node.is_none() => {
            warn!(
                "{error}, so jobs run in the embedded engine: it has the core operations of {DEFAULT_ADAPTOR} and no \
                 other adaptor. Say --engine embedded if that is meant, or name a Node by --node (WORKER_NODE)"
            );
            Ok(None)
        }
        Err(error) => Err(format!("--engine node needs a Node, named by --node (WORKER_NODE) or on the PATH: {error}")),
    }
}

async fn equip_node(adaptors: &Adaptors, spec: &mut RunSpec) -> Result<(), Refused> {
    let wanted = wanted(&spec.steps)?;
    let found = try_join_all(
        wanted
            .iter()
            .map(|(text, wanted)| async move { Ok::<_, Refused>((text.clone(), adaptors.get(wanted).await?)) }),
    );
    let found: HashMap<String, Adaptor> = found.await?.into_iter().collect();
    for step in with_code(&mut spec.steps) {
        let exact = adaptors_of(step).into_iter().filter_map(|text| Some(found.get(&text)?.specifier()));
        step.adaptors = exact.collect();
    }
    let unique: BTreeMap<String, Adaptor> = found.into_values().map(|adaptor| (adaptor.specifier(), adaptor)).collect();
    let adaptors_of_run: Vec<Adaptor> = unique.into_values().collect();
    let (program, version) = adaptors.node();
    let snapshot = adaptors.snapshot(&adaptors_of_run).await;
    spec.engine = EngineSpec::Node(NodeSpec { program, version, adaptors: adaptors_of_run, snapshot });
    Ok(())
}

/// What the steps with code need, each once. The first thing that is refused is told before anything is fetched.
fn wanted(steps: &[Step]) -> Result<Vec<(String, Wanted)>, Refused> {
    let named: BTreeSet<String> = steps.iter().filter(|step| step.expression.is_some()).flat_map(adaptors_of).collect();
    named.into_iter().map(|text| Wanted::read(&text).map(|wanted| (text, wanted))).collect()
}

fn with_code(steps: &mut [Step]) -> impl Iterator<Item = &mut Step> {
    steps.iter_mut().filter(|step| step.expression.is_some())
}

fn adaptors_of(step: &Step) -> Vec<String> {
    if step.adaptors.is_empty() { vec![DEFAULT_ADAPTOR.to_owned()] } else { step.adaptors.clone() }
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
    fn each_adaptor_is_wanted_once_and_jobs_without_one_get_the_common_one() {
        let steps = [
            step(None, &["left-pad@1.0.0"]),
            step(Some("get('/')"), &["@openfn/language-http@latest"]),
            step(Some("get('/')"), &["@openfn/language-http@latest", "@openfn/language-common"]),
            step(Some("fn(s => s)"), &[]),
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
