//! Faults by chance: what can go wrong between a worker and Lightning, drawn from a seed.
//!
//! Whether a message meets a fault depends on the seed, its topic, its event and how many like it came before, so that
//! the same seed gives the same faults whatever happens on other channels.

use std::collections::HashMap;

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use strum::VariantArray;

use super::hooks::{HookVerdict, Hooks, Incoming};

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, VariantArray)]
pub enum Fault {
    /// The server is slow with one message.
    Delay,
    /// The reply comes late, while others do not.
    LateReply,
    /// The channel handles nothing any more until it is joined again.
    Hang,
    /// The message is handled and never answered.
    LostReply,
    /// The server is busy.
    Busy,
    /// The server refuses a dataclip or a final state.
    RefusedState,
    /// The channel crashes before the message is handled.
    ChannelBefore,
    /// The channel crashes when the message is handled.
    ChannelAfter,
    /// The socket is cut before the message is handled.
    SocketBefore,
    /// The socket is cut when the message is handled.
    SocketAfter,
    /// The socket is cut while the reply is on its way.
    ReplyOnItsWay,
    /// The socket is cut, and the message is handled a while later.
    HandledAfterCut,
    /// The connection stays open, and nothing comes through.
    HalfOpen,
    /// The server reads slowly.
    SlowReader,
    /// The server restarts, with its state.
    Restart,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Whether it strikes before the message is handled, rather than after.
    fn is_before(self) -> bool {
        !matches!(
            self,
            Self::LateReply | Self::LostReply | Self::ChannelAfter | Self::SocketAfter | Self::ReplyOnItsWay
        )
    }

    /// Whether it can befall this message.
    fn suits(self, message: &Incoming<'_>) -> bool {
        let of_run = message.topic.starts_with("run:");
        match self {
            Self::RefusedState => {
                message.payload.get("output_dataclip").or_else(|| message.payload.get("final_state")).is_some()
            }
            // A server says so instead of handling a message.
            Self::Busy => of_run,
            Self::HandledAfterCut => {
                of_run && !message.event.starts_with("phx_") && !message.event.starts_with("fetch")
            }
            // A claim that is never answered stays open.
            Self::Hang | Self::LostReply => of_run && message.event != "phx_join",
            Self::LateReply => message.event != "phx_join",
            _ => true,
        }
    }

    /// Whether the worker may have to start its channel anew for it.
    fn costs_the_channel(self) -> bool {
        matches!(self, Self::Hang | Self::LostReply | Self::ChannelBefore | Self::ChannelAfter)
    }
}

/// How faults are drawn.
#[derive(Debug, Clone)]
pub struct FaultOptions {
    /// The same seed gives the same faults.
    pub seed: u64,
    /// One message in so many meets a fault; at least 1.
    pub one_in: u64,
    /// Most faults altogether.
    pub most: usize,
    /// The longest that a delay, a silence or a restart takes.
    pub longest: Duration,
    /// What may happen.
    pub kinds: Vec<Fault>,
}

impl FaultOptions {
    /// Faults of all kinds, each a few seconds long at most, at one message in forty.
    pub fn new(seed: u64) -> Self {
        Self { seed, one_in: 40, most: usize::MAX, longest: Duration::from_secs(5), kinds: Fault::ALL.into() }
    }
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedFault {
    /// The message's topic.
    pub topic: String,
    /// The message's event.
    pub event: String,
    /// What happened to it.
    pub fault: Fault,
}

/// Hooks that draw faults.
#[derive(Debug)]
pub struct Faults {
    options: FaultOptions,
    drawn: Mutex<Drawn>,
}

#[derive(Debug, Default)]
struct Drawn {
    /// How many messages came, by topic and event.
    messages: HashMap<(String, String), u64>,
    /// The fault of a message that strikes after it is handled.
    after: HashMap<(String, String), (Fault, u64)>,
    applied: Vec<AppliedFault>,
}

impl Faults {
    /// Faults as `options` say.
    pub fn new(options: FaultOptions) -> Self {
        Self { options, drawn: Mutex::default() }
    }

    /// The faults that struck so far.
    pub fn applied(&self) -> Vec<AppliedFault> {
        self.drawn.lock().applied.clone()
    }

