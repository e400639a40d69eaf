//! The HTTP API for people who queue runs by hand and read their results.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::plan::{InvalidPlan, Submission};
use super::{Shared, connection};

/// Largest submission, in bytes: more than a dataclip that any limit lets through.
const LARGEST_BODY: usize = 256 * 1024 * 1024;

const DESCRIPTION: &str = "\
A mock of OpenFn Lightning, for developing workflows and workers.

Workers connect to /worker (websocket). The rest is for you, all in JSON:

POST /run                queue a run; the body is a Lightning plan, with optional
                         dataclips {id: json}, credentials {id: object} and queue
                         in it or beside it ({\"plan\": …}); answers {\"id\": …}
POST /run?wakeup         the same, and tells the workers at once
POST /run/{id}/cancel     end a run: its worker is asked to, by `run:cancel`
POST /dataclip/{id}      set a dataclip
POST /credential/{id}    set a credential
GET  /run/{id}           a run: state, result, steps, logs, refused messages
GET  /run/{id}/events    its events in order, with payloads
GET  /runs               all runs, oldest first
GET  /violations         every message that was refused, with the reason
";

/// An error that is told to the caller.
struct HttpError(StatusCode, String);

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<InvalidPlan> for HttpError {
    fn from(error: InvalidPlan) -> Self {
        Self(StatusCode::BAD_REQUEST, error.to_string())
    }
}

/// All that the double serves on its port.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(|| async { DESCRIPTION }))
        .route("/worker/websocket", any(connection::upgrade))
        .route("/run", post(queue_run))
        .route("/run/{id}", get(read_run))
        .route("/run/{id}/events", get(read_events))
        .route("/run/{id}/cancel", post(cancel_run))
        .route("/runs", get(list_runs))
        .route("/violations", get(list_violations))
        .route("/credential/{id}", post(set_credential))
        .route("/dataclip/{id}", post(set_dataclip))
        .fallback(|| async { HttpError(StatusCode::NOT_FOUND, "no such path; GET / lists them".to_owned()) })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(shared)
}

async fn queue_run(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Json<Value>, HttpError> {
    let submission = Submission::parse(text(&body)?, shared.options.strict_ids)?;
    let id = shared.store.lock().queue(submission)?;
    if query.is_some_and(|query| query.split('&').any(|part| part == "wakeup" || part.starts_with("wakeup="))) {
        shared.wake();
    }
    Ok(Json(json!({ "id": id })))
}

async fn cancel_run(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Json<Value>, HttpError> {
    match shared.cancel(&id) {
        true => Ok(Json(json!({ "id": id }))),
        false if shared.store.lock().runs.contains_key(&id) => {
            Err(HttpError(StatusCode::CONFLICT, format!("the run {id} is over")))
        }
        false => Err(no_run(&id)),
    }
}

async fn set_credential(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, HttpError> {
    let credential = json(&body)?;
    if !credential.get().starts_with('{') {
        return Err(HttpError(StatusCode::BAD_REQUEST, "a credential must be a JSON object".to_owned()));
    }
    shared.store.lock().credentials.insert(id.clone(), credential);
    Ok(Json(json!({ "id": id })))
}

async fn set_dataclip(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, HttpError> {
    shared.store.lock().dataclips.insert(id.clone(), json(&body)?);
    Ok(Json(json!({ "id": id })))
}

async fn read_run(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Response, HttpError> {
    let record = shared.store.lock().runs.get(&id).map(|run| run.record.clone()).ok_or_else(|| no_run(&id))?;
    Ok(Json(record).into_response())
}

async fn read_events(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Response, HttpError> {
    let events = shared.store.lock().runs.get(&id).map(|run| run.record.events.clone()).ok_or_else(|| no_run(&id))?;
    Ok(Json(events).into_response())
}

async fn list_runs(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let store = shared.store.lock();
    let runs = store.records().map(|run| {
        json!({
            "id": &*run.id,
            "state": run.state,
            "reason": run.reason,
            "error_type": run.error_type,
            "queued_at": run.queued_at,
            "finished_at": run.finished_at,
        })
    });
    Json(runs.collect())
}

async fn list_violations(State(shared): State<Arc<Shared>>) -> Response {
    let violations = shared.store.lock().violations.clone();
    Json(violations).into_response()
}

fn no_run(id: &str) -> HttpError {
    HttpError(StatusCode::NOT_FOUND, format!("there is no run {id}"))
}

fn text(body: &[u8]) -> Result<&str, HttpError> {
    std::str::from_utf8(body)
        .map_err(|error| HttpError(StatusCode::BAD_REQUEST, format!("the body must be UTF-8: {error}")))
}

fn json(body: &[u8]) -> Result<Box<RawValue>, HttpError> {
    serde_json::from_str::<&RawValue>(text(body)?)
        .map(ToOwned::to_owned)
        .map_err(|error| HttpError(StatusCode::BAD_REQUEST, format!("the body must be JSON: {error}")))
}
