//! A worker and a host from the socket to the last message, as the two programs do it.

#![expect(clippy::unwrap_used, reason = "the lint knows tests by their attribute, and not what they call")]

use std::time::Duration;

use protocol::Json;
use protocol::handshake::{HandshakeError, LinkToken, greet, introduce};
use protocol::link::{CallError, HostSide, Incoming, Link, LinkEnd, LinkOptions, WorkerSide};
use protocol::message::{
    Hello, HostReply, HostRequest, PROTOCOL_VERSION, Ping, Refusal, RefusalCode, Taken, Welcome, WorkerReply,
};
use protocol::run::{Exit, RunOptions, RunOutcome, RunSpec, StepCompleted, StepMemory, StepOutput};
use protocol::socket::{Listener, RuntimeDir, Stream, connect, peer_pid};

const DEADLINE: Duration = Duration::from_secs(30);

fn hello(token: &LinkToken) -> Hello {
    Hello { protocol: PROTOCOL_VERSION, version: "1.0.0".into(), token: token.clone(), pid: std::process::id() }
}

async fn greet_with(listener: &Listener, token: &LinkToken) -> Result<Stream, HandshakeError> {
    let mut stream = listener.accept().await.unwrap();
    let peer = peer_pid(&stream);
    let judge = |hello: &Hello| {
        if hello.token != *token || peer.is_some_and(|pid| pid != hello.pid) {
            return Err(Refusal::new(RefusalCode::BadToken, "The token belongs to no host that was started."));
        }
        Ok(Welcome { host_id: "h1".into() })
    };
    greet(&mut stream, DEADLINE, judge).await.map(|_| stream)
}

/// A host that executes one run of one step and ends at the next request, which it leaves unanswered.
async fn host(address: String, token: LinkToken) {
    let mut stream = connect(&address).await.unwrap();
    introduce(&mut stream, &hello(&token), DEADLINE).await.unwrap();
    let (link, mut inbox) = Link::<HostSide>::start(stream, LinkOptions::default());
    let Some(Incoming::Request(HostRequest::Run(spec), run)) = inbox.next().await else { panic!("expected a run") };
    let completed = StepCompleted {
        index: 0,
        step_id: "a".into(),
        exit: Exit::success(),
        output: StepOutput::State(spec.input.clone()),
        webhook_response: None,
        duration_ms: 0,
        memory: StepMemory::default(),
        timestamp_us: 1,
    };
    link.call(completed).await.unwrap();
    run.reply(HostReply::Ran(RunOutcome { exit: Exit::success(), final_state: Some(spec.input), final_step: Some(0) }));
    inbox.next().await;
}

#[tokio::test]
async fn a_run_passes_and_the_end_of_the_host_is_seen() {
    let root = tempfile::tempdir().unwrap();
    let directory = RuntimeDir::create(Some(root.path())).unwrap();
    let listener = Listener::bind(&directory).unwrap();
    let token = LinkToken::generate().unwrap();
    let host = tokio::spawn(host(listener.address().to_owned(), token.clone()));
    let stream = greet_with(&listener, &token).await.unwrap();
    let (link, mut inbox) = Link::<WorkerSide>::start(stream, LinkOptions::default());

    let input = Json::parse(format!("{{\"data\": \"{}\"}}", "x".repeat(3_000_000))).unwrap();
    let spec = RunSpec {
        run_id: "r1".into(),
        steps: Vec::new(),
        start: None,
        input: input.clone(),
        globals: None,
        meta: Json::empty_object(),
        configuration: None,
        engine: protocol::engine::EngineSpec::Embedded,
        options: RunOptions::default(),
    };
    let take = async {
        let Some(Incoming::Request(_, responder)) = inbox.next().await else { panic!("expected a step") };
        responder.reply(WorkerReply::Taken(Taken {}));
    };
    let (outcome, ()) = tokio::join!(link.call_within(spec, DEADLINE), take);
    assert_eq!(outcome.unwrap().final_state, Some(input));

    let (pinged, died) = tokio::join!(link.call_within(Ping {}, DEADLINE), host);
    died.unwrap();
    assert!(matches!(&pinged, Err(CallError::Refused(Refusal { code: RefusalCode::Failed, .. }))), "{pinged:?}");
    assert!(matches!(link.ended().await, LinkEnd::PeerClosed));
}

#[tokio::test]
async fn a_host_with_a_wrong_token_gets_no_link() {
    let root = tempfile::tempdir().unwrap();
    let directory = RuntimeDir::create(Some(root.path())).unwrap();
    let listener = Listener::bind(&directory).unwrap();
    let stranger = async {
        let mut stream = connect(listener.address()).await.unwrap();
        introduce(&mut stream, &hello(&LinkToken::new("guessed")), DEADLINE).await
    };
    let token = LinkToken::generate().unwrap();
    let (greeted, introduced) = tokio::join!(greet_with(&listener, &token), stranger);
    assert!(greeted.is_err());
    let error = introduced.unwrap_err();
    assert_eq!(error.to_string(), "the worker does not take the host: The token belongs to no host that was started.");
}
