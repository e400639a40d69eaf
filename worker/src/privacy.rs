//! Keeps the worker's secrets from other processes of its user, hosts and the users' code in them above all.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::sys;

/// Takes these variables' values out of the environment that the system shows of this process. To be called when the
/// values have been read, while there is one thread.
///
/// What a system cannot do is left out, here and below: `worker doctor` tells.
pub fn erase(secret_variables: &[String]) {
    sys::erase_variables(secret_variables);
}

/// Keeps what this process has open from the processes that it starts: whoever started it may have left it more than it
/// knows of.
pub fn keep_descriptors() {
    sys::keep_descriptors();
}

/// Forbids others of the same user to look into the memory of this process.
pub fn close() {
    // Only for a core file does this make a difference that somebody could miss.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
