//! Whatever happens between worker and Lightning, each run ends once, as it happened, with all of its lines.
//!
//! A seed decides the runs, the faults and the network. `OPENFN_SEED=7` plays that script alone and shows the worker's
//! log; `OPENFN_SCRIPTS=10000` plays so many.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use lightning::{BatchOptions, LightningOptions, Workloop};
use mock_lightning::{
    AppliedFault, DataclipForm, Dialect, Fault, FaultOptions, Faults, MockOptions, RunRecord, RunState,
};
use serde_json::{Value, json};

use crate::fake::*;
use crate::network::{WorkerLog, simulate};
use crate::workload::{Chance, Output, RunScript, state_of};

/// How long the worker goes on trying to deliver a run after the run's own time limit.
const DELIVERY_GRACE: Duration = Duration::from_secs(600);

/// How many times the link must die on an event for it to be taken for the cause.
const MANY_LOSSES: usize = 6;

/// Scripts that are played in simulated time unless more are asked for.
const SCRIPTS: u64 = 120;

/// Scripts that are played over real sockets, and how many of them at the same time.
const SOCKET_SCRIPTS: u64 = 300;
const SOCKETS_AT_ONCE: usize = 50;

/// All that a seed decides.
struct Script {
    seed: u64,
    runs: HashMap<String, RunScript>,
    faults: FaultOptions,
    latency: Duration,
    capacity: usize,
    batch: Option<BatchOptions>,
    stringify: bool,
    dialect: Dialect,
    dataclip_form: DataclipForm,
    batch_logs: bool,
    /// When the server marks a run lost, counted from its claim; so soon that the faults may be to blame.
    lost_after: Option<Duration>,
}

impl Script {
    fn draw(seed: u64, in_memory: bool) -> Self {
        let mut chance = Chance::new(seed);
        let many = if in_memory { 5 } else { 3 };
        let runs = (0..=chance.below(many))
            .map(|n| {
                let mut run = RunScript::draw(&mut chance, in_memory);
                if !in_memory {
                    run.pause /= 50;
                }
                (format!("run-{seed}-{n}"), run)
            })
            .collect();
        let lost_after = (in_memory && chance.one_in(8)).then(|| Duration::from_secs(5 + chance.below(120)));
        let mut faults = FaultOptions::new(chance.next());
        faults.one_in = [8, 20, 60][chance.below(3) as usize];
        faults.most = chance.below(if in_memory { 20 } else { 8 }) as usize;
        faults.longest = match (in_memory, chance.below(4)) {
            (true, 0) => Duration::from_secs(180),
            (true, _) => Duration::from_secs(8),
            (false, _) => Duration::from_millis(60),
        };
        if chance.one_in(3) {
            // One kind of trouble, often.
            faults.kinds = vec![Fault::ALL[chance.below(Fault::ALL.len() as u64) as usize]];
        }
        let latencies = [0, 1, 25, 300];
        Self {
            seed,
            runs,
            faults,
            latency: Duration::from_millis(latencies[chance.below(4) as usize]),
            capacity: 1 + chance.below(4) as usize,
            batch: chance.one_in(2).then_some(BatchOptions { interval: Duration::from_millis(10), limit: 7 }),
            stringify: !chance.one_in(4),
            // The development mock tells nobody that a channel is gone, so faults that need telling are not for it.
            dialect: Dialect::Lightning,
            dataclip_form: [DataclipForm::Both, DataclipForm::Strings, DataclipForm::Values][chance.below(3) as usize],
            batch_logs: !chance.one_in(6),
            lost_after,
        }
    }

    fn mock(&self, faults: Arc<Faults>) -> MockOptions {
        MockOptions {
            hooks: faults,
            dialect: self.dialect,
            dataclip_form: self.dataclip_form,
            batch_logs: self.batch_logs,
            lost_after: self.lost_after,
            ..MockOptions::default()
        }
    }

    fn hosts(&self) -> Arc<FakeHosts> {
        let runs = self.runs.clone();
        FakeHosts::new(move |spec, host| runs[&spec.run_id].clone().play(host))
    }

    fn options(&self, options: &mut LightningOptions) {
        options.workloops = vec![Workloop::standard(self.capacity)];
        options.backoff = (Duration::from_millis(500), Duration::from_secs(5));
        options.batch_logs = self.batch;
        options.stringify_state = self.stringify;
    }

