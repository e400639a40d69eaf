//! How the events of a run look on a terminal. Events in, lines out; no clock and no terminal of its own.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use base::escape::one_line;

/// Turns the events that Lightning got into lines for people.
#[derive(Debug)]
pub struct Printer {
    colour: bool,
    names: HashMap<String, String>,
    /// When steps that are under way began, in microseconds since the epoch, as the events say.
    steps: HashMap<String, u64>,
    started: u64,
}

#[derive(Debug, Clone, Copy)]
enum Style {
    Dim,
    Bold,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Printer {
    /// A printer for one run of `plan`, whose jobs' names it uses.
    pub fn new(plan: &Value, colour: bool) -> Self {
        let jobs = plan["jobs"].as_array().into_iter().flatten();
        let names = jobs.filter_map(|job| {
            let id = job["id"].as_str()?;
            Some((id.to_owned(), one_line(job["name"].as_str().unwrap_or(id)).into_owned()))
        });
        Self { colour, names: names.collect(), steps: HashMap::new(), started: 0 }
    }

    /// What to print before anything happens.
    pub fn title(&self, plan: &Value, engine: &str) -> String {
        let name = one_line(plan["name"].as_str().unwrap_or("workflow"));
        let jobs = plan["jobs"].as_array().map_or(0, Vec::len);
        let steps = if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") };
        format!(
            "{}  {}\n",
            self.paint(Style::Bold, &name),
            self.paint(Style::Dim, &format!("{steps}, {engine} engine"))
        )
    }

    /// The lines of one event that arrived `at` so long after the run was queued.
    pub fn event(&mut self, name: &str, payload: &Value, at: Duration) -> Vec<String> {
        match name {
            "run:start" => {
                self.started = timestamp(payload);
                vec![self.line(at, &self.paint(Style::Dim, "run started"))]
            }
            "step:start" => {
                self.steps.insert(text(payload, "step_id").to_owned(), timestamp(payload));
                let step = self.step_name(payload);
                vec![self.line(at, &format!("{} {}", self.paint(Style::Cyan, "▸"), self.paint(Style::Bold, step)))]
            }
            "step:complete" => vec![self.step_complete(payload, at)],
            "run:log" => vec![self.log(payload, at)],
            "run:batch_logs" => {
                let lines = payload["logs"].as_array().into_iter().flatten();
                lines.map(|line| self.log(line, at)).collect()
            }
            "run:complete" => vec![self.run_complete(payload, at)],
            _ => Vec::new(),
        }
    }

    /// The state that the run ended with.
    pub fn final_state(&self, state: &Value) -> String {
        let pretty = serde_json::to_string_pretty(state).unwrap_or_else(|_| state.to_string());
        format!("\n{}\n{pretty}", self.paint(Style::Bold, "Final state"))
    }

    fn step_complete(&mut self, payload: &Value, at: Duration) -> String {
        let ended = timestamp(payload);
        let began = self.steps.remove(text(payload, "step_id")).unwrap_or(ended);
        let end = self.ending(payload);
        let line =
            format!("{end} {} {}", self.step_name(payload), self.paint(Style::Dim, &took(ended.saturating_sub(began))));
        self.line(at, &line)
    }

    fn run_complete(&self, payload: &Value, at: Duration) -> String {
        let line = format!(
            "{} run {}",
            self.ending(payload),
            self.paint(Style::Dim, &took(timestamp(payload).saturating_sub(self.started)))
        );
        self.line(at, &line)
    }

    /// A mark and the reason, and the error if there is one.
    fn ending(&self, payload: &Value) -> String {
        let reason = text(payload, "reason");
        let (mark, style) = match reason {
            "success" => ("✔", Style::Green),
            "fail" | "cancel" => ("✘", Style::Yellow),
            _ => ("✘", Style::Red),
        };
        let mut end = self.paint(style, &format!("{mark} {reason}"));
        if let (Some(kind), Some(message)) = (payload["error_type"].as_str(), payload["error_message"].as_str()) {
            let error = format!("[{}: {}]", one_line(kind), one_line(message));
            let _ = write!(end, " {}", self.paint(style, &error));
        }
        end
    }

    fn log(&self, line: &Value, at: Duration) -> String {
        let level = text(line, "level");
        let style = match level {
            "error" => Style::Red,
            "warn" => Style::Yellow,
            _ => Style::Dim,
        };
        let values = line["message"].as_array().into_iter().flatten();
        let values = values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        // What follows a line break stands below what came before it.
        let message = values.collect::<Vec<_>>().join(" ");
        let message = message.lines().map(one_line).collect::<Vec<_>>().join("\n                             ");
        let source = self.paint(Style::Dim, &format!("{:<3}", text(line, "source")));
        let level = self.paint(style, &format!("{level:<7}"));
        self.line(at, &format!("    {source} {level} {message}"))
    }

    fn step_name<'a>(&'a self, payload: &'a Value) -> &'a str {
        let id = text(payload, "job_id");
        self.names.get(id).map_or(id, String::as_str)
    }

    fn line(&self, at: Duration, text: &str) -> String {
        format!("{} {text}", self.paint(Style::Dim, &format!("{:>8.3} s ", at.as_secs_f64())))
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Dim => "2",
            Style::Bold => "1",
            Style::Red => "31",
            Style::Green => "32",
            Style::Yellow => "33",
            Style::Cyan => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// When an event happened, in microseconds since the epoch.
fn timestamp(payload: &Value) -> u64 {
    text(payload, "timestamp").parse().unwrap_or(0)
}

fn took(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..10_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_reads_from_top_to_bottom() {
        let plan = json!({ "name": "W", "jobs": [{ "id": "a", "name": "First" }, { "id": "b" }] });
        let mut printer = Printer::new(&plan, false);
        let events = [
            ("run:start", json!({ "timestamp": "1000000" }), 1),
            ("step:start", json!({ "step_id": "s", "job_id": "a", "timestamp": "1000500" }), 2),
            ("run:log", json!({ "source": "JOB", "level": "info", "message": ["n", 1, { "x": null }] }), 3),
            (
                "step:complete",
                json!({ "step_id": "s", "job_id": "a", "reason": "fail", "error_type": "JobError", "error_message": "no", "timestamp": "1012500" }),
                14,
            ),
            ("run:complete", json!({ "reason": "success", "timestamp": "1019000" }), 20),
            ("fetch:plan", json!({}), 21),
        ];
        let mut lines = vec![printer.title(&plan, "embedded")];
        for (name, payload, at) in events {
            lines.extend(printer.event(name, &payload, Duration::from_millis(at)));
        }
        let expected = [
            "W  2 jobs, embedded engine\n",
            "   0.001 s  run started",
            "   0.002 s  ▸ First",
            "   0.003 s      JOB info    n 1 {\"x\":null}",
            "   0.014 s  ✘ fail [JobError: no] First 12 ms",
            "   0.020 s  ✔ success run 19 ms",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_logged_cannot_steer_the_terminal() {
        let mut printer = Printer::new(&json!({"jobs": [{"id": "a", "name": "x\u{1b}[2J\ny"}]}), false);
        let at = Duration::from_millis(1);
        let started = printer.event("step:start", &json!({"step_id": "s", "job_id": "a"}), at).remove(0);
        assert_eq!(started, "   0.001 s  ▸ x\\u{1b}[2J\\ny");
        let line = json!({"source": "JOB", "level": "info", "message": ["1\n2\r\u{1b}[31m3"]});
        let line = printer.event("run:log", &line, at).remove(0);
        assert_eq!(line, "   0.001 s      JOB info    1\n                             2\\r\\u{1b}[31m3");
    }

    #[test]
    fn colours_only_when_asked_for() {
        let mut printer = Printer::new(&json!({}), true);
        let line = printer.event("run:complete", &json!({ "reason": "kill" }), Duration::ZERO).remove(0);
        assert!(line.contains("\x1b[31m✘ kill\x1b[0m"), "{line}");
    }
}
