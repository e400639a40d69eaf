//! The two text formats that scrapers read.

use std::fmt::Write as _;

/// What metrics are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics, with units.
    OpenMetrics,
    /// Prometheus' own text, which everything reads.
    Plain,
}

impl Format {
    /// The best one that an `Accept` header names; plain text for who names none.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Plain }
    }

    /// Its type in HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// OpenMetrics in this format.
    pub(super) fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Plain => plain(&open_metrics),
        }
    }
}

/// Families get the names of their samples; units and the end are not told.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    // Writing to a string does not fail.
    for line in open_metrics.lines() {
        if let Some((_, told)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = told;
        } else if let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let _ = writeln!(text, "# HELP {family}{suffix} {help}\n# TYPE {family}{suffix} {kind}");
        } else if !line.starts_with('#') {
            // Exemplars are not told either.
            let sample = line.rsplit_once(" # {").map_or(line, |(sample, _)| sample);
            let _ = writeln!(text, "{sample}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_names_families_as_their_samples() {
        let open_metrics = "# HELP a_build Version.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n\
                            # HELP a_runs Runs that ended.\n# TYPE a_runs counter\na_runs_total 3\n\
                            # HELP a_lag_seconds Lag.\n# TYPE a_lag_seconds histogram\n# UNIT a_lag_seconds seconds\n\
                            a_lag_seconds_count 0\n\
                            a_lag_seconds_bucket{le=\"1.0\"} 2 # {run_id=\"r\"} 0.5\n# EOF\n";
        let expected = "# HELP a_build_info Version.\n# TYPE a_build_info gauge\na_build_info{version=\"1\"} 1\n\
                        # HELP a_runs_total Runs that ended.\n# TYPE a_runs_total counter\na_runs_total 3\n\
                        # HELP a_lag_seconds Lag.\n# TYPE a_lag_seconds histogram\na_lag_seconds_count 0\n\
                        a_lag_seconds_bucket{le=\"1.0\"} 2\n";
        assert_eq!(Format::Plain.of(open_metrics.to_owned()), expected);
        assert_eq!(Format::OpenMetrics.of(open_metrics.to_owned()), open_metrics);
    }

    #[test]
    fn a_scraper_gets_what_it_names() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for other in ["", "*/*", "text/plain;version=0.0.4", "text/html,application/xhtml+xml,*/*;q=0.8"] {
            assert_eq!(Format::accepted(other), Format::Plain, "{other}");
        }
    }
}
