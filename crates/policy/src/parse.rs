//! From the text of a rule to its syntax tree.
//!
//! ```text
//! or    = and { "or" and }          and  = not { "and" not }
//! not   = "not" not | "(" or ")" | check
//! check = "@" | "!" | "rule:" name | "role:" pattern | left ":" pattern
//! ```
//! Words are divided by white space only, and lose leading and trailing parentheses, as oslo.policy does it.

use crate::DEPTH;
use crate::check::{Check, Left, Pattern, Reference};
use crate::credentials::Field;

/// The most bytes of one rule.
const BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    And,
    Or,
    Not,
    Check(&'a str),
}

/// Parses the string form. The error is a clause that tells what is wrong.
pub(crate) fn text(rule: &str) -> Result<Check, String> {
    if rule.len() > BYTES {
        return Err(format!("a rule may have at most {BYTES} bytes"));
    }
    let tokens = tokens(rule);
    if tokens.is_empty() {
        return Ok(Check::Always);
    }
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let check = parser.or(0)?;
    match parser.peek() {
        None => Ok(check),
        Some(token) => Err(format!("{} follows where \"and\" or \"or\" is needed", shown(token))),
    }
}

/// Parses the older list form: the outer list is "or", the inner lists are "and".
pub(crate) fn list(outer: &[Vec<String>]) -> Result<Check, String> {
    if outer.is_empty() {
        return Ok(Check::Always);
    }
    let mut any = Vec::new();
    for inner in outer.iter().filter(|inner| !inner.is_empty()) {
        any.push(joined(inner.iter().map(|one| check(one.trim())).collect::<Result<_, _>>()?, Check::And));
    }
    Ok(if any.is_empty() { Check::Never } else { joined(any, Check::Or) })
}

fn tokens(rule: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for word in rule.split_whitespace() {
        let inner = word.trim_start_matches('(');
        found.extend(std::iter::repeat_n(Token::Open, word.len() - inner.len()));
        let clean = inner.trim_end_matches(')');
        match clean {
            "" => {}
            _ if clean.eq_ignore_ascii_case("and") => found.push(Token::And),
            _ if clean.eq_ignore_ascii_case("or") => found.push(Token::Or),
            _ if clean.eq_ignore_ascii_case("not") => found.push(Token::Not),
            _ => found.push(Token::Check(clean)),
        }
        found.extend(std::iter::repeat_n(Token::Close, inner.len() - clean.len()));
    }
    found
}

fn shown(token: Token) -> String {
    match token {
        Token::Open => "\"(\"".into(),
        Token::Close => "\")\"".into(),
        Token::And => "\"and\"".into(),
        Token::Or => "\"or\"".into(),
        Token::Not => "\"not\"".into(),
        Token::Check(text) => format!("\"{}\"", text.chars().take(80).collect::<String>()),
    }
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, token: Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self, depth: usize) -> Result<Check, String> {
        let mut any = vec![self.and(depth)?];
        while self.take(Token::Or) {
            any.push(self.and(depth)?);
        }
        Ok(joined(any, Check::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Check, String> {
        let mut all = vec![self.not(depth)?];
        while self.take(Token::And) {
            all.push(self.not(depth)?);
        }
        Ok(joined(all, Check::And))
    }

    fn not(&mut self, depth: usize) -> Result<Check, String> {
        if depth > DEPTH {
            return Err(format!("it is nested more than {DEPTH} deep"));
        }
        if self.take(Token::Not) {
            return Ok(Check::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.take(Token::Open) {
            let check = self.or(depth + 1)?;
            return if self.take(Token::Close) { Ok(check) } else { Err("a \"(\" is not closed".into()) };
        }
        match self.peek() {
            Some(Token::Check(text)) => {
                self.at += 1;
                check(text)
            }
            Some(token) => Err(format!("{} stands where a check is needed", shown(token))),
            None => Err("it ends where a check is needed".into()),
        }
    }
}

fn joined(mut checks: Vec<Check>, join: fn(Vec<Check>) -> Check) -> Check {
    if checks.len() == 1 { checks.remove(0) } else { join(checks) }
}

fn check(text: &str) -> Result<Check, String> {
    match text {
        "@" => return Ok(Check::Always),
        "!" => return Ok(Check::Never),
        _ => {}
    }
    let Some((kind, matching)) = text.split_once(':') else {
        return Err(format!("{} is no check: it has no \":\"", shown(Token::Check(text))));
    };
    match kind {
        "rule" => Ok(Check::Rule(Reference::Name(matching.into()))),
        "role" => Ok(Check::Role(pattern(matching)?)),
        "http" | "https" => Err(format!("remote checks ({kind}:) are not supported")),
        _ => Ok(Check::Compare(left(kind)?, pattern(matching)?)),
    }
}

/// A literal as Python writes it, or a fact of the credentials.
fn left(kind: &str) -> Result<Left, String> {
    for quote in ['\'', '"'] {
        let inner = kind.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.contains([quote, '\\'])) {
            return Ok(Left::Literal(inner.into()));
        }
    }
    let number = !kind.is_empty() && kind.len() < 19 && kind.bytes().all(|b| b.is_ascii_digit());
    if matches!(kind, "True" | "False" | "None") || number && (kind == "0" || !kind.starts_with('0')) {
        return Ok(Left::Literal(kind.into()));
    }
    Field::parse(kind)
        .map(Left::Field)
        .ok_or_else(|| format!("nothing in a token is called {}", shown(Token::Check(kind))))
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let named = rest.strip_prefix('(').and_then(|inner| inner.split_once(")s"));
        let Some((name, after)) = named.filter(|(name, _)| !name.contains(['(', ')', '%'])) else {
            return Err(format!("{} has a \"%\" that is not %(name)s", shown(Token::Check(text))));
        };
        if !plain.is_empty() {
            parts.push(Pattern::Text(std::mem::take(&mut plain).into()));
        }
        parts.push(Pattern::Name(name.into()));
        rest = after;
    }
    plain.push_str(rest);
    if parts.is_empty() || !plain.is_empty() {
        parts.push(Pattern::Text(plain.into()));
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Pattern::Mixed(parts) })
}
