//! What jobs and conditions see, and what they leave.

use super::*;

#[tokio::test]
async fn a_job_makes_a_state_of_a_state() {
    let mut bench = Bench::start(&[]).await;
    assert_eq!(bench.engine.version(), ("node".to_owned(), version()));
    let call = job_with(
        "export default [async (s) => ({ ...s, b: 2 }), (s) => ({ ...s, c: s.b + 1, configuration: { secret: 1 }, webhookResponse: { ok: true } })]",
        &[],
        r#"{"a":1}"#,
    );
    let Ok(JobEnd::Returned(result)) = bench.run(call).await else { panic!("it returns") };
    assert_eq!(text(result.state), r#"{"a":1,"b":2,"c":3}"#);
    assert_eq!(text(result.webhook_response), r#"{"ok":true}"#);
    assert!(bench.engine.peak_heap_bytes().unwrap() > MB);
}
