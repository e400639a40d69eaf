//! Checks a workflow before anything of it runs.
//!
//! Pure. What comes out can be walked without another look at it: every edge leads to a step, and no way leads back.

use std::collections::HashMap;

use protocol::run::{Condition, Exit, ExitReason, Step};

use crate::compile;

/// A workflow that can be walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in the order of the run's.
    pub nodes: Vec<Node>,
    /// Place of the step to start with.
    pub start: usize,
}

/// A step and the ways out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The step; its own `next` has gone into `ways`.
    pub step: Step,
    /// Where to go next, at most one way to each target.
    pub ways: Vec<Way>,
}

/// A way to another step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Place of the step that it leads to.
    pub target: usize,
    /// When it is taken.
    pub condition: Condition,
}

/// A workflow that cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is nothing to start with.
    #[error("The workflow has no steps")]
    NoSteps,
    /// Two steps cannot be told apart.
    #[error("Two jobs have the same id: {0}")]
    DuplicateStep(String),
    /// The start names no step.
    #[error("Could not find start job: {0}")]
    UnknownStart(String),
    /// An edge names no step.
    #[error("Cannot find job: {0}")]
    UnknownTarget(String),
    /// A way leads back to where it came from.
    #[error("Circular dependency: {0} <-> {1}")]
    Circular(String, String),
    /// Conditions that are not JavaScript expressions.
    #[error("{}", .0.join("\n\n"))]
    Conditions(Vec<String>),
}

impl PlanError {
    /// How a run with such a workflow ends.
    pub fn exit(&self) -> Exit {
        let kind = match self {
            Self::Conditions(_) => "Error",
            _ => "ValidationError",
        };
        Exit::error(ExitReason::Crash, kind, self.to_string())
    }
}

impl Plan {
    /// Checks `steps`, of which `start` or else the first one starts.
    pub fn check(steps: Vec<Step>, start: Option<&str>) -> Result<Self, PlanError> {
        let mut places = HashMap::with_capacity(steps.len());
        for (place, step) in steps.iter().enumerate() {
            if places.insert(step.id.clone(), place).is_some() {
                return Err(PlanError::DuplicateStep(step.id.clone()));
            }
        }
        let start = match start {
            Some(id) => *places.get(id).ok_or_else(|| PlanError::UnknownStart(id.to_owned()))?,
            None if steps.is_empty() => return Err(PlanError::NoSteps),
            None => 0,
        };
        let nodes = steps.into_iter().map(|step| resolve(step, &places)).collect::<Result<Vec<_>, _>>()?;
        check_for_cycles(&nodes)?;
        check_conditions(&nodes)?;
        Ok(Self { nodes, start })
    }
}

/// Finds the edges' targets. Of several edges to one target the last one's condition counts, in the first one's place.
fn resolve(mut step: Step, places: &HashMap<String, usize>) -> Result<Node, PlanError> {
    let mut ways: Vec<Way> = Vec::with_capacity(step.next.len());
    for edge in std::mem::take(&mut step.next) {
        let Some(&target) = places.get(&edge.target) else { return Err(PlanError::UnknownTarget(edge.target)) };
        match ways.iter_mut().find(|way| way.target == target) {
            Some(way) => way.condition = edge.condition,
            None => ways.push(Way { target, condition: edge.condition }),
        }
    }
    Ok(Node { step, ways })
}

/// Follows all ways depth first, without recursion: a chain may be as long as it likes.
fn check_for_cycles(nodes: &[Node]) -> Result<(), PlanError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        OnPath,
        Done,
    }

    let mut marks = vec![Mark::New; nodes.len()];
    for root in 0..nodes.len() {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::OnPath;
        let mut path = vec![(root, nodes[root].ways.iter())];
        while let Some((place, ways)) = path.last_mut() {
            let place = *place;
            match ways.next().map(|way| way.target) {
                None => {
                    marks[place] = Mark::Done;
                    path.pop();
                }
                Some(target) if marks[target] == Mark::OnPath => {
                    return Err(PlanError::Circular(nodes[place].step.id.clone(), nodes[target].step.id.clone()));
                }
                Some(target) if marks[target] == Mark::New => {
                    marks[target] = Mark::OnPath;
                    path.push((target, nodes[target].ways.iter()));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

fn check_conditions(nodes: &[Node]) -> Result<(), PlanError> {
    let mut errors = Vec::new();
    for node in nodes {
        for way in &node.ways {
            let Condition::Expression(expression) = &way.condition else { continue };
            if let Err(why) = compile::check_condition(expression) {
                let (from, to) = (&node.step.id, &nodes[way.target].step.id);
                errors.push(format!("Failed to compile edge condition {from}->{to} ({why})"));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(PlanError::Conditions(errors)) }
}

#[cfg(test)]
mod tests {
    use protocol::run::Edge;

    use super::*;

    /// Steps from lines such as `a > b c`.
    fn steps(text: &str) -> Vec<Step> {
        text.lines()
            .map(|line| {
                let (id, targets) = line.split_once('>').unwrap_or((line, ""));
                Step {
                    id: id.trim().into(),
                    name: None,
                    expression: None,
                    adaptors: vec![],
                    configuration: None,
                    state: None,
                    next: targets
                        .split_whitespace()
                        .map(|target| Edge { target: target.into(), condition: Condition::Always })
                        .collect(),
                }
            })
            .collect()
    }

    #[test]
    fn workflows_that_cannot_be_walked_are_refused() {
        for (text, start, expected) in [
            ("", None, "The workflow has no steps"),
            ("", Some("a"), "Could not find start job: a"),
            ("a", Some("zz"), "Could not find start job: zz"),
            ("a\nb\na", None, "Two jobs have the same id: a"),
            ("a > nope", None, "Cannot find job: nope"),
            ("a > a", None, "Circular dependency: a <-> a"),
            ("a > b\nb > a", None, "Circular dependency: b <-> a"),
            ("a > b\nb > c\nc > b", None, "Circular dependency: c <-> b"),
            ("a\nb > c\nc > d\nd > b", None, "Circular dependency: d <-> b"),
        ] {
            let error = Plan::check(steps(text), start).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
            let exit = error.exit();
            assert_eq!(exit.reason, ExitReason::Crash);
            assert_eq!(exit.error.unwrap().kind, "ValidationError");
        }
    }

    #[test]
    fn any_other_workflow_is_resolved() {
        let plan = Plan::check(steps("a > b c\nb > d\nc > d\nd"), Some("b")).unwrap();
        assert_eq!(plan.start, 1);
        let ways: Vec<Vec<usize>> =
            plan.nodes.iter().map(|node| node.ways.iter().map(|way| way.target).collect()).collect();
        assert_eq!(ways, [vec![1, 2], vec![3], vec![3], vec![]]);
        assert_eq!(Plan::check(steps("a\nb"), None).unwrap().start, 0);
    }

    #[test]
    fn the_last_edge_to_a_target_counts() {
        let mut steps = steps("a > b c b\nb\nc");
        steps[0].next[2].condition = Condition::OnFailure;
        let plan = Plan::check(steps, None).unwrap();
        assert_eq!(
            plan.nodes[0].ways,
            [Way { target: 1, condition: Condition::OnFailure }, Way { target: 2, condition: Condition::Always }]
        );
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let text: Vec<String> = (0..50_000).map(|n| format!("{n} > {}", n + 1)).chain(["50000".to_owned()]).collect();
        assert!(Plan::check(steps(&text.join("\n")), None).is_ok());
    }
}
