//! `OADA_JOBS_LOGGING`: which of a handler's log calls become updates.

use serde_json::json;
use tests::oada::Oada;
use tests::oada::program::OadaWorker;

use crate::support::{body, finished, place, statuses};

const TALKS: &str = "export default async (job, { log }) => {
  await log.trace('trace');
  await log.debug('debug');
  await log.info('info');
  await log.error('error');
};";

#[tokio::test(flavor = "multi_thread")]
async fn debug_and_trace_are_written_where_the_variable_has_them_in_it() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["started", "info", "error", "success"]),
        ("info,debug", &["started", "debug", "info", "error", "success"]),
        ("a-trace-and-debug", &["started", "trace", "debug", "info", "error", "success"]),
    ];
    for (variable, expected) in cases {
        let oada = Oada::start().await;
        let environment = [("OADA_JOBS_LOGGING", *variable)];
        let worker = OadaWorker::start_with(&oada, &[("talks", TALKS)], &[], &environment).await;
        place(&oada, "J", body("talks", json!({})));
        assert_eq!(statuses(&finished(&oada, "J").await), *expected, "{variable}");
        worker.stop().await;
    }
}
