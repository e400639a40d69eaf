//! What a run needs before it can start: its plan, its input and its credentials.

use std::collections::HashMap;
use std::time::Duration;

use base::aside::aside;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use protocol::Json;
use protocol::backoff::{Backoff, jitter};
use protocol::run::{Exit, ExitReason};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::LightningOptions;
use super::outbox::{is_busy, says_gone};
use super::phoenix::{Answer, Payload, Requester, Response, Status};

/// Pauses while the server says that it is busy.
const BUSY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Asks a run's channel for what the run needs.
pub(super) struct Fetcher<'a> {
    pub(super) run_id: String,
    pub(super) requester: Requester,
    pub(super) options: &'a LightningOptions,
}

/// Why a run does not start.
#[derive(Debug)]
pub(super) enum Unprepared {
    /// It ends so.
    Exit(Exit),
    /// It is over for the server, with the reason.
    Gone(String),
}

impl From<Exit> for Unprepared {
    fn from(exit: Exit) -> Self {
        Self::Exit(exit)
    }
}

/// Why something was not had.
#[derive(Debug)]
enum FetchError {
    /// The run is over for the server.
    Gone(String),
    /// The server said no.
    Refused(Json),
    /// The server sent something else.
    Odd(&'static str),
    /// No answer came.
    Timeout,
}

impl Fetcher<'_> {
    /// The plan's JSON.
    pub(super) async fn plan(&self) -> Result<Json, Unprepared> {
        let failed = |why: &str| exception("PlanLoadError", format!("Failed to load the plan: {why}")).into();
        match self.get("fetch:plan", Payload::empty()).await {
            Ok((Response::Json(plan), _)) => Ok(plan),
            Ok((Response::Binary(bytes), _)) => {
                aside(bytes.len(), || Json::parse(bytes)).await.map_err(|error| failed(&error.to_string()))
            }
            Err(FetchError::Gone(why)) => Err(Unprepared::Gone(why)),
            Err(error) => Err(failed(&error.text("fetch:plan"))),
        }
    }

    /// The dataclip `id`, which may be nothing. A server that keeps no data (`is_erased`) forgets it once it has given it
    /// away, even if its answer was lost.
    pub(super) async fn dataclip(&self, id: Option<&str>, is_erased: bool) -> Result<Option<Json>, Unprepared> {
        let Some(id) = id else { return Ok(None) };
        let failed = |why: String| exception("DataClipError", format!("Failed to load dataclip {id}: {why}")).into();
        match self.get("fetch:dataclip", Payload::object(&json!({ "id": id }))).await {
            Ok((response, was_repeated)) => {
                match aside(response.len(), || read_dataclip(response)).await.map_err(&failed)? {
                    None if is_erased && was_repeated => Err(failed(
                        "the answer was lost on its way, and Lightning keeps no data for this project".to_owned(),
                    )),
                    dataclip => Ok(dataclip),
                }
            }
            Err(FetchError::Refused(json)) => Err(failed(json.decode().unwrap_or_else(|_| json.as_str().to_owned()))),
            Err(FetchError::Gone(why)) => Err(Unprepared::Gone(why)),
            Err(FetchError::Odd(what)) => Err(failed(what.into())),
            Err(FetchError::Timeout) => Err(failed("timeout".into())),
        }
    }

    /// The bodies of the credentials, fetched at the same time.
    pub(super) async fn credentials(&self, ids: Vec<String>) -> Result<HashMap<String, Json>, Unprepared> {
        let bodies = join_all(ids.iter().map(|id| self.credential(id))).await;
        let mut credentials = HashMap::new();
        let mut failures = Vec::new();
        for (id, body) in ids.into_iter().zip(bodies) {
            match body {
                Ok(body) => drop(credentials.insert(id, body)),
                Err(FetchError::Gone(why)) => return Err(Unprepared::Gone(why)),
                Err(error) => {
                    failures.push(format!("Failed to load credential {id}: {}", error.text("fetch:credential")));
                }
            }
        }
        match failures.is_empty() {
            true => Ok(credentials),
            false => Err(exception("CredentialLoadError", failures.join("\n")).into()),
        }
    }

    async fn credential(&self, id: &str) -> Result<Json, FetchError> {
        match self.get("fetch:credential", Payload::object(&json!({ "id": id }))).await? {
            (Response::Json(body), _) if body.is_object() => Ok(body),
            _ => Err(FetchError::Odd("the answer is not a JSON object")),
        }
    }

    /// Asks, and asks again while no answer comes or the server is busy. A late answer to an earlier question is
    /// taken, too. Also says whether it was asked more than once.
    async fn get(&self, event: &'static str, payload: Payload) -> Result<(Response, bool), FetchError> {
        let LightningOptions { message_timeout: patience, getter_retries: retries, getter_retry_delay: delay, .. } =
            *self.options;
        let mut asked = FuturesUnordered::new();
        let mut busy = Backoff::new(BUSY, 2.0);
        for attempt in 0..=retries {
            let last = attempt == retries;
            asked.push(self.requester.request(event, payload.clone()));
            let wait = if last { patience } else { patience + delay };
            match timeout(wait, asked.next()).await {
                Ok(Some(Some(Answer { reply, was_repeated }))) if reply.status == Status::Ok => {
                    return Ok((reply.response, was_repeated || attempt > 0));
                }
                Ok(Some(Some(Answer { reply, .. }))) if is_busy(&reply) && !last => sleep(busy.next(jitter())).await,
                Ok(Some(Some(Answer { reply, .. }))) => {
                    return Err(match says_gone(&reply) {
                        Some(why) => FetchError::Gone(why),
                        None => FetchError::Refused(reply.response.into_json()),
                    });
                }
                Ok(_) => return Err(FetchError::Timeout),
                Err(_) => {
                    tracing::warn!(run = %self.run_id, "no answer to {event} for {}s", wait.as_secs());
                    if is_time_to_restart(attempt) && !last {
                        self.requester.restart();
                    }
                }
            }
        }
        Err(FetchError::Timeout)
    }
}

