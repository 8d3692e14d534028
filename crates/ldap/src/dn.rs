//! Distinguished names (RFC 4514), as far as they must be compared.

/// A name in the form in which two of the same meaning are the same text: names of attributes and values in small
/// letters, without space around them, with characters in place of escapes. Directories take case as it is in few
/// attributes, and in hardly any that names an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dn(Vec<Vec<(String, String)>>);

/// The most bytes of a name.
const BYTES: usize = 4096;

impl Dn {
    /// None for what is no name.
    pub fn parse(text: &str) -> Option<Dn> {
        if text.len() > BYTES {
            return None;
        }
        if text.trim().is_empty() {
            return Some(Dn(Vec::new()));
        }
        let mut parts = Vec::new();
        for part in split(text, |byte| byte == b',' || byte == b';') {
            let mut pairs = Vec::new();
            for pair in split(part, |byte| byte == b'+') {
                let (attribute, value) = pair.split_once('=')?;
                let attribute = attribute.trim().to_lowercase();
                if attribute.is_empty() {
                    return None;
                }
                pairs.push((attribute, plain(value)?.to_lowercase()));
            }
            pairs.sort();
            parts.push(pairs);
        }
        Some(Dn(parts))
    }

    /// How many levels it lies below the other; none where it does not.
    pub fn below(&self, other: &Dn) -> Option<usize> {
        let levels = self.0.len().checked_sub(other.0.len())?;
        (self.0[levels..] == other.0[..]).then_some(levels)
    }
}

/// The value of this attribute in the first part of a name, as it is written there.
pub fn first_value(dn: &str, attribute: &str) -> Option<String> {
    let first = split(dn, |byte| byte == b',' || byte == b';').into_iter().next()?;
    let pairs = split(first, |byte| byte == b'+');
    let pair = pairs
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case(attribute))?;
    plain(pair.1)
}

/// Cuts where a byte ends a part and is not escaped or in quotes.
fn split(text: &str, ends: impl Fn(u8) -> bool) -> Vec<&str> {
    let (mut parts, mut from, mut escaped, mut quoted) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if !quoted && ends(byte) => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// A value without its escapes; none for escapes that are none, or bytes that are no text.
fn plain(value: &str) -> Option<String> {
    let value = value.trim_start();
    let value = value.strip_prefix('"').and_then(|value| value.trim_end().strip_suffix('"')).unwrap_or(value);
    let (mut out, mut solid, mut rest) = (Vec::new(), 0, value.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            // Space at the end counts only where it is escaped.
            solid = if *byte == b' ' { solid } else { out.len() };
            continue;
        }
        let digits = rest.get(..2).filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        match digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[2..];
            }
            None => {
                let (byte, after) = rest.split_first()?;
                out.push(*byte);
                rest = after;
            }
        }
        solid = out.len();
    }
    out.truncate(solid);
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_one_meaning_are_the_same() {
        let same = |a: &str, b: &str| assert_eq!(Dn::parse(a).unwrap(), Dn::parse(b).unwrap(), "{a} and {b}");
        same("UID=Ada,OU=People,DC=x", "uid=ada, ou=people , dc=x");
        same("cn=Smith\\, John,dc=x", "cn=\"Smith, John\",dc=x");
        same("cn=Smith\\2c John,dc=x", "cn=smith\\, john,dc=x");
        same("cn=a+sn=b,dc=x", "sn=b+cn=a,dc=x");
        assert_ne!(Dn::parse("cn=a,dc=x"), Dn::parse("cn=a\\,dc=x"));
        assert_ne!(Dn::parse("cn=a\\20"), Dn::parse("cn=a "), "an escaped space counts");
        for wrong in ["x", "=x", "cn=a,,dc=x", "cn=\\", "cn=\\ff"] {
            assert_eq!(Dn::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_lies_below() {
        let below = |a: &str, b: &str| Dn::parse(a).unwrap().below(&Dn::parse(b).unwrap());
        assert_eq!(below("uid=a,ou=p,dc=x", "OU=P,dc=x"), Some(1));
        assert_eq!(below("uid=a,ou=q,ou=p,dc=x", "ou=p,dc=x"), Some(2));
        assert_eq!(below("ou=p,dc=x", "ou=p,dc=x"), Some(0));
        assert_eq!(below("uid=a\\,ou=p,dc=x", "ou=p,dc=x"), None, "an escaped comma parts nothing");
        assert_eq!(below("dc=x", "ou=p,dc=x"), None);
    }

    #[test]
    fn the_value_that_names_an_entry() {
        assert_eq!(first_value("UID=A\\2cb+cn=x,dc=y", "uid").as_deref(), Some("A,b"));
        assert_eq!(first_value("uid=a,cn=y", "cn"), None);
    }

    proptest! {
        #[test]
        fn no_text_ends_the_program(text in "[a-c=,+;\\\\\" é0-9f]{0,40}") {
            let _ = (Dn::parse(&text), first_value(&text, "a"));
        }
    }
}
