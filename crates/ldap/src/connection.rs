//! One connection over a stream that somebody else has opened. One operation at a time; whoever waits for it sets the
//! time limit, and drops the connection when it is over.

use crate::message::{self, Answer, Entry, Outcome};
use crate::{Error, Filter, Result, ber, code};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most bytes of one message: an entry with all that was asked of it.
const MESSAGE_BYTES: usize = 4 << 20;
/// The most bytes of all answers to one search.
const ANSWERS_BYTES: usize = 64 << 20;
/// The most references and pages without an entry that are heard in one search.
const IDLE: usize = 10_000;
/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Base = 0,
    One = 1,
    Sub = 2,
}

/// When an alias is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dereference {
    #[default]
    Never = 0,
    Searching = 1,
    Finding = 2,
    Always = 3,
}

#[derive(Clone, Debug)]
pub struct Search {
    pub base: String,
    pub scope: Scope,
    pub dereference: Dereference,
    pub filter: Filter,
    pub attributes: Vec<String>,
    /// 0: all at once.
    pub page_size: u32,
    /// No more entries than these are taken.
    pub most: usize,
}

#[derive(Debug, Default)]
pub struct Found {
    pub entries: Vec<Entry>,
    /// There are more than were taken, or than the directory gives.
    pub more: bool,
}

pub struct Connection<S> {
    stream: S,
    /// Read, and not yet understood.
    buffer: Vec<u8>,
    last: u32,
    /// An operation was left before its end.
    spent: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    pub fn new(stream: S) -> Connection<S> {
        Connection { stream, buffer: Vec::new(), last: 0, spent: false }
    }

    /// Asks for TLS; the stream is then ready for its handshake.
    pub async fn start_tls(mut self) -> Result<S> {
        let id = self.begin()?;
        self.send(&message::start_tls(id)).await?;
        let Answer::Extended(outcome) = self.answer(id).await?.0 else { return Err(unasked()) };
        succeeded(outcome)?;
        // What came before the handshake was not protected by it.
        if self.buffer.is_empty() { Ok(self.stream) } else { Err(Error::Protocol("more than was asked before TLS")) }
    }

    /// True if the directory takes the password for this name. An empty password is refused here: by the protocol it
    /// is a login of nobody, which nearly every directory takes.
    pub async fn bind(&mut self, dn: &str, password: &str) -> Result<bool> {
        if dn.is_empty() || password.is_empty() {
            return Ok(false);
        }
        let id = self.begin()?;
        self.send(&message::bind(id, dn, password)).await?;
        let Answer::Bind(outcome) = self.answer(id).await?.0 else { return Err(unasked()) };
        self.spent = false;
        match outcome.code {
            code::SUCCESS => Ok(true),
            no if code::NO_LOGIN.contains(&no) => Ok(false),
            _ => Err(refused(outcome)),
        }
    }

    /// What fits. An entry that is searched for and not there is [`Error::Refused`] with `NO_SUCH_OBJECT`.
    pub async fn search(&mut self, search: &Search) -> Result<Found> {
        let (mut found, mut cookie) = (Found::default(), Vec::new());
        let (mut bytes, mut idle) = (0, 0);
        loop {
            let id = self.begin()?;
            self.send(&message::search(id, search, &cookie)).await?;
            loop {
                let (answer, length) = self.answer(id).await?;
                bytes += length;
                if let Answer::Entry(entry) = &answer {
                    bytes += entry.overhead();
                }
                if bytes > ANSWERS_BYTES {
                    return Err(Error::TooMuch("a search brings too many bytes"));
                }
                match answer {
                    Answer::Entry(_) if found.entries.len() >= search.most => {
                        found.more = true;
                        self.abandon(id).await?;
                        return Ok(found);
                    }
                    Answer::Entry(entry) => found.entries.push(entry),
                    Answer::Reference => idle += 1,
                    Answer::Done(outcome, next) => {
                        self.spent = false;
                        found.more = outcome.code == code::SIZE_LIMIT_EXCEEDED;
                        if !found.more {
                            succeeded(outcome)?;
                        }
                        cookie = next;
                        break;
                    }
                    _ => return Err(unasked()),
                }
                if idle > IDLE {
                    return Err(Error::TooMuch("a search brings nothing but references"));
                }
            }
            idle += 1;
            if cookie.is_empty() || found.more {
                return Ok(found);
            }
        }
    }

