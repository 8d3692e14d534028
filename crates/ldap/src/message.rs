//! Messages: requests are written, answers are read.

use crate::ber::{ENUMERATED, INTEGER, OCTETS, Reader, SEQUENCE, SET, Writer};
use crate::connection::Search;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// The most attributes of an entry, and values of all of them.
const ATTRIBUTES: usize = 1000;
const VALUES: usize = 100_000;
/// The most bytes of a directory's own words that are kept.
const WORDS_BYTES: usize = 300;
const PAGED: &[u8] = b"1.2.840.113556.1.4.319";
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// What a directory has under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub dn: String,
    /// By names in small letters.
    pub attributes: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Entry {
    /// The values of an attribute that are text, in the order in which they came.
    pub fn texts<'a>(&'a self, attribute: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = self.attributes.get(&attribute.to_lowercase());
        values.into_iter().flatten().filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// What its parts take in memory beside their bytes.
    pub(crate) fn overhead(&self) -> usize {
        self.attributes.values().map(|values| 128 + 64 * values.len()).sum()
    }

    /// Its first value, if that is text.
    pub fn text(&self, attribute: &str) -> Option<&str> {
        let first = self.attributes.get(&attribute.to_lowercase())?.first()?;
        std::str::from_utf8(first).ok()
    }
}

/// The end of an operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub code: u32,
    pub message: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Bind(Outcome),
    Entry(Entry),
    /// Further directories that might know more.
    Reference,
    /// With what brings the next page, if there is one.
    Done(Outcome, Vec<u8>),
    Extended(Outcome),
}

fn message(id: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut whole = Writer::default();
    whole.within(SEQUENCE, |to| {
        to.number(INTEGER, id);
        fill(to);
    });
    whole.0
}

pub fn bind(id: u32, dn: &str, password: &str) -> Vec<u8> {
    message(id, |to| {
        to.within(0x60, |to| {
            to.number(INTEGER, 3);
            to.bytes(OCTETS, dn.as_bytes());
            to.bytes(0x80, password.as_bytes());
        });
    })
}

pub fn unbind(id: u32) -> Vec<u8> {
    message(id, |to| to.bytes(0x42, &[]))
}

/// Nobody waits for the rest of this operation's answer.
pub fn abandon(id: u32, operation: u32) -> Vec<u8> {
    message(id, |to| to.number(0x50, operation))
}

pub fn start_tls(id: u32) -> Vec<u8> {
    message(id, |to| to.within(0x77, |to| to.bytes(0x80, START_TLS)))
}

/// A search; with a page size the page after `cookie`.
pub fn search(id: u32, search: &Search, cookie: &[u8]) -> Vec<u8> {
    message(id, |to| {
        to.within(0x63, |to| {
            to.bytes(OCTETS, search.base.as_bytes());
            to.number(ENUMERATED, search.scope as u32);
            to.number(ENUMERATED, search.dereference as u32);
            to.number(INTEGER, 0);
            to.number(INTEGER, 0);
            to.flag(false);
            search.filter.write(to);
            to.within(SEQUENCE, |to| search.attributes.iter().for_each(|name| to.bytes(OCTETS, name.as_bytes())));
        });
        if search.page_size > 0 {
            let mut page = Writer::default();
            page.within(SEQUENCE, |to| {
                to.number(INTEGER, search.page_size);
                to.bytes(OCTETS, cookie);
            });
            to.within(0xa0, |to| {
                to.within(SEQUENCE, |to| {
                    to.bytes(OCTETS, PAGED);
                    to.bytes(OCTETS, &page.0);
                });
            });
        }
    })
}

/// Number and meaning of one whole message.
pub fn read(bytes: &[u8]) -> Result<(u32, Answer)> {
    let mut message = Reader(bytes).within(SEQUENCE)?;
    let id = message.number(INTEGER)?;
    let (tag, body) = message.next()?;
    let mut body = Reader(body);
    let answer = match tag {
        0x61 => Answer::Bind(outcome(&mut body)?),
        0x64 => Answer::Entry(entry(&mut body)?),
        0x65 => {
            let outcome = outcome(&mut body)?;
            Answer::Done(outcome, cookie(message)?)
        }
        0x73 => Answer::Reference,
        0x78 => Answer::Extended(outcome(&mut body)?),
        _ => return Err(Error::Protocol("an answer of an unknown kind")),
    };
    Ok((id, answer))
}

