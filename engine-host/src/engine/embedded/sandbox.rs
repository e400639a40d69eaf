//! One QuickJS runtime with one context, for one job or one condition.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rquickjs::context::intrinsic;
use rquickjs::{Context, Ctx, Exception, Function, Object, Persistent, Runtime, TypedArray, Value};
use uuid::Uuid;

use super::Surroundings;
use super::alloc::{Meter, MeteredAllocator};
use super::bytecode::OwnModules;
use super::encoding::Encoding;
use super::imports::{Imports, NoFiles};
use super::session::Session;
use super::{modules, stack};
use crate::engine::{ConditionCall, ConditionEnd, EngineLost, JobCall, JobEnd, line_kind};

/// Stack that JavaScript may use: recursion gets about as deep as in V8.
pub(super) const STACK_BYTES: usize = 8 * 1024 * 1024;

/// What the thread's stack needs on top: the frames of this crate, and native functions that look at the limit late.
pub(super) const STACK_RESERVE_BYTES: usize = 4 * 1024 * 1024;

/// The language, without what QuickJS adds to it.
type Language = (
    intrinsic::Date,
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::Proxy,
    intrinsic::MapSet,
    intrinsic::TypedArrays,
    intrinsic::Promise,
    intrinsic::WeakRef,
);

/// Memory in use when cycles are collected for the first time. Most jobs end before.
const FIRST_COLLECTION_BYTES: usize = 4 * 1024 * 1024;

/// How many times as long as its text a state may be in memory, as it comes and as it is left. There is no cycle in it.
const STATE_TIMES: usize = 16;

/// The prelude's functions for the engine, where the callbacks of QuickJS find them.
pub(super) type SharedHooks = Rc<RefCell<Option<Persistent<Object<'static>>>>>;

/// A place to run one job or one condition in.
pub(super) struct Sandbox {
    context: Context,
    hooks: SharedHooks,
    evidence: Evidence,
    /// Whether the job imports `_`, for which the core operations load a library at once.
    imports_lodash: Rc<Cell<bool>>,
}

/// Why the engine cannot go on, whatever the exceptions say.
#[derive(Clone)]
pub(super) struct Evidence {
    meter: Arc<Meter>,
    surroundings: Surroundings,
}

impl Evidence {
    fn new(surroundings: &Surroundings) -> Self {
        Self {
            meter: Meter::new(surroundings.memory_bytes, surroundings.exhausted.clone()),
            surroundings: surroundings.clone(),
        }
    }

    /// Fails when the engine was stopped or used too much memory.
    pub(super) fn check(&self) -> Result<(), EngineLost> {
        if self.meter.exceeded() {
            Err(EngineLost::OutOfMemory)
        } else if self.surroundings.interrupt.is_stopped() {
            Err(EngineLost::Failed("it was stopped".to_owned()))
        } else {
            Ok(())
        }
    }

    /// What stops the engine from outside.
    pub(super) fn interrupt(&self) -> &super::Interrupt {
        &self.surroundings.interrupt
    }
}

impl Sandbox {
    /// A place for a job.
    pub(super) fn new(surroundings: &Surroundings) -> Result<Self, EngineLost> {
        Self::bare(surroundings)?.prepared(Self::add_modules)
    }

    /// A place for a condition: nothing but the language, and nothing to import.
    pub(super) fn bare(surroundings: &Surroundings) -> Result<Self, EngineLost> {
        let evidence = Evidence::new(surroundings);
        let hooks = SharedHooks::default();
        let failed = |error: rquickjs::Error| EngineLost::Failed(format!("cannot make a context: {error}"));
        let runtime = Runtime::new_with_alloc(MeteredAllocator(evidence.meter.clone())).map_err(failed)?;
        runtime.set_max_stack_size(STACK_BYTES);
        runtime.set_gc_threshold(FIRST_COLLECTION_BYTES);
        let watched = evidence.clone();
        runtime.set_interrupt_handler(Some(Box::new(move || watched.check().is_err())));
        runtime.set_host_promise_rejection_tracker(Some(rejection_tracker(hooks.clone())));
        runtime.set_loader(Imports { token: surroundings.modules.token.clone(), hooks: hooks.clone() }, NoFiles);
        let context = Context::custom::<Language>(&runtime).map_err(failed)?;
        Self { context, hooks, evidence, imports_lodash: Rc::default() }.prepared(Self::add_prelude)
    }