    /// Says goodbye; the stream is closed when this is dropped.
    pub async fn unbind(&mut self) {
        if let Ok(id) = self.begin() {
            let _ = self.send(&message::unbind(id)).await;
        }
    }

    /// Asks for no more of an answer; what is on its way is passed over by the next operation.
    async fn abandon(&mut self, operation: u32) -> Result<()> {
        self.spent = false;
        let id = self.begin()?;
        self.send(&message::abandon(id, operation)).await?;
        self.spent = false;
        Ok(())
    }

    fn begin(&mut self) -> Result<u32> {
        if std::mem::replace(&mut self.spent, true) {
            return Err(Error::Protocol("the connection was left in the middle of an answer"));
        }
        self.last = self.last % (i32::MAX as u32) + 1;
        Ok(self.last)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next message, which must belong to this operation, and its length.
    async fn answer(&mut self, id: u32) -> Result<(Answer, usize)> {
        let (mut passed, mut whole) = (0, self.whole().await?);
        let (mut to, mut answer) = message::read(&self.buffer[..whole])?;
        self.buffer.drain(..whole);
        while (1..id).contains(&to) {
            passed += whole;
            if passed > ANSWERS_BYTES {
                return Err(Error::TooMuch("an answer that was given up goes on"));
            }
            whole = self.whole().await?;
            (to, answer) = message::read(&self.buffer[..whole])?;
            self.buffer.drain(..whole);
        }
        match answer {
            _ if to == id => Ok((answer, whole)),
            // A notice of disconnection.
            Answer::Extended(outcome) if to == 0 => Err(refused(outcome)),
            _ => Err(unasked()),
        }
    }

    /// Reads until the buffer begins with a whole message; its length.
    async fn whole(&mut self) -> Result<usize> {
        loop {
            if let Some((head, length)) = ber::header(&self.buffer)? {
                if self.buffer[0] != ber::SEQUENCE {
                    return Err(Error::Protocol("something that is no message"));
                }
                if length > MESSAGE_BYTES {
                    return Err(Error::TooMuch("a message is too long"));
                }
                if self.buffer.len() >= head + length {
                    return Ok(head + length);
                }
            }
            let known = self.buffer.len();
            self.buffer.resize(known + READ_BYTES, 0);
            let read = self.stream.read(&mut self.buffer[known..]).await;
            self.buffer.truncate(known + read.as_ref().map_or(0, |count| *count));
            if read? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn unasked() -> Error {
    Error::Protocol("an answer to something else")
}

fn refused(outcome: Outcome) -> Error {
    Error::Refused { code: outcome.code, message: outcome.message }
}

fn succeeded(outcome: Outcome) -> Result<()> {
    if outcome.code == code::SUCCESS { Ok(()) } else { Err(refused(outcome)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ber::Writer;

    fn message(id: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut whole = Writer::default();
        whole.within(ber::SEQUENCE, |to| {
            to.number(ber::INTEGER, id);
            fill(to);
        });
        whole.0
    }

    fn ended(id: u32, tag: u8, code: u32) -> Vec<u8> {
        message(id, |to| {
            to.within(tag, |to| {
                to.number(ber::ENUMERATED, code);
                to.bytes(ber::OCTETS, b"");
                to.bytes(ber::OCTETS, b"why");
            })
        })
    }

    fn entry(id: u32, dn: &str) -> Vec<u8> {
        message(id, |to| {
            to.within(0x64, |to| {
                to.bytes(ber::OCTETS, dn.as_bytes());
                to.within(ber::SEQUENCE, |_| {});
            })
        })
    }

    /// A connection to somebody who says this, whatever is asked.
    async fn to(says: Vec<u8>) -> Connection<tokio::io::DuplexStream> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(&says).await.unwrap();
        theirs.shutdown().await.unwrap();
        // What is written here is kept until the end of the test.
        std::mem::forget(theirs);
        Connection::new(ours)
    }

    fn all(most: usize) -> Search {
        Search {
            base: "dc=x".into(),
            scope: Scope::Sub,
            dereference: Dereference::Never,
            filter: Filter::present("uid"),
            attributes: vec!["uid".into()],
            page_size: 0,
            most,
        }
    }

    #[tokio::test]
    async fn passwords_fit_or_do_not_and_an_empty_one_is_never_sent() {
        assert!(to(ended(1, 0x61, 0)).await.bind("cn=a", "x").await.unwrap());
        assert!(!to(ended(1, 0x61, 49)).await.bind("cn=a", "x").await.unwrap());
        let busy = to(ended(1, 0x61, 51)).await.bind("cn=a", "x").await;
        assert!(matches!(busy, Err(Error::Refused { code: 51, .. })), "{busy:?}");
        // This directory would take anybody.
        let mut open = to(ended(1, 0x61, 0)).await;
        assert!(!open.bind("cn=a", "").await.unwrap() && !open.bind("", "x").await.unwrap());
        assert_eq!(open.last, 0, "nothing was sent");
    }

    #[tokio::test]
    async fn a_search_ends_with_its_limit() {
        let says = [entry(1, "uid=a"), entry(1, "uid=b"), ended(1, 0x65, 0)].concat();
        let mut whole = to(says.clone()).await;
        let found = whole.search(&all(2)).await.unwrap();
        assert_eq!((found.entries.len(), found.more), (2, false));
        let mut cut = to(says).await;
        let found = cut.search(&all(1)).await.unwrap();
        assert_eq!((found.entries.len(), found.more), (1, true));
        // What is still on its way of it is no answer to what is asked next: the search is 1, its end is told by 2.
        let says = [entry(1, "uid=a"), entry(1, "uid=b"), ended(1, 0x65, 0), entry(3, "uid=c"), ended(3, 0x65, 0)];
        let mut cut = to(says.concat()).await;
        assert!(cut.search(&all(1)).await.unwrap().more);
        let found = cut.search(&all(1)).await.unwrap();
        assert_eq!((found.entries[0].dn.as_str(), found.more), ("uid=c", false));
        let found = to([entry(1, "uid=a"), ended(1, 0x65, 4)].concat()).await.search(&all(9)).await.unwrap();
        assert_eq!((found.entries.len(), found.more), (1, true), "the directory's own limit");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        let check = async |says: Vec<u8>| to(says).await.search(&all(9)).await.unwrap_err().to_string();
        let mut next = to([ended(1, 0x65, 32), ended(2, 0x65, 0)].concat()).await;
        assert!(matches!(next.search(&all(9)).await, Err(Error::Refused { code: 32, .. })));
        assert!(next.search(&all(9)).await.is_ok(), "an answer that is no goes no further");
        assert!(check(vec![]).await.contains("connection failed"));
        assert!(check(b"HTTP/1.1 400 Bad Request".to_vec()).await.contains("no message"));
        assert!(check(ended(2, 0x65, 0)).await.contains("something else"));
        assert!(check(ended(1, 0x61, 0)).await.contains("something else"));
        assert!(check(ended(0, 0x78, 52)).await.contains("52"), "a notice of disconnection");
        assert!(check(vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]).await.contains("too long"));
        assert!(check(vec![0x30, 0x80]).await.contains("not said"));
        // A program that took this apart by recursion would end.
        let deep = message(1, |to| to.bytes(0x64, &[0x30, 0x80].repeat(100_000)));
        assert!(check(deep).await.contains("no LDAP"));
    }

    #[tokio::test]
    async fn nothing_may_be_said_between_the_answer_and_tls() {
        assert!(to(ended(1, 0x78, 0)).await.start_tls().await.is_ok());
        let injected = [ended(1, 0x78, 0), ended(2, 0x61, 0)].concat();
        assert!(to(injected).await.start_tls().await.is_err());
        assert!(to(ended(1, 0x78, 2)).await.start_tls().await.is_err());
    }
}
