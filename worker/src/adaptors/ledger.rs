//! Which adaptors there are, which are being got, and who waits for what: decisions only, events in and actions out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use protocol::install::{InstalledAdaptor, Resolved, Surveyed};
use semver::Version;
use tokio::time::Instant;

use super::wanted::{Refused, Requirement, Wanted};

/// What the ledger decides by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    /// How long an answer of the registry about tags is good.
    pub(super) tags_for: Duration,
    /// Installations at once.
    pub(super) at_once: usize,
    /// Whether the registry is never asked.
    pub(super) offline: bool,
}

/// Who waits.
pub(super) type WantId = u64;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// What is in the repo is known; an error if it cannot be.
    Surveyed(Result<Surveyed, String>),
    /// Somebody wants an adaptor.
    Wanted(WantId, Wanted),
    /// Nobody wants it any more.
    Unwanted(WantId),
    /// A look-up has ended.
    LookedUp(String, Result<Resolved, String>),
    /// An installation has ended.
    Installed(String, Version, Result<Box<InstalledAdaptor>, InstallFailure>),
    /// An adaptor is not where it was.
    Gone(String, String),
}

/// Why an adaptor was not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstallFailure {
    pub(super) why: String,
    /// Whether another version would do better: the registry cannot be reached.
    pub(super) registry_down: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    LookUp(String),
    Install(String, Version),
    Answer(WantId, Result<InstalledAdaptor, Refused>),
    /// Something that the operator should know.
    Warn(String),
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rules: Rules,
    is_surveyed: bool,
    installed: HashMap<String, BTreeMap<Version, InstalledAdaptor>>,
    tags: HashMap<String, Tags>,
    looking_up: HashSet<String>,
    installing: HashSet<(String, Version)>,
    /// In the order in which they came.
    wants: BTreeMap<WantId, Want>,
}

#[derive(Debug)]
struct Want {
    wanted: Wanted,
    /// The version that it comes down to, once that is known.
    target: Option<Version>,
}

#[derive(Debug)]
struct Tags {
    versions: HashMap<String, String>,
    good_until: Instant,
}

/// What a want comes down to now.
enum Next {
    Have(Box<InstalledAdaptor>),
    LookUp,
    Get(Version),
    Refuse(String),
}

