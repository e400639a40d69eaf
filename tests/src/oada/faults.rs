//! Faults that tests inject into the answering of requests.

use std::collections::HashMap;
use std::time::Duration;

/// What happens to a request instead of its being answered as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is done and answered after this time.
    Delay(Duration),
    /// It is not done, and answered with this status and these headers.
    Answer(u16, Vec<(String, String)>),
    /// It is not done and not answered.
    Ignore,
    /// It is done and not answered.
    Swallow,
    /// It is not done, and the connection is closed.
    Disconnect,
    /// It is done, and the connection is closed instead of answering.
    DisconnectAfter,
}

/// Which requests meet a fault, and which one.
#[derive(Debug, Clone)]
pub struct Fault {
    name: String,
    method: Option<String>,
    path: Option<String>,
    skip: usize,
    times: usize,
    action: Action,
}

impl Fault {
    /// A fault that the next request meets.
    pub fn new(name: &str, action: Action) -> Self {
        Self { name: name.to_owned(), method: None, path: None, skip: 0, times: 1, action }
    }

    /// An error answer that the next request gets.
    pub fn status(name: &str, status: u16) -> Self {
        Self::new(name, Action::Answer(status, Vec::new()))
    }

    /// Only requests of this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose path contains this.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// Not the first so many of them.
    #[must_use]
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// So many of them instead of one.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }
}

#[derive(Default)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
    happened: HashMap<String, usize>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.waiting.push(fault);
    }

    pub(super) fn happened(&self, name: &str) -> usize {
        self.happened.get(name).copied().unwrap_or(0)
    }

    /// The fault that this request meets.
    pub(super) fn meet(&mut self, method: &str, path: &str) -> Option<Action> {
        let at = self.waiting.iter_mut().position(|fault| {
            let meant = fault.method.as_deref().is_none_or(|wanted| wanted == method)
                && fault.path.as_deref().is_none_or(|part| path.contains(part));
            if meant && fault.skip > 0 {
                fault.skip -= 1;
                return false;
            }
            meant
        })?;
        let fault = &mut self.waiting[at];
        fault.times -= 1;
        let (name, action, spent) = (fault.name.clone(), fault.action.clone(), fault.times == 0);
        if spent {
            self.waiting.remove(at);
        }
        *self.happened.entry(name).or_default() += 1;
        Some(action)
    }
}
