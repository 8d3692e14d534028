//! The paths of access rules: `{name}` and `*` stand for one or more characters without a slash, `**` for anything.

use std::iter::Peekable;
use std::str::Chars;

#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Char(char),
    /// One character or more, none of them a slash.
    Segment,
    /// Any number of any characters.
    Any,
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        pieces.push(match next {
            '*' if rest.next_if_eq(&'*').is_some() => Piece::Any,
            '*' => Piece::Segment,
            '{' if closed(&rest) => {
                rest.by_ref().find(|next| *next == '}');
                Piece::Segment
            }
            other => Piece::Char(other),
        });
    }
    pieces
}

fn closed(rest: &Peekable<Chars>) -> bool {
    rest.clone().any(|next| next == '}')
}

/// True where `pattern` names `path`. Takes at most the product of both lengths, whatever the pattern.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let literal = pattern.find(['*', '{']).unwrap_or(pattern.len());
    if !path.starts_with(&pattern[..literal]) {
        return false;
    }
    let (pattern, path) = (pieces(pattern), path.strip_suffix('/').unwrap_or(path));
    // `at[n]`: the first n pieces fit what has been read.
    let mut at = vec![false; pattern.len() + 1];
    at[0] = true;
    skip(&pattern, &mut at);
    for next in path.chars() {
        let mut then = vec![false; pattern.len() + 1];
        for (n, piece) in pattern.iter().enumerate() {
            match piece {
                Piece::Char(wanted) => then[n + 1] |= at[n] && *wanted == next,
                // What ended this segment may go on with it: `at[n + 1]` was reached by a character of it.
                Piece::Segment => then[n + 1] |= (at[n] || at[n + 1]) && next != '/',
                Piece::Any => then[n + 1] |= at[n] || at[n + 1],
            }
        }
        skip(&pattern, &mut then);
        at = then;
    }
    at[pattern.len()]
}

/// `**` also stands for nothing.
fn skip(pattern: &[Piece], at: &mut [bool]) {
    for (n, piece) in pattern.iter().enumerate() {
        if *piece == Piece::Any && at[n] {
            at[n + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_stand_for_a_segment_or_for_anything() {
        for (pattern, path, expected) in [
            ("/v2.1/servers", "/v2.1/servers", true),
            ("/v2.1/servers", "/v2.1/servers/", true),
            ("/v2.1/servers", "/v2x1/servers", false),
            ("/v2.1/servers", "/v2.1/servers/1", false),
            ("/v2.1/servers/*", "/v2.1/servers/1", true),
            ("/v2.1/servers/*", "/v2.1/servers/1/ips", false),
            ("/v2.1/servers/*", "/v2.1/servers/", false),
            ("/v2.1/servers/*/ips", "/v2.1/servers/1/ips", true),
            ("/v2.1/servers/{server_id}/ips", "/v2.1/servers/1/ips", true),
            ("/v2.1/servers/{server_id}/ips", "/v2.1/servers/1/2/ips", false),
            ("/v2.1/{a}{b}", "/v2.1/xy", true),
            ("/v2.1/{a}{b}", "/v2.1/x", false),
            ("/v2.1/{a", "/v2.1/{a", true),
            ("/v2.1/**", "/v2.1/servers/1/ips", true),
            ("/v2.1/**", "/v2.1/", false),
            ("/v2.1**", "/v2.1", true),
            ("**", "/", true),
            ("/**/ips", "/v2.1/servers/1/ips", true),
            ("/**/ips", "/v2.1/servers/1/ip", false),
            ("/a*b", "/axxb", true),
            ("/a*b", "/ab", false),
            ("/é*", "/éa", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
