//! Extra specs of flavors that mean something to nubo, and the shape that every extra spec must have.

use base::{Fault, Result};
use std::collections::BTreeMap;

/// What happens to a guest whose process ends by itself.
pub const ON_CRASH: &str = "nubo:on_crash";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCrash {
    #[default]
    Stop,
    Restart,
}

/// Reads `nubo:on_crash`. What is stored was checked by [`check`], so anything else means the default.
pub fn on_crash(specs: &BTreeMap<String, String>) -> OnCrash {
    match specs.get(ON_CRASH).map(String::as_str) {
        Some("restart") => OnCrash::Restart,
        _ => OnCrash::Stop,
    }
}

/// Refuses a key or value that Nova refuses, and a value that nubo could not follow.
pub fn check(key: &str, value: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_:. ".contains(c);
    if key.is_empty() || key.chars().count() > 255 || !key.chars().all(legal) {
        return Err(Fault::invalid(format!(
            "Invalid input for field/attribute extra_specs. Value: {key}. '{key}' does not match any of the regexes: '^[a-zA-Z0-9-_:. ]{{1,255}}$'"
        )));
    }
    if value.chars().count() > 255 {
        return Err(Fault::invalid(format!(
            "Invalid input for field/attribute {key}. Value: {value}. '{value}' is too long"
        )));
    }
    if key == ON_CRASH && !matches!(value, "stop" | "restart") {
        return Err(Fault::invalid(format!(
            "Invalid input for field/attribute {key}. Value: {value}. '{value}' is not one of ['stop', 'restart']"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_specs_are_read_and_refused() {
        let specs = |value: &str| BTreeMap::from([(ON_CRASH.to_owned(), value.to_owned())]);
        assert_eq!(on_crash(&specs("restart")), OnCrash::Restart);
        assert_eq!(on_crash(&specs("stop")), OnCrash::Stop);
        assert_eq!(on_crash(&BTreeMap::new()), OnCrash::Stop);
        assert!(check("hw:cpu_policy", "dedicated").is_ok());
        assert!(check(ON_CRASH, "explode").is_err());
        for bad in ["", "a/b", "ключ", "x\n"] {
            assert!(check(bad, "v").is_err(), "{bad:?}");
        }
        assert!(check(&"k".repeat(256), "v").is_err());
        assert!(check("k", &"v".repeat(256)).is_err());
    }
}
