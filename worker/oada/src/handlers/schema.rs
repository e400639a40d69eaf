//! The part of JSON Schema that handlers may describe their `config` in. Pure.
//!
//! What is not known is refused when the handler is loaded, so that no rule is silently not applied.

use serde_json::{Map, Value};

/// A schema.
#[derive(Debug, Clone)]
pub(super) enum Schema {
    /// `true` or `false`.
    Constant(bool),
    /// All of these rules.
    Rules(Vec<Rule>),
}

#[derive(Debug, Clone)]
pub(super) enum Rule {
    Type(Vec<Type>),
    Enum(Vec<Value>),
    Required(Vec<String>),
    /// Known properties, and what others must be.
    Properties(Vec<(String, Schema)>, Option<Box<Schema>>),
    Items(Box<Schema>),
    Length(Measure, Option<f64>, Option<f64>),
    AllOf(Vec<Schema>),
    AnyOf(Vec<Schema>),
    OneOf(Vec<Schema>),
    Not(Box<Schema>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Measure {
    Value,
    Text,
    Items,
}

/// Keywords that say nothing about what is valid.
const ANNOTATIONS: [&str; 9] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "format"];

impl Schema {
    pub(super) fn parse(schema: &Value) -> Result<Self, String> {
        let object = match schema {
            Value::Bool(constant) => return Ok(Self::Constant(*constant)),
            Value::Object(object) => object,
            _ => return Err("a schema is an object, true or false".to_owned()),
        };
        let mut rules = Vec::new();
        for (key, value) in object {
            let rule = match key.as_str() {
                "type" => Rule::Type(types(value)?),
                "enum" => Rule::Enum(list(key, value)?.clone()),
                "const" => Rule::Enum(vec![value.clone()]),
                "required" => {
                    Rule::Required(list(key, value)?.iter().map(|it| text(key, it)).collect::<Result<_, _>>()?)
                }
                "properties" => Rule::Properties(properties(value)?, others(object)?),
                "additionalProperties" if object.contains_key("properties") => continue,
                "additionalProperties" => Rule::Properties(Vec::new(), others(object)?),
                "items" => Rule::Items(Box::new(Self::parse(value)?)),
                "minimum" => Rule::Length(Measure::Value, Some(number(key, value)?), None),
                "maximum" => Rule::Length(Measure::Value, None, Some(number(key, value)?)),
                "minLength" => Rule::Length(Measure::Text, Some(number(key, value)?), None),
                "maxLength" => Rule::Length(Measure::Text, None, Some(number(key, value)?)),
                "minItems" => Rule::Length(Measure::Items, Some(number(key, value)?), None),
                "maxItems" => Rule::Length(Measure::Items, None, Some(number(key, value)?)),
                "allOf" => Rule::AllOf(schemas(key, value)?),
                "anyOf" => Rule::AnyOf(schemas(key, value)?),
                "oneOf" => Rule::OneOf(schemas(key, value)?),
                "not" => Rule::Not(Box::new(Self::parse(value)?)),
                annotation if ANNOTATIONS.contains(&annotation) => continue,
                other => return Err(format!("the keyword `{other}` is not known here")),
            };
            rules.push(rule);
        }
        Ok(Self::Rules(rules))
    }

    /// Why a value is not valid, if it is not.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        self.check_at("", value)
    }

    fn check_at(&self, at: &str, value: &Value) -> Result<(), String> {
        match self {
            Self::Constant(true) => Ok(()),
            Self::Constant(false) => Err(format!("{} must not be there", place(at))),
            Self::Rules(rules) => rules.iter().try_for_each(|rule| rule.check(at, value)),
        }
    }

    fn fits(&self, value: &Value) -> bool {
        self.check(value).is_ok()
    }
}

