//! What a worker must not leave behind.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::processes;

/// What is left of a worker that kept its things below this folder: processes, files and sockets.
pub fn of_worker(runtime: &Path) -> Vec<String> {
    let needle = runtime.display().to_string();
    let mut found = processes(runtime);
    found.extend(
        std::fs::read_dir(runtime).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()),
    );
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    found.extend(sockets.lines().filter(|line| line.contains(&needle)).map(str::to_owned));
    found
}

/// Processes that work in this folder, or have it in their environment or command line: their ids. Zombies do not
/// count, they are nobody's.
pub fn processes(folder: &Path) -> Vec<String> {
    let needle = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            processes::process(pid).filter(|_| pid != std::process::id())?;
            let is_in_it = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let knows_it = String::from_utf8_lossy(&environment).contains(&needle);
            let command_line = processes::command_line(pid);
            (is_in_it || knows_it || command_line.contains(&needle)).then(|| format!("process {pid}: {command_line}"))
        })
        .collect()
}

/// Waits until nothing is left; gives back what still is at the deadline.
pub async fn gone(runtime: &Path, deadline: Duration) -> Vec<String> {
    let end = Instant::now() + deadline;
    loop {
        let left = of_worker(runtime);
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
