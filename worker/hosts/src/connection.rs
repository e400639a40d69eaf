//! The link to one host, and who takes what the host says over it.

use std::time::Duration;

use protocol::link::{Inbox, Incoming, Link, WorkerSide};
use protocol::message::WorkerNotice;
use protocol::queue;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::arrivals::{Arrival, Ticket};
use super::lent_host::Asked;
use super::run::RunVerdict;

/// How long a handshake is waited for that was under way when the process ended.
const LATE: Duration = Duration::from_millis(100);

/// The link to a host.
pub(super) enum Connection {
    /// It has not connected.
    Awaited(Ticket),
    Open {
        link: Link<WorkerSide>,
        consumer: Consumer,
    },
    /// There will be none.
    Refused,
}

/// Who takes what a host says. There is no inbox when nothing more will come.
pub(super) enum Consumer {
    /// The pool.
    Pool(Option<Inbox<WorkerSide>>),
    /// Who has borrowed the host, as far as it is for them.
    Borrower {
        inbox: Option<Inbox<WorkerSide>>,
        notices: queue::Sender<WorkerNotice>,
        requests: queue::Sender<Asked>,
    },
    /// The run, which is told by this how it ends if the host does not report that.
    Run(oneshot::Sender<RunVerdict>),
    Nobody,
}

/// Something that came from the host.
pub(super) enum Heard {
    Arrival(Arrival),
    Said(Option<(Incoming<WorkerSide>, usize)>),
}

impl Connection {
    pub(super) fn link(&self) -> Option<&Link<WorkerSide>> {
        if let Self::Open { link, .. } = self { Some(link) } else { None }
    }

    pub(super) fn inbox(&mut self) -> Option<&mut Option<Inbox<WorkerSide>>> {
        match self {
            Self::Open { consumer: Consumer::Pool(inbox) | Consumer::Borrower { inbox, .. }, .. } => Some(inbox),
            _ => None,
        }
    }

    /// What comes next from the host; waits for ever if somebody else takes that, or nothing comes any more.
    pub(super) async fn next(&mut self) -> Heard {
        if let Self::Awaited(ticket) = self {
            match (&mut ticket.arrival).await {
                Ok(arrival) => return Heard::Arrival(arrival),
                Err(_) => *self = Self::Refused,
            }
        }
        match self.inbox() {
            Some(Some(inbox)) => Heard::Said(inbox.next_weighed().await),
            _ => std::future::pending().await,
        }
    }

    /// What became of the handshake of a process that has ended, which tells more than its exit code: a host that was
    /// turned away may have ended before that was heard of here.
    pub(super) async fn late_arrival(&mut self) -> Option<Arrival> {
        let Self::Awaited(ticket) = self else { return None };
        let late = timeout(LATE, &mut ticket.arrival).await;
        *self = Self::Refused;
        late.ok()?.ok()
    }
}
