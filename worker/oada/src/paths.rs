//! Where a service keeps its jobs: the paths and media types of both generations of OADA services. Pure.

use std::fmt;

use jiff::civil::Date;

use super::tree::{Node, Tree};

/// The generation of the paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// The present one: `jobs/pending`, `jobs/success`, `jobs/failure`.
    #[default]
    V5,
    /// The one before: `jobs`, `jobs-success`, `jobs-failure`.
    V2,
}

/// Where a finished job is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf<'a> {
    /// With those that succeeded.
    Success,
    /// With those that failed.
    Failure,
    /// With those that failed in this way.
    TypedFailure(&'a str),
    /// With those that failed as often as they may.
    DeadLetter,
}

/// The name of a service that cannot be part of a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be the name of a service: it must be one or more characters without `/`, and not begin with `_`")]
pub struct InvalidName(String);

/// The paths of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    service: String,
    layout: Layout,
}

const BOOKMARKS: Node = Node::versioned("application/vnd.oada.bookmarks.1+json");
const SERVICES: Node = Node::versioned("application/vnd.oada.services.1+json");
const SERVICE: Node = Node::versioned("application/vnd.oada.service.1+json");
const JOBS: &str = "application/vnd.oada.service.jobs.1+json";

impl Paths {
    /// The paths of the service called `service`.
    pub fn new(service: &str, layout: Layout) -> Result<Self, InvalidName> {
        if service.is_empty() || service.contains('/') || service.starts_with('_') {
            return Err(InvalidName(service.to_owned()));
        }
        Ok(Self { service: service.to_owned(), layout })
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The generation.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The service itself.
    pub fn root(&self) -> String {
        format!("/bookmarks/services/{}", self.service)
    }

    /// The queues that it is to serve beside its own.
    pub fn queues(&self) -> String {
        format!("{}/queues", self.root())
    }

    /// The list of jobs that are to be done.
    pub fn pending(&self) -> String {
        match self.layout {
            Layout::V5 => format!("{}/jobs/pending", self.root()),
            Layout::V2 => format!("{}/jobs", self.root()),
        }
    }

    /// The resource above all days of a shelf. In the second generation there are no typed failures.
    pub fn shelf(&self, shelf: Shelf<'_>) -> Option<String> {
        let join = match self.layout {
            Layout::V5 => '/',
            Layout::V2 => '-',
        };
        let name = match (shelf, self.layout) {
            (Shelf::Success, _) => "success".to_owned(),
            (Shelf::Failure, _) => "failure".to_owned(),
            (Shelf::TypedFailure(kind), Layout::V5) => format!("typed-failure/{}", Key(kind)),
            (Shelf::TypedFailure(_), Layout::V2) => return None,
            (Shelf::DeadLetter, _) => "dead-letter".to_owned(),
        };
        Some(format!("{}/jobs{join}{name}", self.root()))
    }

    /// The list of a day on a shelf.
    pub fn day(&self, shelf: Shelf<'_>, date: Date) -> Option<String> {
        Some(format!("{}/day-index/{date}", self.shelf(shelf)?))
    }

    /// The rows of a day of a report.
    pub fn report_day(&self, report: &str, date: Date) -> String {
        format!("{}/jobs/reports/{}/day-index/{date}", self.root(), Key(report))
    }

    /// The link to a finished job.
    pub(crate) fn filed_link(&self, id: &str) -> serde_json::Value {
        match self.layout {
            Layout::V5 => serde_json::json!({ "_id": id, "_rev": 0 }),
            Layout::V2 => serde_json::json!({ "_id": id }),
        }
    }

    /// The media type of a job.
    pub(crate) fn job_type(&self) -> &'static str {
        match self.layout {
            Layout::V5 => "application/vnd.oada.service.job.1+json",
            Layout::V2 => "application/vnd.oada.service.job+json",
        }
    }

