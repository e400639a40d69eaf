//! The screen. Fits 80 columns and 24 lines, and uses what more there is.

use base::escape::one_line;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::model::{Focus, Log, Model};
use crate::ctl::{HostReport, PastRun, RunReport, StatusReport, duration, megabytes, precise};

/// The most lines that failures take.
const FAILURES: usize = 5;

/// Draws all of it.
pub(super) fn draw(model: &Model, frame: &mut Frame) {
    let workloops = model.snapshot.status.lightning.workloops.len().clamp(1, 4);
    let failures = model.failures().count().min(FAILURES);
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(u16::try_from(1 + workloops).unwrap_or(u16::MAX)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(model, frame, head);
    if let Some(log) = &model.log {
        draw_log(log, frame, body);
    } else {
        let failures = u16::try_from(failures + 1).unwrap_or(u16::MAX).min(body.height / 3);
        let [runs, hosts, past] =
            Layout::vertical([Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(failures)]).areas(body);
        draw_runs(model, frame, runs);
        draw_hosts(model, frame, hosts);
        draw_failures(model, frame, past);
    }
    draw_foot(model, frame, foot);
}

fn draw_head(model: &Model, frame: &mut Frame, area: Rect) {
    let StatusReport { version, pid, uptime_s, draining, lightning, pools, .. } = &model.snapshot.status;
    let (state, color) = match (model.is_lost, draining, lightning.joined, lightning.connected) {
        (true, ..) => ("no answer", Color::Red),
        (_, true, ..) => ("draining", Color::Yellow),
        _ if pools.iter().any(|pool| pool.circuit_open) => ("circuit breaker open", Color::Red),
        (_, _, true, _) => ("queue joined", Color::Green),
        (_, _, false, true) => ("queue not joined", Color::Yellow),
        _ => ("not connected", Color::Red),
    };
    let rate = model.runs_a_minute().map_or_else(String::new, |rate| format!(" ({rate:.0} a minute)"));
    let first = Line::from(vec![
        Span::from(format!("worker {version}")).bold(),
        Span::from(format!(" (pid {pid}) up {}  ", duration(*uptime_s))),
        Span::styled(state, Style::new().fg(color).add_modifier(Modifier::BOLD)),
        Span::from(format!("  {} runs ended{rate}", lightning.runs_ended)),
    ]);
    let each = lightning.workloops.iter().map(|workloop| {
        let claims = if workloop.open > 0 { format!(", {} claimed", workloop.open) } else { String::new() };
        Line::from(format!("{}  {} of {} active{claims}", workloop.name, workloop.active, workloop.capacity))
    });
    frame.render_widget(Paragraph::new([first].into_iter().chain(each).collect::<Vec<_>>()), area);
}

fn draw_runs(model: &Model, frame: &mut Frame, area: Rect) {
    let rows: Vec<Row> = model.snapshot.runs.iter().map(run_row).collect();
    let head = [("RUNS", 13), ("PHASE", 8), ("AGE", 8), ("MEMORY", 10), ("HOST", 6)];
    draw_table(rows, &head, "STEP", (model.focus == Focus::Runs).then_some(model.cursor), frame, area);
}

fn draw_hosts(model: &Model, frame: &mut Frame, area: Rect) {
    let rows: Vec<Row> = model.snapshot.hosts.iter().map(host_row).collect();
    let head = [("HOSTS", 13), ("STATE", 8), ("AGE", 8), ("MEMORY", 10), ("PID", 8)];
    draw_table(rows, &head, "ENGINE", (model.focus == Focus::Hosts).then_some(model.cursor), frame, area);
}

fn draw_failures(model: &Model, frame: &mut Frame, area: Rect) {
    let rows: Vec<Row> = model.failures().take(FAILURES).map(failure_row).collect();
    draw_table(rows, &[("NOT WELL", 13), ("REASON", 8), ("TOOK", 8)], "ERROR", None, frame, area);
}

/// A table of columns as wide as given, and one that takes the rest.
fn draw_table(
    rows: Vec<Row>,
    columns: &[(&'static str, u16)],
    last: &'static str,
    cursor: Option<usize>,
    frame: &mut Frame,
    area: Rect,
) {
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width)).chain([Constraint::Fill(1)]);
    let head = Row::new(columns.iter().map(|(name, _)| *name).chain([last]))
        .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let table = Table::new(rows, widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1);
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(cursor));
}

