//! State between steps, on JSON text.
//!
//! A state may be as large as the run's memory allows, so it is never taken apart deeper than a rule asks for: its
//! top-level keys, and those of `data`, `configuration` and `errors` where something is merged into them. All the
//! rest is copied as the text that it came as. Pure: nothing here knows of steps, engines or limits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use protocol::Json;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// What goes into the state that a job starts with.
#[derive(Debug, Clone, Copy)]
pub struct Ingredients<'a> {
    /// The result before it, or the run's input.
    pub input: &'a Json,
    /// The job's default state.
    pub default: Option<&'a Json>,
    /// The workflow-wide credentials.
    pub workflow_configuration: Option<&'a Json>,
    /// The job's credential.
    pub configuration: Option<&'a Json>,
}

/// The state that a job starts with: always an object with `configuration` and `data`.
pub fn assemble(from: Ingredients<'_>) -> Json {
    let input = Object::of(from.input);
    let default = from.default.map(Object::of).unwrap_or_default();

    let mut configuration = from.workflow_configuration.map(Object::of).unwrap_or_default();
    configuration.overlay(Object::of_raw(input.get("configuration")));
    configuration.overlay(from.configuration.map(Object::of).unwrap_or_default());
    let configuration = configuration.to_raw();
    let data = assemble_data(input.get("data"), default.get("data"));

    let mut state = default;
    state.overlay(input);
    state.set("configuration", &configuration);
    state.set("data", &data);
    state.to_json()
}

/// The input's data, over the default data where the input has none, or an object of which it can be a part.
fn assemble_data<'a>(input: Option<&'a RawValue>, default: Option<&'a RawValue>) -> Cow<'a, RawValue> {
    match (input, default) {
        (Some(input), _) if is_truthy(input) && !is_object(input) => Cow::Borrowed(input),
        (Some(input), None) if is_object(input) => Cow::Borrowed(input),
        _ => {
            let mut data = Object::of_raw(default);
            data.overlay(Object::of_raw(input));
            Cow::Owned(data.to_raw())
        }
    }
}

/// `state` less the keys in `names`; a state that is no object stays as it is.
pub fn without(state: &Json, names: &[String]) -> Json {
    if !state.is_object() {
        return state.clone();
    }
    let mut object = Object::of(state);
    object.remove(names);
    object.to_json()
}

/// `state` with `errors[step_id]` set to `error`.
pub fn with_error(state: &Json, step_id: &str, error: &RawValue) -> Json {
    let mut state = Object::of(state);
    let mut errors = Object::of_raw(state.get("errors"));
    errors.set(step_id, error);
    let errors = errors.to_raw();
    state.set("errors", &errors);
    state.to_json()
}

/// Whether `key` may be a key of an object in it, at any depth. To look for that costs a tenth of what it costs to read a
/// large state.
pub(crate) fn mentions(json: &Json, key: &str) -> bool {
    let text = json.as_str();
    // Any character may be escaped, though few engines escape one that need not be.
    text.contains("\\u00") || serde_json::to_string(key).is_ok_and(|quoted| text.contains(&quoted))
}

/// Whether `errors[step_id]` of the state is truthy.
pub fn has_error(state: &Json, step_id: &str) -> bool {
    if !mentions(state, "errors") {
        return false;
    }
    let state = Object::of(state);
    Object::of_raw(state.get("errors")).get(step_id).is_some_and(is_truthy)
}

