//! `worker demo`: one workflow, a small Lightning, the worker and a host, all started and stopped here.

mod printer;

pub use printer::Printer;
