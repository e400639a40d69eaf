//! Handlers in JavaScript: each job in a host of its own, without the token.

use serde_json::{Value, json};
use tests::oada::program::OadaWorker;
use tests::oada::{Oada, TOKEN, npm};

use crate::support::{body, finished, place, read, shelves, statuses};

const HELLO: &str = r"
export const timeout = 60000;
export default async (job, { jobId, log, oada }) => {
  await log.info('working', { pct: 50 });
  log.debug('unseen', 1);
  await oada.put({ path: '/resources/MADE', data: { by: jobId }, contentType: 'application/json' });
  const { data, headers, status } = await oada.get('/resources/MADE');
  const head = await oada.head({ path: '/resources/MADE' });
  const posted = await oada.post({ path: '/resources/MADE/list', data: 1 });
  await oada.delete({ path: '/resources/MADE' });
  const gone = await oada.get({ path: '/resources/MADE' }).catch((error) => [error.name, error.status, error.code]);
  await new Promise((resolve) => setTimeout(resolve, 5));
  log.info('not awaited');
  return { hello: job.config.who, id: job.oadaId, by: data.by, status, rev: headers['x-oada-rev'], head: head.status,
    posted: posted.status, gone, globals: [typeof process, typeof require, typeof std, typeof os] };
};";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_real_client_is_run_in_a_host() {
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &[("hello", HELLO)], &[]).await;
    let printed = npm::run("post_job.mjs", &[&oada.url(), TOKEN, "demo", "hello", r#"{"who":"world"}"#]).await;
    let job: Value = serde_json::from_str(printed.trim()).unwrap();
    let id = job["_id"].as_str().unwrap();
    let expected = json!({ "hello": "world", "id": id, "by": id, "status": 200, "rev": "1", "head": 200, "posted": 201,
        "gone": ["StoreError", 403, "403"], "globals": ["undefined", "undefined", "undefined", "undefined"] });
    assert_eq!(job["result"], expected, "{}", worker.output());
    let key = id.trim_start_matches("resources/");
    assert_eq!(statuses(&finished(&oada, key).await), ["started", "working", "not awaited", "success"]);
    assert_eq!(shelves(&oada, key), ["success"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_throws_is_stored() {
    let oada = Oada::start().await;
    let handlers = [
        ("typed", "export default async () => { throw new JobError('bad input', 'bad-input'); };"),
        (
            "rich",
            "export default async () => {
               throw Object.assign(new TypeError('broken', { cause: new Error('why') }), { code: 7 });
             };",
        ),
        ("thrown", "export default () => { throw { just: ['this'] }; };"),
        ("nothing", "export default async () => {};"),
        ("large", "export default () => { const all = []; for (;;) all.push(new Array(1e5).fill(1)); };"),
    ];
    let worker = OadaWorker::start(&oada, &handlers, &["--memory", "64"]).await;
    for (kind, _) in handlers {
        place(&oada, kind, body(kind, json!({})));
    }
    let typed = finished(&oada, "typed").await.result.unwrap();
    let message = [&typed["name"], &typed["message"], &typed["JobError"]];
    assert_eq!(message, [&json!("Error"), &json!("bad input"), &json!("bad-input")]);
    assert!(typed["stack"].as_str().unwrap().contains("typed.js"), "{typed}");
    assert_eq!(shelves(&oada, "typed"), ["failure", "typed-failure/bad-input"]);
    let rich = finished(&oada, "rich").await.result.unwrap();
    assert_eq!(
        (&rich["name"], &rich["code"], &rich["cause"]["message"]),
        (&json!("TypeError"), &json!(7), &json!("why"))
    );
    assert_eq!(finished(&oada, "thrown").await.result, Some(json!({ "just": ["this"] })));
    assert_eq!(finished(&oada, "nothing").await.result, None);
    assert_eq!(finished(&oada, "large").await.status.as_deref(), Some("failure"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_is_aborted_and_a_host_that_does_not_listen_is_killed() {
    let oada = Oada::start().await;
    let polite = "export const timeout = 100;
        export default (job, { signal, log }) => new Promise((resolve) => {
          signal.addEventListener('abort', async () => {
            await log.info('late-update').catch((error) => console.log('REFUSED: ' + error.message));
            resolve();
          });
        });";
    let rude = "export const timeout = 100; export default () => { for (;;); };";
    let worker = OadaWorker::start(&oada, &[("polite", polite), ("rude", rude)], &[]).await;
    for kind in ["polite", "rude"] {
        place(&oada, kind, body(kind, json!({})));
        let job = finished(&oada, kind).await;
        assert_eq!((job.failure_type(), statuses(&job)), (Some("timeout"), vec!["started", "failure"]), "{kind}");
    }
    worker.printed("REFUSED").await;
    assert_eq!(statuses(&read(&oada, "polite")), ["started", "failure"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_checked_against_the_handlers_schema() {
    let oada = Oada::start().await;
    let handler = "export const schema = { type: 'object', required: ['to'] };
        export default (job) => ({ to: job.config.to });";
    let worker = OadaWorker::start(&oada, &[("mail", handler), ("odd", "export const x = 1;")], &[]).await;
    assert!(worker.output().contains("its default export must be a function"), "{}", worker.output());
    place(&oada, "BAD", body("mail", json!({})));
    assert_eq!(finished(&oada, "BAD").await.failure_type(), Some("invalid-config"));
    place(&oada, "ODD", body("odd", json!({})));
    assert_eq!(finished(&oada, "ODD").await.result.unwrap()["message"], "No worker registered for odd");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_change_come_and_go_while_the_service_runs() {
    let oada = Oada::start().await;
    let slow = "export default (job, { log }) => new Promise((resolve) => {
        setTimeout(() => resolve('old'), job.config.millis); });";
    let worker = OadaWorker::start(&oada, &[("job", slow)], &[]).await;
    place(&oada, "OLD", body("job", json!({ "millis": 3000 })));
    oada.until("the start", |oada| oada.get("/resources/OLD/updates").map(drop)).await;
    worker.write("job", "export default () => 'new one';");
    worker.write("more", "export default () => 'more';");
    worker.printed("more").await;
    let mut number = 0;
    loop {
        number += 1;
        let key = place(&oada, &format!("J{number}"), body("job", json!({ "millis": 1 })));
        if finished(&oada, &key).await.result == Some(json!("new one")) {
            break;
        }
    }
    assert_eq!(finished(&oada, "OLD").await.result, Some(json!("old")));
    place(&oada, "MORE", body("more", json!({})));
    assert_eq!(finished(&oada, "MORE").await.result, Some(json!("more")));
    worker.remove("more");
    worker.printed("a handler is gone").await;
    worker.stop().await;
}
