//! How long a job takes to compile: prints p50 and p95 for jobs of several lengths. A job of 200 lines is to stay within 2 ms.

use std::hint::black_box;
use std::time::{Duration, Instant};

use engine_host::compile::{Adaptor, compile};

const RUNS: usize = 500;

/// Twenty lines as people write them.
const LINES: &str = r#"// Look up the patients that changed, and send each to the register.
get(`/patients?since=${$.data.since}`, { headers: { accept: 'application/json' } });

const normalise = ({ name = '', born, ...rest }) => ({
  ...rest,
  name: name.trim().replace(/\s+/g, ' '),
  born: born ? new Date(born).toISOString() : null,
});

fn(state => {
  const patients = (state.data.entry ?? []).map(entry => entry.resource).filter(Boolean);
  console.log(`Found ${patients.length} patients`);
  return { ...state, patients: patients.map(normalise), count: (state.count ?? 0) + patients.length };
});

each(
  $.patients.filter(it => it.name),
  post('/register', state => ({ body: { id: state.data.id, name: state.data.name, at: Date.now() } }))
).then(state => ({ ...state, sent: state.index })).catch((error, state) => ({ ...state, failed: error.message }));
"#;

fn main() {
    let exports = ["fn", "get", "post", "each", "execute"].map(String::from);
    let adaptors = [Adaptor { specifier: "@openfn/language-common", exports: Some(&exports) }];
    for lines in [20, 200, 2_000] {
        let job = job(lines);
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                black_box(compile(black_box(&job), &adaptors)).expect("the job is valid");
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{lines} lines: p50 {:?}, p95 {:?}", times[RUNS / 2], times[RUNS * 95 / 100]);
    }
}

fn job(lines: usize) -> String {
    (0..lines / 20).map(|part| LINES.replace("normalise", &format!("normalise{part}"))).collect()
}
