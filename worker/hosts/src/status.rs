//! What the pool tells of itself.

use std::sync::Arc;
use std::time::Duration;

use base::processes::resident_tree;
use protocol::Json;
use protocol::engine::EngineSpec;
use protocol::message::{OpsReport, Prepare};
use strum::{IntoStaticStr, VariantArray};

use super::death::Death;
use super::policy::PoolSize;

/// Something that happened in the pool, for whoever subscribed.
#[derive(Debug, Clone, PartialEq)]
pub enum HostEvent {
    /// A host's process was started.
    Started {
        /// The host's id.
        host: String,
        /// Its process.
        pid: u32,
    },
    /// A host is ready, the first time or with another engine.
    Ready {
        /// The host's id.
        host: String,
        /// How long it took, from the decision to start it or to have it prepare.
        after: Duration,
    },
    /// A host ended as the worker wanted.
    Ended {
        /// The host's id.
        host: String,
        /// How it ended.
        death: Death,
    },
    /// A host ended, and nobody had asked it to.
    Died {
        /// The host's id.
        host: String,
        /// How it ended.
        death: Death,
    },
    /// Hosts keep failing: runs do not wait for them any more.
    CircuitOpened {
        /// The last failure.
        death: Death,
    },
    /// A host got ready again.
    CircuitClosed,
    /// A host says something that is for whoever knows its kind.
    Message {
        /// The host's id.
        host: String,
        /// What it says.
        message: Json,
    },
    /// A host reports numbers of its work.
    Ops {
        /// The host's id.
        host: String,
        /// The numbers.
        report: OpsReport,
    },
}

/// Something that happened in one of a broker's pools.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolEvent {
    /// The pool's type.
    pub pool: Arc<str>,
    /// What happened.
    pub event: HostEvent,
}

/// A look at the pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolStatus {
    /// The pool's type.
    pub pool: String,
    /// How many hosts there are to be.
    pub size: PoolSize,
    /// The hosts that live, oldest first.
    pub hosts: Vec<HostStatus>,
    /// Runs that wait for a host.
    pub waiting: usize,
    /// Hosts that were started so far.
    pub started: u64,
    /// The host that ended last, and how.
    pub last_death: Option<(String, Death)>,
    /// Whether hosts keep failing, so that no run can be executed for now.
    pub is_circuit_open: bool,
    /// Whether there are to be no hosts for now.
    pub is_draining: bool,
    /// The numbers that hosts report of their work.
    pub ops: OpsReport,
}

/// A look at one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStatus {
    /// Its id.
    pub id: String,
    /// Its process, once there is one.
    pub pid: Option<u32>,
    /// What it does.
    pub state: HostState,
    /// The engine that it has ready, or gets ready; none if it waits for being told.
    pub prepared: Option<String>,
    /// The run that it executes.
    pub run: Option<String>,
    /// Time since it was started.
    pub age: Duration,
    /// Runs that it was given, or how often it was lent.
    pub runs: u32,
    /// Memory of it and of its engine when it was last asked, in bytes.
    pub bytes: Option<u64>,
}

impl HostStatus {
    /// Resident memory of it and of what it has started, in bytes: what can be seen of it, else what it said last. A host
    /// that is not dumpable is out of sight where `/proc` shows a service its own processes only (`ProtectProc=`).
    pub fn resident_bytes(&self) -> u64 {
        let seen = self.pid.map_or(0, resident_tree);
        // An engine that was forked does not descend from it.
        seen.max(self.bytes.unwrap_or(0))
    }
}

/// What a host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum HostState {
    /// It gets ready.
    Starting,
    /// It waits for a run.
    Ready,
    /// It is lent, or held for a run that has not started yet.
    Reserved,
    /// It executes a run.
    Running,
    /// It was asked to exit.
    Stopping,
}

impl HostState {
    /// All of them, in the order in which hosts go through them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word for it, in labels and on the dashboard.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An engine and what it has loaded, for people.
pub(super) fn describe(wanted: &Prepare) -> String {
    let megabytes = wanted.memory_bytes / (1024 * 1024);
    match &wanted.engine {
        EngineSpec::Embedded => format!("embedded ({megabytes} MB)"),
        EngineSpec::Handler(module) => format!("handler {} ({megabytes} MB)", module.name),
        EngineSpec::Node(node) => {
            let adaptors = node.adaptors.iter().map(|adaptor| format!(" {}", adaptor.specifier())).collect::<String>();
            format!("node {}{adaptors} ({megabytes} MB)", node.version)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_out_of_sight_takes_what_it_says() {
        let status = |pid, bytes| HostStatus {
            id: "h1".into(),
            pid,
            state: HostState::Ready,
            prepared: None,
            run: None,
            age: Duration::ZERO,
            runs: 0,
            bytes,
        };
        // No process has this number.
        let unseen = Some(u32::MAX);
        assert_eq!(status(unseen, Some(5)).resident_bytes(), 5);
        assert_eq!(status(unseen, None).resident_bytes(), 0);
        assert_eq!(status(None, None).resident_bytes(), 0);
        assert!(status(Some(std::process::id()), Some(5)).resident_bytes() > 5);
    }

    #[test]
    fn engines_are_described_with_what_they_have_loaded_and_may_take() {
        let adaptors = [("common", "3.0.0"), ("http", "7.2.0")].map(|(name, version)| protocol::engine::Adaptor {
            name: format!("@openfn/language-{name}"),
            version: version.to_owned(),
            folder: std::path::PathBuf::new(),
            bundle: None,
            exports: None,
            needs: protocol::engine::Needs::default(),
        });
        let node = protocol::engine::NodeSpec {
            program: "node".into(),
            version: "24.4.0".into(),
            adaptors: adaptors.into(),
            snapshot: None,
            origin: protocol::engine::ForkOrigin::default(),
        };
        let prepare = |engine| Prepare { engine, memory_bytes: 500 * 1024 * 1024 };
        assert_eq!(describe(&prepare(EngineSpec::Embedded)), "embedded (500 MB)");
        let with = "@openfn/language-common@3.0.0 @openfn/language-http@7.2.0";
        assert_eq!(describe(&prepare(EngineSpec::Node(node))), format!("node 24.4.0 {with} (500 MB)"));
    }
}