    /// The resources of a service.
    pub fn tree(&self) -> Tree {
        let root = "/bookmarks/services/*";
        let at = |path: &str, node| (format!("{root}{path}"), node);
        let mut nodes = vec![
            ("/bookmarks".to_owned(), BOOKMARKS),
            ("/bookmarks/services".to_owned(), SERVICES),
            (root.to_owned(), SERVICE),
        ];
        match self.layout {
            Layout::V5 => nodes.extend([
                at("/queues", Node::plain("application/vnd.oada.service.queues.1+json")),
                at("/queues/*", Node::plain("application/vnd.oada.service.queue.1+json")),
                at("/jobs", Node::plain(JOBS)),
                at("/jobs/pending", Node::plain(JOBS)),
                at("/jobs/pending/*", Node::plain(self.job_type())),
                at("/jobs/success", Node::versioned(JOBS)),
                at("/jobs/failure", Node::versioned(JOBS)),
                at("/jobs/dead-letter", Node::versioned(JOBS)),
                at("/jobs/*/day-index/*", Node::versioned(JOBS)),
                at("/jobs/typed-failure/*/day-index/*", Node::versioned(JOBS)),
                at("/jobs/reports/*/day-index/*", Node::plain(JOBS)),
            ]),
            Layout::V2 => nodes.extend([
                at("/queues", Node::plain("application/vnd.oada.service.queues+json")),
                at("/queues/*", Node::plain("application/vnd.oada.service.queue+json")),
                at("/jobs", Node::plain("application/vnd.oada.service.jobs+json")),
                at("/jobs/*", Node::plain(self.job_type())),
                at("/jobs-success", Node::plain("application/vnd.oada.service.jobs-success+json")),
                at("/jobs-failure", Node::plain("application/vnd.oada.service.jobs-failure+json")),
                at("/jobs-dead-letter", Node::plain("application/vnd.oada.service.jobs-dead-letter+json")),
                at("/*/day-index/*", Node::plain("application/vnd.oada.service.jobs+json")),
                at("/jobs/reports/*/day-index/*", Node::plain("application/vnd.oada.service.jobs+json")),
            ]),
        }
        Tree(nodes)
    }
}

/// Text as one key of a path.
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A store keeps what begins with `_` for itself.
        let text = self.0.trim_start_matches('_');
        out.write_str(&if text.is_empty() { "unnamed".to_owned() } else { text.replace('/', "-") })
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn paths_of_both_generations() {
        let day = date(2026, 11, 21);
        let v5 = Paths::new("demo", Layout::V5).unwrap();
        let v2 = Paths::new("demo", Layout::V2).unwrap();
        let root = "/bookmarks/services/demo";
        let cases = [
            (v5.pending(), "/jobs/pending"),
            (v2.pending(), "/jobs"),
            (v5.queues(), "/queues"),
            (v5.day(Shelf::Success, day).unwrap(), "/jobs/success/day-index/2026-11-21"),
            (v2.day(Shelf::Success, day).unwrap(), "/jobs-success/day-index/2026-11-21"),
            (v2.day(Shelf::Failure, day).unwrap(), "/jobs-failure/day-index/2026-11-21"),
            (v5.day(Shelf::TypedFailure("bad"), day).unwrap(), "/jobs/typed-failure/bad/day-index/2026-11-21"),
            (v5.day(Shelf::TypedFailure("_a/b"), day).unwrap(), "/jobs/typed-failure/a-b/day-index/2026-11-21"),
            (v5.day(Shelf::DeadLetter, day).unwrap(), "/jobs/dead-letter/day-index/2026-11-21"),
            (v5.report_day("weekly", day), "/jobs/reports/weekly/day-index/2026-11-21"),
        ];
        for (path, expected) in cases {
            assert_eq!(path, format!("{root}{expected}"));
        }
        assert_eq!(v2.day(Shelf::TypedFailure("bad"), day), None);
        for bad in ["", "a/b", "_meta"] {
            assert!(Paths::new(bad, Layout::V5).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_way_to_a_day_is_made_of_the_right_resources() {
        let way = |paths: &Paths, shelf| {
            let day = paths.day(shelf, date(2026, 11, 21)).unwrap();
            let nodes = paths.tree().way(&day);
            nodes.into_iter().map(|(_, node)| (node.media_type, node.versioned)).collect::<Vec<_>>()
        };
        let v5 = Paths::new("demo", Layout::V5).unwrap();
        let common = [BOOKMARKS, SERVICES, SERVICE].map(|node| (node.media_type, true));
        let expected = [&common[..], &[(JOBS, false), (JOBS, true), (JOBS, true)]].concat();
        assert_eq!(way(&v5, Shelf::Success), expected);
        let expected = [&common[..], &[(JOBS, false), (JOBS, true)]].concat();
        assert_eq!(way(&v5, Shelf::TypedFailure("x")), expected);
        let v2 = Paths::new("demo", Layout::V2).unwrap();
        let v2_types = ["application/vnd.oada.service.jobs-success+json", "application/vnd.oada.service.jobs+json"];
        let expected = [&common[..], &v2_types.map(|it| (it, false))].concat();
        assert_eq!(way(&v2, Shelf::Success), expected);
    }
}
