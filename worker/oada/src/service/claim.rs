//! Claims, by which several services on one queue run each job once. Pure.
//!
//! A claim is three keys of the job, written only if the job is as it was read. It is renewed while the job runs. Who
//! finds another's claim waits until it has not changed for as long as it says, by the own clock, and then takes it
//! over: no two clocks are compared.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

/// The keys of a claim.
pub(super) const KEYS: [&str; 3] = ["claimed_by", "claimed_at", "claim_ms"];

/// A claim as a job bears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    by: String,
    at: String,
    lease: Duration,
}

/// Another's claim, and since when it has been like that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Observed {
    claim: Claim,
    since: Instant,
}

/// What a job's claim means for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody has it, or nobody who lives.
    Free,
    /// Another has it: look again after this time.
    Taken(Duration, Observed),
}

impl Claim {
    /// The claim in a job's body.
    pub(super) fn read(body: &Value) -> Option<Self> {
        let by = body.get("claimed_by")?.as_str()?.to_owned();
        let at = body.get("claimed_at").and_then(Value::as_str).unwrap_or_default().to_owned();
        let lease = body.get("claim_ms").and_then(Value::as_u64).unwrap_or(0);
        Some(Self { by, at, lease: Duration::from_millis(lease) })
    }

    /// Whether `instance` made it.
    pub(super) fn is_of(&self, instance: &str) -> bool {
        self.by == instance
    }
}

/// What to write to claim a job, or to renew the claim.
pub(super) fn claiming(instance: &str, now: Timestamp, lease: Duration) -> Value {
    let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    json!({ "claimed_by": instance, "claimed_at": format!("{now:.3}"), "claim_ms": lease })
}

/// What to write to give a claim up.
pub(super) fn releasing() -> Value {
    json!({ "claimed_by": null, "claimed_at": null, "claim_ms": null })
}

/// Whether the job may be claimed, given what was seen of its claim before.
pub(super) fn standing(body: &Value, instance: &str, before: Option<&Observed>, now: Instant) -> Standing {
    let Some(claim) = Claim::read(body).filter(|claim| !claim.is_of(instance)) else { return Standing::Free };
    let since = before.filter(|before| before.claim == claim).map_or(now, |before| before.since);
    let left = claim.lease.saturating_sub(now.saturating_duration_since(since));
    match left.is_zero() {
        true => Standing::Free,
        false => Standing::Taken(left, Observed { claim, since }),
    }
}

/// How often the job was begun, as it says itself.
pub(super) fn attempts(body: &Value) -> u32 {
    body.get("attempts").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn claimed(at: &str) -> Value {
        claiming("other", at.parse().unwrap(), LEASE)
    }

    #[test]
    fn a_claim_holds_until_it_has_not_changed_for_its_lease() {
        let begin = Instant::now();
        let body = claimed("2026-11-21T10:00:00Z");
        assert_eq!(standing(&json!({}), "me", None, begin), Standing::Free);
        assert_eq!(standing(&body, "other", None, begin), Standing::Free);
        let Standing::Taken(left, seen) = standing(&body, "me", None, begin) else { panic!("it is taken") };
        assert_eq!(left, LEASE, "however old it says that it is");
        let Standing::Taken(left, _) = standing(&body, "me", Some(&seen), begin + LEASE / 2) else { panic!() };
        assert_eq!(left, LEASE / 2);
        let renewed = claimed("2026-11-21T10:00:10Z");
        let Standing::Taken(left, _) = standing(&renewed, "me", Some(&seen), begin + LEASE / 2) else { panic!() };
        assert_eq!(left, LEASE, "it lives");
        assert_eq!(standing(&body, "me", Some(&seen), begin + LEASE), Standing::Free);
        assert_eq!(standing(&releasing(), "me", Some(&seen), begin), Standing::Free);
    }

    #[test]
    fn a_claim_is_its_three_keys() {
        let body = claimed("2026-11-21T10:00:00.1239Z");
        let expected = json!({"claimed_by": "other", "claimed_at": "2026-11-21T10:00:00.123Z", "claim_ms": 30_000});
        assert_eq!(body, expected);
        for body in [body, releasing()] {
            assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), KEYS);
        }
        assert!(releasing().as_object().unwrap().values().all(Value::is_null), "null takes a key away");
        let claim = Claim::read(&claimed("2026-11-21T10:00:00Z")).unwrap();
        assert!(claim.is_of("other") && !claim.is_of("others"));
        let before = Instant::now();
        let Standing::Taken(_, seen) = standing(&expected, "me", None, before) else { panic!("it is taken") };
        assert_eq!(seen.since, before);
        // A claim that another one took over, or that says something else, begins anew.
        for (key, value) in [("claimed_by", json!("third")), ("claimed_at", json!("x")), ("claim_ms", json!(60_000))] {
            let mut other = expected.clone();
            other[key] = value;
            let Standing::Taken(_, again) = standing(&other, "me", Some(&seen), before + LEASE) else {
                panic!("{key}")
            };
            assert_eq!(again.since, before + LEASE, "{key}");
        }
    }

    #[test]
    fn attempts_are_counted_as_far_as_they_make_sense() {
        let cases = [(json!(0), 0), (json!(1), 1), (json!(u32::MAX), u32::MAX), (json!(-1), 0), (json!(1.5), 0)];
        for (count, expected) in cases.into_iter().chain([(json!(u64::MAX), 0), (json!(null), 0)]) {
            assert_eq!(attempts(&json!({ "attempts": count })), expected, "{count}");
        }
        assert_eq!(attempts(&json!({})), 0);
    }

    #[test]
    fn odd_claims_do_no_harm() {
        let cases =
            [json!({ "claimed_by": 7 }), json!({ "claimed_by": "x" }), json!({ "claimed_by": "x", "claim_ms": "y" })];
        for body in cases {
            assert_eq!(standing(&body, "me", None, Instant::now()), Standing::Free, "{body}");
        }
        assert_eq!(attempts(&json!({ "attempts": 3 })), 3);
        assert_eq!(attempts(&json!({ "attempts": "x" })), 0);
    }
}
