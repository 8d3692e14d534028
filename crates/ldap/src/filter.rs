//! Filters of searches. Values are bytes that stand for themselves; text is read as a filter (RFC 4515) only where an
//! operator has written it.

use crate::ber::{OCTETS, SEQUENCE, Writer};
use crate::{Error, Result};

/// The deepest nesting of a filter that is read from text.
const DEPTH: usize = 16;
/// The longest such text, in bytes.
const TEXT_BYTES: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Equal(String, Vec<u8>),
    /// Beginning, parts in order, end.
    Substrings(String, Option<Vec<u8>>, Vec<Vec<u8>>, Option<Vec<u8>>),
    GreaterOrEqual(String, Vec<u8>),
    LessOrEqual(String, Vec<u8>),
    Present(String),
    Approximately(String, Vec<u8>),
    Extensible {
        rule: Option<String>,
        attribute: Option<String>,
        value: Vec<u8>,
        of_dn: bool,
    },
}

impl Filter {
    pub fn equal(attribute: &str, value: &str) -> Filter {
        Filter::Equal(attribute.to_owned(), value.as_bytes().to_vec())
    }

    pub fn present(attribute: &str) -> Filter {
        Filter::Present(attribute.to_owned())
    }

    /// Reads what an operator has written, such as `(|(objectClass=person)(uid=a*))`.
    pub fn parse(text: &str) -> Result<Filter> {
        if text.len() > TEXT_BYTES {
            return Err(Error::Filter(TEXT_BYTES));
        }
        let mut parser = Parser { text: text.as_bytes(), at: 0 };
        let filter = parser.filter(0)?;
        if parser.at == text.len() { Ok(filter) } else { Err(parser.wrong()) }
    }

    pub(crate) fn write(&self, to: &mut Writer) {
        let pair = |to: &mut Writer, tag: u8, attribute: &str, value: &[u8]| {
            to.within(tag, |to| {
                to.bytes(OCTETS, attribute.as_bytes());
                to.bytes(OCTETS, value);
            });
        };
        match self {
            Filter::And(all) => to.within(0xa0, |to| all.iter().for_each(|filter| filter.write(to))),
            Filter::Or(any) => to.within(0xa1, |to| any.iter().for_each(|filter| filter.write(to))),
            Filter::Not(filter) => to.within(0xa2, |to| filter.write(to)),
            Filter::Equal(attribute, value) => pair(to, 0xa3, attribute, value),
            Filter::Substrings(attribute, initial, any, last) => to.within(0xa4, |to| {
                to.bytes(OCTETS, attribute.as_bytes());
                to.within(SEQUENCE, |to| {
                    initial.iter().for_each(|part| to.bytes(0x80, part));
                    any.iter().for_each(|part| to.bytes(0x81, part));
                    last.iter().for_each(|part| to.bytes(0x82, part));
                });
            }),
            Filter::GreaterOrEqual(attribute, value) => pair(to, 0xa5, attribute, value),
            Filter::LessOrEqual(attribute, value) => pair(to, 0xa6, attribute, value),
            Filter::Present(attribute) => to.bytes(0x87, attribute.as_bytes()),
            Filter::Approximately(attribute, value) => pair(to, 0xa8, attribute, value),
            Filter::Extensible { rule, attribute, value, of_dn } => to.within(0xa9, |to| {
                rule.iter().for_each(|rule| to.bytes(0x81, rule.as_bytes()));
                attribute.iter().for_each(|attribute| to.bytes(0x82, attribute.as_bytes()));
                to.bytes(0x83, value);
                if *of_dn {
                    to.bytes(0x84, &[0xff]);
                }
            }),
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self) -> Error {
        Error::Filter(self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn need(&mut self, byte: u8) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong()) }
    }

