//! Has a template fork a process, and takes it.

use std::fmt::Debug;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use protocol::confinement::Confinement;
use protocol::engine::TemplateAddress;
use protocol::message::{Adopt, ForkFault, NotForked, Unnamed};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::request::{Answer, Request};
use crate::sys;

/// How long a template may take to fork, and a fork to answer its first command.
pub(in crate::engine::node) const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// How long the process that adopts may take to tell how a process has ended of which it is seen that it has.
const STATUS: Duration = Duration::from_secs(5);

/// The process that adopts what is forked: the worker, for a host.
pub trait Parent: Debug + Send + Sync {
    /// Its process id.
    fn id(&self) -> u32;

    /// Has it adopt a process. What comes is the process's end.
    fn adopt(&self, adopt: Adopt) -> Adopting;

    /// Has it count what those that it has adopted for this process have open without a name.
    fn count_unnamed(&self) -> Counting;

    /// Tells it that a template was of no use.
    fn not_forked(&self, told: NotForked);
}

/// The process's end is to be told, or why not.
pub type Adopting = Pin<Box<dyn Future<Output = Result<oneshot::Receiver<ExitStatus>, String>> + Send>>;

/// The files are to be counted, or why not.
pub type Counting = Pin<Box<dyn Future<Output = Result<Unnamed, String>> + Send>>;

/// What it takes to have engines forked.
#[derive(Debug, Clone)]
pub struct Forks {
    /// Who adopts them.
    pub parent: Arc<dyn Parent>,
    /// What they forbid themselves.
    pub confinement: Confinement,
}

/// Why an engine was not forked.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(in crate::engine::node) struct Unforked {
    pub(in crate::engine::node) fault: ForkFault,
    pub(in crate::engine::node) why: String,
}

pub(in crate::engine::node) fn refused(why: impl ToString) -> Unforked {
    Unforked { fault: ForkFault::Refused, why: why.to_string() }
}

/// A process that was forked and adopted. Dropping it kills it.
#[derive(Debug)]
pub(in crate::engine::node) struct Forked {
    id: Pid,
    pidfd: OwnedFd,
    ended: tokio::io::unix::AsyncFd<OwnedFd>,
    end: oneshot::Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

/// One that is not adopted yet. It ends by itself when this is dropped.
#[derive(Debug)]
pub(in crate::engine::node) struct Newborn {
    pid: i32,
    nanoseconds: u64,
    pidfd: OwnedFd,
    client: UnixStream,
}

/// Has the template at `address` fork. The child gets `descriptors`: for commands, replies and what it prints, and the
/// rules about its files.
pub(in crate::engine::node) async fn fork(
    address: &TemplateAddress,
    parent: &dyn Parent,
    descriptors: [BorrowedFd<'_>; 4],
) -> Result<Newborn, Unforked> {
    let (filter, own_number) = sys::filter_of_forks();
    let request = Request {
        token: &address.token,
        parent: parent.id(),
        filter: (&filter, own_number),
        limits: sys::limits_of_forks(),
    };
    let request = request.encode().ok_or_else(|| refused("the template's token is none"))?;
    let client = ask(address, &request, &descriptors).map_err(|error| refused(format!("no template: {error}")))?;
    let answering = timeout(FIRST_ANSWER, client.readable()).await;
    answering.map_err(|_| refused(format!("the template did not fork within {FIRST_ANSWER:?}")))?.map_err(refused)?;
    let (answer, pidfd) = receive(&client).map_err(|error| refused(format!("the template's answer: {error}")))?;
    let Answer { pid, error, nanoseconds } = answer;
    match pidfd {
        Some(pidfd) if pid > 0 => Ok(Newborn { pid, nanoseconds, pidfd, client }),
        _ => Err(refused(format!("the template could not fork: {}", io::Error::from_raw_os_error(error)))),
    }
}

/// Nothing of it waits: the template answers, or there is none.
fn ask(address: &TemplateAddress, request: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&client, &SocketAddrUnix::new(&*address.socket)?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(&client, &[IoSlice::new(request)], &mut control, SendFlags::NOSIGNAL)?;
    UnixStream::from_std(StdUnixStream::from(client))
}

fn receive(client: &UnixStream) -> io::Result<(Answer, Option<OwnedFd>)> {
    let mut bytes = [0; Answer::BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(client, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let pidfd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
    Ok((Answer::decode(&bytes[..received.bytes]).ok_or_else(closed)?, pidfd))
}

impl Newborn {
    /// Its process id.
    pub(in crate::engine::node) fn id(&self) -> i32 {
        self.pid
    }

    /// Has it adopted, and lets it begin.
    pub(in crate::engine::node) async fn adopted(
        self,
        template: &str,
        parent: &dyn Parent,
    ) -> Result<Forked, Unforked> {
        let Self { pid, nanoseconds, pidfd, client } = self;
        let not_adopted = |why: String| Unforked { fault: ForkFault::NotAdopted, why };
        let id = Pid::from_raw(pid).ok_or_else(|| refused("the template told no process"))?;
        let adopt = Adopt { pid: pid.unsigned_abs(), template: template.to_owned(), fork_ns: nanoseconds };
        let end = parent.adopt(adopt).await.map_err(not_adopted)?;
        let watched = pidfd.try_clone().and_then(sys::watch_readable);
        let forked = Forked { id, pidfd, ended: watched.map_err(refused)?, end, status: None };
        rustix::net::send(&client, b"y", SendFlags::NOSIGNAL)
            .map_err(|error| Unforked { fault: ForkFault::Died, why: format!("it ended before it began: {error}") })?;
        Ok(forked)
    }
}

impl Forked {
    /// Its process id; none when its end is known, since the number may be another's then.
    pub(in crate::engine::node) fn id(&self) -> Option<Pid> {
        self.status.is_none().then_some(self.id)
    }

    /// How it has ended, if it has.
    pub(in crate::engine::node) fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.end.try_recv().ok();
        }
        self.status
    }

    /// Waits for its end. Dropping the future loses nothing.
    pub(in crate::engine::node) async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let told = tokio::select! {
            biased;
            told = &mut self.end => told.ok(),
            _ = self.ended.readable() => timeout(STATUS, &mut self.end).await.ok().and_then(Result::ok),
        };
        self.status = told;
        told.ok_or_else(|| io::Error::other("the worker did not tell"))
    }

    /// Kills it. It cannot have started others.
    pub(in crate::engine::node) fn kill(&self) {
        // Fails when it has ended.
        let _ = pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL);
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        self.kill();
    }
}
