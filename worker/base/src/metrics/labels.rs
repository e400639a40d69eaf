//! The values of labels: a few words each, whatever users call things.

use protocol::run::Exit;

/// Error types that are told apart; jobs and adaptors can make up any others.
const ERROR_TYPES: &[&str] = &[
    "AdaptorError",
    "AggregateError",
    "AutoinstallError",
    "Cancelled",
    "CompileError",
    "CredentialLoadError",
    "DataClipError",
    "EdgeConditionError",
    "EngineError",
    "EngineHostError",
    "EvalError",
    "ExecutionError",
    "ExitError",
    "ImportError",
    "InputError",
    "InstallError",
    "InvalidPlan",
    "InvalidTokenError",
    "JobError",
    "LightningError",
    "OOMError",
    "PlanLoadError",
    "PrepareTimeoutError",
    "RangeError",
    "ReferenceError",
    "RuntimeCrash",
    "RuntimeError",
    "ScratchLimitError",
    "SecurityError",
    "Shutdown",
    "StateTooLargeError",
    "SyntaxError",
    "TimeoutError",
    "TypeError",
    "URIError",
    "ValidationError",
    "WorkerCrashError",
];

/// The type of a run's error as a label: one of a fixed list, `other`, or nothing.
pub fn error_type(exit: &Exit) -> &'static str {
    let Some(error) = &exit.error else { return "" };
    ERROR_TYPES.iter().find(|known| **known == error.kind).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use protocol::run::ExitReason;

    use super::*;

    #[test]
    fn error_types_that_jobs_make_up_share_a_label() {
        let exit = |kind: &str| Exit::error(ExitReason::Fail, kind, "message");
        assert_eq!(error_type(&exit("TypeError")), "TypeError");
        assert_eq!(error_type(&exit("Amina Diallo")), "other");
        assert_eq!(error_type(&Exit::success()), "");
    }

    #[test]
    fn error_types_that_the_documentation_names_are_told_apart() {
        let page = include_str!("../../../../docs/exit-reasons.md");
        let rows = page.lines().skip_while(|line| *line != "## Runs").take_while(|line| *line != "## Hosts");
        let quoted: Vec<&str> =
            rows.filter(|line| line.starts_with("| `")).flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
        let types: Vec<&&str> =
            quoted.iter().filter(|word| word.starts_with(|first: char| first.is_ascii_uppercase())).collect();
        assert!(types.len() > 20, "{types:?}");
        for kind in types {
            assert!(ERROR_TYPES.contains(kind), "{kind} is in docs/exit-reasons.md and counts as other");
        }
    }
}
