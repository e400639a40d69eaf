//! Answers as people read them.

use std::fmt::Write;

use base::escape::one_line;
use jiff::Timestamp;
use lightning::timeline::Delivery;

use super::message::{
    Answer, HostReport, PastRun, PastStep, PoolReport, RunReport, StatusReport, TemplateReport, WholeRun,
};

/// What a run's phases are called, in their order.
const PHASES: [&str; 4] = ["prepare", "start", "execute", "deliver"];

/// The text of an answer, with a line's end.
pub fn render(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => render_status(status),
        Answer::Hosts(hosts) => table(
            &["HOST", "TYPE", "PID", "STATE", "AGE", "RUNS", "MEMORY", "RUN", "ENGINE"],
            hosts.iter().map(host_row),
        ),
        Answer::Runs(runs) => table(
            &["RUN", "PHASE", "AGE", "STEP", "WORKLOOP", "HOST", "PID", "MEMORY", "ENGINE"],
            runs.iter().map(run_row),
        ),
        Answer::History(runs) => table(
            &[
                "CLAIMED", "RUN", "REASON", "TOTAL", "PREPARE", "START", "EXECUTE", "DELIVER", "CPU", "PEAK", "HOST",
                "DELIVERY",
            ],
            runs.iter().map(past_row),
        ),
        Answer::Run(run) => render_run(run),
        Answer::Done(what) => format!("{}\n", one_line(what)),
        Answer::Line(line) => {
            let run = line.run.as_ref().map_or_else(String::new, |run| format!(" {}", one_line(run)));
            format!("{}{run} {}: {}\n", line.host, line.stream, one_line(&line.text))
        }
        Answer::Error(why) => format!("error: {}\n", one_line(why)),
    }
}

fn render_status(status: &StatusReport) -> String {
    let lightning = &status.lightning;
    let connection = match (lightning.joined, lightning.connected) {
        (true, _) => "queue joined",
        (false, true) => "connected, queue not joined",
        (false, false) => "not connected",
    };
    let mut text = String::new();
    let draining = if status.draining { ", draining" } else { "" };
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "worker {} (pid {}), up {}{draining}", status.version, status.pid, duration(status.uptime_s));
    let _ = writeln!(
        text,
        "lightning  {connection}; {} of {} runs active, {} claimed and not answered, {} ended",
        lightning.active_runs, lightning.capacity, lightning.open_claims, lightning.runs_ended
    );
    let _ = writeln!(text, "limits     {}\n", status.limits);
    let head = ["TYPE", "SIZE", "HOSTS", "WAITING", "STARTED", "STATE", "LAST END"];
    text += &table(&head, status.pools.iter().map(pool_row));
    for template in &status.templates {
        let _ = writeln!(text, "{}", template_line(template));
    }
    for pool in &status.pools {
        for (name, value) in &pool.ops {
            let _ = writeln!(text, "{} {name} = {value}", pool.pool);
        }
    }
    text
}

fn template_line(template: &TemplateReport) -> String {
    let engine = one_line(&template.engine);
    match (&template.host, &template.why) {
        (_, Some(why)) => {
            format!("{engine}: not forked for {}, because {}", duration(template.given_up_s), one_line(why))
        }
        (Some(host), None) => format!(
            "{engine}: {} forked from {}, {} old, {}",
            template.forks,
            one_line(host),
            duration(template.age_s),
            megabytes(template.memory_bytes)
        ),
        (None, None) => format!("{engine}: its template is {}", one_line(&template.state)),
    }
}