fn run_row(run: &RunReport) -> Row<'static> {
    Row::new([
        short(&run.run),
        cell(run.phase.clone()),
        cell(precise(run.age_ms.saturating_mul(1_000))),
        cell(run.memory_bytes.map_or_else(dash, megabytes)),
        cell(run.host.clone().unwrap_or_else(dash)),
        cell(run.step.clone().unwrap_or_else(dash)),
    ])
}

fn host_row(host: &HostReport) -> Row<'static> {
    let what = match &host.run {
        Some(run) => format!("run {run}"),
        None => host.engine.clone().unwrap_or_else(dash),
    };
    Row::new([
        short(&format!("{} {}", host.id, host.pool)),
        cell(host.state.clone()),
        cell(duration(host.age_s)),
        cell(host.memory_bytes.map_or_else(dash, megabytes)),
        cell(host.pid.map_or_else(dash, |pid| pid.to_string())),
        cell(what),
    ])
}

fn failure_row(run: &PastRun) -> Row<'static> {
    Row::new([
        short(&run.run),
        cell(run.reason.clone().unwrap_or_else(|| "given up".to_owned())),
        cell(precise(run.phases_us.values().sum())),
        cell(run.error_type.clone().unwrap_or_else(dash)),
    ])
}

fn dash() -> String {
    "-".to_owned()
}

fn cell(text: String) -> Cell<'static> {
    Cell::from(one_line(&text).into_owned())
}

/// As much of an id as tells it from others.
fn short(id: &str) -> Cell<'static> {
    cell(id.chars().take(13).collect())
}

fn draw_log(log: &Log, frame: &mut Frame, area: Rect) {
    let most = usize::from(area.height.saturating_sub(1));
    let title = Line::from(format!("Lines of {}", log.title)).bold();
    let from = log.lines.len().saturating_sub(most);
    let lines = log.lines.iter().skip(from).map(|line| Line::from(one_line(line).into_owned()));
    let none = log.lines.is_empty().then(|| Line::from("none so far: what jobs log goes to Lightning").dim());
    frame.render_widget(Paragraph::new([title].into_iter().chain(none).chain(lines).collect::<Vec<_>>()), area);
}

