//! Reads a `policy.yaml`: a map of rule names to rules, each a string or the older list of lists.

use crate::check::Check;
use crate::{invalid, parse};
use base::{Fault, Result};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

/// The most bytes of a `policy.yaml`.
const BYTES: usize = 1 << 20;

pub(crate) struct Override {
    pub name: String,
    pub line: u64,
    pub text: String,
    pub check: Check,
}

/// In the order of the file.
pub(crate) fn read(yaml: &str) -> Result<Vec<Override>> {
    if yaml.len() > BYTES {
        return Err(Fault::invalid(format!("policy.yaml: it may have at most {BYTES} bytes.")));
    }
    if yaml.lines().all(|line| matches!(line.trim(), "" | "---") || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let file: File = serde_saphyr::from_str(yaml).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        let text = error.to_string();
        let first = text.lines().next().unwrap_or("it is not YAML").trim_end_matches('.');
        let place = format!("error: line {line} column {}: ", error.location().map_or(1, |at| at.column()));
        invalid(line, first.strip_prefix(&*place).unwrap_or(first))
    })?;
    file.0.into_iter().map(|(name, rule)| one(name, rule)).collect()
}

fn one(name: Spanned<String>, rule: Form) -> Result<Override> {
    let line = name.referenced.line();
    let name = name.value;
    let (text, check) = match rule {
        Form::Text(text) => {
            let check = parse::text(&text);
            (text, check)
        }
        Form::List(items) => {
            let outer: Vec<Vec<String>> = items.into_iter().map(Item::into_list).collect();
            (serde_json::to_string(&outer).unwrap_or_default(), parse::list(&outer))
        }
    };
    let check = check.map_err(|why| invalid(line, format!("in the rule \"{name}\", {why}")))?;
    Ok(Override { name, line, text, check })
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a rule must be a string, or the older list of lists of strings")]
enum Form {
    Text(String),
    List(Vec<Item>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    One(String),
    Several(Vec<String>),
}

impl Item {
    fn into_list(self) -> Vec<String> {
        match self {
            Item::One(text) => vec![text],
            Item::Several(texts) => texts,
        }
    }
}

/// Pairs rather than a map: each name keeps its line, and a name given twice is seen.
struct File(Vec<(Spanned<String>, Form)>);

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<File, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = File;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a map of rule names to rules")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(File(pairs))
            }
        }
        from.deserialize_map(Pairs)
    }
}
