//! A host that does what a test wants of it.
//!
//! The test program starts itself as a host: with [`host`] as the only test to run, and with more words that the test
//! runner takes for names of tests that do not exist. They say how the host behaves from its start on ([`Habit`]);
//! how it behaves in a run says the run's input ([`Act`]).

use std::io::{BufRead, Write};
use std::process::exit;
use std::time::Duration;

use protocol::Json;
use protocol::handshake::{ADDRESS_VARIABLE, LinkToken, PARENT_VARIABLE, TOKEN_VARIABLE, introduce};
use protocol::link::{HostSide, Incoming, Link, LinkOptions, Responder};
use protocol::message::*;
use protocol::run::*;
use rustix::process::{Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

/// Name of the test that is the host.
pub(crate) const HOST: &str = "fake::host";

/// How a host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    ExitsAtStart,
    NeverConnects,
    ShowsAWrongToken,
    SpeaksAnOtherVersion,
    RefusesToPrepare,
    SendsGarbage,
    DiesWhenReady,
    IgnoresStop,
    IgnoresTerm,
    PrintsItsEnvironment,
    /// Never answers whether it lives.
    IgnoresPings,
    /// Says something when it is ready, and again whenever it is asked whether it lives.
    Talks,
    /// Dies when it is asked whether it lives.
    DiesOfPings,
    /// Is never done with preparing an engine for a run, nor with becoming a template.
    NeverPrepares,
    /// Exits with 0 on SIGUSR1, with 3 on SIGUSR2, and closes its link on SIGHUP.
    ObeysSignals,
}

/// What a host does in a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Reports a step and its success.
    Finish,
    /// Reports this many log lines and its success.
    Log(u64),
    /// Reports this many log lines and exits with this code.
    LogAndExit(u64, i32),
    /// Reports success and exits at once with this code.
    FinishAndExit(i32),
    /// Starts a step, and waits until it is cancelled.
    WaitInStep,
    /// Kills itself with this signal.
    Signal(i32),
    /// Waits until it is cancelled, and reports that.
    WaitForCancel,
    /// Never does anything again.
    Hang,
    /// Exits before it says anything of the run, unless this many hosts have done so: each leaves a file here.
    ExitSilently(String, usize),
    /// Closes its link and stays.
    CloseLink,
    /// Refuses.
    Refuse,
    /// Prints this to its standard output and error, then reports success.
    Print(String),
    /// Prints this many mebibytes to its standard output, then reports success.
    Flood(usize),
    /// Starts a process that outlives it, logs its id, and exits.
    LeaveChild,
}

fn has(habit: Habit) -> bool {
    std::env::args().any(|argument| argument == format!("{habit:?}"))
}

