//! Gathers how the steps of a run ended, and from that how the run did. Pure.

use protocol::Json;
use protocol::run::{Exit, ExitReason, RunOptions, RunOutcome, StepIndex};

use crate::plan::Plan;
use crate::{limits, state};

/// How the steps ended so far.
#[derive(Debug, Default)]
pub struct Ends {
    /// Places of the steps with code that ran, each with its latest end, in the order in which they first ran.
    steps: Vec<(usize, Exit)>,
    leaves: Vec<Leaf>,
}

/// A visit to a step from which the walk went no further.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Id of the step, with a number if it was visited before.
    pub name: String,
    /// Its result; none if it was undefined.
    pub state: Option<Json>,
    /// Its place in the order of execution; none if it has no code.
    pub index: Option<StepIndex>,
    /// Whether its dataclip was too large to be sent.
    pub withheld: bool,
}

impl Ends {
    /// The step at `place` of the plan ended.
    pub fn step(&mut self, place: usize, exit: Exit) {
        match self.steps.iter_mut().find(|(known, _)| *known == place) {
            Some(step) => step.1 = exit,
            None => self.steps.push((place, exit)),
        }
    }

    /// The walk went no further from here.
    pub fn leaf(&mut self, leaf: Leaf) {
        self.leaves.push(leaf);
    }

    /// How a run ends that nothing ended early.
    pub fn outcome(self, plan: &Plan, options: &RunOptions) -> RunOutcome {
        let exit = self.exit(plan);
        let final_step = match self.leaves.as_slice() {
            [only] if !only.withheld => only.index,
            _ => None,
        };
        // It goes whether or not steps' results do: synchronous webhooks are answered with it.
        RunOutcome { exit, final_state: self.final_state(options), final_step }
    }

    /// The first failure of a step after which none of its downstream steps ran, whoever led to them.
    fn exit(&self, plan: &Plan) -> Exit {
        let ran = |place: usize| self.steps.iter().any(|(known, _)| *known == place);
        self.steps
            .iter()
            .find(|(place, exit)| {
                exit.reason == ExitReason::Fail && !plan.nodes[*place].ways.iter().any(|way| ran(way.target))
            })
            .map_or_else(Exit::success, |(_, exit)| exit.clone())
    }

    fn final_state(&self, options: &RunOptions) -> Option<Json> {
        let redacted = limits::redacted();
        let mut states = self.leaves.iter().filter_map(|leaf| {
            let state = if leaf.withheld { redacted.clone() } else { state::as_dataclip(leaf.state.as_ref()?) };
            Some((leaf.name.as_str(), state))
        });
        let (name, first) = states.next()?;
        let states: Vec<_> = states.collect();
        let result = if states.is_empty() {
            first
        } else {
            let states = states.iter().map(|(name, state)| (*name, state));
            state::keyed([(name, &first)].into_iter().chain(states).filter(|(_, state)| !state::is_blank(state)))
        };
        Some(if limits::is_over_payload(&result, options) { redacted } else { result })
    }
}

#[cfg(test)]
mod tests {
    use protocol::run::{Condition, Edge, Step};

    use super::*;

    fn leaf(name: &str, state: Option<&str>, index: Option<StepIndex>) -> Leaf {
        let state = state.map(|text| Json::parse(text.to_owned()).unwrap());
        Leaf { name: name.into(), state, index, withheld: false }
    }

    fn plan(edges: &[(usize, usize)], count: usize) -> Plan {
        let steps = (0..count)
            .map(|place| Step {
                id: place.to_string(),
                name: None,
                expression: None,
                adaptors: vec![],
                configuration: None,
                state: None,
                next: edges
                    .iter()
                    .filter(|(from, _)| *from == place)
                    .map(|(_, to)| Edge { target: to.to_string(), condition: Condition::Always })
                    .collect(),
            })
            .collect();
        Plan::check(steps, None).unwrap()
    }

    fn outcome(leaves: Vec<Leaf>, options: &RunOptions) -> (Option<String>, Option<StepIndex>) {
        let ends = Ends { steps: vec![], leaves };
        let outcome = ends.outcome(&plan(&[], 1), options);
        (outcome.final_state.map(|state| state.as_str().to_owned()), outcome.final_step)
    }

