//! Engines that are forked from a template.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Mutex;

use engine_host::engine::node::{Adopting, Counting, Forks, Parent, Template, TemplateOptions, Unforkable};
use protocol::confinement::Confinement;
use protocol::message::{Adopt, NotForked, Unnamed};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use tokio::sync::oneshot;

use super::*;

/// Whether this Node and this system fork engines, or what is said where they do not.
pub(crate) fn can_be() -> bool {
    let version = version();
    let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
    let is_tried = (numbers[0] == 22 && numbers[1] >= 14) || numbers[0] == 24;
    if !is_tried {
        eprintln!("skipped: Node {version} is not forked");
    }
    is_tried && cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))
}

/// This process, as the one that adopts.
#[derive(Debug, Default)]
struct Family {
    /// What was told of templates that were of no use.
    told: Mutex<Vec<NotForked>>,
    refuses: bool,
}

impl Parent for Family {
    fn id(&self) -> u32 {
        std::process::id()
    }

    fn adopt(&self, adopt: Adopt) -> Adopting {
        let refuses = self.refuses;
        Box::pin(async move {
            if refuses {
                return Err("no more children".to_owned());
            }
            let pid = Pid::from_raw(adopt.pid.cast_signed()).unwrap();
            let (sender, end) = oneshot::channel();
            std::thread::spawn(move || {
                let status = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap().1;
                let _ = sender.send(ExitStatus::from_raw(status.as_raw()));
            });
            Ok(end)
        })
    }

    fn count_unnamed(&self) -> Counting {
        // No engine of these has a limit.
        Box::pin(async { Ok(Unnamed::default()) })
    }

    fn not_forked(&self, told: NotForked) {
        self.told.lock().unwrap().push(told);
    }
}

/// A template, with the folder that its children have theirs in.
pub(crate) struct Nursery {
    template: Template,
    runs: tempfile::TempDir,
    spec: NodeSpec,
    memory_bytes: u64,
    family: Arc<Family>,
    confinement: Confinement,
}

impl Nursery {
    pub(crate) async fn open(spec: NodeSpec, memory_bytes: u64) -> Result<Self, Unforkable> {
        Self::open_with(spec, memory_bytes, &[]).await
    }

    async fn open_with(spec: NodeSpec, memory_bytes: u64, variables: &[&str]) -> Result<Self, Unforkable> {
        set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let runs = tempfile::tempdir().unwrap();
        let folder = runs.path().join("t");
        std::fs::create_dir(&folder).unwrap();
        let of_node = spec.program.ancestors().nth(1).unwrap().to_owned();
        let readable = spec.adaptors.iter().flat_map(|it| [Some(it.folder.clone()), it.bundle.clone()]).flatten();
        // As the worker has it: the whole of each monorepo, and what the links of its packages lead to.
        let local = spec.adaptors.iter().filter(|it| it.version == "local");
        let packages: Vec<_> = local.filter_map(|it| it.folder.parent().map(Path::to_owned)).collect();
        let monorepos = packages.iter().filter_map(|it| it.parent().map(Path::to_owned));
        let readable = Some(readable.chain([of_node]).chain(monorepos).collect());
        let confinement = Confinement { readable, packages, ..Confinement::default() };
        let family = Arc::new(Family::default());
        let options = TemplateOptions {
            spec: spec.clone(),
            memory_bytes,
            variables: variables.iter().map(|it| (*it).to_owned()).collect(),
            host: "h1".to_owned(),
            folder,
            runs: runs.path().to_owned(),
            forks: Forks { parent: family.clone(), confinement: confinement.clone() },
        };
        let template = within(Template::start(options)).await?;
        Ok(Self { template, runs, spec, memory_bytes, family, confinement })
    }

    fn options(&self, folder: &Path) -> NodeOptions {
        let mut spec = self.spec.clone();
        spec.origin.0 = Some(self.template.address().clone());
        NodeOptions {
            spec,
            memory_bytes: self.memory_bytes,
            folder: folder.to_owned(),
            scratch_bytes: None,
            forks: Some(Forks { parent: self.family.clone(), confinement: self.confinement.clone() }),
        }
    }

    /// An engine that is forked.
    async fn child(&self) -> Bench {
        let folder = tempfile::tempdir_in(self.runs.path()).unwrap();
        let bench = Bench::with_options(self.options(folder.path()), folder, None).await;
        assert_eq!(*self.family.told.lock().unwrap(), [], "it was forked");
        bench
    }

