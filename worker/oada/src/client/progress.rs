//! How far a watch has come: what is new, what was heard before, what was missed. Pure.

/// How far a watch has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// None until the store has said which one it is.
    resource: Option<String>,
    rev: u64,
}

/// What a change is to a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one.
    Next,
    /// It was heard of before.
    Replay,
    /// Something before it was not told.
    AfterGap,
}

impl Progress {
    /// The watch has heard of everything up to `rev`.
    pub(super) fn new(rev: u64) -> Self {
        Self { resource: None, rev }
    }

    pub(super) fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    pub(super) fn rev(&self) -> u64 {
        self.rev
    }

    /// A change to revision `rev` arrives; none is the end of the resource.
    pub(super) fn change(&mut self, rev: Option<u64>) -> Arrival {
        let Some(rev) = rev else { return Arrival::Next };
        if rev <= self.rev {
            return Arrival::Replay;
        }
        let next = rev == self.rev + 1;
        self.rev = rev;
        if next { Arrival::Next } else { Arrival::AfterGap }
    }

    /// The watch is set, on this resource at this revision, and everything that was to be replayed has been.
    /// Whether something was missed.
    pub(super) fn set(&mut self, resource: Option<&str>, rev: Option<u64>) -> bool {
        if let Some(resource) = resource
            && let Some(before) = self.resource.replace(resource.to_owned())
            && before != resource
        {
            self.rev = rev.unwrap_or(0);
            return true;
        }
        match rev {
            Some(rev) if rev > self.rev => {
                self.rev = rev;
                true
            }
            _ => false,
        }
    }

    /// The resource was read at this revision: what leads there is not news.
    pub(super) fn caught_up(&mut self, rev: u64) {
        self.rev = self.rev.max(rev);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_gaps_are_noticed() {
        let mut progress = Progress::new(2);
        let arrivals = [3, 3, 4, 7, 6, 8].map(|rev| progress.change(Some(rev)));
        use Arrival::{AfterGap, Next, Replay};
        assert_eq!(arrivals, [Next, Replay, Next, AfterGap, Replay, Next]);
        assert_eq!(progress.change(None), Next);
        progress.caught_up(20);
        progress.caught_up(5);
        assert_eq!(progress.change(Some(20)), Replay);
        assert_eq!(progress.rev(), 20);
    }

    #[test]
    fn what_was_caught_up_with_is_no_news_and_the_rest_is() {
        let mut progress = Progress::new(0);
        assert_eq!((progress.resource(), progress.rev()), (None, 0));
        assert!(progress.set(Some("resources/P"), Some(1)), "nothing was heard before");
        progress.caught_up(4);
        assert!(!progress.set(Some("resources/P"), Some(4)) && !progress.set(Some("resources/P"), Some(3)));
        assert_eq!(progress.change(Some(5)), Arrival::Next);
        assert_eq!(progress.change(None), Arrival::Next);
        assert_eq!((progress.resource(), progress.rev()), (Some("resources/P"), 5));
        assert!(progress.set(Some("resources/Q"), None), "another one, whose revision nobody knows");
        assert_eq!(progress.rev(), 0);
    }

    #[test]
    fn a_watch_that_is_set_again_knows_whether_it_missed_something() {
        let mut progress = Progress::new(5);
        assert!(!progress.set(Some("resources/P"), Some(5)));
        assert!(!progress.set(None, None));
        assert!(progress.set(Some("resources/P"), Some(6)), "history was gone");
        assert!(!progress.set(Some("resources/P"), Some(6)));
        assert!(progress.set(Some("resources/Q"), Some(1)), "it is another list now");
        assert_eq!((progress.resource(), progress.rev()), (Some("resources/Q"), 1));
    }
}
