//! What the host asks of the operating system, about itself and the engines that it starts. The only module with
//! unsafe code.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod fence;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use hosting::process::{children, has_ended, resident_bytes_of, state};
use protocol::run::Usage;
use rustix::process::{self, Pid, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Fits the allocator to a process that lives for one run: its few threads share one heap, which grows by large pieces.
/// By default each thread gets a heap that grows by a page at a time, and every time asks the system for that.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets two numbers of the allocator.
    unsafe {
        const PIECE_BYTES: libc::c_int = 1024 * 1024;
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, PIECE_BYTES);
    }
}

/// Forbids others of this process's user to look into it, and has processes that its engine leaves behind become its own
/// children. What a system cannot do is left out.
pub fn seclude() {
    platform::adopt_orphans();
    platform::close_memory();
}

/// Names the process as `ps` shows it, where the system can; it cuts long names. For the main thread.
pub fn name_process(name: &str) {
    platform::name_process(name);
}

/// The number of an engine's first descriptor, of as many as it gets.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Whom an engine's process may signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// Itself: the worker and the engines of other runs, which belong to the same user, are out of its reach.
    Own,
    /// Those that it has started, and with a kernel before Linux 6.12 all processes of the user.
    All,
    /// As the kernel lets it: those that are forked from it forbid it themselves, each with a number of its own.
    OfForks,
}

/// What keeps an engine that is forked from signalling others: instructions for the kernel, and the number in them that
/// stands for the engine's own.
pub fn filter_of_forks() -> (Vec<u8>, u32) {
    platform::filter_of_forks()
}

/// The limits of this process of open files, of processes and of the bytes of a file.
pub fn limits_of_forks() -> [u64; 3] {
    [process::Resource::Nofile, process::Resource::Nproc, process::Resource::Fsize]
        .map(|resource| process::getrlimit(resource).current.unwrap_or(u64::MAX))
}

/// Watches a descriptor for being readable. Must be called within a tokio runtime.
pub fn watch_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// From now on, processes that lose their parent below this one are handed to the worker.
pub fn stop_adopting() {
    platform::stop_adopting();
}

/// Memory that a process shares with no other, in bytes; 0 where the system does not tell.
pub fn private_bytes_of(process: Pid) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.as_raw_nonzero()));
    let rollup = rollup.unwrap_or_default();
    let kilobytes = |line: &str| line.strip_suffix("kB")?.trim().parse::<u64>().ok();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    private.filter_map(|line| kilobytes(line.split_once(':')?.1)).sum::<u64>() * 1024
}

