//! Hosts: processes that are started ahead of need, lent, watched, and always reaped.
//!
//! Owns the host processes, the socket that they connect to and the folder that both lie in. Knows nothing of where
//! runs come from, and never runs users' code.
//!
//! A [`Broker`] has pools by type. Two state machines decide and do nothing else: `host` for one host, `pool` for
//! which there are to be. Around each is one task: `supervisor` for a host, `pool_task` for the pool.
//!
//! ```text
//! reserve() -> pool_task -> Lease -> start(spec) -> supervisor -> run -> RunSignals
//! lend()    -> pool_task -> LentHost -> call()  ->  link
//!                |                                  |
//!             spawn, arrivals                 process, output
//! ```

mod answers;
mod arrivals;
mod broker;
mod cgroup;
mod connection;
mod containment;
mod death;
mod delegation;
mod demand;
mod forked_engines;
mod handle;
mod health;
mod host;
mod lease;
mod lent_host;
mod lines;
mod ops;
mod options;
mod orphans;
mod output;
mod own_time;
mod policy;
mod pool;
mod pool_task;
mod process;
mod program;
mod run;
mod spawn;
mod status;
mod supervisor;
mod sys;
mod templates;
mod watch;

use std::io;

use protocol::socket::SocketError;

pub use self::answers::Answers;
pub use self::broker::Broker;
pub use self::cgroup::Cgroups;
pub use self::containment::{Containment, GroupLimits, Means};
pub use self::death::{Death, Phase, Reason, Status};
pub use self::delegation::own_group;
pub use self::handle::Hosts;
pub use self::lent_host::{Asked, LentHost, LentHostError, RequestError};
pub use self::lines::HostLine;
pub use self::options::HostsOptions;
pub use self::output::Stream;
pub use self::policy::{PoolSize, Recycling};
pub use self::program::{Embedded, HostProgram, ProgramError};
pub use self::status::{HostEvent, HostState, HostStatus, PoolEvent, PoolStatus};
pub use self::templates::{TemplatePolicy, TemplateState, TemplateStatus, Templates};
pub use self::watch::watch_files;

/// Why hosts cannot be started at all.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no socket for them.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// There is no thread to start them from.
    #[error("failed to start the thread that starts hosts: {0}")]
    Thread(#[source] io::Error),
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Hosts cannot be started.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// There is one of this type.
    #[error("there is a pool of {0} already")]
    Taken(String),
    /// The broker was shut down.
    #[error("the broker was shut down")]
    Closed,
    /// No host got ready.
    #[error("no engine host became ready in {attempts} attempts: the last one {death}")]
    Unusable {
        /// How many were started.
        attempts: u32,
        /// How the last one ended.
        death: Death,
    },
}

/// Why something that was to be done with a pool is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// The contrary was requested before it was done.
    #[error("superseded by a contrary request before it was done")]
    Overtaken,
    /// New hosts keep failing; the old ones stay.
    #[error("circuit breaker open: new engine hosts keep failing; the old ones stay")]
    Failing,
    /// The pool was shut down.
    #[error("the pool was shut down")]
    Closed,
}

type ManageResult = Result<(), ManageError>;
