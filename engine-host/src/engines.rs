//! The kinds of engines that a host can start.

use std::sync::Arc;

use protocol::engine::EngineSpec;
use protocol::message::Prepare;

use crate::engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use crate::engine::{EngineLost, LogSink};
use crate::host::EngineStarter;

/// All of them.
#[derive(Debug, Clone, Copy)]
pub struct Engines;

impl EngineStarter for Engines {
    type Engine = EmbeddedEngine;

    fn start(&self, wanted: &Prepare, log: Arc<dyn LogSink>) -> Result<EmbeddedEngine, EngineLost> {
        match &wanted.engine {
            EngineSpec::Embedded => {
                let options = EmbeddedOptions { memory_bytes: wanted.memory_bytes };
                EmbeddedEngine::start(options, log).map(|(engine, _)| engine)
            }
            EngineSpec::Node(_) => Err(EngineLost::Failed("this host has no Node engine".to_owned())),
        }
    }
}
