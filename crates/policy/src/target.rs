//! What is acted upon: a small map of names to values, as policies see it.

use std::borrow::Cow;

/// A value of a target or of the credentials. Compared as Python would print it: `None`, `True`, `42`, the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    /// Reached into by dotted names.
    Json(Cow<'a, serde_json::Value>),
}

impl<'a> Value<'a> {
    /// As Python's `str()` of it. None for what no check can sensibly compare: a list or an object.
    pub(crate) fn shown(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Value::Null => "None".into(),
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            Value::Int(number) => number.to_string().into(),
            Value::Text(text) => Cow::Borrowed(&**text),
            Value::Json(json) => match &**json {
                serde_json::Value::Null => "None".into(),
                serde_json::Value::Bool(true) => "True".into(),
                serde_json::Value::Bool(false) => "False".into(),
                serde_json::Value::Number(number) => number.to_string().into(),
                serde_json::Value::String(text) => Cow::Borrowed(text.as_str()),
                serde_json::Value::Array(_) | serde_json::Value::Object(_) => return None,
            },
        })
    }

    pub(crate) fn is_null(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Json(json) => json.is_null(),
            _ => false,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl<'a> From<&'a serde_json::Value> for Value<'a> {
    fn from(value: &'a serde_json::Value) -> Self {
        Value::Json(Cow::Borrowed(value))
    }
}

impl From<serde_json::Value> for Value<'_> {
    fn from(value: serde_json::Value) -> Self {
        Value::Json(Cow::Owned(value))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A handful of named values. `%(a.b.c)s` finds the value named `a.b.c`, else `b.c` inside the JSON named `a`, and so on.
#[derive(Clone, Debug, Default)]
pub struct Target<'a> {
    values: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Target<'a> {
    pub fn new() -> Target<'a> {
        Target { values: Vec::new() }
    }

    /// The usual target: what belongs to a project.
    pub fn project(project_id: impl Into<Value<'a>>) -> Target<'a> {
        Target::new().with("project_id", project_id)
    }

    /// Adds a value; a later one of the same name wins.
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Value<'a>>) -> Target<'a> {
        self.values.push((name.into(), value.into()));
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value<'_>> {
        if let Some((_, value)) = self.values.iter().rev().find(|(known, _)| known == name) {
            return Some(match value {
                Value::Null => Value::Null,
                Value::Bool(value) => Value::Bool(*value),
                Value::Int(value) => Value::Int(*value),
                Value::Text(text) => Value::Text(Cow::Borrowed(text)),
                Value::Json(json) => Value::Json(Cow::Borrowed(json)),
            });
        }
        self.values.iter().rev().find_map(|(known, value)| {
            let Value::Json(json) = value else { return None };
            let rest = name.strip_prefix(known.as_ref())?.strip_prefix('.')?;
            let found = rest.split('.').try_fold(&**json, |json, key| json.get(key))?;
            Some(Value::Json(Cow::Borrowed(found)))
        })
    }
}
