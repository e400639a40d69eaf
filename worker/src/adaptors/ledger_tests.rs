use std::path::PathBuf;

use protocol::engine::{Adaptor, Needs};

use super::*;

const X: &str = "@openfn/language-x";

fn adaptor(version: &str) -> InstalledAdaptor {
    InstalledAdaptor {
        adaptor: Adaptor {
            name: X.into(),
            version: version.into(),
            folder: PathBuf::from("/repo").join(version),
            bundle: None,
            exports: None,
            needs: Needs::default(),
        },
        prepared: true,
        unbundled: None,
        reads: None,
    }
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

/// A ledger whose repo holds these versions, and a shorter way to ask it.
struct Scene {
    ledger: Ledger,
    now: Instant,
    next_id: WantId,
}

impl Scene {
    fn with(versions: &[&str]) -> Self {
        Self::with_rules(versions, Rules { tags_for: Duration::from_secs(60), at_once: 2, offline: false })
    }

    fn with_rules(versions: &[&str], rules: Rules) -> Self {
        let mut scene = Self { ledger: Ledger::new(rules), now: Instant::now(), next_id: 0 };
        let adaptors = versions.iter().map(|version| adaptor(version)).collect();
        assert_eq!(scene.on(Event::Surveyed(Ok(Surveyed { adaptors, snapshots: vec![] }))), []);
        scene
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.ledger.on(event, self.now)
    }

    fn want(&mut self, text: &str) -> Vec<Action> {
        self.next_id += 1;
        self.on(Event::Wanted(self.next_id, Wanted::read(text).unwrap()))
    }

    fn tags(&mut self, tags: &[(&str, &str)], stale: Option<&str>) -> Vec<Action> {
        let tags = tags.iter().map(|(tag, version)| ((*tag).into(), (*version).into())).collect();
        self.on(Event::LookedUp(X.into(), Ok(Resolved { tags, stale: stale.map(str::to_owned) })))
    }

    fn installed(&mut self, text: &str) -> Vec<Action> {
        self.on(Event::Installed(X.into(), version(text), Ok(Box::new(adaptor(text)))))
    }

    fn failed(&mut self, text: &str, registry_down: bool) -> Vec<Action> {
        let failure = InstallFailure { why: "because".into(), registry_down };
        self.on(Event::Installed(X.into(), version(text), Err(failure)))
    }
}

fn install(text: &str) -> Action {
    Action::Install(X.into(), version(text))
}

fn answer(id: WantId, text: &str) -> Action {
    Action::Answer(id, Ok(adaptor(text)))
}

/// The versions and errors that were answered, in order.
fn answers(actions: &[Action]) -> Vec<Result<&str, String>> {
    let mut answers = Vec::new();
    for action in actions {
        match action {
            Action::Answer(_, Ok(adaptor)) => answers.push(Ok(adaptor.adaptor.version.as_str())),
            Action::Answer(_, Err(refused)) => answers.push(Err(refused.to_string())),
            _ => {}
        }
    }
    answers
}

#[test]
fn what_is_installed_is_had_at_once() {
    let mut scene = Scene::with(&["1.9.0", "1.10.0", "2.0.0-next.1"]);
    assert_eq!(scene.want("@openfn/language-x@1.9.0"), [answer(1, "1.9.0")]);
    assert_eq!(scene.want("@openfn/language-x"), [answer(2, "1.10.0")], "the newest release");
    let mut scene = Scene::with(&["2.0.0-next.1"]);
    assert_eq!(scene.want("@openfn/language-x"), [answer(1, "2.0.0-next.1")], "better than none");
}

#[test]
fn nothing_is_decided_before_it_is_known_what_is_there() {
    let mut scene = Scene::with(&[]);
    scene.ledger.is_surveyed = false;
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), []);
    let surveyed = Surveyed { adaptors: vec![adaptor("1.0.0")], snapshots: vec![] };
    assert_eq!(scene.on(Event::Surveyed(Ok(surveyed))), [answer(1, "1.0.0")]);

    let mut scene = Scene::with(&[]);
    scene.ledger.is_surveyed = false;
    scene.want("@openfn/language-x@1.0.0");
    let actions = scene.on(Event::Surveyed(Err("no disk".into())));
    assert_eq!(actions[1], install("1.0.0"), "it is tried all the same");
}

#[test]
fn runs_that_want_the_same_share_one_installation() {
    let mut scene = Scene::with(&[]);
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), [install("1.0.0")]);
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), []);
    assert_eq!(scene.installed("1.0.0"), [answer(1, "1.0.0"), answer(2, "1.0.0")]);
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), [answer(3, "1.0.0")]);
}

#[test]
fn a_failure_is_told_to_all_who_wait_and_the_next_one_tries_again() {
    let mut scene = Scene::with(&["0.9.0"]);
    scene.want("@openfn/language-x@1.0.0");
    scene.want("@openfn/language-x@1.0.0");
    let failed = scene.failed("1.0.0", true);
    let message = Err("Error installing @openfn/language-x@1.0.0: because".to_owned());
    assert_eq!(answers(&failed), [message.clone(), message], "another version would not do");
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), [install("1.0.0")]);
}

#[test]
fn only_so_many_are_installed_at_once() {
    let mut scene = Scene::with(&[]);
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), [install("1.0.0")]);
    assert_eq!(scene.want("@openfn/language-x@2.0.0"), [install("2.0.0")]);
    assert_eq!(scene.want("@openfn/language-x@3.0.0"), []);
    assert_eq!(scene.failed("2.0.0", false).last(), Some(&install("3.0.0")));
}

