//! The words of a dump.

use anyhow::{Context, Result, bail};

/// The longest line. Dumps have packets of 16 MiB unless told else.
pub(super) const LINE_BYTES: usize = 32 << 20;
/// The longest value and the longest name.
const VALUE_BYTES: usize = 4 << 20;
const NAME_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// In backticks.
    Name(String),
    /// In quotes.
    Text(Vec<u8>),
    /// In hexadecimal digits.
    Bytes(Vec<u8>),
    Number(&'a str),
    Mark(u8),
    End,
}

impl Token<'_> {
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    /// For a message: short, and without what may be secret.
    pub fn shown(&self) -> String {
        match self {
            Token::Word(word) => format!("'{}'", word.chars().take(40).collect::<String>()),
            Token::Name(name) => format!("`{}`", name.chars().take(64).collect::<String>()),
            Token::Text(_) | Token::Bytes(_) => "a text".into(),
            Token::Number(_) => "a number".into(),
            Token::Mark(mark) => format!("'{}'", char::from(*mark)),
            Token::End => "the end of the file".into(),
        }
    }
}

pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    pub line: usize,
    /// Where the line begins.
    began: usize,
    /// Within `/*! … */`, whose content a server runs.
    hinted: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer { text, at: 0, line: 1, began: 0, hinted: false }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn starts(&self, with: &str) -> bool {
        self.text[self.at..].starts_with(with.as_bytes())
    }

    /// One byte on.
    fn step(&mut self) -> Result<()> {
        if self.peek(0) == Some(b'\n') {
            self.line += 1;
            self.began = self.at + 1;
        } else if self.at - self.began >= LINE_BYTES {
            bail!("it has more than {LINE_BYTES} bytes");
        }
        self.at += 1;
        Ok(())
    }

    fn skip(&mut self, bytes: usize) -> Result<()> {
        (0..bytes).try_for_each(|_| self.step())
    }

    /// To the end of a comment.
    fn comment(&mut self, end: &str) -> Result<()> {
        while self.at < self.text.len() {
            if self.starts(end) {
                return self.skip(end.len());
            }
            self.step()?;
        }
        if end == "\n" { Ok(()) } else { bail!("a comment does not end") }
    }

    /// Past blanks and comments. What stands in a comment for servers of some version is read as they would.
    fn blanks(&mut self) -> Result<()> {
        while let Some(byte) = self.peek(0) {
            let dashes = self.starts("--") && self.peek(2).is_none_or(|next| next.is_ascii_whitespace());
            if byte.is_ascii_whitespace() {
                self.step()?;
            } else if dashes || byte == b'#' {
                self.comment("\n")?;
            } else if self.hinted && self.starts("*/") {
                self.skip(2)?;
                self.hinted = false;
            } else if self.starts("/*!") || self.starts("/*M!") {
                self.hint()?;
            } else if self.starts("/*") {
                self.skip(2)?;
                self.comment("*/")?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `/*!40101 … */`, `/*M!100401 … */`. No server has the version 999999, which marks what clients alone read.
    fn hint(&mut self) -> Result<()> {
        if self.hinted {
            bail!("a comment for servers stands within another");
        }
        self.skip(if self.starts("/*M!") { 4 } else { 3 })?;
        let from = self.at;
        while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.step()?;
        }
        if &self.text[from..self.at] == b"999999" {
            return self.comment("*/");
        }
        self.hinted = true;
        Ok(())
    }

    pub fn next(&mut self) -> Result<Token<'a>> {
        self.blanks()?;
        let Some(byte) = self.peek(0) else {
            return if self.hinted { bail!("a comment for servers does not end") } else { Ok(Token::End) };
        };
        let digit = |ahead| self.peek(ahead).is_some_and(|next| next.is_ascii_digit());
        match byte {
            b'`' => self.name(),
            b'\'' | b'"' => Ok(Token::Text(self.quoted(byte)?)),
            b'0' if matches!(self.peek(1), Some(b'x' | b'X')) => {
                self.skip(2)?;
                let digits = self.run(|byte| byte.is_ascii_alphanumeric())?;
                Ok(Token::Bytes(unhex(digits)?))
            }
            b'-' | b'+' | b'.' if digit(1) || byte != b'.' && self.peek(1) == Some(b'.') && digit(2) => self.number(),
            b'0'..=b'9' => self.number(),
            b'x' | b'X' if self.peek(1) == Some(b'\'') => {
                self.step()?;
                let digits = self.quoted(b'\'')?;
                Ok(Token::Bytes(unhex(&digits)?))
            }
            b'_' | b'@' | b'$' | b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => {
                let word = self.run(|byte| byte.is_ascii_alphanumeric() || b"_@$".contains(&byte) || byte >= 0x80)?;
                Ok(Token::Word(std::str::from_utf8(word).context("a word is not UTF-8")?))
            }
            b'!'..=b'~' => {
                self.step()?;
                Ok(Token::Mark(byte))
            }
            _ => bail!("the byte 0x{byte:02x} stands outside of a text"),
        }
    }

    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> Result<&'a [u8]> {
        let from = self.at;
        while self.peek(0).is_some_and(&belongs) {
            self.step()?;
            if self.at - from > VALUE_BYTES {
                bail!("a value has more than {VALUE_BYTES} bytes");
            }
        }
        Ok(&self.text[from..self.at])
    }

    fn number(&mut self) -> Result<Token<'a>> {
        let from = self.at;
        self.step()?;
        loop {
            match self.peek(0) {
                Some(b'-' | b'+') if matches!(self.text[self.at - 1], b'e' | b'E') => self.step()?,
                Some(byte) if byte.is_ascii_alphanumeric() || byte == b'.' => self.step()?,
                _ => break,
            }
            if self.at - from > NAME_BYTES {
                bail!("a number has more than {NAME_BYTES} digits");
            }
        }
        Ok(Token::Number(std::str::from_utf8(&self.text[from..self.at])?))
    }

    fn name(&mut self) -> Result<Token<'a>> {
        let mut name = Vec::new();
        self.step()?;
        loop {
            match self.peek(0) {
                Some(b'`') if self.peek(1) == Some(b'`') => {
                    name.push(b'`');
                    self.skip(2)?;
                }
                Some(b'`') => {
                    self.step()?;
                    return Ok(Token::Name(String::from_utf8(name).context("a name is not UTF-8")?));
                }
                Some(byte) if byte != 0 && name.len() < NAME_BYTES => {
                    name.push(byte);
                    self.step()?;
                }
                _ => bail!("a name does not end, or has more than {NAME_BYTES} bytes"),
            }
        }
    }

    /// A text with MariaDB's escapes.
    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        let line = self.line;
        self.step()?;
        loop {
            let Some(byte) = self.peek(0) else { bail!("the text that begins in line {line} does not end") };
            if value.len() >= VALUE_BYTES {
                bail!("a value has more than {VALUE_BYTES} bytes");
            }
            self.step()?;
            match byte {
                b'\\' => {
                    let Some(escaped) = self.peek(0) else { continue };
                    self.step()?;
                    value.extend_from_slice(match &escaped {
                        b'0' => b"\0",
                        b'b' => b"\x08",
                        b'n' => b"\n",
                        b'r' => b"\r",
                        b't' => b"\t",
                        b'Z' => b"\x1a",
                        // For patterns, where the backslash has a meaning of its own.
                        b'%' => br"\%",
                        b'_' => br"\_",
                        other => std::slice::from_ref(other),
                    });
                }
                _ if byte != quote => value.push(byte),
                _ if self.peek(0) == Some(quote) => {
                    value.push(quote);
                    self.step()?;
                }
                _ => return Ok(value),
            }
        }
    }
}

fn unhex(digits: &[u8]) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits
        .chunks(2)
        .map(pair)
        .collect::<Option<_>>()
        .context("a value in hexadecimal digits has others, or half a byte")
}
