//! As much of BER (X.690) as LDAP uses: definite lengths, tags of one byte.

use crate::{Error, Result};

pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const OCTETS: u8 = 0x04;
pub const ENUMERATED: u8 = 0x0a;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// Appends values.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        match bytes.len() {
            short @ 0..=127 => self.0.push(short as u8),
            long => {
                let length = (long as u64).to_be_bytes();
                let from = length.iter().position(|byte| *byte != 0).unwrap_or(7);
                self.0.push(0x80 | (8 - from) as u8);
                self.0.extend(&length[from..]);
            }
        }
        self.0.extend(bytes);
    }

    /// An integer or an enumerated value; none is ever negative here.
    pub fn number(&mut self, tag: u8, number: u32) {
        let bytes = u64::from(number).to_be_bytes();
        // A leading byte of 80 and more would make it negative.
        let from = (0..7).find(|at| bytes[*at] != 0 || bytes[at + 1] >= 0x80).unwrap_or(7);
        self.bytes(tag, &bytes[from..]);
    }

    pub fn flag(&mut self, flag: bool) {
        self.bytes(BOOLEAN, &[if flag { 0xff } else { 0 }]);
    }

    pub fn within(&mut self, tag: u8, fill: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.bytes(tag, &inner.0);
    }
}

/// Takes values off one after the other.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value, with its tag.
    pub fn next(&mut self) -> Result<(u8, &'a [u8])> {
        let short = || Error::Protocol("a value ends early");
        let (head, length) = header(self.0)?.ok_or_else(short)?;
        let end = head.checked_add(length).ok_or_else(short)?;
        let value = self.0.get(head..end).ok_or_else(short)?;
        let tag = self.0[0];
        self.0 = &self.0[end..];
        Ok((tag, value))
    }

    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8]> {
        match self.next()? {
            (found, value) if found == tag => Ok(value),
            _ => Err(Error::Protocol("a value is of another type")),
        }
    }

    pub fn within(&mut self, tag: u8) -> Result<Reader<'a>> {
        self.expect(tag).map(Reader)
    }

    /// A number that is not negative and has at most 32 bits.
    pub fn number(&mut self, tag: u8) -> Result<u32> {
        let bytes = self.expect(tag)?;
        let wrong = || Error::Protocol("a number is none, or too large");
        if bytes.first().is_none_or(|first| *first >= 0x80) || bytes.len() > 5 {
            return Err(wrong());
        }
        let number = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        u32::try_from(number).map_err(|_| wrong())
    }

    /// The next value, if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>> {
        if self.0.first() == Some(&tag) { self.expect(tag).map(Some) } else { Ok(None) }
    }
}

/// How many bytes the head of a value has, and how many follow it; none where more must come first.
pub fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let [tag, first, rest @ ..] = bytes else { return Ok(None) };
    if tag & 0x1f == 0x1f {
        return Err(Error::Protocol("a tag of several bytes"));
    }
    match usize::from(*first) {
        short @ 0..=0x7f => Ok(Some((2, short))),
        0x80 => Err(Error::Protocol("a length that is not said")),
        long => {
            let count = long & 0x7f;
            if count > 8 {
                return Err(Error::Protocol("a length of more than eight bytes"));
            }
            let Some(digits) = rest.get(..count) else { return Ok(None) };
            let length = digits.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            let length = usize::try_from(length).map_err(|_| Error::Protocol("a length beyond all memory"))?;
            Ok(Some((2 + count, length)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_as_short_as_they_may_be() {
        for (number, bytes) in [
            (0, &[2, 1, 0][..]),
            (127, &[2, 1, 127]),
            (128, &[2, 2, 0, 128]),
            (u32::MAX, &[2, 5, 0, 255, 255, 255, 255]),
        ] {
            let mut writer = Writer::default();
            writer.number(INTEGER, number);
            assert_eq!(writer.0, bytes);
            assert_eq!(Reader(&writer.0).number(INTEGER).unwrap(), number);
        }
        assert!(Reader(&[2, 1, 0x80]).number(INTEGER).is_err(), "negative");
        assert!(Reader(&[2, 0]).number(INTEGER).is_err(), "empty");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: Vec<u8>, tag in 0u8..0x1f) {
            let mut writer = Writer::default();
            writer.within(SEQUENCE, |inner| inner.bytes(tag, &bytes));
            let mut reader = Reader(&writer.0).within(SEQUENCE).unwrap();
            prop_assert_eq!(reader.next().unwrap(), (tag, &bytes[..]));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn nothing_that_is_read_ends_the_program(bytes: Vec<u8>) {
            let mut reader = Reader(&bytes);
            while !reader.is_empty() && reader.next().is_ok() {}
        }
    }
}
