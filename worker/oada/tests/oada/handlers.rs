//! Handlers in JavaScript: each job in a host of its own, without the token.

use std::time::Duration;

use serde_json::{Value, json};
use tests::oada::program::{self, OadaWorker};
use tests::oada::{Oada, TOKEN, npm};
use tests::processes;

use crate::support::{PENDING, body, finished, place, read, shelves, statuses};

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
    let arguments = [&oada.url(), TOKEN, "demo", "hello", r#"{"who":"world"}"#];
    let Some(printed) = npm::run("post_job.mjs", &arguments).await else { return };
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
    let stack = typed["stack"].as_str().unwrap();
    assert!(stack.starts_with("Error: bad input\n") && stack.contains("typed.js"), "{stack}");
    oada.until("the end of the claim", |oada| {
        let job = oada.get("/resources/typed")?;
        job.as_object()?.keys().all(|key| !key.starts_with("claim")).then_some(())
    })
    .await;
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
        oada.until("the start", |oada| oada.get(&format!("/resources/{kind}/updates"))).await;
        let hosts: Vec<u32> = worker.hosts().iter().map(|host| host.pid).collect();
        let job = finished(&oada, kind).await;
        assert_eq!((job.failure_type(), statuses(&job)), (Some("timeout"), vec!["started", "failure"]), "{kind}");
        if kind == "rude" {
            let left = processes::gone(&hosts, Duration::from_secs(20)).await;
            assert!(left.len() < hosts.len(), "its host goes on: {left:?}\n{}", worker.output());
        }
    }
    worker.printed("REFUSED").await;
    let (_, metrics) = worker.http("GET", "/metrics").await;
    assert!(metrics.lines().any(|line| line == "openfn_worker_oada_late_updates_total 1"), "{metrics}");
    assert_eq!(statuses(&read(&oada, "polite")), ["started", "failure"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_checked_against_the_handlers_schema() {
    let oada = Oada::start().await;
    let handler = "export const schema = { type: 'object', required: ['to'] };
        export default (job) => ({ to: job.config.to });";
    let worker = OadaWorker::start(&oada, &[("mail", handler)], &[]).await;
    place(&oada, "BAD", body("mail", json!({})));
    assert_eq!(finished(&oada, "BAD").await.failure_type(), Some("invalid-config"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_handler_does_not_load_wait_for_one_that_does() {
    let oada = Oada::start().await;
    let good = "export default () => 'good';";
    let bad = [
        ("syntax", "export default () => {", "SyntaxError"),
        ("import", "import _ from 'lodash'; export default () => 1;", "lodash"),
        ("timeout", "export const timeout = 'soon'; export default () => 1;", "timeout"),
        ("empty", "export const x = 1;", "its default export must be a function"),
    ];
    let handlers: Vec<(&str, &str)> =
        bad.iter().map(|(kind, source, _)| (*kind, *source)).chain([("good", good)]).collect();
    let worker = OadaWorker::start(&oada, &handlers, &[]).await;
    for (kind, ..) in bad {
        place(&oada, kind, body(kind, json!({})));
    }
    place(&oada, "good", body("good", json!({})));
    finished(&oada, "good").await;
    let (status, ready) = worker.http("GET", "/readyz").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status, &ready["handlers_usable"]), (503, &json!(false)), "{ready}");
    for (kind, _, why) in bad {
        assert!(ready["withheld_types"][kind].as_str().unwrap().contains(why), "{kind}: {ready}");
        let lines = worker.output().lines().filter(|line| line.contains("ERROR") && line.contains(kind)).count();
        assert_eq!(lines, 1, "{kind}: {}", worker.output());
        assert_eq!(oada.get(&format!("/resources/{kind}")).unwrap().get("status"), None);
        worker.write(kind, "export default () => 'mended';");
    }
    for (kind, ..) in bad {
        assert_eq!(finished(&oada, kind).await.result, Some(json!("mended")));
    }
    assert_eq!(worker.http("GET", "/readyz").await.0, 200);
    // One that is gone is waited for.
    worker.remove("good");
    worker.printed("handler removed").await;
    place(&oada, "LATER", body("good", json!({})));
    worker.printed("left alone for now").await;
    worker.write("good", good);
    assert_eq!(finished(&oada, "LATER").await.result, Some(json!("good")));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_cannot_be_used_are_listed_and_none_of_them_is_started_with_strict() {
    let oada = Oada::start().await;
    let folder = tempfile::tempdir().unwrap();
    for (file, source) in [
        ("good.js", "export default () => 1;"),
        ("module.mjs", "export default () => 1;"),
        ("bad.js", "export default 1;"),
        ("twice.js", "export default () => 1;"),
        ("twice.ts", "export default () => 1;"),
        ("notes.json", "{}"),
    ] {
        std::fs::write(folder.path().join(file), source).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let listed = program::run(&oada, &["--handlers", path, "list"]).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    for line in [
        "handlers: 4",
        "  good  usable",
        "  module  usable",
        "  bad  cannot be used: TypeError: its default export must be a function",
        "  twice  cannot be used: there is more than one file for it: twice.js, twice.ts",
    ] {
        assert!(listed.lines().any(|it| it == line), "{line}: {listed}");
    }
    let refused = program::run(&oada, &["--handlers", path, "--strict", "--port", "0"]).await;
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("--strict") && told.contains("`twice`"), "{told}");
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
    worker.printed("handler removed").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_broken_on_disk_does_not_replace_the_one_that_works() {
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &[("job", "export default () => 'old';")], &[]).await;
    worker.write("job", "export default () => 'half");
    worker.printed("the one before goes on").await;
    place(&oada, "A", body("job", json!({})));
    assert_eq!(finished(&oada, "A").await.result, Some(json!("old")));
    worker.write("job", "export default () => 'mended';");
    let mut number = 0;
    let mended = loop {
        number += 1;
        let key = place(&oada, &format!("J{number}"), body("job", json!({})));
        let result = finished(&oada, &key).await.result;
        if result != Some(json!("old")) {
            break result;
        }
    };
    assert_eq!(mended, Some(json!("mended")));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_are_not_awaited_keep_their_order() {
    let oada = Oada::start().await;
    let talks =
        "export default (job, { log }) => { for (let at = 0; at < 30; at += 1) log.info(`step ${at}`, { at }); };";
    let throws = "export default (job, { log }) => { log.info('before'); throw new Error('broken'); };";
    let worker = OadaWorker::start(&oada, &[("talks", talks), ("throws", throws)], &[]).await;
    place(&oada, "J", body("talks", json!({})));
    let steps = (0..30).map(|at| format!("step {at}"));
    let expected: Vec<String> = [vec!["started".to_owned()], steps.collect(), vec!["success".to_owned()]].concat();
    assert_eq!(statuses(&finished(&oada, "J").await), expected);
    place(&oada, "K", body("throws", json!({})));
    assert_eq!(statuses(&finished(&oada, "K").await), ["started", "before", "failure"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_would_not_do_is_an_error() {
    let oada = Oada::start().await;
    let handler = "export default async (job, { oada }) => {
        const tries = [oada.put({ path: '/resources/X', data: 1, persist: {} }), oada.get({})];
        return Promise.all(tries.map((it) => it.then(() => 'done', ({ message }) => message)));
      };";
    let worker = OadaWorker::start(&oada, &[("odd", handler)], &[]).await;
    place(&oada, "J", body("odd", json!({})));
    let expected = json!(["oada.put does not know persist", "oada.get needs a path"]);
    assert_eq!(finished(&oada, "J").await.result, Some(expected));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_link_is_deleted_is_told() {
    let oada = Oada::start().await;
    let waits = "export default (job, { signal, log }) => new Promise((resolve) => {
        signal.addEventListener('abort', () => { console.log('TOLD ' + signal.aborted); resolve(); });
        log.info('begun');
      });";
    let worker = OadaWorker::start(&oada, &[("waits", waits)], &[]).await;
    place(&oada, "J", body("waits", json!({})));
    oada.until("its start", |oada| {
        oada.get("/resources/J/updates")?.as_object()?.values().any(|update| update["status"] == "begun").then_some(())
    })
    .await;
    oada.delete(&format!("{PENDING}/J"));
    worker.printed("TOLD true").await;
    assert_eq!(finished(&oada, "J").await.failure_type(), Some("cancelled"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_never_gets_into_a_host_nor_into_the_log() {
    const SECRET: &str = "a-very-private-token-of-a-queue";
    let oada = Oada::start().await;
    oada.add_token(SECRET, TOKEN);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, SECRET).unwrap();
    let waits = "export default async (job, { oada, log }) => {
        await oada.get('/bookmarks');
        await log.info('begun');
        await new Promise(() => {});
      };";
    let options = ["--token-file", file.to_str().unwrap(), "--shutdown-grace", "1"];
    let worker = OadaWorker::start(&oada, &[("waits", waits)], &options).await;
    place(&oada, "J", body("waits", json!({})));
    oada.until("its start", |oada| {
        oada.get("/resources/J/updates")?.as_object()?.values().any(|update| update["status"] == "begun").then_some(())
    })
    .await;
    let hosts = worker.hosts();
    assert!(!hosts.is_empty());
    for host in hosts {
        // Only the superuser may look at all.
        for part in ["environ", "cmdline"] {
            let text = std::fs::read(format!("/proc/{}/{part}", host.pid)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(SECRET), "{part} of {} shows it", host.name);
        }
        assert!(!processes::remembers(host.pid, SECRET), "the memory of {} holds it", host.name);
    }
    assert!(processes::remembers(worker.pid(), SECRET) || !processes::may_look_into(worker.pid()));
    assert!(!worker.output().contains(SECRET), "{}", worker.output());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_says_how_often_its_jobs_are_tried_and_what_is_to_link_to_them() {
    let oada = Oada::start().await;
    oada.put("/resources/DOC", "application/json", json!({}));
    let handler = "export const retry = { attempts: 2, pause: 10 };
        export const links = ['/config/doc'];
        export default () => { throw new JobError('always', 'bad-luck'); };";
    let worker = OadaWorker::start(&oada, &[("flaky", handler)], &[]).await;
    place(&oada, "J", body("flaky", json!({ "doc": { "_id": "resources/DOC" } })));
    assert_eq!(statuses(&finished(&oada, "J").await), ["started", "retry", "started", "failure"]);
    assert_eq!(shelves(&oada, "J"), ["failure", "dead-letter", "typed-failure/bad-luck"]);
    assert_eq!(oada.get("/resources/DOC/_meta/services/demo/jobs/J"), oada.get("/resources/J"));
    worker.stop().await;
}
