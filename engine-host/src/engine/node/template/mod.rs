//! Templates: Node processes that have loaded some adaptors, run nobody's code, and are forked, one child a run.
//!
//! What such a process has to be, `native/fork.c` says. One is believed when it has proved itself: two of its children do
//! what does not work in one that was forked wrongly, draw different random numbers, and end as they are told to.

mod fork;
pub(super) mod native;
mod request;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::engine::{NodeSpec, TemplateAddress};
use protocol::handshake::LinkToken;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::timeout;

pub use self::fork::{Adopting, Counting, Forks, Parent};
pub(super) use self::fork::{FIRST_ANSWER, Forked, Unforked, fork, refused};
use super::launch::{Launch, Mode};
use super::load::Nobody;
use super::process::{NoAnswer, NodeProcess};
use super::scratch::Scratch;
use super::version::{BadVersion, NodeVersion};
use super::{NodeEngine, NodeOptions, START_WITHIN, encoded, source, wanted};
use crate::engine::EngineLost;
use crate::sys;

/// How long a process that has loaded everything may take until it can be forked.
const SETTLE_WITHIN: Duration = Duration::from_secs(15);

/// How long a child may take to prove itself, on a machine that is busy.
const PROVE_WITHIN: Duration = Duration::from_secs(10);

/// Requests that may wait.
const BACKLOG: i32 = 64;

/// The code that a child is told to end with.
const PROVING_CODE: i32 = 7;

/// What a child fetches.
const FETCHED: &str = "fetched";

