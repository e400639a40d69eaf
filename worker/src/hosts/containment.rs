//! By what the memory of runs is bounded: the best that there is.

use std::fmt;

use tracing::warn;

use super::cgroup::{CgroupError, Cgroups};
use crate::cli::SupervisionArgs;

/// What bounds runs beside their engine's own limit.
#[derive(Debug, Clone)]
pub enum Containment {
    /// A control group for each host, which bounds the memory of all its processes.
    Groups(Cgroups),
    /// A control group for each host, by which nothing but its end is made sure: memory is not delegated.
    GroupsForKilling(Cgroups),
    /// The host, which watches its engine.
    Watch(Option<String>),
}

impl Containment {
    /// The best that is wanted and that there is.
    pub fn choose(options: &SupervisionArgs) -> Self {
        let chosen = Self::choose_quietly(options);
        if options.cgroups && !matches!(chosen, Self::Groups(_)) {
            warn!("--cgroups (WORKER_ENABLE_CGROUP_ENFORCEMENT) is not possible here: {chosen}");
        }
        chosen
    }

    /// As [`choose`](Self::choose), without a word in the log.
    pub(crate) fn choose_quietly(options: &SupervisionArgs) -> Self {
        if !options.cgroups {
            return Self::Watch(None);
        }
        Self::from_found(Cgroups::find(options.cgroup_memory_overhead_mb.bytes(), options.host_max_processes))
    }

    fn from_found(found: Result<Cgroups, CgroupError>) -> Self {
        match found {
            Ok(cgroups) if cgroups.bound_memory() => Self::Groups(cgroups),
            Ok(cgroups) => Self::GroupsForKilling(cgroups),
            Err(why) => Self::Watch(Some(why.to_string())),
        }
    }

    /// The groups that hosts get.
    pub fn cgroups(&self) -> Option<Cgroups> {
        match self {
            Self::Groups(cgroups) | Self::GroupsForKilling(cgroups) => Some(cgroups.clone()),
            Self::Watch(_) => None,
        }
    }
}

impl fmt::Display for Containment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Groups(_) => out.write_str("memory by a control group for each host, and by the engine's own limit"),
            Self::GroupsForKilling(_) => out.write_str(
                "memory by the engine's own limit and by the host that watches it; a control group for each host only \
                 ends its processes (the memory controller is not delegated)",
            ),
            Self::Watch(why) => {
                out.write_str("memory by the engine's own limit and by the host that watches it")?;
                why.as_ref().map_or(Ok(()), |why| write!(out, " ({why})"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_possible_is_told_with_its_reason() {
        let chosen = Containment::from_found(Err(CgroupError::None));
        assert!(chosen.cgroups().is_none());
        assert!(chosen.to_string().contains("no cgroup v2"), "{chosen}");
        assert!(!Containment::Watch(None).to_string().contains('('));
    }
}
