//! One channel, as its owner sees it.

use tokio::sync::{mpsc, oneshot};

use super::frame::Reply;
use super::hub::{Answer, ChannelId, Command};
use super::payload::Payload;

/// What happens on a channel, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelEvent {
    /// The server let us in, for the first time or again, over the connection with this number.
    Joined(u64),
    /// The server did not let us in. It is asked again after a reconnect, or by [`Channel::rejoin`].
    Refused(Reply),
    /// The link or the channel died: pushes without a reply never get one. A rejoin is on its way.
    Down(Loss),
    /// The answer to the push with this tag.
    Replied(u64, Reply),
    /// The server sent an event on its own.
    Pushed(String),
}

/// What died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The websocket, and with it every channel.
    Link,
    /// The same, and of all that was in flight on it, this channel's push with this tag was the longest.
    Longest {
        tag: u64,
        /// Its message's length.
        bytes: usize,
        /// The server said that a message was too long, so that it was this one.
        too_long: bool,
    },
    /// The server's process of this channel alone.
    Channel,
    /// The same, but because the channel was joined anew on request, as answers were missing.
    Restart,
}

/// A channel that is joined, and joined again, for as long as this value lives. Dropping it leaves.
pub(crate) struct Channel {
    pub(super) id: ChannelId,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) events: mpsc::UnboundedReceiver<(u64, ChannelEvent)>,
    pub(super) epoch: u64,
}

impl Channel {
    /// The next event; none when the socket is gone for good.
    pub(crate) async fn next(&mut self) -> Option<ChannelEvent> {
        let (epoch, event) = self.events.recv().await?;
        self.epoch = epoch;
        Some(event)
    }

    /// Sends an event, whose answer comes as [`ChannelEvent::Replied`]. It is dropped if the channel is not joined,
    /// or was joined anew since its owner took the last event: then the owner is about to learn of it.
    pub(crate) fn push(&self, tag: u64, event: &'static str, payload: Payload) {
        let _ = self.commands.send(Command::Push { channel: self.id, epoch: self.epoch, tag, event, payload });
    }

    /// Asks again to be let in.
    pub(crate) fn rejoin(&self) {
        let _ = self.commands.send(Command::Rejoin { channel: self.id, epoch: self.epoch });
    }

    /// Joins anew although the channel seems to live: what has no answer never gets one.
    pub(crate) fn restart(&self) {
        let _ = self.commands.send(Command::Restart { channel: self.id, epoch: Some(self.epoch) });
    }

    /// Something that asks questions on this channel beside its owner.
    pub(crate) fn requester(&self) -> Requester {
        Requester { id: self.id, commands: self.commands.clone() }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Leave { channel: self.id });
    }
}

/// Asks questions on a channel.
#[derive(Clone)]
pub(crate) struct Requester {
    id: ChannelId,
    commands: mpsc::UnboundedSender<Command>,
}

impl Requester {
    /// Joins the channel anew although it seems to live. Questions that are open are asked again.
    pub(crate) fn restart(&self) {
        let _ = self.commands.send(Command::Restart { channel: self.id, epoch: None });
    }

    /// Sends an idempotent question, right behind the join if that is still open, and again after each rejoin until
    /// it is answered. None when the channel is gone for good. Dropping the future withdraws the question.
    pub(crate) async fn request(&self, event: &'static str, payload: Payload) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Request { channel: self.id, event, payload, answer });
        answered.await.ok()
    }

    /// One whose questions get these answers, one after the other; none for one that is lost.
    #[cfg(test)]
    pub(crate) fn scripted(answers: Vec<Option<Answer>>) -> Self {
        let (commands, mut asked) = mpsc::unbounded_channel();
        let mut answers = answers.into_iter();
        tokio::spawn(async move {
            let mut lost = Vec::new();
            while let Some(command) = asked.recv().await {
                if let Command::Request { answer, .. } = command {
                    match answers.next().expect("the script has an answer for each question") {
                        Some(given) => drop(answer.send(given)),
                        None => lost.push(answer),
                    }
                }
            }
        });
        Self { id: 0, commands }
    }
}