    /// The same, which takes the template along.
    pub(crate) async fn bench(self) -> Bench {
        let Bench { engine, lines, folder, _nursery } = self.child().await;
        Bench { engine, lines, folder, _nursery: Some(self) }
    }
}

const ADAPTOR: &str = "
exports.fn = (f) => f;
const fs = require('node:fs');
const attempt = (f) => { try { return f(); } catch (e) { return e.code ?? e.message; } };
exports.read = (file) => attempt(() => fs.readFileSync(file, 'utf8'));
exports.write = (file) => attempt(() => fs.writeFileSync(file, 'x'));
exports.kill = (pid, signal) => attempt(() => process.kill(pid, signal));
exports.own = () => ({ pid: process.pid, ppid: process.ppid, cwd: process.cwd(), home: process.env.HOME, tmp: require('node:os').tmpdir(), preloaded: process.env.LD_PRELOAD ?? null });
exports.draw = () => [Math.random(), require('node:crypto').randomUUID()];
exports.gc = () => typeof globalThis.gc;
";

async fn nursery(repo: &Repo) -> Nursery {
    Nursery::open(spec(&[&repo.bundled("@openfn/language-a", ADAPTOR)]), 200 * MB).await.unwrap()
}

/// A job of the adaptor.
fn with(body: &str) -> String {
    format!(
        "import {{ fn, read, write, kill, own, draw, gc }} from '@openfn/language-a';
        export default [async () => {{ {body} }}];"
    )
}

#[tokio::test]
async fn a_fork_is_a_process_of_its_own() {
    if !can_be() {
        return;
    }
    let repo = Repo::new();
    let nursery = nursery(&repo).await;
    let mut bench = nursery.child().await;
    let own = bench.result(&with("return { ...own(), gc: gc(), here: typeof gc };")).await;
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    let pid = bench.engine.process_id();
    assert_eq!(own["pid"], pid);
    assert_eq!(own["ppid"], std::process::id());
    let files = own["cwd"].as_str().unwrap();
    assert!(Path::new(files).starts_with(bench.folder.path().canonicalize().unwrap()), "{own}");
    assert_eq!((&own["home"], &own["tmp"]), (&own["cwd"], &own["cwd"]));
    assert_eq!(own["preloaded"], serde_json::Value::Null);
    assert_eq!(own["gc"], "undefined");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(fields[2..4], [pid.to_string(), pid.to_string()], "it leads a group and a session");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
}

#[tokio::test]
async fn a_fork_reaches_no_files_and_processes_of_others() {
    if !can_be() {
        return;
    }
    let repo = Repo::new();
    let nursery = nursery(&repo).await;
    let (mut one, mut other) = (nursery.child().await, nursery.child().await);
    let place = |own: String| -> serde_json::Value { serde_json::from_str(&own).unwrap() };
    let its = place(other.result(&with("write('secret'); return own();")).await);
    let (cwd, pid) = (its["cwd"].as_str().unwrap(), &its["pid"]);
    let root = one.folder.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let own_root = root.to_str().unwrap();
    let socket = nursery.template.address().socket.to_str().unwrap().to_owned();
    let code = with(&format!(
        "return [write('mine'), read('mine'), read('{cwd}/secret'), write('{cwd}/other'), write('{own_root}/x'),
          read('/etc/hostname'), kill({pid}, 0), kill({pid}, 9), kill(process.ppid, 0), kill({template}, 9), write('{socket}')];",
        template = nursery.template.process_id()
    ))
    .replace("process.ppid", &std::process::id().to_string());
    let found: Vec<serde_json::Value> = serde_json::from_str(&one.result(&code).await).unwrap();
    assert_eq!(found[..2], [serde_json::Value::Null, "x".into()], "{found:?}");
    for (refused, code) in found[2..].iter().zip([
        "EACCES",
        "EACCES",
        "EACCES",
        "ERR_ACCESS_DENIED",
        "EPERM",
        "EPERM",
        "EPERM",
        "EPERM",
        "EACCES",
    ]) {
        assert_eq!(refused, code, "{found:?}");
    }
    assert_eq!(other.result(&with("return read('secret');")).await, r#""x""#);
}

