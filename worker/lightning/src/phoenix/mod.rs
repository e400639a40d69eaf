//! A client for Phoenix channels: frames, one socket that lives for ever, and the channels on it.
//!
//! Owns the websocket, refs, joins and rejoins. Knows nothing of runs, claims or Lightning's events.

mod channel;
mod connect;
mod frame;
#[cfg(any(fuzzing, test))]
mod fuzzing;
mod hub;
mod intake;
mod payload;
mod socket;

pub(super) use channel::{Channel, ChannelEvent, Loss, Requester};
pub use connect::server_time;
pub use connect::{Endpoint, InvalidEndpoint, Network, Stream};
pub(super) use frame::{Reply, Response, Status, says_busy};
#[cfg(any(fuzzing, test))]
pub use fuzzing::feed_frames;
pub(super) use hub::Answer;
pub(super) use payload::Payload;
pub(super) use socket::Socket;
