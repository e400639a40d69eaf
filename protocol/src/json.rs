//! JSON text that is carried, not taken apart.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use memchr::memchr;
use serde::de::{Error as _, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One complete JSON value as UTF-8 text.
///
/// Dataclips, step results and credentials cross every boundary in this form, so that a large state is never
/// parsed or encoded again on its way. Cloning shares the bytes. A value of this type is always valid JSON: text
/// from outside is checked where it becomes one, also when it arrives in a frame.
///
/// `Debug` shows the length only, because the text is users' data or a secret.
#[derive(derive_more::Debug, Clone, PartialEq, Eq)]
#[debug("Json({} bytes)", self.len())]
pub struct Json(Bytes);

/// Text that is not one JSON value.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJson {
    /// It breaks JSON's grammar, or is of another type than wanted.
    #[error("not valid JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// It is not UTF-8.
    #[error("not valid JSON: {0}")]
    Encoding(#[from] std::str::Utf8Error),
}

impl Json {
    /// Checks `text` and takes it over without copying.
    ///
    /// A half of a surrogate pair, which JavaScript writes as an escape and which most other parsers refuse, becomes
    /// U+FFFD; only such a text is copied.
    pub fn parse(text: impl Into<Bytes>) -> Result<Self, InvalidJson> {
        let bytes = text.into();
        // `from_slice` would let strings pass that are not UTF-8, where it only skips them.
        serde_json::from_str::<IgnoredAny>(std::str::from_utf8(&bytes)?)?;
        let halves = lone_surrogates(&bytes);
        if halves.is_empty() {
            return Ok(Self(bytes));
        }
        let mut mended = bytes.to_vec();
        for at in halves {
            mended[at..at + ESCAPE].copy_from_slice(br"\ufffd");
        }
        Ok(Self(mended.into()))
    }

    /// Encodes a value. Fails only for values that JSON cannot express, such as maps with keys that are no strings.
    pub fn encode(value: &impl Serialize) -> Result<Self, InvalidJson> {
        Ok(Self(serde_json::to_vec(value)?.into()))
    }

    /// The text `{}`.
    pub fn empty_object() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// The text `null`.
    pub fn null() -> Self {
        Self(Bytes::from_static(b"null"))
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("valid JSON is UTF-8")
    }

    /// Length of the text in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true: no JSON value has an empty text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the value is an object.
    pub fn is_object(&self) -> bool {
        self.first_byte() == Some(b'{')
    }

    /// Whether the value is `null`.
    pub fn is_null(&self) -> bool {
        self.first_byte() == Some(b'n')
    }

    /// The value with U+FFFD for each NUL character, which Postgres cannot store; none if there is no NUL character in it.
    pub fn without_nul(&self) -> Option<Self> {
        let mut mended: Option<Vec<u8>> = None;
        let mut at = 0;
        while let Some(next) = memchr(b'\\', self.0.get(at..).unwrap_or_default()) {
            at += next;
            if unit(&self.0, at) == Some(0) {
                mended.get_or_insert_with(|| self.0.to_vec())[at..at + ESCAPE].copy_from_slice(br"\ufffd");
            }
            // What follows a backslash cannot begin another escape.
            at += 2;
        }
        mended.map(|text| Self(text.into()))
    }

    /// Reads the text as a value of type `T`.
    pub fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, InvalidJson> {
        Ok(serde_json::from_slice(&self.0)?)
    }

    fn first_byte(&self) -> Option<u8> {
        self.0.iter().copied().find(|byte| !byte.is_ascii_whitespace())
    }
}

/// Length of an escaped code unit, such as `\u00e9`.
const ESCAPE: usize = 6;

/// Where in a valid JSON text escapes begin that are one half of a surrogate pair without the other.
fn lone_surrogates(text: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = memchr(b'\\', text.get(at..).unwrap_or_default()) {
        at += next;
        match (unit(text, at), unit(text, at + ESCAPE)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => at += 2 * ESCAPE,
            (Some(0xd800..0xe000), _) => {
                found.push(at);
                at += ESCAPE;
            }
            // Any other escape: what follows the backslash cannot begin another one.
            _ => at += 2,
        }
    }
    found
}

/// The code unit that is escaped at `at`, if one is.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + ESCAPE)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Bytes;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("JSON as bytes")
            }

            fn visit_bytes<E>(self, text: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(text))
            }

            fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> Result<Bytes, E> {
                Ok(shared(text).unwrap_or_else(|| Bytes::copy_from_slice(text)))
            }
        }

        Self::parse(deserializer.deserialize_bytes(Text)?).map_err(D::Error::custom)
    }
}

