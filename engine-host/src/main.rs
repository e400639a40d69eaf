//! The `engine-host` program. Exits with the codes of [`ExitCode`].

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, exit};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use engine_host::adoption::Adoption;
use engine_host::engine::node::Forks;
use engine_host::handler::types;
use engine_host::{confine, engines::Engines, host, sys};
use hosting::guard::{self, ExitCode, Launch, StopSignals, say};
use hosting::process::{self, AtParentsDeath, Parent};
use protocol::confinement::{CONFINEMENT_VARIABLE, Confinement};
use protocol::handshake::PARENT_VARIABLE;

const BY_HAND: &str = "\
engine-host executes OpenFn workflows for a worker, which starts as many of it as it needs.
It does nothing when it is run by hand. To run a workflow, start the worker: see `worker --help`.";

/// How long the last answers may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);

/// The argument after which the command line of another host follows, which this process becomes.
const BECOME: &str = "become";

/// The argument after which the file follows whose types are to be stripped.
const STRIP: &str = "strip-types";

const GONE: &str = "the worker that started this engine host is gone";

fn main() {
    process::close_inherited();
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some(BECOME) => exit(become_another(arguments.collect()) as i32),
        Some(STRIP) => exit(strip_types(arguments.next().unwrap_or_default()) as i32),
        _ => {}
    }
    sys::tune_allocator();
    let code = match launch() {
        None => {
            say(BY_HAND);
            ExitCode::ByHand
        }
        Some((launch, _)) if process::detach(launch.parent, AtParentsDeath::Kill) == Parent::Gone => {
            say(GONE);
            ExitCode::Normal
        }
        Some((launch, confinement)) => {
            sys::seclude();
            let confined = confine(confinement.as_deref());
            confined.and_then(|confinement| run(launch, confinement)).unwrap_or_else(|error| {
                say(&format!("{error:#}"));
                ExitCode::Failure
            })
        }
    };
    exit(code as i32)
}

/// Becomes a host of another kind, in any language: a session of its own that inherits no descriptors and ends with the
/// worker, whatever it is at. Returns only if that fails.
fn become_another(command: Vec<OsString>) -> ExitCode {
    let parent = std::env::var(PARENT_VARIABLE).ok().and_then(|parent| parent.parse().ok());
    let (Some(parent), Some((program, arguments))) = (parent, command.split_first()) else {
        say(BY_HAND);
        return ExitCode::ByHand;
    };
    if process::detach(parent, AtParentsDeath::Kill) == Parent::Gone {
        say(GONE);
        return ExitCode::Normal;
    }
    let error = Command::new(program).args(arguments).exec();
    say(&format!("cannot start {}: {error}", program.display()));
    ExitCode::Failure
}

/// Prints the JavaScript of a TypeScript file: Node asks for it when it loads a handler.
fn strip_types(file: OsString) -> ExitCode {
    let path = Path::new(&file);
    let source = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let stripped = source.as_deref().map_err(Clone::clone).and_then(|source| types::strip(path, source));
    match stripped {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::Normal,
            Err(_) => ExitCode::Failure,
        },
        Err(why) => {
            say(&why);
            ExitCode::Failure
        }
    }
}

/// What the worker put into the environment, if it was the worker that started this.
fn launch() -> Option<(Launch, Option<String>)> {
    let [confinement] = process::take_variables([CONFINEMENT_VARIABLE]);
    Some((Launch::take()?, confinement))
}

/// Forbids this process what the worker wants it to. Returns what that is.
fn confine(confinement: Option<&str>) -> anyhow::Result<Confinement> {
    let Some(text) = confinement else { return Ok(Confinement::default()) };
    let confinement: Confinement =
        serde_json::from_str(text).with_context(|| format!("failed to read {CONFINEMENT_VARIABLE}"))?;
    if confinement.is_of_forks {
        return Ok(confinement);
    }
    let folder = std::env::current_dir().context("failed to find the working folder")?;
    confine::confine(&confinement, &folder)?;
    Ok(confinement)
}

fn run(launch: Launch, confinement: Confinement) -> anyhow::Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("failed to start the runtime")?;
    let code = runtime.block_on(work(launch, confinement));
    // Nobody is to wait for what runs on other threads.
    runtime.shutdown_background();
    code
}

async fn work(launch: Launch, confinement: Confinement) -> anyhow::Result<ExitCode> {
    let worker = launch.parent;
    let mut signals = StopSignals::listen().context("failed to listen for signals")?;
    let joined = tokio::select! {
        joined = guard::join(launch) => joined,
        () = signals.next() => return Ok(ExitCode::Normal),
    };
    let (id, link, inbox) = match joined {
        Ok(joined) => joined,
        Err(error) => {
            say(&error.to_string());
            return Ok(error.exit_code());
        }
    };
    // The worker made it for this host alone.
    let folder = std::env::current_dir().context("failed to find the working folder")?;
    let adoption = Adoption::new(link.clone(), worker);
    let scratch_bytes = confinement.scratch_bytes;
    let forks = Forks { parent: Arc::new(adoption.clone()), confinement };
    let engines = Engines { folder, scratch_bytes, forks, adoption };
    let serving = host::serve(engines, id, link.clone(), inbox, signals.next());
    let code = guard::until_link_ends(&link, serving).await;
    // A worker that does not read any more is not waited for.
    let _ = tokio::time::timeout(FAREWELL, link.close()).await;
    Ok(code)
}
