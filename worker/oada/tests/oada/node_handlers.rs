//! Handlers on Node, as their authors write them: packages, modules of all kinds, TypeScript, and the store as the real
//! client has it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::oada::program::{self, OadaWorker};
use tests::oada::{Action, Direction, Fault, Oada};
use tests::processes::{self, command_line, gone};

use crate::support::{body, finished, place, shelves, statuses, within};

const NODE: [&str; 2] = ["--handler-engine", "node"];

/// A folder with these files in its folder of handlers.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (name, text) in files {
        let file = folder.path().join("handlers").join(name);
        std::fs::create_dir_all(file.parent().expect("it is in a folder")).expect("it can be written");
        std::fs::write(file, text).expect("it can be written");
    }
    folder
}

/// Variables that the service has and passes on, or does not.
const VARIABLES: [(&str, &str); 2] = [("apiKey", "k-1"), ("other", "o-1")];

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_the_variables_that_are_named() {
    let tells = "export default () => [process.env.apiKey, typeof process.env.other];";
    let oada = Oada::start().await;
    let options = [&NODE[..], &["--job-env", "apiKey,TZ"]].concat();
    let worker = OadaWorker::start_with(&oada, &[("tells", tells)], &options, &VARIABLES).await;
    place(&oada, "JOB", body("tells", json!({})));
    assert_eq!(finished(&oada, "JOB").await.result, Some(json!(["k-1", "undefined"])));
    worker.stop().await;
}

