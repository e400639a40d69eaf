//! States of any size: none closes the connection, and each that fits into a message arrives whole.
//!
//! `OPENFN_STATES=1000` plays so many of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::execution::{RunEnd, RunSignal};
use lightning::{MAX_MESSAGE_BYTES, Workloop};
use mock_lightning::{DataclipForm, MockOptions, RunRecord, RunState};
use protocol::Json;
use protocol::run::{Exit, RunOutcome, StepInput, StepOutput};
use serde_json::{Value, json};

use crate::fake::*;
use crate::workload::Chance;

/// States that are played unless more are asked for.
const STATES: usize = 4;

/// What a message has beside the state, at most.
const BESIDE: usize = 2048;

/// How long a run with a large state may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A state of about so many bytes of JSON, of what makes strings longer: quotes, line feeds, Unicode, nesting.
fn state(chance: &mut Chance, bytes: usize) -> String {
    let units = [r#"\""#, r"\n", "é😀", r"\u0001", r"\\", "plain text ", r#"","b":""#, r#""},"c":{"d":""#];
    let mut text = r#"{"a":{"x":""#.to_owned();
    while text.len() < bytes {
        let unit = units[chance.below(units.len() as u64) as usize];
        (0..chance.below(20_000)).for_each(|_| text.push_str(unit));
    }
    text + r#""}}"#
}

/// Hosts whose only step ends with the state that `states` gives for the run's number.
fn hosts(states: impl Fn(usize) -> String + Send + Sync + 'static) -> Arc<FakeHosts> {
    let (count, states) = (AtomicUsize::new(0), Arc::new(states));
    FakeHosts::new(move |_, host| {
        let (number, states) = (count.fetch_add(1, Ordering::Relaxed), states.clone());
        async move {
            let state = Json::parse(states(number)).unwrap();
            host.run_started().await;
            host.step_started(0, "a", StepInput::Run).await;
            host.log(json!(["a line"])).await;
            host.step_completed(0, "a", StepOutput::State(state.clone())).await;
            let outcome = RunOutcome { exit: Exit::success(), final_state: Some(state), final_step: Some(0) };
            host.send(RunSignal::Ended(RunEnd::Finished(outcome))).await;
        }
    })
}

/// The dataclip that a run's step has left, if it has one.
fn output(it: &Setting, run: &RunRecord) -> Option<Value> {
    assert_eq!((run.state, job_lines(run).len()), (RunState::Success, 1), "{:?}", run.error_message);
    run.steps[0].output_dataclip_id.as_deref().and_then(|id| it.mock.dataclip(id))
}

fn told(run: &RunRecord, text: &str) -> bool {
    run.logs.iter().any(|log| log.line["message"].to_string().contains(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_of_any_size_cause_no_disconnect_and_arrive_whole_if_they_fit() {
    let count = std::env::var("OPENFN_STATES").map_or(STATES, |text| text.parse().unwrap());
    let state_of = |number: usize| {
        let mut chance = Chance::new(number as u64);
        // Half of them are about as long as what fits.
        let megabytes = if number.is_multiple_of(2) { 4 + chance.below(9) } else { 1 + chance.below(40) };
        state(&mut chance, megabytes as usize * 1_000_000)
    };
    let it = with_options(MockOptions::default(), hosts(state_of), |options| {
        options.workloops = vec![Workloop::standard(1)];
    })
    .await;
    it.joined().await;
    let (mut whole, mut withheld) = (0, 0);
    for number in 0..count {
        let id = it.queue(&one_job());
        let run = it.mock.wait_for_end(&id, PATIENCE).await.unwrap();
        let text = state_of(number);
        let as_string = serde_json::to_string(&text).unwrap().len();
        let shortest = as_string.min(text.len());
        match output(&it, &run) {
            Some(clip) => {
                assert!(shortest <= MAX_MESSAGE_BYTES, "{number}: {shortest}");
                assert!(clip == serde_json::from_str::<Value>(&text).unwrap(), "{number} is another");
                whole += 1;
            }
            None => {
                assert!(shortest + BESIDE > MAX_MESSAGE_BYTES, "{number}: {shortest} bytes are withheld");
                assert_eq!(run.steps[0].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
                assert!(told(&run, "dataclip is withheld: its message of"), "{number}");
                withheld += 1;
            }
        }
    }
    println!("{whole} states arrived whole, {withheld} were withheld");
    assert!(whole > 0 && withheld > 0);
    assert_eq!(it.mock.activity().connections.len(), 1);
    it.assert_nothing_was_refused();
}

/// Twenty runs with a state of 300 kB beside the first, whose state is another.
async fn beside_twenty_others(mock: MockOptions, first: String) -> (Setting, RunRecord) {
    let others = || json!({ "x": "y".repeat(300_000) });
    let states = move |number: usize| if number == 0 { first.clone() } else { others().to_string() };
    let it = with_options(mock, hosts(states), |options| {
        options.workloops = vec![Workloop::standard(21)];
        options.reconnect = (Duration::from_millis(10), Duration::from_millis(50));
    })
    .await;
    it.joined().await;
    let ids: Vec<_> = (0..21).map(|_| it.mock.queue_run(one_job()).unwrap()).collect();
    it.mock.wake();
    let mut large = Vec::new();
    for id in &ids {
        let run = it.mock.wait_for_end(id, PATIENCE).await.unwrap();
        match output(&it, &run) {
            Some(clip) if clip == others() => assert_eq!(run.final_state, Some(others())),
            _ => large.push(run),
        }
    }
    assert_eq!(large.len(), 1, "the others have theirs");
    (it, large.remove(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_megabytes_of_quotes_arrive_and_twenty_other_runs_notice_nothing() {
    let quotes = json!({ "x": "\"".repeat(4_500_000) });
    let (it, run) = beside_twenty_others(MockOptions::default(), quotes.to_string()).await;
    assert!(output(&it, &run) == Some(quotes.clone()) && run.final_state == Some(quotes));
    assert_eq!(it.mock.activity().connections.len(), 1);
    it.assert_nothing_was_refused();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_less_than_the_worker_knows_costs_the_longest_state_alone() {
    let mock = MockOptions { max_message_bytes: Some(3_000_000), ..MockOptions::default() };
    let (it, run) = beside_twenty_others(mock, json!({ "x": "z".repeat(5_000_000) }).to_string()).await;
    assert_eq!((output(&it, &run), run.final_state.clone()), (None, Some(json!({"data": "[REDACTED]"}))));
    assert!(told(&run, "dataclip is withheld"));
    let connections = it.mock.activity().connections.len();
    assert_eq!(connections, 2, "one was enough to know");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_one_form_alone_gets_that() {
    let quotes = json!({ "x": "\"".repeat(1000) });
    for dataclip_form in [DataclipForm::Strings, DataclipForm::Values] {
        for stringify in [true, false] {
            let state = quotes.to_string();
            let mock = MockOptions { dataclip_form, ..MockOptions::default() };
            let it = with_options(mock, hosts(move |_| state.clone()), |options| {
                options.stringify_state = stringify;
                options.workloops = vec![Workloop::standard(1)];
            })
            .await;
            for _ in 0..3 {
                let run = it.run(&one_job()).await;
                assert_eq!(output(&it, &run), Some(quotes.clone()));
            }
            let is_first = stringify == (dataclip_form == DataclipForm::Strings);
            assert_eq!(it.mock.violations().len(), usize::from(!is_first), "it is learned once");
            it.assert_only_refused("output_dataclip");
        }
    }
}

#[tokio::test]
async fn a_state_with_nul_characters_goes_without_them_after_one_crash() {
    let it = with_options(MockOptions::default(), hosts(|_| r#"{"a":"b\u0000"}"#.into()), |_| {}).await;
    let run = it.run(&one_job()).await;
    let mended = Some(json!({"a": "b\u{fffd}"}));
    assert_eq!((output(&it, &run), run.final_state.clone()), (mended.clone(), mended));
    assert!(told(&run, "NUL"));
    let crashes = it.mock.violations().iter().filter(|violation| violation.reason.contains("NUL")).count();
    assert_eq!((crashes, it.mock.activity().connections.len()), (1, 1));
}
