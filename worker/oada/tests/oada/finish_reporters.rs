//! Slack is told of finished jobs.

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use oada::JobError;
use serde_json::{Value, json};
use tests::lightning::DEADLINE;
use tests::oada::Oada;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::{LONG, body, demo, finished, place, start};

#[tokio::test]
async fn those_who_want_to_know_are_told_and_nobody_else_notices_when_they_cannot_be() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/hook/secret",
        post(move |body: Bytes| async move { drop(tell.send(serde_json::from_slice::<Value>(&body).unwrap())) }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let oada = Oada::start().await;
    let reporter = |text: String| text.parse().unwrap();
    let reporters = vec![
        reporter(format!("slack:failure=http://{address}/hook/secret")),
        reporter(format!("slack:failure=http://{address}/nobody")),
        reporter("slack:success=http://127.0.0.1:9/refused".to_owned()),
    ];
    let service = demo(&oada)
        .options(|options| options.finish_reporters = reporters)
        .on("ok", LONG, |_, _| async { Ok::<_, JobError>(json!(1)) })
        .on("bad", LONG, |_, _| async { Err::<Value, _>(JobError::new("broken")) });
    let _service = start(&oada, service).await;
    place(&oada, "OK", body("ok", json!({})));
    place(&oada, "BAD", body("bad", json!({})));
    finished(&oada, "OK").await;
    finished(&oada, "BAD").await;
    let message = tokio::time::timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
    let headline = message["blocks"][0]["text"]["text"].as_str().unwrap();
    assert_eq!(headline, format!("Service *demo* on Domain *{}* failed jobId *resources/BAD*", oada.url()));
    assert!(message["blocks"][2]["text"]["text"].as_str().unwrap().contains("/jobs/failure/day-index/"));
    let job = message["attachments"][0]["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(job.starts_with("```") && job.contains("broken"), "{job}");
    server.abort();
}
