//! Runs of many kinds for as long as it takes: each must end as its kind is to end, and what engines are forked from must
//! stay as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use mock_lightning::{MockLightning, RunRecord, RunState};
use serde_json::{Value, json};

use crate::lightning::{self, one_job};
use crate::node::write_local;
use crate::processes;
use crate::random::Random;
use crate::served::serve;
use crate::worker::Worker;

/// How long a run may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// How much a template or the worker may grow, in bytes: what allocators keep, not what leaks.
pub const MAY_GROW: u64 = 16 * 1024 * 1024;

/// The adaptor whose operations use what a forked process might lack: other threads, WebAssembly, the network.
const ADAPTOR: &str = r"
const { pbkdf2 } = require('node:crypto');
const { Worker } = require('node:worker_threads');
const { promisify } = require('node:util');
const { gunzip, gzip } = require('node:zlib');

exports.fn = (f) => async (state) => f(state);
exports.exit = (code) => () => process.exit(code);
exports.fetchJson = (url) => async () => ({ data: await (await fetch(url)).json() });
exports.pool = () => async () => {
  const text = Buffer.alloc(100_000, 'x');
  const [hash, packed] = await Promise.all([promisify(pbkdf2)('p', 's', 500, 32, 'sha256'), promisify(gzip)(text)]);
  return { data: { hash: hash.length, same: text.equals(await promisify(gunzip)(packed)) } };
};
exports.thread = () => () => new Promise((resolve, reject) => {
  const worker = new Worker('require(`node:worker_threads`).parentPort.postMessage(6 * 7)', { eval: true });
  worker.once('message', (n) => resolve({ data: { n } }));
  worker.once('error', reject);
});
exports.wasm = () => async () => {
  const code = '0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b';
  const { instance } = await WebAssembly.instantiate(Buffer.from(code, 'hex'));
  return { data: { n: instance.exports.add(40, 2) } };
};
";

/// What a run does, and how it has to end.
#[derive(Debug, Clone)]
struct Kind {
    name: &'static str,
    /// How many of a thousand runs are such.
    share: usize,
    adaptor: String,
    body: String,
    state: RunState,
    /// What the final state has to be, where that matters.
    output: Option<Value>,
    /// Whether it is cancelled as soon as it has said that it works.
    is_cancelled: bool,
}

/// What is to be run.
#[derive(Debug)]
pub struct Soak {
    kinds: Vec<Kind>,
    /// The options that the worker needs for them.
    pub options: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Runs by kind.
    pub runs: BTreeMap<&'static str, usize>,
    /// Those that ended otherwise than their kind has to.
    pub wrong: Vec<String>,
    /// Those that did not end in a minute.
    pub hung: Vec<String>,
    /// What the template was like, from time to time.
    pub templates: Vec<TemplateSample>,
}

/// What a template's Node process has at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateSample {
    /// Its id.
    pub pid: u32,
    /// Memory that is in no file, in bytes, whether its children still share it or not.
    pub anonymous: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Mappings.
    pub maps: usize,
}

impl Outcome {
    /// The first template that has grown since it was first looked at by more than what allocators keep and forks hold
    /// open for a moment, if there is one: as it was, and as it is.
    pub fn grown_template(&self) -> Option<(TemplateSample, TemplateSample)> {
        let first = |it: &TemplateSample| self.templates.iter().find(|other| other.pid == it.pid).copied();
        self.templates.iter().filter_map(|it| Some((first(it)?, *it))).find(|(first, it)| {
            it.anonymous >= first.anonymous + MAY_GROW
                || it.descriptors > first.descriptors + 8
                || it.maps > first.maps + 16
        })
    }
}

impl Soak {
    /// With an adaptor of its own in this folder and a server on loopback, and `http` as one that was published, if given.
    pub async fn prepare(folder: &Path, http: Option<&str>) -> Self {
        let manifest = json!({
            "name": "@openfn/language-soak",
            "version": "1.0.0",
            "main": "index.js",
            "openfn": { "needs": { "workers": true } },
        });
        write_local(folder, "soak", &manifest, ADAPTOR);
        let url = answering().await;
        let options = ["--monorepo-dir".to_owned(), folder.display().to_string()];
        Self { kinds: kinds(&url, http), options: options.into() }
    }

    /// Executes so many runs, `width` of them queued or under way at each time. `progress` is called now and then.
    pub async fn execute(
        &self,
        lightning: &MockLightning,
        worker: &Worker,
        (runs, width): (usize, usize),
        mut progress: impl FnMut(&Outcome),
    ) -> Outcome {
        let mut random = Random::seeded();
        let mut outcome = Outcome::default();
        let mut under_way = FuturesUnordered::new();
        let mut begun = 0;
        let pause = (runs / 20).max(1);
        loop {
            while begun < runs && under_way.len() < width {
                // Each kind once, then by chance.
                let kind = self.kinds.get(begun).unwrap_or_else(|| self.by_chance(&mut random));
                under_way.push(one_run(lightning, kind));
                begun += 1;
            }
            let Some((kind, record)) = under_way.next().await else { break };
            *outcome.runs.entry(kind.name).or_default() += 1;
            match record {
                Ok(record) => outcome.wrong.extend(kind.fault(&record)),
                Err(error) => outcome.hung.push(format!("{}: {error}", kind.name)),
            }
            if outcome.runs.values().sum::<usize>() % pause == 0 {
                outcome.templates.extend(TemplateSample::take(worker));
                progress(&outcome);
            }
        }
        outcome
    }