    fn queue(&self, it: &Setting) {
        let mut ids: Vec<_> = self.runs.keys().collect();
        ids.sort();
        for id in ids {
            let mut plan = one_job();
            plan["id"] = id.as_str().into();
            if self.lost_after.is_some() {
                // So that the janitor's patience is nearly all that counts.
                plan["options"] = json!({"run_timeout_ms": 1000});
            }
            it.queue(&plan);
        }
    }

    fn judge(&self, it: &Setting, faults: &Faults, log: Option<&WorkerLog>) -> Figures {
        let applied = faults.applied();
        let mut figures = Figures { faults: applied.len() as u64, ..Figures::default() };
        for (id, script) in &self.runs {
            let run = it.mock.run(id).unwrap();
            let topic = format!("run:{id}");
            let faults: Vec<_> = applied.iter().filter(|fault| fault.topic == topic).collect();
            let all_faults = &applied;
            let longest = self.faults.longest;
            let verdict = Oracle { id, script, run: &run, faults: &faults, all_faults, longest, it, log }.judge();
            match verdict {
                Ok(Delivered::Whole) => figures.whole += 1,
                Ok(Delivered::NeverHeard) => figures.never_heard += 1,
                Ok(Delivered::InOwnLog) => figures.in_own_log += 1,
                Err(why) => panic!(
                    "seed {}: {id}: {why}\nscript: {script:?}\nfaults: {applied:?}\nrefused: {:?}\n{:?} {:?} {:?}",
                    self.seed, run.violations, run.state, run.error_type, run.error_message
                ),
            }
        }
        figures
    }
}

/// What became of runs.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    faults: u64,
    whole: u64,
    never_heard: u64,
    in_own_log: u64,
}

/// Where a run's outcome is.
enum Delivered {
    /// On the server, and all of it.
    Whole,
    /// Nowhere: the reply to its claim was lost, so that the worker never heard of it.
    NeverHeard,
    /// In the worker's log: the server had given it up.
    InOwnLog,
}

/// Compares a run on the server with what happened.
struct Oracle<'a> {
    id: &'a str,
    script: &'a RunScript,
    run: &'a RunRecord,
    /// Those of its own channel, and those of all channels.
    faults: &'a [&'a AppliedFault],
    all_faults: &'a [AppliedFault],
    longest: Duration,
    it: &'a Setting,
    log: Option<&'a WorkerLog>,
}

