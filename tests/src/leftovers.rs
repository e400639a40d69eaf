//! What a worker must not leave behind.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::processes;

/// Processes with an open file, a folder or a socket below `folder`, or started from `program`'s host program: their
/// ids, with what they are. Zombies do not count, they are nobody's.
pub fn of_worker(runtime: &Path) -> Vec<String> {
    let needle = runtime.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            processes::process(pid).filter(|_| pid != std::process::id())?;
            let read = |link: &str| std::fs::read_link(entry.path().join(link)).ok();
            let is_in_it = read("cwd").is_some_and(|cwd| cwd.starts_with(runtime));
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let knows_it = String::from_utf8_lossy(&environment).contains(&needle);
            (is_in_it || knows_it).then(|| format!("process {pid}"))
        })
        .collect();
    found.extend(
        std::fs::read_dir(runtime).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()),
    );
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    found.extend(sockets.lines().filter(|line| line.contains(&needle)).map(str::to_owned));
    found
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
