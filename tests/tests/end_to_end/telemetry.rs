//! Traces, error reports and step profiles tell what happened, and nothing of users.

use serde_json::Value;
use tests::collector::Collector;
use tests::lightning::{self, LightningOptions, SECRET, chain, end, one_job, queue};
use tests::relay;
use tests::worker::Worker;

const PRIVATE: &str = "Amina Diallo, born 1990";

fn run_id() -> String {
    "0b8ff1a4-6c1d-4d0e-8a63-2f8ad8a0f9a1".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_a_trace() {
    let (lightning, collector) = (lightning::start(LightningOptions::default()).await, Collector::start().await);
    let endpoint = format!("http://{}/base", collector.address());
    let headers = "authorization=Bearer very-private";
    let worker = Worker::start(&lightning, &["--otlp-endpoint", &endpoint, "--otlp-headers", headers]).await;
    let mut plan = chain(&[
        ("first", &format!("fn(s => {{ console.log('{PRIVATE}'); return {{ ...s, data: '{PRIVATE}' }}; }})")),
        ("second", &format!("fn(() => {{ throw new Error('{PRIVATE}'); }})")),
    ]);
    plan["id"] = run_id().into();
    let id = queue(&lightning, plan);
    end(&lightning, &worker, &id).await;
    let received = collector.until(|it| it.body.contains("openfn.run.id")).await;
    assert_eq!(received.path, "/base/v1/traces");
    assert_eq!(received.headers["content-type"], "application/json");
    assert_eq!(received.headers["authorization"], "Bearer very-private");

    let request: Value = serde_json::from_str(&received.body).expect("it is JSON");
    let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("there are spans").clone();
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name).cloned().collect::<Vec<Value>>();
    let (run, steps) = (&named("run")[0], named("step"));
    for phase in ["prepare", "start", "execute", "deliver"] {
        assert_eq!(named(phase)[0]["parentSpanId"], run["spanId"], "{phase}");
    }
    assert_eq!(steps.len(), 2, "{received:?}");
    assert!(steps.iter().all(|step| step["parentSpanId"] == named("execute")[0]["spanId"]));
    assert!(spans.iter().all(|span| span["traceId"] == id.replace('-', "")), "{spans:?}");
    assert_eq!(run["status"]["code"], 2, "{run}");
    for secret in [PRIVATE, "very-private", SECRET] {
        assert!(!received.body.contains(secret), "{secret} is in {}", received.body);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_traces_go_before_the_worker_does() {
    let (lightning, collector) = (lightning::start(LightningOptions::default()).await, Collector::start().await);
    let endpoint = format!("http://{}", collector.address());
    let worker = Worker::start(&lightning, &["--otlp-endpoint", &endpoint]).await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    end(&lightning, &worker, &id).await;
    worker.stop().await;
    assert!(collector.received().iter().any(|it| it.body.contains(&id)), "{:?}", collector.received());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_gets_what_the_usual_variables_say() {
    let (lightning, collector) = (lightning::start(LightningOptions::default()).await, Collector::start().await);
    let (address, certificate) = relay::encrypted(collector.address().parse().expect("an address")).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("trusted.pem");
    std::fs::write(&file, certificate).expect("the folder can be written to");
    let endpoint = format!("https://localhost:{}", address.port());
    let variables = [
        ("SSL_CERT_FILE", file.to_str().expect("its name is text")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_SERVICE_NAME", "our-worker"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=a%20test"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.0"),
    ];
    let worker = Worker::start_with(&lightning, &[], &variables).await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    end(&lightning, &worker, &id).await;
    let received = collector.until(|it| it.body.contains(&id)).await;
    assert!(received.body.contains("our-worker") && received.body.contains("a test"), "{}", received.body);
    assert!(!received.body.contains("openfn-worker") && !received.body.contains("\"other\""), "{}", received.body);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_no_run() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--otlp-endpoint", "http://127.0.0.1:1"]).await;
    let id = queue(&lightning, one_job("fn(s => s)"));
    end(&lightning, &worker, &id).await;
    worker.printed("traces cannot be sent to http://127.0.0.1:1").await;
    let (_, metrics) = worker.http("GET", "/metrics").await;
    assert!(metrics.contains("openfn_worker_exports_dropped_total{kind=\"traces\"} 1"), "{metrics}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_errors_are_reported_without_what_users_said() {
    let (lightning, collector) = (lightning::start(LightningOptions::default()).await, Collector::start().await);
    let dsn = format!("http://abc123@{}/42", collector.address());
    let options = ["--sentry-dsn", &dsn, "--sentry-env", "testing", "--tail-jobs", "--secret", "a wrong one"];
    let worker = Worker::start(&lightning, &options).await;
    let received = collector.until(|it| it.path == "/api/42/envelope/").await;
    assert!(received.headers["x-sentry-auth"].to_str().expect("text").contains("sentry_key=abc123"));
    let lines: Vec<Value> =
        received.body.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(lines.len(), 3, "{}", received.body);
    assert_eq!(lines[1]["type"], "event");
    assert_eq!(lines[2]["event_id"], lines[0]["event_id"]);
    assert_eq!((&lines[2]["level"], &lines[2]["environment"]), (&"error".into(), &"testing".into()));
    assert!(lines[2]["message"]["formatted"].as_str().is_some_and(|text| !text.is_empty()));
    assert!(!received.body.contains("a wrong one") && !received.body.contains("eyJ"), "{}", received.body);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_users_code_are_not_reported() {
    let (lightning, collector) = (lightning::start(LightningOptions::default()).await, Collector::start().await);
    let dsn = format!("http://abc123@{}/42", collector.address());
    let worker = Worker::start(&lightning, &["--sentry-dsn", &dsn, "--tail-jobs"]).await;
    let throws = format!("fn(() => {{ console.error('{PRIVATE}'); throw new Error('{PRIVATE}'); }})");
    let id = queue(&lightning, one_job(&throws));
    end(&lightning, &worker, &id).await;
    worker.printed("run ended").await;
    // The worker's own log has it, as --tail-jobs says.
    worker.printed(PRIVATE).await;
    worker.stop().await;
    assert!(collector.received().is_empty(), "{:?}", collector.received());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_tells_the_peak_memory_of_each_step() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker =
        Worker::start(&lightning, &["--profile", "--profile-poll-interval-ms", "5", "--log-format", "json"]).await;
    let hungry = "fn(s => { const held = []; for (let i = 0; i < 40; i++) held.push(new Uint8Array(1048576).fill(1)); \
                  return new Promise(done => setTimeout(() => done({ data: held.length }), 500)); })";
    let id = queue(&lightning, chain(&[("light", "fn(s => s)"), ("hungry", hungry)]));
    end(&lightning, &worker, &id).await;
    worker.printed("\"step\":\"hungry\",\"name\":\"hungry\",\"megabytes\"").await;
    let output = worker.output();
    let told: Vec<Value> = output
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "peak memory of a step")
        .collect();
    let megabytes = |step: &str| {
        let line = told.iter().find(|line| line["step"] == step).unwrap_or_else(|| panic!("{step}: {told:?}"));
        assert_eq!(line["run"], id.as_str());
        line["megabytes"].as_u64().expect("a number")
    };
    assert!(megabytes("hungry") >= 40, "{told:?}");
    assert!(megabytes("light") < megabytes("hungry"), "{told:?}");
    worker.stop().await;
}
