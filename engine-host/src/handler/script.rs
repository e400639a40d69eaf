//! A handler's thread: one QuickJS runtime, from the first line of its module to its end.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rquickjs::function::IntoArgs;
use rquickjs::{Context, Ctx, Error, FromJs, Function, Module, Object, Persistent, Promise, Runtime};

use super::{Told, Work, types};

const PRELUDE: &str = include_str!("prelude.js");
const CLIENT: &str = include_str!("client.js");
const GLOBALS: &str = include_str!("globals.js");
const URL: &str = include_str!("url.js");

/// What there is no engine for here.
const NO_COMMON_JS: &str = "CommonJS modules need Node: --handler-engine node";

/// Random bytes that are given at once.
const MOST_RANDOM: usize = 65_536;

/// How deep a handler may call.
pub(super) const STACK_BYTES: usize = 4 * 1024 * 1024;
/// What the thread's stack needs on top.
pub(super) const STACK_RESERVE_BYTES: usize = 2 * 1024 * 1024;

/// How a handler ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// It returned this JSON text; none for `undefined`.
    Returned(Option<String>),
    /// It threw: JSON text.
    Threw(String),
    /// The engine cannot go on.
    Lost(String),
    /// The handler was not begun, because its module cannot be loaded.
    NotLoaded(String),
}

impl Ending {
    pub(super) fn lost(why: &str) -> Self {
        Self::Lost(why.to_owned())
    }
}

impl From<Error> for Ending {
    fn from(error: Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// Runs a handler to its end. `ask` takes its calls of the store, whose answers come from `told`.
pub(super) fn run(work: &Work, told: &Receiver<Told>, ask: impl Fn(u64, String) + 'static) -> Ending {
    let memory = match work {
        Work::Inspect(inspect) => inspect.memory_bytes,
        Work::Handle(handle) => handle.memory_bytes,
    };
    let script = match prepare(memory, ask) {
        Ok(script) => script,
        Err(ending) => return ending,
    };
    script.run(work, told).unwrap_or_else(|lost| {
        // QuickJS aborts the process if it is freed with anything left in it, which after this nobody can rule out.
        // The process ends soon.
        std::mem::forget(script);
        lost
    })
}

/// A runtime with the prelude in it.
struct Script {
    hooks: Persistent<Object<'static>>,
    context: Context,
}

fn prepare(memory: u64, ask: impl Fn(u64, String) + 'static) -> Result<Script, Ending> {
    let runtime = Runtime::new()?;
    runtime.set_memory_limit(usize::try_from(memory).unwrap_or(usize::MAX));
    runtime.set_max_stack_size(STACK_BYTES);
    let context = Context::full(&runtime)?;
    let hooks = context.with(|ctx| -> Result<_, Error> {
        let host = Object::new(ctx.clone())?;
        let start = Instant::now();
        host.set("now", Function::new(ctx.clone(), move || start.elapsed().as_secs_f64() * 1e3)?)?;
        host.set("ask", Function::new(ctx.clone(), move |id: f64, call: String| ask(id as u64, call))?)?;
        host.set("print", Function::new(ctx.clone(), print)?)?;
        host.set("random", Function::new(ctx.clone(), random)?)?;
        let prelude: Function = ctx.eval(PRELUDE)?;
        let url: Function = ctx.eval(URL)?;
        host.set("makeUrl", url)?;
        let (client, globals): (Function, Function) = (ctx.eval(CLIENT)?, ctx.eval(GLOBALS)?);
        let hooks: Object = prelude.call((host, client, globals))?;
        Ok(Persistent::save(&ctx, hooks))
    })?;
    Ok(Script { hooks, context })
}

/// Random bytes; none where the system has none to give.
fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count.min(MOST_RANDOM)];
    match File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// What a handler prints goes where all output of a host goes.
fn print(level: String, text: String) {
    // Nobody is left to be told when this fails.
    let _ = match level.as_str() {
        "warn" | "error" => writeln!(std::io::stderr(), "{text}"),
        _ => writeln!(std::io::stdout(), "{text}"),
    };
}

impl Script {
    fn run(&self, work: &Work, told: &Receiver<Told>) -> Result<Ending, Ending> {
        self.context.with(|ctx| self.begin(&ctx, work))?;
        loop {
            let pause = self.context.with(|ctx| -> Result<_, Ending> {
                while ctx.execute_pending_job() {}
                if let Some(ending) = self.call::<_, Option<Object>>(&ctx, "outcome", ())? {
                    return Err(read(&ending)?);
                }
                self.call::<_, Option<f64>>(&ctx, "wait", ())
            });
            let pause = match pause {
                Ok(pause) => pause,
                Err(ending) => return Ok(ending),
            };
            let word = match pause {
                None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(millis) => told.recv_timeout(Duration::from_secs_f64((millis / 1e3).clamp(0.0, 1e6))),
            };
            self.context.with(|ctx| match word {
                Ok(Told::Answer(id, answer)) => self.call::<_, ()>(&ctx, "deliver", (id as f64, answer)),
                Ok(Told::Abort) => self.call::<_, ()>(&ctx, "abort", ()),
                Err(RecvTimeoutError::Timeout) => self.call::<_, ()>(&ctx, "fire", ()),
                Err(RecvTimeoutError::Disconnected) => Err(Ending::lost("the host is about to end")),
            })?;
        }
    }

    fn begin(&self, ctx: &Ctx<'_>, work: &Work) -> Result<(), Ending> {
        let module = match work {
            Work::Inspect(inspect) => &inspect.module,
            Work::Handle(handle) => &handle.module,
        };
        if [".cjs", ".cts"].iter().any(|end| module.name.ends_with(end)) {
            return Err(Ending::lost(NO_COMMON_JS));
        }
        let stripped = types::strip(Path::new(&module.name), &module.source).map_err(Ending::Lost)?;
        let evaluated = Module::declare(ctx.clone(), module.name.as_str(), stripped.as_ref())
            .and_then(|declared| declared.eval())
            .and_then(|(module, evaluation)| Ok((evaluation, module.namespace()?)));
        let (evaluation, exports): (Promise, Object) = match evaluated {
            Ok(evaluated) => evaluated,
            // What it threw becomes the outcome.
            Err(Error::Exception) => return self.call(ctx, "failed", (ctx.catch(),)),
            Err(error) => return Err(error.into()),
        };
        match work {
            Work::Inspect(_) => self.call(ctx, "inspect", (evaluation, exports)),
            Work::Handle(handle) => {
                self.call(ctx, "begin", (evaluation, exports, handle.job.as_str(), handle.job_id.as_str()))
            }
        }
    }

    /// Calls one of the prelude's functions.
    fn call<'js, A: IntoArgs<'js>, R: FromJs<'js>>(
        &self,
        ctx: &Ctx<'js>,
        hook: &str,
        arguments: A,
    ) -> Result<R, Ending> {
        let hooks = self.hooks.clone().restore(ctx)?;
        let function: Function = hooks.get(hook)?;
        function.call(arguments).map_err(|error| match error {
            Error::Exception => {
                let thrown = ctx.catch();
                let message = thrown.as_exception().map(ToString::to_string);
                Ending::Lost(message.unwrap_or_else(|| "the engine is out of memory".to_owned()))
            }
            error => error.into(),
        })
    }
}

fn read(ending: &Object<'_>) -> Result<Ending, Ending> {
    let threw: Option<String> = ending.get("threw")?;
    match threw {
        Some(threw) => Ok(Ending::Threw(threw)),
        None => Ok(Ending::Returned(ending.get("returned")?)),
    }
}