/// Not a test: the host, when this program was started as one.
#[test]
fn host() {
    let (Ok(address), Ok(token)) = (std::env::var(ADDRESS_VARIABLE), std::env::var(TOKEN_VARIABLE)) else {
        return;
    };
    if has(Habit::ExitsAtStart) {
        eprintln!("cannot start: out of luck");
        exit(3);
    }
    let session = rustix::process::setsid();
    session.expect("a host that was just spawned leads no group");
    if has(Habit::PrintsItsEnvironment) {
        for (name, _) in std::env::vars() {
            println!("variable {name}");
        }
        println!("parent {}", std::env::var(PARENT_VARIABLE).unwrap());
        println!("folder {}", std::env::current_dir().unwrap().display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(&address, token));
    exit(0);
}

async fn serve(address: &str, token: String) {
    if has(Habit::NeverConnects) {
        std::future::pending::<()>().await;
    }
    if has(Habit::IgnoresTerm) {
        let handler = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        std::mem::forget(handler.unwrap());
    }
    // Before the worker can know that the host is there.
    let signals = has(Habit::ObeysSignals).then(listen_to_signals);
    let mut stream = protocol::socket::connect(address).await.unwrap();
    let hello = Hello {
        protocol: if has(Habit::SpeaksAnOtherVersion) { 999 } else { PROTOCOL_VERSION },
        version: "fake".into(),
        token: LinkToken::new(if has(Habit::ShowsAWrongToken) { "wrong".into() } else { token }),
        pid: std::process::id(),
    };
    if introduce(&mut stream, &hello, Duration::from_secs(10)).await.is_err() {
        exit(1);
    }
    if has(Habit::SendsGarbage) {
        stream.write_all(&[0; 8]).await.unwrap();
        std::future::pending::<()>().await;
    }
    let (link, mut inbox) = Link::<HostSide>::start(stream, LinkOptions::default());
    signals.into_iter().for_each(|signals| obey(&link, signals));
    let mut run = None;
    while let Some(Incoming::Request(request, responder)) = inbox.next().await {
        match request {
            HostRequest::Prepare(_) if has(Habit::RefusesToPrepare) => {
                responder.refuse(Refusal::new(RefusalCode::Failed, "no engine here"));
            }
            HostRequest::Prepare(_) | HostRequest::Template(_) if has(Habit::NeverPrepares) => {
                std::mem::forget(responder);
            }
            HostRequest::Prepare(_) => {
                responder.reply(HostReply::Prepared(Prepared { engine: ("fake".into(), "1".into()) }));
                if has(Habit::DiesWhenReady) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    exit(4);
                }
            }
            HostRequest::Run(spec) => run = act(&link, &spec, responder).await,
            HostRequest::Cancel(Cancel { exit }) => {
                let waiting = run.take();
                responder.reply(HostReply::Cancelled(Cancelled { was_running: waiting.is_some() }));
                if let Some(waiting) = waiting {
                    Responder::reply(waiting, HostReply::Ran(RunOutcome { exit, final_state: None, final_step: None }));
                }
            }
            HostRequest::Ping(_) if has(Habit::IgnoresPings) => std::mem::forget(responder),
            HostRequest::Ping(_) if has(Habit::DiesOfPings) => exit(6),
            HostRequest::Ping(_) if has(Habit::Talks) => {
                link.notify(WorkerNotice::Custom(Json::encode(&"hello").unwrap())).await.unwrap();
                let (counts, gauges) = ([("pings".into(), 1)].into(), [("mood".into(), 0.5)].into());
                link.notify(WorkerNotice::Ops(OpsReport { counts, gauges })).await.unwrap();
                responder.reply(HostReply::Pong(Pong { rss_bytes: 4_711 }));
            }
            HostRequest::Installer(_)
            | HostRequest::Handler(_)
            | HostRequest::Custom(_)
            | HostRequest::SetEnv(_)
            | HostRequest::Template(_) => {
                responder.refuse(Refusal::new(RefusalCode::WrongState, "not my business"));
            }
            HostRequest::Ping(_) => responder.reply(HostReply::Pong(Pong { rss_bytes: 0 })),
            HostRequest::Stop(_) if has(Habit::IgnoresStop) => drop(responder),
            HostRequest::Stop(_) => {
                responder.reply(HostReply::Stopping(Stopping {}));
                return link.close().await;
            }
        }
    }
    // A host whose link was closed by itself stays, for the worker to find out.
    if has(Habit::ObeysSignals) {
        std::future::pending::<()>().await;
    }
}

/// Listens for the signals that are obeyed, each with the code to exit with, or none to close the link.
fn listen_to_signals() -> [(tokio::signal::unix::Signal, Option<i32>); 3] {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds =
        [(SignalKind::user_defined1(), Some(0)), (SignalKind::user_defined2(), Some(3)), (SignalKind::hangup(), None)];
    kinds.map(|(kind, code)| (signal(kind).unwrap(), code))
}

fn obey(link: &Link<HostSide>, signals: [(tokio::signal::unix::Signal, Option<i32>); 3]) {
    for (mut signals, code) in signals {
        let link = link.clone();
        tokio::spawn(async move {
            signals.recv().await;
            match code {
                Some(code) => exit(code),
                None => link.close().await,
            }
            std::future::pending::<()>().await;
        });
    }
}

