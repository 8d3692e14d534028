//! Taking back a change of a document that others may have changed since: field by field.

use serde_json::{Map, Value};

/// The most depth of a document; deeper values are compared whole.
const DEPTH: usize = 16;

/// What became of it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Merged {
    pub value: Value,
    /// The document's text, once its kind has seen it.
    pub text: String,
    /// The fields that went back.
    pub fields: Vec<String>,
    /// The fields that somebody has changed since.
    pub conflicts: Vec<String>,
}

impl Merged {
    /// Fields that differ between `before` and `after` go back to `before` where `current` still has them as in `after`.
    pub fn of(current: Value, before: &Value, after: &Value, counters: &[&str]) -> Merged {
        let mut merged = Merged { value: current, ..Merged::default() };
        let mut value = merged.value.take();
        if let (Some(current), Some(before), Some(after)) =
            (value.as_object_mut(), before.as_object(), after.as_object())
        {
            merged.fields(current, before, after, counters, "", DEPTH);
        }
        merged.value = value;
        merged
    }

    fn fields(
        &mut self,
        current: &mut Map<String, Value>,
        before: &Map<String, Value>,
        after: &Map<String, Value>,
        counters: &[&str],
        path: &str,
        depth: usize,
    ) {
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort();
        names.dedup();
        for name in names.into_iter().filter(|name| !counters.contains(&name.as_str())) {
            let (was, left) = (before.get(name), after.get(name));
            if was == left {
                continue;
            }
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let inner = (current.get_mut(name), was, left);
            if let (Some(Value::Object(now)), Some(Value::Object(was)), Some(Value::Object(left))) = inner
                && depth > 0
            {
                self.fields(now, was, left, counters, &path, depth - 1);
                continue;
            }
            let now = current.get(name);
            if now == left {
                match was {
                    Some(was) => drop(current.insert(name.clone(), was.clone())),
                    None => drop(current.remove(name)),
                }
                self.fields.push(path);
            } else if now != was {
                self.conflicts.push(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_go_back_unless_somebody_changed_them_since() {
        let check = |current: Value, before: Value, after: Value, value: Value, fields: &[&str], conflicts: &[&str]| {
            let merged = Merged::of(current, &before, &after, &["revision"]);
            assert_eq!(
                (merged.value, merged.fields, merged.conflicts),
                (
                    value,
                    fields.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                )
            );
        };
        // Nobody else was there.
        check(json!({"a": 2}), json!({"a": 1}), json!({"a": 2}), json!({"a": 1}), &["a"], &[]);
        // Somebody changed another field, which stays.
        check(
            json!({"a": 2, "b": 9}),
            json!({"a": 1, "b": 0}),
            json!({"a": 2, "b": 0}),
            json!({"a": 1, "b": 9}),
            &["a"],
            &[],
        );
        // Somebody changed the same field.
        check(json!({"a": 3}), json!({"a": 1}), json!({"a": 2}), json!({"a": 3}), &[], &["a"]);
        // Somebody took it back already.
        check(json!({"a": 1}), json!({"a": 1}), json!({"a": 2}), json!({"a": 1}), &[], &[]);
        // Counters only rise; inside of objects, too.
        let (before, after) = (json!({"s": {"revision": 1, "tags": []}}), json!({"s": {"revision": 2, "tags": ["x"]}}));
        check(
            json!({"s": {"revision": 7, "tags": ["x"]}}),
            before,
            after,
            json!({"s": {"revision": 7, "tags": []}}),
            &["s.tags"],
            &[],
        );
        // Keys come and go.
        check(json!({"m": {"k": 1}}), json!({"m": {}}), json!({"m": {"k": 1}}), json!({"m": {}}), &["m.k"], &[]);
        check(json!({"m": {}}), json!({"m": {"k": 1}}), json!({"m": {}}), json!({"m": {"k": 1}}), &["m.k"], &[]);
    }
}
