//! Reading the object of a request: typed attributes are taken out one by one, what is left is kept as extra.

use crate::documents::Extra;
use base::{Fault, Result, limits};
use rest::Call;
use serde_json::{Map, Value};

/// The most attributes of an object that are kept without being known.
const EXTRAS: usize = 128;
/// The most characters of a description and the like.
const TEXT_CHARS: usize = 65_535;

/// `{"project": {…}}`, while it is being read.
pub struct Fields {
    what: &'static str,
    map: Map<String, Value>,
}

fn wrong(name: &str, value: &Value, right: &str) -> Fault {
    let shown: String = value.to_string().chars().take(80).collect();
    Fault::invalid(format!("Invalid input for field '{name}': {shown} is not {right}."))
}

impl Fields {
    /// The only object of a body. Other keys beside it are ignored, as Keystone does.
    pub async fn read(call: &mut Call, what: &'static str) -> Result<Fields> {
        let mut body: Map<String, Value> = call.json().await?;
        match body.remove(what) {
            Some(Value::Object(map)) => Ok(Fields { what, map }),
            Some(other) => Err(wrong(what, &other, "an object")),
            None => Err(Fault::invalid(format!("Invalid input for field '{what}': it is a required property."))),
        }
    }

    pub fn of(what: &'static str, map: Map<String, Value>) -> Fields {
        Fields { what, map }
    }

    pub fn missing(&self, name: &str) -> Fault {
        Fault::invalid(format!("Invalid input for field '{}': '{name}' is a required property.", self.what))
    }

    /// A name: at least one character that is no white space, at most `most`.
    pub fn name(&mut self, name: &str, most: usize) -> Result<Option<String>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                limits::text(name, &text, most)?;
                if text.trim().is_empty() {
                    return Err(wrong(name, &text.into(), "a name: it is blank"));
                }
                Ok(Some(text))
            }
            Some(other) => Err(wrong(name, &other, "a string")),
        }
    }

    pub fn need_name(&mut self, name: &'static str, most: usize) -> Result<String> {
        self.name(name, most)?.ok_or_else(|| self.missing(name))
    }

    /// A string or null: the outer option tells whether it was given.
    pub fn text(&mut self, name: &str) -> Result<Option<Option<String>>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) => {
                limits::text(name, &text, TEXT_CHARS)?;
                Ok(Some(Some(text)))
            }
            Some(other) => Err(wrong(name, &other, "a string or null")),
        }
    }

    /// A description: a string or null, kept as it was given.
    pub fn description(&mut self) -> Result<Option<Value>> {
        Ok(self.text("description")?.map(Value::from))
    }

    pub fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(name, &other, "true or false")),
        }
    }

    /// Takes an attribute out if it is null; a null means the same as nothing.
    pub fn take_null(&mut self, name: &str) -> bool {
        let null = self.map.get(name).is_some_and(Value::is_null);
        if null {
            self.map.remove(name);
        }
        null
    }

    /// An id or null.
    pub fn id(&mut self, name: &str) -> Result<Option<Option<String>>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) => {
                let plain = (1..=64).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
                if plain { Ok(Some(Some(text))) } else { Err(wrong(name, &text.into(), "an id")) }
            }
            Some(other) => Err(wrong(name, &other, "an id")),
        }
    }

    pub fn need_id(&mut self, name: &'static str) -> Result<String> {
        self.id(name)?.flatten().ok_or_else(|| self.missing(name))
    }

    pub fn number(&mut self, name: &str) -> Result<Option<i64>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_i64().filter(|n| (-1..=i64::from(i32::MAX)).contains(n));
                number.map(Some).ok_or_else(|| wrong(name, &value, "a whole number from -1 to 2147483647"))
            }
        }
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Extra>> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(wrong(name, &other, "an object")),
        }
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }

    /// A client may send back what it was shown, but not change what is fixed.
    pub fn fixed(&mut self, name: &str, now: &Value) -> Result<()> {
        match self.map.remove(name) {
            Some(given) if given != *now => Err(Fault::invalid(format!("Cannot change {} {name}.", self.what))),
            _ => Ok(()),
        }
    }

    /// What is left. `links` is ours.
    pub fn rest(mut self) -> Result<Extra> {
        self.map.remove("links");
        self.map.remove("id");
        if self.map.len() > EXTRAS {
            return Err(Fault::invalid(format!("A {} may have at most {EXTRAS} extra attributes.", self.what)));
        }
        for name in self.map.keys() {
            limits::text("an attribute's name", name, limits::NAME_CHARS)?;
        }
        Ok(self.map)
    }
}

/// Options as they are shown: those that are null are not set.
pub fn merge_options(known: &mut Extra, given: Extra) {
    for (name, value) in given {
        if value.is_null() {
            known.remove(&name);
        } else {
            known.insert(name, value);
        }
    }
}
