//! The pending list as one service sees it: which jobs wait, which run, which are to be looked at later. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::claim::Observed;
use crate::list::ListChange;

/// Why a run is to end at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// Its job was taken out of the list.
    Removed,
    /// The service is to end.
    Shutdown,
}

/// Says when a run is to end, and why.
pub(super) type CancelSignal = watch::Receiver<Option<Cancelled>>;

/// What a look at a job came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is finished and out of the list.
    Done,
    /// This service has nothing more to do with it.
    Left,
    /// It is to be looked at again after this time.
    Later(Duration, Option<Observed>),
}

/// A job that is to be looked at now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) observed: Option<Observed>,
    pub(super) cancel: CancelSignal,
}

#[derive(Debug)]
enum State {
    Waiting,
    Later(Instant),
    Left,
    Running { cancel: watch::Sender<Option<Cancelled>>, removed: bool, next: Option<String> },
}

#[derive(Debug)]
struct Entry {
    id: String,
    observed: Option<Observed>,
    state: State,
}

/// All entries of the list.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: HashMap<String, Entry>,
    /// Keys that wait, in the order in which they are to be looked at.
    waiting: VecDeque<String>,
}

impl Pending {
    /// The list says that something changed. False if the list is gone.
    pub(super) fn apply(&mut self, change: ListChange) -> bool {
        match change {
            ListChange::Linked { key, id } => self.linked(key, id),
            ListChange::Unlinked { key } => self.unlinked(&key),
            ListChange::Deleted => return false,
        }
        true
    }

    /// Whether an entry leads to this resource.
    pub(super) fn has(&self, id: &str) -> bool {
        self.entries.values().any(|entry| entry.id == id)
    }

    /// The list was read: this is all of it.
    pub(super) fn list(&mut self, links: BTreeMap<String, String>) {
        let gone: Vec<String> = self.entries.keys().filter(|key| !links.contains_key(*key)).cloned().collect();
        for key in gone {
            self.unlinked(&key);
        }
        for (key, id) in links {
            self.linked(key, id);
        }
    }

