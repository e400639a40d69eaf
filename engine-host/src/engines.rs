//! The kinds of engines that a host can start.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::engine::EngineSpec;
use protocol::message::Prepare;

use crate::compile::Places;
use crate::engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use crate::engine::node::{NodeEngine, NodeOptions};
use crate::engine::{ConditionCall, ConditionEnd, Engine, EngineLost, Exports, JobCall, JobEnd, LogSink};
use crate::host::EngineStarter;

/// All of them.
#[derive(Debug, Clone)]
pub struct Engines {
    /// Where engines that are processes get their private folders.
    pub folder: PathBuf,
    /// How much a run may write, in bytes. None if nobody counts.
    pub scratch_bytes: Option<u64>,
}

impl EngineStarter for Engines {
    type Engine = AnyEngine;

    fn start(
        &self,
        wanted: &Prepare,
        log: Arc<dyn LogSink>,
    ) -> impl Future<Output = Result<AnyEngine, EngineLost>> + Send + 'static {
        let Prepare { engine, memory_bytes } = wanted.clone();
        let (folder, scratch_bytes) = (self.folder.clone(), self.scratch_bytes);
        async move {
            match engine {
                EngineSpec::Embedded => {
                    EmbeddedEngine::start(EmbeddedOptions { memory_bytes }, log).map(|(it, _)| AnyEngine::Embedded(it))
                }
                EngineSpec::Handler(module) => {
                    Err(EngineLost::Failed(format!("{} is a handler and runs no jobs", module.name)))
                }
                EngineSpec::Node(spec) => {
                    let started =
                        NodeEngine::start(NodeOptions { spec, memory_bytes, folder, scratch_bytes }, log).await;
                    started.map(|engine| AnyEngine::Node(Box::new(engine)))
                }
            }
        }
    }
}

/// An engine of any kind.
#[derive(Debug)]
pub enum AnyEngine {
    /// The one inside of the host.
    Embedded(EmbeddedEngine),
    /// Node.
    Node(Box<NodeEngine>),
}

impl Engine for AnyEngine {
    fn version(&self) -> (String, String) {
        match self {
            Self::Embedded(engine) => engine.version(),
            Self::Node(engine) => engine.version(),
        }
    }

    fn exports(&self, adaptor: &str) -> Exports {
        match self {
            Self::Embedded(engine) => engine.exports(adaptor),
            Self::Node(engine) => engine.exports(adaptor),
        }
    }

    fn places(&self) -> Places {
        match self {
            Self::Embedded(engine) => engine.places(),
            Self::Node(engine) => engine.places(),
        }
    }

    fn is_lost(&mut self) -> bool {
        match self {
            Self::Embedded(engine) => engine.is_lost(),
            Self::Node(engine) => engine.is_lost(),
        }
    }

    fn peak_heap_bytes(&self) -> Option<u64> {
        match self {
            Self::Embedded(engine) => engine.peak_heap_bytes(),
            Self::Node(engine) => engine.peak_heap_bytes(),
        }
    }

    fn take_peak_resident_bytes(&mut self) -> u64 {
        match self {
            Self::Embedded(engine) => engine.take_peak_resident_bytes(),
            Self::Node(engine) => engine.take_peak_resident_bytes(),
        }
    }

    async fn run_job(&mut self, job: JobCall) -> Result<JobEnd, EngineLost> {
        match self {
            Self::Embedded(engine) => engine.run_job(job).await,
            Self::Node(engine) => engine.run_job(job).await,
        }
    }

    async fn test(&mut self, condition: ConditionCall) -> Result<ConditionEnd, EngineLost> {
        match self {
            Self::Embedded(engine) => engine.test(condition).await,
            Self::Node(engine) => engine.test(condition).await,
        }
    }
}
