//! By what the memory of runs is bounded: the best that there is.

use tracing::warn;

use super::cgroup::Cgroups;
use super::delegation::{CgroupError, Delegation};

/// What bounds runs beside their engine's own limit.
#[derive(Debug, Clone, PartialEq, Eq, derive_more::Display)]
pub enum Means {
    /// A control group for each host, which bounds the memory of all its processes.
    #[display("memory by a control group for each host, and by the engine's own limit")]
    Groups,
    /// A control group for each host, by which nothing but its end is made sure: memory is not delegated.
    #[display(
        "memory by the engine's own limit and by the host that watches it; a control group for each host only ends its \
         processes (the memory controller is not delegated)"
    )]
    GroupsForKilling,
    /// The host, which watches its engine; and why there are no groups, if some are wanted.
    #[display("memory by the engine's own limit and by the host that watches it{}", in_brackets(_0.as_deref()))]
    Watch(Option<String>),
}

impl Means {
    /// What [`Containment::choose`] is likely to choose where control groups are wanted. Looks, and changes nothing.
    pub fn foresee() -> Self {
        Self::of(Delegation::look().map(|delegation| delegation.has_memory()))
    }

    fn of(bounds_memory: Result<bool, CgroupError>) -> Self {
        match bounds_memory {
            Ok(true) => Self::Groups,
            Ok(false) => Self::GroupsForKilling,
            Err(why) => Self::Watch(Some(why.to_string())),
        }
    }
}

/// What each host's control group allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Memory beyond what the engine may use, in bytes.
    pub overhead_bytes: u64,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// What bounds runs, made.
#[derive(Debug, Clone, derive_more::Display)]
#[display("{means}")]
pub struct Containment {
    means: Means,
    cgroups: Option<Cgroups>,
}

impl Containment {
    /// The best that is wanted and that there is. Makes control groups, if there are `limits` for them.
    pub fn choose(limits: Option<GroupLimits>) -> Self {
        let Some(GroupLimits { overhead_bytes, processes }) = limits else {
            return Self { means: Means::Watch(None), cgroups: None };
        };
        let made = Delegation::look().and_then(|found| Cgroups::make_below(&found, overhead_bytes, processes));
        let (cgroups, means) = match made {
            Ok(cgroups) => (Some(cgroups.clone()), Means::of(Ok(cgroups.bound_memory()))),
            Err(why) => (None, Means::of(Err(why))),
        };
        if means != Means::Groups {
            warn!("--cgroups (WORKER_ENABLE_CGROUP_ENFORCEMENT) is not possible here: {means}");
        }
        Self { means, cgroups }
    }

    /// The groups that hosts get.
    pub fn cgroups(&self) -> Option<Cgroups> {
        self.cgroups.clone()
    }
}

fn in_brackets(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_possible_is_told_with_its_reason() {
        let chosen = Means::of(Err(CgroupError::None));
        assert!(chosen.to_string().contains("no cgroup v2"), "{chosen}");
        assert!(!Means::Watch(None).to_string().contains('('));
    }
}
