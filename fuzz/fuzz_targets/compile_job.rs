//! Whatever the code, it compiles to a module or gives an error: no panic, no hang, no stack overflow.

#![no_main]

use engine_host::compile::{Adaptor, check_condition, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let adaptors = [Adaptor { specifier: "@openfn/language-common", exports: None }];
    if let Ok(job) = compile(source, &adaptors) {
        let again = compile(&job.code, &[]);
        assert!(again.is_ok(), "{source}\n{}\n{again:?}", job.code);
    }
    let _ = check_condition(source);
});