impl Ledger {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes note of an event and says what is to be done.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Surveyed(Ok(surveyed)) => {
                self.is_surveyed = true;
                surveyed.adaptors.into_iter().for_each(|adaptor| self.add(adaptor));
            }
            Event::Surveyed(Err(why)) => {
                self.is_surveyed = true;
                actions.push(Action::Warn(format!("what is installed is not known: {why}")));
            }
            Event::Wanted(id, wanted) => drop(self.wants.insert(id, Want { wanted, target: None })),
            Event::Unwanted(id) => drop(self.wants.remove(&id)),
            Event::LookedUp(name, answer) => self.looked_up(name, answer, now, &mut actions),
            Event::Installed(name, version, result) => self.end_of_install(name, version, result, &mut actions),
            Event::Gone(name, version) => {
                if let (Some(versions), Ok(version)) = (self.installed.get_mut(&name), Version::parse(&version)) {
                    versions.remove(&version);
                }
            }
        }
        if self.is_surveyed {
            self.settle(now, &mut actions);
        }
        actions
    }

    fn add(&mut self, adaptor: InstalledAdaptor) {
        if let Ok(version) = Version::parse(&adaptor.adaptor.version) {
            self.installed.entry(adaptor.adaptor.name.clone()).or_default().insert(version, adaptor);
        }
    }

    fn looked_up(&mut self, name: String, answer: Result<Resolved, String>, now: Instant, actions: &mut Vec<Action>) {
        self.looking_up.remove(&name);
        match answer {
            Ok(resolved) => {
                if let Some(why) = resolved.stale.filter(|_| !self.rules.offline) {
                    actions.push(Action::Warn(format!("the registry's last answer about {name} is used: {why}")));
                }
                let tags =
                    Tags { versions: resolved.tags.into_iter().collect(), good_until: now + self.rules.tags_for };
                self.tags.insert(name, tags);
            }
            Err(why) => {
                let concerned = |want: &Want| want.wanted.name == name && want.target.is_none() && want.needs_tags();
                self.fall_back(concerned, &InstallFailure { why, registry_down: true }, actions);
            }
        }
    }

    fn end_of_install(
        &mut self,
        name: String,
        version: Version,
        result: Result<Box<InstalledAdaptor>, InstallFailure>,
        actions: &mut Vec<Action>,
    ) {
        self.installing.remove(&(name.clone(), version.clone()));
        match result {
            Ok(adaptor) => {
                let answers = |want: &Want| want.wanted.name == name && want.target.as_ref() == Some(&version);
                for id in self.ids(answers) {
                    self.wants.remove(&id);
                    actions.push(Action::Answer(id, Ok((*adaptor).clone())));
                }
                // One that could not be prepared is as good as it gets.
                self.add(InstalledAdaptor { prepared: true, ..*adaptor });
            }
            Err(failure) => {
                let concerned = |want: &Want| want.wanted.name == name && want.target.as_ref() == Some(&version);
                self.fall_back(concerned, &failure, actions);
            }
        }
    }

    /// Gives wants the newest version that is installed, where that would do and nothing better can be had.
    fn fall_back(&mut self, concerned: impl Fn(&Want) -> bool, failure: &InstallFailure, actions: &mut Vec<Action>) {
        for id in self.ids(concerned) {
            let Some(want) = self.wants.remove(&id) else { continue };
            let may_differ = want.needs_tags() && (failure.registry_down || self.rules.offline);
            let newest = self.newest(&want.wanted.name).filter(|_| may_differ);
            let answer = match newest {
                Some(adaptor) => {
                    let version = &adaptor.adaptor.version;
                    let wanted = &want.wanted;
                    actions.push(Action::Warn(format!("{version} is used for {wanted}: {}", failure.why)));
                    Ok(adaptor.clone())
                }
                None => Err(want.wanted.refused(&failure.why)),
            };
            actions.push(Action::Answer(id, answer));
        }
    }

    fn ids(&self, concerned: impl Fn(&Want) -> bool) -> Vec<WantId> {
        self.wants.iter().filter(|(_, want)| concerned(want)).map(|(id, _)| *id).collect()
    }

    /// The newest release that is installed, else the newest of all.
    fn newest(&self, name: &str) -> Option<&InstalledAdaptor> {
        let versions = self.installed.get(name)?;
        let release = versions.iter().rfind(|(version, _)| version.pre.is_empty());
        release.or_else(|| versions.iter().next_back()).map(|(_, adaptor)| adaptor)
    }

    /// Brings every want as far as it can be brought.
    fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for id in self.ids(|_| true) {
            let Some(next) = self.wants.get(&id).map(|want| self.next(want, now)) else { continue };
            match next {
                Next::Have(adaptor) => self.answer(id, |_| Ok(*adaptor), actions),
                Next::Refuse(why) => self.answer(id, |wanted| Err(wanted.refused(why)), actions),
                Next::LookUp => {
                    let Some(want) = self.wants.get(&id) else { continue };
                    if self.looking_up.insert(want.wanted.name.clone()) {
                        actions.push(Action::LookUp(want.wanted.name.clone()));
                    }
                }
                Next::Get(version) => self.get(id, version, actions),
            }
        }
    }

    fn answer(
        &mut self,
        id: WantId,
        answer: impl FnOnce(&Wanted) -> Result<InstalledAdaptor, Refused>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(want) = self.wants.remove(&id) {
            actions.push(Action::Answer(id, answer(&want.wanted)));
        }
    }

    fn get(&mut self, id: WantId, version: Version, actions: &mut Vec<Action>) {
        let Some(want) = self.wants.get_mut(&id) else { return };
        want.target = Some(version.clone());
        let key = (want.wanted.name.clone(), version);
        if !self.installing.contains(&key) && self.installing.len() < self.rules.at_once {
            self.installing.insert(key.clone());
            actions.push(Action::Install(key.0, key.1));
        }
    }

    fn next(&self, want: &Want, now: Instant) -> Next {
        let name = &want.wanted.name;
        let target = match (&want.target, &want.wanted.requirement) {
            (Some(target), _) | (None, Requirement::Exact(target)) => target.clone(),
            (None, Requirement::Installed) => {
                return self.newest(name).map_or_else(|| Next::Refuse("none is installed".to_owned()), have);
            }
            (None, Requirement::Local) => return Next::Refuse("it is not for the registry".to_owned()),
            (None, requirement) => {
                let tag = match requirement {
                    Requirement::Tag(tag) => tag.as_str(),
                    _ => match self.newest(name) {
                        Some(adaptor) => return have(adaptor),
                        None => "latest",
                    },
                };
                let Some(tags) = self.tags.get(name).filter(|tags| now < tags.good_until) else { return Next::LookUp };
                let Some(version) = tags.versions.get(tag) else {
                    return Next::Refuse(format!("the registry knows no version with the tag {tag}"));
                };
                match Version::parse(version) {
                    Ok(version) => version,
                    Err(error) => return Next::Refuse(format!("{tag} stands for {version:?}: {error}")),
                }
            }
        };
        match self.installed.get(name).and_then(|versions| versions.get(&target)) {
            Some(adaptor) if adaptor.prepared => have(adaptor),
            _ => Next::Get(target),
        }
    }
}

/// An adaptor that is there. One that nobody looked at yet is looked at first.
fn have(adaptor: &InstalledAdaptor) -> Next {
    match Version::parse(&adaptor.adaptor.version) {
        Ok(version) if !adaptor.prepared => Next::Get(version),
        _ => Next::Have(Box::new(adaptor.clone())),
    }
}

impl Want {
    /// Whether the registry decides what would do.
    fn needs_tags(&self) -> bool {
        matches!(self.wanted.requirement, Requirement::Any | Requirement::Tag(_))
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
