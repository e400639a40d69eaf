//! A whole host, but for its work.
//!
//! The main thread serves the link, keeps the time, and can end the process at any moment. The handler has threads of its
//! own, so that one that computes, blocks or loops for ever holds up nothing but itself.

use std::error::Error;
use std::future::Future;
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use protocol::link::{CallError, HostSide, Inbox, Incoming, Link, LinkEnd, Responder};
use protocol::message::{
    Cancelled, Custom, EnvSet, HostLog, HostLogLevel, HostNotice, HostReply, HostRequest, OpsReport, Pong, Refusal,
    RefusalCode, SetEnv, Stopping, WorkerNotice,
};
use protocol::{InvalidJson, Json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::guard::{ExitCode, Launch, StopSignals, after, join, say};
use crate::process::{
    AtParentsDeath, Parent, close_inherited, detach, exit_at_once, kill_descent, resident_bytes_of_descent,
};

/// Requests that a handler may be at at the same time; more are refused.
const AT_ONCE: usize = 1024;
/// Notices that may wait for a handler; more are dropped.
const NOTICES: usize = 1024;
/// How long the last answers may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a host does. Its methods run on threads of their own, any number of requests at the same time.
pub trait Handler: Send + Sync + 'static {
    /// How long what is under way and then [`stop`](Self::stop) may take when the host is asked to stop, or has lost its
    /// broker. With none, it ends at once, and the system kills it together with its broker.
    const STOP_WITHIN: Duration = Duration::ZERO;

    /// Answers a request of the broker's program.
    fn request(&self, request: Json) -> impl Future<Output = Result<Json, Refusal>> + Send;

    /// Takes in what the broker's program tells, in the order in which it does.
    fn notice(&self, notice: Json) -> impl Future<Output = ()> + Send {
        async move { drop(notice) }
    }

    /// Goes by these environment variables from now on. A host that refuses is replaced by one that is started with them.
    fn set_env(&self, set: SetEnv) -> impl Future<Output = Result<(), Refusal>> + Send {
        drop(set);
        async { Err(Refusal::new(RefusalCode::WrongState, "this host takes no other environment while it lives")) }
    }

    /// Does what is to be done before the process ends.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The way to the broker that a host serves. Clones are the same.
///
/// What is said before the host has been taken waits for that, and a host is taken when its handler is there: to wait for
/// an answer while the handler is being made is to wait for ever.
#[derive(Debug, Clone)]
pub struct Broker(watch::Receiver<Option<Link<HostSide>>>);

/// Why the broker's program was not reached.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// What is to be said, or the answer, is not of the right form.
    #[error(transparent)]
    Json(#[from] InvalidJson),
    /// There is no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The link has ended. The process is about to.
    #[error(transparent)]
    Ended(#[from] LinkEnd),
}

impl Broker {
    /// Asks the broker's program, and waits this long for the answer.
    pub async fn request<A: DeserializeOwned>(
        &self,
        question: &(impl Serialize + ?Sized + Sync),
        deadline: Duration,
    ) -> Result<A, AskError> {
        let question = Custom(Json::encode(&question)?);
        Ok(self.link().await?.call_within(question, deadline).await?.decode()?)
    }

    /// Tells the broker's program something.
    pub async fn notify(&self, notice: &(impl Serialize + ?Sized + Sync)) -> Result<(), AskError> {
        let notice = Json::encode(&notice)?;
        self.tell(WorkerNotice::Custom(notice)).await
    }

    /// Reports numbers, which the broker adds up over all hosts of the pool.
    pub async fn report(&self, report: OpsReport) -> Result<(), AskError> {
        self.tell(WorkerNotice::Ops(report)).await
    }

    /// Writes a line to the broker's log.
    pub async fn log(&self, level: HostLogLevel, message: impl Into<String>) -> Result<(), AskError> {
        self.tell(WorkerNotice::Log(HostLog { level, message: message.into() })).await
    }

    async fn tell(&self, notice: WorkerNotice) -> Result<(), AskError> {
        Ok(self.link().await?.notify(notice).await?)
    }

    async fn link(&self) -> Result<Link<HostSide>, AskError> {
        let mut link = self.0.clone();
        let link = link.wait_for(Option::is_some).await.map_err(|_| LinkEnd::ClosedHere)?;
        link.clone().ok_or(AskError::Ended(LinkEnd::ClosedHere))
    }
}

/// Serves the broker that started this process, with the handler that `start` makes, until it is to end, and ends the
/// process. The host is ready when the handler is there.
///
/// To be called first thing in `main`: it closes every descriptor but input, output and errors. What the process has
/// started ends with it.
pub fn serve<H, F>(start: impl FnOnce(Broker) -> F + Send + 'static) -> !
where
    H: Handler,
    F: Future<Output = Result<H, Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    close_inherited();
    let (code, is_idle) = match Launch::take() {
        None => {
            say(
                "This program is a host: the program with the broker starts it. It does nothing when it is run by hand.",
            );
            (ExitCode::ByHand, true)
        }
        Some(launch) => live::<H, F>(launch, start),
    };
    if !is_idle {
        // What goes on would hold up an orderly end.
        exit_at_once(code as i32)
    }
    exit(code as i32)
}

/// Returns what to exit with, and whether the handler has nothing under way.
fn live<H, F>(launch: Launch, start: impl FnOnce(Broker) -> F + Send + 'static) -> (ExitCode, bool)
where
    H: Handler,
    F: Future<Output = Result<H, Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let at_parents_death = if H::STOP_WITHIN.is_zero() { AtParentsDeath::Kill } else { AtParentsDeath::Terminate };
    if detach(launch.parent, at_parents_death) == Parent::Gone {
        say("the process that started this host is gone");
        return (ExitCode::Normal, true);
    }
    let (main, threads) = match runtimes() {
        Ok(runtimes) => runtimes,
        Err(error) => {
            say(&format!("failed to start the runtime: {error}"));
            return (ExitCode::Failure, true);
        }
    };
    let lived = main.block_on(async {
        let mut signals = match StopSignals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                say(&format!("failed to listen for signals: {error}"));
                return (ExitCode::Failure, true);
            }
        };
        let (link, links) = watch::channel(None);
        let starting = threads.spawn(async move { start(Broker(links)).await });
        tokio::select! {
            biased;
            () = signals.next() => (ExitCode::Normal, false),
            started = starting => match started {
                Ok(Ok(handler)) => meet(launch, Arc::new(handler), &link, signals, threads.handle()).await,
                Ok(Err(error)) => {
                    say(&format!("this host cannot start: {error}"));
                    (ExitCode::Failure, true)
                }
                Err(error) => {
                    say(&format!("this host cannot start: {error}"));
                    (ExitCode::Failure, true)
                }
            },
        }
    });
    kill_descent();
    main.shutdown_background();
    threads.shutdown_background();
    lived
}

