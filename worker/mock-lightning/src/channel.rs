//! One channel of one connection, what is a process in Phoenix: handles its messages one at a time, in order.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::connection::Control;
use super::fields::Rejection;
use super::frame::{self, ClientMessage, Response};
use super::hooks::{HookVerdict, Incoming};
use super::queue::{Claim, check_queue_join};
use super::record::RunState;
use super::store::Origin;
use super::{Dialect, Push, Shared};

const QUEUE_TOPIC: &str = "worker:queue";
const SOCKET_TOPIC: &str = "phoenix";

/// A topic of a connection, joined or not.
pub(super) struct Channel {
    pub(super) shared: Arc<Shared>,
    /// Number of the connection.
    pub(super) connection: u64,
    pub(super) topic: String,
    /// Frames to the client.
    pub(super) out: mpsc::Sender<Message>,
    /// What becomes of the connection.
    pub(super) control: Arc<Control>,
    /// The `join_ref` of the join that is in force.
    pub(super) joined: Option<Option<String>>,
    /// The state of its run as it was when the channel was joined, and as the channel has changed it since.
    pub(super) run_state: RunState,
    /// It handles nothing until it is joined again.
    pub(super) hangs: bool,
}

/// What handling a message came to.
enum Outcome {
    Reply(Result<Response, Value>),
    Silence,
    Crash,
}

/// Runs handed out by a claim whose reply is not yet sent. Lightning's WorkerChannel looks once, right before it replies,
/// whether the socket's process is alive, and only rolls the claim back if it is not. A channel that ends with its socket
/// would have looked when it was done; one that ends with its server never does.
struct OpenClaim {
    shared: Arc<Shared>,
    control: Arc<Control>,
    runs: Vec<String>,
}

impl Drop for OpenClaim {
    fn drop(&mut self) {
        if self.control.is_cut() {
            self.shared.store.lock().roll_back(&self.runs);
        }
    }
}

