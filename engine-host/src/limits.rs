//! What happens at a run's limits. Pure: the numbers come in, what they mean comes out.

use protocol::Json;
use protocol::run::{Exit, ExitReason, RunOptions, StepOutput};

/// The end of a run that took longer than `timeout_ms`.
pub fn timeout_exit(timeout_ms: u64) -> Exit {
    Exit::error(ExitReason::Kill, "TimeoutError", format!("Workflow failed to return within {timeout_ms}ms"))
}

/// The end of a run that has a state of `length` bytes, if that is more than it may have.
pub fn state_exit(length: usize, options: &RunOptions) -> Option<Exit> {
    (length as u64 > options.state_bytes).then(|| state_too_large(options))
}

/// The end of a run that has a state of more bytes than it may have.
pub fn state_too_large(options: &RunOptions) -> Exit {
    let message = format!("State exceeds the limit of {}mb", megabytes(options.state_bytes));
    Exit::error(ExitReason::Kill, "StateTooLargeError", message)
}

/// As much of a dataclip as is sent.
pub fn output(dataclip: Json, options: &RunOptions) -> StepOutput {
    if !options.output_dataclips {
        StepOutput::Unwanted
    } else if is_over_payload(&dataclip, options) {
        StepOutput::TooLarge(dataclip.len() as u64)
    } else {
        StepOutput::State(dataclip)
    }
}

/// Whether the text is too long to be sent.
pub fn is_over_payload(text: &Json, options: &RunOptions) -> bool {
    text.len() as u64 > options.payload_bytes
}

/// Stands for a state that is withheld.
pub fn redacted() -> Json {
    Json::parse(r#"{"data":"[REDACTED]"}"#).expect("the literal is JSON")
}

/// Bytes as megabytes, without needless digits.
pub fn megabytes(bytes: u64) -> f64 {
    let exact = bytes as f64 / (1024.0 * 1024.0);
    (exact * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1024 * 1024;

    #[test]
    fn a_state_may_be_as_long_as_its_limit() {
        for (limit, length, expected) in [
            (125 * MB, 125 * MB, None),
            (125 * MB, 125 * MB + 1, Some("State exceeds the limit of 125mb")),
            (MB / 2, MB, Some("State exceeds the limit of 0.5mb")),
        ] {
            let options = RunOptions { state_bytes: limit, ..RunOptions::default() };
            let expected = expected.map(|message| Exit::error(ExitReason::Kill, "StateTooLargeError", message));
            assert_eq!(state_exit(length as usize, &options), expected);
        }
    }

    #[test]
    fn dataclips_are_sent_as_the_options_say() {
        let dataclip = Json::parse(r#"{"a":1}"#).unwrap();
        for (output_dataclips, payload_bytes, expected) in [
            (true, 7, StepOutput::State(dataclip.clone())),
            (true, 6, StepOutput::TooLarge(7)),
            (false, 6, StepOutput::Unwanted),
        ] {
            let options = RunOptions { output_dataclips, payload_bytes, ..RunOptions::default() };
            assert_eq!(output(dataclip.clone(), &options), expected);
        }
    }

    #[test]
    fn the_timeout_names_its_limit() {
        let exit = timeout_exit(1500);
        assert_eq!(exit, Exit::error(ExitReason::Kill, "TimeoutError", "Workflow failed to return within 1500ms"));
    }
}
