//! What a host forbids itself before it takes any run. The worker says it in the host's environment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Environment variable of a host: its [`Confinement`], as JSON. The host removes it.
pub const CONFINEMENT_VARIABLE: &str = "ENGINE_HOST_CONFINEMENT";

/// Limits of a host and of all that it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Files that each process may have open.
    pub open_files: Option<u64>,
    /// Processes and threads beyond those that the user has when the host starts.
    pub processes: Option<u64>,
    /// What a run may have written at a time, in bytes: all its files together, and each of them. None if nobody counts.
    pub scratch_bytes: Option<u64>,
    /// What may be read, with everything else forbidden that the host's own folder does not hold, as far as the kernel
    /// can. None if nothing is forbidden.
    pub readable: Option<Vec<PathBuf>>,
    /// Folders that hold packages: what the links of those lead to may be read as well, wherever it is.
    #[serde(default)]
    pub packages: Vec<PathBuf>,
    /// Whether it is not for the host itself, but for what is forked from what it starts.
    #[serde(default)]
    pub is_of_forks: bool,
}