impl Channel {
    /// Handles messages until the connection ends or the client leaves.
    pub(super) async fn serve(mut self, mut inbox: mpsc::UnboundedReceiver<ClientMessage>) {
        let mut pushes = self.shared.pushes.subscribe();
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(&message).await,
                    None => return,
                },
                push = pushes.recv() => match push {
                    Ok(Push::WorkAvailable) => self.push_work_available().await,
                    Ok(Push::Cancel(run_id)) if self.run_id() != Some(&*run_id) => {}
                    Ok(Push::Cancel(_)) => self.push_cancel().await,
                    Err(RecvError::Lagged(_)) => {
                        self.push_work_available().await;
                        self.push_cancel().await;
                    }
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    async fn take(&mut self, message: &ClientMessage) {
        self.hangs &= message.event != "phx_join";
        if self.hangs {
            return;
        }
        let mut claim = None;
        match self.outcome(message, &mut claim).await {
            Some((Outcome::Reply(reply), late)) => {
                drop(claim);
                if reply.is_err() && message.event == "phx_join" {
                    self.joined = None;
                }
                self.reply(message, reply.as_ref(), late).await;
                if message.event == "phx_join" {
                    self.push_cancel().await;
                }
            }
            Some((Outcome::Crash, _)) => self.crash().await,
            Some((Outcome::Silence, _)) | None => {}
        }
    }

    /// What becomes of a message and how much later its answer goes out, as the hooks say.
    async fn outcome(&mut self, message: &ClientMessage, claim: &mut Option<OpenClaim>) -> Option<(Outcome, Duration)> {
        let incoming = Incoming {
            connection: self.connection,
            topic: &message.topic,
            event: &message.event,
            payload: &message.payload,
        };
        let verdict = self.shared.options.hooks.before_message(&incoming);
        let late = match self.obey(verdict, message, false, claim).await {
            Ok(late) => late,
            Err(instead) => return Some((instead?, Duration::ZERO)),
        };
        self.close_earlier_join(message).await;
        let handled = self.handle(message, claim);
        let accepted = matches!(handled, Outcome::Reply(Ok(_)) | Outcome::Silence);
        let verdict = self.shared.options.hooks.before_reply(&incoming, accepted);
        match self.obey(verdict, message, true, claim).await {
            Ok(later) => Some((handled, late.max(later))),
            Err(instead) => Some((instead?, late)),
        }
    }

    /// Does what a hook says: how much later the answer goes out, or what becomes of the message instead.
    async fn obey(
        &mut self,
        verdict: HookVerdict,
        message: &ClientMessage,
        is_handled: bool,
        claim: &mut Option<OpenClaim>,
    ) -> Result<Duration, Option<Outcome>> {
        match verdict {
            HookVerdict::GoOn => return Ok(Duration::ZERO),
            HookVerdict::ReplyLate(time) => return Ok(time),
            HookVerdict::Delay(time) => {
                tokio::time::sleep(time).await;
                return Ok(Duration::ZERO);
            }
            HookVerdict::Drop => return Err(None),
            HookVerdict::Hang => {
                self.hangs = true;
                return Err(None);
            }
            HookVerdict::Refuse(response) => return Err(Some(Outcome::Reply(Err(response)))),
            HookVerdict::CloseChannel => {
                self.crash().await;
                let is_join = message.event == "phx_join";
                return Err(is_join.then(|| Outcome::Reply(Err(json!({"reason": "join crashed"})))));
            }
            HookVerdict::ReadSlowly(pace) => {
                self.control.read_slowly(pace);
                return Ok(Duration::ZERO);
            }
            HookVerdict::CutThenHandle(time) => {
                if !is_handled {
                    self.handle_later(message, time);
                }
                self.control.cut();
            }
            HookVerdict::CloseSocket => self.control.cut(),
            // The answer is on its way when the connection breaks, which nobody here has noticed.
            HookVerdict::LoseReply => {
                if let Some(mut claim) = claim.take() {
                    claim.runs.clear();
                }
                self.control.cut();
            }
            HookVerdict::HalfOpen => self.control.fall_silent(),
            HookVerdict::Restart(time) => self.shared.restart(time),
        }
        // These end with the connection: whatever is open now stays unfinished.
        std::future::pending().await
    }

    /// Handles an event of a run when its connection is long gone.
    fn handle_later(&self, message: &ClientMessage, time: Duration) {
        let Some(run_id) = self.run_id().filter(|_| self.joined.is_some()).map(str::to_owned) else { return };
        let (shared, event, payload) = (self.shared.clone(), message.event.clone(), message.payload.clone());
        let mut copy = self.run_state;
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            // Nobody is there to be told that it is refused.
            let _ = shared.store.lock().handle_event(&run_id, &event, &payload, &mut copy);
        });
    }

    fn handle(&mut self, message: &ClientMessage, claim: &mut Option<OpenClaim>) -> Outcome {
        let result = match message.event.as_str() {
            "phx_join" => self.join(message),
            "phx_leave" => self.leave(),
            "heartbeat" if self.topic == SOCKET_TOPIC => {
                self.shared.store.lock().activity.heartbeats += 1;
                match self.shared.options.dialect {
                    Dialect::Lightning => Ok(Response::Json(json!({}))),
                    Dialect::ReferenceMock => return Outcome::Silence,
                }
            }
            _ if self.joined.is_none() => Err(unmatched()),
            event => {
                self.check_join_ref(message);
                match self.topic.strip_prefix("run:") {
                    Some(run_id) => {
                        self.shared.store.lock().handle_event(run_id, event, &message.payload, &mut self.run_state)
                    }
                    None if event == "claim" => self.claim(&message.payload, claim),
                    None => Err(Rejection::Crash(format!("there is no event {event} on {}", self.topic))),
                }
            }
        };
        match result {
            Ok(response) => Outcome::Reply(Ok(response)),
            Err(Rejection::Blameless(response)) => Outcome::Reply(Err(response)),
            Err(Rejection::Refused(response)) => {
                self.violation(message, response.to_string());
                Outcome::Reply(Err(response))
            }
            Err(Rejection::Crash(reason)) => {
                self.violation(message, reason);
                Outcome::Crash
            }
        }
    }

    fn run_id(&self) -> Option<&str> {
        self.topic.strip_prefix("run:")
    }

    fn join(&mut self, message: &ClientMessage) -> Result<Response, Rejection> {
        let unauthorized = || Rejection::Refused(json!({"reason": "unauthorized"}));
        if self.topic == QUEUE_TOPIC {
            check_queue_join(&message.payload)?;
            self.shared.store.lock().activity.queue_joins.push(Value::clone(&message.payload));
        } else if let Some(run_id) = self.run_id() {
            let token = message.payload.get("token").and_then(Value::as_str).ok_or_else(unauthorized)?;
            let opens = self.shared.store.lock().token_opens(run_id, token);
            match opens {
                None => return Err(Rejection::Refused(json!({"reason": "not_found"}))),
                Some(false) => return Err(unauthorized()),
                Some(true) => {}
            }
            let state = self.shared.store.lock().runs.get(run_id).map(|run| run.record.state);
            self.run_state = state.unwrap_or(self.run_state);
        } else {
            return Err(unmatched());
        }
        self.joined = Some(message.join_ref.clone());
        Ok(Response::Json(match self.shared.options.dialect {
            Dialect::Lightning => json!({}),
            Dialect::ReferenceMock => json!("ok"),
        }))
    }

    fn leave(&mut self) -> Result<Response, Rejection> {
        self.joined = None;
        match self.shared.options.dialect {
            Dialect::Lightning => Ok(Response::Json(json!({}))),
            Dialect::ReferenceMock => {
                Err(Rejection::Blameless(json!(format!("There are no listeners on channel {}", self.topic))))
            }
        }
    }

    fn claim(&self, payload: &Value, open: &mut Option<OpenClaim>) -> Result<Response, Rejection> {
        let claim = Claim::read(payload)?;
        let most = self.shared.options.hooks.most_runs(claim.demand);
        let claimed = self.shared.store.lock().claim(most, claim.worker_name, &claim.queues);
        let open = open.insert(OpenClaim {
            shared: self.shared.clone(),
            control: self.control.clone(),
            runs: claimed.iter().map(|run| run.id.clone()).collect(),
        });
        let mut runs = Vec::with_capacity(claimed.len());
        for (run, id) in claimed.iter().zip(&open.runs) {
            let token = self.shared.run_tokens.issue(id, run.timeout_seconds);
            let token = token.map_err(|error| Rejection::Crash(format!("failed to sign a run token: {error}")))?;
            runs.push(json!({"id": id, "token": token.expose_secret()}));
            self.shared.store.lock().keep_token(id, token);
        }
        Ok(Response::Json(json!({ "runs": runs })))
    }

    /// A message of an earlier join is handled, as Phoenix does, but no worker should send one.
    fn check_join_ref(&self, message: &ClientMessage) {
        if let Some(current) = &self.joined
            && *current != message.join_ref
        {
            let reason = format!("join_ref must be {current:?}, it is {:?}", message.join_ref);
            self.violation(message, reason);
        }
    }

    fn violation(&self, message: &ClientMessage, reason: String) {
        let may_hold_token = message.event == "phx_join";
        let payload = if may_hold_token { Arc::new(Value::Null) } else { message.payload.clone() };
        let origin = Origin { topic: &self.topic, event: &message.event, payload };
        self.shared.store.lock().record_violation(&origin, reason);
    }

    async fn reply(&self, message: &ClientMessage, outcome: Result<&Response, &Value>, late: Duration) {
        let join_ref = self.joined.as_ref().unwrap_or(&message.join_ref).as_deref();
        let frame = frame::reply(self.shared.options.dialect, join_ref, message, outcome);
        if late.is_zero() {
            self.send(frame).await;
        } else {
            let out = self.out.clone();
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                // The connection may have ended meanwhile.
                let _ = out.send(frame).await;
            });
        }
        if message.event == "phx_leave" && outcome.is_ok() {
            self.push(join_ref, "phx_close").await;
        }
    }

    /// A second join takes the place of the first, which is closed.
    async fn close_earlier_join(&mut self, message: &ClientMessage) {
        if message.event == "phx_join"
            && let Some(join_ref) = self.joined.take()
        {
            self.push(join_ref.as_deref(), "phx_close").await;
        }
    }

    async fn crash(&mut self) {
        if let Some(join_ref) = self.joined.take() {
            self.push(join_ref.as_deref(), "phx_error").await;
        }
    }

    /// Phoenix's own pushes carry the join's reference twice.
    async fn push(&self, join_ref: Option<&str>, event: &str) {
        self.send(frame::push(self.shared.options.dialect, join_ref, join_ref, &self.topic, event)).await;
    }

    async fn push_work_available(&self) {
        if let Some(join_ref) = self.joined.as_ref().filter(|_| self.topic == QUEUE_TOPIC) {
            self.send(frame::push(
                self.shared.options.dialect,
                join_ref.as_deref(),
                None,
                &self.topic,
                "work-available",
            ))
            .await;
        }
    }

    /// Asks the worker to end the run, if that is wanted.
    async fn push_cancel(&self) {
        if let Some(join_ref) = &self.joined
            && self.run_id().is_some_and(|run_id| self.shared.store.lock().is_to_be_cancelled(run_id))
        {
            self.send(frame::push(self.shared.options.dialect, join_ref.as_deref(), None, &self.topic, "run:cancel"))
                .await;
        }
    }

    /// Nothing goes out of a connection that has ended: a claim that was rolled back for that is answered to nobody.
    async fn send(&self, frame: Message) {
        if self.control.is_cut() {
            return;
        }
        // Fails only when the connection is ending, and this channel with it.
        let _ = self.out.send(frame).await;
    }
}