/// Makes `command` start a process that leads a group of its own, dies with the thread that starts it, leaves no core,
/// signals whom it may, does not look into processes that it has not started, as far as the kernel can see to that, and
/// has `descriptors` as its descriptors from 3 on.
pub fn prepare_process(command: &mut Command, descriptors: Vec<OwnedFd>, signals: Signals) -> io::Result<()> {
    // Out of the way, so that none is overwritten before it is copied.
    let first_free = FIRST_DESCRIPTOR + RawFd::try_from(descriptors.len()).map_err(io::Error::other)?;
    let descriptors: Vec<OwnedFd> = descriptors
        .into_iter()
        .map(|descriptor| rustix::io::fcntl_dupfd_cloexec(&descriptor, first_free))
        .collect::<Result<_, _>>()?;
    let host = process::getpid();
    let fence = platform::Fence::new(signals);
    let prepare = move || {
        for (descriptor, number) in descriptors.iter().zip(FIRST_DESCRIPTOR..) {
            // SAFETY: nothing in this process owns the number: it is about to become another program. What is made of it
            // here is never dropped, so it is not closed either.
            let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
            rustix::io::dup2(descriptor, &mut target)?;
        }
        platform::die_with_parent();
        // The parent may have died before the system was told.
        if process::getppid() != Some(host) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let none = process::Rlimit { current: Some(0), maximum: Some(0) };
        process::setrlimit(process::Resource::Core, none)?;
        fence.enclose();
        Ok(())
    };
    command.process_group(0);
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated, locked or freed.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// Kills a process and all others of the group that it leads.
pub fn kill_group(leader: Pid) {
    let _ = process::kill_process_group(leader, Signal::KILL);
}

/// Reaps those of this process's children that have ended, but for `engine`, whose end somebody waits for.
pub fn reap_adopted(engine: Pid) {
    for child in children(process::getpid()) {
        if child != engine && has_ended(child) {
            // What was reaped meanwhile is what was wanted.
            let _ = process::waitpid(Some(child), process::WaitOptions::NOHANG);
        }
    }
}

/// A process, its descendants, and whoever else is in the group that it leads, as far as the system tells. Looks through
/// all processes of the system.
pub fn family(process: Pid) -> Vec<Pid> {
    let all = platform::processes();
    let mut family = vec![process];
    let mut looked_at = 0;
    while let Some(&parent) = family.get(looked_at) {
        looked_at += 1;
        for relative in &all {
            let related = relative.parent == Some(parent) || relative.group == Some(process);
            if related && !family.contains(&relative.id) {
                family.push(relative.id);
            }
        }
    }
    family
}

/// Whose use of the machine is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// This process's.
    Own,
    /// That of the processes that were waited for.
    Children,
}

/// Processor time of engines that have processes of their own, in microseconds.
static SPENT_BY_ENGINES: AtomicU64 = AtomicU64::new(0);

/// Takes down what an engine's process has used: one that lives, or else those that were waited for.
pub fn engine_ends(living: Option<Pid>) {
    let spent = match living {
        Some(process) => platform::cpu_us_of(process),
        None => platform::used(Whose::Children).cpu_us,
    };
    SPENT_BY_ENGINES.fetch_add(spent, Ordering::Relaxed);
}

/// What this process and the engines that have ended in it have used.
pub fn usage() -> Usage {
    let (own, children) = (platform::used(Whose::Own), platform::used(Whose::Children));
    Usage {
        cpu_us: own.cpu_us + SPENT_BY_ENGINES.load(Ordering::Relaxed),
        peak_bytes: own.peak_bytes.max(children.peak_bytes),
    }
}

/// Whether a process is held by a stop signal or a debugger, as far as the system tells.
pub fn is_stopped(process: Pid) -> bool {
    state(process).is_some_and(|state| ['T', 't'].contains(&state))
}

/// Whether a process is held, or has ended though some of its threads may still be at it, as far as the system tells.
pub fn is_stopped_or_ended(process: Pid) -> bool {
    state(process).is_some_and(|state| ['T', 't', 'Z', 'X'].contains(&state))
}

/// A process as the system lists it.
struct Relative {
    id: Pid,
    parent: Option<Pid>,
    group: Option<Pid>,
}

/// The most resident memory of this process since the last call of this, in bytes; 0 where the system does not tell.
pub fn take_peak_resident_bytes() -> u64 {
    take_peak_resident_bytes_of(process::getpid())
}

/// As [`take_peak_resident_bytes`], of another process of the same user; 0 when it has ended.
pub fn take_peak_resident_bytes_of(process: Pid) -> u64 {
    platform::take_peak_resident_bytes(process).unwrap_or_else(|| resident_bytes_of(process))
}

#[cfg(target_os = "linux")]
mod platform {
    use std::ffi::CString;
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::OnceLock;

    use hosting::process::status;
    use rustix::process::{
        DumpableBehavior, Pid, Signal, getpid, set_child_subreaper, set_dumpable_behavior,
        set_parent_process_death_signal,
    };

    pub(super) use super::fence::Fence;
    use super::fence::{self, OWN_NUMBER};
    use super::{Relative, Usage, Whose};