fn runtimes() -> std::io::Result<(Runtime, Runtime)> {
    Ok((Builder::new_current_thread().enable_all().build()?, Builder::new_multi_thread().enable_all().build()?))
}

/// Connects to the broker and serves it.
async fn meet<H: Handler>(
    launch: Launch,
    handler: Arc<H>,
    announced: &watch::Sender<Option<Link<HostSide>>>,
    mut signals: StopSignals,
    threads: &Handle,
) -> (ExitCode, bool) {
    let joined = tokio::select! {
        biased;
        () = signals.next() => return (ExitCode::Normal, true),
        joined = join(launch) => joined,
    };
    let (_, link, inbox) = match joined {
        Ok(joined) => joined,
        Err(error) => {
            say(&error.to_string());
            return (error.exit_code(), true);
        }
    };
    announced.send_replace(Some(link.clone()));
    let mut host = Host::new(handler, threads.clone());
    let lived = host.live(&link, inbox, signals).await;
    // A broker that does not read any more is not waited for.
    let _ = timeout(FAREWELL, link.close()).await;
    lived
}

/// The actor behind the link: it hands out what comes in, and waits for none of it.
struct Host<H> {
    handler: Arc<H>,
    threads: Handle,
    under_way: JoinSet<()>,
    notices: mpsc::Sender<Json>,
    has_dropped: bool,
    is_stopping: bool,
}

impl<H: Handler> Host<H> {
    fn new(handler: Arc<H>, threads: Handle) -> Self {
        let (notices, mut incoming) = mpsc::channel(NOTICES);
        let told = Arc::clone(&handler);
        threads.spawn(async move {
            while let Some(notice) = incoming.recv().await {
                told.notice(notice).await;
            }
        });
        Self { handler, threads, under_way: JoinSet::new(), notices, has_dropped: false, is_stopping: false }
    }