fn outcome(body: &mut Reader) -> Result<Outcome> {
    let code = body.number(ENUMERATED)?;
    body.expect(OCTETS)?;
    let words = body.expect(OCTETS)?;
    let words = String::from_utf8_lossy(&words[..words.len().min(WORDS_BYTES)]);
    let message = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Ok(Outcome { code, message })
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::Protocol("a name that is no text"))
}

fn entry(body: &mut Reader) -> Result<Entry> {
    let mut entry = Entry { dn: text(body.expect(OCTETS)?)?, ..Entry::default() };
    let mut attributes = body.within(SEQUENCE)?;
    let mut count = 0;
    while !attributes.is_empty() {
        let mut pair = attributes.within(SEQUENCE)?;
        let name = text(pair.expect(OCTETS)?)?.to_lowercase();
        let mut values = pair.within(SET)?;
        let mut all = Vec::new();
        while !values.is_empty() {
            all.push(values.expect(OCTETS)?.to_vec());
            count += 1;
            if count > VALUES {
                return Err(Error::TooMuch("an entry has too many values"));
            }
        }
        entry.attributes.insert(name, all);
        if entry.attributes.len() > ATTRIBUTES {
            return Err(Error::TooMuch("an entry has too many attributes"));
        }
    }
    Ok(entry)
}

/// What brings the next page, of the controls behind an answer.
fn cookie(mut rest: Reader) -> Result<Vec<u8>> {
    let Some(controls) = rest.optional(0xa0)? else { return Ok(Vec::new()) };
    let mut controls = Reader(controls);
    while !controls.is_empty() {
        let mut control = controls.within(SEQUENCE)?;
        if control.expect(OCTETS)? != PAGED {
            continue;
        }
        control.optional(crate::ber::BOOLEAN)?;
        let mut page = Reader(control.expect(OCTETS)?).within(SEQUENCE)?;
        // How many there are is a guess of the directory's.
        page.expect(INTEGER)?;
        return Ok(page.expect(OCTETS)?.to_vec());
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_as_slapd_sends_it() {
        let bytes = [
            &[0x30, 0x2b, 2, 1, 2, 0x64, 0x26][..],
            &[4, 13],
            b"uid=ada,ou=pp",
            &[0x30, 0x15, 0x30, 0x13, 4, 3],
            b"UID",
            &[0x31, 0x0c, 4, 3],
            b"ada",
            &[4, 5],
            b"count",
        ];
        let bytes = bytes.concat();
        let (id, Answer::Entry(entry)) = read(&bytes).unwrap() else { panic!("an entry") };
        assert_eq!((id, entry.dn.as_str()), (2, "uid=ada,ou=pp"));
        assert_eq!(entry.texts("uid").collect::<Vec<_>>(), ["ada", "count"]);
        assert_eq!(entry.text("cn"), None);
    }

    #[test]
    fn the_end_of_a_page_brings_the_next() {
        let page = [&[0x30, 7, 2, 1, 0, 4, 2][..], b"ck"].concat();
        let mut control = vec![0x30, (2 + PAGED.len() + 2 + page.len()) as u8, 4, PAGED.len() as u8];
        control.extend(PAGED);
        control.extend([4, page.len() as u8]);
        control.extend(&page);
        let done = [0x65, 7, 10, 1, 0, 4, 0, 4, 0];
        let mut whole = vec![0x30, (3 + done.len() + 2 + control.len()) as u8, 2, 1, 5];
        whole.extend(done);
        whole.extend([0xa0, control.len() as u8]);
        whole.extend(control);
        let outcome = Outcome { code: 0, message: String::new() };
        assert_eq!(read(&whole).unwrap(), (5, Answer::Done(outcome, b"ck".to_vec())));
    }

    proptest! {
        #[test]
        fn no_bytes_end_the_program(bytes: Vec<u8>, tag in prop::sample::select(vec![0x61u8, 0x64, 0x65, 0x73, 0x78])) {
            let _ = read(&bytes);
            let whole = message(1, |to| to.bytes(tag, &bytes));
            let _ = read(&whole);
        }
    }
}
