//! The scripts that Node runs, put together.

use std::sync::LazyLock;

use serde_json::json;

/// What every job's context begins with: the prelude of all engines and what Node adds to it.
const PRELUDE: &str = concat!(
    "(function (host) {\n'use strict';\n",
    include_str!("../../prelude/intrinsics.js"),
    include_str!("../../prelude/json.js"),
    include_str!("../../prelude/errors.js"),
    include_str!("../../prelude/console.js"),
    include_str!("../../prelude/operations.js"),
    include_str!("js/frames.js"),
    include_str!("js/timers.js"),
    include_str!("js/buffer.js"),
    include_str!("js/hooks.js"),
    "})"
);

const RUNTIME_MODULE: &str = include_str!("../../prelude/runtime.js");

/// What runs outside of the jobs' contexts.
const ENGINE: &str = concat!(
    include_str!("js/channel.js"),
    include_str!("js/traps.js"),
    include_str!("js/adaptors.js"),
    include_str!("js/jobs.js"),
    include_str!("js/template.js"),
    include_str!("js/serve.js"),
);

/// The script that Node is started with where there is no snapshot.
pub(super) const BOOT: &str = concat!(include_str!("js/boot.js"), "engine.serve();\n");

/// The script of a Node that others are forked from. It compiles all of the engine, and not what is called first only.
pub(super) const TEMPLATE_BOOT: &str = concat!(
    "require('node:v8').setFlagsFromString('--no-lazy');\n",
    include_str!("js/boot.js"),
    "engine.template(take).catch((error) => { console.error(error); process.exit(1); });\n"
);

/// The engine: an expression whose value is a function of `require` and of what imports a module by its URL, which
/// only a Node without a snapshot has.
pub(super) static SOURCE: LazyLock<String> = LazyLock::new(|| {
    let (prelude, runtime) = (json!(PRELUDE), json!(RUNTIME_MODULE));
    format!(
        "(function (require, importUrl) {{\n'use strict';\nconst preludeSource = {prelude};\nconst runtimeSource = {runtime};\n{ENGINE}}})"
    )
});

/// The engine as the first frame of a Node that gets it from the host.
pub(super) fn framed() -> Vec<u8> {
    // No larger than the program is.
    let length = (SOURCE.len() as u32).to_le_bytes();
    length.into_iter().chain(SOURCE.bytes()).collect()
}

static HASH: LazyLock<String> = LazyLock::new(|| format!("{:016x}", fnv(SOURCE.as_bytes())));

/// A short text that changes with everything of the engine's own that a snapshot has in it.
pub fn prelude_hash() -> &'static str {
    &HASH
}

/// FNV-1a: the same in every build, and nobody gains from a collision.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_sixteen_digits_and_stays() {
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!((prelude_hash().len(), prelude_hash()), (16, prelude_hash()));
    }
}
