//! Values of options, parsed into types. An error says what would be right; the caller adds the option's name.

use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use lightning::{Endpoint, InvalidEndpoint};

/// What `-l mock` stands for: the small Lightning that comes with the worker, where it listens by default.
pub const MOCK_ENDPOINT: &str = "ws://localhost:8888/worker";

/// Shortest and longest pause between claims that bring nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first miss.
    pub min: Duration,
    /// However many there were.
    pub max: Duration,
}

/// A size given in MB of 1024 × 1024 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Megabytes(u64);

impl Megabytes {
    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Megabytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        positive(text).and_then(in_bytes).ok_or("expected a number of MB above 0")
    }
}

pub(super) fn endpoint(text: &str) -> Result<Endpoint, InvalidEndpoint> {
    let text = text.trim();
    if text == "mock" { MOCK_ENDPOINT } else { text }.parse()
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
pub(super) fn trimmed(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.trim().to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
pub(super) fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

pub(super) fn whole_number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "expected a whole number")
}

pub(super) fn port(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| "expected the number of a port, 0 (any that is free) to 65535")
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number, 1 or more".to_owned()),
        Ok(number) => Ok(number),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    positive(text)
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|_| "expected a whole number of milliseconds".to_owned())
}

pub(super) fn ratio(text: &str) -> Result<f64, &'static str> {
    let ratio: Option<f64> = text.trim().parse().ok();
    ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or("expected a number from 0 to 1")
}

/// As [`Megabytes`] are read, or 0 where nothing at all is to be sent.
pub(super) fn megabytes_or_none(text: &str) -> Result<Megabytes, String> {
    number(text)
        .filter(|number| *number >= 0.0)
        .and_then(in_bytes)
        .ok_or_else(|| "expected a number of MB, 0 or more".to_owned())
}

fn in_bytes(megabytes: f64) -> Option<Megabytes> {
    let bytes = megabytes * 1024.0 * 1024.0;
    (bytes < 2f64.powi(53)).then_some(Megabytes(bytes as u64))
}

/// The name of a variable that jobs may see: none of the worker's own, which may hold a secret.
pub(super) fn variable_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if name.is_empty() || !is_name {
        Err("expected the name of an environment variable, such as TZ".to_owned())
    } else if name.starts_with("WORKER_") {
        Err("it is a variable of the worker's own, which jobs must not see".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

pub(super) fn backoff(text: &str) -> Result<Backoff, String> {
    let parts = text.split_once('/').and_then(|(min, max)| Some((seconds(min).ok()?, seconds(max).ok()?)));
    match parts {
        Some((min, max)) if min <= max => Ok(Backoff { min, max }),
        Some(_) => Err("the shortest pause is longer than the longest".to_owned()),
        None => Err("expected two numbers of seconds, such as 1/10 or 0.5/30".to_owned()),
    }
}

fn positive(text: &str) -> Option<f64> {
    number(text).filter(|number| *number > 0.0)
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        assert_eq!(endpoint("mock").unwrap().to_string(), MOCK_ENDPOINT);
        assert_eq!(endpoint(" mock\n").unwrap().to_string(), MOCK_ENDPOINT);
        assert_eq!(endpoint(" ws://x:1/worker \n").unwrap().to_string(), "ws://x:1/worker");
        assert_eq!(endpoint("wss://app.example.org/worker/").unwrap().to_string(), "wss://app.example.org/worker");
        assert!(endpoint("http://x").is_err());
        assert_eq!(backoff("0.5/2").unwrap().min, Duration::from_millis(500));
        for bad in ["", "1", "2/1", "1/x", "-1/1", "0/1", "1/inf"] {
            assert!(backoff(bad).is_err(), "{bad}");
        }
        assert_eq!("0.5".parse::<Megabytes>().unwrap().bytes(), 512 * 1024);
        for bad in ["", "0", "-1", "NaN", "1e300", "x"] {
            assert!(bad.parse::<Megabytes>().is_err(), "{bad}");
        }
        assert_eq!(megabytes_or_none("0").unwrap().bytes(), 0);
        assert_eq!(megabytes_or_none("0.5").unwrap().bytes(), 512 * 1024);
        for bad in ["", "-1", "NaN", "1e300", "x"] {
            assert!(megabytes_or_none(bad).is_err(), "{bad}");
        }
        assert_eq!(variable_name(" TZ ").unwrap(), "TZ");
        for bad in ["", "A=B", "1A", "A B", "WORKER_SECRET"] {
            assert!(variable_name(bad).is_err(), "{bad}");
        }
        assert!(at_least_one("0").is_err());
        assert_eq!(whole_number("0"), Ok(0));
        assert_eq!(whole_number::<u32>("-1"), Err("expected a whole number"));
        assert_eq!(port("65535"), Ok(65_535));
        assert!(port("65536").is_err() && port("tcp://10.0.0.1:2222").is_err());
        assert!(seconds("1e30").is_err());
    }
}
