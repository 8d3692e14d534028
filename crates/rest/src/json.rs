//! Reading JSON from outside: bounded depth, no U+0000, messages that name the place.

use base::{Fault, Result, limits};
use serde::de::DeserializeOwned;

/// Refuses nesting deeper than [`limits::JSON_DEPTH`] and the escape for U+0000, which PostgreSQL cannot keep.
pub fn check_json(bytes: &[u8]) -> Result<()> {
    let (mut depth, mut in_string, mut at) = (0usize, false, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => {
                if bytes[at + 1..].starts_with(b"u0000") {
                    return Err(Fault::invalid("The request body holds the character U+0000, which is not allowed."));
                }
                at += 1;
            }
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > limits::JSON_DEPTH {
                    let most = limits::JSON_DEPTH;
                    return Err(Fault::invalid(format!("The request body is nested more than {most} levels deep.")));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Reads a body, after [`check_json`].
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    check_json(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| {
        let message = match error.classify() {
            serde_json::error::Category::Data => format!("Invalid request body: {error}."),
            _ => format!("Malformed request body: it is not valid JSON ({error})."),
        };
        Fault::invalid(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_nul_are_refused_but_their_look_alikes_are_not() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(check_json(deep(limits::JSON_DEPTH).as_bytes()).is_ok());
        assert!(check_json(deep(limits::JSON_DEPTH + 1).as_bytes()).is_err());
        assert!(check_json(deep(100_000).as_bytes()).is_err());
        assert!(check_json(br#"{"a": "\u0000"}"#).is_err());
        assert!(check_json(br#"{"a": "\\u0000"}"#).is_ok());
        assert!(check_json(format!("\"{}\"", "[".repeat(100)).as_bytes()).is_ok());
        assert!(check_json(br#""\"#).is_ok(), "a cut escape is serde's to refuse");
    }
}
