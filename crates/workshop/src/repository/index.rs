//! The index of a repository of images, in the format of `virt-builder`: sections `[name]` with `field=value`,
//! values that go on in lines that begin with a blank.

use crate::error::{Error, Result};
use std::fmt::Write;

/// Bytes of an index.
pub const INDEX_BYTES: u64 = 4 << 20;
const ENTRIES: usize = 10_000;
const FIELDS: usize = 64;

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    pub fn new(name: &str) -> Entry {
        Entry { name: name.to_owned(), fields: Vec::new() }
    }

    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }

    /// Sets a field, in its place if it is there.
    pub fn set(&mut self, field: &str, value: impl Into<String>) {
        let value = value.into();
        match self.fields.iter_mut().find(|(name, _)| name == field) {
            Some((_, old)) => *old = value,
            None => self.fields.push((field.to_owned(), value)),
        }
    }

    pub fn remove(&mut self, field: &str) {
        self.fields.retain(|(name, _)| name != field);
    }

    /// A number, where it is one.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.get(field)?.parse().ok()
    }
}

/// Reads an index.
///
/// # Errors
/// Refused with the line that is wrong, or with the limit that it breaks.
pub fn parse(text: &str) -> Result<Vec<Entry>> {
    let wrong = |line: usize, why: &str| Error::Refused(format!("line {} of the index {why}", line + 1));
    let mut entries: Vec<Entry> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if let Some(more) = line.strip_prefix([' ', '\t']) {
            let value = entries.last_mut().and_then(|entry| entry.fields.last_mut());
            let (_, value) = value.ok_or_else(|| wrong(n, "goes on from no value"))?;
            value.push('\n');
            value.push_str(more);
        } else if line.trim().is_empty() || line.starts_with('#') {
            continue;
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            check_name(name).map_err(|why| wrong(n, &why))?;
            if entries.len() == ENTRIES {
                return Err(wrong(n, "is one entry too many"));
            }
            entries.push(Entry::new(name));
        } else {
            let (field, value) = line.split_once('=').ok_or_else(|| wrong(n, "is neither a section nor a field"))?;
            let entry = entries.last_mut().ok_or_else(|| wrong(n, "stands in no section"))?;
            if entry.fields.len() == FIELDS {
                return Err(wrong(n, "is one field too many"));
            }
            entry.fields.push((field.trim().to_owned(), value.trim_start().to_owned()));
        }
    }
    Ok(entries)
}

/// Names as `virt-builder` has them; they become names of files.
pub(crate) fn check_name(name: &str) -> std::result::Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !name.is_empty() && name.len() <= 128 && name.chars().all(fits) && !name.starts_with(['.', '-']) {
        true => Ok(()),
        false => Err(format!("has the name '{}': letters, digits, '-', '_' and '.' are right", name.escape_debug())),
    }
}

/// The text of an index.
pub fn render(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let _ = writeln!(text, "[{}]", entry.name);
        for (field, value) in &entry.fields {
            let _ = writeln!(text, "{field}={}", value.replace('\n', "\n "));
        }
        text.push('\n');
    }
    text
}
