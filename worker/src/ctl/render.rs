//! Answers as people read them.

use std::fmt::Write;

use super::message::{Answer, HostReport, PoolReport, RunReport, StatusReport};
use crate::escape::one_line;

/// The text of an answer, with a line's end.
pub fn render(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => render_status(status),
        Answer::Hosts(hosts) => table(
            &["HOST", "TYPE", "PID", "STATE", "AGE", "RUNS", "MEMORY", "RUN", "ENGINE"],
            &hosts.iter().map(host_row).collect::<Vec<_>>(),
        ),
        Answer::Runs(runs) => table(&["RUN", "HOST", "PID", "ENGINE"], &runs.iter().map(run_row).collect::<Vec<_>>()),
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
    let rows: Vec<_> = status.pools.iter().map(pool_row).collect();
    text += &table(&["TYPE", "SIZE", "HOSTS", "WAITING", "STARTED", "STATE", "LAST END"], &rows);
    for pool in &status.pools {
        for (name, value) in &pool.ops {
            let _ = writeln!(text, "{} {name} = {value}", pool.pool);
        }
    }
    text
}

fn pool_row(pool: &PoolReport) -> Vec<String> {
    let hosts: Vec<String> = pool.hosts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let state = match (pool.circuit_open, pool.draining) {
        (true, _) => "failing",
        (_, true) => "draining",
        _ => "well",
    };
    vec![
        pool.pool.clone(),
        pool.size.to_string(),
        if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") },
        pool.waiting.to_string(),
        pool.started.to_string(),
        state.to_owned(),
        pool.last_end.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn host_row(host: &HostReport) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        host.id.clone(),
        host.pool.clone(),
        or_dash(host.pid.map(|pid| pid.to_string())),
        host.state.clone(),
        duration(host.age_s),
        host.runs.to_string(),
        or_dash(host.memory_bytes.map(|bytes| format!("{:.1} MB", bytes as f64 / 1024.0 / 1024.0))),
        or_dash(host.run.clone()),
        or_dash(host.engine.clone()),
    ]
}

fn run_row(run: &RunReport) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![run.run.clone(), run.host.clone(), or_dash(run.pid.map(|pid| pid.to_string())), or_dash(run.engine.clone())]
}

/// Columns as wide as what is in them.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let columns = head.len();
    let rows = rows.iter().map(|row| row.iter().map(|cell| one_line(cell).into_owned()).collect());
    let all: Vec<Vec<String>> = [head].into_iter().chain(rows).collect();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

fn duration(seconds: u64) -> String {
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
    use crate::ctl::message::LineReport;

    #[test]
    fn times_are_short() {
        let table = [(0, "0s"), (59, "59s"), (61, "1m01s"), (3_660, "1h01m"), (90_000, "1d01h")];
        for (seconds, text) in table {
            assert_eq!(duration(seconds), text);
        }
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
        let line = LineReport { host: "h1".into(), run: Some("r\n1".into()), stream: "stdout".into(), text };
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
