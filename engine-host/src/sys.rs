//! What the host asks of the operating system about itself. The only module with unsafe code.
#![allow(unsafe_code)]

use rustix::process;

/// Reads variables and removes them from the environment, so that nothing that is started from here sees them. To be
/// called before there is a second thread: with one the variables stay, because another thread could be reading them.
pub fn take_variables<const N: usize>(names: [&str; N]) -> [Option<String>; N] {
    let is_alone = platform::is_single_threaded();
    names.map(|name| {
        let value = std::env::var(name).ok();
        if is_alone {
            // SAFETY: there is no other thread that could read or write the environment meanwhile.
            unsafe { std::env::remove_var(name) };
        }
        value
    })
}

/// Whether the worker that started this process still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// It does.
    Alive,
    /// It ended before this process could be tied to it.
    Gone,
}

/// Makes the process a session of its own, ties it to the worker with the process id `parent`, and offers it to the
/// system when memory runs out. What a system cannot do is left out: the link's end is noticed everywhere.
pub fn detach(parent: u32) -> Parent {
    // Fails only for who leads a session already.
    let _ = process::setsid();
    platform::offer_to_oom_killer();
    platform::die_with_parent();
    // The parent may have died before the system was told. What the kernel calls no parent is one that is not seen
    // from here, such as one outside of a container.
    match process::getppid() {
        Some(actual) if actual.as_raw_nonzero().get().unsigned_abs() != parent => Parent::Gone,
        _ => Parent::Alive,
    }
}

/// Names the process as `ps` shows it, where the system can; it cuts long names. For the main thread.
pub fn name_process(name: &str) {
    platform::name_process(name);
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    platform::resident_pages().unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}

#[cfg(target_os = "linux")]
mod platform {
    use std::ffi::CString;

    use rustix::process::{Signal, set_parent_process_death_signal};

    pub(super) fn is_single_threaded() -> bool {
        std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
    }

    /// Of 1000: well before the worker.
    const OOM_SCORE: &str = "900";

    pub(super) fn offer_to_oom_killer() {
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    }

    pub(super) fn die_with_parent() {
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }

    pub(super) fn name_process(name: &str) {
        if let Ok(name) = CString::new(name) {
            let _ = rustix::thread::set_name(&name);
        }
    }

    pub(super) fn resident_pages() -> Option<u64> {
        std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    /// Cannot be told here. Nothing but `main` asks, before all else.
    pub(super) fn is_single_threaded() -> bool {
        true
    }

    pub(super) fn offer_to_oom_killer() {}

    pub(super) fn die_with_parent() {}

    pub(super) fn name_process(_name: &str) {}

    pub(super) fn resident_pages() -> Option<u64> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn resident_memory_is_known() {
        assert!(super::resident_bytes() > 1024 * 1024);
    }
}
