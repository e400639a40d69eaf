//! Workloops: which queues are claimed from, in which order, and how many runs each may have at once.

use std::collections::HashSet;

/// A list of queues in order of preference, and how many of their runs may be active at once.
#[derive(derive_more::Display, Debug, Clone, PartialEq, Eq, Hash)]
#[display("{}:{capacity}", self.name())]
pub struct Workloop {
    /// Names of queues; `*` stands for all others.
    pub queues: Vec<String>,
    /// How many runs at once; never zero.
    pub capacity: usize,
}

impl Workloop {
    /// The workloop of a worker that is told nothing but its capacity.
    pub fn standard(capacity: usize) -> Self {
        Self { queues: vec!["manual".into(), "*".into()], capacity }
    }

    /// The queues as they are written and as Lightning is told of them: joined by `>`.
    pub fn name(&self) -> String {
        self.queues.join(">")
    }
}

/// Workloops as they are configured, with what is odd about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workloops {
    /// At least one.
    pub list: Vec<Workloop>,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// A text that does not describe workloops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWorkloops {
    /// There is none.
    #[error("no workloop given; it looks like `fast_lane:1 manual>*:4`")]
    None,
    /// Without a colon.
    #[error("workloop `{0}` has no capacity; it looks like `manual>*:4`")]
    NoCapacity(String),
    /// A capacity that is no whole number from 1.
    #[error("workloop `{workloop}`: capacity `{capacity}` is not a whole number from 1")]
    Capacity {
        /// The whole token.
        workloop: String,
        /// Its part behind the colon.
        capacity: String,
    },
    /// A name that is none.
    #[error("workloop `{workloop}`: `{queue}` is not a queue's name; letters, digits and `_` are allowed, or `*`")]
    Queue {
        /// The whole token.
        workloop: String,
        /// The name.
        queue: String,
    },
    /// A `*` that others follow.
    #[error("workloop `{0}`: `*` stands for all other queues and must be the last")]
    WildcardNotLast(String),
}

/// Reads `"<queue>[>queue…]:<capacity> …"`.
pub fn parse_workloops(text: &str) -> Result<Workloops, InvalidWorkloops> {
    let list = text.split_whitespace().map(parse_one).collect::<Result<Vec<_>, _>>()?;
    if list.is_empty() {
        return Err(InvalidWorkloops::None);
    }
    let mut warnings = Vec::new();
    let mut names = HashSet::new();
    for workloop in &list {
        let mut seen = HashSet::new();
        for queue in workloop.queues.iter().filter(|queue| !seen.insert(*queue)) {
            warnings.push(format!("workloop `{workloop}` names the queue `{queue}` twice"));
        }
        if !names.insert(workloop.name()) {
            warnings.push(format!("there is more than one workloop `{}`", workloop.name()));
        }
    }
    Ok(Workloops { list, warnings })
}

fn parse_one(token: &str) -> Result<Workloop, InvalidWorkloops> {
    let (names, capacity) = token.rsplit_once(':').ok_or_else(|| InvalidWorkloops::NoCapacity(token.into()))?;
    let capacity = capacity
        .parse()
        .ok()
        .filter(|&number| number >= 1 && capacity.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| InvalidWorkloops::Capacity { workloop: token.into(), capacity: capacity.into() })?;
    let queues: Vec<String> = names.split('>').map(Into::into).collect();
    if let Some(queue) = queues.iter().find(|queue| *queue != "*" && !is_name(queue)) {
        return Err(InvalidWorkloops::Queue { workloop: token.into(), queue: queue.clone() });
    }
    match queues.iter().position(|queue| queue == "*") {
        Some(at) if at + 1 != queues.len() => Err(InvalidWorkloops::WildcardNotLast(token.into())),
        _ => Ok(Workloop { queues, capacity }),
    }
}

fn is_name(queue: &str) -> bool {
    !queue.is_empty() && queue.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&[(&[&str], usize)], &str>) {
        match (parse_workloops(text), expected) {
            (Ok(read), Ok(expected)) => {
                let read: Vec<_> = read
                    .list
                    .iter()
                    .map(|it| (it.queues.iter().map(String::as_str).collect::<Vec<_>>(), it.capacity))
                    .collect();
                let expected: Vec<_> = expected.iter().map(|(queues, capacity)| (queues.to_vec(), *capacity)).collect();
                assert_eq!(read, expected, "{text}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (read, _) => panic!("{text}: {read:?}"),
        }
    }

    #[test]
    fn table() {
        check("manual>*:5", Ok(&[(&["manual", "*"], 5)]));
        check("  fast_lane:1   manual>*:4 ", Ok(&[(&["fast_lane"], 1), (&["manual", "*"], 4)]));
        check("*:1", Ok(&[(&["*"], 1)]));
        check("a>b>c2:12", Ok(&[(&["a", "b", "c2"], 12)]));
        check("", Err("no workloop given"));
        check("a:1 manual", Err("`manual` has no capacity"));
        check("a:0", Err("capacity `0`"));
        check("a:-1", Err("capacity `-1`"));
        check("a:+1", Err("capacity `+1`"));
        check("a:1.5", Err("capacity `1.5`"));
        check("a:", Err("capacity ``"));
        check("a:99999999999999999999999", Err("is not a whole number"));
        check("b:1 a-b:1", Err("workloop `a-b:1`: `a-b` is not a queue's name"));
        check(">a:1", Err("`` is not a queue's name"));
        check("a:b:1", Err("`a:b` is not a queue's name"));
        check("*>a:1", Err("workloop `*>a:1`: `*` stands for all other queues"));
        check("*>*:1", Err("must be the last"));
    }

    #[test]
    fn oddities_are_told() {
        let warnings = parse_workloops("a>a:1 b:1 b:2 c:1").unwrap().warnings;
        assert_eq!(warnings, ["workloop `a>a:1` names the queue `a` twice", "there is more than one workloop `b`"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(read) = parse_workloops(&text) {
                let written: Vec<_> = read.list.iter().map(Workloop::to_string).collect();
                prop_assert_eq!(parse_workloops(&written.join(" ")).unwrap().list, read.list);
            }
        }
    }
}