/// What Phoenix says of a topic that is not joined or does not exist.
fn unmatched() -> Rejection {
    Rejection::Refused(json!({"reason": "unmatched topic"}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MockOptions, unconnected};

    #[tokio::test]
    async fn a_claim_is_answered_or_rolled_back_and_never_both() {
        for (is_cut, expected) in [(false, (RunState::Claimed, 1)), (true, (RunState::Available, 0))] {
            let mock = unconnected(MockOptions::default()).unwrap();
            let id = mock.queue_run(json!({"jobs": [{"id": "a", "body": "", "adaptor": "a@1"}]})).unwrap();
            let (out, mut frames) = mpsc::channel(8);
            let control = Arc::new(Control::new());
            let mut channel = Channel {
                shared: mock.shared.clone(),
                connection: 1,
                topic: QUEUE_TOPIC.to_owned(),
                out,
                control: control.clone(),
                joined: Some(Some("1".to_owned())),
                run_state: RunState::Available,
                hangs: false,
            };
            let claim = json!(["1", "2", QUEUE_TOPIC, "claim", {"demand": 1, "worker_name": null, "queues": ["*"]}]);
            if is_cut {
                control.cut();
            }
            channel.take(&ClientMessage::parse(&claim.to_string()).unwrap()).await;
            drop(channel);
            let mut sent = 0;
            while frames.recv().await.is_some() {
                sent += 1;
            }
            assert_eq!((mock.run(&id).unwrap().state, sent), expected);
        }
    }
}
