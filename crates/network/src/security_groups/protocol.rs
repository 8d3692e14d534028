//! Protocols of rules: names and numbers, and which may carry ports.

/// Neutron's names. A rule keeps what the user wrote; hosts get the number.
const NAMES: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

/// The number of a protocol by name or by digits. `icmp` in an IPv6 rule is ICMPv6.
pub fn number(text: &str, ipv6: bool) -> Option<u8> {
    let number = match NAMES.iter().find(|known| known.0 == text) {
        Some((_, number)) => *number,
        None => text.parse().ok()?,
    };
    Some(if number == 1 && ipv6 { 58 } else { number })
}

/// `any` and -1 stand for no protocol at all.
pub fn is_any(text: &str) -> bool {
    matches!(text, "any" | "-1" | "")
}

pub fn is_icmp(number: u8) -> bool {
    matches!(number, 1 | 58)
}

pub fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}

/// Protocols that exist only inside IPv6.
pub fn only_ipv6(number: u8) -> bool {
    matches!(number, 41 | 43 | 44 | 58 | 59 | 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, ipv6, expected) in [
            ("tcp", false, Some(6)),
            ("6", false, Some(6)),
            ("icmp", false, Some(1)),
            ("icmp", true, Some(58)),
            ("1", true, Some(58)),
            ("ipv6-icmp", true, Some(58)),
            ("0", false, Some(0)),
            ("255", false, Some(255)),
            ("256", false, None),
            ("-2", false, None),
            ("TCPish", false, None),
        ] {
            assert_eq!(number(text, ipv6), expected, "{text}");
        }
    }
}
