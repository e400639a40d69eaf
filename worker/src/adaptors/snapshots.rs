//! Which sets of adaptors have a start-up snapshot, and which is to be made next. Decisions only.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

use protocol::engine::Adaptor;
use protocol::install::{KnownSnapshot, SnapshotOutcome};

/// A set of adaptors, as `name@version`, sorted.
pub(super) type Set = Vec<String>;

/// What is known of one set.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Runs use this file.
    Made(PathBuf),
    /// It waits to be made, or is being made.
    Wanted,
    /// There will be none.
    Given,
}

/// The state: snapshots are made one at a time, for sets that a run has used.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Whether this Node can have any.
    are_possible: bool,
    known: HashMap<Set, State>,
    queue: VecDeque<Vec<Adaptor>>,
    is_making: bool,
}

/// Whether this Node makes snapshots that the engine can use.
pub(super) fn are_possible(node_version: &str) -> bool {
    const OLDEST_NODE: u64 = 22;
    semver::Version::parse(node_version).is_ok_and(|version| version.major >= OLDEST_NODE)
}

impl Snapshots {
    pub(super) fn new(node_version: &str) -> Self {
        Self { are_possible: are_possible(node_version), ..Self::default() }
    }

    /// Takes note of what is in the repo.
    pub(super) fn surveyed(&mut self, snapshots: Vec<KnownSnapshot>) {
        for KnownSnapshot { adaptors, outcome } in snapshots {
            self.ended(adaptors, Some(outcome));
        }
    }

    /// The snapshot of a set that a run is about to use. One that there could be is made for later runs.
    pub(super) fn of(&mut self, adaptors: &[Adaptor]) -> Option<PathBuf> {
        let is_fit = |adaptor: &Adaptor| adaptor.bundle.is_some() && adaptor.version != "local";
        if !self.are_possible || adaptors.is_empty() || !adaptors.iter().all(is_fit) {
            return None;
        }
        match self.known.get(&set(adaptors)) {
            Some(State::Made(path)) => Some(path.clone()),
            Some(State::Wanted | State::Given) => None,
            None => {
                self.known.insert(set(adaptors), State::Wanted);
                self.queue.push_back(adaptors.to_vec());
                None
            }
        }
    }

    /// The set to make a snapshot of now, if any.
    pub(super) fn next(&mut self) -> Option<Vec<Adaptor>> {
        if self.is_making {
            return None;
        }
        let next = self.queue.pop_front();
        self.is_making = next.is_some();
        next
    }

    /// The one that was being made is made, or will not be: with no outcome it may be tried again later.
    pub(super) fn made(&mut self, set: Set, outcome: Option<SnapshotOutcome>) {
        self.is_making = false;
        self.ended(set, outcome);
    }

    fn ended(&mut self, mut set: Set, outcome: Option<SnapshotOutcome>) {
        set.sort();
        match outcome {
            Some(SnapshotOutcome::Made(path)) => drop(self.known.insert(set, State::Made(path))),
            Some(SnapshotOutcome::Impossible(_)) => drop(self.known.insert(set, State::Given)),
            None => drop(self.known.remove(&set)),
        }
    }

    /// A snapshot is not where it was.
    pub(super) fn gone(&mut self, set: &Set) {
        self.known.remove(set);
    }
}

/// What a set is called.
pub(super) fn set(adaptors: &[Adaptor]) -> Set {
    let mut set: Set = adaptors.iter().map(Adaptor::specifier).collect();
    set.sort();
    set
}

#[cfg(test)]
mod tests {
    use protocol::engine::Needs;

    use super::*;

    fn adaptor(name: &str) -> Adaptor {
        Adaptor {
            name: name.into(),
            version: "1.0.0".into(),
            folder: "/x".into(),
            bundle: Some("/x/bundle.cjs".into()),
            exports: None,
            needs: Needs::default(),
        }
    }

    fn made(path: &str) -> Option<SnapshotOutcome> {
        Some(SnapshotOutcome::Made(path.into()))
    }

    #[test]
    fn a_snapshot_is_made_after_the_first_use_one_at_a_time() {
        let mut snapshots = Snapshots::new("24.4.0");
        let (one, other) = ([adaptor("a"), adaptor("b")], [adaptor("b")]);
        assert_eq!(snapshots.of(&one), None);
        assert_eq!(snapshots.of(&one), None, "it is wanted once");
        assert_eq!(snapshots.of(&other), None);
        assert_eq!(snapshots.next().as_deref(), Some(one.as_slice()));
        assert_eq!(snapshots.next(), None);
        snapshots.made(set(&one), made("/s"));
        assert_eq!(snapshots.of(&one), Some("/s".into()));
        assert_eq!(snapshots.next().as_deref(), Some(other.as_slice()));
        snapshots.made(set(&other), Some(SnapshotOutcome::Impossible("wasm".into())));
        assert_eq!((snapshots.of(&other), snapshots.next()), (None, None), "not every run tries it");
    }

    #[test]
    fn what_the_repo_holds_is_used_until_it_is_gone() {
        let mut snapshots = Snapshots::new("22.0.0");
        let both = [adaptor("b"), adaptor("a")];
        let outcome = SnapshotOutcome::Made("/s".into());
        snapshots.surveyed(vec![KnownSnapshot { adaptors: vec!["a@1.0.0".into(), "b@1.0.0".into()], outcome }]);
        assert_eq!(snapshots.of(&both), Some("/s".into()), "whatever the order");
        snapshots.gone(&set(&both));
        assert_eq!(snapshots.of(&both), None);
        assert!(snapshots.next().is_some(), "it is made again");
        snapshots.made(set(&both), None);
        assert_eq!(snapshots.of(&both), None);
        assert!(snapshots.next().is_some(), "what failed for no reason of its own is tried again");
    }

    #[test]
    fn there_is_none_for_what_cannot_be_in_one() {
        let mut modern = Snapshots::new("24.4.0");
        let unbundled = Adaptor { bundle: None, ..adaptor("a") };
        let local = Adaptor { version: "local".into(), ..adaptor("a") };
        for set in [vec![unbundled], vec![local, adaptor("b")], vec![]] {
            assert_eq!((modern.of(&set), modern.next()), (None, None));
        }
        let mut old = Snapshots::new("20.20.2");
        assert_eq!((old.of(&[adaptor("a")]), old.next()), (None, None));
    }
}
