//! What a worker asks of a host that runs a handler: a module of a user's that works on one job of a queue, and may
//! ask the store that the queue is in, through the worker.
//!
//! The worker alone knows where the store is and how to get in. What a handler wants of it crosses as a [`StoreCall`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Json;

/// Calls of the store that one handler may have under way at the same time.
pub const MOST_CALLS: usize = 64;

/// What is asked of a host that runs handlers. It does one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandlerRequest {
    /// Tell what a module says about itself.
    Inspect(Inspect),
    /// Work on a job.
    Handle(Box<Handle>),
    /// Tell the handler that is at work to end. That is still answered.
    Abort(Abort),
}

/// The answers, in the order of [`HandlerRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HandlerReply {
    /// To [`HandlerRequest::Inspect`].
    Inspected(Inspected),
    /// To [`HandlerRequest::Handle`].
    Handled(Handled),
    /// To [`HandlerRequest::Abort`].
    Aborted(Aborted),
}

/// A handler's module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Module {
    /// What stacks call it: the name of its file.
    pub name: String,
    /// JavaScript or TypeScript. Node reads the file itself; another text is another handler all the same.
    pub source: String,
    /// The Node that runs it; none for the embedded engine.
    pub node: Option<NodeHandler>,
}

/// How Node runs a handler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeHandler {
    /// The Node program: an absolute path.
    pub program: PathBuf,
    /// Its version, such as `24.4.0`.
    pub version: String,
    /// The handler's file: an absolute path.
    pub file: PathBuf,
    /// Another one is another handler: what the file imports has changed.
    pub revision: u64,
}

/// Tell what a module says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspect {
    /// The module.
    pub module: Module,
    /// Memory that it may use, in bytes.
    pub memory_bytes: u64,
}

/// The answer to [`Inspect`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Inspected {
    /// It is one.
    Handler {
        /// Its exports but the default one, as a JSON object.
        exports: Json,
        /// Files that it has loaded beside its own, without packages.
        files: Vec<PathBuf>,
    },
    /// It is no handler: why.
    Unusable(String),
}

/// Work on a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// The handler.
    pub module: Module,
    /// Memory that it may use, in bytes.
    pub memory_bytes: u64,
    /// The job: a JSON object.
    pub job: Json,
    /// What the handler calls the job.
    pub job_id: String,
}

/// How a handler ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handled {
    /// It returned this; none for `undefined`.
    Returned(Option<Json>),
    /// It threw: an object with name, message, stack and more for an error, anything else as it is.
    Threw(Json),
    /// It was not begun, because its module cannot be loaded: why.
    NotLoaded(String),
}

/// Tell the handler that is at work to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {}

/// The answer to [`Abort`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    /// Whether there was a handler at work.
    pub was_running: bool,
}

/// What a handler wants of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoreCall {
    /// A request.
    #[serde(rename_all = "camelCase")]
    Request {
        /// `get`, `head`, `put`, `post` or `delete`.
        method: String,
        /// An absolute path.
        path: String,
        /// The media type of `data`.
        content_type: Option<String>,
        /// The body.
        data: Option<Json>,
        /// Other headers.
        headers: BTreeMap<String, String>,
    },
    /// Watch a resource. The answer's body is an object with the number of the `watch`.
    Watch {
        /// An absolute path.
        path: String,
        /// Changes after this revision are told; none for those from now on.
        rev: Option<u64>,
    },
    /// The next changes of a watch, when there are some: a list, or `null` when there will be none.
    Next {
        /// Its number.
        watch: u64,
    },
    /// Watch no more.
    Unwatch {
        /// Its number.
        watch: u64,
    },
    /// An update of the job.
    Update {
        /// `trace`, `debug`, `info`, `warn` or `error`.
        level: String,
        /// A word.
        status: String,
        /// Anything about it.
        meta: Option<Json>,
    },
}

/// What came of a [`StoreCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreAnswer {
    /// It was done.
    Done {
        /// HTTP's status.
        status: u16,
        /// Headers, names in lower case.
        headers: Vec<(String, String)>,
        /// The body.
        data: Option<Json>,
    },
    /// It was not done.
    Refused {
        /// HTTP's status, if the store answered.
        status: Option<u16>,
        /// Why.
        message: String,
        /// Headers, if the store answered; names in lower case.
        headers: Vec<(String, String)>,
        /// The body, if the store answered with one.
        data: Option<Json>,
    },
}
