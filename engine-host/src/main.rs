//! The `engine-host` program. Exits with the codes of [`ExitCode`].

use std::process::exit;
use std::time::Duration;

use anyhow::Context as _;
use engine_host::guard::{self, ExitCode, Launch, StopSignals, say};
use engine_host::sys::{self, Parent};
use engine_host::{engines::Engines, host};
use protocol::handshake::{ADDRESS_VARIABLE, LinkToken, PARENT_VARIABLE, TOKEN_VARIABLE};

const BY_HAND: &str = "\
engine-host executes OpenFn workflows for a worker, which starts as many of it as it needs.
It does nothing when it is run by hand. To run a workflow, start the worker: see `worker --help`.";

/// How long the last answers may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);

fn main() {
    let code = match launch() {
        None => {
            say(BY_HAND);
            ExitCode::ByHand
        }
        Some(launch) if sys::detach(launch.parent) == Parent::Gone => {
            say("the worker that started this engine host is gone");
            ExitCode::Normal
        }
        Some(launch) => run(launch).unwrap_or_else(|error| {
            say(&format!("{error:#}"));
            ExitCode::Failure
        }),
    };
    exit(code as i32)
}

/// What the worker put into the environment, if it was the worker that started this.
fn launch() -> Option<Launch> {
    let [address, token, parent] = sys::take_variables([ADDRESS_VARIABLE, TOKEN_VARIABLE, PARENT_VARIABLE]);
    Some(Launch { address: address?, token: LinkToken::new(token?), parent: parent?.parse().ok()? })
}

fn run(launch: Launch) -> anyhow::Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("failed to start the runtime")?;
    let code = runtime.block_on(work(launch));
    // Nobody is to wait for what runs on other threads.
    runtime.shutdown_background();
    code
}

async fn work(launch: Launch) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::listen().context("failed to listen for signals")?;
    let joined = tokio::select! {
        joined = guard::join(launch) => joined,
        () = signals.next() => return Ok(ExitCode::Normal),
    };
    let (link, inbox) = match joined {
        Ok(joined) => joined,
        Err(error) => {
            say(&error.to_string());
            return Ok(error.exit_code());
        }
    };
    // The worker made it for this host alone.
    let folder = std::env::current_dir().context("failed to find the working folder")?;
    let serving = host::serve(Engines { folder }, link.clone(), inbox, signals.next());
    let code = guard::until_link_ends(&link, serving).await;
    // A worker that does not read any more is not waited for.
    let _ = tokio::time::timeout(FAREWELL, link.close()).await;
    Ok(code)
}