    fn filter(&mut self, depth: usize) -> Result<Filter> {
        if depth >= DEPTH {
            return Err(self.wrong());
        }
        self.need(b'(')?;
        let filter = match self.peek() {
            Some(b'&') => Filter::And(self.list(depth)?),
            Some(b'|') => Filter::Or(self.list(depth)?),
            Some(b'!') => {
                self.at += 1;
                Filter::Not(Box::new(self.filter(depth + 1)?))
            }
            _ => self.item()?,
        };
        self.need(b')')?;
        Ok(filter)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Filter>> {
        self.at += 1;
        let mut all = Vec::new();
        while self.peek() == Some(b'(') {
            all.push(self.filter(depth + 1)?);
        }
        Ok(all)
    }

    /// A name of an attribute or of a rule, with options; may be empty.
    fn name(&mut self) -> String {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-.;_".contains(&byte)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[from..self.at]).into_owned()
    }

    fn item(&mut self) -> Result<Filter> {
        let attribute = self.name();
        if self.peek() == Some(b':') {
            return self.extensible(attribute);
        }
        if attribute.is_empty() {
            return Err(self.wrong());
        }
        match self.peek() {
            Some(b'=') => self.at += 1,
            Some(other @ (b'>' | b'<' | b'~')) => {
                self.at += 1;
                self.need(b'=')?;
                let value = self.value()?;
                return Ok(match other {
                    b'>' => Filter::GreaterOrEqual(attribute, value),
                    b'<' => Filter::LessOrEqual(attribute, value),
                    _ => Filter::Approximately(attribute, value),
                });
            }
            _ => return Err(self.wrong()),
        }
        let mut parts = vec![self.value()?];
        while self.take(b'*') {
            parts.push(self.value()?);
        }
        if parts.len() == 1 {
            return Ok(Filter::Equal(attribute, parts.remove(0)));
        }
        if parts.len() == 2 && parts.iter().all(Vec::is_empty) {
            return Ok(Filter::Present(attribute));
        }
        let some = |part: Vec<u8>| Some(part).filter(|part| !part.is_empty());
        let last = parts.pop().and_then(some);
        let initial = some(parts.remove(0));
        parts.retain(|part| !part.is_empty());
        Ok(Filter::Substrings(attribute, initial, parts, last))
    }

    /// `attribute:dn:rule:=value`, without one or the other.
    fn extensible(&mut self, attribute: String) -> Result<Filter> {
        let (mut of_dn, mut rule) = (false, None);
        self.need(b':')?;
        while self.peek() != Some(b'=') {
            let word = self.name();
            match word.as_str() {
                "" => return Err(self.wrong()),
                "dn" if !of_dn && rule.is_none() => of_dn = true,
                _ if rule.is_none() => rule = Some(word),
                _ => return Err(self.wrong()),
            }
            self.need(b':')?;
        }
        self.need(b'=')?;
        let attribute = Some(attribute).filter(|attribute| !attribute.is_empty());
        if attribute.is_none() && rule.is_none() {
            return Err(self.wrong());
        }
        Ok(Filter::Extensible { rule, attribute, value: self.value()?, of_dn })
    }

    /// Up to the next parenthesis or star; `\2a` stands for a byte.
    fn value(&mut self) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        while let Some(byte) = self.peek().filter(|byte| !b"()*\0".contains(byte)) {
            self.at += 1;
            if byte != b'\\' {
                value.push(byte);
                continue;
            }
            let digits = self.text.get(self.at..self.at + 2).and_then(|two| std::str::from_utf8(two).ok());
            let byte = digits.filter(|two| two.bytes().all(|d| d.is_ascii_hexdigit()));
            let byte = byte.and_then(|two| u8::from_str_radix(two, 16).ok()).ok_or_else(|| self.wrong())?;
            value.push(byte);
            self.at += 2;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn equal(attribute: &str, value: &[u8]) -> Filter {
        Filter::Equal(attribute.into(), value.into())
    }

    #[test]
    fn reads_what_operators_write() {
        let check = |text: &str, filter: Filter| assert_eq!(Filter::parse(text).unwrap(), filter, "{text}");
        check("(cn=Ada)", equal("cn", b"Ada"));
        check("(cn=)", equal("cn", b""));
        check("(cn=*)", Filter::Present("cn".into()));
        check("(cn=\\2a\\28x)", equal("cn", b"*(x"));
        check("(&)", Filter::And(vec![]));
        check(
            "(&(objectClass=person)(!(uid=a*)))",
            Filter::And(vec![
                equal("objectClass", b"person"),
                Filter::Not(Box::new(Filter::Substrings("uid".into(), Some(b"a".into()), vec![], None))),
            ]),
        );
        check("(cn=a*b*c)", Filter::Substrings("cn".into(), Some(b"a".into()), vec![b"b".into()], Some(b"c".into())));
        check("(n>=5)", Filter::GreaterOrEqual("n".into(), b"5".into()));
        check("(n~=x)", Filter::Approximately("n".into(), b"x".into()));
        let value = b"cn=g,dc=x".to_vec();
        check(
            "(memberOf:1.2.840.113556.1.4.1941:=cn=g,dc=x)",
            Filter::Extensible {
                rule: Some("1.2.840.113556.1.4.1941".into()),
                attribute: Some("memberOf".into()),
                value,
                of_dn: false,
            },
        );
        check(
            "(:dn:2.4.6:=x)",
            Filter::Extensible { rule: Some("2.4.6".into()), attribute: None, value: b"x".into(), of_dn: true },
        );
    }

    #[test]
    fn refuses_what_is_no_filter() {
        for text in [
            "",
            "cn=x",
            "(cn=x",
            "(cn=x))",
            "(=x)",
            "(cn)",
            "(cn=\\2)",
            "(cn=\\+1)",
            "(!)",
            "(cn:=)x",
            "(:=x)",
            "(cn=a(b)",
        ] {
            assert!(matches!(Filter::parse(text), Err(Error::Filter(_))), "{text}");
        }
        let deep = |n: usize| "(!".repeat(n) + "(a=b)" + &")".repeat(n);
        assert!(Filter::parse(&deep(DEPTH - 1)).is_ok());
        assert!(Filter::parse(&deep(DEPTH)).is_err());
        assert!(Filter::parse(&deep(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn a_value_is_never_structure(value: String) {
            let mut writer = Writer::default();
            Filter::equal("uid", &value).write(&mut writer);
            let mut inner = crate::ber::Reader(&writer.0).within(0xa3).unwrap();
            prop_assert_eq!(inner.expect(OCTETS).unwrap(), b"uid");
            prop_assert_eq!(inner.expect(OCTETS).unwrap(), value.as_bytes());
            prop_assert!(inner.is_empty());
        }

        #[test]
        fn no_text_ends_the_program(text in "[()&|!=*:\\\\a-c0-9é]{0,40}") {
            let _ = Filter::parse(&text);
        }
    }
}
