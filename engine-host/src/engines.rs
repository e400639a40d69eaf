//! The kinds of engines that a host can start.

use std::sync::Arc;

use crate::engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use crate::engine::{EngineLost, LogSink};
use crate::host::EngineStarter;

/// The JavaScript engine inside of the host.
#[derive(Debug, Clone, Copy)]
pub struct Embedded;

impl EngineStarter for Embedded {
    type Engine = EmbeddedEngine;

    fn start(&self, memory_bytes: u64, log: Arc<dyn LogSink>) -> Result<EmbeddedEngine, EngineLost> {
        EmbeddedEngine::start(EmbeddedOptions { memory_bytes }, log).map(|(engine, _)| engine)
    }
}