/// The server's process may hang when asking a second time did not help. It may also only be slow, so that each new one
/// gets as long as all before it together.
fn is_time_to_restart(attempt: u32) -> bool {
    attempt > 0 && (attempt + 1).is_power_of_two()
}

impl FetchError {
    fn text(&self, event: &str) -> String {
        match self {
            Self::Refused(json) => format!("[{event}] {}", json.as_str()),
            Self::Odd(what) => format!("[{event}] {what}"),
            Self::Gone(why) => format!("[{event}] {why}"),
            Self::Timeout => format!("[{event}] timeout"),
        }
    }
}

fn exception(kind: &str, message: String) -> Exit {
    Exit::error(ExitReason::Exception, kind, message)
}

/// Lightning sends a dataclip's text in a binary frame, the development mock as an array of byte values.
fn read_dataclip(response: Response) -> Result<Option<Json>, String> {
    let bytes = match response {
        Response::Binary(bytes) => bytes,
        Response::Json(json) => match json.decode::<Vec<u8>>() {
            Ok(bytes) => bytes.into(),
            Err(_) => return Ok(Some(json).filter(|json| !json.is_null())),
        },
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    let json = Json::parse(bytes).map_err(|error| error.to_string())?;
    Ok(Some(json).filter(|json| !json.is_null()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phoenix::Reply;

    #[test]
    fn each_process_of_the_server_gets_more_time() {
        let restarts: Vec<_> = (0..20).filter(|&attempt| is_time_to_restart(attempt)).collect();
        assert_eq!(restarts, [1, 3, 7, 15]);
    }

    fn options() -> LightningOptions {
        let mut options = LightningOptions::new("ws://localhost/worker".parse().unwrap(), "a secret".into());
        options.message_timeout = Duration::from_secs(5);
        (options.getter_retries, options.getter_retry_delay) = (2, Duration::from_secs(1));
        options
    }

    fn answer(status: Status, response: &str, was_repeated: bool) -> Option<Answer> {
        let response = Response::Json(Json::parse(response.to_owned()).unwrap());
        Some(Answer { reply: Reply { status, response }, was_repeated })
    }

    /// Where Lightning keeps no data, nothing is an answer to the first question alone.
    #[tokio::test(start_paused = true)]
    async fn a_dataclip_that_may_be_lost_is_not_taken_for_an_empty_one() {
        let options = options();
        let nothing = |was_repeated| answer(Status::Ok, "null", was_repeated);
        let something = |was_repeated| answer(Status::Ok, r#"{"a":1}"#, was_repeated);
        let busy = || answer(Status::Error, r#""the server is busy""#, false);
        let cases = [
            ("the first answer", vec![nothing(false)], true, Ok(None)),
            ("asked again over a new link", vec![nothing(true)], true, Err(())),
            ("asked again over a new link", vec![nothing(true)], false, Ok(None)),
            ("asked again after a silence", vec![None, nothing(false)], true, Err(())),
            ("asked again after a silence", vec![None, nothing(false)], false, Ok(None)),
            ("asked again where it is there", vec![None, something(true)], true, Ok(Some(r#"{"a":1}"#))),
            ("busy, and then not", vec![busy(), something(false)], false, Ok(Some(r#"{"a":1}"#))),
            ("busy to the end", vec![busy(), busy(), busy()], false, Err(())),
            ("refused", vec![answer(Status::Error, r#""not found""#, false)], false, Err(())),
            ("silent to the end", vec![None, None, None], false, Err(())),
        ];
        for (name, answers, is_erased, expected) in cases {
            let requester = Requester::scripted(answers);
            let fetcher = Fetcher { run_id: "run".into(), requester, options: &options };
            let dataclip = fetcher.dataclip(Some("id"), is_erased).await;
            let dataclip = dataclip.as_ref().map(|json| json.as_ref().map(Json::as_str)).map_err(|_| ());
            assert_eq!(dataclip, expected, "{name}, erased: {is_erased}");
        }
    }

    #[test]
    fn dataclips_in_every_form() {
        let json = |text: &str| Response::Json(Json::parse(text.to_owned()).unwrap());
        let binary = |text: &'static str| Response::Binary(text.into());
        let cases = [
            (binary("{\"a\":1}"), Ok(Some("{\"a\":1}"))),
            (json("[123,125]"), Ok(Some("{}"))),
            (json("{\"a\":1}"), Ok(Some("{\"a\":1}"))),
            (binary("null"), Ok(None)),
            (json("[110,117,108,108]"), Ok(None)),
            (json("null"), Ok(None)),
            (binary(""), Ok(None)),
            (binary("{"), Err(())),
            (json("[123]"), Err(())),
        ];
        for (response, expected) in cases {
            let read = read_dataclip(response.clone());
            let read = read.as_ref().map(|json| json.as_ref().map(Json::as_str)).map_err(|_| ());
            assert_eq!(read, expected, "{response:?}");
        }
    }
}
