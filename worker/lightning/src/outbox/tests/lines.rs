//! Log lines in batches, and what may wait.

use super::*;

#[test]
fn states_that_wait_for_delivery_make_the_host_wait() {
    let mut it = fixture();
    let step = it.start(0, StepInput::Run);
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(MAX_STATE_BYTES));
    it.outbox.step_completed(step, end(StepOutput::State(state(&large))), 2);
    assert!(it.outbox.is_congested());
    while let Some(push) = it.outbox.next_push(it.now) {
        it.reply(push.tag, &ok());
    }
    assert!(!it.outbox.is_congested());
}

#[test]
fn lines_past_the_bound_are_dropped_counted_and_told() {
    let mut it = fixture();
    it.outbox.down(Loss::Link);
    let line = "x".repeat(1024 * 1024);
    let taken = (0..40).filter(|_| it.log(&line)).count();
    assert!((31..=33).contains(&taken), "{taken}");
    assert_eq!(it.outbox.lines_dropped() as usize, 40 - taken);
    it.joined();
    let mut messages = Vec::new();
    loop {
        let pushes = it.pushes();
        if pushes.is_empty() {
            break;
        }
        messages.extend(pushes.iter().map(|push| push.2["message"][0].as_str().unwrap().to_owned()));
        it.accept(&pushes);
    }
    it.log("next");
    let told = it.pushes();
    let text = told[0].2["message"][0].as_str().unwrap();
    assert!(text.starts_with(&format!("{} log lines were dropped here", 40 - taken)), "{text}");
    assert_eq!(messages.len(), taken);
}

#[test]
fn lines_gather_while_a_batch_is_in_flight() {
    let batch = BatchOptions { interval: Duration::from_millis(10), limit: 3 };
    let mut it = with_batches(Some(batch));
    it.log("a");
    let first = it.pushes();
    assert_eq!((first[0].1, first[0].2["logs"].as_array().unwrap().len()), ("run:batch_logs", 1));
    assert_eq!(first[0].2["logs"][0].get("run_id"), None);
    it.log("b");
    assert_eq!(it.pushes(), []);
    it.now = it.outbox.wake_at().unwrap();
    let second = it.pushes();
    assert_eq!(second.len(), 1, "not longer than the interval");
    for text in ["c", "d", "e", "f"] {
        it.log(text);
    }
    assert_eq!(it.pushes().len(), 1, "three are enough");
    it.start(0, StepInput::Run);
    assert_eq!(events(&it.pushes()), ["run:batch_logs", "step:start"], "nothing is gained by waiting");
    it.accept(&first);
    let refused = it.reply(second[0].0, &error(json!("no")));
    assert_eq!(refused, Progress::Going);
}

#[test]
fn lines_of_a_refused_batch_go_one_by_one() {
    let batch = BatchOptions { interval: Duration::from_millis(10), limit: 3 };
    let mut it = with_batches(Some(batch));
    for text in ["a", "b", "c"] {
        it.log(text);
    }
    let pushes = it.pushes();
    it.reply(pushes[0].0, &error(json!("no")));
    let alone = it.pushes();
    assert_eq!(events(&alone), ["run:log", "run:log", "run:log"]);
    it.accept(&alone[..1]);
    it.reply(alone[1].0, &error(json!("no")));
    assert_eq!((it.pushes(), it.outbox.lines_dropped()), (Vec::new(), 1));
}

#[test]
fn new_lines_in_a_batch_with_some_that_the_server_has_are_not_lost() {
    let mut it = with_batches(Some(BatchOptions { interval: Duration::from_millis(10), limit: 9 }));
    it.log("old");
    it.pushes();
    it.outbox.down(Loss::Link);
    it.log("new");
    it.joined();
    it.now += Duration::from_millis(20);
    let batch = it.pushes();
    assert_eq!(batch[0].2["logs"].as_array().unwrap().len(), 2);
    let taken = error(json!({"id": ["has already been taken"]}));
    it.reply(batch[0].0, &taken);
    let one_by_one = it.pushes();
    assert_eq!(events(&one_by_one), ["run:log"; 2]);
    it.reply(one_by_one[0].0, &taken);
    it.accept(&one_by_one[1..]);
    assert_eq!((it.outbox.unconfirmed(), it.outbox.lines_dropped()), (0, 0));
}