/// The error that a job has put at `errors[step_id]` of its state itself: its type and its message.
pub fn own_error(state: &Json, step_id: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Error {
        r#type: Option<String>,
        name: Option<String>,
        message: Option<String>,
    }
    if !mentions(state, "errors") {
        return None;
    }
    let state = Object::of(state);
    let error = Object::of_raw(state.get("errors")).get(step_id).filter(|error| is_truthy(error))?;
    let (kind, message) = match serde_json::from_str::<Error>(error.get()) {
        Ok(Error { r#type, name, message }) => (r#type.or(name), message),
        Err(_) => (None, serde_json::from_str(error.get()).ok()),
    };
    Some((kind.unwrap_or_else(|| "JobError".to_owned()), message.unwrap_or_else(|| error.get().to_owned())))
}

/// Whether the state is `{}` or holds nothing but an empty `data`.
pub fn is_blank(state: &Json) -> bool {
    if !state.is_object() {
        return false;
    }
    let members = Object::of(state).members;
    match members.as_slice() {
        [] => true,
        [(name, value)] => name == "data" && is_object(value) && Object::of_raw(Some(value)).members.is_empty(),
        _ => false,
    }
}

/// The value as Lightning sees it, in a dataclip and in a final state, which have to be objects: any other value becomes
/// the `value` of one, as Lightning itself would have it.
pub fn as_dataclip(value: &Json) -> Json {
    if value.is_object() { value.clone() } else { keyed([("value", value)]) }
}

/// An object of states.
pub fn keyed<'a>(states: impl IntoIterator<Item = (&'a str, &'a Json)>) -> Json {
    let mut object = Object::default();
    for (name, state) in states {
        if let Ok(state) = serde_json::from_str(state.as_str()) {
            object.set(name, state);
        }
    }
    object.to_json()
}

/// A JSON object taken apart one level deep, in the order of its keys. As in JavaScript, a key that comes twice keeps
/// its first place and its last value.
#[derive(Default)]
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// The value's members: those of an array are its indices, other values have none.
    fn of(json: &'a Json) -> Self {
        Self::of_raw(serde_json::from_str(json.as_str()).ok())
    }

    pub(crate) fn of_raw(value: Option<&'a RawValue>) -> Self {
        let Some(text) = value.map(RawValue::get) else { return Self::default() };
        match text.as_bytes().first() {
            Some(b'{') => serde_json::from_str(text).unwrap_or_default(),
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                Self { members: items.into_iter().enumerate().map(|(i, item)| (i.to_string().into(), item)).collect() }
            }
            _ => Self::default(),
        }
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    pub(crate) fn remove(&mut self, names: &[String]) {
        self.members.retain(|(name, _)| !names.iter().any(|unwanted| unwanted == name));
    }

    fn set(&mut self, name: &'a str, value: &'a RawValue) {
        match self.members.iter_mut().find(|(key, _)| key == name) {
            Some(member) => member.1 = value,
            None => self.members.push((name.into(), value)),
        }
    }

    fn overlay(&mut self, over: Object<'a>) {
        if self.members.is_empty() {
            self.members = over.members;
        } else {
            self.extend(over.members);
        }
    }

    fn extend(&mut self, members: impl IntoIterator<Item = (Cow<'a, str>, &'a RawValue)>) {
        let mut places: HashMap<Cow<'a, str>, usize> =
            self.members.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        for (name, value) in members {
            match places.get(&name) {
                Some(&place) => self.members[place].1 = value,
                None => {
                    places.insert(name.clone(), self.members.len());
                    self.members.push((name, value));
                }
            }
        }
    }

    fn to_json(&self) -> Json {
        Json::encode(self).expect("keys are strings and values are JSON")
    }

    fn to_raw(&self) -> Box<RawValue> {
        serde_json::value::to_raw_value(self).expect("keys are strings and values are JSON")
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.members.len()))?;
        for (name, value) in &self.members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push((key_text(key), value));
                }
                let mut object = Object::default();
                object.extend(members);
                Ok(object)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// The key that a JSON string stands for.
