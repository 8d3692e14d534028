//! Microversions: what a client may ask for, and how the newest shape becomes an older one.
//!
//! Handlers know only the newest shape. Beside each resource stands a table of [`Change`]s in rising order. A request
//! made at an older version is lifted by every change after that version, oldest first; an answer is lowered by the
//! same changes, newest first.

use base::{Fault, Result};
use http::HeaderMap;
use serde_json::Value;
use std::fmt;

/// A version such as 2.60. Ordered by major, then minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// `2.60`; no signs, no leading zeros.
    pub fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.split_once('.')?;
        let number = |text: &str| -> Option<u16> {
            let plain = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
            let plain = plain && (text == "0" || !text.starts_with('0'));
            plain.then(|| text.parse().ok()).flatten()
        };
        Some(Version(number(major)?, number(minor)?))
    }
}

/// The versions that a service speaks, and by which header it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Microversions {
    /// `compute` in `OpenStack-API-Version: compute 2.60`.
    pub service_type: &'static str,
    /// An older header that carries the number alone, such as `X-OpenStack-Nova-API-Version`.
    pub legacy_header: Option<&'static str>,
    pub min: Version,
    pub max: Version,
}

impl Microversions {
    /// The version that the headers ask for; `min` when they ask for none.
    /// Invalid for a malformed one, NotAcceptable for one outside the range.
    pub fn negotiate(&self, headers: &HeaderMap) -> Result<Version> {
        let Some(asked) = self.asked(headers)? else { return Ok(self.min) };
        if asked.eq_ignore_ascii_case("latest") {
            return Ok(self.max);
        }
        let version = Version::parse(asked).ok_or_else(|| {
            Fault::invalid(format!(
                "API Version String {asked} is of invalid format. Must be of format MajorNum.MinorNum."
            ))
        })?;
        if version < self.min || version > self.max {
            return Err(Fault::not_acceptable(format!(
                "Version {version} is not supported by the API. Minimum is {} and maximum is {}.",
                self.min, self.max
            )));
        }
        Ok(version)
    }

    fn asked<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>> {
        for value in headers.get_all("openstack-api-version") {
            let text = value.to_str().map_err(|_| Fault::invalid("The header OpenStack-API-Version is not ASCII."))?;
            for part in text.split(',') {
                let mut words = part.split_whitespace();
                if words.next().is_some_and(|word| word.eq_ignore_ascii_case(self.service_type)) {
                    return Ok(Some(words.next().unwrap_or("")));
                }
            }
        }
        let Some(value) = self.legacy_header.and_then(|name| headers.get(name)) else { return Ok(None) };
        value.to_str().map(Some).map_err(|_| Fault::invalid("The API version header is not ASCII."))
    }
}

/// One step of an API: what `since` changed in the named operations. None of the functions may fail on odd input; what
/// is wrong is said by the handler that reads the newest shape.
#[derive(Clone, Copy)]
pub struct Change {
    pub since: Version,
    /// Ids of operations (see [`crate::Route`]).
    pub operations: &'static [&'static str],
    /// Turns a request of the version before into one of `since`; may refuse fields that did not exist yet.
    pub request: Option<fn(&mut Value) -> Result<()>>,
    /// Turns an answer of `since` into one of the version before.
    pub response: Option<fn(&mut Value)>,
}

/// Lifts a request body made at `version` to the newest shape.
pub fn lift_request(changes: &[Change], operation: &str, version: Version, body: &mut Value) -> Result<()> {
    for change in changes.iter().filter(|change| change.since > version && change.operations.contains(&operation)) {
        if let Some(lift) = change.request {
            lift(body)?;
        }
    }
    Ok(())
}

/// Lowers an answer of the newest shape to `version`.
pub fn lower_response(changes: &[Change], operation: &str, version: Version, body: &mut Value) {
    let newer = changes.iter().rev().filter(|change| change.since > version && change.operations.contains(&operation));
    for change in newer {
        if let Some(lower) = change.response {
            lower(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPUTE: Microversions = Microversions {
        service_type: "compute",
        legacy_header: Some("x-openstack-nova-api-version"),
        min: Version(2, 1),
        max: Version(2, 60),
    };

    fn ask(name: &'static str, value: &str) -> std::result::Result<Version, base::FaultKind> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        COMPUTE.negotiate(&headers).map_err(|fault| fault.kind)
    }

    #[test]
    fn negotiates_like_nova() {
        use base::FaultKind::*;
        let both = "openstack-api-version";
        assert_eq!(COMPUTE.negotiate(&HeaderMap::new()).unwrap(), Version(2, 1));
        assert_eq!(ask(both, "compute 2.26"), Ok(Version(2, 26)));
        assert_eq!(ask(both, "compute latest"), Ok(Version(2, 60)));
        assert_eq!(ask(both, "volume 3.0, compute 2.2"), Ok(Version(2, 2)));
        assert_eq!(ask(both, "volume 3.0"), Ok(Version(2, 1)));
        assert_eq!(ask("x-openstack-nova-api-version", "2.3"), Ok(Version(2, 3)));
        assert_eq!(ask(both, "compute 2.61"), Err(NotAcceptable));
        assert_eq!(ask(both, "compute 3.0"), Err(NotAcceptable));
        for bad in
            ["compute 2", "compute 2.01", "compute 2.-1", "compute x", "compute", "compute 2.1.1", "compute 2.999999"]
        {
            assert_eq!(ask(both, bad), Err(Invalid), "{bad}");
        }
    }
}
