//! What processes there are, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A process as `/proc/<pid>/stat` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Processor time used so far, its own and that of the children it waited for.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

/// One process, if it lives and is no zombie.
pub fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    // The kernel counts in hundredths of a second wherever user programs see it.
    let ticks: u64 = (11..=14).filter_map(field).sum();
    Some(Process {
        pid,
        parent: u32::try_from(field(1)?).ok()?,
        name,
        cpu: Duration::from_millis(ticks * 10),
        rss: field(21)? * rustix::param::page_size() as u64,
    })
}

/// The command line of a process, its words joined by spaces; empty if it is gone.
pub fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// Where a process works, unless it is gone.
pub fn working_folder(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// All processes that live.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The descendants of a process, nearest first.
pub fn descendants(root: u32) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// Waits until none of these processes lives; gives back those that still do at the deadline.
pub async fn gone(pids: &[u32], deadline: Duration) -> Vec<u32> {
    let end = Instant::now() + deadline;
    loop {
        let left: Vec<u32> = pids.iter().copied().filter(|&pid| process(pid).is_some()).collect();
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The most resident memory that a process has had since [`forget_peak`], in bytes; 0 if it is gone.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Measures the peak of a process's memory from now on, and gives what it has now.
pub fn forget_peak(pid: u32) -> u64 {
    // Five resets the peak: see proc(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is ours");
    peak_memory(pid)
}

/// Memory of a process in bytes, shared pages counted in proportion; 0 if it is gone.
pub fn proportional_memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Whether the memory of another process may be read here.
pub fn may_look_into(pid: u32) -> bool {
    fs::File::open(format!("/proc/{pid}/mem")).is_ok()
}

/// Whether this text is anywhere in what a process may write to. False where its memory may not be read.
pub fn remembers(pid: u32, wanted: &str) -> bool {
    const PIECE: u64 = 1 << 20;
    let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else { return false };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let ranges = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("rw")));
    let ranges = ranges.filter_map(|line| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        Some(u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?)
    });
    let mut pieces = ranges.flat_map(|range| range.step_by(PIECE as usize));
    pieces.any(|at| {
        let mut bytes = vec![0; PIECE as usize + wanted.len()];
        // A piece that ends beyond what there is gives what there is.
        let length = memory.read_at(&mut bytes, at).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).contains(wanted)
    })
}
