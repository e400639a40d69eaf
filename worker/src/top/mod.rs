//! `worker top`: a worker that runs, live in the terminal, over its admin socket.

mod model;
mod view;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::model::{Action, Message, Model, Snapshot};
use crate::ctl::{Answer, CtlError, Request, ask};

/// Time between looks at the worker.
const PACE: Duration = Duration::from_secs(1);
/// How long a look may take before the worker counts as one that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Runs that ended which are looked at: rates and the last errors come from them.
const PAST_RUNS: usize = 200;
/// Lines that wait to be shown.
const LINES: usize = 256;

/// Shows the worker that listens at `socket` until `q` is pressed. Fails if there is no terminal, or no worker at first.
pub async fn watch(socket: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "`worker top` needs a terminal; `worker ctl status`, `hosts` and `runs` tell the same, with --json for programs"
    );
    let first = look(socket).await?;
    let mut terminal = ratatui::try_init()?;
    let result = run(socket, first, &mut terminal).await;
    ratatui::restore();
    Ok(result?)
}

async fn run(socket: &Path, first: Snapshot, terminal: &mut ratatui::DefaultTerminal) -> io::Result<()> {
    let mut model = Model::new(first);
    let mut keys = read_keys();
    let (messages, mut received) = mpsc::channel(LINES);
    let mut tasks = JoinSet::new();
    let mut following: Option<JoinHandle<()>> = None;
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_looking = false;
    loop {
        terminal.draw(|frame| view::draw(&model, frame))?;
        tokio::select! {
            key = keys.recv() => match key {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => match model.pressed(key) {
                    None => {}
                    Some(Action::Quit) => return Ok(()),
                    Some(Action::Ask(request)) => {
                        tasks.spawn(tell(socket.to_owned(), request, messages.clone()));
                    }
                    Some(Action::Follow(request)) => {
                        following = Some(tokio::spawn(tell(socket.to_owned(), request, messages.clone())));
                    }
                    Some(Action::StopFollowing) => {
                        if let Some(task) = following.take() {
                            task.abort();
                        }
                    }
                },
                // The window has another size: drawn anew.
                Some(_) => {}
                None => return Ok(()),
            },
            _ = ticks.tick(), if !is_looking => {
                is_looking = true;
                let (socket, messages) = (socket.to_owned(), messages.clone());
                tasks.spawn(async move {
                    let looked = match timeout(PATIENCE, look(&socket)).await {
                        Ok(looked) => looked.map_err(|error| error.to_string()),
                        Err(_) => Err(format!("the worker has not answered for {}s", PATIENCE.as_secs())),
                    };
                    // Fails when the program ends.
                    let _ = messages.send(Message::Looked(looked.map(Box::new))).await;
                });
            }
            Some(message) = received.recv() => {
                is_looking &= !matches!(message, Message::Looked(_));
                model.take(message, Instant::now());
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Keys and changes of the window, read by a thread of their own, which ends with the program.
fn read_keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Asks the worker for all that is shown.
async fn look(socket: &Path) -> Result<Snapshot, CtlError> {
    let mut snapshot = Snapshot::default();
    for request in [Request::Status, Request::Hosts, Request::Runs, Request::History { run: None, most: PAST_RUNS }] {
        ask(socket, &request, |answer| {
            match answer {
                Answer::Status(status) => snapshot.status = status,
                Answer::Hosts(hosts) => snapshot.hosts = hosts,
                Answer::Runs(runs) => snapshot.runs = runs,
                Answer::History(past) => snapshot.past = past,
                Answer::Error(why) => return Err(io::Error::other(why)),
                Answer::Run(_) | Answer::Done(_) | Answer::Line(_) => {}
            }
            Ok(())
        })
        .await?;
    }
    Ok(snapshot)
}

/// Asks something of the worker, and passes on what it answers.
async fn tell(socket: std::path::PathBuf, request: Request, messages: mpsc::Sender<Message>) {
    let (answers, mut answered) = mpsc::channel(LINES);
    let asking = ask(&socket, &request, |answer| {
        // A terminal that is slower than the worker misses lines.
        let _ = answers.try_send(answer);
        Ok(())
    });
    let passing = async {
        while let Some(answer) = answered.recv().await {
            if messages.send(Message::Answered(answer)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        asked = asking => {
            while let Ok(answer) = answered.try_recv() {
                let _ = messages.send(Message::Answered(answer)).await;
            }
            if let Err(error) = asked {
                let _ = messages.send(Message::Answered(Answer::Error(error.to_string()))).await;
            }
        }
        () = passing => {}
    }
}
