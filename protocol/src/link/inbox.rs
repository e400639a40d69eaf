//! Where what the other side asks and tells is received.

use super::tasks::RequestId;
use super::{Link, Side, WeakLink};
use crate::message::{Refusal, RefusalCode};
use crate::queue;

/// Something that came.
pub(super) enum Content<S: Side> {
    Request(RequestId, <S::Peer as Side>::Request),
    Notice(<S::Peer as Side>::Notice),
}

/// The receiving end of a link. When it is gone, requests are refused and notices dropped.
#[derive(derive_more::Debug)]
#[debug("Inbox {{ waiting: {}, .. }}", self.arrivals.len())]
pub struct Inbox<S: Side> {
    link: WeakLink<S>,
    arrivals: queue::Receiver<Content<S>>,
}

impl<S: Side> Inbox<S> {
    pub(super) fn new(link: WeakLink<S>, arrivals: queue::Receiver<Content<S>>) -> Self {
        Self { link, arrivals }
    }

    /// What came next, in the order in which it was sent. None at the end of the link, after all that came before it.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Incoming<S>> {
        self.next_weighed().await.map(|(incoming, _)| incoming)
    }

    /// As [`next`](Self::next), with the length of the frame that it came in.
    pub async fn next_weighed(&mut self) -> Option<(Incoming<S>, usize)> {
        let (content, bytes) = self.arrivals.recv_weighed().await?;
        let incoming = match content {
            Content::Request(id, request) => Incoming::Request(request, Responder { id, link: self.link.upgrade() }),
            Content::Notice(notice) => Incoming::Notice(notice),
        };
        Some((incoming, bytes))
    }
}

/// Something that the other side sent.
#[derive(derive_more::Debug)]
pub enum Incoming<S: Side> {
    /// A request, and what answers it.
    Request(<S::Peer as Side>::Request, Responder<S>),
    /// A notice.
    Notice(<S::Peer as Side>::Notice),
}

/// The duty to answer one request. Dropping it refuses the request with [`RefusalCode::Failed`].
///
/// An answer on a link that has ended is lost: who needs to know watches [`Link::ended`].
#[derive(derive_more::Debug)]
#[debug("Responder({id})")]
#[must_use = "dropping it refuses the request"]
pub struct Responder<S: Side> {
    id: RequestId,
    /// None when it is answered, or when the link was closing already.
    link: Option<Link<S>>,
}

impl<S: Side> Responder<S> {
    /// Answers.
    pub fn reply(mut self, reply: S::Reply) {
        self.respond(Ok(reply));
    }

    /// Says why not.
    pub fn refuse(mut self, refusal: Refusal) {
        self.respond(Err(refusal));
    }

    fn respond(&mut self, answer: Result<S::Reply, Refusal>) {
        if let Some(link) = self.link.take() {
            link.respond(self.id, answer);
        }
    }
}

impl<S: Side> Drop for Responder<S> {
    fn drop(&mut self) {
        self.respond(Err(Refusal::new(RefusalCode::Failed, "The request was given up without an answer.")));
    }
}