    /// Serves until the host is to stop, then lets what is under way end for as long as it may. Returns what to exit with,
    /// and whether nothing is left under way.
    async fn live(
        &mut self,
        link: &Link<HostSide>,
        mut inbox: Inbox<HostSide>,
        mut signals: StopSignals,
    ) -> (ExitCode, bool) {
        let mut code = ExitCode::Normal;
        while !self.is_stopping {
            tokio::select! {
                biased;
                end = link.ended() => {
                    code = after(&end);
                    self.is_stopping = true;
                }
                () = signals.next() => self.is_stopping = true,
                incoming = inbox.next() => match incoming {
                    Some(incoming) => self.take(incoming),
                    // The link's end is about to be seen.
                    None => std::future::pending().await,
                },
                Some(_) = self.under_way.join_next() => {}
            }
        }
        if H::STOP_WITHIN.is_zero() {
            return (code, self.under_way.is_empty());
        }
        (code, timeout(H::STOP_WITHIN, self.stop(&mut inbox)).await.is_ok())
    }

    /// Returns when nothing is under way and the handler has done what it does last.
    async fn stop(&mut self, inbox: &mut Inbox<HostSide>) {
        loop {
            tokio::select! {
                ended = self.under_way.join_next() => if ended.is_none() { break },
                Some(incoming) = inbox.next() => self.take(incoming),
            }
        }
        let handler = Arc::clone(&self.handler);
        let mut last = self.threads.spawn(async move { handler.stop().await });
        loop {
            tokio::select! {
                _ = &mut last => return,
                Some(incoming) = inbox.next() => self.take(incoming),
            }
        }
    }

    fn take(&mut self, incoming: Incoming<HostSide>) {
        match incoming {
            Incoming::Request(request, responder) => self.answer(request, responder),
            Incoming::Notice(HostNotice::Custom(notice)) => {
                if self.notices.try_send(notice).is_err() && !std::mem::replace(&mut self.has_dropped, true) {
                    say("this host is told more than it takes in: some of it is lost");
                }
            }
            // It has no engines.
            Incoming::Notice(HostNotice::EngineEnded(_)) => {}
        }
    }

    fn answer(&mut self, request: HostRequest, responder: Responder<HostSide>) {
        match request {
            HostRequest::Ping(_) => responder.reply(HostReply::Pong(Pong { rss_bytes: resident_bytes_of_descent() })),
            HostRequest::Stop(_) => {
                self.is_stopping = true;
                responder.reply(HostReply::Stopping(Stopping {}));
            }
            HostRequest::Cancel(_) => responder.reply(HostReply::Cancelled(Cancelled { was_running: false })),
            _ if self.is_stopping => refuse(responder, "this host is stopping"),
            _ if self.under_way.len() >= AT_ONCE => refuse(responder, "this host is at too much at the same time"),
            HostRequest::Custom(Custom(request)) => {
                let handler = Arc::clone(&self.handler);
                self.begin(responder, async move { handler.request(request).await.map(HostReply::Custom) });
            }
            HostRequest::SetEnv(set) => {
                let handler = Arc::clone(&self.handler);
                self.begin(responder, async move { handler.set_env(set).await.map(|()| HostReply::EnvSet(EnvSet {})) });
            }
            HostRequest::Prepare(_)
            | HostRequest::Run(_)
            | HostRequest::Installer(_)
            | HostRequest::Handler(_)
            | HostRequest::Template(_) => {
                refuse(responder, "this host is no engine: it takes requests and notices of its own kind only");
            }
        }
    }
}

impl<H> Host<H> {
    /// Has the handler's threads work out an answer.
    fn begin(
        &mut self,
        responder: Responder<HostSide>,
        answer: impl Future<Output = Result<HostReply, Refusal>> + Send + 'static,
    ) {
        let answering = async move {
            match answer.await {
                Ok(reply) => responder.reply(reply),
                Err(refusal) => responder.refuse(refusal),
            }
        };
        self.under_way.spawn_on(answering, &self.threads);
    }
}

fn refuse(responder: Responder<HostSide>, why: &str) {
    responder.refuse(Refusal::new(RefusalCode::WrongState, why));
}
