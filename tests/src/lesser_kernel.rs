//! Kernels that have less than this one: a filter of system calls answers as they do.

use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::seccomp;

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
    seccomp::filtered(&[without(lacks)], start)
}

fn without(lacks: Lacks) -> BpfProgram {
    match lacks {
        Lacks::Auxv => {
            let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, PR_GET_AUXV);
            let rule = SeccompRule::new(vec![is_it.expect("prctl has a first argument")]).expect("it has a condition");
            seccomp::refusal(libc::SYS_prctl, vec![rule], libc::EINVAL)
        }
        Lacks::Landlock => seccomp::refusal(libc::SYS_landlock_create_ruleset, Vec::new(), libc::ENOSYS),
    }
}
