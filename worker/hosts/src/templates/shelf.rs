//! Which templates there are to be. Pure: what happens and what time it is come in, what is to be done comes out.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use protocol::engine::TemplateAddress;
use protocol::message::Prepare;
use smart_default::SmartDefault;

/// A template that was never measured is taken to have so much for itself, in bytes.
const USUAL_BYTES: u64 = 80 * 1024 * 1024;

/// For how long what was wanted counts.
const RECENTLY: Duration = Duration::from_secs(10 * 60);

/// Faults of a key that make it fall back, within [`FAULTS_WITHIN`].
const MOST_FAULTS: usize = 3;

/// For how long a fault counts.
const FAULTS_WITHIN: Duration = Duration::from_secs(60 * 60);

/// For how long a key falls back.
const FALLBACK: Duration = Duration::from_secs(60 * 60);

/// Keys of which something is remembered.
const MOST_KEYS: usize = 256;

/// When templates are started and replaced.
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault)]
pub struct TemplatePolicy {
    /// Memory of all templates together, in bytes. One there may be in any case.
    #[default(512 * 1024 * 1024)]
    pub memory_bytes: u64,
    /// So many engines have to be wanted of late for a template to be started.
    #[default(2)]
    pub wanted: usize,
    /// Templates that are older are replaced.
    #[default(Duration::from_secs(60 * 60))]
    pub max_age: Duration,
    /// Templates that were forked so often are replaced.
    #[default(20_000)]
    pub max_forks: u64,
    /// Variables of the environment that jobs may see.
    pub variables: Vec<String>,
}

/// What the files are like that a template has loaded.
pub(super) type Print = u64;

/// Which template, for as long as the worker lives.
pub(super) type Number = u64;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Start a template.
    Start(Number, Box<Prepare>),
    /// Let one go. Its children go on.
    Drop(Number),
}

/// Whether somebody wants an engine, or has one already and may need another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    New,
    Known,
}

/// Why an engine is not forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Lacking {
    /// It is not wanted often enough, or there is no memory for it.
    Unwanted,
    /// It is being started.
    Warming,
    /// It was given up for a while.
    GivenUp,
    /// Its adaptors start processes, which then would not belong to its host.
    StartsProcesses,
}

#[derive(Debug)]
enum State {
    Unwanted,
    Warming { number: Number },
    Ready(Ready),
    GivenUp { until: Instant, why: String },
}

#[derive(Debug)]
struct Ready {
    number: Number,
    address: TemplateAddress,
    bytes: u64,
    since: Instant,
    forks: u64,
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// When it was wanted of late.
    wanted: VecDeque<Instant>,
    faults: VecDeque<Instant>,
    /// What its files were like when it was last looked.
    print: Option<Print>,
}

/// What a template does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateState {
    /// There is none.
    Unwanted,
    /// It loads its adaptors, and proves itself.
    Warming,
    /// Engines are forked from it.
    Ready {
        /// The host that looks after it.
        host: String,
        /// Memory that it had for itself when it was ready, in bytes.
        bytes: u64,
        /// Since when.
        age: Duration,
        /// Engines that were forked.
        forks: u64,
    },
    /// There is none for a while.
    GivenUp {
        /// For how long.
        left: Duration,
        /// Why.
        why: String,
    },
}

/// The templates.
#[derive(Debug)]
pub(super) struct Shelf {
    policy: TemplatePolicy,
    entries: HashMap<Prepare, Entry>,
    last: Number,
}

impl Shelf {
    pub(super) fn new(policy: TemplatePolicy) -> Self {
        Self { policy, entries: HashMap::new(), last: 0 }
    }

    /// Has so much memory for all of them from now on, in bytes.
    pub(super) fn set_memory(&mut self, memory_bytes: u64) {
        self.policy.memory_bytes = memory_bytes;
    }

    /// Lets all go, and forgets what was wanted.
    pub(super) fn start_afresh(&mut self) -> Vec<Action> {
        self.entries.drain().filter_map(|(_, entry)| entry.number().map(Action::Drop)).collect()
    }

