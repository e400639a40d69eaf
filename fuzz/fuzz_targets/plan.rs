//! Whatever Lightning sends as a plan, it becomes a run that a host understands, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|plan: &str| lightning::read_plan(plan));
