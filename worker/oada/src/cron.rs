//! Times that recur: `second minute hour day month weekday`, in a time zone. Pure but for the clock.

use std::str::FromStr;
use std::time::Duration;

use croner::parser::{CronParser, Year};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

/// A time that recurs. Five fields mean the same as six with second 0.
///
/// A time of day that the clocks skip comes right after the gap, and one that they repeat comes once. What recurs within
/// an hour goes on through both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    pattern: Box<croner::Cron>,
    zone: TimeZone,
}

/// Text that is no time that recurs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a cron expression: {why}; it looks like `0 30 8 * * 1-5` (second minute hour day month weekday)"
)]
pub struct InvalidCron {
    text: String,
    why: String,
}

impl FromStr for Cron {
    type Err = InvalidCron;

    /// Reads an expression, meant in New York, where most users of OADA reports are.
    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        Self::parse(text, "America/New_York")
    }
}

impl Cron {
    /// Reads an expression that is meant in this time zone, such as `Europe/Berlin` or `UTC`.
    pub fn parse(text: &str, zone: &str) -> Result<Self, InvalidCron> {
        let invalid = |why: String| InvalidCron { text: text.to_owned(), why };
        let parser = CronParser::builder().year(Year::Disallowed).sloppy_ranges(true).build();
        let pattern = parser.parse(text).map_err(|error| invalid(error.to_string()))?;
        let zone = TimeZone::get(zone).map_err(|error| invalid(error.to_string()))?;
        let cron = Self { pattern: Box::new(pattern), zone };
        cron.after(Timestamp::UNIX_EPOCH).ok_or_else(|| invalid("there is no such day".to_owned()))?;
        Ok(cron)
    }

    /// The first such time after this one.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let local = time.to_zoned(self.zone.clone());
        Some(self.pattern.find_next_occurrence(&local, false).ok()?.timestamp())
    }

    /// How long it is until the next such time.
    pub fn until_next(&self) -> Option<Duration> {
        let now = Timestamp::now();
        self.after(now)?.duration_since(now).try_into().ok()
    }

    /// The day that this moment is in, by the clocks there.
    pub fn date(&self, time: Timestamp) -> Date {
        time.to_zoned(self.zone.clone()).date()
    }

    /// The first moment of a day.
    pub fn start_of(&self, date: Date) -> Option<Timestamp> {
        Some(self.zone.to_zoned(date.to_datetime(Time::midnight())).ok()?.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(expression: &str, zone: &str, from: &str) -> String {
        let cron = Cron::parse(expression, zone).unwrap();
        cron.after(from.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_found() {
        let cases = [
            ("* * * * * *", "UTC", "2026-11-21T10:00:00Z", "2026-11-21T10:00:01Z"),
            ("*/15 * * * * *", "UTC", "2026-11-21T10:00:16Z", "2026-11-21T10:00:30Z"),
            ("30 8 * * *", "UTC", "2026-11-21T08:30:00Z", "2026-11-22T08:30:00Z"),
            ("0 30 8 * * 1-5", "UTC", "2026-11-21T00:00:00Z", "2026-11-23T08:30:00Z"),
            ("0 0 0 1 jan *", "UTC", "2026-11-21T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("0 0 0 29 2 *", "UTC", "2026-11-21T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 0 13 * fri", "UTC", "2026-11-21T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("0 0 0 * * 7", "UTC", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
            ("0 5/20 * * * *", "UTC", "2026-11-21T10:26:00Z", "2026-11-21T10:45:00Z"),
            ("0 0 8 * * *", "America/New_York", "2026-07-01T00:00:00Z", "2026-07-01T12:00:00Z"),
            ("0 0 8 * * *", "America/New_York", "2026-11-21T00:00:00Z", "2026-11-21T13:00:00Z"),
            // The clocks skip 2:30 on this day, and repeat what is between 1:00 and 2:00 on the others.
            ("0 30 2 * * *", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z"),
            ("0 */30 * * * *", "America/New_York", "2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z"),
            ("0 30 1 * * *", "America/New_York", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"),
            ("0 0 10 * * *", "UTC", "2026-11-21T09:59:59.5Z", "2026-11-21T10:00:00Z"),
        ];
        for (expression, zone, from, expected) in cases {
            assert_eq!(next(expression, zone, from), expected, "{expression} in {zone} after {from}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "* * * *", "60 * * * * *", "a * * * * *", "0 0 0 31 2 *", "5-1 * * * * *", "*/0 * * * * *"] {
            let error = bad.parse::<Cron>().unwrap_err().to_string();
            assert!(error.contains("0 30 8"), "{error}");
        }
        assert!(Cron::parse("* * * * * *", "Nowhere/Else").is_err());
    }
}