impl Rule {
    fn check(&self, at: &str, value: &Value) -> Result<(), String> {
        let unless = |fits: bool, what: String| if fits { Ok(()) } else { Err(format!("{} {what}", place(at))) };
        match (self, value) {
            (Self::Type(types), _) => {
                let wanted = types.iter().map(|it| format!("{it:?}").to_lowercase()).collect::<Vec<_>>().join(" or ");
                unless(types.iter().any(|it| it.is_of(value)), format!("is not of type {wanted}"))
            }
            (Self::Enum(values), _) => {
                let wanted = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                unless(values.contains(value), format!("is not one of {wanted}"))
            }
            (Self::Required(keys), Value::Object(object)) => {
                let missing = keys.iter().find(|key| !object.contains_key(*key));
                missing.map_or(Ok(()), |key| Err(format!("{} is missing", place(&format!("{at}/{key}")))))
            }
            (Self::Properties(known, others), Value::Object(object)) => object.iter().try_for_each(|(key, value)| {
                let at = format!("{at}/{key}");
                match known.iter().find(|(name, _)| name == key) {
                    Some((_, schema)) => schema.check_at(&at, value),
                    None => others.as_ref().map_or(Ok(()), |schema| schema.check_at(&at, value)),
                }
            }),
            (Self::Items(schema), Value::Array(items)) => {
                let mut items = items.iter().enumerate();
                items.try_for_each(|(index, item)| schema.check_at(&format!("{at}/{index}"), item))
            }
            (Self::Length(measure, least, most), _) => {
                let Some(size) = measure.of(value) else { return Ok(()) };
                let fits = least.is_none_or(|least| size >= least) && most.is_none_or(|most| size <= most);
                unless(fits, format!("has {size}, which is {}", bounds(*least, *most)))
            }
            (Self::AllOf(schemas), _) => schemas.iter().try_for_each(|schema| schema.check_at(at, value)),
            (Self::AnyOf(schemas), _) => {
                unless(schemas.iter().any(|schema| schema.fits(value)), "fits none of `anyOf`".to_owned())
            }
            (Self::OneOf(schemas), _) => {
                let fitting = schemas.iter().filter(|schema| schema.fits(value)).count();
                unless(fitting == 1, format!("fits {fitting} of `oneOf`, not one"))
            }
            (Self::Not(schema), _) => unless(!schema.fits(value), "fits what it must not".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Type {
    fn is_of(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Boolean => value.is_boolean(),
            Self::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
        }
    }
}

impl Measure {
    fn of(self, value: &Value) -> Option<f64> {
        match self {
            Self::Value => value.as_f64(),
            Self::Text => value.as_str().map(|text| text.chars().count() as f64),
            Self::Items => value.as_array().map(|items| items.len() as f64),
        }
    }
}

fn bounds(least: Option<f64>, most: Option<f64>) -> String {
    match (least, most) {
        (Some(least), _) => format!("less than {least}"),
        (None, Some(most)) => format!("more than {most}"),
        (None, None) => "nothing".to_owned(),
    }
}

fn place(at: &str) -> String {
    if at.is_empty() { "it".to_owned() } else { format!("`{}`", at.trim_start_matches('/')) }
}

fn types(value: &Value) -> Result<Vec<Type>, String> {
    let one = |value: &Value| match value.as_str() {
        Some("null") => Ok(Type::Null),
        Some("boolean") => Ok(Type::Boolean),
        Some("integer") => Ok(Type::Integer),
        Some("number") => Ok(Type::Number),
        Some("string") => Ok(Type::String),
        Some("array") => Ok(Type::Array),
        Some("object") => Ok(Type::Object),
        _ => Err(format!("{value} is no type")),
    };
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

fn properties(value: &Value) -> Result<Vec<(String, Schema)>, String> {
    let object = value.as_object().ok_or_else(|| "`properties` is not an object".to_owned())?;
    object.iter().map(|(key, value)| Ok((key.clone(), Schema::parse(value)?))).collect()
}

fn others(object: &Map<String, Value>) -> Result<Option<Box<Schema>>, String> {
    object.get("additionalProperties").map(|value| Schema::parse(value).map(Box::new)).transpose()
}

fn schemas(key: &str, value: &Value) -> Result<Vec<Schema>, String> {
    list(key, value)?.iter().map(Schema::parse).collect()
}

fn list<'a>(key: &str, value: &'a Value) -> Result<&'a Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("`{key}` is not a list"))
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    value.as_str().map(ToOwned::to_owned).ok_or_else(|| format!("`{key}` holds {value}, which is no string"))
}

fn number(key: &str, value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("`{key}` is not a number"))
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
            (json!([]), Some("it is not of type object")),
            (json!({ "from": "x" }), Some("`to` is missing")),
            (json!({ "from": "", "to": "y" }), Some("`from` has 0, which is less than 1")),
            (json!({ "from": "x", "to": [] }), Some("`to` fits 0 of `oneOf`, not one")),
            (json!({ "from": "x", "to": "y", "count": 1.5 }), Some("`count` is not of type integer")),
            (json!({ "from": "x", "to": "y", "count": 4 }), Some("`count` has 4, which is more than 3")),
            (json!({ "from": "x", "to": "y", "kind": "c" }), Some("`kind` is not one of \"a\", \"b\"")),
            (json!({ "from": "x", "to": "y", "odd": null }), Some("`odd` fits what it must not")),
            (json!({ "from": "x", "to": "y", "more": 1 }), Some("`more` must not be there")),
        ];
        let schema = Schema::parse(&mail).unwrap();
        for (value, expected) in cases {
            assert_eq!(schema.check(&value).err().as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn schemas_that_are_not_understood_are_refused() {
        let bad = [
            json!(1),
            json!({ "type": "text" }),
            json!({ "pattern": "x" }),
            json!({ "required": [1] }),
            json!({ "properties": { "a": 1 } }),
            json!({ "minimum": "1" }),
            json!({ "anyOf": {} }),
        ];
        for schema in bad {
            assert!(Schema::parse(&schema).is_err(), "{schema}");
        }
        assert!(Schema::parse(&json!({ "title": "x", "format": "email" })).unwrap().check(&json!(1)).is_ok());
    }
}