/// What it derives from "a" and "b" by PBKDF2, as `prove` in `template.js` says.
const KEY: &str = "a9ad83929ae9ec538bc0f44e36ada66f";

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum Unforkable {
    /// It was built without what it takes.
    #[error("engines are forked on Linux on x86-64 with glibc, which this program was not built for")]
    Platform,
    /// That Node was not tried.
    #[error("Node {0} is not forked: 22.14 and newer of that line and 24 are")]
    Version(String),
    /// Nothing would keep the children apart.
    #[error("the kernel has no Landlock, or it is not to be used: nothing would keep engines that are forked apart")]
    Unconfined,
    /// An adaptor has something that a child would share.
    #[error("its adaptors read {} when they are loaded, which would be the same in every run", .0.join(", "))]
    Frozen(Vec<String>),
    /// Node did not get ready.
    #[error("{0}")]
    Lost(String),
    /// A child does not do what it has to.
    #[error("a process that was forked {0}")]
    Unproved(String),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What a template is started for.
#[derive(Debug, Clone)]
pub struct TemplateOptions {
    /// The engines that are forked.
    pub spec: NodeSpec,
    /// Memory of each, in bytes.
    pub memory_bytes: u64,
    /// Variables of the environment that jobs may see.
    pub variables: Vec<String>,
    /// The host that looks after it.
    pub host: String,
    /// Where it has its private folder and its socket.
    pub folder: PathBuf,
    /// Where its children have theirs.
    pub runs: PathBuf,
    /// Who adopts its children.
    pub forks: Forks,
}

/// A process that is forked. Dropping it kills it, and none of its children.
#[derive(Debug)]
pub struct Template {
    // Before the folder, in which it works.
    process: NodeProcess,
    /// It ends when this is closed.
    _control: UnixStream,
    _scratch: Scratch,
    address: TemplateAddress,
}

/// What Node says when it has loaded everything.
#[derive(Debug, Deserialize)]
struct Warm {
    reads: Vec<String>,
    failed: Option<String>,
}

/// What a child tells of itself.
#[derive(Debug, Deserialize)]
struct Proof {
    fetched: String,
    key: String,
    sum: u32,
    kept: u32,
    drawn: Vec<String>,
    pid: u32,
    cwd: PathBuf,
}

impl Template {
    /// Starts one, and has it prove itself. It dies with the thread that polls this first.
    pub async fn start(options: TemplateOptions) -> Result<Self, Unforkable> {
        let version: NodeVersion =
            options.spec.version.parse().map_err(|error: BadVersion| Unforkable::Lost(error.to_string()))?;
        match () {
            () if !native::is_there() => return Err(Unforkable::Platform),
            () if !version.has_forks() => return Err(Unforkable::Version(version.to_string())),
            () if options.forks.confinement.readable.is_none() => return Err(Unforkable::Unconfined),
            () => {}
        }
        let template = Self::launch(&options, version).await?;
        template.prove(&options).await?;
        Ok(template)
    }

    /// Where it takes requests.
    pub fn address(&self) -> &TemplateAddress {
        &self.address
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.process.id().as_raw_nonzero().get().unsigned_abs()
    }

    /// Memory that it shares with nobody, in bytes. That of its children counts as shared.
    pub fn private_bytes(&self) -> u64 {
        sys::private_bytes_of(self.process.id())
    }

    /// Waits until it has ended, of itself or because somebody killed it.
    pub async fn ended(&mut self) -> String {
        match self.process.next_frame().await {
            Err(NoAnswer::Ended(status)) => status.to_string(),
            other => format!("it did what nobody asked for: {other:?}"),
        }
    }

    async fn launch(options: &TemplateOptions, version: NodeVersion) -> Result<Self, Unforkable> {
        let TemplateOptions { spec, memory_bytes, variables, host, folder, runs, .. } = options;
        let io = |what| move |source| Unforkable::Io { what, source };
        let scratch = Scratch::create(folder).map_err(io("no private folder"))?;
        let socket = scratch.out_of_reach("fork");
        let listener = listener(&socket).map_err(io("no socket"))?;
        let token = LinkToken::generate().map_err(io("no token"))?;
        let (mut control, its_control) = StdUnixStream::pair().map_err(io("no socket"))?;
        control.write_all(token.expose().as_bytes()).map_err(io("no socket"))?;
        let library = native::library().map_err(io("the native part"))?;
        let launch = Launch {
            program: &spec.program,
            version,
            mode: Mode::Template { runs },
            adaptors: &spec.adaptors,
            heap_bytes: *memory_bytes,
            scratch: &scratch,
            is_alone: false,
        };
        let descriptors = [OwnedFd::from(its_control), listener, library];
        let mut process =
            NodeProcess::spawn_template(launch, descriptors, Arc::new(Nobody)).map_err(io("Node cannot be started"))?;

        let warm = timeout(START_WITHIN, warm_up(&mut process, spec, variables)).await;
        let Warm { reads, failed } =
            warm.map_err(|_| Unforkable::Lost(format!("Node was not ready within {START_WITHIN:?}")))??;
        if let Some(why) = failed {
            return Err(Unforkable::Lost(why));
        }
        let reads = kept(reads);
        if !reads.is_empty() {
            return Err(Unforkable::Frozen(reads));
        }
        control.set_nonblocking(true).map_err(io("no socket"))?;
        let mut control = UnixStream::from_std(control).map_err(io("no socket"))?;
        let mut word = [0];
        tokio::select! {
            ready = timeout(SETTLE_WITHIN, control.read_exact(&mut word)) => match ready {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Unforkable::Lost(format!("Node ended: {error}"))),
                Err(_) => return Err(Unforkable::Lost(format!("it could not be forked within {SETTLE_WITHIN:?}"))),
            },
            answer = process.next_frame() => return Err(Unforkable::Lost(unexpected(&process, answer))),
        }
        let address = TemplateAddress { host: host.clone(), socket, token };
        Ok(Self { process, _control: control, _scratch: scratch, address })
    }

    /// Has two children do what can go wrong, and compares what they have drawn.
    async fn prove(&self, options: &TemplateOptions) -> Result<(), Unforkable> {
        let mut drawn: Vec<String> = Vec::new();
        for _ in 0..2 {
            let mut spec = options.spec.clone();
            spec.origin.0 = Some(self.address.clone());
            let node = NodeOptions {
                spec,
                memory_bytes: options.memory_bytes,
                folder: options.folder.clone(),
                scratch_bytes: None,
                forks: Some(options.forks.clone()),
            };
            let forked = NodeEngine::start_forked(&node, &self.address, &options.forks, Arc::new(Nobody)).await;
            let mut engine =
                forked.map_err(|Unforked { why, .. }| Unforkable::Unproved(format!("did not get ready: {why}")))?;
            let proving = timeout(PROVE_WITHIN, proof(&mut engine)).await;
            let proof = proving.unwrap_or_else(|_| Err(format!("did not prove itself within {PROVE_WITHIN:?}")));
            let mut proof = proof.map_err(Unforkable::Unproved)?;
            drawn.append(&mut proof.drawn);
        }
        let all = drawn.len();
        drawn.sort();
        drawn.dedup();
        match drawn.len() {
            0 => Err(Unforkable::Unproved("drew nothing".to_owned())),
            different if different < all => {
                Err(Unforkable::Unproved("drew the same random numbers as another one".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// A socket at `path` that takes one message a connection.
fn listener(path: &std::path::Path) -> io::Result<OwnedFd> {
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Has Node load everything.
async fn warm_up(process: &mut NodeProcess, spec: &NodeSpec, variables: &[String]) -> Result<Warm, Unforkable> {
    let mut bytes = source::framed();
    let adaptors: Vec<_> = spec.adaptors.iter().map(wanted).collect();
    let setup = json!({ "adaptors": adaptors, "variables": variables }).to_string();
    bytes.extend(encoded(b'w', &[Some(&setup)]).map_err(|lost| Unforkable::Lost(lost.to_string()))?);
    match process.exchange(&bytes).await {
        Ok(mut frame) if frame.kind == b'w' => {
            let warm = frame.needed().map_err(|bad| Unforkable::Lost(bad.to_string()))?;
            serde_json::from_str(&warm).map_err(|error| Unforkable::Lost(format!("it told wrongly: {error}")))
        }
        answer => Err(Unforkable::Lost(unexpected(process, answer))),
    }
}

fn unexpected(process: &NodeProcess, answer: Result<super::frame::Frame, NoAnswer>) -> String {
    let what = match answer {
        Ok(mut frame) if frame.kind == b'f' => frame.needed().unwrap_or_else(|bad| bad.to_string()),
        Ok(frame) => format!("an answer of the unknown kind {}", frame.kind),
        Err(NoAnswer::Ended(status)) => format!("Node ended: {status}"),
        Err(NoAnswer::Bad(bad)) => bad.to_string(),
        Err(NoAnswer::Unknown(error)) => error.to_string(),
    };
    match process.last_words() {
        words if words.is_empty() => what,
        words => format!("{what}. It printed: {words}"),
    }
}

/// Has a child do what it can, and end.
async fn proof(engine: &mut NodeEngine) -> Result<Proof, String> {
    let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listening.map_err(|error| format!("has nothing to fetch: {error}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let serving = tokio::spawn(serve_once(listener));
    let lost = |lost: EngineLost| format!("failed: {lost}");
    let command = json!({ "url": format!("http://127.0.0.1:{port}/") }).to_string();
    let mut answer = engine.ask(&encoded(b'v', &[Some(&command)]).map_err(lost)?).await.map_err(lost)?;
    let text = answer.needed().map_err(|bad| format!("told nothing: {bad}"))?;
    if answer.kind != b'v' {
        return Err(format!("failed: {text}"));
    }
    // It has ended by now, or nobody has come.
    serving.abort();
    let proof: Proof = serde_json::from_str(&text).map_err(|error| format!("told {text}: {error}"))?;
    let pid = engine.process_id();
    let cwd = engine.scratch.files();
    let is_right = proof.fetched == FETCHED
        && proof.key == KEY
        && (proof.sum, proof.kept) == (5, 20_000)
        && proof.pid == pid
        && proof.cwd == cwd;
    if !is_right {
        return Err(format!("did what is not right: {proof:?}"));
    }
    let command = json!({ "exit": PROVING_CODE }).to_string();
    match engine.ask(&encoded(b'v', &[Some(&command)]).map_err(lost)?).await {
        Err(EngineLost::Exited(PROVING_CODE)) => Ok(proof),
        Err(lost) => Err(format!("did not end as it was told to: {lost}")),
        Ok(_) => Err("did not end when it was told to".to_owned()),
    }
}

/// Answers one request.
async fn serve_once(listener: TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    let mut request = [0; 1024];
    // Its head comes in one piece.
    let _ = stream.read(&mut request).await?;
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{FETCHED}", FETCHED.len());
    stream.write_all(answer.as_bytes()).await
}

/// What of all that adaptors read must not be the same in all children: randomness, the process itself, and what time it
/// is. The machine and the environment are the same anyway, but for the folders of a run.
fn kept(reads: Vec<String>) -> Vec<String> {
    const OWN: [&str; 7] = [
        "process.env.HOME",
        "process.env.TMPDIR",
        "process.pid",
        "process.cwd",
        "os.homedir",
        "os.tmpdir",
        "Math.random",
    ];
    const TIME: [&str; 4] = ["Date", "Date.now", "new Date", "Intl.DateTimeFormat"];
    let is_kept = |name: &str| OWN.contains(&name) || TIME.contains(&name) || name.starts_with("crypto.");
    reads.into_iter().filter(|name| is_kept(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_not_loaded_beforehand() {
        for (reads, expected) in [
            (&["os.hostname", "process.env.PATH", "process.env", "performance.now"][..], &[][..]),
            (&["crypto.randomUUID", "os.cpus"], &["crypto.randomUUID"]),
            (&["Math.random"], &["Math.random"]),
            (&["new Date", "process.pid", "process.ppid"], &["new Date", "process.pid"]),
            (&["process.env.TMPDIR", "process.env.HOMEPAGE"], &["process.env.TMPDIR"]),
        ] {
            assert_eq!(kept(reads.iter().map(|it| (*it).to_owned()).collect()), expected);
        }
    }
}
