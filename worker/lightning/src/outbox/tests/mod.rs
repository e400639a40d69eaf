//! The outbox, by behaviour.

mod accounts;
mod lines;
mod losses;
mod order;
mod random;
mod refusals;
mod server;

use serde_json::{Value, json};

use super::*;
use crate::phoenix::{Loss, Reply, Response, Status};

const RUN: &str = "run";
const INPUT: &str = "input-clip";

/// The longest message.
const LIMIT: usize = 10_000_000;

struct Fixture {
    outbox: Outbox,
    now: Instant,
}

fn fixture() -> Fixture {
    with_batches(None)
}

fn with_batches(batch: Option<BatchOptions>) -> Fixture {
    let (run_id, input_dataclip_id) = (RUN.into(), Some(INPUT.into()));
    let server = Server::new(Form::String, LIMIT);
    let options = OutboxOptions {
        run_id,
        input_dataclip_id,
        batch,
        server,
        line_bytes: 1024,
        probation: Duration::from_secs(10),
    };
    Fixture { outbox: Outbox::new(options, true), now: Instant::now() }
}

fn read(payload: &Payload) -> Value {
    serde_json::from_slice(&payload.to_vec()).unwrap()
}

fn ok() -> Reply {
    Reply { status: Status::Ok, response: Response::Json(Json::null()) }
}

fn error(response: Value) -> Reply {
    Reply { status: Status::Error, response: Response::Json(Json::encode(&response).unwrap()) }
}

fn state(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

fn end(output: StepOutput) -> StepEnd {
    StepEnd {
        exit: Exit::success(),
        output,
        webhook_response: None,
        duration_ms: 5,
        memory: StepMemory { job: 1, system: 2 },
        thread_id: "host-1".into(),
    }
}

fn success(final_step: StepIndex) -> RunOutcome {
    RunOutcome { exit: Exit::success(), final_state: Some(state("{\"n\":1}")), final_step: Some(final_step) }
}

impl Fixture {
    /// Everything that may go now, as `(tag, event, payload)`.
    fn pushes(&mut self) -> Vec<(u64, &'static str, Value)> {
        let pushes = std::iter::from_fn(|| self.outbox.next_push(self.now));
        pushes.map(|push| (push.tag, push.event, read(&push.payload))).collect()
    }

    /// The channel is joined again, and what holds events back for a while is over.
    fn joined(&mut self) {
        self.outbox.joined(self.now);
        self.now = self.outbox.wake_at().unwrap_or(self.now);
    }

    fn reply(&mut self, tag: u64, reply: &Reply) -> Progress {
        self.outbox.replied(tag, reply, self.now, 0.0)
    }

    fn accept(&mut self, pushes: &[(u64, &'static str, Value)]) -> Progress {
        pushes.iter().fold(Progress::Going, |_, push| self.reply(push.0, &ok()))
    }

    /// Everything that goes while all is accepted.
    fn deliver(&mut self) -> Vec<(u64, &'static str, Value)> {
        let mut all = Vec::new();
        loop {
            let pushes = self.pushes();
            self.accept(&pushes);
            match pushes.is_empty() {
                true => return all,
                false => all.extend(pushes),
            }
        }
    }

    fn log(&mut self, text: &str) -> bool {
        self.outbox.log(LogSource::Job, LogLevel::Info, Json::encode(&[text]).unwrap(), 7)
    }

    fn start(&mut self, index: StepIndex, input: StepInput) -> OpenStep {
        self.outbox.step_started(index, "job", input, 1)
    }

    /// Runs the step `index` and delivers all of it; its dataclip's id.
    fn deliver_step(&mut self, index: StepIndex) -> String {
        let step = self.start(index, StepInput::Run);
        self.outbox.step_completed(step, end(StepOutput::State(state("{}"))), 2);
        let pushes = self.pushes();
        self.accept(&pushes);
        pushes[1].2["output_dataclip_id"].as_str().unwrap().to_owned()
    }
}

fn events<'a>(pushes: &'a [(u64, &'static str, Value)]) -> Vec<&'a str> {
    pushes.iter().map(|push| push.1).collect()
}