    #[test]
    fn the_final_state_is_what_the_leaves_left() {
        let options = RunOptions { payload_bytes: 100, ..RunOptions::default() };
        let withheld = Leaf { withheld: true, ..leaf("w", Some("{}"), Some(7)) };
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(60));
        for (leaves, state, step) in [
            (vec![leaf("a", Some("{}"), None)], Some("{}"), None),
            (vec![leaf("a", Some(r#"{"n":1}"#), Some(0))], Some(r#"{"n":1}"#), Some(0)),
            (vec![leaf("a", Some("42"), Some(0))], Some(r#"{"value":42}"#), Some(0)),
            (vec![leaf("a", None, Some(0))], None, Some(0)),
            (
                vec![leaf("d", Some(r#"{"n":1}"#), Some(1)), leaf("d-1", Some(r#"{"n":2}"#), Some(2))],
                Some(r#"{"d":{"n":1},"d-1":{"n":2}}"#),
                None,
            ),
            (
                vec![leaf("b", Some(r#"{"data":{}}"#), Some(1)), leaf("c", Some("5"), Some(2))],
                Some(r#"{"c":{"value":5}}"#),
                None,
            ),
            (vec![leaf("b", Some("{}"), Some(1)), leaf("c", Some("{}"), Some(2))], Some("{}"), None),
            (vec![leaf("b", None, Some(1)), leaf("c", Some(r#"{"n":1}"#), Some(2))], Some(r#"{"n":1}"#), None),
            (vec![withheld.clone()], Some(r#"{"data":"[REDACTED]"}"#), None),
            (
                vec![withheld, leaf("c", Some(r#"{"n":1}"#), Some(2))],
                Some(r#"{"w":{"data":"[REDACTED]"},"c":{"n":1}}"#),
                None,
            ),
            (
                vec![leaf("b", Some(&long), Some(1)), leaf("c", Some(&long), Some(2))],
                Some(r#"{"data":"[REDACTED]"}"#),
                None,
            ),
        ] {
            assert_eq!(outcome(leaves.clone(), &options), (state.map(str::to_owned), step), "{leaves:?}");
        }
    }

    #[test]
    fn the_final_state_goes_where_those_of_steps_do_not() {
        let options = RunOptions { output_dataclips: false, payload_bytes: 10, ..RunOptions::default() };
        for (state, expected) in [(r#"{"n":1}"#, r#"{"n":1}"#), (r#"{"n":1000000}"#, r#"{"data":"[REDACTED]"}"#)] {
            let expected = (Some(expected.to_owned()), Some(0));
            assert_eq!(outcome(vec![leaf("a", Some(state), Some(0))], &options), expected);
        }
    }

    #[test]
    fn only_leaves_make_a_run_fail() {
        let failed = |message: &str| Exit::error(ExitReason::Fail, "JobError", message);
        let diamond = [(0, 1), (0, 2), (1, 3), (2, 3)];
        for (edges, ends, expected) in [
            (&[][..], vec![(0, Exit::success())], Exit::success()),
            (&[], vec![(0, failed("a"))], failed("a")),
            (&[(0, 1)], vec![(0, failed("a")), (1, Exit::success())], Exit::success()),
            (&[(0, 1)], vec![(0, Exit::success()), (1, failed("b"))], failed("b")),
            (&[(0, 1), (0, 2)], vec![(0, Exit::success()), (1, failed("b")), (2, failed("c"))], failed("b")),
            (
                &diamond,
                vec![(0, Exit::success()), (1, failed("b")), (2, Exit::success()), (3, Exit::success())],
                Exit::success(),
            ),
            (&[], vec![(0, failed("a")), (0, Exit::success())], Exit::success()),
        ] {
            let mut gathered = Ends::default();
            for (place, exit) in ends {
                gathered.step(place, exit);
            }
            assert_eq!(gathered.exit(&plan(edges, 4)), expected);
        }
    }
}
