//! Keys that the store makes: 4 bytes of seconds and 16 random ones, in base 62.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds from the Unix epoch to the epoch of these keys.
const EPOCH: u64 = 1_400_000_000;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new key of 27 characters.
pub(super) fn generate() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(EPOCH, |since| since.as_secs());
    let mut bytes = [0; 20];
    let stamp = u32::try_from(seconds.saturating_sub(EPOCH)).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&stamp.to_be_bytes());
    getrandom::fill(&mut bytes[4..]).expect("the system has random numbers");
    let mut text = [0; 27];
    for digit in text.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut bytes {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the rest is below 62");
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_have_27_characters_and_differ() {
        let (one, other) = (super::generate(), super::generate());
        assert_eq!((one.len(), other.len()), (27, 27));
        assert_ne!(one, other);
    }
}
