//! The circuit breaker of claims: opens when run tokens are refused one after the other.
//!
//! A wrong public key, or a wrong clock, refuses every run that is claimed: without it, a worker would empty the queue.
//! Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::token::TokenFault;

/// So many refused tokens in a row open the circuit.
const IN_A_ROW: usize = 3;

/// Tokens that are remembered; [`MOST_REFUSED`] of these open the circuit, too.
const REMEMBERED: usize = 9;
const MOST_REFUSED: usize = 6;

/// Time between the runs that are claimed as probes while the circuit is open.
const PROBE: Duration = Duration::from_secs(60);

/// Whether runs may be claimed, as far as their tokens are concerned.
#[derive(Debug)]
pub(super) struct TokenCircuit {
    /// Without a key no token is ever refused.
    has_key: bool,
    /// Whether the last tokens were refused, the latest last.
    refused: VecDeque<bool>,
    open: Option<Open>,
}

/// The circuit is open.
#[derive(Debug)]
struct Open {
    fault: TokenFault,
    probe_at: Instant,
}

impl TokenCircuit {
    /// A closed circuit, which still is careful if there is a key: no token has verified.
    pub(super) fn new(has_key: bool) -> Self {
        Self { has_key, refused: VecDeque::new(), open: None }
    }

    /// How many slots may be claimed now, with so many claims unanswered. One at a time, until the last token that came
    /// was good: claims that are under way together would take their runs whatever becomes of the first.
    pub(super) fn allowance(&self, now: Instant, open_claims: usize) -> usize {
        if let Some(open) = &self.open {
            return usize::from(open_claims == 0 && open.probe_at <= now);
        }
        let is_careful = self.has_key && self.refused.back().is_none_or(|refused| *refused);
        if is_careful { usize::from(open_claims == 0) } else { usize::MAX }
    }

    /// A claim is on its way.
    pub(super) fn claimed(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.probe_at = now + PROBE;
        }
    }

    /// When the next probe is due, if that is still to come.
    pub(super) fn probe_at(&self, now: Instant) -> Option<Instant> {
        self.open.as_ref().map(|open| open.probe_at).filter(|at| *at > now)
    }

    /// A token is good. Whether that closed the circuit.
    pub(super) fn verified(&mut self) -> bool {
        let closes = self.open.take().is_some();
        if closes {
            self.refused.clear();
        }
        self.remember(false);
        closes
    }

    /// A token is refused. Whether that opened the circuit.
    pub(super) fn refused(&mut self, fault: TokenFault, now: Instant) -> bool {
        self.remember(true);
        if let Some(open) = &mut self.open {
            open.fault = fault;
            return false;
        }
        let in_a_row = self.refused.iter().rev().take_while(|refused| **refused).count();
        let of_late = self.refused.iter().filter(|refused| **refused).count();
        let opens = in_a_row >= IN_A_ROW || of_late >= MOST_REFUSED;
        self.open = opens.then_some(Open { fault, probe_at: now + PROBE });
        opens
    }

    /// Why the circuit is open.
    pub(super) fn fault(&self) -> Option<&TokenFault> {
        self.open.as_ref().map(|open| &open.fault)
    }

    fn remember(&mut self, refused: bool) {
        self.refused.push_back(refused);
        if self.refused.len() > REMEMBERED {
            self.refused.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> TokenFault {
        TokenFault::Key("InvalidSignature".into())
    }

    /// A circuit that has seen these tokens: `v` verified, `r` refused.
    fn after(tokens: &str, now: Instant) -> TokenCircuit {
        let mut it = TokenCircuit::new(true);
        for token in tokens.chars() {
            match token {
                'v' => drop(it.verified()),
                _ => drop(it.refused(fault(), now)),
            }
        }
        it
    }

    #[test]
    fn what_opens_and_closes_it() {
        let now = Instant::now();
        for (tokens, is_open) in [
            ("", false),
            ("rr", false),
            ("rrr", true),
            ("vrrr", true),
            ("rrvrrv", false),
            ("rrvrrvrr", true),
            ("rvvrrvrrv", false),
            ("vvvvvvvvvrrvrrvrr", true),
            // What came before the last nine is forgotten.
            ("rvrvrvvvvvvvvvvrvrvr", false),
            ("rvrvrvvvrvrvr", false),
            ("rvrrvrrvr", true),
            ("rrrrrv", false),
            ("rrrvrr", false),
            ("rrrvrrr", true),
        ] {
            assert_eq!(after(tokens, now).fault().is_some(), is_open, "{tokens}");
        }
    }

    #[test]
    fn how_much_may_be_claimed() {
        let now = Instant::now();
        assert_eq!(TokenCircuit::new(false).allowance(now, 7), usize::MAX, "nothing is checked");
        for (tokens, open_claims, expected) in [
            ("", 0, 1),
            ("", 1, 0),
            ("v", 3, usize::MAX),
            ("vr", 0, 1),
            ("vr", 1, 0),
            ("vrv", 1, usize::MAX),
            ("rrr", 0, 0),
            ("rrrv", 9, usize::MAX),
        ] {
            assert_eq!(after(tokens, now).allowance(now, open_claims), expected, "{tokens} {open_claims}");
        }
    }

    #[test]
    fn one_run_a_minute_is_a_probe_while_it_is_open() {
        let now = Instant::now();
        let mut it = after("rrr", now);
        assert_eq!((it.probe_at(now), it.allowance(now, 0)), (Some(now + PROBE), 0));
        let later = now + PROBE;
        assert_eq!((it.probe_at(later), it.allowance(later, 0), it.allowance(later, 1)), (None, 1, 0));
        it.claimed(later);
        assert_eq!((it.probe_at(later), it.allowance(later, 0)), (Some(later + PROBE), 0));
        assert!(!it.refused(TokenFault::Other("x".into()), later), "it is open already");
        assert_eq!(it.fault(), Some(&TokenFault::Other("x".into())), "the latest");
        assert!(it.verified());
        assert_eq!((it.probe_at(later), it.fault()), (None, None));
    }
}
