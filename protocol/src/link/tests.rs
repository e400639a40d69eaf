//! What is asked, answered and told on a link, over a stream in memory.

mod end;

use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;
use crate::Json;
use crate::message::{
    Cancel, Cancelled, HostReply, HostRequest, Ping, Pong, RefusalCode, Stop, Stopping, Taken, WorkerNotice,
    WorkerReply, WorkerRequest,
};
use crate::run::{
    Exit, ExitReason, LogLevel, LogLine, LogSource, RunEvent, RunOptions, RunOutcome, RunSpec, StepCompleted,
    StepMemory, StepOutput,
};

type Worker = (Link<WorkerSide>, Inbox<WorkerSide>);
type Host = (Link<HostSide>, Inbox<HostSide>);

/// Nothing here takes long, so who waits for longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);

fn pair_over(capacity: usize, options: &LinkOptions) -> (Worker, Host) {
    let (left, right) = duplex(capacity);
    (Link::start(left, options.clone()), Link::start(right, options.clone()))
}

fn pair() -> (Worker, Host) {
    pair_over(8 * 1024, &LinkOptions::default())
}

/// A worker's link, and the bare stream on the other side.
fn bare() -> (Worker, DuplexStream) {
    let (left, right) = duplex(64 * 1024);
    (Link::start(left, LinkOptions::default()), right)
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.expect("this must not take so long")
}

async fn next_request<S: Side>(inbox: &mut Inbox<S>) -> (<S::Peer as Side>::Request, Responder<S>) {
    match soon(inbox.next()).await {
        Some(Incoming::Request(request, responder)) => (request, responder),
        other => panic!("expected a request: {other:?}"),
    }
}

fn spec(input: Json) -> RunSpec {
    RunSpec {
        run_id: "r1".into(),
        steps: Vec::new(),
        start: None,
        input,
        globals: None,
        meta: Json::empty_object(),
        configuration: None,
        engine: crate::engine::EngineSpec::Embedded,
        options: RunOptions::default(),
    }
}

fn outcome(final_state: Option<Json>) -> RunOutcome {
    RunOutcome { exit: Exit::success(), final_state, final_step: None }
}

fn step(index: u32) -> StepCompleted {
    StepCompleted {
        index,
        step_id: "a".into(),
        exit: Exit::success(),
        output: StepOutput::State(Json::empty_object()),
        webhook_response: None,
        duration_ms: 1,
        memory: StepMemory::default(),
        timestamp_us: 1,
    }
}

fn log(number: u64) -> WorkerNotice {
    WorkerNotice::Event(RunEvent::Log(LogLine {
        source: LogSource::Job,
        level: LogLevel::Info,
        message: Json::parse(format!("[{number}]")).unwrap(),
        timestamp_us: number,
    }))
}

/// A text of `length` bytes.
fn long_json(length: usize) -> Json {
    Json::parse(format!("\"{}\"", "x".repeat(length - 2))).unwrap()
}

#[tokio::test]
async fn replies_find_their_requests_in_any_order() {
    let ((worker, _), (_host, mut inbox)) = pair();
    let serve = async {
        let (first, first_responder) = next_request(&mut inbox).await;
        let (second, second_responder) = next_request(&mut inbox).await;
        assert_eq!((first, second), (HostRequest::Ping(Ping {}), HostRequest::Stop(Stop {})));
        second_responder.reply(HostReply::Stopping(Stopping {}));
        first_responder.reply(HostReply::Pong(Pong { rss_bytes: 7 }));
    };
    let (pong, stopping, ()) = soon(async { tokio::join!(worker.call(Ping {}), worker.call(Stop {}), serve) }).await;
    assert_eq!((pong.unwrap(), stopping.unwrap()), (Pong { rss_bytes: 7 }, Stopping {}));
}

#[tokio::test]
async fn both_sides_ask_at_the_same_time() {
    let ((worker, mut from_host), (host, mut from_worker)) = pair();
    let running = tokio::spawn({
        let worker = worker.clone();
        async move { worker.call_within(spec(Json::empty_object()), Duration::MAX).await }
    });
    let (run, run_responder) = next_request(&mut from_worker).await;
    assert!(matches!(run, HostRequest::Run(_)));

    // The host asks back before it answers, and is itself asked meanwhile.
    let serve_host = async {
        let (completed, responder) = next_request(&mut from_host).await;
        assert_eq!(completed, WorkerRequest::StepCompleted(Box::new(step(3))));
        let pong = worker.call(Ping {}).await.unwrap();
        responder.reply(WorkerReply::Taken(Taken {}));
        pong
    };
    let serve_worker = async {
        let (ping, responder) = next_request(&mut from_worker).await;
        assert_eq!(ping, HostRequest::Ping(Ping {}));
        responder.reply(HostReply::Pong(Pong { rss_bytes: 1 }));
    };
    let (taken, pong, ()) = soon(async { tokio::join!(host.call(step(3)), serve_host, serve_worker) }).await;
    assert_eq!((taken.unwrap(), pong), (Taken {}, Pong { rss_bytes: 1 }));

    run_responder.reply(HostReply::Ran(outcome(None)));
    assert_eq!(soon(running).await.unwrap().unwrap(), outcome(None));
}