    pub(super) fn used(whose: Whose) -> Usage {
        let whose = match whose {
            Whose::Own => libc::RUSAGE_SELF,
            Whose::Children => libc::RUSAGE_CHILDREN,
        };
        // SAFETY: a structure of numbers, for which all zeros are valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: writes to that structure alone; on failure it stays as it is.
        unsafe { libc::getrusage(whose, &raw mut usage) };
        let micros = |time: libc::timeval| time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs();
        Usage {
            cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
            peak_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
        }
    }

    /// Processor time of a process in microseconds; 0 if there is none.
    pub(super) fn cpu_us_of(process: Pid) -> u64 {
        let mut clock: libc::clockid_t = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both write to what they are given alone; on failure it stays as it is.
        let failed = unsafe {
            libc::clock_getcpuclockid(process.as_raw_nonzero().get(), &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        if failed { 0 } else { time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000 }
    }

    pub(super) fn adopt_orphans() {
        let _ = set_child_subreaper(Some(getpid()));
    }

    pub(super) fn stop_adopting() {
        let _ = set_child_subreaper(None);
    }

    pub(super) fn filter_of_forks() -> (Vec<u8>, u32) {
        (fence::filter_of_forks(), OWN_NUMBER)
    }

    /// Where the peak of this process's memory is begun anew. Opened while the process may do that.
    static CLEAR_REFS: OnceLock<File> = OnceLock::new();

    pub(super) fn close_memory() {
        if let Ok(file) = File::options().write(true).open("/proc/self/clear_refs") {
            let _ = CLEAR_REFS.set(file);
        }
        // Kernels before 6.4 tell it only to a process that may look into itself.
        rustix::param::page_size();
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }

    pub(super) fn die_with_parent() {
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }

    pub(super) fn name_process(name: &str) {
        if let Ok(name) = CString::new(name) {
            let _ = rustix::thread::set_name(&name);
        }
    }

    pub(super) fn processes() -> Vec<Relative> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| relative(entry.file_name().to_str()?)).collect()
    }

    fn relative(id: &str) -> Option<Relative> {
        let pid = |text: &str| Pid::from_raw(text.parse().ok()?);
        let id = pid(id)?;
        let status = status(id)?;
        let mut fields = status.split_whitespace().skip(1);
        Some(Relative { id, parent: pid(fields.next()?), group: pid(fields.next()?) })
    }

    /// Written to `clear_refs`, begins the peak anew.
    const RESET_PEAK: &str = "5";

