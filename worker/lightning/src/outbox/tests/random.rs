//! Scripts by chance: whatever happens in a run and to its link, everything arrives once and in order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A server that takes each event once, as Lightning does, and may lose replies.
#[derive(Default)]
struct Server {
    lines: Vec<String>,
    ids: BTreeSet<String>,
    steps: BTreeMap<String, bool>,
    clips: BTreeSet<String>,
    state: Vec<String>,
    complete: bool,
}

impl Server {
    fn handle(&mut self, event: &str, payload: &Value) -> Result<(), Value> {
        let id = |key: &str| payload.get(key).and_then(Value::as_str).map(str::to_owned);
        if self.complete {
            return Err(json!({"state": ["already in completed state"]}));
        }
        match event {
            "run:log" => self.line(payload),
            "run:batch_logs" => payload["logs"].as_array().unwrap().iter().for_each(|line| self.line(line)),
            "step:start" => {
                if id("input_dataclip_id").is_some_and(|clip| clip != INPUT && !self.clips.contains(&clip)) {
                    return Err(json!({"input_dataclip_id": ["does not exist"]}));
                }
                let step = id("step_id").unwrap();
                if self.steps.contains_key(&step) {
                    return Err(json!({"id": ["has already been taken"]}));
                }
                self.steps.insert(step, false);
                self.state.push("start".into());
            }
            "step:complete" => {
                let done = self.steps.get_mut(&id("step_id").unwrap()).ok_or(json!({"step_id": ["not found"]}))?;
                if std::mem::replace(done, true) {
                    return Err(json!({"step_id": ["already completed"]}));
                }
                self.clips.extend(id("output_dataclip_id"));
                self.state.push("complete".into());
            }
            "run:complete" => {
                if id("final_dataclip_id").is_some_and(|clip| !self.clips.contains(&clip)) {
                    return Err(json!({"final_dataclip_id": ["does not exist"]}));
                }
                self.complete = true;
                self.state.push("end".into());
            }
            other => panic!("{other}"),
        }
        Ok(())
    }