fn draw_foot(model: &Model, frame: &mut Frame, area: Rect) {
    let drain = if model.snapshot.status.draining { "d resume" } else { "d drain" };
    let line = match (&model.confirm, &model.log, &model.notice) {
        (Some((question, _)), ..) => Line::from(format!("{question} y/n")).bold(),
        (None, Some(_), _) => Line::from("q back"),
        (None, None, Some(notice)) => Line::from(one_line(notice).into_owned()).bold(),
        (None, None, None) => {
            Line::from(format!("↑↓ choose  Tab runs/hosts  l log  c cancel  {drain}  r recycle  q quit"))
        }
    };
    frame.render_widget(Paragraph::new(line), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};

    use super::super::model::Snapshot;
    use super::*;
    use lightning::{LightningStatus, WorkloopStatus};

    fn snapshot() -> Snapshot {
        let lightning = LightningStatus {
            connected: true,
            joined: true,
            active_runs: 1,
            capacity: 5,
            open_claims: 1,
            runs_ended: 4_711,
            workloops: vec![WorkloopStatus { name: "manual>*".into(), capacity: 5, active: 1, open: 1 }],
            ..LightningStatus::default()
        };
        let status =
            StatusReport { version: "0.1.0".into(), pid: 42, uptime_s: 3_720, lightning, ..StatusReport::default() };
        let run = RunReport {
            run: "6f6f5d0c-1f0a-4c0e-9a3c-0d0f4f6b7a11".into(),
            workloop: "manual>*".into(),
            phase: "execute".into(),
            step: Some("Fetch\nall".into()),
            age_ms: 1_250,
            host: Some("h7".into()),
            pid: Some(77),
            engine: None,
            memory_bytes: Some(44 * 1024 * 1024),
        };
        let host = |id: &str, state: &str, run: Option<&str>| HostReport {
            id: id.into(),
            pool: "engines".into(),
            pid: Some(77),
            state: state.into(),
            engine: Some("embedded (500 MB)".into()),
            run: run.map(str::to_owned),
            age_s: 61,
            runs: 0,
            memory_bytes: Some(3 * 1024 * 1024),
        };
        let failed = PastRun {
            run: "0b1c".into(),
            reason: Some("crash".into()),
            error_type: Some("TypeError".into()),
            phases_us: [("execute".into(), 3_000_000)].into(),
            ..PastRun::default()
        };
        let hosts = vec![host("h7", "running", Some("6f6f5d0c-1f0a")), host("h8", "ready", None)];
        let well = PastRun { reason: Some("success".into()), ..PastRun::default() };
        Snapshot { status, hosts, runs: vec![run], past: vec![well, failed] }
    }

    fn shown(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(model, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    #[test]
    fn all_of_it_fits_a_small_terminal() {
        let lines = shown(&Model::new(snapshot()), 80, 24);
        let expected = [
            (0, "worker 0.1.0 (pid 42) up 1h02m  queue joined  4711 runs ended"),
            (1, "manual>*  1 of 5 active, 1 claimed"),
            (2, "RUNS          PHASE    AGE      MEMORY     HOST   STEP"),
            (3, "6f6f5d0c-1f0a execute  1.2s     44.0 MB    h7     Fetch\\nall"),
            (12, "HOSTS         STATE    AGE      MEMORY     PID      ENGINE"),
            (13, "h7 engines    running  1m01s    3.0 MB     77       run 6f6f5d0c-1f0a"),
            (14, "h8 engines    ready    1m01s    3.0 MB     77       embedded (500 MB)"),
            (21, "NOT WELL      REASON   TOOK     ERROR"),
            (22, "0b1c          crash    3.0s     TypeError"),
            (23, "↑↓ choose  Tab runs/hosts  l log  c cancel  d drain  r recycle  q quit"),
        ];
        for (at, line) in expected {
            assert_eq!(lines[at], line, "line {at} of\n{}", lines.join("\n"));
        }
        let filled = lines.iter().filter(|line| !line.is_empty()).count();
        assert_eq!(filled, expected.len(), "{}", lines.join("\n"));
    }

    #[test]
    fn failures_leave_room_for_runs_where_there_is_little() {
        let mut snapshot = snapshot();
        snapshot.past = vec![snapshot.past[1].clone(); 5];
        let lines = shown(&Model::new(snapshot), 40, 10);
        let begins_with = |what: &str| lines.iter().any(|line| line.starts_with(what));
        for what in ["6f6f5d0", "HOSTS", "h7 engi", "NOT WELL", "0b1c"] {
            assert!(begins_with(what), "{what} is missing in\n{}", lines.join("\n"));
        }
    }

    #[test]
    fn what_is_wrong_or_asked_for_is_said() {
        let mut model = Model::new(snapshot());
        let screen = |model: &Model| shown(model, 80, 24).join("\n");
        model.pressed(KeyEvent::from(KeyCode::Char('c')));
        assert!(screen(&model).ends_with("Cancel the run 6f6f5d0c-1f0a-4c0e-9a3c-0d0f4f6b7a11? y/n"));
        model.pressed(KeyEvent::from(KeyCode::Char('n')));
        model.snapshot.status.draining = true;
        assert!(screen(&model).contains("  draining  ") && screen(&model).contains("d resume"));
        model.is_lost = true;
        model.notice = Some("the worker has gone".into());
        assert!(screen(&model).contains("  no answer  ") && screen(&model).ends_with("the worker has gone"));
        model.pressed(KeyEvent::from(KeyCode::Char('l')));
        assert!(screen(&model).contains("Lines of run 6f6f5d0c") && screen(&model).ends_with("q back"));
        assert!(screen(&model).contains("none so far"));
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            shown(&Model::new(snapshot()), width, height);
            shown(&Model::new(Snapshot::default()), width, height);
        }
    }
}