    pub(super) fn take_peak_resident_bytes(process: Pid) -> Option<u64> {
        let folder = format!("/proc/{}", process.as_raw_nonzero());
        let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
        // Where this is forbidden, the peak is that of the whole run.
        let _ = match CLEAR_REFS.get().filter(|_| process == getpid()) {
            Some(mut file) => file.write_all(RESET_PEAK.as_bytes()),
            None => std::fs::write(format!("{folder}/clear_refs"), RESET_PEAK),
        };
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    pub(super) fn take_peak_resident_bytes(_process: super::Pid) -> Option<u64> {
        None
    }

    /// Cannot be told here.
    pub(super) fn used(_whose: super::Whose) -> super::Usage {
        super::Usage { cpu_us: 0, peak_bytes: 0 }
    }

    pub(super) fn cpu_us_of(_process: super::Pid) -> u64 {
        0
    }

    pub(super) fn adopt_orphans() {}

    pub(super) fn stop_adopting() {}

    /// None is forked here.
    pub(super) fn filter_of_forks() -> (Vec<u8>, u32) {
        (Vec::new(), 0)
    }

    pub(super) fn close_memory() {}

    /// Not here.
    pub(super) struct Fence;

    impl Fence {
        pub(super) fn new(_signals: super::Signals) -> Self {
            Self
        }

        pub(super) fn enclose(&self) {}
    }

    pub(super) fn die_with_parent() {}

    pub(super) fn name_process(_name: &str) {}

    pub(super) fn processes() -> Vec<super::Relative> {
        Vec::new()
    }
}

/// What the file system of a folder, or of the first above it that exists, has left, for people.
pub(crate) fn free_space(folder: &Path) -> String {
    match folder.ancestors().find_map(|path| rustix::fs::statvfs(path).ok()) {
        Some(system) => format!("{} MB free", system.f_bavail.saturating_mul(system.f_frsize) / (1024 * 1024)),
        None => "nobody knows how much is free".to_owned(),
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, getpgid};

    use super::*;

    #[test]
    fn an_engine_has_its_descriptors_and_a_group_of_its_own() {
        let (mut read, write) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read text <&3; printf %s \"$text\" >&4; read end"]).stdin(Stdio::piped());
        let (input, mut fill) = io::pipe().unwrap();
        prepare_process(&mut command, vec![OwnedFd::from(input), OwnedFd::from(write)], Signals::All).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        io::Write::write_all(&mut fill, b"through").unwrap();
        drop(fill);
        let mut text = [0; 7];
        read.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"through");
        let id = Pid::from_child(&child);
        assert_eq!(getpgid(Some(id)).unwrap(), id);
        assert_eq!(family(id), [id]);
        kill_group(id);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn an_engine_signals_itself_alone() {
        for (signals, line, expected) in [
            (Signals::Own, "kill -0 $$ && kill -0 0 && ! kill -0 $PPID && ! kill -0 -1", Some(0)),
            (Signals::Own, "kill -9 $$", None),
            (Signals::All, "sleep 9 & kill -0 $! && kill $!", Some(0)),
        ] {
            let mut command = Command::new("sh");
            command.args(["-c", line]).stderr(Stdio::null());
            prepare_process(&mut command, Vec::new(), signals).unwrap();
            assert_eq!(command.status().unwrap().code(), expected, "{line}");
        }
    }

    #[test]
    fn an_engine_does_not_look_into_processes_outside_of_it() {
        let Some(version) = landlock_version() else { return };
        for signals in [Signals::Own, Signals::All] {
            let from = |line: &str| {
                let mut command = Command::new("sh");
                command.args(["-c", line]).stderr(Stdio::null());
                prepare_process(&mut command, Vec::new(), signals).unwrap();
                command.status().unwrap().success()
            };
            for file in ["environ", "mem", "maps"] {
                assert!(!from(&format!("cat /proc/$PPID/{file}")), "{file} {signals:?}");
            }
            assert!(from("sh -c 'cat /proc/$PPID/environ'"), "its own are open to it");
            assert!(from("d=$(mktemp -d) && mkdir $d/a $d/b && touch $d/a/f && mv $d/a/f $d/b && rm -r $d"));
            assert!(version < 6 || !from("kill -0 $PPID"), "{signals:?}");
        }
    }

    /// What the kernel has, as it says itself.
    fn landlock_version() -> Option<i64> {
        const VERSION: u32 = 1;
        // SAFETY: with this flag and no ruleset the call takes no memory.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
        (version > 0).then_some(version)
    }

    #[test]
    fn a_family_has_children_and_their_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'sleep 90 & echo there; wait' & wait"]).stdout(Stdio::piped());
        prepare_process(&mut command, Vec::new(), Signals::All).unwrap();
        let mut child = command.spawn().unwrap();
        let mut text = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut text).unwrap();
        let id = Pid::from_child(&child);
        assert_eq!(family(id).len(), 3);
        kill_group(id);
        child.wait().unwrap();
    }

    #[test]
    fn the_peak_outlives_the_memory_that_made_it() {
        const LARGE: usize = 64 * 1024 * 1024;
        take_peak_resident_bytes();
        let large = std::hint::black_box(vec![1_u8; LARGE]);
        drop(large);
        assert!(take_peak_resident_bytes() > LARGE as u64);
    }
}
