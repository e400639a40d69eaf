//! What a hostile job or adaptor tries reaches neither the worker, nor another run, nor what is left when it is over.
//!
//! [`ATTACKS`] is the list: for both engines, file system, processes, descriptors, sockets, memory, log, disk and signals.
//! Another run is under way all the time, and one that does nothing ends well after each attack.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use mock_lightning::{MockLightning, RunState};
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, chain, end, queue, until};
use tests::node::write_local;
use tests::processes;
use tests::worker::{UNCONFINED, Worker, local_adaptors};
use tests::{binaries, leftovers};

/// What executes the attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// A job in the embedded engine.
    Embedded,
    /// An adaptor in Node that may do what all may.
    Plain,
    /// One that may start processes.
    Native,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    Files,
    Processes,
    Descriptors,
    Sockets,
    Memory,
    Log,
    Disk,
    Signals,
    Depth,
}

const AREAS: [Area; 9] = [
    Area::Files,
    Area::Processes,
    Area::Descriptors,
    Area::Sockets,
    Area::Memory,
    Area::Log,
    Area::Disk,
    Area::Signals,
    Area::Depth,
];

/// How the attack ends.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// It could do nothing of what it tried: its `data` is this.
    With(&'static str),
    /// The run is killed for this.
    Killed(&'static str),
    /// The run fails for this, by a limit of the engine's own.
    Failed(&'static str),
    /// Somehow: what counts is what becomes of others.
    Anyhow,
}

/// One attack: its code is the body of an async function with `require`. Words in capitals stand for what is there.
struct Attack {
    by: By,
    area: Area,
    what: &'static str,
    code: &'static str,
    ends: Ends,
    /// The Landlock of the kernel without which it is not refused.
    landlock: u32,
}

const fn attack(by: By, area: Area, what: &'static str, code: &'static str, ends: Ends) -> Attack {
    Attack { by, area, what, code, ends, landlock: 0 }
}

/// One that only the kernel refuses.
const fn native(area: Area, what: &'static str, code: &'static str, ends: Ends, landlock: u32) -> Attack {
    Attack { by: By::Native, area, what, code, ends, landlock }
}

/// Those of these lines that a shell can do, joined.
const SHELL: &str = "const done = (lines) => lines.filter((line) =>
        require('node:child_process').spawnSync('sh', ['-c', line], { stdio: 'ignore' }).status === 0).join('; ');";

const ATTACKS: &[Attack] = &[
    attack(
        By::Embedded,
        Area::Files,
        "names of what reaches files",
        "return ['require', 'process', 'module', 'fetch', 'WebAssembly', 'std', 'os', 'Deno', '__filename']
            .filter((name) => name in globalThis).join()",
        Ends::With(""),
    ),
    attack(
        By::Plain,
        Area::Files,
        "writes and reads elsewhere",
        "const fs = require('node:fs');
         const able = (what) => { try { what(); return true } catch { return false } };
         const places = ['/tmp', '/dev/shm', '/var/tmp', 'RUNTIME', 'ROOT', '/proc/self/..'];
         return places.filter((place) => able(() => fs.writeFileSync(`${place}/attack`, 'x')) || able(() => fs.readdirSync(place))).join()",
        Ends::With(""),
    ),
    attack(
        By::Plain,
        Area::Files,
        "links, processes and what lies above",
        "const fs = require('node:fs');
         const able = (what) => { try { what(); return true } catch { return false } };
         return Object.entries({
             link: () => { fs.symlinkSync('SECRET', 'link'); fs.readFileSync('link') },
             secret: () => fs.readFileSync('SECRET'),
             above: () => fs.readdirSync('..'),
             environ: () => fs.readFileSync('/proc/self/environ'),
             memory: () => fs.openSync('/proc/self/mem', 'r+'),
             worker: () => fs.readFileSync('/proc/WORKER/environ'),
         }).filter(([, what]) => able(what)).map(([name]) => name).join()",
        Ends::With(""),
    ),
    attack(
        By::Plain,
        Area::Files,
        "variables that hold secrets",
        "return Object.keys(process.env).filter((name) => /worker|secret|token|npm/i.test(name)).join()",
        Ends::With(""),
    ),
    native(
        Area::Files,
        "writes elsewhere by other programs",
        "return done(['/tmp', '/dev/shm', '/var/tmp', 'RUNTIME', 'ROOT'].map((place) => `touch ${place}/attack`))",
        Ends::With(""),
        1,
    ),
    native(
        Area::Files,
        "reads of what others wrote",
        "return done(['cat SECRET', 'ls RUNTIME', 'grep -qa = /proc/WORKER/environ', 'cat /proc/WORKER/cwd/*'])",
        Ends::With(""),
        1,
    ),
    attack(
        By::Embedded,
        Area::Processes,
        "code from strings and prototypes of the engine's own",
        "try { return [].constructor.constructor('return 1')() } catch { return '' }",
        Ends::Anyhow,
    ),
    attack(
        By::Embedded,
        Area::Processes,
        "recursion without end",
        "const again = () => again() + 1; try { return String(again()) } catch { return '' }",
        Ends::With(""),
    ),
    attack(
        By::Plain,
        Area::Processes,
        "processes, threads and native code",
        "const able = (what) => { try { what(); return true } catch { return false } };
         return Object.entries({
             spawn: () => require('node:child_process').spawnSync('true').pid || null.x,
             worker: () => new (require('node:worker_threads').Worker)('', { eval: true }),
             inspector: () => require('node:inspector').open(0) ?? null.x,
             dlopen: () => process.dlopen({ exports: {} }, '/lib/x86_64-linux-gnu/libc.so.6'),
         }).filter(([, what]) => able(what)).map(([name]) => name).join()",
        Ends::With(""),
    ),
    native(
        Area::Processes,
        "looks into the worker and into another run",
        "return done(['WORKER', 'HOST', 'ENGINE'].flatMap((pid) =>
             ['environ', 'maps', 'mem', 'fd/0', 'auxv', 'stack'].map((file) => `test -n \"$(head -c1 /proc/${pid}/${file})\"`)))",
        Ends::With(""),
        1,
    ),
    native(
        Area::Processes,
        "a daemon",
        "return done(['setsid -f sleep 987654', '(sleep 987654 &) &'])",
        Ends::With("setsid -f sleep 987654; (sleep 987654 &) &"),
        0,
    ),
    native(
        Area::Processes,
        "many processes",
        "return String(done(Array(40).fill('setsid -f sleep 987654')).length > 0)",
        Ends::With("true"),
        0,
    ),
    native(
        Area::Descriptors,
        "those that the worker inherited",
        "const open = String(require('node:child_process').spawnSync('sh', ['-c', 'ls /proc/$PPID/fd /proc/self/fd']).stdout);
         return open.split(/\\s+/).filter((number) => ['77', '78'].includes(number)).join()",
        Ends::With(""),
        0,
    ),
    attack(
        By::Plain,
        Area::Descriptors,
        "as many as there may be",
        "const fs = require('node:fs'); const all = [];
         try { for (;;) all.push(fs.openSync(process.cwd(), 'r')) } catch (error) { return error.code }",
        Ends::With("EMFILE"),
    ),
    attack(
        By::Plain,
        Area::Descriptors,
        "closes all that the engine has",
        "const fs = require('node:fs'); for (let fd = 3; fd < 60; fd += 1) { try { fs.closeSync(fd) } catch {} } return ''",
        Ends::Anyhow,
    ),
    attack(By::Embedded, Area::Descriptors, "none to be had", "return typeof globalThis.open", Ends::With("undefined")),
    attack(
        By::Plain,
        Area::Sockets,
        "the worker's own sockets",
        "const net = require('node:net'); const heard = [];
         for (const name of ['link', 'admin']) {
             await new Promise((resolve) => {
                 const socket = net.connect(`SOCKETS/${name}`);
                 socket.on('data', (data) => heard.push(name)).on('error', resolve).on('close', resolve);
                 socket.write('x'.repeat(1000)); setTimeout(() => socket.destroy(), 500);
             });
         }
         return heard.join()",
        Ends::With(""),
    ),
    native(
        Area::Sockets,
        "the worker's own sockets, by other programs",
        "return done(['link', 'admin'].map((name) => `${process.execPath} -e '
             const socket = require(\"net\").connect(\"SOCKETS/${name}\", () => socket.write(\"x\".repeat(1000) + String.fromCharCode(10)));
             socket.on(\"data\", () => process.exit(0)).on(\"error\", () => process.exit(1)).on(\"close\", () => process.exit(1));
             setTimeout(() => process.exit(1), 2000)'`))",
        Ends::With(""),
        0,
    ),
    attack(By::Embedded, Area::Sockets, "none to be had", "return typeof globalThis.WebSocket", Ends::With("undefined")),
    attack(
        By::Embedded,
        Area::Memory,
        "all that there is",
        "const all = []; for (;;) all.push(new Uint8Array(1e6).fill(1))",
        Ends::Killed("OOMError"),
    ),
    attack(
        By::Embedded,
        Area::Memory,
        "one text",
        "let text = 'x'; for (;;) text += text",
        Ends::Anyhow,
    ),
    attack(
        By::Plain,
        Area::Memory,
        "the heap",
        "const all = []; for (;;) all.push(Array(1000).fill(all.length))",
        Ends::Killed("OOMError"),
    ),
    attack(By::Plain, Area::Memory, "one text", "let text = 'x'; for (;;) text += text + Math.random()", Ends::Anyhow),
    attack(
        By::Plain,
        Area::Memory,
        "buffers",
        "const all = []; for (;;) all.push(Buffer.alloc(1e7, 1))",
        Ends::Killed("OOMError"),
    ),
    native(
        Area::Memory,
        "of a daemon, while its run waits",
        "require('node:child_process').spawnSync('setsid', ['-f', process.execPath, '-e', `const all = [];
             setInterval(() => all.push(Buffer.alloc(2e7, 1)), 5)`], { stdio: 'ignore' });
         await new Promise((resolve) => setTimeout(resolve, 60000))",
        Ends::Killed("OOMError"),
        0,
    ),
    attack(
        By::Embedded,
        Area::Log,
        "many lines and a long one",
        "for (let i = 0; i < 20000; i += 1) console.log(i); console.log('x'.repeat(5e6)); return ''",
        Ends::With(""),
    ),
    attack(
        By::Plain,
        Area::Log,
        "many lines and a long one, by each way out",
        "for (let i = 0; i < 5000; i += 1) console.log(i);
         process.stdout.write('x'.repeat(5e6)); process.stderr.write('y\\n'.repeat(1e5)); return ''",
        Ends::With(""),
    ),
    attack(
        By::Plain,
        Area::Log,
        "frames of its own to whatever is open",
        "const fs = require('node:fs');
         const frame = JSON.stringify({ log: { source: 'R/T', level: 'error', message: ['x'.repeat(1e5)] } }) + '\\n';
         for (let fd = 3; fd < 40; fd += 1) { try { fs.writeSync(fd, frame) } catch {} }
         return ''",
        Ends::Anyhow,
    ),
    native(
        Area::Log,
        "many lines by other programs",
        "require('node:child_process').spawnSync('sh', ['-c', 'yes | head -c 5000000; yes | head -c 5000000 >&2'], { stdio: 'inherit' });
         return ''",
        Ends::With(""),
        0,
    ),
    attack(
        By::Plain,
        Area::Disk,
        "a long file",
        "require('node:fs').writeFileSync('long', Buffer.alloc(3e7, 1)); return ''",
        Ends::Killed("ScratchLimitError"),
    ),
    attack(
        By::Plain,
        Area::Disk,
        "several files",
        "for (let i = 0; i < 9; i += 1) require('node:fs').writeFileSync(`f${i}`, Buffer.alloc(3e6, 1));
         await new Promise((resolve) => setTimeout(resolve, 60000))",
        Ends::Killed("ScratchLimitError"),
    ),
    attack(
        By::Plain,
        Area::Disk,
        "files without anything in them",
        "for (let i = 0; i < 5000; i += 1) require('node:fs').writeFileSync(`f${i}`, '');
         await new Promise((resolve) => setTimeout(resolve, 60000))",
        Ends::Killed("ScratchLimitError"),
    ),
    attack(
        By::Plain,
        Area::Disk,
        "files without a name",
        "const fs = require('node:fs'); const all = [];
         for (let i = 0; i < 9; i += 1) {
             all.push(fs.openSync('file', 'w')); fs.writeSync(all[i], Buffer.alloc(3e6, 1)); fs.unlinkSync('file');
         }
         await new Promise((resolve) => setTimeout(resolve, 60000)); return all.length",
        Ends::Killed("ScratchLimitError"),
    ),
    native(
        Area::Disk,
        "by a daemon, in a folder that is closed",
        "done([`mkdir a && setsid -f sh -c 'cd a; for i in 1 2 3 4 5 6 7 8 9; do head -c 3000000 /dev/zero > $i; done; chmod 0 .; sleep 987654'`]);
         await new Promise((resolve) => setTimeout(resolve, 60000))",
        Ends::Killed("ScratchLimitError"),
        0,
    ),
    attack(By::Embedded, Area::Disk, "none to be had", "return typeof globalThis.localStorage", Ends::With("undefined")),
    attack(By::Embedded, Area::Signals, "none to be had", "return typeof globalThis.process", Ends::With("undefined")),
    attack(
        By::Plain,
        Area::Signals,
        "to the worker and to another run",
        "return [WORKER, HOST, ENGINE, -WORKER, -HOST, -1].filter((pid) => {
             try { return process.kill(pid, 'SIGSTOP') } catch { return false }
         }).join()",
        Ends::With(""),
    ),
    attack(
        By::Plain,
        Area::Signals,
        "to its own host",
        "return [process.ppid, -process.ppid].filter((pid) => {
             try { return process.kill(pid, 'SIGSTOP') } catch { return false }
         }).join()",
        Ends::With(""),
    ),
    attack(By::Plain, Area::Signals, "to itself", "process.kill(process.pid, 'SIGKILL'); for (;;);", Ends::Anyhow),
    attack(By::Plain, Area::Signals, "an abort", "process.abort()", Ends::Anyhow),
    native(
        Area::Signals,
        "to the worker and to another run, by other programs",
        "return done(['WORKER', 'HOST', 'ENGINE', '-HOST', '-ENGINE'].flatMap((pid) =>
             ['STOP', 'KILL', 'USR1', 'TERM', '0'].map((signal) => `kill -s ${signal} -- ${pid}`)))",
        Ends::With(""),
        6,
    ),
    attack(
        By::Embedded,
        Area::Depth,
        "a state that nests deep",
        "let deep = {}; for (let i = 0; i < 50000; i += 1) deep = { deep }; console.log(deep); return deep",
        Ends::Failed("RuntimeError"),
    ),
    attack(
        By::Plain,
        Area::Depth,
        "a state that nests deep",
        "let deep = {}; for (let i = 0; i < 50000; i += 1) deep = { deep }; console.log(deep); return deep",
        Ends::Failed("RuntimeError"),
    ),
];

/// An adaptor that does what a job tells it.
const ADAPTOR: &str = "const Body = Object.getPrototypeOf(async () => {}).constructor;
    exports.attack = (code) => async (state) => ({ data: await new Body('require', code)(require) });";

fn landlock() -> u32 {
    let output = Command::new(binaries::worker()).args(["doctor", "--secret", "s"]).output();
    let told = String::from_utf8(output.expect("the worker was just built").stdout).expect("it prints text");
    let version = told.split("(Landlock version ").nth(1).and_then(|rest| rest.split(')').next());
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn by(name: &str, code: &str) -> Value {
    let mut plan = chain(&[("a", &format!("attack({})", json!(code)))]);
    plan["jobs"][0]["adaptor"] = format!("@openfn/language-{name}@local").into();
    plan
}

/// A worker under attack.
struct Stage {
    lightning: MockLightning,
    worker: Worker,
    folder: tempfile::TempDir,
    landlock: u32,
    /// What the words in capitals stand for.
    words: Vec<(&'static str, String)>,
}

impl Stage {
    async fn set(engine: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name).display().to_string();
        for (name, needs) in [("plain", json!({})), ("native", json!({ "child_processes": true }))] {
            let package = format!("@openfn/language-{name}");
            let manifest =
                json!({ "name": package, "version": "1.0.0", "main": "index.js", "openfn": { "needs": needs } });
            write_local(&folder.path().join("root"), name, &manifest, ADAPTOR);
        }
        std::fs::create_dir(folder.path().join("runtime")).expect("the folder is ours");
        std::fs::write(folder.path().join("secret"), "private").expect("the folder is ours");
        let landlock = landlock();
        let lightning = lightning::start(LightningOptions::default()).await;
        // With two descriptors that it knows nothing of.
        let mut command = Command::new("bash");
        command
            .args(["-c", "exec 77</etc/hostname 78>>/dev/null; exec \"$@\"", "bash"])
            .arg(binaries::worker())
            .args(["--lightning", &lightning.url(), "--port", "0", "--backoff", "0.05/0.2"])
            .args(local_adaptors(engine, &folder.path().join("root")))
            .args(["--capacity", "3"])
            .args(["--run-memory", "150", "--scratch-mb", "20", "--host-max-open-files", "512"])
            .env("XDG_RUNTIME_DIR", path("runtime"))
            .env("WORKER_SECRET", lightning::SECRET);
        if landlock == 0 {
            command.args(UNCONFINED);
        }
        let worker = Worker::spawn(&mut command.into());
        worker.printed("joined Lightning's queue").await;
        let sockets = std::fs::read_dir(path("runtime")).expect("the worker keeps its sockets there");
        let sockets = sockets.flatten().map(|entry| entry.path()).find(|path| path.join("link").exists());
        let words = vec![
            ("SOCKETS", sockets.expect("hosts find the worker there").display().to_string()),
            ("RUNTIME", path("runtime")),
            ("ROOT", path("root")),
            ("SECRET", path("secret")),
            ("WORKER", worker.pid().to_string()),
        ];
        Self { lightning, worker, folder, landlock, words }
    }

    async fn bear(&self, attack: &Attack) {
        let code =
            self.words.iter().fold(format!("{SHELL}\n{}", attack.code), |code, (word, it)| code.replace(word, it));
        let plan = match attack.by {
            By::Embedded => {
                chain(&[("a", &format!("fn(async () => ({{ data: await (async () => {{ {} }})() }}))", attack.code))])
            }
            By::Plain => by("plain", &code),
            By::Native => by("native", &code),
        };
        let what = format!("{:?} by {:?}: {}", attack.area, attack.by, attack.what);
        let record = end(&self.lightning, &self.worker, &queue(&self.lightning, plan)).await;
        let told = || format!("{what}: {record:?}\n{}", self.worker.output());
        match attack.ends {
            Ends::With(data) => {
                assert_eq!(record.state, RunState::Success, "{}", told());
                let found = record.final_state.as_ref().and_then(|state| state["data"].as_str());
                assert_eq!(found, Some(data), "{what}");
            }
            Ends::Killed(kind) => {
                assert_eq!((record.state, record.error_type.as_deref()), (RunState::Killed, Some(kind)), "{}", told());
            }
            Ends::Failed(kind) => {
                assert_eq!((record.state, record.error_type.as_deref()), (RunState::Failed, Some(kind)), "{}", told());
            }
            Ends::Anyhow => {}
        }
        let id = queue(&self.lightning, self.idle_plan());
        let record = end(&self.lightning, &self.worker, &id).await;
        assert_eq!(record.state, RunState::Success, "after {what}: {record:?}\n{}", self.worker.output());
    }

    fn idle_plan(&self) -> Value {
        if self.words.iter().any(|(word, _)| *word == "HOST") {
            by("plain", "return ''")
        } else {
            chain(&[("a", "fn(() => ({}))")])
        }
    }

    /// All that are in the list by those that this worker can have, but for those that this kernel does not refuse.
    async fn bear_all(&self, by: &[By]) {
        for attack in ATTACKS.iter().filter(|attack| by.contains(&attack.by)) {
            if attack.landlock > self.landlock {
                println!("skipped, as the kernel's Landlock is {}: {}", self.landlock, attack.what);
                continue;
            }
            self.bear(attack).await;
        }
    }

    /// Nothing is left of any attack, neither now nor when the worker has stopped.
    async fn leave(self) {
        // Whoever loses its parent becomes a child of its host, or of the worker.
        let mut daemons = self.worker.hosts();
        daemons.retain(|process| processes::command_line(process.pid).contains("987654"));
        assert_eq!(daemons, [], "{}", self.worker.output());
        // What each run may put there, and what the worker says itself.
        let most = ATTACKS.len() * 3 * 1024 * 1024;
        assert!(self.worker.output().len() < most, "the worker has printed {} bytes", self.worker.output().len());
        let runtime = self.folder.path().join("runtime");
        self.worker.stop().await;
        assert_eq!(leftovers::gone(&runtime, lightning::DEADLINE).await, Vec::<String>::new());
    }
}

fn exists(path: &Path) -> String {
    // No permission of Node's reaches it, and no Landlock.
    format!(
        "require('node:child_process').spawnSync('sh', ['-c', 'until test -e {}; do sleep 0.05; done'])",
        path.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_stands_it() {
    let stage = Stage::set("embedded").await;
    stage.bear_all(&[By::Embedded]).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_stands_it() {
    let mut stage = Stage::set("node").await;
    if tests::node::is_forked() {
        // Of the plain adaptor's engines, which all that follows is to meet.
        for _ in 0..2 {
            let run = queue(&stage.lightning, by("plain", "return ''"));
            end(&stage.lightning, &stage.worker, &run).await;
        }
        stage.worker.printed("is forked from now on").await;
    }
    let go = stage.folder.path().join("go");
    let code = format!("console.log('here'); {}; return 'unharmed'", exists(&go));
    let other = queue(&stage.lightning, by("native", &code));
    let started = |record: &mock_lightning::RunRecord| !lightning::messages(record, "ADA").is_empty();
    until(&stage.lightning, &stage.worker, &other, started).await;
    let host = stage.worker.host_of(&other).pid;
    let engine = stage.worker.hosts().into_iter().find(|process| process.parent == host).expect("it has an engine");
    stage.words.extend([("HOST", host.to_string()), ("ENGINE", engine.pid.to_string())]);

    stage.bear_all(&[By::Plain, By::Native]).await;

    std::fs::write(&go, "").expect("the folder is ours");
    let record = end(&stage.lightning, &stage.worker, &other).await;
    assert_eq!(record.state, RunState::Success, "{record:?}\n{}", stage.worker.output());
    assert_eq!(record.final_state.expect("it has a state")["data"], "unharmed");
    stage.leave().await;
}

#[test]
fn each_area_is_attacked_from_both_engines() {
    let tried: BTreeSet<(Area, bool)> = ATTACKS.iter().map(|attack| (attack.area, attack.by == By::Embedded)).collect();
    for area in AREAS {
        for embedded in [true, false] {
            assert!(tried.contains(&(area, embedded)), "{area:?}, embedded: {embedded}");
        }
    }
}
