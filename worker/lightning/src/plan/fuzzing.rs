//! What the fuzz target drives: a plan, read and completed.

use std::collections::HashMap;

use jiff::Timestamp;
use protocol::Json;
use protocol::frame;
use protocol::run::{RunOptions, RunSpec};

use super::{Collections, Plan, Surroundings};

/// Reads a plan. If it can be read, a host must understand the run that it becomes, and no limit may be none at all.
pub fn read_plan(text: &str) {
    let Ok(plan) = Json::parse(text.to_owned()) else { return };
    let collections = Collections { url: "http://c".into(), version: "1.2.3".into() };
    let around = Surroundings {
        run_id: "a-run",
        token: &"token".into(),
        now: Timestamp::UNIX_EPOCH,
        defaults: &RunOptions::default(),
        state_bytes: None,
        collections: Some(&collections),
    };
    let Ok(plan) = Plan::read(&plan, around) else { return };
    let ids = plan.credential_ids();
    let fetched: HashMap<String, Json> = ids.iter().map(|id| (id.clone(), Json::empty_object())).collect();
    assert_eq!(ids.len(), fetched.len(), "each credential is fetched once");
    let warnings = plan.warnings.len();
    assert!(warnings <= 7, "{warnings} warnings");
    let spec = plan.complete(None, &fetched);
    let RunOptions { timeout_ms, memory_bytes, state_bytes, .. } = spec.options;
    assert!(timeout_ms > 0 && memory_bytes > 0 && state_bytes > 0, "{:?}", spec.options);
    let encoded = frame::encode(&spec, usize::MAX).expect("a run can be sent to a host");
    let payload = encoded.slice(frame::HEADER..);
    assert_eq!(frame::decode::<RunSpec>(&payload).expect("a host can read it"), spec);
}