#[tokio::test]
async fn forks_draw_different_numbers_in_every_job() {
    if !can_be() {
        return;
    }
    let repo = Repo::new();
    let nursery = nursery(&repo).await;
    let mut drawn = Vec::new();
    for _ in 0..3 {
        let mut bench = nursery.child().await;
        for _ in 0..2 {
            let text = bench.result(&with("return [Math.random(), ...draw()];")).await;
            drawn.extend(serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap());
        }
    }
    let different: std::collections::HashSet<String> = drawn.iter().map(ToString::to_string).collect();
    assert_eq!(different.len(), drawn.len(), "{drawn:?}");
}

#[tokio::test]
async fn how_a_fork_ends_is_known() {
    if !can_be() {
        return;
    }
    let repo = Repo::new();
    let nursery = nursery(&repo).await;
    for (body, expected) in [
        ("fn.constructor('process.exit(9)')()", EngineLost::Exited(9)),
        ("fn.constructor('process.abort()')()", EngineLost::Signalled("SIGABRT".into())),
        ("const all = []; for (;;) all.push({ a: [all.length] })", EngineLost::OutOfMemory),
        ("const all = []; for (;;) all.push(Buffer.alloc(1e7, 1))", EngineLost::OutOfMemory),
    ] {
        let mut bench = nursery.child().await;
        assert_eq!(bench.run(job(&with(body))).await, Err(expected), "{body}");
    }
    let mut bench = nursery.child().await;
    let pid = Pid::from_raw(bench.engine.process_id().cast_signed()).unwrap();
    let killing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        kill_process(pid, Signal::KILL).unwrap();
    };
    let code = with("for (;;) {}");
    let (ended, ()) = tokio::join!(bench.run(job(&code)), killing);
    assert_eq!(ended, Err(EngineLost::Signalled("SIGKILL".into())));
}

#[tokio::test]
async fn forks_outlive_their_template_and_not_their_engine() {
    if !can_be() {
        return;
    }
    let repo = Repo::new();
    let nursery = nursery(&repo).await;
    let mut bench = nursery.child().await;
    let template = Pid::from_raw(nursery.template.process_id().cast_signed()).unwrap();
    kill_process(template, Signal::KILL).unwrap();
    assert_eq!(bench.result(&with("return 1;")).await, "1");
    let pid = bench.engine.process_id();
    drop(bench);
    within(async {
        while Path::new(&format!("/proc/{pid}")).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_engine_whose_template_is_of_no_use_is_started() {
    if !can_be() {
        return;
    }
    let repo = Repo::new();
    for (signal, expected) in [
        (Some(Signal::KILL), protocol::message::ForkFault::Refused),
        (Some(Signal::STOP), protocol::message::ForkFault::Refused),
        (None, protocol::message::ForkFault::NotAdopted),
    ] {
        let mut nursery = nursery(&repo).await;
        match signal {
            Some(signal) => {
                let template = Pid::from_raw(nursery.template.process_id().cast_signed()).unwrap();
                kill_process(template, signal).unwrap();
            }
            None => nursery.family = Arc::new(Family { refuses: true, ..Family::default() }),
        }
        let folder = tempfile::tempdir_in(nursery.runs.path()).unwrap();
        let mut bench = Bench::with_options(nursery.options(folder.path()), folder, None).await;
        assert_eq!(bench.result(&with("return 1;")).await, "1");
        let told = nursery.family.told.lock().unwrap();
        assert_eq!(told.iter().map(|told| told.fault).collect::<Vec<_>>(), [expected], "{told:?}");
    }
}

#[tokio::test]
async fn what_would_be_the_same_in_all_forks_is_not_forked() {
    if !can_be() {
        return;
    }
    let repo = Repo::new();
    for (source, expected) in [
        ("exports.id = require('node:crypto').randomUUID();", "crypto.randomUUID"),
        ("exports.id = Math.random();", "Math.random"),
        ("exports.born = new Date();", "new Date"),
        ("exports.home = process.env.HOME;", "process.env.HOME"),
    ] {
        let adaptor = repo.bundled("@openfn/language-b", source);
        let error = Nursery::open(spec(&[&adaptor]), 200 * MB).await.err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let broken = repo.bundled("@openfn/language-b", "throw new Error('no');");
    let error = Nursery::open(spec(&[&broken]), 200 * MB).await.err().unwrap();
    assert!(error.to_string().contains("no"), "{error}");
}