const PACKAGE: [(&str, &str); 2] = [
    ("node_modules/shout/package.json", r#"{ "name": "shout", "version": "1.0.0", "main": "main.js" }"#),
    ("node_modules/shout/main.js", "module.exports = (text) => `${text.toUpperCase()}!`;"),
];

#[tokio::test(flavor = "multi_thread")]
async fn modules_of_all_kinds_use_packages_and_all_of_node() {
    let esm = "import shout from 'shout';
        import { readFile } from 'node:fs/promises';
        const own = await readFile(new URL(import.meta.url), 'utf8');
        export default async (job) => [shout(job.config.text), own.length > 0, typeof fetch, structuredClone({ a: 1 }).a];";
    let common = "const shout = require('shout');
        const { twice } = require('./twice.cts');
        exports.timeout = 60_000;
        exports.default = async (job) => twice(shout(job.config.text));";
    let typed = "import type { Job } from '@oada/jobs';
        import shout from 'shout';
        import { Kind, kindOf } from './kind.js';
        export const timeout: number = 60_000;
        export default async (job: Job): Promise<string[]> => [shout(job.config.text as string), Kind[kindOf(1)]];";
    let files =
        [("esm.js", esm), ("common.cjs", common), ("twice.d.ts", ""), ("typed.ts", typed), ("lib/readme.txt", "")];
    let libraries = [
        ("lib/kind.ts", "export enum Kind { Small = 1 } export const kindOf = (n: number): Kind => n;"),
        ("lib/twice.cts", "exports.twice = (text: string): string => text + text;"),
    ];
    let files: Vec<(&str, String)> = files
        .iter()
        .chain(&libraries)
        .chain(&PACKAGE)
        .map(|(name, text)| (*name, text.replace("'./", "'./lib/")))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let oada = Oada::start().await;
    let worker = OadaWorker::start_in(&oada, folder(&files), &NODE).await;
    for (kind, expected) in
        [("esm", json!(["HI!", true, "function", 1])), ("common", json!("HI!HI!")), ("typed", json!(["HI!", "Small"]))]
    {
        place(&oada, kind, body(kind, json!({ "text": "hi" })));
        assert_eq!(finished(&oada, kind).await.result, Some(expected), "{kind}\n{}", worker.output());
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_loaded_before_there_is_a_job_and_knows_no_secret() {
    let look =
        "export default async () => ({ pid: process.pid, names: Object.keys(process.env), words: process.argv });";
    let oada = Oada::start().await;
    let options = [&NODE[..], &["--concurrency", "1", "--warm-hosts", "1"]].concat();
    let worker = OadaWorker::start_in(&oada, folder(&[("look.mjs", look)]), &options).await;
    let loaded = || {
        let all = processes::descendants(worker.pid());
        all.iter().find(|it| command_line(it.pid).contains("look.mjs")).map(|it| it.pid)
    };
    let waiting = async {
        loop {
            if let Some(pid) = loaded() {
                return pid;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let loaded = within("the loading", &oada, waiting).await;
    place(&oada, "JOB", body("look", json!({})));
    let result = finished(&oada, "JOB").await.result.expect("it has one");
    let pid = u32::try_from(result["pid"].as_u64().expect("it is one")).expect("it is one");
    assert_eq!(pid, loaded, "{}", worker.output());
    assert!(result["names"].as_array().is_some_and(|names| names.iter().all(|name| name != "ENGINE_HOST_TOKEN")));
    assert_eq!(gone(&[pid], Duration::from_secs(20)).await, Vec::<u32>::new(), "one job each");
    worker.stop().await;
}

/// For both engines.
const STORE: &str = r"
const tree = { bookmarks: { _type: 'application/vnd.oada.bookmarks.1+json', _rev: 0,
  things: { _type: 'application/vnd.oada.things.1+json', _rev: 0, '*': { _type: 'application/vnd.oada.thing.1+json', _rev: 0 } } } };
export default async (job, { log, oada }) => {
  await oada.put({ path: '/bookmarks/things/a', data: { n: 1 }, tree });
  await oada.ensure({ path: '/bookmarks/things/a', data: { n: 7 }, tree });
  await oada.ensure({ path: '/bookmarks/things/b', data: { n: 2 }, tree });
  const { headers } = await oada.post({ path: '/bookmarks/things', data: { n: 3 }, tree });
  const { data, headers: { etag } } = await oada.get({ path: '/bookmarks/things', tree });
  const numbers = Object.values(data).map(({ n }) => n).filter((n) => n !== undefined).sort();
  const { changes } = await oada.watch({ path: '/bookmarks/things' });
  const seen = [];
  const watching = (async () => {
    for await (const change of changes) {
      if (change.path === '/a') seen.push(change.body.n);
      if (seen.length === 2) break;
    }
  })();
  await oada.put({ path: '/bookmarks/things/a', data: { n: 4 } });
  await oada.put({ path: '/bookmarks/things/a', data: { n: 5 } });
  await watching;
  const refused = await oada.put({ path: '/bookmarks/things', data: { x: 1 }, etagIfMatch: etag }).catch((error) => error);
  const { name, status, code } = refused;
  await log.warn('careful');
  await log.child({ of: 'a' }).info({ n: 1 }, 'words');
  await log.error(new RangeError('too far'));
  await oada.watch({ path: '/bookmarks/things' });
  return { numbers, seen, posted: headers['content-location'] !== undefined,
    refused: { name, status, code, headers: typeof refused.headers, data: typeof refused.data } };
};";

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_there_as_the_real_client_has_it_on_both_engines() {
    for engine in ["node", "embedded"] {
        let oada = Oada::start().await;
        let worker = OadaWorker::start(&oada, &[("store", STORE)], &["--handler-engine", engine]).await;
        place(&oada, "JOB", body("store", json!({})));
        let job = finished(&oada, "JOB").await;
        let refused =
            json!({ "name": "StoreError", "status": 412, "code": "412", "headers": "object", "data": "object" });
        let expected = json!({ "numbers": [1, 2, 3], "seen": [4, 5], "posted": true, "refused": refused });
        assert_eq!(job.result, Some(expected), "{engine}\n{}", oada.told());
        assert_eq!(statuses(&job), ["started", "careful", "words", "too far", "success"], "{engine}");
        assert_eq!(job.updates[2].meta, Some(json!({ "of": "a", "n": 1 })));
        assert_eq!(job.updates[3].meta.as_ref().map(|meta| &meta["name"]), Some(&json!("RangeError")), "{engine}");
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_in_a_handler_ends_its_job_and_nothing_else() {
    let handlers = [
        ("typed", "export default async () => { throw new JobError('bad input', 'bad-input'); };"),
        (
            "late",
            "export default () => { setTimeout(() => { throw new Error('later'); }, 1); return new Promise(() => {}); };",
        ),
        ("exits", "export default () => process.exit(3);"),
        ("odd", "export default () => 1n;"),
        ("large", "export default () => { const all = []; for (;;) all.push(new Array(1e5).fill({})); };"),
        ("busy", "export const timeout = 300; export default () => { for (;;); };"),
        ("fine", "export default () => 'fine';"),
    ];
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &handlers, &[&NODE[..], &["--memory", "64"]].concat()).await;
    for (kind, _) in handlers {
        place(&oada, kind, body(kind, json!({})));
    }
    for (kind, told, shelf) in [
        ("typed", "bad input", Some("typed-failure/bad-input")),
        ("late", "later", None),
        ("exits", "exit status: 3", None),
        ("odd", "BigInt", None),
        ("large", "Node ended", None),
        ("busy", "exceeded the allowed 300 ms", Some("typed-failure/timeout")),
    ] {
        let job = finished(&oada, kind).await;
        let message = job.result.as_ref().map(|result| result["message"].to_string()).unwrap_or_default();
        assert!(message.contains(told), "{kind}: {message}\n{}", worker.output());
        let expected: Vec<&str> = ["failure"].into_iter().chain(shelf).collect();
        assert_eq!(shelves(&oada, kind), expected, "{kind}");
    }
    assert_eq!(finished(&oada, "fine").await.result, Some(json!("fine")));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_handler_does_not_outlive_a_service_that_is_killed() {
    let busy = "export default async (job, { log }) => { await log.info('busy', process.pid); for (;;); };";
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &[("busy", busy)], &NODE).await;
    place(&oada, "JOB", body("busy", json!({})));
    let pid = oada
        .until("the handler", |oada| {
            let updates = oada.get("/resources/JOB/updates")?;
            let busy = updates.as_object()?.values().find(|it| it["status"] == "busy")?.clone();
            u32::try_from(busy["meta"].as_u64()?).ok()
        })
        .await;
    worker.kill().await;
    assert_eq!(gone(&[pid], Duration::from_secs(20)).await, Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_cannot_be_loaded_says_why() {
    let files = [
        ("syntax.mjs", "export default 5 +"),
        ("types.ts", "export default (job: = 1"),
        ("package.mjs", "import missing from 'missing'; export default missing;"),
        ("none.mjs", "export const timeout = 5;"),
    ];
    let oada = Oada::start().await;
    oada.inject(Fault::status("unused", 500).path("/nowhere"));
    let folder = folder(&files);
    let handlers = folder.path().join("handlers");
    let output = program::run(&oada, &["--handler-engine", "node", "--handlers", text(&handlers), "list"]).await;
    let listed = String::from_utf8_lossy(&output.stdout);
    for (kind, why) in [
        ("syntax", "SyntaxError"),
        ("types", "types.ts"),
        ("package", "Cannot find package 'missing'"),
        ("none", "its default export must be a function"),
    ] {
        let line = listed.lines().find(|line| line.trim_start().starts_with(kind)).unwrap_or_default();
        assert!(
            line.contains("cannot be used") && line.contains(why),
            "{listed}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is UTF-8")
}

/// What a handler on the embedded engine finds of any JavaScript world.
const GLOBALS: &str = r"
export default async (job, { signal }) => {
  const controller = new AbortController();
  let heard = 0;
  controller.signal.addEventListener('abort', () => { heard += 1; });
  controller.abort();
  const cyclic = { map: new Map([['a', new Date(0)]]) };
  cyclic.own = cyclic;
  const copy = structuredClone(cyclic);
  const url = new URL('HTTP://User@Example.org:80/a/./b/../d e?b=%20+1#h');
  url.searchParams.append('n', '\u00e9');
  const fetched = await fetch('http://127.0.0.1').catch(({ message }) => message);
  return {
    text: new TextDecoder().decode(new TextEncoder().encode('a\u00e9\u20ac\ud83d\ude00')),
    copied: copy !== cyclic && copy.own === copy && copy.map.get('a').getTime() === 0,
    heard, reason: controller.signal.reason.name, signal: signal instanceof AbortSignal,
    random: crypto.getRandomValues(new Uint32Array(4)).some((n) => n > 0),
    uuid: /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID()),
    url: [url.href, url.searchParams.get('b'), url.host, new URL('../c?x#y', url).href, URL.canParse('nothing')],
    fetched,
  };
};";

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_has_what_any_javascript_world_has() {
    let oada = Oada::start().await;
    let worker = OadaWorker::start(&oada, &[("globals", GLOBALS)], &["--handler-engine", "embedded"]).await;
    place(&oada, "JOB", body("globals", json!({})));
    let mut result = finished(&oada, "JOB").await.result.expect("it has one");
    let fetched = result.as_object_mut().and_then(|it| it.remove("fetched"));
    assert!(
        fetched.as_ref().and_then(Value::as_str).is_some_and(|it| it.contains("--handler-engine node")),
        "{fetched:?}"
    );
    let expected = json!({ "text": "a\u{e9}\u{20ac}\u{1f600}", "copied": true, "heard": 1, "reason": "AbortError",
        "signal": true, "random": true, "uuid": true,
        "url": ["http://User@example.org/a/d%20e?b=++1&n=%C3%A9#h", "  1", "example.org", "http://User@example.org/c?x#y", false] });
    assert_eq!(result, expected);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_whose_import_changes_is_loaded_anew_and_its_jobs_wait_while_it_cannot_be() {
    let files = [
        ("job.mjs", "import { text } from './lib/text.mjs';\nexport default () => text;"),
        ("common.cjs", "const { text } = require('./lib/text.cjs');\nmodule.exports = () => text;"),
        ("lib/text.mjs", "export const text = 'first';"),
        ("lib/text.cjs", "exports.text = 'first';"),
    ];
    let oada = Oada::start().await;
    let worker = OadaWorker::start_in(&oada, folder(&files), &NODE).await;
    let kinds = ["job", "common"];
    for kind in kinds {
        place(&oada, &format!("{kind}1"), body(kind, json!({})));
        assert_eq!(finished(&oada, &format!("{kind}1")).await.result, Some(json!("first")));
    }
    // Some hosts have loaded what was there, and others are to load this.
    worker.write_file("lib/text.mjs", "\nexport const text = ;");
    worker.write_file("lib/text.cjs", "\nexports.text = ;");
    for kind in kinds {
        worker.printed(&format!(":2); jobs of its type wait kind=\"{kind}\"")).await;
        place(&oada, &format!("{kind}2"), body(kind, json!({})));
    }
    let (status, text) = worker.http("GET", "/readyz").await;
    assert!(status == 503 && text.contains("SyntaxError"), "{text}");
    worker.write_file("lib/text.mjs", "export const text = 'second';");
    worker.write_file("lib/text.cjs", "exports.text = 'second';");
    for kind in kinds {
        let job = finished(&oada, &format!("{kind}2")).await;
        assert_eq!(job.result, Some(json!("second")), "{kind}\n{}", worker.output());
        assert_eq!(statuses(&job), ["started", "success"]);
    }
    assert_eq!(worker.http("GET", "/readyz").await.0, 200);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_handler_was_broken_since_it_was_looked_at_is_left_for_later() {
    // The second time that it is loaded, it cannot be; the first time, it is looked at.
    let handler = "import { appendFileSync, readFileSync } from 'node:fs';
        appendFileSync('loads', '.');
        if (readFileSync('loads', 'utf8').length === 2) throw new Error('not now');
        export default () => 'done';";
    let oada = Oada::start().await;
    let options = [&NODE[..], &["--concurrency", "1", "--warm-hosts", "1", "--half-run", "fail"]].concat();
    let worker = OadaWorker::start_in(&oada, folder(&[("odd.mjs", handler)]), &options).await;
    place(&oada, "JOB", body("odd", json!({})));
    let job = finished(&oada, "JOB").await;
    assert_eq!(job.result, Some(json!("done")), "{:?}\n{}", job.result, worker.output());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_syntax_error_is_told_with_its_line() {
    let files = [
        ("esm.mjs", "export const timeout = 1;\n\nexport default () => { const x = ; };"),
        ("common.cjs", "\nconst y = ;"),
        ("typed.ts", "\n\nexport default (a: ) => 1;"),
        ("thrown.mjs", "throw new SyntaxError('mine');"),
    ];
    let oada = Oada::start().await;
    let worker = OadaWorker::start_in(&oada, folder(&files), &NODE).await;
    let (_, text) = worker.http("GET", "/readyz").await;
    let told: Value = serde_json::from_str(&text).expect("it is JSON");
    let places =
        [("esm", "esm.mjs:3"), ("common", "common.cjs:2"), ("typed", "typed.ts:3"), ("thrown", "thrown.mjs:1")];
    for (kind, part) in places {
        let why = told["withheld_types"][kind].as_str().expect("it is withheld");
        assert!(why.starts_with("SyntaxError: ") && why.contains(part), "{why}");
    }
    worker.stop().await;
}

/// For both engines.
const MANY: &str = "export default async (job, { oada }) => {
  for (let i = 0; i < 300; i += 1) oada.put({ path: '/resources/MANY', data: { [`key${i}`]: i } });
  return 'done';
};";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_has_begun_is_written_and_so_much_at_a_time() {
    for engine in ["node", "embedded"] {
        let oada = Oada::start().await;
        oada.put("/resources/MANY", "application/json", json!({}));
        oada.inject(Fault::new("slow", Action::Delay(Duration::from_millis(20))).path("/resources/MANY").times(1000));
        let options = ["--handler-engine", engine, "--requests", "1000"];
        let worker = OadaWorker::start(&oada, &[("many", MANY)], &options).await;
        place(&oada, "JOB", body("many", json!({})));
        assert_eq!(finished(&oada, "JOB").await.result, Some(json!("done")), "{engine}");
        let written = oada.get("/resources/MANY").expect("it is there");
        let keys = written.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("key")).count();
        let (mut under_way, mut most) = (std::collections::HashSet::new(), 0);
        for entry in oada.trace() {
            match entry.direction {
                Direction::FromClient if entry.message["path"] == "/resources/MANY" => {
                    under_way.insert(entry.message["requestId"].to_string());
                }
                Direction::FromClient => {}
                Direction::FromStore => {
                    under_way.remove(&entry.message["requestId"].to_string());
                }
            }
            most = most.max(under_way.len());
        }
        assert!(keys == 300 && (2..=64).contains(&most), "{engine}: {keys} were written, {most} at a time");
        worker.stop().await;
    }
}
