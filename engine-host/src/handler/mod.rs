//! Handlers: modules of users that work on one job of a queue each.
//!
//! A handler runs in a QuickJS runtime of its own, on a thread of its own. What it wants of the store goes to the worker,
//! which has the token; there is none here.

mod script;

use std::future::Future;
use std::sync::mpsc;
use std::thread;

use protocol::Json;
use protocol::handler::{Handle, Handled, HandlerReply, Inspect, Inspected, StoreAnswer, StoreCall};
use protocol::link::{HostSide, Link};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use hosting::guard::say;

/// What a handler's thread is to do.
#[derive(Debug)]
pub enum Work {
    /// Tell its exports.
    Inspect(Inspect),
    /// Work on a job.
    Handle(Box<Handle>),
}

/// What a handler's thread is told.
enum Told {
    /// The answer to the call with this number, as JSON text.
    Answer(u64, String),
    /// The run is to end.
    Abort,
}

/// What a handler's thread tells.
enum Said {
    /// It wants something of the store: the call's number and JSON text.
    Ask(u64, String),
    /// It has ended.
    Ended(script::Ending),
}

/// A handler at work. Its thread ends with it, or with the process.
pub struct Session {
    told: mpsc::Sender<Told>,
}

impl Session {
    /// Starts it. The future is its end: it is to be polled all the time, since it carries the handler's calls.
    pub fn start(work: Work, link: Link<HostSide>) -> (Self, impl Future<Output = HandlerReply> + Send + 'static) {
        let inspects = matches!(work, Work::Inspect(_));
        let (told, telling) = mpsc::channel();
        let (says, said) = unbounded_channel();
        let stack = script::STACK_BYTES + script::STACK_RESERVE_BYTES;
        let started = thread::Builder::new().name("handler".to_owned()).stack_size(stack).spawn(move || {
            let asks = says.clone();
            let ending = script::run(&work, &telling, move |id, call| {
                // Fails when the host is about to end.
                let _ = asks.send(Said::Ask(id, call));
            });
            let _ = says.send(Said::Ended(ending));
        });
        if let Err(error) = started {
            say(&format!("a handler's thread cannot be started: {error}"));
        }
        let answers = told.clone();
        let end = async move {
            let ending = carry(said, &answers, &link).await;
            if inspects { inspected(ending) } else { handled(ending) }
        };
        (Self { told }, end)
    }

    /// Tells the handler that its run is to end.
    pub fn abort(&self) {
        // Fails when it has ended.
        let _ = self.told.send(Told::Abort);
    }
}

/// Carries calls to the worker and answers back until the handler has ended and nothing of it is under way.
async fn carry(mut said: UnboundedReceiver<Said>, told: &mpsc::Sender<Told>, link: &Link<HostSide>) -> script::Ending {
    let mut calls = JoinSet::new();
    let mut ending = None;
    loop {
        tokio::select! {
            word = said.recv(), if ending.is_none() => match word {
                Some(Said::Ask(id, call)) => {
                    let link = link.clone();
                    calls.spawn(async move { (id, ask(&link, &call).await) });
                }
                Some(Said::Ended(ended)) => ending = Some(ended),
                None => ending = Some(script::Ending::lost("its thread ended")),
            },
            Some(answer) = calls.join_next() => {
                if let Ok((id, answer)) = answer {
                    // Fails when the handler has ended.
                    let _ = told.send(Told::Answer(id, answer));
                }
            }
            else => return ending.unwrap_or_else(|| script::Ending::lost("its thread ended")),
        }
    }
}

/// One call of the store. The answer as the prelude reads it.
async fn ask(link: &Link<HostSide>, call: &str) -> String {
    let refused = |status: Option<u16>, why: String| json!({ "refused": why, "status": status }).to_string();
    let call: StoreCall = match parse_call(call) {
        Ok(call) => call,
        Err(error) => return refused(None, error),
    };
    match link.call_within(call, Duration::MAX).await {
        Ok(StoreAnswer::Done { status, headers, data }) => {
            let headers: serde_json::Map<String, Value> =
                headers.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
            let data = data.map_or_else(|| "null".to_owned(), |data| data.as_str().to_owned());
            format!("{{\"status\":{status},\"headers\":{},\"data\":{data}}}", Value::Object(headers))
        }
        Ok(StoreAnswer::Refused { status, message }) => refused(status, message),
        Err(error) => refused(None, error.to_string()),
    }
}

/// Reads a call as the prelude writes it.
fn parse_call(text: &str) -> Result<StoreCall, String> {
    let call: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let text_of = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let json_of = |value: &Value, name: &str| value.get(name).map(Json::encode).transpose();
    let missing = |name: &str| format!("a call of the store has no {name}");
    if let Some(request) = call.get("request") {
        return Ok(StoreCall::Request {
            method: text_of(request, "method").ok_or_else(|| missing("method"))?,
            path: text_of(request, "path").ok_or_else(|| missing("path"))?,
            content_type: text_of(request, "contentType"),
            data: json_of(request, "data").map_err(|error| error.to_string())?,
        });
    }
    let update = call.get("update").ok_or_else(|| missing("kind"))?;
    Ok(StoreCall::Update {
        level: text_of(update, "level").ok_or_else(|| missing("level"))?,
        status: text_of(update, "status").ok_or_else(|| missing("status"))?,
        meta: json_of(update, "meta").map_err(|error| error.to_string())?,
    })
}

fn handled(ending: script::Ending) -> HandlerReply {
    let failed = |name: &str, message: &str| Json::encode(&json!({ "name": name, "message": message }));
    let handled = match ending {
        script::Ending::Returned(None) => Handled::Returned(None),
        script::Ending::Returned(Some(text)) => match Json::parse(text) {
            Ok(value) => Handled::Returned(Some(value)),
            Err(error) => Handled::Threw(failed("TypeError", &error.to_string()).unwrap_or_else(|_| Json::null())),
        },
        script::Ending::Threw(text) => Handled::Threw(Json::parse(text).unwrap_or_else(|_| Json::null())),
        script::Ending::Lost(why) => Handled::Threw(failed("EngineError", &why).unwrap_or_else(|_| Json::null())),
    };
    HandlerReply::Handled(handled)
}

fn inspected(ending: script::Ending) -> HandlerReply {
    let inspected = match ending {
        script::Ending::Returned(Some(text)) => match Json::parse(text) {
            Ok(exports) => Inspected::Handler(exports),
            Err(error) => Inspected::Unusable(error.to_string()),
        },
        script::Ending::Returned(None) => Inspected::Unusable("its exports are not JSON".to_owned()),
        script::Ending::Threw(text) => Inspected::Unusable(message_of(&text)),
        script::Ending::Lost(why) => Inspected::Unusable(why),
    };
    HandlerReply::Inspected(inspected)
}

fn message_of(thrown: &str) -> String {
    let value: Value = serde_json::from_str(thrown).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    match (text("name"), text("message")) {
        (Some(name), Some(message)) => format!("{name}: {message}"),
        _ => value.to_string(),
    }
}
