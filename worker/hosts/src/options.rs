//! What a pool is told when it is opened, and may be told anew later.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::confinement::{CONFINEMENT_VARIABLE, Confinement};
use protocol::engine::EngineSpec;
use protocol::message::{Prepare, SetEnv};

use super::HostProgram;
use super::answers::Answers;
use super::cgroup::Cgroups;
use super::host::Patience;
use super::policy::{Policy, PoolSize, Recycling};

const MB: u64 = 1024 * 1024;

/// What hosts a pool starts, how many, and how long they may take.
#[derive(Debug, Clone, PartialEq)]
pub struct HostsOptions {
    /// The program, with its arguments.
    pub program: HostProgram,
    /// Variables beside those few of the worker's that every host gets. Users' code may read them.
    pub environment: Vec<(String, String)>,
    /// What hosts forbid themselves.
    pub confinement: Confinement,
    /// Groups that bound each host, where the system lets the worker make some.
    pub cgroups: Option<Cgroups>,
    /// Memory of each host and what it starts, in bytes, where no engine says how much it may use. Bounded by groups only.
    pub memory_bytes: Option<u64>,
    /// What hosts are answered that ask something of their own. Without it, who has borrowed them may answer.
    pub answers: Option<Answers>,
    /// How many hosts.
    pub size: PoolSize,
    /// Memory of the hosts that wait with an engine ready, in bytes.
    pub warm_bytes: u64,
    /// What hosts prepare before any run has said what it wants.
    pub first: Option<Prepare>,
    /// When hosts are replaced.
    pub recycling: Recycling,
    /// How long a host may take to get ready.
    pub start_timeout: Duration,
    /// How long a host may take to exit when asked, before it gets SIGTERM.
    pub stop_timeout: Duration,
    /// How long a host may take to exit when sent SIGTERM, before it gets SIGKILL.
    pub kill_timeout: Duration,
    /// How often a host is asked whether it lives.
    pub ping_every: Duration,
    /// How long a host may take to answer that.
    pub ping_timeout: Duration,
    /// How long the very first host may take to get ready.
    pub validation_timeout: Duration,
    /// How often the first host is started again when it did not get ready.
    pub validation_retries: u32,
}

impl HostsOptions {
    /// Engine hosts of this program, two of them warm, with the limits that the reference worker has.
    pub fn new(program: HostProgram) -> Self {
        Self {
            program,
            environment: Vec::new(),
            confinement: Confinement::default(),
            cgroups: None,
            memory_bytes: None,
            answers: None,
            size: PoolSize::default(),
            warm_bytes: 512 * MB,
            first: Some(Prepare { engine: EngineSpec::Embedded, memory_bytes: 500 * MB }),
            recycling: Recycling::default(),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(2),
            kill_timeout: Duration::from_secs(2),
            ping_every: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(15),
            validation_timeout: Duration::from_secs(5),
            validation_retries: 3,
        }
    }

    /// Hosts of this program that are lent again and again, for whatever they can do: at most `most`, none when
    /// nobody wants one.
    pub fn shared(program: HostProgram, most: usize) -> Self {
        let size = PoolSize::Shared { least: 0, most, idle: Duration::from_secs(30) };
        Self { size, first: None, ..Self::new(program) }
    }

    /// Whether hosts of these options are other hosts than those of `before`, and not only more or fewer, or the same
    /// ones with other variables.
    pub(super) fn starts_others(&self, before: &Self) -> bool {
        self.program != before.program
            || self.confinement != before.confinement
            || self.cgroups != before.cgroups
            || self.memory_bytes != before.memory_bytes
    }

    /// What has changed of the variables since `before`.
    pub(super) fn changed_variables(&self, before: &Self) -> SetEnv {
        let now: BTreeMap<_, _> = self.environment.iter().cloned().collect();
        let then: BTreeMap<_, _> = before.environment.iter().cloned().collect();
        let gone = then.keys().filter(|name| !now.contains_key(*name)).map(|name| (name.clone(), None));
        let set = now.iter().filter(|(name, value)| then.get(*name) != Some(*value));
        let set = set.map(|(name, value)| (name.clone(), Some(value.clone())));
        SetEnv { variables: gone.chain(set).collect() }
    }

    /// All variables that are set for hosts.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let confinement = (self.confinement != Confinement::default())
            .then(|| serde_json::to_string(&self.confinement).ok())
            .flatten()
            .map(|text| (CONFINEMENT_VARIABLE.to_owned(), text));
        self.environment.iter().cloned().chain(confinement).collect()
    }

    pub(super) fn policy(&self) -> Policy {
        Policy {
            size: self.size,
            warm_bytes: self.warm_bytes,
            first: self.first.clone(),
            preparations: preparations(),
            recycling: self.recycling,
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience { start: self.start_timeout, stop: self.stop_timeout, terminate: self.kill_timeout }
    }
}

/// Hosts that may prepare at once while nothing else is to be done: half of the processors' worth.
fn preparations() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_variables_are_those_that_are_new_other_or_gone() {
        let program =
            HostProgram::at(&std::env::current_exe().expect("a process knows its program")).expect("it is one");
        let with = |pairs: &[(&str, &str)]| HostsOptions {
            environment: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..HostsOptions::new(program.clone())
        };
        let (before, after) =
            (with(&[("A", "1"), ("B", "2"), ("C", "3")]), with(&[("B", "4"), ("C", "3"), ("D", "5")]));
        let expected = [("A", None), ("B", Some("4")), ("D", Some("5"))];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)));
        assert_eq!(after.changed_variables(&before).variables, expected.into());
        assert!(!after.starts_others(&before) && before.changed_variables(&before).variables.is_empty());
    }
}