fn key_text(key: &RawValue) -> Cow<'_, str> {
    let quoted = key.get();
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(quoted);
    if inner.contains('\\') {
        serde_json::from_str::<String>(quoted).map_or(Cow::Borrowed(inner), Cow::Owned)
    } else {
        Cow::Borrowed(inner)
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Whether JavaScript takes the value for true.
fn is_truthy(value: &RawValue) -> bool {
    match value.get() {
        "null" | "false" | "\"\"" => false,
        text if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            text.parse::<f64>().is_ok_and(|number| number != 0.0)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.to_owned()).unwrap()
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_job_starts_with_its_default_under_its_input() {
        let check = |input: &str, default: &str, expected: &str| {
            let (input, default) = (json(input), json(default));
            let from = Ingredients {
                input: &input,
                default: Some(&default),
                workflow_configuration: None,
                configuration: None,
            };
            assert_eq!(assemble(from).as_str(), expected);
        };
        check("{}", "{}", r#"{"configuration":{},"data":{}}"#);
        check(r#"{"name": "x"}"#, "{}", r#"{"name":"x","configuration":{},"data":{}}"#);
        check(
            r#"{"data":{"b":2}}"#,
            r#"{"data":{"a":1,"b":1},"top":"d"}"#,
            r#"{"data":{"a":1,"b":2},"top":"d","configuration":{}}"#,
        );
        check(r#"{"data":[1,2]}"#, r#"{"data":{"a":1}}"#, r#"{"data":[1,2],"configuration":{}}"#);
        check(r#"{"data":"text"}"#, r#"{"data":{"a":1}}"#, r#"{"data":"text","configuration":{}}"#);
        check(r#"{"data":null}"#, "{}", r#"{"data":{},"configuration":{}}"#);
        check(r#"{"data":0}"#, r#"{"data":{"a":1}}"#, r#"{"data":{"a":1},"configuration":{}}"#);
        check(r#"{"data":-0.5}"#, "{}", r#"{"data":-0.5,"configuration":{}}"#);
        check("{}", r#"{"data":[7]}"#, r#"{"data":{"0":7},"configuration":{}}"#);
        check(
            r#"{"references":[1],"errors":{"a":{}}}"#,
            "{}",
            r#"{"references":[1],"errors":{"a":{}},"configuration":{},"data":{}}"#,
        );
        check("42", r#"{"top":1}"#, r#"{"top":1,"configuration":{},"data":{}}"#);
        check("null", "null", r#"{"configuration":{},"data":{}}"#);
        check("[5]", "{}", r#"{"0":5,"configuration":{},"data":{}}"#);
        check(r#"{"a":1,"\u0061":2}"#, "{}", r#"{"a":2,"configuration":{},"data":{}}"#);
        let mended = "{\"\u{fffd}\":1,\"k\":\"\\ufffd\",\"configuration\":{},\"data\":{}}";
        check(r#"{"\ud800":1,"k":"\ud800"}"#, "{}", mended);
        check(r#"{"__proto__":{"x":1}}"#, "{}", r#"{"__proto__":{"x":1},"configuration":{},"data":{}}"#);
    }

    #[test]
    fn credentials_overlay_each_other() {
        let check = |workflow: &str, input: &str, job: &str, expected: &str| {
            let (workflow, input, job) = (json(workflow), json(input), json(job));
            let from = Ingredients {
                input: &input,
                default: None,
                workflow_configuration: Some(&workflow),
                configuration: Some(&job),
            };
            let state = assemble(from);
            assert_eq!(Object::of(&state).get("configuration").unwrap().get(), expected);
        };
        check("{}", "{}", "{}", "{}");
        check(
            r#"{"a":1,"b":1,"c":1}"#,
            r#"{"configuration":{"b":2,"c":2}}"#,
            r#"{"c":3,"d":3}"#,
            r#"{"a":1,"b":2,"c":3,"d":3}"#,
        );
        check("null", r#"{"configuration":"odd"}"#, r#"{"d":3}"#, r#"{"d":3}"#);
    }

    #[test]
    fn the_default_state_brings_no_configuration() {
        let default = json(r#"{"configuration":{"leaked":1}}"#);
        let input = Json::empty_object();
        let from =
            Ingredients { input: &input, default: Some(&default), workflow_configuration: None, configuration: None };
        assert_eq!(assemble(from).as_str(), r#"{"configuration":{},"data":{}}"#);
    }

    #[test]
    fn keys_are_taken_out() {
        let names = ["configuration".to_owned(), "response".to_owned()];
        for (state, expected) in [
            (r#"{"configuration":{"a":1},"data":{"configuration":2},"response":1}"#, r#"{"data":{"configuration":2}}"#),
            ("{}", "{}"),
            ("[1]", "[1]"),
        ] {
            assert_eq!(without(&json(state), &names).as_str(), expected);
        }
    }

    #[test]
    fn errors_are_added_by_step() {
        for (state, expected) in [
            ("{}", r#"{"errors":{"a":{"n":1}}}"#),
            (r#"{"errors":{"b":2},"data":{}}"#, r#"{"errors":{"b":2,"a":{"n":1}},"data":{}}"#),
            (r#"{"errors":{"a":2}}"#, r#"{"errors":{"a":{"n":1}}}"#),
            (r#"{"errors":"odd"}"#, r#"{"errors":{"a":{"n":1}}}"#),
        ] {
            assert_eq!(with_error(&json(state), "a", raw(r#"{"n":1}"#)).as_str(), expected);
        }
    }

    #[test]
    fn an_error_counts_when_it_is_truthy() {
        for (state, expected) in [
            ("{}", false),
            ("42", false),
            (r#"{"errors":{"b":{}}}"#, false),
            (r#"{"errors":{"a":{}}}"#, true),
            (r#"{"errors":{"a":null}}"#, false),
            (r#"{"errors":{"a":0.0}}"#, false),
            (r#"{"errors":{"a":"0"}}"#, true),
            (r#"{"\u0065rrors":{"a":1}}"#, true),
        ] {
            assert_eq!(has_error(&json(state), "a"), expected, "{state}");
        }
    }

    #[test]
    fn blank_states_hold_nothing() {
        for (state, expected) in [
            ("{}", true),
            (r#"{"data":{}}"#, true),
            (r#"{"data": { } }"#, true),
            (r#"{"data":[]}"#, false),
            (r#"{"data":{"a":1}}"#, false),
            (r#"{"data":{},"x":1}"#, false),
            (r#"{"other":{}}"#, false),
            ("0", false),
        ] {
            assert_eq!(is_blank(&json(state)), expected, "{state}");
        }
    }

    #[test]
    fn dataclips_are_objects() {
        for (value, expected) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("42", r#"{"value":42}"#),
            ("[1]", r#"{"value":[1]}"#),
            ("null", r#"{"value":null}"#),
        ] {
            assert_eq!(as_dataclip(&json(value)).as_str(), expected);
        }
    }

    #[test]
    fn any_depth_is_passed_on() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let input = json(&format!(r#"{{"data":{{"deep":{deep}}}}}"#));
        let from = Ingredients { input: &input, default: None, workflow_configuration: None, configuration: None };
        assert_eq!(assemble(from).len(), input.len() + r#","configuration":{}"#.len());
    }
}
