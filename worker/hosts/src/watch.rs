//! Files that are watched for being replaced or edited.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use std::os::unix::fs::MetadataExt;

/// How often files are looked at. A file has changed when it is another one than before, and stays so for as long.
const EVERY: Duration = Duration::from_millis(500);

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Version {
    device: u64,
    file: u64,
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// Which version of a file there is, if it is there.
pub(super) fn version(path: &Path) -> Option<Version> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Version {
        device: metadata.dev(),
        file: metadata.ino(),
        bytes: metadata.len(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
    })
}

/// A file as it was seen.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    known: Option<Version>,
    /// Seen once, and to be seen again: a file that is being written changes all the time.
    next: Option<Version>,
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        let known = version(&path);
        Self { path, known, next: None }
    }

    /// Takes in what the file is now; whether it has changed. One that is away is on its way to be replaced.
    fn see(&mut self, now: Option<Version>) -> bool {
        let is_new = now.is_some() && now != self.known;
        let is_settled = is_new && now == self.next;
        self.next = if is_new && !is_settled { now } else { None };
        if is_settled {
            self.known = now;
        }
        is_settled
    }
}

/// Watches files from now on, until the receiver is dropped, which gets each that has become another one. Must be called within a tokio runtime.
pub fn watch_files(paths: Vec<PathBuf>) -> mpsc::Receiver<PathBuf> {
    let (changes, receiver) = mpsc::channel(1);
    let mut files: Vec<Watched> = paths.into_iter().map(Watched::new).collect();
    tokio::spawn(async move {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !changes.is_closed() {
            looks.tick().await;
            for file in &mut files {
                if file.see(version(&file.path)) {
                    // Fails when nobody listens any more.
                    let _ = changes.send(file.path.clone()).await;
                }
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_changed_when_it_is_another_one_and_stays_so() {
        let at = |bytes| Some(Version { device: 1, file: 1, bytes, seconds: 0, nanoseconds: 0 });
        let mut file = Watched { path: PathBuf::new(), known: at(1), next: None };
        let table = [(at(1), false), (at(2), false), (at(3), false), (None, false), (at(4), false), (at(4), true)];
        for (now, changed) in table {
            assert_eq!(file.see(now), changed, "{now:?}");
        }
        assert!(!file.see(at(4)));
        assert!(!file.see(at(5)));
        assert!(!file.see(at(4)), "as it was");
    }

    #[tokio::test]
    async fn a_replaced_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut changes = watch_files(vec![path.clone()]);
        std::fs::write(folder.path().join("other"), "other").unwrap();
        std::fs::rename(folder.path().join("other"), &path).unwrap();
        let change = tokio::time::timeout(Duration::from_secs(30), changes.recv()).await;
        assert_eq!(change.unwrap(), Some(path));
    }
}
