//! Adaptors that only the kernel confines: what they start is no Node, which restricts itself.

use protocol::engine::Needs;

/// Why runs that need such an adaptor are refused: with this version of Landlock, as the operator wants it. None if
/// they are not.
pub fn refusal(landlock: Option<u32>, no_landlock: bool, allowed: bool) -> Option<&'static str> {
    match (landlock, no_landlock, allowed) {
        (_, _, true) | (Some(_), false, false) => None,
        (Some(_), true, false) => Some("the worker was started with --no-landlock"),
        (None, _, false) => Some("this kernel has no Landlock"),
    }
}

/// Whether an adaptor with these needs does what Node's own permissions do not restrict.
pub(super) fn is_unconfined(needs: Needs) -> bool {
    needs.child_processes || needs.addons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_refused_where_nothing_confines_them_unless_that_is_allowed() {
        for (landlock, no_landlock, allowed, is_refused) in [
            (Some(1), false, false, false),
            (Some(7), true, false, true),
            (Some(7), true, true, false),
            (None, false, false, true),
            (None, true, false, true),
            (None, false, true, false),
        ] {
            let refused = refusal(landlock, no_landlock, allowed);
            assert_eq!(refused.is_some(), is_refused, "{landlock:?} {no_landlock} {allowed}");
        }
    }

    #[test]
    fn processes_and_native_code_are_what_node_does_not_confine() {
        for (needs, expected) in [
            (Needs::default(), false),
            (Needs { workers: true, ..Needs::default() }, false),
            (Needs { child_processes: true, ..Needs::default() }, true),
            (Needs { addons: true, ..Needs::default() }, true),
        ] {
            assert_eq!(is_unconfined(needs), expected, "{needs:?}");
        }
    }
}
