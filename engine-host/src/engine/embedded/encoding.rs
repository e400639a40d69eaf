//! Text to bytes and back, as Node's `Buffer` does it: what is not of an encoding is skipped or replaced, never an error.

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, prelude};

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16,
    Latin1,
    Ascii,
    Base64,
    Base64Url,
    Hex,
}

/// Takes digits alone; the bits left over at the end count for nothing.
const DIGITS: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

impl Encoding {
    /// The encoding that Node calls so.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "utf8" | "utf-8" => Self::Utf8,
            "utf16le" | "utf-16le" | "ucs2" | "ucs-2" => Self::Utf16,
            "latin1" | "binary" => Self::Latin1,
            "ascii" => Self::Ascii,
            "base64" => Self::Base64,
            "base64url" => Self::Base64Url,
            "hex" => Self::Hex,
            _ => return None,
        })
    }

    /// The bytes that `text` stands for.
    pub(super) fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            // What does not fit loses its upper half.
            Self::Latin1 | Self::Ascii => text.encode_utf16().map(|unit| unit.to_le_bytes()[0]).collect(),
            Self::Base64 | Self::Base64Url => base64_bytes(text),
            Self::Hex => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let units = Self::Latin1.bytes(text);
                let pairs = units.chunks_exact(2);
                pairs.map_while(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect()
            }
        }
    }

    /// The text for `bytes`.
    pub(super) fn text(self, bytes: &[u8]) -> String {
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Self::Utf16 => {
                let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
            Self::Latin1 => bytes.iter().copied().map(char::from).collect(),
            Self::Ascii => bytes.iter().map(|byte| char::from(byte & 0x7f)).collect(),
            Self::Base64 => prelude::BASE64_STANDARD.encode(bytes),
            Self::Base64Url => prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes),
            Self::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Takes the digits of either alphabet.
fn base64_bytes(text: &str) -> Vec<u8> {
    let standard = |byte: u8| match byte {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        byte => (byte.is_ascii_alphanumeric() || b"+/".contains(&byte)).then_some(byte),
    };
    let mut digits: Vec<u8> = text.bytes().take_while(|byte| *byte != b'=').filter_map(standard).collect();
    if digits.len() % 4 == 1 {
        // Six bits are no byte.
        digits.pop();
    }
    DIGITS.decode(digits).expect("there are only digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (encoding, text, bytes) in [
            ("utf8", "é😀", &b"\xc3\xa9\xf0\x9f\x98\x80"[..]),
            ("UTF-8", "", b""),
            ("utf16le", "aé😀", b"a\0\xe9\0\x3d\xd8\0\xde"),
            ("latin1", "a\u{ff}", b"a\xff"),
            ("ascii", "abc", b"abc"),
            ("base64", "YQ==", b"a"),
            ("base64", "YWI=", b"ab"),
            ("base64", "YWJj/+8=", b"abc\xff\xef"),
            ("base64url", "YWJj_-8", b"abc\xff\xef"),
            ("hex", "00ff7a", b"\x00\xff\x7a"),
        ] {
            let encoding = Encoding::named(encoding).unwrap();
            assert_eq!(encoding.bytes(text), bytes, "{encoding:?} {text}");
            assert_eq!(encoding.text(bytes), text, "{encoding:?} {text}");
        }
        assert_eq!(Encoding::named("utf7"), None);
    }

    #[test]
    fn what_does_not_belong_is_skipped_or_replaced() {
        assert_eq!(Encoding::Base64.bytes("Y W\nJ*j=ignored"), b"abc");
        assert_eq!(Encoding::Base64.bytes("YWJj_-8"), b"abc\xff\xef");
        assert_eq!(Encoding::Base64.bytes("Y"), b"");
        assert_eq!(Encoding::Hex.bytes("61zz62"), b"a");
        assert_eq!(Encoding::Hex.bytes("616"), b"a");
        assert_eq!(Encoding::Hex.bytes("é1"), b"");
        assert_eq!(Encoding::Latin1.bytes("\u{263a}"), b"\x3a");
        assert_eq!(Encoding::Utf8.text(b"a\xff\xe2\x82b"), "a\u{fffd}\u{fffd}b");
        assert_eq!(Encoding::Utf16.text(b"a\0\0\xd8b"), "a\u{fffd}");
        assert_eq!(Encoding::Ascii.text(b"\xe1"), "a");
    }
}