impl Oracle<'_> {
    fn judge(&self) -> Result<Delivered, String> {
        let heard = self.log.map(|log| !log.lines_with(&["claimed", self.id]).is_empty());
        match (self.run.state, heard) {
            (RunState::Claimed | RunState::Lost, Some(false) | None) if self.run.events.is_empty() => {
                Ok(Delivered::NeverHeard)
            }
            (RunState::Lost, Some(true)) => self.in_own_log(),
            (state, Some(true)) if !state.is_final() && self.trouble() > DELIVERY_GRACE => self.in_own_log(),
            _ => self.whole().map(|()| Delivered::Whole),
        }
    }

    fn in_own_log(&self) -> Result<Delivered, String> {
        let log = self.log.ok_or("no log")?;
        let ended = log.lines_with(&["ended", self.id]);
        let given_up = log.lines_with(&["given up", self.id]);
        let reason = self.script.reason().as_str();
        match ended.iter().any(|line| line.contains(reason) || line.contains("stopped")) || !given_up.is_empty() {
            true => Ok(Delivered::InOwnLog),
            false => Err(format!("{:?}, and the worker's log does not hold its outcome: {ended:?}", self.run.state)),
        }
    }

    /// How long all faults together may have kept the run from the server.
    fn trouble(&self) -> Duration {
        let one = |fault: &AppliedFault| match fault.fault {
            // Four times the patience, until the channel is joined anew.
            Fault::Hang | Fault::LostReply => Duration::from_secs(130),
            Fault::HalfOpen => Duration::from_secs(90),
            // The pause before the last attempt to connect comes on top.
            _ => self.longest + Duration::from_secs(40),
        };
        self.all_faults.iter().map(one).sum()
    }

    fn whole(&self) -> Result<(), String> {
        let same = |what: &str, is: &Value, should: &Value| match is == should {
            true => Ok(()),
            false => Err(format!("{what}: {is} should be {should}")),
        };
        same("state", &json!(self.run.state), &json!(self.script.state()))?;
        let ends = self.run.events.iter().filter(|event| event.event == "run:complete").count();
        // A server that is slow to notice a cut takes an end for the second time on a channel that is gone.
        let late = self.faults.iter().any(|it| it.fault == Fault::HandledAfterCut && it.event == "run:complete");
        same("ends", &json!(ends), &json!(if late { ends.max(1) } else { 1 }))?;
        let reasons: Vec<_> = self.run.steps.iter().map(|step| step.reason.as_deref().unwrap_or("none")).collect();
        same("steps", &json!(reasons), &json!(self.script.reasons()))?;
        same("lines", &json!(job_lines(self.run)), &json!(self.script.lines()))?;
        let ids: HashSet<_> = self.run.logs.iter().map(|log| log.line["id"].as_str()).collect();
        same("distinct ids of lines", &json!(ids.len()), &json!(self.run.logs.len()))?;
        self.states()
    }

    /// Whether a large event of this kind was on its way each time when the link died, so that it was taken for the
    /// cause.
    fn blamed(&self, event: &str) -> bool {
        let told = [event, "seems to be more than Lightning can take", self.id];
        self.script.steps.iter().any(|step| step.output == Output::LARGE)
            && self.all_faults.len() >= MANY_LOSSES
            && self.log.is_some_and(|log| !log.lines_with(&told).is_empty())
    }

    fn states(&self) -> Result<(), String> {
        let refused =
            |event: &str| self.faults.iter().filter(|it| it.fault == Fault::RefusedState && it.event == event).count();
        let mut withheld = 0;
        for (index, step) in self.script.steps.iter().enumerate() {
            let record = &self.run.steps[index];
            match (&record.output_dataclip_id, step.output) {
                (Some(id), Output::State { .. }) => {
                    if self.it.mock.dataclip(id) != Some(state_of(index as u32, step)) {
                        return Err(format!("the dataclip of step {index} is another"));
                    }
                }
                (None, Output::TooLarge) => {}
                (None, Output::State { .. }) => withheld += 1,
                (Some(_), Output::TooLarge) => return Err(format!("step {index} has a dataclip")),
            }
            let input = index.checked_sub(1).and_then(|before| self.run.steps[before].output_dataclip_id.clone());
            // Lightning has an end twice whose answer was lost, each with a dataclip of its own.
            let body = |id: &Option<String>| id.as_deref().and_then(|id| self.it.mock.dataclip(id));
            let is_same = record.input_dataclip_id.is_some() && body(&record.input_dataclip_id) == body(&input);
            let is_input = record.input_dataclip_id == input || is_same;
            if !is_input && refused("step:complete") == 0 && !self.blamed("step:complete") {
                return Err(format!("the input of step {index} is {:?}", record.input_dataclip_id));
            }
        }
        if withheld > refused("step:complete") && !self.blamed("step:complete") {
            return Err(format!("{withheld} dataclips are withheld"));
        }
        let told = self.run.final_state.is_some() || self.script.final_state().is_none();
        if !told && refused("run:complete") == 0 && !self.blamed("run:complete") {
            return Err("there is no final state".into());
        }
        // A dataclip that is refused when it comes again may be there from the first time.
        if refused("step:complete") == 0
            && !self.blamed("step:complete")
            && told
            && self.run.final_state != self.script.final_state()
        {
            return Err("the final state is another".into());
        }
        Ok(())
    }
}

/// Plays a script in simulated time.
fn play_in_memory(seed: u64, show: bool) -> Figures {
    let script = Script::draw(seed, true);
    simulate(|log| async move {
        let faults = Arc::new(Faults::new(script.faults.clone()));
        let played = log.clone();
        let it =
            in_memory(script.mock(faults.clone()), script.latency, script.hosts(), |options| script.options(options));
        script.queue(&it);
        let ended = tokio::time::timeout(Duration::from_secs(24 * 3600), async {
            for id in script.runs.keys() {
                wait_for_end(&it, id, &log).await;
            }
            it.lightning.shutdown(Duration::from_secs(3600)).await;
        });
        let in_time = ended.await.is_ok();
        if show {
            eprintln!("{}", played.text());
        }
        let judge = || {
            let states = || script.runs.keys().map(|id| (id, it.mock.run(id).map(|run| run.state))).collect::<Vec<_>>();
            assert!(in_time, "seed {seed}: runs do not end: {:?}, faults: {:?}", states(), faults.applied());
            script.judge(&it, &faults, Some(&log))
        };
        // Its timings differ when it is played again.
        catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|failure| {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seed-{seed}.log"));
            std::fs::write(&file, played.text()).unwrap();
            eprintln!("the worker's log of seed {seed} is in {}", file.display());
            resume_unwind(failure)
        })
    })
}