#[tokio::test]
async fn a_run_is_cancelled_while_it_is_pending_and_still_answered() {
    let ((worker, _), (_host, mut inbox)) = pair();
    let cancelled = Exit::error(ExitReason::Cancel, "Cancelled", "asked to");
    let running = worker.call(Box::new(spec(Json::empty_object())));
    let cancel = worker.call(Cancel { exit: cancelled.clone() });
    let serve = async {
        let (_, run_responder) = next_request(&mut inbox).await;
        let (cancel, cancel_responder) = next_request(&mut inbox).await;
        let HostRequest::Cancel(Cancel { exit }) = cancel else { panic!("{cancel:?}") };
        cancel_responder.reply(HostReply::Cancelled(Cancelled { was_running: true }));
        run_responder.reply(HostReply::Ran(RunOutcome { exit, final_state: None, final_step: None }));
    };
    let (ran, answer, ()) = soon(async { tokio::join!(running, cancel, serve) }).await;
    assert_eq!(answer.unwrap(), Cancelled { was_running: true });
    assert_eq!(ran.unwrap().exit, cancelled);
}

#[tokio::test]
async fn what_one_side_sends_arrives_in_order() {
    let ((_worker, mut inbox), (host, _from_worker)) = pair();
    let sending = async {
        for number in 0..1000 {
            host.notify(log(number)).await.unwrap();
        }
        host.call(step(0)).await.unwrap();
    };
    let receiving = async {
        for number in 0..1000 {
            match inbox.next().await {
                Some(Incoming::Notice(notice)) => assert_eq!(notice, log(number)),
                other => panic!("{other:?}"),
            }
        }
        let (_, responder) = next_request(&mut inbox).await;
        responder.reply(WorkerReply::Taken(Taken {}));
    };
    soon(async { tokio::join!(sending, receiving) }).await;
}

#[tokio::test]
async fn large_frames_pass_between_small_ones() {
    let ((worker, _), (_host, mut inbox)) = pair_over(1024, &LinkOptions::default());
    let state = long_json(5 * 1024 * 1024);
    let serve = async {
        while let Some(Incoming::Request(request, responder)) = inbox.next().await {
            match request {
                HostRequest::Run(spec) => {
                    responder.reply(HostReply::Ran(outcome(Some(spec.input))));
                    break;
                }
                _ => responder.reply(HostReply::Pong(Pong { rss_bytes: 0 })),
            }
        }
    };
    let (before, ran, ()) =
        soon(async { tokio::join!(worker.call(Ping {}), worker.call(spec(state.clone())), serve) }).await;
    before.unwrap();
    assert_eq!(ran.unwrap().final_state, Some(state));
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_is_dropped_and_counted() {
    let ((worker, _), (_host, mut inbox)) = pair();
    let deadline = Duration::from_secs(5);
    let error = worker.call_within(Ping {}, deadline).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer to ping within 5s");
    let (_, late) = next_request(&mut inbox).await;
    let error = worker.call(Ping {}).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { after, .. } if after == LinkOptions::default().default_deadline));

    late.reply(HostReply::Pong(Pong { rss_bytes: 1 }));
    let (_, responder) = next_request(&mut inbox).await;
    drop(responder);
    // Answers come in order, so both late ones have been seen when this one is.
    let (answer, ()) = tokio::join!(worker.call(Ping {}), async {
        next_request(&mut inbox).await.1.reply(HostReply::Pong(Pong { rss_bytes: 2 }));
    });
    assert_eq!(answer.unwrap().rss_bytes, 2);
    assert_eq!(worker.stats(), LinkStats { late_replies: 2, ..LinkStats::default() });
}

#[tokio::test]
async fn a_dropped_call_is_forgotten() {
    let ((worker, _), (_host, mut inbox)) = pair();
    {
        let call = worker.call(Ping {});
        let (_, responder) = tokio::select! {
            answer = call => panic!("{answer:?}"),
            request = next_request(&mut inbox) => request,
        };
        responder.reply(HostReply::Pong(Pong { rss_bytes: 1 }));
    }
    let (answer, ()) = soon(async {
        tokio::join!(worker.call(Stop {}), async {
            next_request(&mut inbox).await.1.reply(HostReply::Stopping(Stopping {}));
        })
    })
    .await;
    answer.unwrap();
    assert_eq!(worker.stats().late_replies, 1);
}

