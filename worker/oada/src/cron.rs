//! Times that recur: `second minute hour day month weekday`, in a time zone. Pure but for the clock.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// A time that recurs. Five fields mean the same as six with second 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    seconds: Field,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
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

/// The values that a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// A bit a value.
    values: u64,
    /// Whether it was written as `*`.
    any: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// How far ahead a day is looked for: February 29 comes once in eight years at worst.
const DAYS_AHEAD: i32 = 366 * 8;

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.values & (1 << value) != 0)
    }

    fn parse(text: &str, least: u32, most: u32, names: &[&str]) -> Result<Self, String> {
        let mut values = 0;
        for part in text.split(',') {
            let (range, step) = part.split_once('/').map_or((part, "1"), |(range, step)| (range, step));
            let step: u32 =
                step.parse().ok().filter(|step| *step > 0).ok_or_else(|| format!("`/{step}` is no step"))?;
            let number = |text: &str| {
                let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
                let first = if names.len() == 12 { 1 } else { 0 };
                let number = named.map(|at| at as u32 + first).or_else(|| text.parse().ok());
                number
                    .filter(|number| (least..=most).contains(number))
                    .ok_or_else(|| format!("`{text}` is not in {least}-{most}"))
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" || range == "?" => (least, most),
                Some((from, to)) => (number(from)?, number(to)?),
                None if part.contains('/') => (number(range)?, most),
                None => (number(range)?, number(range)?),
            };
            if from > to {
                return Err(format!("`{range}` goes backwards"));
            }
            for value in (from..=to).step_by(step as usize) {
                values |= 1 << value;
            }
        }
        Ok(Self { values, any: text == "*" || text == "?" })
    }
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
        let mut parts: Vec<&str> = text.split_whitespace().collect();
        if parts.len() == 5 {
            parts.insert(0, "0");
        }
        let &[seconds, minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(invalid(format!("it has {} fields", parts.len())));
        };
        let zone = TimeZone::get(zone).map_err(|error| invalid(error.to_string()))?;
        let mut weekdays = Field::parse(weekdays, 0, 7, &WEEKDAYS).map_err(invalid)?;
        // Sunday is 0 and 7.
        weekdays.values |= weekdays.values >> 7 & 1;
        let cron = Self {
            seconds: Field::parse(seconds, 0, 59, &[]).map_err(invalid)?,
            minutes: Field::parse(minutes, 0, 59, &[]).map_err(invalid)?,
            hours: Field::parse(hours, 0, 23, &[]).map_err(invalid)?,
            days: Field::parse(days, 1, 31, &[]).map_err(invalid)?,
            months: Field::parse(months, 1, 12, &MONTHS).map_err(invalid)?,
            weekdays,
            zone,
        };
        match cron.after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err(invalid("there is no such day".to_owned())),
        }
    }

    /// The first such time after this one.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let local = time.to_zoned(self.zone.clone()).datetime();
        let mut date = local.date();
        let mut from = Some(local.time());
        for _ in 0..DAYS_AHEAD {
            if self.is_day(date) {
                // A time that the clocks skip or repeat must still lie ahead.
                let candidates = self.times(from).map(|at| DateTime::from_parts(date, at));
                let found = candidates.filter_map(|at| Some(self.zone.to_zoned(at).ok()?.timestamp()));
                if let Some(found) = found.into_iter().find(|found| *found > time) {
                    return Some(found);
                }
            }
            date = date.checked_add(1.day()).ok()?;
            from = None;
        }
        None
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

    fn is_day(&self, date: Date) -> bool {
        let weekday = match date.weekday() {
            Weekday::Sunday => 0,
            day => day.to_monday_one_offset(),
        };
        let (day, weekday) = (self.days.has(date.day()), self.weekdays.has(weekday));
        // When both are restricted, either will do.
        let fits = if self.days.any || self.weekdays.any { day && weekday } else { day || weekday };
        fits && self.months.has(date.month())
    }

    /// The times of a day, from this one on.
    fn times(&self, from: Option<Time>) -> impl Iterator<Item = Time> {
        let from = from.unwrap_or(Time::midnight());
        let hours = (from.hour()..24).filter(|hour| self.hours.has(*hour));
        hours
            .flat_map(move |hour| {
                let minutes = (0..60).filter(|minute| self.minutes.has(*minute));
                minutes.flat_map(move |minute| {
                    let seconds = (0..60).filter(|second| self.seconds.has(*second));
                    seconds.filter_map(move |second| Time::new(hour, minute, second, 0).ok())
                })
            })
            .filter(move |time| *time >= from.with().subsec_nanosecond(0).build().unwrap_or(from))
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
            // The clocks skip 2:30 on this day.
            ("0 30 2 * * *", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T07:30:00Z"),
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
