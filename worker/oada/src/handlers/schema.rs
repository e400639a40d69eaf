//! The JSON Schema (2020-12) that a handler may describe its `config` in. Pure.
//!
//! What is not known is refused when the handler is loaded, so that no rule is silently not applied.

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

/// A schema.
#[derive(Debug, Clone)]
pub(super) struct Schema(Validator);

/// What is wrong with a schema, or with a value by a schema, and where. Values are not repeated, except for names in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct SchemaError(String);

impl From<ValidationError<'_>> for SchemaError {
    fn from(error: ValidationError<'_>) -> Self {
        match error.instance_path().as_str() {
            "" => Self(error.masked().to_string()),
            path => Self(format!("`{}`: {}", path.trim_start_matches('/'), error.masked())),
        }
    }
}

impl Schema {
    pub(super) fn parse(schema: &Value) -> Result<Self, SchemaError> {
        // What the specification says of schemas, at every depth (`$dynamicAnchor`), and nothing beside.
        let known = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "urn:handler-schema",
            "$dynamicAnchor": "meta",
            "$ref": "https://json-schema.org/draft/2020-12/schema",
            "unevaluatedProperties": false,
        });
        // What is wrong deep inside is wrong of all that is around it, too.
        let known = validator(&known)?;
        let deepest = known.iter_errors(schema).max_by_key(|error| error.instance_path().as_str().matches('/').count());
        deepest.map_or(Ok(()), Err)?;
        Ok(Self(validator(schema)?))
    }

    /// Why a value is not valid, if it is not.
    pub(super) fn check(&self, value: &Value) -> Result<(), SchemaError> {
        Ok(self.0.validate(value)?)
    }
}

fn validator(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    // Patterns match in linear time.
    jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(PatternOptions::regex()).build(schema)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_judged() {
        let mail = json!({ "type": "object", "required": ["from", "to"], "additionalProperties": false, "properties": {
            "from": { "type": "string", "minLength": 1 },
            "to": { "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] },
            "count": { "type": "integer", "minimum": 1, "maximum": 3 },
            "kind": { "enum": ["a", "b"] }, "v": { "const": 1 }, "odd": { "not": { "type": ["null", "boolean"] } },
        } });
        let cases = [
            (json!({ "from": "x", "to": "y" }), None),
            (json!({ "from": "x", "to": ["y"], "count": 2, "kind": "a", "v": 1, "odd": 7 }), None),
            (json!([]), Some("value is not of type \"object\"")),
            (json!({ "from": "x" }), Some("\"to\" is a required property")),
            (json!({ "from": "", "to": "y" }), Some("`from`: value is shorter than 1 character")),
            (
                json!({ "from": "x", "to": [] }),
                Some("`to`: value is not valid under any of the schemas listed in the 'oneOf' keyword"),
            ),
            (json!({ "from": "x", "to": "y", "count": 1.5 }), Some("`count`: value is not of type \"integer\"")),
            (json!({ "from": "x", "to": "y", "count": 4 }), Some("`count`: value is greater than the maximum of 3")),
            (json!({ "from": "x", "to": "y", "kind": "c" }), Some("`kind`: value is not one of \"a\" or \"b\"")),
            (
                json!({ "from": "x", "to": "y", "odd": null }),
                Some("`odd`: {\"type\":[\"null\",\"boolean\"]} is not allowed for value"),
            ),
            (
                json!({ "from": "x", "to": "y", "more": 1 }),
                Some("Additional properties are not allowed ('more' was unexpected)"),
            ),
        ];
        let schema = Schema::parse(&mail).unwrap();
        for (value, expected) in cases {
            assert_eq!(schema.check(&value).err().map(|error| error.to_string()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn schemas_that_are_not_understood_are_refused() {
        let bad = [
            json!(1),
            json!({ "type": "text" }),
            json!({ "patern": "x" }),
            json!({ "required": [1] }),
            json!({ "properties": { "a": 1 } }),
            json!({ "minimum": "1" }),
            json!({ "anyOf": {} }),
            json!({ "properties": { "a": { "items": { "maximun": 3 } } } }),
            json!({ "pattern": "(" }),
            json!({ "$ref": "https://example.org/schema.json" }),
            json!({ "$ref": "#/$defs/none" }),
        ];
        for schema in bad {
            assert!(Schema::parse(&schema).is_err(), "{schema}");
        }
        let unknown = Schema::parse(&json!({ "properties": { "a": { "maximun": 3 } } })).unwrap_err().to_string();
        assert!(unknown.contains("`properties/a`") && unknown.contains("maximun"), "{unknown}");
        assert!(Schema::parse(&json!({ "title": "x", "format": "email" })).unwrap().check(&json!(1)).is_ok());
    }

    #[test]
    fn schemas_may_refer_to_their_parts() {
        let tree = json!({ "$defs": { "node": { "type": "object", "properties": { "next": { "$ref": "#/$defs/node" } } } },
            "$ref": "#/$defs/node" });
        let schema = Schema::parse(&tree).unwrap();
        assert_eq!(schema.check(&json!({ "next": { "next": {} } })), Ok(()));
        let wrong = schema.check(&json!({ "next": { "next": 1 } })).unwrap_err().to_string();
        assert_eq!(wrong, "`next/next`: value is not of type \"object\"");
        let circle =
            json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" });
        if let Ok(schema) = Schema::parse(&circle) {
            let _ = schema.check(&json!(1));
        }
        let _ = Schema::parse(&json!({ "$ref": "#" })).map(|schema| schema.check(&json!(1)));
    }
}