#[tokio::test]
async fn refusals_and_unanswered_requests_come_back_as_such() {
    let ((worker, _), (_host, mut inbox)) = pair();
    let refusal = Refusal {
        code: RefusalCode::WrongState,
        message: "There is a run under way.".into(),
        causes: vec!["one".into(), "two".into()],
    };
    let serve = async {
        next_request(&mut inbox).await.1.refuse(refusal.clone());
        drop(next_request(&mut inbox).await);
        next_request(&mut inbox).await.1.reply(HostReply::Pong(Pong { rss_bytes: 0 }));
    };
    let calls = async {
        let refused = worker.call(Stop {}).await.unwrap_err();
        let dropped = worker.call(Stop {}).await.unwrap_err();
        let mistaken = worker.call(Stop {}).await.unwrap_err();
        (refused, dropped, mistaken)
    };
    let ((refused, dropped, mistaken), ()) = soon(async { tokio::join!(calls, serve) }).await;
    assert!(matches!(refused, CallError::Refused(received) if received == refusal));
    assert!(matches!(dropped, CallError::Refused(Refusal { code: RefusalCode::Failed, .. })), "{dropped}");
    assert!(matches!(mistaken, CallError::WrongReply), "{mistaken}");
}

#[tokio::test]
async fn without_an_inbox_requests_are_refused_and_notices_counted() {
    let ((worker, inbox), (host, _from_worker)) = pair();
    drop(inbox);
    host.notify(log(1)).await.unwrap();
    let error = soon(host.call(step(0))).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(Refusal { code: RefusalCode::WrongState, .. })), "{error}");
    assert_eq!(worker.stats().unserved, 2);
}

#[tokio::test]
async fn a_reply_to_no_request_is_counted() {
    let ((worker, _), mut stream) = bare();
    let reply = Envelope::<HostSide>::Reply(99, HostReply::Pong(Pong { rss_bytes: 0 }));
    stream.write_all(&frame::encode(&reply, 1024).unwrap()).await.unwrap();
    drop(stream);
    assert!(matches!(soon(worker.ended()).await, LinkEnd::PeerClosed));
    assert_eq!(worker.stats(), LinkStats { unknown_replies: 1, ..LinkStats::default() });
}

#[tokio::test]
async fn a_slow_inbox_holds_up_replies_only_when_it_is_full() {
    let options = LinkOptions { inbox_bytes: 64 * 1024, ..LinkOptions::default() };
    let ((worker, mut inbox), (host, mut from_worker)) = pair_over(1024, &options);
    // These fit in, so the answer passes while nobody takes them.
    for number in 0..100 {
        host.notify(log(number)).await.unwrap();
    }
    let serve = async { next_request(&mut from_worker).await.1.reply(HostReply::Pong(Pong { rss_bytes: 0 })) };
    soon(async { tokio::join!(worker.call(Ping {}), serve) }).await.0.unwrap();

    // These do not, but nothing is lost of them.
    let flood = async {
        for number in 100..5000 {
            host.notify(log(number)).await.unwrap();
        }
    };
    let receive = async {
        for number in 0..5000 {
            let notice = inbox.next().await;
            assert!(matches!(&notice, Some(Incoming::Notice(notice)) if *notice == log(number)), "{notice:?}");
        }
    };
    soon(async { tokio::join!(flood, receive) }).await;
}

#[tokio::test]
async fn what_does_not_fit_into_a_frame_is_told_to_who_can_act() {
    let options = LinkOptions { max_frame: 1024, ..LinkOptions::default() };
    let ((worker, mut from_host), (host, mut inbox)) = pair_over(1024, &options);

    let error = worker.call(spec(long_json(2000))).await.unwrap_err();
    assert!(matches!(error, CallError::Unsendable(EncodeError::Oversize { limit: 1024, .. })), "{error}");

    let serve = async { next_request(&mut inbox).await.1.reply(HostReply::Ran(outcome(Some(long_json(2000))))) };
    let (ran, ()) = soon(async { tokio::join!(worker.call(spec(Json::null())), serve) }).await;
    assert!(matches!(&ran, Err(CallError::Refused(Refusal { code: RefusalCode::Failed, .. }))), "{ran:?}");

    let WorkerNotice::Event(RunEvent::Log(line)) = log(0) else { unreachable!() };
    let long = WorkerNotice::Event(RunEvent::Log(LogLine { message: long_json(2000), ..line }));
    assert!(matches!(host.notify(long).await, Err(LinkEnd::Unsendable(_))));
    assert!(soon(from_host.next()).await.is_none());
}