/// Executes a run; returns what is to answer it later.
async fn act(link: &Link<HostSide>, spec: &RunSpec, responder: Responder<HostSide>) -> Option<Responder<HostSide>> {
    let success = || RunOutcome { exit: Exit::success(), final_state: Some(Json::empty_object()), final_step: Some(0) };
    let act = spec.input.decode::<Act>().unwrap();
    if let Act::ExitSilently(folder, most) = &act
        && std::fs::read_dir(folder).unwrap().count() < *most
    {
        std::fs::write(format!("{folder}/{}", std::process::id()), "").unwrap();
        exit(5);
    }
    notify(link, RunEvent::Started(Versions { engine: ("fake".into(), "1".into()), adaptors: vec![] })).await;
    match act {
        Act::ExitSilently(..) => responder.reply(HostReply::Ran(success())),
        Act::Finish => {
            let step = StepStarted { index: 0, step_id: "a".into(), input: StepInput::Run, timestamp_us: 1 };
            notify(link, RunEvent::StepStarted(step)).await;
            link.call(completed_step()).await.unwrap();
            responder.reply(HostReply::Ran(success()));
        }
        Act::Log(lines) => {
            log(link, lines).await;
            responder.reply(HostReply::Ran(success()));
        }
        Act::LogAndExit(lines, code) => {
            log(link, lines).await;
            link.close().await;
            exit(code);
        }
        Act::FinishAndExit(code) => {
            responder.reply(HostReply::Ran(success()));
            link.close().await;
            exit(code);
        }
        Act::Signal(number) => {
            // What has been said is written by the time when this is answered.
            link.call(completed_step()).await.unwrap();
            let signal = Signal::from_named_raw(number).unwrap();
            // Rust's own handler of SIGSEGV takes the first one.
            loop {
                kill_process(rustix::process::getpid(), signal).unwrap();
            }
        }
        Act::WaitForCancel => return Some(responder),
        Act::WaitInStep => {
            let step = StepStarted { index: 0, step_id: "a".into(), input: StepInput::Run, timestamp_us: 1 };
            notify(link, RunEvent::StepStarted(step)).await;
            return Some(responder);
        }
        Act::Hang => loop {
            std::thread::park();
        },
        Act::CloseLink => {
            link.close().await;
            std::future::pending::<()>().await;
        }
        Act::Refuse => responder.refuse(Refusal::new(RefusalCode::WrongState, "not today")),
        Act::Print(text) => {
            std::io::stdout().write_all(text.as_bytes()).unwrap();
            std::io::stdout().flush().unwrap();
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            responder.reply(HostReply::Ran(success()));
        }
        // Beside it the host says that it lives.
        Act::Flood(mebibytes) => drop(tokio::task::spawn_blocking(move || {
            let line = "x".repeat(127) + "\n";
            let chunk = line.repeat(8 * 1024);
            let mut stdout = std::io::stdout().lock();
            for _ in 0..mebibytes {
                stdout.write_all(chunk.as_bytes()).unwrap();
            }
            responder.reply(HostReply::Ran(success()));
        })),
        Act::LeaveChild => {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", "sleep 1000 & echo $!"]).stdout(std::process::Stdio::piped());
            let mut shell = shell.spawn().unwrap();
            let mut pid = String::new();
            std::io::BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
            notify(link, line(pid.trim().parse().unwrap())).await;
            link.close().await;
            exit(0);
        }
    }
    None
}

async fn log(link: &Link<HostSide>, lines: u64) {
    for number in 0..lines {
        notify(link, line(number)).await;
    }
}

async fn notify(link: &Link<HostSide>, event: RunEvent) {
    link.notify(WorkerNotice::Event(event)).await.unwrap();
}

fn line(number: u64) -> RunEvent {
    RunEvent::Log(LogLine {
        source: LogSource::Job,
        level: LogLevel::Info,
        message: Json::encode(&[number]).unwrap(),
        timestamp_us: number,
    })
}

fn completed_step() -> StepCompleted {
    StepCompleted {
        index: 0,
        step_id: "a".into(),
        exit: Exit::success(),
        output: StepOutput::State(Json::empty_object()),
        webhook_response: None,
        duration_ms: 1,
        memory: StepMemory::default(),
        timestamp_us: 1,
    }
}