    /// Gives QuickJS up without freeing it. It checks, when it is freed, that nothing was left behind, and aborts the
    /// process otherwise: after it was stopped half-way or ran out of memory that cannot be promised. The process ends
    /// soon anyway, since its engine is lost.
    pub(super) fn abandon(self) {
        std::mem::forget(self);
    }

    /// The sandbox after `step`; the error is the evidence's, if it has one.
    fn prepared(self, step: impl FnOnce(&Self, &Ctx<'_>) -> rquickjs::Result<()>) -> Result<Self, EngineLost> {
        let done = self.context.with(|ctx| step(&self, &ctx).map_err(|error| broken(&ctx, &error)));
        match self.evidence.check().and(done) {
            Ok(()) => Ok(self),
            Err(lost) => {
                self.abandon();
                Err(lost)
            }
        }
    }

    /// Runs a job. The sandbox cannot be used again.
    pub(super) fn run_job(&self, job: &JobCall) -> Result<JobEnd, EngineLost> {
        self.imports_lodash.set(modules::imports_lodash(&job.code));
        let for_state = (job.state.len() * STATE_TIMES).min(self.evidence.surroundings.memory_bytes / 4);
        self.context.runtime().set_gc_threshold(FIRST_COLLECTION_BYTES + for_state);
        let end = self.with_session(|session| session.run_job(job));
        let Evidence { meter, surroundings } = &self.evidence;
        surroundings.peak_heap_bytes.store(meter.peak() as u64, Ordering::Relaxed);
        end
    }

    /// Evaluates a condition. The sandbox cannot be used again.
    pub(super) fn test(&self, condition: &ConditionCall) -> Result<ConditionEnd, EngineLost> {
        self.with_session(|session| session.test(condition))
    }

    fn with_session<T>(&self, work: impl FnOnce(&Session<'_, '_>) -> Result<T, EngineLost>) -> Result<T, EngineLost> {
        self.context.with(|ctx| {
            let hooks = restored(&ctx, &self.hooks).map_err(|error| broken(&ctx, &error))?;
            work(&Session { ctx, hooks, evidence: &self.evidence })
        })
    }

    fn add_prelude(&self, ctx: &Ctx<'_>) -> rquickjs::Result<()> {
        let (prelude, _evaluated) = self.own_modules().prelude.declare(ctx)?.eval()?;
        let hooks: Object = prelude.get::<_, Function>("default")?.call((self.host(ctx)?,))?;
        self.hooks.replace(Some(Persistent::save(ctx, hooks)));
        Ok(())
    }

    fn add_modules(&self, ctx: &Ctx<'_>) -> rquickjs::Result<()> {
        let OwnModules { runtime, common, .. } = self.own_modules();
        runtime.declare(ctx)?;
        let hooks = restored(ctx, &self.hooks)?;
        // Nobody but the module itself can see these.
        let meta = common.declare(ctx)?.meta()?;
        meta.set("console", hooks.get::<_, Value>("adaptorConsole")?)?;
        meta.set("reworded", hooks.get::<_, Value>("reworded")?)?;
        meta.set("refused", hooks.get::<_, Value>("lacking")?)?;
        meta.set("Buffer", hooks.get::<_, Value>("Buffer")?)?;
        meta.set("load", self.loader(ctx)?)?;
        let imports_lodash = self.imports_lodash.clone();
        meta.set("importsLodash", Function::new(ctx.clone(), move || imports_lodash.get())?)?;
        meta.set("uuid", Function::new(ctx.clone(), || Uuid::new_v4().to_string())?)
    }

    /// A function that evaluates a library by its name, and gives what it exports.
    fn loader<'js>(&self, ctx: &Ctx<'js>) -> rquickjs::Result<Function<'js>> {
        let modules = self.evidence.surroundings.modules.clone();
        let hooks = self.hooks.clone();
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, name: String| -> rquickjs::Result<Object<'js>> {
            let library = modules.later(&name).ok_or(rquickjs::Error::new_loading(&name))?.declare(&ctx)?;
            let (meta, hooks) = (library.meta()?, restored(&ctx, &hooks)?);
            meta.set("Buffer", hooks.get::<_, Value>("Buffer")?)?;
            meta.set("console", hooks.get::<_, Value>("adaptorConsole")?)?;
            let (library, evaluated) = library.eval()?;
            evaluated.finish::<()>()?;
            library.namespace()
        })
    }

    fn own_modules(&self) -> &OwnModules {
        &self.evidence.surroundings.modules
    }

    /// What the prelude gets from the engine.
    fn host<'js>(&self, ctx: &Ctx<'js>) -> rquickjs::Result<Object<'js>> {
        let host = Object::new(ctx.clone())?;
        host.set("token", self.own_modules().token.as_str())?;
        stack::add_to(&host, ctx)?;
        let start = Instant::now();
        host.set("now", Function::new(ctx.clone(), move || start.elapsed().as_secs_f64() * 1e3)?)?;
        host.set("lacking", Function::new(ctx.clone(), |name: String| modules::lacking(&name))?)?;
        host.set("encode", Function::new(ctx.clone(), encode)?)?;
        host.set("decode", Function::new(ctx.clone(), decode)?)?;
        host.set("load", self.loader(ctx)?)?;
        let sink = self.evidence.surroundings.sink.clone();
        let wants = move |source: String, level: String| match line_kind(&source, &level) {
            Some((source, level)) => sink.wants(source, level),
            None => false,
        };
        host.set("wants", Function::new(ctx.clone(), wants)?)?;
        let sink = self.evidence.surroundings.sink.clone();
        let log = move |source: String, level: String, message: String| {
            if let Some((source, level)) = line_kind(&source, &level) {
                sink.write(source, level, message);
            }
        };
        host.set("log", Function::new(ctx.clone(), log)?)?;
        Ok(host)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The runtime holds the callbacks that hold this, and must not be freed before it.
        self.hooks.take();
    }
}

