//! Handlers: modules of users that work on one job of a queue each.
//!
//! A handler runs in a QuickJS runtime of its own, on a thread of its own, or in a Node process of its own. What it wants of the store goes to the worker,
//! which has the token; there is none here.

mod node;
mod script;
pub mod types;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;

use protocol::Json;
use protocol::handler::{
    Handle, Handled, HandlerReply, Inspect, Inspected, MOST_CALLS, Module, NodeHandler, StoreAnswer, StoreCall,
};
use protocol::link::{HostSide, Link};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinError, JoinSet};

use self::node::NodeProcess;
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

/// A handler at work. Its thread or its Node ends with it, or with the process.
pub struct Session(Way);

/// How a handler is told something.
enum Way {
    Thread(mpsc::Sender<Told>),
    Node(UnboundedSender<()>),
}

/// A handler in Node that is being loaded before there is a job for it, or is loaded.
pub type Loading = Pin<Box<dyn Future<Output = Result<Loaded, String>> + Send>>;

/// A handler in Node that waits for a job.
pub struct Loaded(NodeProcess);

/// Loads a handler, which must be one for Node. Dropping the future gives it up.
pub fn load(module: Module, memory_bytes: u64) -> Loading {
    Box::pin(async move {
        let Some(node) = &module.node else { return Err("only Node loads handlers ahead of their jobs".to_owned()) };
        let mut process = NodeProcess::spawn(&module, node, memory_bytes).map_err(|error| error.to_string())?;
        match process.loaded().await {
            Inspected::Handler { .. } => Ok(Loaded(process)),
            Inspected::Unusable(why) => Err(why),
        }
    })
}

impl Session {
    /// Starts it. The future is its end: it is to be polled all the time, since it carries the handler's calls.
    pub fn start(work: Work, loading: Option<Loading>, link: Link<HostSide>) -> (Self, Ending) {
        let node = match &work {
            Work::Inspect(inspect) => inspect.module.node.clone(),
            Work::Handle(handle) => handle.module.node.clone(),
        };
        match node {
            Some(node) => Self::in_node(work, node, loading, link),
            None => Self::on_a_thread(work, link),
        }
    }

    fn in_node(work: Work, node: NodeHandler, loading: Option<Loading>, link: Link<HostSide>) -> (Self, Ending) {
        let (abort, aborts) = unbounded_channel();
        let end = async move {
            match work {
                Work::Inspect(Inspect { module, memory_bytes }) => {
                    HandlerReply::Inspected(match NodeProcess::spawn(&module, &node, memory_bytes) {
                        Ok(mut process) => process.loaded().await,
                        Err(error) => Inspected::Unusable(error.to_string()),
                    })
                }
                Work::Handle(handle) => {
                    let prepared = match loading {
                        // One that has ended since is of no use.
                        Some(loading) => loading.await.ok().filter(|Loaded(process)| process.lives()),
                        None => None,
                    };
                    let loaded = match prepared {
                        Some(loaded) => Ok(loaded),
                        None => load(handle.module, handle.memory_bytes).await,
                    };
                    handled(match loaded {
                        Ok(Loaded(mut process)) => process.handle(&handle.job, &handle.job_id, &link, aborts).await,
                        Err(why) => script::Ending::NotLoaded(why),
                    })
                }
            }
        };
        (Self(Way::Node(abort)), Box::pin(end))
    }

    fn on_a_thread(work: Work, link: Link<HostSide>) -> (Self, Ending) {
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
        (Self(Way::Thread(told)), Box::pin(end))
    }

    /// Tells the handler that its run is to end.
    pub fn abort(&self) {
        // Both fail when it has ended.
        match &self.0 {
            Way::Thread(told) => drop(told.send(Told::Abort)),
            Way::Node(abort) => drop(abort.send(())),
        }
    }
}

/// The end of a handler, to be polled all the time.
pub type Ending = Pin<Box<dyn Future<Output = HandlerReply> + Send>>;

/// Whether a call, as `client.js` writes it, waits for something to happen, which nobody waits for at the end.
fn is_idle(call: &str) -> bool {
    call.starts_with("{\"next\":")
}

