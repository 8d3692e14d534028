//! Percent escapes as OAuth and Amazon sign them: everything but letters, digits and `-._~`.

/// Escapes.
pub fn percent(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The text behind the escapes; none for what is no escape or no UTF-8. A plus stays a plus.
pub fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_there_and_back() {
        for text in ["", "a b", "ü/~&=+%", "-._~"] {
            assert_eq!(unescape(&percent(text)).as_deref(), Some(text));
        }
        assert_eq!(percent("a b/~"), "a%20b%2F~");
        for bad in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