thread_local! {
    /// What [`sharing`] was called with.
    static PAYLOAD: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// A shorter text is copied, so that it does not keep a whole payload in memory.
const SHARED_FROM: usize = 64 * 1024;

/// Runs `decode`, in which long texts that are borrowed from `payload` share its bytes instead of being copied.
///
/// Serde hands out slices and has no place for the buffer that they come from, hence the detour.
pub(crate) fn sharing<T>(payload: &Bytes, decode: impl FnOnce() -> T) -> T {
    struct Restore(Option<Bytes>);

    impl Drop for Restore {
        fn drop(&mut self) {
            PAYLOAD.set(self.0.take());
        }
    }

    let _restore = Restore(PAYLOAD.replace(Some(payload.clone())));
    decode()
}

fn shared(text: &[u8]) -> Option<Bytes> {
    PAYLOAD.with_borrow(|payload| {
        let payload = payload.as_ref().filter(|_| text.len() >= SHARED_FROM)?;
        let within = payload.as_ptr_range();
        let of_payload = within.contains(&text.as_ptr()) && text.as_ptr_range().end <= within.end;
        of_payload.then(|| payload.slice_ref(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_value_and_nothing_else() {
        for good in ["{}", " [1, 2] ", "\"é\u{2028}\"", "null", "-0.5e3"] {
            assert!(Json::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "{} {}", "{", "nul", "\u{feff}{}"] {
            assert!(Json::parse(bad).is_err(), "{bad}");
        }
        assert!(Json::parse(&b"\"\xff\""[..]).is_err(), "not UTF-8");
    }

    #[test]
    fn halves_of_surrogate_pairs_are_mended() {
        for (text, expected) in [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#"{"\uDE00":"a\uD83Db"}"#, r#"{"\ufffd":"a\ufffdb"}"#),
            (r#""\ud83d\ud83d\ude00\ude00""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\\ud83d \u00e9\\""#, r#""\\ud83d \u00e9\\""#),
            (r#""\ud83d\n\ude00""#, r#""\ufffd\n\ufffd""#),
            (r#""\ud7ff \ud800 \udbff \udc00 \udfff \ue000""#, r#""\ud7ff \ufffd \ufffd \ufffd \ufffd \ue000""#),
            (r#""\ud800\udc00 \udbff\udfff \udbff\ue000""#, r#""\ud800\udc00 \udbff\udfff \ufffd\ue000""#),
            (r#""\ud800\ud7ff""#, r#""\ufffd\ud7ff""#),
        ] {
            assert_eq!(Json::parse(text).unwrap().as_str(), expected, "{text}");
        }
    }

    #[test]
    fn nul_characters_are_mended() {
        for (text, expected) in [
            (r#"{"a":"b\u0001\\u0000"}"#, None),
            (r#"{"a\u0000":["\u0000\\\u0000"]}"#, Some(r#"{"a\ufffd":["\ufffd\\\ufffd"]}"#)),
        ] {
            let mended = Json::parse(text).unwrap().without_nul();
            assert_eq!(mended.as_ref().map(Json::as_str), expected, "{text}");
        }
    }

    #[test]
    fn nesting_of_any_depth_is_carried() {
        let depth = 200_000;
        let text = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(Json::parse(text).unwrap().len(), 2 * depth);
    }

    #[test]
    fn tells_objects_from_other_values() {
        assert!(Json::parse(" {\"a\": 1}").unwrap().is_object());
        assert!(!Json::parse("[{}]").unwrap().is_object());
        for (text, is_object, is_null) in [
            ("null", false, true),
            ("\n\t null", false, true),
            ("\"null\"", false, false),
            ("\"{\"", false, false),
            ("5", false, false),
            ("true", false, false),
            ("\r\n{}", true, false),
        ] {
            let json = Json::parse(text).unwrap();
            assert_eq!((json.is_object(), json.is_null()), (is_object, is_null), "{text}");
            assert_eq!((json.len(), json.is_empty()), (text.len(), false), "{text}");
        }
        assert_eq!((Json::empty_object().as_str(), Json::null().as_str()), ("{}", "null"));
    }

    #[test]
    fn never_shows_its_text() {
        let secret = Json::parse("{\"password\": \"hunter2\"}").unwrap();
        assert_eq!(format!("{secret:?}"), "Json(23 bytes)");
    }

    #[test]
    fn long_texts_share_the_payload_that_they_come_in() {
        // With their quotes.
        let texts: Vec<Json> = [SHARED_FROM, SHARED_FROM - 2, SHARED_FROM - 3, 10]
            .map(|length| Json::parse(format!("\"{}\"", "x".repeat(length))).unwrap())
            .into();
        let payload = Bytes::from(rmp_serde::to_vec(&texts).unwrap());
        let decode = || rmp_serde::from_slice::<Vec<Json>>(&payload).unwrap();
        let is_shared = |json: &Json| payload.as_ptr_range().contains(&json.as_str().as_ptr());

        let decoded = sharing(&payload, decode);
        assert_eq!(decoded, texts);
        assert_eq!(decoded.iter().map(is_shared).collect::<Vec<_>>(), [true, true, false, false]);
        // Neither another payload's texts nor those decoded later are taken for its own.
        assert!(!sharing(&Bytes::from_static(b"other"), decode).iter().any(is_shared));
        assert!(!decode().iter().any(is_shared));
    }

    #[test]
    fn what_arrives_must_be_bytes_that_are_json() {
        let good = rmp_serde::to_vec(&Json::null()).unwrap();
        assert_eq!(rmp_serde::from_slice::<Json>(&good).unwrap(), Json::null());
        let no_json = rmp_serde::to_vec(serde_json::from_str::<serde_json::Value>("[1]").as_ref().unwrap()).unwrap();
        for bad in [&b"\xc4\x01{"[..], &no_json, b"\xa4null"] {
            assert!(rmp_serde::from_slice::<Json>(bad).is_err(), "{bad:?}");
        }
    }
}
