//! The JavaScript engine inside of the host: QuickJS.
//!
//! Needs nothing installed and starts in a millisecond. `@openfn/language-common` means the core operations here, which
//! are part of the program; other adaptors are refused.
//!
//! An engine is a thread that owns everything JavaScript and takes one command at a time, so that the host's own work
//! is never blocked by a job. Every job and every condition gets a new QuickJS runtime: nothing of one is left when the
//! next one starts, not even a promise that is still to be handled.

mod alloc;
mod bytecode;
mod encoding;
mod imports;
mod interrupt;
mod modules;
mod operations;
mod sandbox;
mod session;
mod stack;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use self::bytecode::OwnModules;
pub use self::interrupt::Interrupt;
use self::sandbox::Sandbox;
use super::{ConditionCall, ConditionEnd, Engine, EngineLost, Exports, JobCall, JobEnd, LogSink};
use crate::compile::Places;

/// The crate that QuickJS comes with, and its version. It has no safe way to tell the version of QuickJS itself.
const VERSION: &str = "rquickjs-0.14.0";

/// How long an engine that was stopped may take to say so.
const STOP_GRACE: Duration = Duration::from_millis(50);

/// How an engine is made.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Memory that a job's values may take. Going over it ends the engine.
    pub memory_bytes: u64,
}

/// A JavaScript engine that runs in a thread of this process. Dropping it stops what it runs.
#[derive(Debug)]
pub struct EmbeddedEngine {
    commands: mpsc::Sender<Command>,
    interrupt: Interrupt,
    exhausted: Arc<Notify>,
    peak_heap_bytes: Arc<AtomicU64>,
}

enum Command {
    Job(JobCall, oneshot::Sender<Result<JobEnd, EngineLost>>),
    Test(ConditionCall, oneshot::Sender<Result<ConditionEnd, EngineLost>>),
}

/// What all sandboxes of an engine share.
#[derive(Clone)]
struct Surroundings {
    memory_bytes: usize,
    modules: Arc<OwnModules>,
    sink: Arc<dyn LogSink>,
    interrupt: Interrupt,
    /// Notified when the engine's thread stands still for good, for want of memory.
    exhausted: Arc<Notify>,
    /// Of the last job, kept for the engine's owner.
    peak_heap_bytes: Arc<AtomicU64>,
}

impl EmbeddedEngine {
    /// Starts an engine and the means to stop it. It is ready for its first job at once.
    pub fn start(options: EmbeddedOptions, sink: Arc<dyn LogSink>) -> Result<(Self, Interrupt), EngineLost> {
        let interrupt = Interrupt::default();
        let memory_bytes = usize::try_from(options.memory_bytes).unwrap_or(usize::MAX);
        let peak_heap_bytes = Arc::new(AtomicU64::new(0));
        let exhausted = Arc::new(Notify::new());
        let surroundings = Surroundings {
            memory_bytes,
            modules: Arc::new(OwnModules::new()),
            sink,
            interrupt: interrupt.clone(),
            exhausted: exhausted.clone(),
            peak_heap_bytes: peak_heap_bytes.clone(),
        };
        let (commands, inbox) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(sandbox::STACK_BYTES + sandbox::STACK_RESERVE_BYTES)
            .spawn(move || serve(&surroundings, &inbox, &ready))
            .map_err(|error| EngineLost::Failed(format!("cannot start its thread: {error}")))?;
        started.recv().map_err(|_| EngineLost::Failed("its thread ended at the start".to_owned()))??;
        Ok((Self { commands, interrupt: interrupt.clone(), exhausted, peak_heap_bytes }, interrupt))
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, EngineLost>>) -> Command,
    ) -> Result<T, EngineLost> {
        let lost = |why: &str| EngineLost::Failed(why.to_owned());
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| lost("it has ended"))?;
        let given_up = async {
            self.interrupt.stopped().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            answer = answer => answer.map_err(|_| lost("it has ended"))?,
            () = self.exhausted.notified() => {
                // Nothing will answer the next command either.
                self.exhausted.notify_one();
                Err(EngineLost::OutOfMemory)
            }
            // Some functions of QuickJS, such as `reverse`, do not look whether they are to stop. Their thread runs on,
            // and ends with the process.
            () = given_up => Err(lost("it was stopped, and does not answer")),
        }
    }
}

impl Engine for EmbeddedEngine {
    fn version(&self) -> (String, String) {
        ("quickjs".to_owned(), VERSION.to_owned())
    }

    fn exports(&self, adaptor: &str) -> Exports {
        modules::exports(adaptor)
    }

    fn places(&self) -> Places {
        Places::Few
    }

    fn peak_heap_bytes(&self) -> Option<u64> {
        Some(self.peak_heap_bytes.load(Ordering::Relaxed))
    }

    async fn run_job(&mut self, job: JobCall) -> Result<JobEnd, EngineLost> {
        self.ask(|reply| Command::Job(job, reply)).await
    }

    async fn test(&mut self, condition: ConditionCall) -> Result<ConditionEnd, EngineLost> {
        self.ask(|reply| Command::Test(condition, reply)).await
    }
}

impl Drop for EmbeddedEngine {
    fn drop(&mut self) {
        self.interrupt.stop();
    }
}

/// The engine's thread. Ends when the engine is dropped or lost.
fn serve(surroundings: &Surroundings, inbox: &mpsc::Receiver<Command>, ready: &mpsc::Sender<Result<(), EngineLost>>) {
    // Made before the first job asks for it, because that is when nobody waits.
    let mut first = match Sandbox::new(surroundings) {
        Ok(sandbox) => Some(sandbox),
        Err(lost) => {
            let _ = ready.send(Err(lost));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let mut spent = None;
    for command in inbox {
        // Comes this late because to free a large heap takes a while, which nobody has to wait for after the last job.
        drop(spent.take());
        spent = match command {
            Command::Job(job, reply) => {
                let sandbox = first.take().map_or_else(|| Sandbox::new(surroundings), Ok);
                give(reply, sandbox, |sandbox| sandbox.run_job(&job))
            }
            Command::Test(condition, reply) => {
                give(reply, Sandbox::bare(surroundings), |sandbox| sandbox.test(&condition))
            }
        };
        if spent.is_none() {
            return;
        }
    }
    // The engine was dropped, so its run is over, and the process will be in a moment.
    if let Some(sandbox) = spent {
        sandbox.abandon();
    }
}

/// Answers with what `work` makes of the sandbox, and gives it back unless the engine is lost.
fn give<T>(
    reply: oneshot::Sender<Result<T, EngineLost>>,
    sandbox: Result<Sandbox, EngineLost>,
    work: impl FnOnce(&Sandbox) -> Result<T, EngineLost>,
) -> Option<Sandbox> {
    let (answer, sandbox) = match sandbox.map(|sandbox| (work(&sandbox), sandbox)) {
        Ok((Ok(done), sandbox)) => (Ok(done), Some(sandbox)),
        Ok((Err(lost), sandbox)) => {
            sandbox.abandon();
            (Err(lost), None)
        }
        Err(lost) => (Err(lost), None),
    };
    // Nobody waits when the run was given up.
    let _ = reply.send(answer);
    sandbox
}

#[cfg(test)]
mod tests;
