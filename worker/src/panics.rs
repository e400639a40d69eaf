//! No panic goes unnoticed: each is counted and logged, whatever task or thread it ends.

use std::panic;

use tracing::{dispatcher, error};

use base::metrics::metrics;

/// Logs and counts panics from now on. Those before logging has started are printed as Rust prints them.
pub fn report() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        metrics().panics.inc();
        if !dispatcher::has_been_set() {
            return default(panic);
        }
        let message = panic.payload_as_str().unwrap_or("(no message)");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        error!(%location, "a part of the worker panicked: {message}. This is a bug in the worker; please report it");
    }));
}