/// Waits until a run has ended, or is known to none but the server.
async fn wait_for_end(it: &Setting, id: &str, log: &WorkerLog) {
    // No fault lasts as long as this altogether.
    let mut looks_left = 20;
    while looks_left > 0 {
        let run = match it.mock.wait_for_end(id, Duration::from_secs(60)).await {
            Ok(_) => return,
            Err(_) => it.mock.run(id).unwrap(),
        };
        let over = ["run lost for Lightning", "whether Lightning has its end is not known", "giving up the run"];
        if over.iter().any(|over| !log.lines_with(&[over, id]).is_empty()) {
            return;
        }
        if run.state == RunState::Claimed && log.lines_with(&["claimed", id]).is_empty() {
            looks_left -= 1;
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, it is {text:?}")))
}

#[test]
fn scripts_in_simulated_time_lose_nothing() {
    if let Some(seed) = variable("OPENFN_SEED") {
        println!("seed {seed}: {:?}", play_in_memory(seed, true));
        return;
    }
    let scripts = variable("OPENFN_SCRIPTS").unwrap_or(SCRIPTS);
    let next = AtomicU64::new(0);
    let play_all = || {
        let mut total = Figures::default();
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= scripts {
                return (total, failed);
            }
            match catch_unwind(AssertUnwindSafe(|| play_in_memory(seed, false))) {
                Ok(figures) => total.add(figures),
                Err(_) => failed.push(seed),
            }
        }
    };
    let (mut total, mut failed) = (Figures::default(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(play_all)).collect();
        for thread in threads {
            let (figures, seeds) = thread.join().unwrap();
            total.add(figures);
            failed.extend(seeds);
        }
    });
    println!("{scripts} scripts in simulated time: {total:?}");
    assert!(failed.is_empty(), "replay with OPENFN_SEED=<seed>: {failed:?}");
    assert!(total.whole > scripts && total.faults > scripts, "the scripts try something");
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.whole += other.whole;
        self.never_heard += other.never_heard;
        self.in_own_log += other.in_own_log;
    }
}

async fn play_over_sockets(seed: u64) {
    let script = Script::draw(seed, false);
    let faults = Arc::new(Faults::new(script.faults.clone()));
    let it = with_options(script.mock(faults.clone()), script.hosts(), |options| {
        script.options(options);
        options.backoff = (Duration::from_millis(20), Duration::from_millis(50));
        options.heartbeat = Duration::from_secs(3);
        options.reconnect = (Duration::from_millis(10), Duration::from_millis(50));
        // Longer than a busy machine makes anybody wait.
        options.message_timeout = Duration::from_secs(2);
        options.getter_retry_delay = Duration::from_millis(100);
        // Nor does a getter give up because the machine stands still.
        options.getter_retries = u32::MAX - 1;
    })
    .await;
    script.queue(&it);
    for id in script.runs.keys() {
        wait_on_socket(&it, id, seed).await;
    }
    script.judge(&it, &faults, None);
}

/// Waits until a run has ended, or the worker can never have heard of it: the reply to its claim was on the wire when
/// the link died, and no fault lasts as long as two looks.
async fn wait_on_socket(it: &Setting, id: &str, seed: u64) {
    let end = Instant::now() + DEADLINE;
    let mut unheard = 0;
    while unheard < 2 {
        let Err(error) = it.mock.wait_for_end(id, Duration::from_secs(1)).await else { return };
        assert!(Instant::now() < end, "seed {seed}: {error}");
        let is_idle = it.lightning.status().active_runs == 0;
        let is_unheard = it.mock.run(id).is_some_and(|run| run.state == RunState::Claimed && run.events.is_empty());
        unheard = if is_idle && is_unheard { unheard + 1 } else { 0 };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_over_sockets_lose_nothing() {
    let scripts = stream::iter(0..SOCKET_SCRIPTS).map(|seed| tokio::spawn(play_over_sockets(seed)));
    scripts.buffer_unordered(SOCKETS_AT_ONCE).for_each(async |script| script.unwrap()).await;
}
