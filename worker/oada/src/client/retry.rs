//! When a request is sent again, and after how long. Pure.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use protocol::backoff::Growth;
use smart_default::SmartDefault;

use crate::wire::{Method, Response};

/// How patient a client is.
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault)]
pub struct RetryPolicy {
    /// How often a request without an answer, or with the answer that a gateway failed, is sent again.
    #[default(4)]
    pub tries: u32,
    /// The pause before the first of these; each is twice as long as the one before.
    #[default(Duration::from_millis(500))]
    pub pause: Duration,
    /// How long a store that refuses for now (429) and does not say for how long is left alone.
    #[default(Duration::from_secs(300))]
    pub rate_limit_pause: Duration,
}

/// What came of a request that was not done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failure<'a> {
    /// It was answered with an error.
    Answered(&'a Response),
    /// No answer came in time.
    Silence,
}

impl RetryPolicy {
    /// The pause after which the request is sent again; none if it is not. `failures` is how often it failed before.
    pub(super) fn again(
        &self,
        method: Method,
        failure: Failure<'_>,
        failures: u32,
        now: Timestamp,
    ) -> Option<Duration> {
        match failure {
            // The store has not done it, whatever the method: this is no failure, however often it happens.
            Failure::Answered(response) if response.status == 429 => {
                Some(retry_after(response, now).unwrap_or(self.rate_limit_pause))
            }
            Failure::Answered(response) if response.status == 503 => {
                retry_after(response, now).or_else(|| self.pause_after(failures))
            }
            Failure::Answered(response) if matches!(response.status, 502 | 504) && method.is_idempotent() => {
                self.pause_after(failures)
            }
            Failure::Silence if method.is_idempotent() => self.pause_after(failures),
            Failure::Answered(_) | Failure::Silence => None,
        }
    }

    fn pause_after(&self, failures: u32) -> Option<Duration> {
        (failures < self.tries).then(|| Growth::doubling(self.pause, Duration::MAX).pause(failures))
    }
}

/// When the store says that it may be asked again: in seconds, or as a date.
fn retry_after(response: &Response, now: Timestamp) -> Option<Duration> {
    let names = ["retry-after", "ratelimit-reset", "x-ratelimit-reset"];
    let value = names.iter().find_map(|name| response.headers.get(*name))?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = rfc2822::parse(value).ok()?.timestamp();
    let until: Duration = date.duration_since(now).try_into().unwrap_or(Duration::ZERO);
    Some(until)
}

/// How often a tree put meets writes of others before it gives up.
pub(super) const CONFLICTS: u32 = 5;

/// The pause after the `failures`-th conflict with another writer, from 1. `jitter` is in 0..1.
pub(super) fn conflict_pause(failures: u32, jitter: f64) -> Duration {
    Duration::from_millis(100).mul_f64(f64::from(failures * failures) + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers = &'static [(&'static str, &'static str)];

    fn answer(status: u16, headers: Headers) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, headers, data: None }
    }

    #[test]
    fn who_is_asked_again_and_when() {
        let policy = RetryPolicy { tries: 2, pause: Duration::from_secs(1), rate_limit_pause: Duration::from_secs(9) };
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        const DATE: Headers = &[("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT")];
        const PAST: Headers = &[("retry-after", "Sat, 21 Nov 2026 11:00:30 GMT")];
        let cases: [(Method, u16, Headers, u32, Option<u64>); 14] = [
            (Method::Get, 429, &[], 0, Some(9)),
            (Method::Post, 429, &[("retry-after", "3")], 7, Some(3)),
            (Method::Post, 429, &[("x-ratelimit-reset", "4")], 0, Some(4)),
            (Method::Get, 429, DATE, 0, Some(30)),
            (Method::Get, 429, PAST, 0, Some(0)),
            (Method::Get, 429, &[("retry-after", "soon")], 0, Some(9)),
            (Method::Post, 503, &[("retry-after", "3")], 9, Some(3)),
            (Method::Post, 503, &[], 1, Some(2)),
            (Method::Get, 503, &[], 2, None),
            (Method::Get, 502, &[], 0, Some(1)),
            (Method::Post, 502, &[], 0, None),
            (Method::Get, 500, &[], 0, None),
            (Method::Get, 404, &[], 0, None),
            (Method::Put, 412, &[], 0, None),
        ];
        for (method, status, headers, failures, seconds) in cases {
            let response = answer(status, headers);
            let pause = policy.again(method, Failure::Answered(&response), failures, now);
            assert_eq!(pause, seconds.map(Duration::from_secs), "{method:?} {status} {headers:?}");
        }
        assert_eq!(policy.again(Method::Get, Failure::Silence, 1, now), Some(Duration::from_secs(2)));
        assert_eq!(policy.again(Method::Get, Failure::Silence, 2, now), None);
        assert_eq!(policy.again(Method::Post, Failure::Silence, 0, now), None);
    }

    #[test]
    fn conflicts_are_waited_out_for_longer_each_time() {
        let pauses: Vec<_> = (1..=3).map(|failures| conflict_pause(failures, 0.5).as_millis()).collect();
        assert_eq!(pauses, [150, 450, 950]);
    }
}