    /// Somebody is to get an engine: what it can be forked from, or why it is not.
    pub(super) fn wanted(&mut self, key: &Prepare, demand: Demand, now: Instant) -> Result<&TemplateAddress, Lacking> {
        if starts_processes(key) {
            return Err(Lacking::StartsProcesses);
        }
        if !self.entries.contains_key(key) {
            self.make_room();
            self.entries.insert(key.clone(), Entry::new());
        }
        let Some(entry) = self.entries.get_mut(key) else { return Err(Lacking::Unwanted) };
        if demand == Demand::New {
            entry.wanted.push_back(now);
            while entry.wanted.len() > self.policy.wanted.max(1) {
                entry.wanted.pop_front();
            }
        }
        match &entry.state {
            State::Ready(ready) => Ok(&ready.address),
            State::Unwanted => Err(Lacking::Unwanted),
            State::Warming { .. } => Err(Lacking::Warming),
            State::GivenUp { .. } => Err(Lacking::GivenUp),
        }
    }

    /// Forgets what was wanted longest ago where too much is remembered.
    fn make_room(&mut self) {
        while self.entries.len() >= MOST_KEYS {
            let idle = self.entries.iter().filter(|(_, entry)| entry.number().is_none());
            let Some(oldest) = idle.min_by_key(|(_, entry)| entry.wanted.back().copied()).map(|(key, _)| key.clone())
            else {
                return;
            };
            self.entries.remove(&oldest);
        }
    }

    /// What is to be done by now.
    pub(super) fn plan(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let TemplatePolicy { max_age, max_forks, memory_bytes, wanted, .. } = self.policy;
        for entry in self.entries.values_mut() {
            entry.wanted.retain(|at| now.saturating_duration_since(*at) < RECENTLY);
            let is_over = match &entry.state {
                State::Ready(ready) => {
                    let age = now.saturating_duration_since(ready.since);
                    age >= max_age || ready.forks >= max_forks || entry.wanted.is_empty()
                }
                State::GivenUp { until, .. } => *until <= now,
                State::Unwanted | State::Warming { .. } => false,
            };
            if is_over {
                actions.extend(entry.number().map(Action::Drop));
                entry.state = State::Unwanted;
            }
        }
        // One at a time: it takes a processor for a second.
        if self.entries.values().any(|entry| matches!(entry.state, State::Warming { .. })) {
            return actions;
        }
        let is_due = |entry: &Entry| matches!(entry.state, State::Unwanted) && entry.wanted.len() >= wanted.max(1);
        let due = self.entries.iter().filter(|(_, entry)| is_due(entry));
        let Some(next) = due.max_by_key(|(_, entry)| entry.wanted.back().copied()).map(|(key, _)| key.clone()) else {
            return actions;
        };
        let last_wanted = self.entries.get(&next).and_then(|entry| entry.wanted.back().copied());
        while self.bytes() > 0 && self.bytes() + USUAL_BYTES > memory_bytes {
            // One that is wanted as often as this one stays.
            let ready = self.entries.iter_mut().filter(|(_, entry)| matches!(entry.state, State::Ready(_)));
            let Some((_, idlest)) = ready.min_by_key(|(_, entry)| entry.wanted.front().copied()) else { break };
            let is_idler = idlest.wanted.back().copied() < last_wanted.and_then(|at| at.checked_sub(RECENTLY / 2));
            if !is_idler {
                return actions;
            }
            actions.extend(idlest.number().map(Action::Drop));
            idlest.state = State::Unwanted;
            idlest.wanted.clear();
        }
        self.last += 1;
        if let Some(entry) = self.entries.get_mut(&next) {
            entry.state = State::Warming { number: self.last };
            actions.push(Action::Start(self.last, Box::new(next)));
        }
        actions
    }

