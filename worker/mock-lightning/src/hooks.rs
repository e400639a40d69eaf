//! The seam through which tests make the double misbehave.

use std::time::Duration;

use serde_json::Value;

/// A message on a channel, as hooks see it. Joins, leaves and heartbeats are messages too.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Number of the connection that it came over, counted from 1.
    pub connection: u64,
    /// Topic, such as `run:<id>`.
    pub topic: &'a str,
    /// Event, such as `run:complete`.
    pub event: &'a str,
    /// Payload.
    pub payload: &'a Value,
}

/// What happens next to a message or to its reply. Later messages of the same channel wait for it, unless it says
/// otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum HookVerdict {
    /// As if there were no hook.
    GoOn,
    /// After this time, as if there were no hook.
    Delay(Duration),
    /// As if there were no hook, but the reply comes this much later, and later messages do not wait for that.
    ReplyLate(Duration),
    /// The message is never handled, or its reply never sent.
    Drop,
    /// The message is never handled, nor is anything else on this channel until it is joined again.
    Hang,
    /// The message is refused with this response: without being handled, or although it was.
    Refuse(Value),
    /// The channel crashes (`phx_error`), as a Phoenix process does.
    CloseChannel,
    /// The socket is cut, without a close frame.
    CloseSocket,
    /// The socket is cut, and the message handled this much later, as by a server that is slow to notice. The same as
    /// [`HookVerdict::CloseSocket`] where the message was handled already.
    CutThenHandle(Duration),
    /// The message is handled, and the connection breaks while the reply is on its way: what a claim has handed out stays
    /// handed out. The same as [`HookVerdict::CloseSocket`] where the message was not handled yet.
    LoseReply,
    /// The connection stays open, and nothing comes through it any more in either direction.
    HalfOpen,
    /// From now on the connection reads one frame in this time.
    ReadSlowly(Duration),
    /// Every socket is cut, and for this time nobody is let in. All that was recorded stays.
    Restart(Duration),
}

/// Decides about each message. The default does nothing.
pub trait Hooks: Send + Sync + 'static {
    /// Called before a message is handled.
    fn before_message(&self, _message: &Incoming<'_>) -> HookVerdict {
        HookVerdict::GoOn
    }

    /// How many runs a claim gets at most that asks for `demand`; its record has this number.
    fn most_runs(&self, demand: u64) -> u64 {
        demand
    }

    /// Called after a message was handled and before its reply is sent; `accepted` tells which kind of reply.
    fn before_reply(&self, _message: &Incoming<'_>, _accepted: bool) -> HookVerdict {
        HookVerdict::GoOn
    }
}

/// Hooks that leave everything as it is.
#[derive(Debug)]
pub struct NoHooks;

impl Hooks for NoHooks {}
