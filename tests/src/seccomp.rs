//! Filters of system calls around what a test starts.

use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// Does `start` on a thread for which these filters hold. What it starts inherits them.
pub fn filtered<T: Send>(programs: &[BpfProgram], start: impl FnOnce() -> T + Send) -> T {
    let runtime = Handle::try_current().ok();
    // Filters are for good, so they get a thread of their own.
    thread::scope(|scope| {
        let started = scope.spawn(move || {
            let _entered = runtime.as_ref().map(Handle::enter);
            for program in programs {
                seccompiler::apply_filter(program).expect("the kernel filters system calls");
            }
            start()
        });
        started.join().expect("it can be started")
    })
}

/// Refuses one call, where one of the rules applies or there is none.
pub fn refusal(call: i64, rules: Vec<SeccompRule>, errno: i32) -> BpfProgram {
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        architecture(),
    );
    filter.and_then(TryInto::try_into).expect("the filter is short")
}

/// What a profile of the container engines' format makes the kernel do: [a list of what is allowed, and each of the
/// refusals that have an error of their own](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp).
///
/// # Panics
///
/// If the profile says what this does not know.
pub fn profile(profile: &Value) -> Vec<BpfProgram> {
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let (mut allowed, mut refusals) = (Vec::new(), Vec::new());
    for entry in profile["syscalls"].as_array().expect("a profile has rules") {
        let arguments: Vec<_> = entry["args"].as_array().into_iter().flatten().map(condition).collect();
        for name in entry["names"].as_array().expect("a rule has names") {
            let mut rule = json!({ "syscall": name });
            if !arguments.is_empty() {
                rule["args"] = json!(arguments);
            }
            // Calls that this architecture lacks, or that are newer than the table of names here, need no rule.
            if compile(&json!([rule]), 1).is_none() {
                continue;
            }
            match entry["action"].as_str() {
                Some("SCMP_ACT_ALLOW") => allowed.push(rule),
                Some("SCMP_ACT_ERRNO") => {
                    allowed.push(json!({ "syscall": name }));
                    refusals.push(refuse(&rule, &entry["errnoRet"]));
                }
                other => panic!("no action that is known: {other:?}"),
            }
        }
    }
    let errno = profile["defaultErrnoRet"].as_u64().expect("a profile says what is refused with");
    let allowed = compile(&json!(allowed), errno).expect("each rule was known");
    [vec![allowed], refusals].concat()
}

fn condition(argument: &Value) -> Value {
    let (index, value) = (&argument["index"], &argument["value"]);
    match argument["op"].as_str() {
        Some("SCMP_CMP_EQ") => json!({ "index": index, "type": "dword", "op": "eq", "val": value }),
        Some("SCMP_CMP_MASKED_EQ") => {
            json!({ "index": index, "type": "qword", "op": { "masked_eq": value }, "val": argument["valueTwo"] })
        }
        other => panic!("no comparison that is known: {other:?}"),
    }
}

fn compile(rules: &Value, errno: u64) -> Option<BpfProgram> {
    made(&json!({ "mismatch_action": { "errno": errno }, "match_action": "allow", "filter": rules }))
}

fn refuse(rule: &Value, errno: &Value) -> BpfProgram {
    let filter = json!({ "mismatch_action": "allow", "match_action": { "errno": errno }, "filter": [rule] });
    made(&filter).expect("the rule was known")
}

fn made(filter: &Value) -> Option<BpfProgram> {
    let text = json!({ "all": filter }).to_string();
    seccompiler::compile_from_json(text.as_bytes(), architecture()).ok()?.remove("all")
}

fn architecture() -> TargetArch {
    std::env::consts::ARCH.try_into().expect("tests run on an architecture that has filters")
}
