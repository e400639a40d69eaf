use protocol::engine::{Adaptor, EngineSpec, ForkOrigin, Needs, NodeSpec};
use protocol::handshake::LinkToken;

use super::*;

const MB: u64 = 1024 * 1024;
const MINUTE: Duration = Duration::from_secs(60);

fn key(name: &str) -> Prepare {
    let spec = NodeSpec {
        program: name.into(),
        version: "24.4.0".into(),
        adaptors: Vec::new(),
        snapshot: None,
        origin: ForkOrigin::default(),
    };
    Prepare { engine: EngineSpec::Node(spec), memory_bytes: 500 * MB }
}

fn address(host: &str) -> TemplateAddress {
    TemplateAddress { host: host.to_owned(), socket: "/t".into(), token: LinkToken::new("t") }
}

/// A shelf at a time.
struct Scene {
    shelf: Shelf,
    now: Instant,
}

impl Scene {
    fn new(policy: TemplatePolicy) -> Self {
        Self { shelf: Shelf::new(policy), now: Instant::now() }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn want(&mut self, name: &str) -> Result<String, Lacking> {
        self.shelf.wanted(&key(name), Demand::New, self.now).map(|address| address.host.clone())
    }

    fn plan(&mut self) -> Vec<Action> {
        self.shelf.plan(self.now)
    }

    /// Wants it as often as it takes, and starts it.
    fn start(&mut self, name: &str, host: &str) -> Number {
        for _ in 0..self.shelf.policy.wanted {
            let _ = self.want(name);
        }
        let plan = self.plan();
        let Some(Action::Start(number, wanted)) = plan.last() else { panic!("{plan:?}") };
        assert_eq!(**wanted, key(name));
        assert!(self.shelf.ready(*number, address(host), 60 * MB, Some(1), self.now));
        *number
    }
}

#[test]
fn a_template_is_started_for_what_is_wanted_often() {
    let mut scene = Scene::new(TemplatePolicy::default());
    assert_eq!(scene.want("a"), Err(Lacking::Unwanted));
    assert_eq!(scene.plan(), []);
    scene.pass(RECENTLY);
    assert_eq!(scene.want("a"), Err(Lacking::Unwanted));
    assert_eq!(scene.plan(), [], "the first time was too long ago");
    let again = scene.shelf.wanted(&key("a"), Demand::Known, scene.now).cloned();
    assert_eq!((again, scene.plan()), (Err(Lacking::Unwanted), vec![]), "who has one wants no other");
    let _ = scene.want("a");
    assert_eq!(scene.plan(), [Action::Start(1, Box::new(key("a")))]);
    assert_eq!(scene.want("a"), Err(Lacking::Warming));
    assert!(scene.shelf.ready(1, address("h1"), 60 * MB, Some(1), scene.now));
    assert_eq!(scene.want("a"), Ok("h1".to_owned()));
    assert_eq!(scene.plan(), []);
}

#[test]
fn one_is_started_at_a_time() {
    let mut scene = Scene::new(TemplatePolicy { wanted: 1, ..TemplatePolicy::default() });
    let _ = scene.want("a");
    scene.pass(MINUTE);
    let _ = scene.want("b");
    assert_eq!(scene.plan(), [Action::Start(1, Box::new(key("b")))], "what was wanted last");
    assert_eq!(scene.plan(), []);
    assert!(scene.shelf.ready(1, address("h1"), 60 * MB, None, scene.now));
    assert_eq!(scene.plan(), [Action::Start(2, Box::new(key("a")))]);
}

#[test]
fn templates_are_let_go_when_they_are_old_used_up_or_not_wanted() {
    type Change = fn(&mut Scene);
    let table: [(Change, bool); 5] = [
        (|_| {}, false),
        (|scene| scene.pass(RECENTLY), true),
        (
            |scene| {
                for _ in 0..12 {
                    scene.pass(5 * MINUTE);
                    let _ = scene.want("a");
                }
            },
            true,
        ),
        (|scene| (0..2).for_each(|_| scene.shelf.forked("h1")), false),
        (|scene| (0..3).for_each(|_| scene.shelf.forked("h1")), true),
    ];
    for (row, (change, is_over)) in table.into_iter().enumerate() {
        let mut scene = Scene::new(TemplatePolicy { max_forks: 3, ..TemplatePolicy::default() });
        let number = scene.start("a", "h1");
        change(&mut scene);
        let plan = scene.plan();
        assert_eq!(plan.contains(&Action::Drop(number)), is_over, "row {row}: {plan:?}");
    }
}

#[test]
fn memory_goes_to_what_is_wanted() {
    let mut scene = Scene::new(TemplatePolicy { memory_bytes: 100 * MB, ..TemplatePolicy::default() });
    let first = scene.start("a", "h1");
    let (_, _) = (scene.want("b"), scene.want("b"));
    assert_eq!(scene.plan(), [], "there is no room, and the one that is there was wanted just as lately");
    scene.pass(6 * MINUTE);
    let _ = scene.want("b");
    let _ = scene.want("b");
    assert_eq!(scene.plan(), [Action::Drop(first), Action::Start(2, Box::new(key("b")))]);
    assert_eq!(scene.want("a"), Err(Lacking::Unwanted));
}

#[test]
fn one_makes_way_only_if_it_was_not_wanted_for_half_of_the_time_that_counts() {
    for (pause, makes_way) in [(RECENTLY / 2, false), (RECENTLY / 2 + Duration::from_millis(1), true)] {
        let mut scene = Scene::new(TemplatePolicy { memory_bytes: 100 * MB, ..TemplatePolicy::default() });
        let first = scene.start("a", "h1");
        scene.pass(pause);
        let (_, _) = (scene.want("b"), scene.want("b"));
        assert_eq!(scene.plan().contains(&Action::Drop(first)), makes_way, "{pause:?}");
    }
}

#[test]
fn there_are_as_many_as_there_is_memory_for() {
    let room_for_two = 60 * MB + USUAL_BYTES;
    let mut scene = Scene::new(TemplatePolicy { memory_bytes: room_for_two - 1, ..TemplatePolicy::default() });
    scene.start("a", "h1");
    let (_, _) = (scene.want("b"), scene.want("b"));
    assert_eq!(scene.plan(), []);
    scene.shelf.set_memory(room_for_two);
    assert_eq!(scene.plan(), [Action::Start(2, Box::new(key("b")))]);
}

#[test]
fn there_may_be_one_whatever_the_memory() {
    let mut scene = Scene::new(TemplatePolicy { memory_bytes: 1, ..TemplatePolicy::default() });
    scene.start("a", "h1");
}

#[test]
fn what_does_not_get_ready_falls_back_for_an_hour() {
    let mut scene = Scene::new(TemplatePolicy { wanted: 1, ..TemplatePolicy::default() });
    let _ = scene.want("a");
    assert_eq!(scene.plan(), [Action::Start(1, Box::new(key("a")))]);
    assert!(scene.shelf.failed(1, "no".to_owned(), Some(1), scene.now));
    assert!(!scene.shelf.failed(1, "no".to_owned(), Some(1), scene.now), "once");
    assert_eq!((scene.want("a"), scene.plan()), (Err(Lacking::GivenUp), vec![]));
    let looks = scene.shelf.looks(scene.now);
    assert_eq!(looks[0].1, TemplateState::GivenUp { left: FALLBACK, why: "no".into() });
    scene.pass(FALLBACK);
    scene.plan();
    let _ = scene.want("a");
    assert_eq!(scene.plan(), [Action::Start(2, Box::new(key("a")))]);
}

#[test]
fn three_faults_make_a_key_fall_back() {
    let mut scene = Scene::new(TemplatePolicy::default());
    for (pause, falls_back) in [(MINUTE, false), (2 * FAULTS_WITHIN, false), (MINUTE, false), (MINUTE, true)] {
        scene.pass(pause);
        let number = scene.start("a", "h1");
        let (actions, fallen) = scene.shelf.fault("h1", "it was silent", scene.now);
        assert_eq!(actions, [Action::Drop(number)], "each time there is another one");
        assert_eq!(fallen.is_some(), falls_back);
    }
    assert_eq!(scene.want("a"), Err(Lacking::GivenUp));
    assert_eq!(scene.shelf.fault("h1", "late", scene.now), (vec![], None), "of one that is gone");
}

#[test]
fn one_that_dies_is_started_anew_if_it_is_wanted() {
    let mut scene = Scene::new(TemplatePolicy::default());
    let number = scene.start("a", "h1");
    scene.shelf.ended(number);
    assert_eq!(scene.plan(), [Action::Start(number + 1, Box::new(key("a")))]);
    scene.shelf.ended(number + 1);
    scene.pass(RECENTLY);
    assert_eq!(scene.plan(), []);
    assert!(!scene.shelf.ready(number + 1, address("h2"), 1, None, scene.now), "nobody wants it any more");
}

#[test]
fn other_files_are_another_template() {
    let mut scene = Scene::new(TemplatePolicy::default());
    let number = scene.start("a", "h1");
    assert_eq!(scene.shelf.look(|_| Some(1)), []);
    assert_eq!(scene.shelf.look(|_| Some(2)), [Action::Drop(number)]);
    assert_eq!(scene.plan(), [Action::Start(number + 1, Box::new(key("a")))]);
    assert_eq!(scene.shelf.look(|_| Some(9)), [], "one that is being started reads what is there now");
    assert_eq!(scene.want("a"), Err(Lacking::Warming));
    assert!(scene.shelf.failed(number + 1, "no".to_owned(), Some(2), scene.now));
    assert_eq!(scene.shelf.look(|_| Some(2)), []);
    assert_eq!(scene.want("a"), Err(Lacking::GivenUp));
    assert_eq!(scene.shelf.look(|_| Some(3)), [], "what was given up gets another chance");
    assert_eq!(scene.want("a"), Err(Lacking::Unwanted));
}

#[test]
fn engines_that_start_processes_are_not_forked() {
    let mut scene = Scene::new(TemplatePolicy::default());
    let mut wanted = key("a");
    let EngineSpec::Node(spec) = &mut wanted.engine else { unreachable!("it is one") };
    spec.adaptors.push(Adaptor {
        name: "a".into(),
        version: "1.0.0".into(),
        folder: "/a".into(),
        bundle: None,
        exports: None,
        needs: Needs { child_processes: true, ..Needs::default() },
    });
    let offered = scene.shelf.wanted(&wanted, Demand::New, scene.now).cloned();
    assert_eq!(offered, Err(Lacking::StartsProcesses));
    assert_eq!(scene.shelf.looks(scene.now), []);
}

#[test]
fn afresh_nothing_is_left() {
    let mut scene = Scene::new(TemplatePolicy::default());
    let number = scene.start("a", "h1");
    assert_eq!(scene.shelf.start_afresh(), [Action::Drop(number)]);
    assert_eq!((scene.want("a"), scene.plan()), (Err(Lacking::Unwanted), vec![]));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut scene = Scene::new(TemplatePolicy::default());
    for number in 0..2 * MOST_KEYS {
        scene.pass(Duration::from_millis(1));
        let _ = scene.want(&number.to_string());
    }
    assert_eq!(scene.shelf.looks(scene.now).len(), MOST_KEYS);
}