fn pool_row(pool: &PoolReport) -> [String; 7] {
    let hosts: Vec<String> = pool.hosts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let state = match (pool.circuit_open, pool.draining) {
        (true, _) => "failing",
        (_, true) => "draining",
        _ => "well",
    };
    [
        pool.pool.clone(),
        pool.size.to_string(),
        if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") },
        pool.waiting.to_string(),
        pool.started.to_string(),
        state.to_owned(),
        pool.last_end.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// As people write it who have nothing to say.
fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn host_row(host: &HostReport) -> [String; 9] {
    [
        host.id.clone(),
        host.pool.clone(),
        or_dash(host.pid.map(|pid| pid.to_string())),
        host.state.clone(),
        duration(host.age_s),
        host.runs.to_string(),
        or_dash(host.memory_bytes.map(megabytes)),
        or_dash(host.run.clone()),
        or_dash(host.engine.clone()),
    ]
}

fn run_row(run: &RunReport) -> [String; 9] {
    [
        run.run.clone(),
        run.phase.clone(),
        precise(run.age_ms.saturating_mul(1_000)),
        or_dash(run.step.clone()),
        run.workloop.clone(),
        or_dash(run.host.clone()),
        or_dash(run.pid.map(|pid| pid.to_string())),
        or_dash(run.memory_bytes.map(megabytes)),
        or_dash(run.engine.clone()),
    ]
}

fn past_row(run: &PastRun) -> Vec<String> {
    let phases = PHASES.map(|phase| or_dash(run.phases_us.get(phase).copied().map(precise)));
    let start = [moment(run.claimed_us), run.run.clone(), ending(run), precise(run.phases_us.values().sum())];
    let end = [
        or_dash(run.cpu_us.map(precise)),
        or_dash(run.peak_bytes.map(megabytes)),
        or_dash(run.host.clone()),
        delivery(run),
    ];
    start.into_iter().chain(phases).chain(end).collect()
}

fn render_run(run: &WholeRun) -> String {
    let WholeRun { run, timeline, steps, steps_left_out } = run;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "run        {}, claimed by {} at {}", run.run, run.workloop, moment(run.claimed_us));
    let _ = writeln!(text, "reason     {}", ending(run));
    let _ = writeln!(text, "host       {}", or_dash(run.host.clone()));
    let cpu = or_dash(run.cpu_us.map(precise));
    let _ = writeln!(text, "used       {cpu} of processor time, {} at most", or_dash(run.peak_bytes.map(megabytes)));
    let _ = writeln!(text, "delivery   {}\n", delivery(run));
    let since = |at: u64| format!("+{}", precise(at.saturating_sub(run.claimed_us)));
    let took = |phase: &String| or_dash(run.phases_us.get(phase).copied().map(precise));
    let phases = timeline.iter().map(|(phase, at)| [since(*at), phase.clone(), took(phase)]);
    text += &table(&["AT", "PHASE", "TOOK"], phases);
    if *steps_left_out > 0 {
        let _ = writeln!(text, "\n{steps_left_out} steps before these are not kept");
    }
    if !steps.is_empty() {
        let rows = steps.iter().map(|step| step_row(step, &since));
        let _ = write!(text, "\n{}", table(&["AT", "STEP", "TOOK", "REASON", "MEMORY"], rows));
    }
    text
}

fn step_row(step: &PastStep, since: &impl Fn(u64) -> String) -> [String; 5] {
    [
        since(step.started_us),
        step.step.clone(),
        or_dash(step.ended_us.map(|end| precise(end.saturating_sub(step.started_us)))),
        or_dash(step.reason.clone().map(|reason| with_type(reason, step.error_type.as_deref()))),
        or_dash(step.memory_bytes.map(megabytes)),
    ]
}

/// How a run ended, as far as it has.
fn ending(run: &PastRun) -> String {
    let Some(reason) = run.reason.clone() else {
        let is_over = run.phases_us.contains_key("deliver") || run.delivered;
        return if is_over { "given up".to_owned() } else { "none so far".to_owned() };
    };
    with_type(reason, run.error_type.as_deref())
}

fn with_type(reason: String, error_type: Option<&str>) -> String {
    match error_type {
        Some(error_type) => format!("{reason} ({error_type})"),
        None => reason,
    }
}

/// What did not get to Lightning at once and as it was.
fn delivery(run: &PastRun) -> String {
    let Delivery { lines_dropped, events_resent, events_refused, states_withheld } = run.delivery;
    let counts = [
        (lines_dropped, "lines dropped"),
        (events_resent, "events resent"),
        (events_refused, "events refused"),
        (states_withheld, "states withheld"),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}"));
    let whole = if run.delivered { "complete" } else { "incomplete" };
    [whole.to_owned()].into_iter().chain(told).collect::<Vec<_>>().join("; ")
}

fn moment(since_epoch_us: u64) -> String {
    let at = i64::try_from(since_epoch_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
    or_dash(at.map(|at| at.strftime("%FT%TZ").to_string()))
}

pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1024.0 / 1024.0)
}

/// A time in microseconds, to three digits or so.
pub(crate) fn precise(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{:.1}ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{:.1}s", micros as f64 / 1e6),
        _ => duration(micros / 1_000_000),
    }
}

