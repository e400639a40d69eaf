//! How a host ends.

use std::io::BufRead;

use protocol::handshake::HandshakeError;
use rustix::process::{Pid, Signal, getpriority_process, getsid, kill_process};

use super::*;

fn pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

async fn keep_busy(host: &mut Host) {
    drop(host.start(workflow(&[("a", BUSY, &[])])));
    host.until_logged("busy").await;
}

#[tokio::test]
async fn by_hand_it_says_what_it_is() {
    let (status, stderr) = Process::spawn(Command::new(HOST).stderr(Stdio::piped())).end().await;
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("for a worker") && stderr.contains("worker --help"), "{stderr}");
}

#[tokio::test]
async fn without_a_worker_it_fails() {
    let worker = Worker::new();
    let mut command = worker.command(HOST);
    drop(worker.listener);
    let (status, stderr) = Process::spawn(&mut command).end().await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.starts_with("cannot connect to "), "{stderr}");
}

#[tokio::test]
async fn a_worker_that_is_not_its_parent_is_gone() {
    let worker = Worker::new();
    let (status, stderr) = Process::spawn(worker.command(HOST).env(PARENT_VARIABLE, "999999999")).end().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(stderr, "the worker that started this engine host is gone\n");
}

#[tokio::test]
async fn with_a_wrong_token_it_is_not_taken() {
    let worker = Worker::new();
    let process = Process::spawn(worker.command(HOST).env(TOKEN_VARIABLE, "another"));
    assert!(matches!(worker.accept().await, Err(HandshakeError::Refused(_))));
    let (status, stderr) = process.end().await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(stderr, "the worker does not take the host: the token is not one of mine\n");
}

#[tokio::test]
async fn it_is_a_session_of_its_own() {
    let worker = Worker::new();
    let (host, _process) = worker.start().await;
    assert_eq!(getsid(Some(pid(host.pid))).unwrap(), pid(host.pid));
}

#[tokio::test]
async fn its_worker_goes_first_when_the_processor_is_busy() {
    let worker = Worker::new();
    let (host, _process) = worker.start().await;
    let own = getpriority_process(None).unwrap();
    let expected = (own + 5).min(19);
    assert_eq!(getpriority_process(Some(pid(host.pid))).unwrap(), expected);
    // Not every kernel has it, and others than root may set it ten times a second only.
    if rustix::process::geteuid().is_root()
        && let Ok(session) = std::fs::read_to_string(format!("/proc/{}/autogroup", host.pid))
    {
        assert!(session.trim_end().ends_with(&format!("nice {expected}")), "{session}");
    }
}

#[tokio::test]
async fn it_ends_with_its_link_even_when_it_is_busy() {
    let worker = Worker::new();
    let (mut host, process) = worker.start().await;
    keep_busy(&mut host).await;
    host.link.close().await;
    assert_eq!(process.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_signal_ends_it_when_its_run_is_over() {
    let worker = Worker::new();
    let (mut host, mut process) = worker.start().await;
    keep_busy(&mut host).await;
    kill_process(pid(process.child().id()), Signal::TERM).unwrap();
    let exit = protocol::run::Exit::error(protocol::run::ExitReason::Cancel, "Cancelled", "by the test");
    assert!(host.link.call(protocol::message::Cancel { exit }).await.unwrap().was_running);
    let mut ran = Ran::default();
    while ran.steps.is_empty() {
        ran.take(within(host.inbox.next()).await.expect("the link lives"));
    }
    assert_eq!(process.end().await.0.code(), Some(0));
}

/// The link stays open here: it is the system that tells the host.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_dies_with_its_parent_even_when_it_is_busy() {
    let worker = Worker::new();
    let script = format!("export {PARENT_VARIABLE}=$$; \"$0\" & echo $!; wait");
    let mut parent = Process::spawn(worker.command("sh").args(["-c", &script, HOST]));
    let mut host = worker.accept().await.unwrap();
    keep_busy(&mut host).await;
    let mut line = String::new();
    let stdout = parent.child().stdout.take().expect("it is piped");
    std::io::BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), host.pid.to_string());

    kill_process(pid(parent.child().id()), Signal::KILL).unwrap();
    within(host.link.ended()).await;
}