    fn by_chance(&self, random: &mut Random) -> &Kind {
        let mut left = random.below(self.kinds.iter().map(|kind| kind.share).sum());
        let found = self.kinds.iter().find(|kind| {
            let is_it = left < kind.share;
            left = left.saturating_sub(kind.share);
            is_it
        });
        found.unwrap_or(&self.kinds[0])
    }
}

impl Kind {
    fn fault(&self, record: &RunRecord) -> Option<String> {
        let is_right = record.state == self.state && (self.output.is_none() || record.final_state == self.output);
        let RunRecord { id, state, error_type, error_message, .. } = record;
        (!is_right).then(|| format!("{} {id}: {state:?} {error_type:?} {error_message:?}", self.name))
    }
}

impl TemplateSample {
    /// Of each template that there is.
    fn take(worker: &Worker) -> Vec<Self> {
        let all = processes::descendants(worker.pid());
        let hosts: Vec<u32> = all.iter().filter(|it| it.name == "template").map(|it| it.pid).collect();
        all.iter().filter(|it| hosts.contains(&it.parent)).filter_map(|it| Self::of(it.pid)).collect()
    }

    fn of(pid: u32) -> Option<Self> {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let rollup = file("smaps_rollup")?;
        let kilobytes: u64 = rollup.split_once("Anonymous:")?.1.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            pid,
            anonymous: kilobytes * 1024,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
            maps: file("maps")?.lines().count(),
        })
    }
}

/// A run of this kind, from the queue to its end.
async fn one_run<'k>(lightning: &MockLightning, kind: &'k Kind) -> (&'k Kind, Result<RunRecord, String>) {
    let mut plan = one_job(&kind.body);
    plan["jobs"][0]["adaptor"] = kind.adaptor.as_str().into();
    let id = lightning::queue(lightning, plan);
    if kind.is_cancelled {
        let until = Instant::now() + HUNG;
        let works = |record: RunRecord| record.state.is_final() || lightning::logged(&record, "working");
        while Instant::now() < until && !lightning.run(&id).is_some_and(works) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lightning.cancel_run(&id);
    }
    if let Err(error) = lightning.wait_for_end(&id, HUNG).await {
        return (kind, Err(error.to_string()));
    }
    (kind, lightning.forget_run(&id).ok_or_else(|| "the double has no such run".to_owned()))
}

/// Starts a server on loopback that answers `{"n":42}` to GET and POST, and gives its URL.
pub async fn answering() -> String {
    let answer = || async { Json(json!({ "n": 42 })) };
    let address = serve(Router::new().route("/json", get(answer).post(answer))).await;
    format!("http://{address}/json")
}

fn kinds(url: &str, http: Option<&str>) -> Vec<Kind> {
    let kind = |name, share, body: &str, state| Kind {
        name,
        share,
        adaptor: "@openfn/language-soak@local".to_owned(),
        body: body.to_owned(),
        state,
        output: None,
        is_cancelled: false,
    };
    let gives = |data: Value, kind: Kind| Kind { output: Some(json!({ "data": data })), ..kind };
    let answer = json!({ "n": 42 });
    let mut kinds = vec![
        gives(answer.clone(), kind("trivial", 600, "fn(() => ({ data: { n: 42 } }))", RunState::Success)),
        gives(answer.clone(), kind("fetch", 100, &format!("fetchJson('{url}')"), RunState::Success)),
        gives(json!({ "hash": 32, "same": true }), kind("thread pool", 80, "pool()", RunState::Success)),
        gives(answer.clone(), kind("worker_threads", 30, "thread()", RunState::Success)),
        gives(answer, kind("wasm", 80, "wasm()", RunState::Success)),
        kind("throws", 40, "fn(() => { throw new Error('on purpose'); })", RunState::Failed),
        kind("exits", 10, "exit(7)", RunState::Crashed),
        kind(
            "state of 5 MB",
            10,
            "fn(() => ({ data: Array.from({ length: 50_000 }, (_, at) => ({ at, text: 'x'.repeat(80) })) }))",
            RunState::Success,
        ),
        kind(
            "out of memory",
            5,
            "fn(() => { const all = []; for (;;) all.push(Array.from({ length: 1e4 }, () => ({ at: all.length }))); })",
            RunState::Killed,
        ),
        Kind {
            is_cancelled: true,
            ..kind("cancelled", 10, "fn(() => { console.log('working'); for (;;); })", RunState::Cancelled)
        },
    ];
    if let Some(http) = http {
        let body = format!("get('{url}'); post('{url}', {{ body: {{ a: 1 }} }}); fn(({{ data }}) => ({{ data }}))");
        let kind = gives(json!({ "n": 42 }), kind("language-http", 60, &body, RunState::Success));
        kinds.push(Kind { adaptor: http.to_owned(), ..kind });
    }
    kinds
}
