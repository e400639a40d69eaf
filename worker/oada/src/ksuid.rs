//! Keys that sort by time: 4 bytes of seconds since [`EPOCH`] and 16 more, in 27 digits of base 62.
//!
//! Keys made here grow strictly within the process, so that what one service writes within a second keeps its order.

use std::fmt;
use std::str::FromStr;

use parking_lot::Mutex;
use protocol::clock::unix_seconds;

/// Seconds from the Unix epoch to the epoch of these keys.
const EPOCH: u64 = 1_400_000_000;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 27;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ksuid(u32, u128);

/// Text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a KSUID, which has {LENGTH} letters and digits")]
pub struct InvalidKsuid(String);

impl Ksuid {
    /// A key that is greater than all that this process made before.
    pub fn generate() -> Self {
        static LAST: Mutex<Option<Ksuid>> = Mutex::new(None);
        let now = unix_seconds();
        let mut last = LAST.lock();
        let next = Self::after(*last, now, random());
        *last = Some(next);
        next
    }

    fn after(last: Option<Self>, now: u64, random: u128) -> Self {
        let seconds = u32::try_from(now.saturating_sub(EPOCH)).unwrap_or(u32::MAX);
        match last {
            Some(Self(at, payload)) if at >= seconds => match payload.checked_add(1 + (random >> 64)) {
                Some(payload) => Self(at, payload),
                None => Self(at.saturating_add(1), random >> 1),
            },
            // Room for more of the same second.
            _ => Self(seconds, random >> 1),
        }
    }

    /// When it was made, in seconds since the Unix epoch.
    pub fn unix_seconds(self) -> u64 {
        EPOCH + u64::from(self.0)
    }
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    // Without randomness keys are still unique within this process.
    let _ = getrandom::fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

impl fmt::Display for Ksuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&self.0.to_be_bytes());
        bytes[4..].copy_from_slice(&self.1.to_be_bytes());
        let mut text = [b'0'; LENGTH];
        for digit in text.iter_mut().rev() {
            let mut rest = 0_u32;
            for byte in &mut bytes {
                let value = (rest << 8) | u32::from(*byte);
                *byte = (value / 62) as u8;
                rest = value % 62;
            }
            *digit = DIGITS[rest as usize];
        }
        out.write_str(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for Ksuid {
    type Err = InvalidKsuid;

    fn from_str(text: &str) -> Result<Self, InvalidKsuid> {
        let invalid = || InvalidKsuid(text.to_owned());
        if text.len() != LENGTH {
            return Err(invalid());
        }
        let mut bytes = [0_u8; 20];
        for digit in text.bytes() {
            let value = DIGITS.iter().position(|it| *it == digit).ok_or_else(invalid)?;
            let mut carry = value as u32;
            for byte in bytes.iter_mut().rev() {
                let value = u32::from(*byte) * 62 + carry;
                *byte = (value & 0xff) as u8;
                carry = value >> 8;
            }
            if carry != 0 {
                return Err(invalid());
            }
        }
        let (seconds, payload) = bytes.split_at(4);
        let seconds = u32::from_be_bytes(seconds.try_into().map_err(|_| invalid())?);
        Ok(Self(seconds, u128::from_be_bytes(payload.try_into().map_err(|_| invalid())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_key_mean_the_same() {
        // From the format's own description.
        let known: Ksuid = "0ujtsYcgvSTl8PAuAdqWYSMnLOv".parse().unwrap();
        assert_eq!(known, Ksuid(107_608_047, 0xB5A1_CD34_B5F9_9D11_54FB_6853_345C_9735));
        assert_eq!(known.unix_seconds(), 1_507_608_047);
        for key in [known, Ksuid(0, 0), Ksuid(u32::MAX, u128::MAX), Ksuid::generate()] {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for bad in ["", "x", "0ujtsYcgvSTl8PAuAdqWYSMnLO!", "zzzzzzzzzzzzzzzzzzzzzzzzzzz"] {
            assert!(bad.parse::<Ksuid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_of_one_process_grow() {
        let keys: Vec<String> = (0..1000).map(|_| Ksuid::generate().to_string()).collect();
        assert!(keys.is_sorted());
        let full = Ksuid(5, u128::MAX);
        assert_eq!(Ksuid::after(Some(full), EPOCH + 5, 0), Ksuid(6, 0), "a full second goes on in the next");
        assert_eq!(Ksuid::after(Some(Ksuid(9, 7)), EPOCH + 5, 0), Ksuid(9, 8), "a clock that goes back is ignored");
    }
}
