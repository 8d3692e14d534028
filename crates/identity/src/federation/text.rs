//! Texts of a mapping into which values are filled: `{0}` and `{}` as in Python's `format`, `{{` and `}}` for braces.
//!
//! Several values in a text stand there as Python writes a list. A text that is `{n}` alone, where a list is wanted,
//! *is* that list: a value that looks like a list is one value, so that nobody can name themselves into a group.

use base::{Fault, Result};

/// One piece of a text.
enum Piece<'a> {
    Plain(&'a str),
    Place(usize),
}

/// Invalid for a text that could not be filled with `places` values.
pub fn check(text: &str, places: usize) -> Result<()> {
    base::limits::text("a text of a mapping", text, 4096)?;
    let beyond = pieces(text)?.into_iter().find_map(|piece| match piece {
        Piece::Place(at) if at >= places => Some(at),
        _ => None,
    });
    match beyond {
        None => Ok(()),
        Some(at) => Err(Fault::invalid(format!(
            "'{text:.80}' asks for value {at}, and the remote part of its rule gives {places}"
        ))),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>> {
    let wrong = || {
        Fault::invalid(format!("'{text:.80}' cannot be filled: {{0}} is a value's place, and {{{{ and }}}} are braces"))
    };
    let (mut found, mut rest, mut next) = (Vec::new(), text, 0);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        found.push(Piece::Plain(before));
        if after.starts_with("{{") || after.starts_with("}}") {
            found.push(Piece::Plain(&after[..1]));
            rest = &after[2..];
            continue;
        }
        let inside = after.strip_prefix('{').ok_or_else(wrong)?;
        let (number, after) = inside.split_once('}').ok_or_else(wrong)?;
        let place = if number.is_empty() { next } else { number.parse::<u16>().map_err(|_| wrong())?.into() };
        next += usize::from(number.is_empty());
        found.push(Piece::Place(place));
        rest = after;
    }
    found.push(Piece::Plain(rest));
    Ok(found)
}

/// The text with its values.
pub fn fill(text: &str, values: &[Vec<String>]) -> Result<String> {
    let mut filled = String::new();
    for piece in pieces(text)? {
        match piece {
            Piece::Plain(text) => filled.push_str(text),
            Piece::Place(at) => match values.get(at).map(Vec::as_slice) {
                Some([one]) => filled.push_str(one),
                Some(several) => filled.push_str(&python(several)),
                None => return Err(crate::token::verify::refused("a text of the mapping has no such value")),
            },
        }
    }
    Ok(filled)
}

/// The list that a text is.
pub fn list(text: &str, values: &[Vec<String>]) -> Result<Vec<String>> {
    let pieces = pieces(text)?;
    let mut parts = pieces.iter().filter(|piece| !matches!(piece, Piece::Plain("")));
    if let (Some(Piece::Place(at)), None) = (parts.next(), parts.next()) {
        return Ok(values.get(*at).cloned().unwrap_or_default());
    }
    // Only what the mapping itself writes as a list is one.
    match literal(text) {
        Some(items) => items.iter().map(|item| fill(item, values)).collect(),
        None => Ok(vec![fill(text, values)?]),
    }
}

/// A list as Python writes it.
fn python(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", quoted.join(", "))
}

fn quoted(item: &str) -> String {
    let quote = if item.contains('\'') && !item.contains('"') { '"' } else { '\'' };
    let mut text = String::from(quote);
    for next in item.chars() {
        match next {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            next if next == quote => text.extend(['\\', next]),
            next => text.push(next),
        }
    }
    text.push(quote);
    text
}

/// The strings of a list in Python's words; none for anything else.
fn literal(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('[')?.trim_start();
    let mut items = Vec::new();
    while let Some(quote) = rest.chars().next().filter(|next| matches!(next, '\'' | '"')) {
        let (mut item, mut escaped, mut end) = (String::new(), false, None);
        for (at, next) in rest.char_indices().skip(1) {
            match next {
                _ if escaped => {
                    item.push(next);
                    escaped = false;
                }
                '\\' => escaped = true,
                next if next == quote => {
                    end = Some(at + 1);
                    break;
                }
                next => item.push(next),
            }
        }
        items.push(item);
        rest = rest[end?..].trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None => break,
        }
    }
    (rest == "]").then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(given: &[&[&str]]) -> Vec<Vec<String>> {
        given.iter().map(|list| list.iter().map(|value| (*value).to_owned()).collect()).collect()
    }

    #[test]
    fn values_are_filled_in_as_python_formats_them() {
        let given = values(&[&["bob"], &["a", "it's", "\"q\"'"], &[]]);
        for (text, filled) in [
            ("{0}@{0}", "bob@bob"),
            ("{}-{}", "bob-['a', \"it's\", '\"q\"\\'']"),
            ("{{{0}}}", "{bob}"),
            ("{2}", "[]"),
            ("plain", "plain"),
        ] {
            assert_eq!(fill(text, &given).unwrap(), filled, "{text}");
            check(text, 3).unwrap();
        }
        for bad in ["{", "}", "{x}", "{0", "{0!r}", "{-1}", "{0}}"] {
            assert!(check(bad, 3).is_err(), "{bad}");
        }
        assert!(check("{3}", 3).unwrap_err().message.contains("asks for value 3"));
    }

    #[test]
    fn a_list_is_what_the_mapping_writes_or_what_the_provider_lists() {
        let given = values(&[&["['admins']"], &["a", "b"], &[]]);
        for (text, expected) in [
            ("{0}", vec!["['admins']"]),
            ("{1}", vec!["a", "b"]),
            ("{2}", vec![]),
            ("['x', \"y{1}\"]", vec!["x", "y['a', 'b']"]),
            ("[]", vec![]),
            ("g-{0}", vec!["g-['admins']"]),
        ] {
            assert_eq!(list(text, &given).unwrap(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(text in "\\PC{0,40}|[\\[\\]'\"{}0-9, \\\\]{0,24}") {
            let given = values(&[&["x"]]);
            let _ = (check(&text, 1), fill(&text, &given), list(&text, &given));
        }
    }
}