    fn line(&mut self, line: &Value) {
        if self.ids.insert(line["id"].as_str().unwrap().to_owned()) {
            self.lines.push(line["message"][0].as_str().unwrap().to_owned());
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_link_does_everything_arrives_once_and_in_order(
        script in proptest::collection::vec(0u8..6, 0..40),
        faults in proptest::collection::vec((0usize..8, 0usize..8), 0..6),
        batched in any::<bool>(),
    ) {
        let batch = BatchOptions { interval: Duration::from_millis(10), limit: 3 };
        let mut it = with_batches(batched.then_some(batch));
        let (mut lines, mut expected) = (Vec::new(), Vec::new());
        let mut open: Option<OpenStep> = None;
        let mut last = None;
        let mut index = 0;
        let mut server = Server::default();
        let mut faults = faults.into_iter();
        let mut wire: VecDeque<(u64, &'static str, Value)> = VecDeque::new();
        let mut steps = script.into_iter();
        let mut ended = false;
        let mut progress = Progress::Going;
        while progress == Progress::Going {
            // The run goes on.
            match (steps.next(), open.take()) {
                (Some(0 | 1), None) => {
                    open = Some(it.start(index, last.map_or(StepInput::Run, StepInput::Step)));
                    expected.push("start");
                }
                (Some(0 | 1), Some(step)) => {
                    let output = if index % 3 == 2 { StepOutput::TooLarge(1) } else { StepOutput::State(state("{}")) };
                    it.outbox.step_completed(step, end(output), 1);
                    last = Some(index);
                    index += 1;
                    expected.push("complete");
                }
                (Some(2..=4), still) => {
                    open = still;
                    let text = format!("line {}", lines.len());
                    it.log(&text);
                    lines.push(text);
                }
                (Some(_), still) => open = still,
                (None, Some(step)) => {
                    it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 1);
                    expected.push("complete");
                }
                (None, None) if !ended => {
                    ended = true;
                    let exit = Exit::success();
                    it.outbox.complete(RunOutcome { exit, final_state: Some(state("{}")), final_step: last }, 2);
                    lines.push("Run complete with status: success".into());
                    expected.push("end");
                }
                (None, None) => {}
            }
            wire.extend(it.pushes());
            it.now = it.outbox.wake_at().unwrap_or(it.now);
            // The server takes some, and some of its replies arrive before the link dies.
            if let Some((handled, replied)) = faults.next().filter(|_| !wire.is_empty()) {
                for (at, (tag, event, payload)) in wire.drain(..).take(handled).enumerate() {
                    let reply = server.handle(event, &payload).map_or_else(error, |()| ok());
                    if at < replied {
                        progress = it.reply(tag, &reply);
                        prop_assert!(matches!(progress, Progress::Going | Progress::Done), "{progress:?}");
                        if progress == Progress::Done {
                            break;
                        }
                    }
                }
                wire.clear();
                it.outbox.down(Loss::Link);
                it.joined();
            } else if let Some((tag, event, payload)) = wire.pop_front() {
                let reply = server.handle(event, &payload).map_or_else(error, |()| ok());
                progress = it.reply(tag, &reply);
                prop_assert!(matches!(progress, Progress::Going | Progress::Done), "{progress:?}");
            }
        }
        prop_assert_eq!(server.lines, lines);
        prop_assert_eq!(server.state, expected);
        prop_assert!(server.complete);
    }
}

/// What a server says to an event, and what happens to the link.
#[derive(Debug, Clone, Copy)]
enum Whim {
    Takes,
    Busy,
    Refuses,
    TakesAndIsSilent,
    LinkDies,
    ChannelDies,
}

fn whim() -> impl Strategy<Value = Whim> {
    prop_oneof![
        8 => Just(Whim::Takes),
        1 => Just(Whim::Busy),
        1 => Just(Whim::Refuses),
        1 => Just(Whim::TakesAndIsSilent),
        1 => Just(Whim::LinkDies),
        1 => Just(Whim::ChannelDies),
    ]
}

proptest! {
    /// A server may refuse anything at any time: the run still comes to one end, or is given up with a reason, and no
    /// state event is lost without the run being completed as an exception.
    #[test]
    fn whatever_the_server_says_the_run_comes_to_an_end(
        steps in 0u32..4,
        whims in proptest::collection::vec(whim(), 0..80),
    ) {
        let mut it = fixture();
        it.outbox.run_started(Payload::empty());
        for index in 0..steps {
            let step = it.start(index, index.checked_sub(1).map_or(StepInput::Run, StepInput::Step));
            it.log("within");
            it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 1);
        }
        it.outbox.complete(success(steps.saturating_sub(1)), 2);
        let mut whims = whims.into_iter();
        let (mut ended, mut refused) = (Vec::new(), 0);
        let mut progress = Progress::Going;
        for _ in 0..2000 {
            if matches!(progress, Progress::Done | Progress::Gone(_)) {
                break;
            }
            it.joined();
            let pushes = it.pushes();
            it.now = it.outbox.wake_at().unwrap_or(it.now);
            for (tag, event, payload) in pushes {
                let takes = |ended: &mut Vec<Value>| {
                    if event == "run:complete" && ended.is_empty() {
                        ended.push(payload["reason"].clone());
                    }
                };
                progress = match whims.next().unwrap_or(Whim::Takes) {
                    Whim::Takes if event == "run:complete" && !ended.is_empty() => {
                        it.reply(tag, &error(json!({"state": ["already in completed state"]})))
                    }
                    Whim::Takes => {
                        takes(&mut ended);
                        it.reply(tag, &ok())
                    }
                    Whim::Busy => it.reply(tag, &error(json!({"reason": "server busy"}))),
                    Whim::Refuses => {
                        refused += 1;
                        it.reply(tag, &error(json!({"any": ["is invalid"]})))
                    }
                    Whim::TakesAndIsSilent => {
                        takes(&mut ended);
                        it.outbox.down(Loss::Channel)
                    }
                    Whim::LinkDies => it.outbox.down(Loss::Longest { tag, bytes: 1, too_long: false }),
                    Whim::ChannelDies => it.outbox.down(Loss::Channel),
                };
                if progress == Progress::Rejoin {
                    it.outbox.rejoining();
                    progress = it.outbox.down(Loss::Channel);
                }
                if matches!(progress, Progress::Done | Progress::Gone(_)) {
                    break;
                }
            }
        }
        prop_assert!(matches!(progress, Progress::Done | Progress::Gone(_)), "{progress:?}");
        if progress == Progress::Done {
            prop_assert!(!ended.is_empty(), "the server has the end");
            prop_assert!(refused > 0 || ended == ["success"], "nothing was refused, and it ended as {ended:?}");
        }
    }
}

proptest! {
    /// A server may be too busy for any event, whatever it takes of those behind it.
    #[test]
    fn a_busy_server_has_all_lines_in_the_order_of_their_times(
        steps in 1u32..4,
        lines in 0u32..90,
        busy in proptest::collection::vec(proptest::bool::weighted(0.2), 0..300),
        batched in any::<bool>(),
    ) {
        let mut it = with_batches(batched.then_some(BatchOptions { interval: Duration::from_millis(10), limit: 7 }));
        let mut expected = Vec::new();
        for index in 0..steps {
            let step = it.start(index, index.checked_sub(1).map_or(StepInput::Run, StepInput::Step));
            for line in 0..lines {
                expected.push(format!("{index} {line}"));
                it.log(expected.last().unwrap());
            }
            it.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 1);
        }
        it.outbox.complete(success(steps - 1), 2);
        expected.push("Run complete with status: success".into());

        let mut server = Server::default();
        let mut received = Vec::new();
        let mut busy = busy.into_iter();
        let mut progress = Progress::Going;
        while progress == Progress::Going {
            let pushes = it.pushes();
            prop_assert!(!pushes.is_empty(), "it goes on");
            it.now = it.outbox.wake_at().unwrap_or(it.now);
            for (tag, event, payload) in pushes {
                if busy.next().unwrap_or_default() {
                    progress = it.reply(tag, &error(json!({"reason": "server busy"})));
                    continue;
                }
                let handled = server.handle(event, &payload);
                if handled.is_ok() {
                    let batch = payload["logs"].as_array().cloned();
                    let alone = (event == "run:log").then(|| vec![payload.clone()]);
                    received.extend(batch.or(alone).unwrap_or_default());
                }
                progress = it.reply(tag, &handled.map_or_else(error, |()| ok()));
            }
            it.now = it.outbox.wake_at().unwrap_or(it.now);
        }
        prop_assert_eq!(progress, Progress::Done);
        received.sort_by_key(|line| line["timestamp"].as_str().unwrap().parse::<u64>().unwrap());
        let received: Vec<_> = received.iter().map(|line| line["message"][0].as_str().unwrap()).collect();
        prop_assert_eq!(received, expected);
        let order: Vec<_> = (0..steps).flat_map(|_| ["start", "complete"]).chain(["end"]).collect();
        prop_assert_eq!(server.state, order);
    }
}
