//! What a host asks of the operating system about itself, before it does anything else. The only module here with unsafe
//! code.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{self, Pid, Signal, WaitId, WaitIdOptions};

/// Reads variables and removes them from the environment, so that nothing that is started from here sees them. To be
/// called before there is a second thread: with one the variables stay, because another thread could be reading them.
pub fn take_variables<const N: usize>(names: [&str; N]) -> [Option<String>; N] {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    names.map(|name| {
        let value = std::env::var(name).ok();
        if is_alone {
            // SAFETY: there is no other thread that could read or write the environment meanwhile.
            unsafe { std::env::remove_var(name) };
        }
        value
    })
}

/// Whether the process that started this one still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// It does.
    Alive,
    /// It ended before this process could be tied to it.
    Gone,
}

/// What the system does to a process whose parent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtParentsDeath {
    /// It is killed.
    Kill,
    /// It is asked to end, with SIGTERM.
    Terminate,
}

/// Closes all descriptors but the standard ones: what else is open was inherited. To be called before anything is opened.
pub fn close_inherited() {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: takes numbers alone. Nothing in this process has opened a descriptor yet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST_OTHER, libc::c_uint::MAX, NO_FLAGS) };
    if closed == 0 {
        return;
    }
    // Before Linux 5.9 one by one.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<libc::c_int> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|it| it.unsigned_abs() >= FIRST_OTHER) {
        // SAFETY: as above. That of the folder itself is closed already, which is an error of no consequence.
        unsafe { libc::close(descriptor) };
    }
}

/// The first descriptor that is none of input, output and errors.
const FIRST_OTHER: libc::c_uint = 3;

/// How soon the system kills a host when memory runs out, of 1000: well before the broker.
const OOM_SCORE: &str = "900";

/// How much lower a host's priority is than that of its parent, in steps of `nice`. Enough for the broker to be served
/// first when all hosts are busy at once; on a machine with time to spare it changes nothing.
const NICER_BY: i32 = 5;

/// The lowest priority there is.
const NICEST: i32 = 19;

/// Makes the process a session of its own, ties it to the process `parent` that started it, offers it to the system
/// when memory runs out, and lets its parent go first when processor time does. What a system cannot do is left out: the
/// link's end is noticed everywhere.
pub fn detach(parent: u32, at_parents_death: AtParentsDeath) -> Parent {
    // Fails only for who leads a session already.
    let _ = process::setsid();
    let_go_first(parent);
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let signal = match at_parents_death {
        AtParentsDeath::Kill => Signal::KILL,
        AtParentsDeath::Terminate => Signal::TERM,
    };
    let _ = process::set_parent_process_death_signal(Some(signal));
    // The parent may have died before the system was told. What the kernel calls no parent is one that is not seen
    // from here, such as one outside of a container.
    match process::getppid() {
        Some(actual) if actual.as_raw_nonzero().get().unsigned_abs() != parent => Parent::Gone,
        _ => Parent::Alive,
    }
}

/// Lowers the priority below that of `parent`. Asked twice, it is not lowered further.
fn let_go_first(parent: u32) {
    let parent = i32::try_from(parent).ok().and_then(Pid::from_raw);
    let Some(Ok(priority)) = parent.map(|parent| process::getpriority_process(Some(parent))) else { return };
    let priority = (priority + NICER_BY).min(NICEST);
    let _ = process::setpriority_process(None, priority);
    // Where sessions share the processor between them (`sched_autogroup_enabled`), that of a process counts within its
    // session alone.
    let _ = std::fs::write("/proc/self/autogroup", priority.to_string());
}

/// Ends the process at once, whatever its other threads hold or wait for.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    resident_bytes_of(process::getpid())
}

/// Resident memory of a process in bytes; 0 where the system does not tell, or it has ended.
pub fn resident_bytes_of(process: Pid) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", process.as_raw_nonzero())).unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}

/// The process that counts as a child of this one though it is not, or 0.
static FOSTERED: AtomicI32 = AtomicI32::new(0);

/// Counts a process among those that this one has started, though another one is its parent. One at a time.
pub fn foster(process: Option<Pid>) {
    FOSTERED.store(Pid::as_raw(process), Ordering::Relaxed);
}

fn fostered() -> Option<Pid> {
    Pid::from_raw(FOSTERED.load(Ordering::Relaxed))
}

/// Resident memory of this process and its descendants, in bytes. Of one that is [fostered](foster) it is what it has
/// touched, since it may share the rest with others.
pub fn resident_bytes_of_descent() -> u64 {
    if let Some(engine) = fostered() {
        return resident_bytes() + touched_pages(engine).saturating_mul(rustix::param::page_size() as u64);
    }
    // To look for children is dear, and most hosts have none.
    let children = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if process::waitid(WaitId::All, children).is_err_and(|error| error == Errno::CHILD) {
        return resident_bytes();
    }
    resident_bytes() + descent().into_iter().map(resident_bytes_of).sum::<u64>()
}

/// Pages that a process has read in or copied since it was made: its minor faults. 0 where the system does not tell.
fn touched_pages(process: Pid) -> u64 {
    const MINOR_FAULTS: usize = 7;
    let status = status(process).unwrap_or_default();
    status.split_whitespace().nth(MINOR_FAULTS).and_then(|faults| faults.parse().ok()).unwrap_or(0)
}

/// The processes that this one has started, adopted or [fostered](foster), and those that they have, as far as the system
/// tells. Those that have ended count until they are reaped.
pub fn descent() -> Vec<Pid> {
    let mut descent = children(process::getpid());
    descent.extend(fostered());
    let mut looked_at = 0;
    while let Some(&parent) = descent.get(looked_at) {
        looked_at += 1;
        descent.extend(children(parent));
    }
    descent
}

/// Looks at a descent that is being killed, before what does not die is left to the broker. Each kill may hand on others.
const MOST_LOOKS: usize = 20;

/// Pause between two of them.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Kills the whole [`descent`].
pub fn kill_descent() {
    for _ in 0..MOST_LOOKS {
        let living: Vec<Pid> = descent().into_iter().filter(|process| !has_ended(*process)).collect();
        if living.is_empty() {
            return;
        }
        for process in living {
            // Fails when it has ended.
            let _ = process::kill_process(process, Signal::KILL);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Whether a process has ended, though it may not have been reaped.
pub fn has_ended(process: Pid) -> bool {
    state(process).is_none_or(|state| ['Z', 'X'].contains(&state))
}

/// The processes that a process has started or adopted, as far as the system tells.
pub fn children(process: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).into_iter().flatten();
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let text = lists.collect::<String>();
    text.split_ascii_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

/// The letter for what a process does, as far as the system tells.
pub fn state(process: Pid) -> Option<char> {
    status(process)?.trim_start().chars().next()
}

/// State, parent, group and more of a process, as Linux tells them.
pub fn status(process: Pid) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // They are after the name, which may have spaces and brackets in it.
    Some(stat.rsplit_once(')')?.1.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn resident_memory_is_known_and_a_descent_can_be_killed() {
        assert!(resident_bytes() > 1024 * 1024);
        let mut child = Command::new("sleep").arg("90").spawn().unwrap();
        let id = Pid::from_child(&child);
        assert!(children(process::getpid()).contains(&id));
        assert!(resident_bytes_of_descent() > 1024 * 1024 + resident_bytes_of(id));
        assert!(!has_ended(id));
        foster(Some(id));
        assert_eq!(descent(), [id, id]);
        foster(None);
        kill_descent();
        assert!(!child.wait().unwrap().success());
        assert!(has_ended(id));
    }
}