/// Carries calls to the worker and answers back until the handler has ended and nothing of it is under way.
async fn carry(mut said: UnboundedReceiver<Said>, told: &mpsc::Sender<Told>, link: &Link<HostSide>) -> script::Ending {
    let (mut calls, mut idle) = (JoinSet::new(), JoinSet::new());
    let tell = |answered: Result<_, JoinError>| {
        if let Ok((id, answer)) = answered {
            // Fails when the handler has ended.
            let _ = told.send(Told::Answer(id, answer));
        }
    };
    let mut ending = None;
    loop {
        tokio::select! {
            word = said.recv(), if ending.is_none() && calls.len().max(idle.len()) < MOST_CALLS => match word {
                Some(Said::Ask(id, call)) => {
                    let link = link.clone();
                    let calls = if is_idle(&call) { &mut idle } else { &mut calls };
                    calls.spawn(async move { (id, ask(&link, &call).await) });
                }
                Some(Said::Ended(ended)) => ending = Some(ended),
                None => ending = Some(script::Ending::lost("its thread ended")),
            },
            Some(answered) = calls.join_next() => tell(answered),
            Some(answered) = idle.join_next(), if ending.is_none() => tell(answered),
            else => return ending.unwrap_or_else(|| script::Ending::lost("its thread ended")),
        }
    }
}

/// One call of the store. The answer as the prelude reads it.
async fn ask(link: &Link<HostSide>, call: &str) -> String {
    let refused = |why: String| json!({ "refused": why, "status": null }).to_string();
    let object = |headers: Vec<(String, String)>| {
        Value::Object(headers.into_iter().map(|(name, value)| (name, Value::from(value))).collect())
    };
    let text = |data: Option<Json>| data.map_or_else(|| "null".to_owned(), |data| data.as_str().to_owned());
    let call: StoreCall = match parse_call(call) {
        Ok(call) => call,
        Err(error) => return refused(error),
    };
    match link.call_within(call, Duration::MAX).await {
        Ok(StoreAnswer::Done { status, headers, data }) => {
            format!("{{\"status\":{status},\"headers\":{},\"data\":{}}}", object(headers), text(data))
        }
        Ok(StoreAnswer::Refused { status, message, headers, data }) => {
            let (refused, status, headers) = (Value::from(message), json!(status), object(headers));
            format!("{{\"refused\":{refused},\"status\":{status},\"headers\":{headers},\"data\":{}}}", text(data))
        }
        Err(error) => refused(error.to_string()),
    }
}

/// Reads a call as `client.js` writes it.
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
            headers: headers_of(request),
        });
    }
    if let Some(watch) = call.get("watch") {
        let rev = watch.get("rev").and_then(Value::as_u64);
        return Ok(StoreCall::Watch { path: text_of(watch, "path").ok_or_else(|| missing("path"))?, rev });
    }
    let number = |value: &Value| value.get("watch").and_then(Value::as_u64).ok_or_else(|| missing("watch"));
    if let Some(next) = call.get("next") {
        return Ok(StoreCall::Next { watch: number(next)? });
    }
    if let Some(unwatch) = call.get("unwatch") {
        return Ok(StoreCall::Unwatch { watch: number(unwatch)? });
    }
    let update = call.get("update").ok_or_else(|| missing("kind"))?;
    Ok(StoreCall::Update {
        level: text_of(update, "level").ok_or_else(|| missing("level"))?,
        status: text_of(update, "status").ok_or_else(|| missing("status"))?,
        meta: json_of(update, "meta").map_err(|error| error.to_string())?,
    })
}

fn headers_of(request: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let headers = request.get("headers").and_then(Value::as_object);
    headers.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
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
        script::Ending::NotLoaded(why) => Handled::NotLoaded(why),
    };
    HandlerReply::Handled(handled)
}

fn inspected(ending: script::Ending) -> HandlerReply {
    let inspected = match ending {
        script::Ending::Returned(Some(text)) => match Json::parse(text) {
            Ok(exports) => Inspected::Handler { exports, files: Vec::new() },
            Err(error) => Inspected::Unusable(error.to_string()),
        },
        script::Ending::Returned(None) => Inspected::Unusable("its exports are not JSON".to_owned()),
        script::Ending::Threw(text) => Inspected::Unusable(message_of(&text)),
        script::Ending::Lost(why) | script::Ending::NotLoaded(why) => Inspected::Unusable(why),
    };
    HandlerReply::Inspected(inspected)
}

fn message_of(thrown: &str) -> String {
    let value: Value = serde_json::from_str(thrown).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    // QuickJS says there, and nowhere else, where it could not read on.
    let place = text("stack").and_then(|stack| stack.lines().find_map(|line| line.trim().strip_prefix("at ")));
    match (text("name"), text("message")) {
        (Some(name @ "SyntaxError"), Some(message)) if place.is_some_and(|it| !it.contains([' ', '<'])) => {
            format!("{name}: {message} ({})", place.unwrap_or_default())
        }
        (Some(name), Some(message)) => format!("{name}: {message}"),
        _ => value.to_string(),
    }
}