    /// Leaves everything that waits alone.
    pub(super) fn skip_waiting(&mut self) {
        for key in self.waiting.drain(..) {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.state = State::Left;
            }
        }
    }

    fn linked(&mut self, key: String, id: String) {
        match self.entries.get_mut(&key) {
            None => {
                self.waiting.push_back(key.clone());
                self.entries.insert(key, Entry { id, observed: None, state: State::Waiting });
            }
            Some(Entry { state: State::Running { cancel, removed, next }, id: running, .. }) => {
                // What runs is another job, or the same one that was taken out and put back.
                if *running != id || *removed {
                    cancel.send_replace(Some(Cancelled::Removed));
                    *next = Some(id);
                }
            }
            Some(entry) if entry.id != id => {
                self.waiting.retain(|waiting| *waiting != key);
                self.waiting.push_back(key);
                *entry = Entry { id, observed: None, state: State::Waiting };
            }
            Some(_) => {}
        }
    }

    fn unlinked(&mut self, key: &str) {
        match self.entries.get_mut(key) {
            Some(Entry { state: State::Running { cancel, removed, next }, .. }) => {
                cancel.send_replace(Some(Cancelled::Removed));
                *removed = true;
                *next = None;
            }
            Some(_) => {
                self.entries.remove(key);
                self.waiting.retain(|waiting| waiting != key);
            }
            None => {}
        }
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next job to look at.
    pub(super) fn take(&mut self) -> Option<Due> {
        let key = self.waiting.pop_front()?;
        let entry = self.entries.get_mut(&key)?;
        let (sender, cancel) = watch::channel(None);
        entry.state = State::Running { cancel: sender, removed: false, next: None };
        Some(Due { key, id: entry.id.clone(), observed: entry.observed.take(), cancel })
    }

    /// A look at a job is over.
    pub(super) fn done(&mut self, key: &str, verdict: Verdict, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let State::Running { removed, next, .. } = &mut entry.state else { return };
        let (removed, next) = (*removed, next.take());
        if let Some(id) = next {
            *entry = Entry { id, observed: None, state: State::Waiting };
            return self.waiting.push_back(key.to_owned());
        }
        match verdict {
            _ if removed => {
                self.entries.remove(key);
            }
            Verdict::Done => {
                self.entries.remove(key);
            }
            Verdict::Left => entry.state = State::Left,
            Verdict::Later(pause, observed) => {
                entry.observed = observed;
                entry.state = State::Later(now + pause);
            }
        }
    }

    /// When the next job is to be looked at again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let later = self.entries.values().filter_map(|entry| match entry.state {
            State::Later(at) => Some(at),
            _ => None,
        });
        later.min()
    }

    /// Has jobs wait whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        for (key, entry) in &mut self.entries {
            if matches!(entry.state, State::Later(at) if at <= now) {
                entry.state = State::Waiting;
                self.waiting.push_back(key.clone());
            }
        }
    }

    /// Ends everything that runs.
    pub(super) fn cancel_all(&mut self) {
        for entry in self.entries.values() {
            if let State::Running { cancel, .. } = &entry.state {
                cancel.send_replace(Some(Cancelled::Shutdown));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(pending: &mut Pending, key: &str, id: &str) {
        assert!(pending.apply(ListChange::Linked { key: key.to_owned(), id: id.to_owned() }));
    }

    fn unlink(pending: &mut Pending, key: &str) {
        assert!(pending.apply(ListChange::Unlinked { key: key.to_owned() }));
    }

    fn take(pending: &mut Pending) -> Option<(String, String)> {
        pending.take().map(|due| (due.key, due.id))
    }

    fn pair(key: &str, id: &str) -> Option<(String, String)> {
        Some((key.to_owned(), id.to_owned()))
    }

    #[test]
    fn jobs_are_looked_at_in_order_and_once() {
        let mut pending = Pending::default();
        link(&mut pending, "a", "1");
        link(&mut pending, "b", "2");
        link(&mut pending, "a", "1");
        let first = pending.take().unwrap();
        assert_eq!((first.key.as_str(), first.id.as_str()), ("a", "1"));
        link(&mut pending, "a", "1");
        assert_eq!(take(&mut pending), pair("b", "2"));
        assert_eq!(take(&mut pending), None);
        pending.done("a", Verdict::Done, Instant::now());
        unlink(&mut pending, "a");
        assert!(pending.waiting() == 0 && !first.cancel.has_changed().unwrap_or(false));
        assert!(!pending.apply(ListChange::Deleted));
    }

    #[test]
    fn what_is_taken_out_is_dropped_while_it_waits_and_cancelled_while_it_runs() {
        let mut pending = Pending::default();
        link(&mut pending, "a", "1");
        unlink(&mut pending, "a");
        assert_eq!(take(&mut pending), None);
        link(&mut pending, "a", "1");
        let due = pending.take().unwrap();
        unlink(&mut pending, "a");
        assert_eq!(*due.cancel.borrow(), Some(Cancelled::Removed));
        // It is put back before the run has ended.
        link(&mut pending, "a", "1");
        assert_eq!(take(&mut pending), None);
        pending.done("a", Verdict::Done, Instant::now());
        assert_eq!(take(&mut pending), pair("a", "1"));
    }

    #[test]
    fn another_job_under_the_same_key_takes_its_place() {
        let mut pending = Pending::default();
        link(&mut pending, "a", "1");
        link(&mut pending, "a", "2");
        let due = pending.take().unwrap();
        assert_eq!((due.id.as_str(), pending.waiting()), ("2", 0));
        link(&mut pending, "a", "3");
        assert_eq!(*due.cancel.borrow(), Some(Cancelled::Removed));
        pending.done("a", Verdict::Left, Instant::now());
        assert_eq!(take(&mut pending), pair("a", "3"));
    }

    #[test]
    fn another_job_under_the_same_key_waits_for_its_turn() {
        let mut pending = Pending::default();
        for (key, id) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")] {
            link(&mut pending, key, id);
        }
        let order: Vec<_> = std::iter::from_fn(|| take(&mut pending)).map(|(key, id)| key + &id).collect();
        assert_eq!(order, ["b2", "c3", "a4"]);
    }

    #[test]
    fn a_list_that_was_read_again_replaces_what_was_known() {
        let mut pending = Pending::default();
        for key in ["a", "b", "c"] {
            link(&mut pending, key, key);
        }
        let running = pending.take().unwrap();
        let list = ["b", "d"].map(|key| (key.to_owned(), key.to_owned()));
        pending.list(list.into());
        assert_eq!(*running.cancel.borrow(), Some(Cancelled::Removed));
        assert_eq!(
            [take(&mut pending), take(&mut pending), take(&mut pending)],
            [pair("b", "b"), pair("d", "d"), None]
        );
    }

    #[test]
    fn jobs_can_be_left_or_put_off() {
        let mut pending = Pending::default();
        let now = Instant::now();
        link(&mut pending, "skipped", "0");
        pending.skip_waiting();
        link(&mut pending, "a", "1");
        link(&mut pending, "b", "2");
        let (_a, _b) = (pending.take(), pending.take());
        pending.done("a", Verdict::Left, now);
        pending.done("b", Verdict::Later(Duration::from_secs(5), None), now);
        assert_eq!((pending.waiting(), pending.next_due()), (0, Some(now + Duration::from_secs(5))));
        pending.wake(now + Duration::from_secs(4));
        assert_eq!(pending.waiting(), 0);
        pending.wake(now + Duration::from_secs(5));
        assert_eq!(take(&mut pending), pair("b", "2"));
        link(&mut pending, "skipped", "0");
        assert_eq!(pending.waiting(), 0);
        pending.cancel_all();
    }

    #[test]
    fn what_was_seen_of_a_job_is_there_at_the_next_look_and_then_forgotten() {
        use crate::service::claim::{Standing, claiming, standing};
        let now = Instant::now();
        let claim = claiming("other", "2026-11-21T10:00:00Z".parse().unwrap(), Duration::from_secs(1));
        let Standing::Taken(pause, observed) = standing(&claim, "me", None, now) else { panic!("it is taken") };
        let mut pending = Pending::default();
        link(&mut pending, "a", "1");
        link(&mut pending, "b", "2");
        assert!(pending.has("1") && pending.has("2") && !pending.has("a"));
        let due = pending.take().unwrap();
        assert_eq!(due.observed, None);
        pending.done("a", Verdict::Later(pause, Some(observed.clone())), now);
        pending.take();
        pending.done("b", Verdict::Later(2 * pause, None), now);
        assert_eq!(pending.next_due(), Some(now + pause), "the earlier one");
        pending.wake(now + pause);
        assert_eq!((pending.waiting(), pending.next_due()), (1, Some(now + 2 * pause)));
        let due = pending.take().unwrap();
        assert_eq!((due.key.as_str(), due.observed), ("a", Some(observed)));
        pending.done("a", Verdict::Later(pause, None), now);
        pending.wake(now + 2 * pause);
        assert!((0..2).all(|_| pending.take().is_some_and(|due| due.observed.is_none())));
        assert_eq!(pending.next_due(), None);
        // What is over, or unknown, is not looked at again.
        pending.done("a", Verdict::Done, now);
        pending.done("a", Verdict::Later(pause, None), now);
        pending.done("nobody", Verdict::Later(pause, None), now);
        assert_eq!((pending.has("1"), pending.next_due()), (false, None));
    }

    #[test]
    fn everything_that_runs_is_cancelled_for_a_shutdown_and_what_waits_is_left() {
        let mut pending = Pending::default();
        for key in ["a", "b", "c"] {
            link(&mut pending, key, key);
        }
        let running = [pending.take().unwrap(), pending.take().unwrap()];
        pending.skip_waiting();
        assert_eq!(pending.waiting(), 0);
        link(&mut pending, "c", "c");
        assert_eq!(take(&mut pending), None, "it was left alone");
        link(&mut pending, "c", "other");
        assert_eq!(take(&mut pending), pair("c", "other"));
        assert!(running.iter().all(|due| due.cancel.borrow().is_none()));
        pending.cancel_all();
        assert!(running.iter().all(|due| *due.cancel.borrow() == Some(Cancelled::Shutdown)));
    }

    #[test]
    fn what_was_put_back_and_taken_out_again_while_it_ran_is_gone() {
        let mut pending = Pending::default();
        link(&mut pending, "a", "1");
        let _running = pending.take();
        link(&mut pending, "a", "2");
        unlink(&mut pending, "a");
        assert!(pending.has("1"), "it still runs");
        pending.done("a", Verdict::Later(Duration::ZERO, None), Instant::now());
        assert!(!pending.has("1") && take(&mut pending).is_none() && pending.next_due().is_none());
    }
}