    /// Memory of all that there are, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |entry: &Entry| match &entry.state {
            State::Ready(ready) => ready.bytes,
            _ => 0,
        };
        self.entries.values().map(bytes).sum()
    }

    /// A template has proved itself. False if it is not wanted any more.
    pub(super) fn ready(
        &mut self,
        number: Number,
        address: TemplateAddress,
        bytes: u64,
        print: Option<Print>,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.of(number) else { return false };
        entry.state = State::Ready(Ready { number, address, bytes, since: now, forks: 0 });
        entry.print = print;
        true
    }

    /// A template did not get ready: its key falls back for a while. False if it was not wanted any more.
    pub(super) fn failed(&mut self, number: Number, why: String, print: Option<Print>, now: Instant) -> bool {
        let Some(entry) = self.of(number) else { return false };
        entry.print = print;
        entry.give_up(why, now);
        true
    }

    /// A template has ended by itself, or was killed. It is started anew if it is wanted.
    pub(super) fn ended(&mut self, number: Number) {
        if let Some(entry) = self.of(number) {
            entry.state = State::Unwanted;
        }
    }

    /// A process was forked from the template of this host.
    pub(super) fn forked(&mut self, host: &str) {
        let ready = self.entries.values_mut().find_map(|entry| match &mut entry.state {
            State::Ready(ready) if ready.address.host == host => Some(ready),
            _ => None,
        });
        ready.into_iter().for_each(|ready| ready.forks += 1);
    }

    /// The template of this host was of no use. It is replaced; after some of those its key falls back for a while, and
    /// that is returned.
    pub(super) fn fault(&mut self, host: &str, why: &str, now: Instant) -> (Vec<Action>, Option<&Prepare>) {
        let found = self.entries.iter_mut().find(|(_, entry)| match &entry.state {
            State::Ready(ready) => ready.address.host == host,
            _ => false,
        });
        let Some((key, entry)) = found else { return (Vec::new(), None) };
        let drop = entry.number().map(Action::Drop).into_iter().collect();
        entry.faults.push_back(now);
        entry.faults.retain(|at| now.saturating_duration_since(*at) < FAULTS_WITHIN);
        entry.state = State::Unwanted;
        if entry.faults.len() < MOST_FAULTS {
            return (drop, None);
        }
        entry.faults.clear();
        entry.give_up(format!("{MOST_FAULTS} engines were not forked, the last one because {why}"), now);
        (drop, Some(key))
    }

    /// Looks at the files of the keys. A template whose files are others now is dropped, and a key that was given up gets
    /// another chance.
    pub(super) fn look(&mut self, print: impl Fn(&Prepare) -> Option<Print>) -> Vec<Action> {
        let mut actions = Vec::new();
        for (key, entry) in &mut self.entries {
            if !matches!(entry.state, State::Ready(_) | State::GivenUp { .. }) {
                continue;
            }
            let now = print(key);
            if entry.print != now {
                entry.print = now;
                actions.extend(entry.number().map(Action::Drop));
                entry.state = State::Unwanted;
                entry.faults.clear();
            }
        }
        actions
    }

    /// What is known of each key.
    pub(super) fn looks(&self, now: Instant) -> Vec<(Prepare, TemplateState)> {
        self.entries.iter().map(|(key, entry)| (key.clone(), state_of(entry, now))).collect()
    }

    /// Variables of the environment that jobs may see.
    pub(super) fn variables(&self) -> Vec<String> {
        self.policy.variables.clone()
    }

    fn of(&mut self, number: Number) -> Option<&mut Entry> {
        self.entries.values_mut().find(|entry| entry.number() == Some(number))
    }
}

impl Entry {
    fn new() -> Self {
        Self { state: State::Unwanted, wanted: VecDeque::new(), faults: VecDeque::new(), print: None }
    }

    fn number(&self) -> Option<Number> {
        match &self.state {
            State::Warming { number, .. } => Some(*number),
            State::Ready(ready) => Some(ready.number),
            State::Unwanted | State::GivenUp { .. } => None,
        }
    }

    fn give_up(&mut self, why: String, now: Instant) {
        self.state = State::GivenUp { until: now + FALLBACK, why };
    }
}

fn state_of(entry: &Entry, now: Instant) -> TemplateState {
    match &entry.state {
        State::Unwanted => TemplateState::Unwanted,
        State::Warming { .. } => TemplateState::Warming,
        State::Ready(ready) => TemplateState::Ready {
            host: ready.address.host.clone(),
            bytes: ready.bytes,
            age: now.saturating_duration_since(ready.since),
            forks: ready.forks,
        },
        State::GivenUp { until, why } => {
            TemplateState::GivenUp { left: until.saturating_duration_since(now), why: why.clone() }
        }
    }
}

/// What such an engine started would not belong to its host, as what it is forked from is not the host's.
fn starts_processes(key: &Prepare) -> bool {
    match &key.engine {
        protocol::engine::EngineSpec::Node(spec) => spec.adaptors.iter().any(|it| it.needs.child_processes),
        protocol::engine::EngineSpec::Embedded | protocol::engine::EngineSpec::Handler(_) => true,
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