/// The hooks as values of the context.
pub(super) fn restored<'js>(ctx: &Ctx<'js>, hooks: &SharedHooks) -> rquickjs::Result<Object<'js>> {
    let saved = hooks.borrow().clone().ok_or(rquickjs::Error::Unknown)?;
    saved.restore(ctx)
}

fn rejection_tracker(hooks: SharedHooks) -> rquickjs::runtime::RejectionTracker {
    Box::new(move |ctx, promise, reason, handled| {
        let track = restored(&ctx, &hooks).and_then(|hooks| hooks.get::<_, Function>("rejected"));
        let tracked = track.and_then(|track| track.call::<_, ()>((promise, reason, handled)));
        if tracked.is_err() {
            // Only a lack of memory or an interrupt gets here, and those leave their own evidence.
            ctx.catch();
        }
    })
}

fn encode<'js>(ctx: Ctx<'js>, text: String, encoding: String) -> rquickjs::Result<TypedArray<'js, u8>> {
    // A copy, because only what QuickJS allocates counts for the memory limit.
    TypedArray::new_copy(ctx.clone(), named_encoding(&ctx, &encoding)?.bytes(&text))
}

fn decode(ctx: Ctx<'_>, binary: String, encoding: String) -> rquickjs::Result<String> {
    Ok(named_encoding(&ctx, &encoding)?.text(&Encoding::Latin1.bytes(&binary)))
}

fn named_encoding(ctx: &Ctx<'_>, name: &str) -> rquickjs::Result<Encoding> {
    Encoding::named(name).ok_or_else(|| Exception::throw_type(ctx, &format!("Unknown encoding: {name}")))
}

/// The engine's own code failed.
fn broken(ctx: &Ctx<'_>, error: &rquickjs::Error) -> EngineLost {
    let thrown = ctx.catch();
    let exception = thrown.as_exception().map(|exception| format!("{exception:?}"));
    EngineLost::Failed(format!("its prelude is broken: {}", exception.unwrap_or_else(|| error.to_string())))
}