#[test]
fn nothing_is_installed_for_who_is_gone() {
    let mut scene = Scene::with(&[]);
    scene.want("@openfn/language-x@1.0.0");
    scene.want("@openfn/language-x@2.0.0");
    scene.want("@openfn/language-x@3.0.0");
    assert_eq!(scene.on(Event::Unwanted(3)), []);
    assert_eq!(scene.installed("1.0.0"), [answer(1, "1.0.0")]);
}

#[test]
fn a_tag_is_looked_up_once_until_the_answer_is_too_old() {
    let mut scene = Scene::with(&["1.0.0", "2.0.0"]);
    assert_eq!(scene.want("@openfn/language-x@latest"), [Action::LookUp(X.into())]);
    assert_eq!(scene.want("@openfn/language-x@next"), [], "one question serves both");
    let tags = [("latest", "1.0.0"), ("next", "2.0.0")];
    assert_eq!(scene.tags(&tags, None), [answer(1, "1.0.0"), answer(2, "2.0.0")]);
    assert_eq!(scene.want("@openfn/language-x@latest"), [answer(3, "1.0.0")]);
    scene.now += Duration::from_secs(61);
    assert_eq!(scene.want("@openfn/language-x@latest"), [Action::LookUp(X.into())]);
}

#[test]
fn without_a_version_the_latest_is_installed_where_none_is() {
    let mut scene = Scene::with(&[]);
    assert_eq!(scene.want("@openfn/language-x"), [Action::LookUp(X.into())]);
    assert_eq!(scene.tags(&[("latest", "1.0.0")], None), [install("1.0.0")]);
    assert_eq!(scene.installed("1.0.0"), [answer(1, "1.0.0")]);
}

#[test]
fn a_tag_that_does_not_exist_is_told() {
    let mut scene = Scene::with(&["1.0.0"]);
    scene.want("@openfn/language-x@nope");
    let refused = scene.tags(&[("latest", "1.0.0")], None);
    let message = "Error installing @openfn/language-x@nope: the registry knows no version with the tag nope";
    assert_eq!(answers(&refused), [Err(message.to_owned())]);
}

#[test]
fn the_newest_one_installed_is_the_last_resort_of_a_tag() {
    for (have, expected) in [
        (vec!["1.0.0", "1.1.0"], Ok("1.1.0")),
        (vec![], Err("Error installing @openfn/language-x@latest: no network".to_owned())),
    ] {
        let mut scene = Scene::with(&have);
        scene.want("@openfn/language-x@latest");
        let answered = scene.on(Event::LookedUp(X.into(), Err("no network".into())));
        assert_eq!(answers(&answered).first(), Some(&expected));

        let mut scene = Scene::with(&have);
        scene.want("@openfn/language-x@latest");
        assert_eq!(scene.tags(&[("latest", "2.0.0")], Some("no network")).last(), Some(&install("2.0.0")));
        let answered = scene.failed("2.0.0", true);
        let expected = expected.map_err(|_| "Error installing @openfn/language-x@latest: because".to_owned());
        assert_eq!(answers(&answered), [expected]);
    }
}

#[test]
fn a_version_that_is_broken_is_not_replaced_by_another() {
    let mut scene = Scene::with(&["1.0.0"]);
    scene.want("@openfn/language-x@latest");
    scene.tags(&[("latest", "2.0.0")], None);
    let answered = scene.failed("2.0.0", false);
    assert_eq!(answers(&answered), [Err("Error installing @openfn/language-x@latest: because".to_owned())]);
}

#[test]
fn offline_the_newest_one_installed_does_for_a_tag() {
    let rules = Rules { tags_for: Duration::from_secs(60), at_once: 2, offline: true };
    let mut scene = Scene::with_rules(&["1.0.0"], rules);
    scene.want("@openfn/language-x@latest");
    assert_eq!(scene.tags(&[("latest", "2.0.0")], Some("offline")), [install("2.0.0")], "the host knows best");
    assert_eq!(answers(&scene.failed("2.0.0", false)), [Ok("1.0.0")]);
}

#[test]
fn what_the_reference_worker_installed_is_looked_at_once() {
    let mut scene = Scene::with(&[]);
    let raw = InstalledAdaptor { prepared: false, ..adaptor("1.0.0") };
    scene.ledger.add(raw.clone());
    assert_eq!(scene.want("@openfn/language-x"), [install("1.0.0")]);
    assert_eq!(scene.installed("1.0.0"), [answer(1, "1.0.0")]);

    scene.ledger.add(raw.clone());
    scene.want("@openfn/language-x@1.0.0");
    let answered = scene.on(Event::Installed(X.into(), version("1.0.0"), Ok(Box::new(raw.clone()))));
    assert_eq!(answered, [Action::Answer(2, Ok(raw))], "where it cannot be, it is used as it is");
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), [answer(3, "1.0.0")], "and not tried for every run");
}

#[test]
fn what_is_gone_is_installed_again() {
    let mut scene = Scene::with(&["1.0.0"]);
    scene.on(Event::Gone(X.into(), "1.0.0".into()));
    assert_eq!(scene.want("@openfn/language-x@1.0.0"), [install("1.0.0")]);
}
