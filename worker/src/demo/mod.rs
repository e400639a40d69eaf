//! `worker demo`: one workflow, a small Lightning, the worker and a host, all started and stopped here.
//!
//! Everything between them is real: the websocket, the claims, the link and the host's process.

mod printer;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hosts::{HostProgram, HostsOptions, PoolSize};
use lightning::{LightningOptions, Workloop};
use mock_lightning::{self, InvalidPlan, MockError, MockLightning, MockOptions, RecordedEvent, RunState};
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::cli::{DemoOptions, EngineKind};
use crate::embedded::EMBEDDED;
use crate::engines;
use crate::start::{StartError, StartedHosts};

pub use printer::Printer;

const SAMPLE: &str = include_str!("sample.json");
/// How long the parts may take to stop when the run is over.
const STOP: Duration = Duration::from_secs(5);
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// The demo could not run the workflow.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no JSON.
    #[error("{} is not JSON: {source}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file is no workflow.
    #[error("{what} is not a workflow that Lightning would send: {source}")]
    NotAPlan {
        /// The file.
        what: String,
        /// Where and why.
        source: InvalidPlan,
    },
    /// The small Lightning could not start.
    #[error(transparent)]
    Mock(#[from] MockError),
    /// The worker could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Lightning went away.
    #[error("the run's events ended before the run did")]
    Lost,
}

impl DemoError {
    /// Whether other options would help.
    pub fn is_about_options(&self) -> bool {
        matches!(self, Self::Start(error) if error.is_about_options())
    }
}

/// Runs one workflow and prints what happens. True if the run succeeded.
pub async fn run(options: &DemoOptions) -> Result<bool, DemoError> {
    let plan = load(options.file.as_deref())?;
    let secret = SecretString::from(Uuid::new_v4().to_string());
    let mock = MockOptions { secret: Some(secret.clone()), ..MockOptions::default() };
    let mock = mock_lightning::start(mock).await?;
    let events = mock.subscribe();
    let what = options.file.as_deref().map_or_else(|| "the sample".to_owned(), |path| path.display().to_string());
    let id = mock.queue_run(plan.clone()).map_err(|source| DemoError::NotAPlan { what, source })?;

    let mut screen = Screen::new(Printer::new(&plan, colour()));
    screen.title(&plan, options.engine);
    let engine = engines::choose(Some(options.engine), &options.repo, &[]).await.map_err(StartError::from)?;
    let hosts = StartedHosts::start(hosts_options(options)?, engine, None).await?;
    let worker = hosts.claim(lightning_options(&mock, secret));
    let followed = screen.follow(&id, events).await;
    worker.finish(STOP).await;
    let record = mock.run(&id);
    mock.stop().await;
    followed?;
    let state = record.as_ref().and_then(|record| record.final_state.as_ref());
    if let Some(state) = state {
        screen.final_state(state);
    }
    Ok(record.is_some_and(|record| record.state == RunState::Success))
}

fn load(file: Option<&Path>) -> Result<Value, DemoError> {
    let Some(path) = file else {
        return Ok(serde_json::from_str(SAMPLE).expect("the bundled workflow is JSON"));
    };
    let text =
        std::fs::read_to_string(path).map_err(|source| DemoError::Unreadable { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| DemoError::NotJson { path: path.to_owned(), source })
}

fn lightning_options(mock: &MockLightning, secret: SecretString) -> LightningOptions {
    let endpoint = mock.url().parse().expect("the double knows its own address");
    LightningOptions { workloops: vec![Workloop::standard(1)], ..LightningOptions::new(endpoint, secret) }
}

fn hosts_options(options: &DemoOptions) -> Result<HostsOptions, StartError> {
    let program = HostProgram::find(options.engine_host.as_deref(), EMBEDDED)?;
    let usual = HostsOptions::new(program);
    let first = usual.first.clone().filter(|_| options.engine != EngineKind::Node);
    Ok(HostsOptions { size: PoolSize::OneRunEach { warm: 1 }, first, ..usual })
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The terminal: finished lines, and below them one that moves while the run is waited for.
struct Screen {
    printer: Printer,
    moving: bool,
    began: Instant,
}

impl Screen {
    fn new(printer: Printer) -> Self {
        Self { printer, moving: std::io::stdout().is_terminal(), began: Instant::now() }
    }

    fn title(&self, plan: &Value, engine: EngineKind) {
        println!("{}", self.printer.title(plan, engine.name()));
    }

    fn final_state(&self, state: &Value) {
        println!("{}", self.printer.final_state(state));
    }

    /// Prints the events of a run until its end.
    async fn follow(&mut self, id: &str, mut events: UnboundedReceiver<RecordedEvent>) -> Result<(), DemoError> {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut frames = SPINNER.into_iter().cycle();
        loop {
            tokio::select! {
                event = events.recv() => {
                    let event = event.ok_or(DemoError::Lost)?;
                    if &*event.run_id == id && self.event(&event) {
                        return Ok(());
                    }
                }
                _ = ticks.tick(), if self.moving => self.progress(frames.next().unwrap_or_default()),
            }
        }
    }

    /// True for the last event.
    fn event(&mut self, event: &RecordedEvent) -> bool {
        self.clear();
        for line in self.printer.event(&event.event, &event.payload, self.began.elapsed()) {
            println!("{line}");
        }
        event.event == "run:complete"
    }

    fn progress(&self, frame: &str) {
        self.clear();
        print!("{frame} {:>6.1} s", self.began.elapsed().as_secs_f64());
        // A terminal that is gone shows nothing anyway.
        let _ = std::io::stdout().flush();
    }

    fn clear(&self) {
        if self.moving {
            print!("\r\x1b[2K");
        }
    }
}
