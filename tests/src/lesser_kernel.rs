//! Kernels that have less than this one: a filter of system calls answers as they do.

use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The operation of `prctl` that Linux 6.4 brought.
const PR_GET_AUXV: u64 = 0x4155_5856;

/// What a kernel lacks.
#[derive(Debug, Clone, Copy)]
pub enum Lacks {
    /// `PR_GET_AUXV`, which Linux before 6.4 has not.
    Auxv,
    /// Landlock, which Linux before 5.13 has not, nor one that was built or started without it.
    Landlock,
}

/// Does `start` in a thread to which the kernel refuses what it lacks, as it does to all processes that are started there.
/// They run on the runtime that this is called on.
pub fn on_a_kernel_that<T: Send>(lacks: Lacks, start: impl FnOnce() -> T + Send) -> T {
    let runtime = tokio::runtime::Handle::try_current().ok();
    // A filter is for good, so it gets a thread of its own.
    thread::scope(|scope| {
        let started = scope.spawn(move || {
            let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
            refuse(lacks);
            start()
        });
        started.join().expect("the process can be started")
    })
}

/// Has the kernel answer this thread so.
fn refuse(lacks: Lacks) {
    let (call, rules, error) = match lacks {
        Lacks::Auxv => {
            let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, PR_GET_AUXV);
            let rule = SeccompRule::new(vec![is_it.expect("prctl has a first argument")]);
            (libc::SYS_prctl, vec![rule.expect("it has a condition")], libc::EINVAL)
        }
        Lacks::Landlock => (libc::SYS_landlock_create_ruleset, Vec::new(), libc::ENOSYS),
    };
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        std::env::consts::ARCH.try_into().expect("tests run on an architecture that has filters"),
    );
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("the filter is short");
    seccompiler::apply_filter(&program).expect("the kernel filters system calls");
}
