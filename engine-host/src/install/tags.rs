//! What a package's tags stand for: as the registry says, else as it said last.

use std::time::Duration;

use protocol::clock::unix_seconds;
use protocol::install::Resolved;
use protocol::specifier::Specifier;
use serde::{Deserialize, Serialize};

use super::npm::Npm;
use super::{Failure, Workshop, files};

/// The registry's last answer, as it is kept in the repo.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    tags: Vec<(String, String)>,
    /// Seconds since the epoch.
    asked_at: u64,
}

/// Asks the registry. Where that does not work, the last answer is given.
pub(super) async fn resolve(workshop: &Workshop, name: &str) -> Result<Resolved, Failure> {
    Specifier::new(name, None).map_err(|error| Failure::Other(error.to_string()))?;
    if workshop.repo.offline {
        let none = || Failure::Other(format!("{name} was never looked up, and this worker is offline"));
        return last(workshop, name, "this worker is offline").ok_or_else(none);
    }
    match ask(workshop, name).await {
        Ok(tags) => {
            let kept = Kept { tags: tags.clone(), asked_at: unix_seconds() };
            let path = workshop.layout.tags(name);
            let written = serde_json::to_vec(&kept).map_err(Into::into).and_then(|text| files::replace(&path, &text));
            if let Err(error) = written {
                workshop
                    .tell(format!("{name}: the registry's answer cannot be kept in {}: {error}", path.display()))
                    .await;
            }
            Ok(Resolved { tags, stale: None })
        }
        Err(failure @ Failure::Npm(_)) => last(workshop, name, &failure.to_string()).ok_or(failure),
        Err(failure) => Err(failure),
    }
}

async fn ask(workshop: &Workshop, name: &str) -> Result<Vec<(String, String)>, Failure> {
    let folder = workshop.layout.root();
    std::fs::create_dir_all(folder).map_err(|error| Failure::io(folder, &error))?;
    Ok(Npm::find(&workshop.repo.node)?.tags(workshop, name).await?)
}

fn last(workshop: &Workshop, name: &str, why: &str) -> Option<Resolved> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(workshop.layout.tags(name)).ok()?).ok()?;
    let age = Duration::from_secs(unix_seconds().saturating_sub(kept.asked_at));
    Some(Resolved { tags: kept.tags, stale: Some(format!("{why} (the last answer is {age:?} old)")) })
}
