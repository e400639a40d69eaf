//! Whatever the code, it compiles to a module or gives an error: no panic, no hang, no stack overflow.

#![no_main]

use engine_host::compile::{Adaptor, check_condition, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let adaptors = [Adaptor { specifier: "@openfn/language-common", exports: None }];
    if let Ok(job) = compile(source, &adaptors) {
        // Printed code is longer, so that it may pass a limit that the source did not.
        if let Err(error) = compile(&job.code, &[])
            && !error.message.contains("nested too deeply")
        {
            panic!("{error}\n{source}\n{}", job.code);
        }
    }
    let _ = check_condition(source);
});
