//! What is told of runs while they go on, for whoever watches the worker. Never users' data.

mod timeline;

pub use timeline::{Phase, RunView, StepView, Timeline, subscribe};
