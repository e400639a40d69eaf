//! The kinds of engines that a host can start.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::engine::EngineSpec;
use protocol::message::{BeTemplate, HostNotice, Prepare, Refusal, RefusalCode};

use crate::adoption::Adoption;
use crate::compile::Places;
use crate::engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use crate::engine::node::{Forks, NodeEngine, NodeOptions, Template, TemplateOptions};
use crate::engine::{ConditionCall, ConditionEnd, Engine, EngineLost, Exports, JobCall, JobEnd, LogSink};
use crate::host::EngineStarter;

/// All of them.
#[derive(Debug, Clone)]
pub struct Engines {
    /// Where engines that are processes get their private folders.
    pub folder: PathBuf,
    /// How much a run may write, in bytes. None if nobody counts.
    pub scratch_bytes: Option<u64>,
    /// What it takes to have engines forked.
    pub forks: Forks,
    /// Who is told how engines end that were forked.
    pub adoption: Adoption,
}

impl EngineStarter for Engines {
    type Engine = AnyEngine;

    fn start(
        &self,
        wanted: &Prepare,
        log: Arc<dyn LogSink>,
    ) -> impl Future<Output = Result<AnyEngine, EngineLost>> + Send + 'static {
        let Prepare { engine, memory_bytes } = wanted.clone();
        let (folder, scratch_bytes, forks) = (self.folder.clone(), self.scratch_bytes, Some(self.forks.clone()));
        async move {
            match engine {
                EngineSpec::Embedded => {
                    EmbeddedEngine::start(EmbeddedOptions { memory_bytes }, log).map(|(it, _)| AnyEngine::Embedded(it))
                }
                EngineSpec::Handler(module) => {
                    Err(EngineLost::Failed(format!("{} is a handler and runs no jobs", module.name)))
                }
                EngineSpec::Node(spec) => {
                    let options = NodeOptions { spec, memory_bytes, folder, scratch_bytes, forks };
                    let started = NodeEngine::start(options, log).await;
                    started.map(|engine| AnyEngine::Node(Box::new(engine)))
                }
            }
        }
    }

    fn become_template(
        &self,
        host: &str,
        wanted: BeTemplate,
    ) -> impl Future<Output = Result<Template, Refusal>> + Send + 'static {
        let Self { folder, forks, .. } = self.clone();
        let host = host.to_owned();
        async move {
            let BeTemplate { engine, memory_bytes, variables } = wanted;
            let (EngineSpec::Node(spec), Some(runs)) = (engine, folder.parent()) else {
                return Err(Refusal::new(RefusalCode::WrongState, NO_TEMPLATE));
            };
            let runs = runs.to_owned();
            let options = TemplateOptions { spec, memory_bytes, variables, host, folder, runs, forks };
            Template::start(options).await.map_err(|error| Refusal::failed(&error))
        }
    }

    fn hear(&self, notice: HostNotice) {
        match notice {
            HostNotice::EngineEnded(ended) => self.adoption.ended(ended),
            // There is nothing else that an engine host is to be told.
            HostNotice::Custom(_) => {}
        }
    }
}

/// Why there can be no template.
const NO_TEMPLATE: &str = "only Node has templates, and only where its host works in a folder among others";

/// An engine of any kind.
#[derive(Debug)]
pub enum AnyEngine {
    /// The one inside of the host.
    Embedded(EmbeddedEngine),
    /// Node.
    Node(Box<NodeEngine>),
}

/// What `$call` comes to for the engine that `$self` is.
macro_rules! whichever {
    ($self:ident, $engine:ident => $call:expr) => {
        match $self {
            Self::Embedded($engine) => $call,
            Self::Node($engine) => $call,
        }
    };
}

impl Engine for AnyEngine {
    fn version(&self) -> (String, String) {
        whichever!(self, engine => engine.version())
    }

    fn exports(&self, adaptor: &str) -> Exports {
        whichever!(self, engine => engine.exports(adaptor))
    }

    fn places(&self) -> Places {
        whichever!(self, engine => engine.places())
    }

    fn is_lost(&mut self) -> bool {
        whichever!(self, engine => engine.is_lost())
    }

    fn peak_heap_bytes(&self) -> Option<u64> {
        whichever!(self, engine => engine.peak_heap_bytes())
    }

    fn take_peak_resident_bytes(&mut self) -> u64 {
        whichever!(self, engine => engine.take_peak_resident_bytes())
    }

    async fn run_job(&mut self, job: JobCall) -> Result<JobEnd, EngineLost> {
        whichever!(self, engine => engine.run_job(job).await)
    }

    async fn test(&mut self, condition: ConditionCall) -> Result<ConditionEnd, EngineLost> {
        whichever!(self, engine => engine.test(condition).await)
    }
}
