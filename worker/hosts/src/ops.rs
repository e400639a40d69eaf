//! What hosts report of their work in numbers, added up by type: pure.

use std::collections::BTreeMap;

use protocol::message::OpsReport;

use super::pool::HostNumber;

/// How many names are kept: what hosts send is not trusted.
const MOST_NAMES: usize = 500;
/// Longest name, in bytes.
const LONGEST_NAME: usize = 200;

/// The numbers of a pool.
#[derive(Debug, Default)]
pub(super) struct OpsTotals {
    counts: BTreeMap<String, u64>,
    gauges: BTreeMap<String, BTreeMap<HostNumber, f64>>,
}

impl OpsTotals {
    /// Takes in a report. Returns how many of its numbers were dropped.
    pub(super) fn add(&mut self, host: HostNumber, report: OpsReport) -> usize {
        let mut dropped = 0;
        for (name, count) in report.counts {
            if has_room(&self.counts, &name) {
                let total = self.counts.entry(name).or_default();
                *total = total.saturating_add(count);
            } else {
                dropped += 1;
            }
        }
        for (name, value) in report.gauges {
            if value.is_finite() && has_room(&self.gauges, &name) {
                self.gauges.entry(name).or_default().insert(host, value);
            } else {
                dropped += 1;
            }
        }
        dropped
    }

    /// A host is dead: what was so with it is so no more.
    pub(super) fn forget(&mut self, host: HostNumber) {
        self.gauges.retain(|_, hosts| {
            hosts.remove(&host);
            !hosts.is_empty()
        });
    }

    pub(super) fn status(&self) -> OpsReport {
        let sum = |hosts: &BTreeMap<_, f64>| hosts.values().sum();
        OpsReport {
            counts: self.counts.clone(),
            gauges: self.gauges.iter().map(|(name, hosts)| (name.clone(), sum(hosts))).collect(),
        }
    }
}

fn has_room<V>(numbers: &BTreeMap<String, V>, name: &str) -> bool {
    numbers.contains_key(name) || (numbers.len() < MOST_NAMES && name.len() <= LONGEST_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(counts: &[(&str, u64)], gauges: &[(&str, f64)]) -> OpsReport {
        OpsReport {
            counts: counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            gauges: gauges.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    #[test]
    fn counts_add_up_and_gauges_are_of_those_that_live() {
        let mut totals = OpsTotals::default();
        assert_eq!(totals.add(1, report(&[("sent", 2)], &[("open", 1.0)])), 0);
        assert_eq!(totals.add(1, report(&[("sent", 1)], &[("open", 2.5)])), 0);
        assert_eq!(totals.add(2, report(&[("sent", u64::MAX)], &[("open", 4.0)])), 0);
        assert_eq!(totals.status().counts["sent"], u64::MAX);
        assert_eq!(totals.status().gauges["open"], 6.5);
        totals.forget(1);
        assert_eq!(totals.status().gauges["open"], 4.0);
        totals.forget(2);
        assert!(totals.status().gauges.is_empty() && totals.status().counts.len() == 1);
    }

    #[test]
    fn what_is_no_number_or_too_much_is_dropped() {
        let mut totals = OpsTotals::default();
        assert_eq!(totals.add(1, report(&[(&"x".repeat(201), 1)], &[("nan", f64::NAN), ("inf", f64::INFINITY)])), 3);
        let names: Vec<String> = (0..600).map(|number| format!("{number:03}")).collect();
        let counts: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let gauges: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
        assert_eq!(totals.add(1, report(&counts, &[])), 100);
        assert_eq!(totals.add(1, report(&[], &gauges)), 100, "they have room of their own");
        assert_eq!(totals.add(2, report(&counts[..500], &gauges[..500])), 0, "known ones always have");
        assert_eq!((totals.status().counts["499"], totals.status().gauges["499"]), (2, 2.0));
        totals.forget(1);
        totals.forget(2);
        assert_eq!(totals.add(3, report(&counts[500..501], &gauges[500..])), 1, "gauges of the dead make room");
        let mut totals = OpsTotals::default();
        assert_eq!(totals.add(1, report(&[(&"x".repeat(200), 1)], &[(&"y".repeat(201), 1.0)])), 1);
    }
}
