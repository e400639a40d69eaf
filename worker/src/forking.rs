//! Whether Node engines can be forked here.

/// Whether this program was built for a system on which they are.
pub(crate) const HAS_PLATFORM: bool = cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"));

/// Why engines of this version of Node cannot be forked, if they cannot. The host says the same of each template that
/// it is to look after.
pub(crate) fn refusal(node: &str, has_platform: bool, has_landlock: bool) -> Option<String> {
    if !has_platform {
        return Some("engines are forked on Linux on x86-64 with glibc".to_owned());
    }
    let mut numbers = node.split('.').map(|number| number.parse::<u32>().ok());
    let is_tried = matches!((numbers.next(), numbers.next()), (Some(Some(22)), Some(Some(14..))) | (Some(Some(24)), _));
    if !is_tried {
        return Some(format!("Node {node} is not forked: 22.14 and newer of that line and 24 are"));
    }
    let unconfined = "nothing would keep engines that are forked apart, as Landlock is not there or not to be used";
    (!has_landlock).then(|| unconfined.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_forked_where_that_was_tried() {
        for (node, has_platform, has_landlock, expected) in [
            ("24.21.0", true, true, None),
            ("22.14.0", true, true, None),
            ("22.13.1", true, true, Some("Node 22.13.1")),
            ("20.20.2", true, true, Some("Node 20.20.2")),
            ("25.0.0", true, true, Some("Node 25.0.0")),
            ("24.21.0", false, true, Some("x86-64")),
            ("24.21.0", true, false, Some("Landlock")),
        ] {
            let refusal = refusal(node, has_platform, has_landlock);
            assert_eq!(refusal.is_some(), expected.is_some(), "{node}");
            assert!(expected.is_none_or(|text| refusal.unwrap_or_default().contains(text)), "{node}");
        }
    }
}
