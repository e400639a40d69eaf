//! JSON that nests deeper than the parser's own limit: Lightning has none, users' states do nest.

use serde::Deserialize;
use serde_json::{Deserializer, Value};

/// Levels beyond which a value is not taken apart, so that nothing here runs out of stack.
const DEEPEST: usize = 400;

/// Reads a value that may nest deep; one that nests deeper than [`DEEPEST`] becomes a string that says so.
pub(super) fn value(text: &str) -> Result<Value, serde_json::Error> {
    if depth(text) > DEEPEST {
        return Ok(Value::String(format!("(nested deeper than {DEEPEST} levels)")));
    }
    let mut reader = Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// How deep lists and objects nest in JSON text.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths() {
        for (text, expected) in
            [("1", 0), ("{}", 1), (r#"{"a":[{"b":1},[]]}"#, 3), (r#"["[[[","\"[["]"#, 1), ("]]][", 1), ("\"[", 0)]
        {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn deep_values_are_read_and_deeper_ones_are_named() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let text = nested(DEEPEST);
        assert_eq!(value(&text).unwrap().to_string(), text);
        assert!(value(&nested(100_000)).unwrap().as_str().unwrap().contains("deeper than 400"));
        assert!(value("[1] 2").is_err());
        assert!(value("{").is_err());
    }
}
