//! Who is told of finished jobs.

use std::str::FromStr;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use base::http::{PostError, parse_url, post};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::job::Status;

/// Someone who is told of finished jobs. A URL that messages can be posted to is a secret.
#[derive(Debug, Clone)]
pub struct FinishReporter {
    /// Which jobs.
    pub status: Status,
    /// A Slack webhook.
    pub post_url: SecretString,
}

/// Text that names no reporter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; a finish reporter looks like slack:failure=https://hooks.slack.com/services/…")]
pub struct InvalidReporter(String);

impl FromStr for FinishReporter {
    type Err = InvalidReporter;

    fn from_str(text: &str) -> Result<Self, InvalidReporter> {
        let (kind, url) = text.split_once('=').ok_or_else(|| InvalidReporter("there is no `=`".to_owned()))?;
        let status = match kind {
            "slack:success" => Status::Success,
            "slack:failure" => Status::Failure,
            // What it is instead may be a part of the URL.
            _ => {
                return Err(InvalidReporter(
                    "what stands before the `=` is not slack:success or slack:failure".to_owned(),
                ));
            }
        };
        parse_url(url).map_err(|why| InvalidReporter(format!("its URL is not one of http:// or https://: {why}")))?;
        Ok(Self { status, post_url: url.into() })
    }
}

/// What is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finished<'a> {
    pub(super) service: &'a str,
    pub(super) domain: &'a str,
    pub(super) job_id: &'a str,
    pub(super) status: Status,
    /// Where it is filed.
    pub(super) filed: &'a str,
    /// All of it.
    pub(super) job: &'a Value,
}

impl FinishReporter {
    /// Tells it. What goes wrong is logged, without the URL.
    pub(super) async fn tell(&self, finished: Finished<'_>) {
        if self.status != finished.status {
            return;
        }
        if let Err(error) = self.post(&slack_message(finished)).await {
            tracing::warn!(job = finished.job_id, "failed to notify a finish reporter: {error}");
        }
    }

    async fn post(&self, message: &Value) -> Result<(), PostError> {
        let url = parse_url(self.post_url.expose_secret()).map_err(|why| PostError::Http(why.to_owned()))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        post(&url, headers, message.to_string()).await
    }
}

/// The message in Slack's form.
fn slack_message(finished: Finished<'_>) -> Value {
    let Finished { service, domain, job_id, status, filed, job } = finished;
    let word = match status {
        Status::Success => "succeeded",
        Status::Failure => "failed",
    };
    let headline = format!("Service *{service}* on Domain *{domain}* {word} jobId *{job_id}*");
    let section = |text: String| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } });
    let code = format!("```{}```", serde_json::to_string_pretty(job).unwrap_or_default());
    json!({
        "blocks": [section(headline), { "type": "divider" }, section(format!("<{domain}{filed}>"))],
        "attachments": [{ "blocks": [section(code)] }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reporters_are_read_and_their_urls_kept_secret() {
        let reporter: FinishReporter = "slack:failure=https://hooks.example.org/T0/secret".parse().unwrap();
        assert_eq!(reporter.status, Status::Failure);
        assert!(!format!("{reporter:?}").contains("secret"));
        for bad in ["", "slack:failure", "mail:failure=https://x", "slack:failure=ftp://secret", "slack:odd=https://x"]
        {
            let error = bad.parse::<FinishReporter>().unwrap_err().to_string();
            assert!(error.contains("slack:failure=https://") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_message_says_how_the_job_ended() {
        let job = json!({ "status": "success" });
        let finished = Finished {
            service: "demo",
            domain: "https://x",
            job_id: "resources/J",
            status: Status::Success,
            filed: "/bookmarks/day",
            job: &job,
        };
        let message = slack_message(finished);
        let text = |at: &str| message.pointer(at).and_then(Value::as_str).unwrap().to_owned();
        assert_eq!(text("/blocks/0/text/text"), "Service *demo* on Domain *https://x* succeeded jobId *resources/J*");
        assert_eq!(text("/blocks/2/text/text"), "<https://x/bookmarks/day>");
        assert!(text("/attachments/0/blocks/0/text/text").starts_with("```{"));
    }
}
