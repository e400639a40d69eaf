//! Keeps an engine's process from the other processes of its user.
//!
//! Two fences, each as far as the kernel has it: a filter of system calls, and a Landlock domain of the engine's own, from
//! which neither signals nor looks into memory and environments reach what is outside of it.

use std::os::fd::{AsRawFd, OwnedFd};

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope,
};

use super::Signals;

/// The capabilities by which root looks into other processes: `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN` and `CAP_PERFMON`. With
/// one of the last two, newer kernels let it read environments without asking Landlock.
const LOOKING: [libc::c_ulong; 3] = [19, 21, 38];

/// What is put around a process between fork and exec.
#[derive(Debug)]
pub(super) struct Fence {
    signals: Signals,
    /// None where the kernel has no Landlock.
    domain: Option<OwnedFd>,
}

impl Fence {
    /// Prepares all that takes memory.
    pub(super) fn new(signals: Signals) -> Self {
        Self { signals, domain: domain().unwrap_or_default() }
    }

    /// Encloses this process for good, and all that it starts. Makes system calls and nothing else. What the kernel does
    /// not have is left out.
    pub(super) fn enclose(&self) {
        // SAFETY: none of these calls touches memory.
        unsafe {
            for capability in LOOKING {
                // Fails for who has no say in capabilities, and none of them either.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                return;
            }
            if let Some(domain) = &self.domain {
                const NO_FLAGS: u32 = 0;
                libc::syscall(libc::SYS_landlock_restrict_self, domain.as_raw_fd(), NO_FLAGS);
            }
        }
        match self.signals {
            Signals::Own => apply(&mut all(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs())),
            Signals::All => apply(&mut peeking()),
            Signals::OfForks => {}
        }
    }
}

/// Stands in a filter for the number of the process that it is for. No process has it.
pub(super) const OWN_NUMBER: u32 = 0x7fff_fffe;

/// The filter of an engine that is forked and may signal itself alone, as the kernel has it in memory.
pub(super) fn filter_of_forks() -> Vec<u8> {
    let bytes = |it: libc::sock_filter| {
        let code = it.code.to_ne_bytes();
        code.into_iter().chain([it.jt, it.jf]).chain(it.k.to_ne_bytes())
    };
    all(OWN_NUMBER).into_iter().flat_map(bytes).collect()
}

/// A domain that forbids nothing about files. A process in it can neither trace nor look into one outside, and, from
/// Linux 6.12 on, not signal it either.
fn domain() -> Result<Option<OwnedFd>, RulesetError> {
    // A ruleset has to be about something, and whatever it is about, moves between folders have to be allowed by it.
    let everything: BitFlags<AccessFs> = AccessFs::MakeBlock | AccessFs::Refer;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .scope(Scope::Signal)?
        .create()?;
    let ruleset = match PathFd::new("/") {
        Ok(root) => ruleset.add_rule(PathBeneath::new(root, everything))?,
        Err(_) => ruleset,
    };
    Ok(ruleset.into())
}

/// What the kernel calls the system calls of this architecture; none where that is not written down here.
const ARCHITECTURE: Option<u32> = match () {
    () if cfg!(target_arch = "x86_64") => Some(0xC000_003E),
    () if cfg!(target_arch = "aarch64") => Some(0xC000_00B7),
    () if cfg!(target_arch = "riscv64") => Some(0xC000_00F3),
    () => None,
};

/// From this number on they are those of x32, a second way to all of them on x86-64.
const SECOND_WAY: u32 = 0x4000_0000;

const ALLOW: libc::sock_filter = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
const REFUSE: libc::sock_filter = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);

// In what the kernel tells of a call: its number, its architecture, and the lower half of the first argument.
const NUMBER: u32 = 0;
const WHICH: u32 = 4;
const TARGET: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;

/// Calls that look into other processes.
const PEEKING: [u32; 4] = [
    libc::SYS_ptrace as u32,
    libc::SYS_process_vm_readv as u32,
    libc::SYS_process_vm_writev as u32,
    libc::SYS_pidfd_getfd as u32,
];

/// Has the kernel refuse those calls. For processes that have children to end, which may be programs of another
/// architecture.
fn peeking() -> [libc::sock_filter; 7] {
    let [trace, read, write, descriptor] = PEEKING;
    [statement(LOAD, NUMBER), jump(trace, 4), jump(read, 3), jump(write, 2), jump(descriptor, 1), ALLOW, REFUSE]
}

/// Has the kernel refuse all calls that reach into processes of the user other than the one of this number.
fn all(own: u32) -> [libc::sock_filter; 22] {
    let [trace, read, write, descriptor] = PEEKING;
    [
        statement(LOAD, WHICH),
        jump(ARCHITECTURE.unwrap_or_default(), if ARCHITECTURE.is_some() { 1 } else { 0 }),
        if ARCHITECTURE.is_some() { REFUSE } else { statement(LOAD, NUMBER) },
        statement(LOAD, NUMBER),
        libc::sock_filter { jt: 16, ..statement(AT_LEAST, SECOND_WAY) },
        jump(libc::SYS_kill as u32, 11),
        jump(libc::SYS_tkill as u32, 10),
        jump(libc::SYS_tgkill as u32, 9),
        jump(libc::SYS_rt_sigqueueinfo as u32, 8),
        jump(libc::SYS_rt_tgsigqueueinfo as u32, 7),
        jump(libc::SYS_pidfd_send_signal as u32, 10),
        jump(libc::SYS_setpriority as u32, 9),
        jump(trace, 8),
        jump(read, 7),
        jump(write, 6),
        jump(descriptor, 5),
        ALLOW,
        statement(LOAD, TARGET),
        jump(own, 1),
        // Its own group.
        jump_unless(0, 1),
        ALLOW,
        REFUSE,
    ]
}

/// Has the kernel go by these instructions, now and after an exec.
fn apply(instructions: &mut [libc::sock_filter]) {
    let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
    // SAFETY: the call reads its arguments only, and the program lives longer than it takes.
    unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
    }
}

const fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

/// Goes on so many further if what was loaded is this value.
const fn jump(value: u32, further: u8) -> libc::sock_filter {
    libc::sock_filter { jt: further, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value) }
}

/// Goes on so many further if what was loaded is not this value.
const fn jump_unless(value: u32, further: u8) -> libc::sock_filter {
    libc::sock_filter { jf: further, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value) }
}
