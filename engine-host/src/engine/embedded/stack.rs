//! Bounds how deep the values nest that JSON text is made of.
//!
//! QuickJS looks for a cycle at each object through all those around it, so that deep values take time by the square of
//! their depth. Less stack for that makes them an error at once, at about the depth at which they are one in V8.

// The engine's wrapper changes the limit from outside of the engine alone.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;

use rquickjs::{Ctx, Function, Object, qjs};

use super::sandbox::STACK_BYTES;

/// Stack for making JSON text: some 5,000 levels.
const JSON_BYTES: usize = 1280 * 1024;

/// Adds to `host` what the prelude bounds itself with: `lowerStack()` returns what `restoreStack` takes. To be called
/// where the engine is entered.
pub(super) fn add_to<'js>(host: &Object<'js>, ctx: &Ctx<'js>) -> rquickjs::Result<()> {
    let entered_at = here();
    let limit = Rc::new(Cell::new(STACK_BYTES));
    let lowered = Rc::clone(&limit);
    let lower = move |ctx: Ctx<'js>| {
        // The stack grows downwards.
        let used = entered_at.saturating_sub(here());
        let before = lowered.get();
        set(&ctx, &lowered, before.min(used + JSON_BYTES));
        before as f64
    };
    host.set("lowerStack", Function::new(ctx.clone(), lower)?)?;
    let restore = move |ctx: Ctx<'js>, before: f64| set(&ctx, &limit, (before as usize).min(STACK_BYTES));
    host.set("restoreStack", Function::new(ctx.clone(), restore)?)
}

fn set(ctx: &Ctx<'_>, limit: &Cell<usize>, bytes: usize) {
    limit.set(bytes);
    // SAFETY: the context is that of the function which calls this, on the thread of its runtime, and the number is no
    // larger than the one that the thread's stack was made for.
    unsafe { qjs::JS_SetMaxStackSize(qjs::JS_GetRuntime(ctx.as_raw().as_ptr()), bytes as qjs::size_t) };
}

/// Where the stack is.
fn here() -> usize {
    let local = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&local)).addr()
}