/// Columns as wide as what is in them.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = impl IntoIterator<Item = String>>) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let columns = head.len();
    let rows = rows.into_iter().map(|row| row.into_iter().map(|cell| one_line(&cell).into_owned()).collect());
    let all: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hosts::{HostLine, Stream};

    #[test]
    fn times_are_short() {
        let table = [(0, "0s"), (59, "59s"), (61, "1m01s"), (3_660, "1h01m"), (90_000, "1d01h")];
        for (seconds, text) in table {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn short_times_are_precise() {
        let table = [
            (0, "0.0ms"),
            (9_940, "9.9ms"),
            (10_000, "10ms"),
            (999_999, "999ms"),
            (1_250_000, "1.2s"),
            (61_000_000, "1m01s"),
        ];
        for (micros, text) in table {
            assert_eq!(precise(micros), text);
        }
    }

    fn past() -> PastRun {
        PastRun {
            run: "r1".into(),
            workloop: "manual>*".into(),
            claimed_us: 1_790_000_000_000_000,
            reason: Some("fail".into()),
            error_type: Some("JobError".into()),
            delivered: true,
            phases_us: [("prepare".into(), 2_000), ("start".into(), 500), ("execute".into(), 30_000)].into(),
            host: Some("h1".into()),
            peak_bytes: Some(4 * 1024 * 1024),
            cpu_us: Some(4_400),
            delivery: Delivery { lines_dropped: 2, states_withheld: 1, ..Delivery::default() },
        }
    }

    #[test]
    fn past_runs_are_a_table() {
        let text = "\
CLAIMED               RUN  REASON           TOTAL  PREPARE  START  EXECUTE  DELIVER  CPU    PEAK    HOST  DELIVERY
2026-09-21T14:13:20Z  r1   fail (JobError)  32ms   2.0ms    0.5ms  30ms     -        4.4ms  4.0 MB  h1    complete; lines dropped: 2; states withheld: 1
";
        assert_eq!(render(&Answer::History(vec![past()])), text);
    }

    #[test]
    fn a_run_is_told_from_its_claim_on() {
        let step = PastStep {
            step: "fetch\nall".into(),
            started_us: 1_790_000_000_002_600,
            ended_us: Some(1_790_000_000_012_600),
            reason: Some("fail".into()),
            error_type: Some("JobError".into()),
            memory_bytes: None,
        };
        let timeline = vec![("prepare".into(), 1_790_000_000_000_000), ("start".into(), 1_790_000_000_002_000)];
        let run = WholeRun { run: past(), timeline, steps: vec![step], steps_left_out: 3 };
        let text = "\
run        r1, claimed by manual>* at 2026-09-21T14:13:20Z
reason     fail (JobError)
host       h1
used       4.4ms of processor time, 4.0 MB at most
delivery   complete; lines dropped: 2; states withheld: 1

AT      PHASE    TOOK
+0.0ms  prepare  2.0ms
+2.0ms  start    0.5ms

3 steps before these are not kept

AT      STEP        TOOK  REASON           MEMORY
+2.6ms  fetch\\nall  10ms  fail (JobError)  -
";
        assert_eq!(render(&Answer::Run(Box::new(run))), text);
    }

    #[test]
    fn hosts_are_a_table() {
        let host = HostReport {
            id: "h12".into(),
            pool: "engines".into(),
            pid: Some(4711),
            state: "running".into(),
            engine: Some("embedded (500 MB)".into()),
            run: Some("r1".into()),
            age_s: 61,
            runs: 1,
            memory_bytes: Some(3 * 1024 * 1024),
        };
        let text = "\
HOST  TYPE     PID   STATE    AGE    RUNS  MEMORY  RUN  ENGINE
h12   engines  4711  running  1m01s  1     3.0 MB  r1   embedded (500 MB)
";
        assert_eq!(render(&Answer::Hosts(vec![host])), text);
    }

    #[test]
    fn what_hosts_print_cannot_forge_lines() {
        let text = "1\r\u{1b}[2K2".to_owned();
        let line = HostLine { host: "h1".into(), run: Some("r\n1".into()), stream: Stream::Stdout, text };
        assert_eq!(render(&Answer::Line(line)), "h1 r\\n1 stdout: 1\\r\\u{1b}[2K2\n");
    }

    #[test]
    fn the_status_tells_what_is_wrong() {
        let pool = PoolReport {
            pool: "engines".into(),
            size: 2,
            hosts: [("ready".into(), 1), ("running".into(), 2)].into(),
            circuit_open: true,
            last_end: Some("h7 crashed while starting".into()),
            ops: [("mails".into(), 3.0)].into(),
            ..PoolReport::default()
        };
        let text =
            render(&Answer::Status(StatusReport { pools: vec![pool], draining: true, ..StatusReport::default() }));
        for part in ["draining", "not connected", "1 ready, 2 running", "failing", "h7 crashed", "engines mails = 3"] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
