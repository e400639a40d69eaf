//! What several parts of the worker need, and none of them owns. Knows neither hosts nor where work comes from.

pub mod aside;
pub mod connections;
pub mod deflate;
pub mod dial;
pub mod escape;
pub mod execution;
pub mod folders;
pub mod http;
pub mod metrics;
pub mod node;
pub mod optional;
pub mod processes;
pub mod reconnecting;
pub mod redact;
pub mod room;
pub mod run_log;
pub mod writer;