    /// The fault of the next message of this kind, with more chance to draw from.
    fn draw(&self, drawn: &mut Drawn, message: &Incoming<'_>) -> Option<(Fault, u64)> {
        let key = (message.topic.to_owned(), message.event.to_owned());
        let count = drawn.messages.entry(key).or_default();
        *count += 1;
        let mut chance = Chance(self.options.seed);
        for byte in message.topic.bytes().chain([0]).chain(message.event.bytes()).chain(count.to_le_bytes()) {
            chance.0 = chance.0.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(byte);
        }
        if !chance.next().is_multiple_of(self.options.one_in.max(1)) || drawn.applied.len() >= self.options.most {
            return None;
        }
        let suited: Vec<_> = self.options.kinds.iter().copied().filter(|fault| fault.suits(message)).collect();
        let fault = *suited.get(usize::try_from(chance.next() % suited.len().max(1) as u64).ok()?)?;
        // A message that kills its channel again and again is taken for the cause, and given up.
        let costly =
            drawn.applied.iter().filter(|it| it.topic == message.topic && it.fault.costs_the_channel()).count();
        if fault.costs_the_channel() && costly >= 2 {
            return None;
        }
        let (topic, event) = (message.topic.to_owned(), message.event.to_owned());
        drawn.applied.push(AppliedFault { topic, event, fault });
        tracing::debug!(topic = message.topic, event = message.event, "the mock Lightning does wrong: {fault:?}");
        Some((fault, chance.next()))
    }

    /// What a fault does, with `chance` for how long.
    fn verdict(&self, fault: Fault, chance: u64) -> HookVerdict {
        let time = self.options.longest.mul_f64((chance % 1000) as f64 / 1000.0);
        match fault {
            Fault::Delay => HookVerdict::Delay(time),
            Fault::LateReply => HookVerdict::ReplyLate(time),
            Fault::Hang => HookVerdict::Hang,
            Fault::LostReply => HookVerdict::Drop,
            Fault::Busy => HookVerdict::Refuse(json!({"reason": "server busy"})),
            Fault::RefusedState => HookVerdict::Refuse(json!({"output_dataclip": ["is too large"]})),
            Fault::ChannelBefore | Fault::ChannelAfter => HookVerdict::CloseChannel,
            Fault::SocketBefore | Fault::SocketAfter => HookVerdict::CloseSocket,
            Fault::ReplyOnItsWay => HookVerdict::LoseReply,
            Fault::HandledAfterCut => HookVerdict::CutThenHandle(time),
            Fault::HalfOpen => HookVerdict::HalfOpen,
            Fault::SlowReader => HookVerdict::ReadSlowly(time / 1000),
            Fault::Restart => HookVerdict::Restart(time),
        }
    }
}

impl Hooks for Faults {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        if message.topic == "phoenix" || message.event == "phx_leave" {
            return HookVerdict::GoOn;
        }
        let mut drawn = self.drawn.lock();
        match self.draw(&mut drawn, message) {
            Some((fault, chance)) if fault.is_before() => self.verdict(fault, chance),
            Some(after) => {
                drawn.after.insert((message.topic.to_owned(), message.event.to_owned()), after);
                HookVerdict::GoOn
            }
            None => HookVerdict::GoOn,
        }
    }

    fn before_reply(&self, message: &Incoming<'_>, _accepted: bool) -> HookVerdict {
        let key = (message.topic.to_owned(), message.event.to_owned());
        let after = self.drawn.lock().after.remove(&key);
        after.map_or(HookVerdict::GoOn, |(fault, chance)| self.verdict(fault, chance))
    }
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn verdicts(faults: &Faults, topic: &str) -> Vec<HookVerdict> {
        let payload = json!({"output_dataclip": "{}"});
        let message = Incoming { connection: 1, topic, event: "step:complete", payload: &payload };
        (0..200).flat_map(|_| [faults.before_message(&message), faults.before_reply(&message, true)]).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_whatever_else_happens() {
        let faults = || Faults::new(FaultOptions { one_in: 4, ..FaultOptions::new(7) });
        let (one, other) = (faults(), faults());
        verdicts(&other, "run:elsewhere");
        let seen = verdicts(&one, "run:a");
        assert_eq!(seen, verdicts(&other, "run:a"));
        assert!(seen.iter().any(|verdict| *verdict != HookVerdict::GoOn));
        let next = Faults::new(FaultOptions { one_in: 4, ..FaultOptions::new(8) });
        assert_ne!(seen, verdicts(&next, "run:a"));
    }

    #[test]
    fn faults_have_an_end_and_spare_what_they_must() {
        let faults = Faults::new(FaultOptions { one_in: 1, most: 3, ..FaultOptions::new(1) });
        let struck = verdicts(&faults, "run:a").iter().filter(|verdict| **verdict != HookVerdict::GoOn).count();
        assert_eq!((struck, faults.applied().len()), (3, 3));
        let faults = Faults::new(FaultOptions { one_in: 1, kinds: vec![Fault::RefusedState], ..FaultOptions::new(1) });
        for (topic, event) in [("phoenix", "heartbeat"), ("run:a", "phx_leave"), ("run:a", "run:log")] {
            let message = Incoming { connection: 1, topic, event, payload: &Value::Null };
            assert_eq!(faults.before_message(&message), HookVerdict::GoOn, "{event}");
        }
    }
}
