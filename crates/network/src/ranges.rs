//! Address arithmetic: ranges, sets of ranges, and the lowest free address.
//!
//! Pure. A set of used addresses is kept as sorted, disjoint, non-touching ranges, so that a /8 with its first thousand
//! addresses taken is one range, and a full subnet is found full at once.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From the first to the last address, both included and of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    pub start: IpAddr,
    pub end: IpAddr,
}

impl Range {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }

    pub fn overlaps(&self, other: &Range) -> bool {
        self.start.is_ipv4() == other.start.is_ipv4() && self.start <= other.end && other.start <= self.end
    }

    /// How many addresses; saturates for what no u128 holds.
    pub fn count(&self) -> u128 {
        number(self.end).saturating_sub(number(self.start)).saturating_add(1)
    }
}

/// As Neutron writes a pool in a sentence.
impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a number in the family of `like`; numbers beyond IPv4 are cut.
pub fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The addresses of a network that a host may have: without network and broadcast address in IPv4 (but all of a /31 or
/// /32), without the subnet-router anycast address in IPv6 (but all of a /127 or /128).
pub fn hosts(net: &IpNet) -> Range {
    let (first, last) = (net.network(), net.broadcast());
    let tiny = net.max_prefix_len() - net.prefix_len() < 2;
    if tiny {
        return Range { start: first, end: last };
    }
    let start = address(number(first) + 1, first);
    let end = if first.is_ipv4() { address(number(last) - 1, first) } else { last };
    Range { start, end }
}

/// A range without one address: nothing, one or two ranges.
pub fn without(range: Range, hole: Option<IpAddr>) -> Vec<Range> {
    let Some(hole) = hole.filter(|hole| range.contains(*hole)) else { return vec![range] };
    let mut parts = Vec::new();
    if range.start < hole {
        parts.push(Range { start: range.start, end: address(number(hole) - 1, hole) });
    }
    if hole < range.end {
        parts.push(Range { start: address(number(hole) + 1, hole), end: range.end });
    }
    parts
}

/// The used addresses of a subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Used(Vec<Range>);

impl Used {
    /// Takes an address; false when it was taken already.
    pub fn take(&mut self, wanted: IpAddr) -> bool {
        let at = self.0.partition_point(|range| range.end < wanted);
        if self.0.get(at).is_some_and(|range| range.contains(wanted)) {
            return false;
        }
        let n = number(wanted);
        let joins_left = at > 0 && number(self.0[at - 1].end).checked_add(1) == Some(n);
        let joins_right = self.0.get(at).is_some_and(|range| n.checked_add(1) == Some(number(range.start)));
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].end = self.0[at].end;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].end = wanted,
            (false, true) => self.0[at].start = wanted,
            (false, false) => self.0.insert(at, Range { start: wanted, end: wanted }),
        }
        true
    }

    /// Gives an address back; false when it was free.
    pub fn free(&mut self, unwanted: IpAddr) -> bool {
        let at = self.0.partition_point(|range| range.end < unwanted);
        let Some(range) = self.0.get(at).copied().filter(|range| range.contains(unwanted)) else { return false };
        self.0.splice(at..=at, without(range, Some(unwanted)));
        true
    }

    /// The lowest address of the pools that is not used.
    pub fn lowest_free(&self, pools: &[Range]) -> Option<IpAddr> {
        let mut pools: Vec<Range> = pools.to_vec();
        pools.sort();
        pools.into_iter().find_map(|pool| {
            let at = self.0.partition_point(|range| range.end < pool.start);
            match self.0.get(at) {
                Some(range) if range.contains(pool.start) => {
                    let next = number(range.end).checked_add(1)?;
                    (next <= number(pool.end)).then(|| address(next, pool.start))
                }
                _ => Some(pool.start),
            }
        })
    }

    /// How many are used, also outside of the pools.
    pub fn count(&self) -> u128 {
        self.0.iter().fold(0, |sum, range| sum.saturating_add(range.count()))
    }

    pub fn count_in(&self, pools: &[Range]) -> u128 {
        let shared = |a: &Range, b: &Range| Range { start: a.start.max(b.start), end: a.end.min(b.end) }.count();
        let pairs = self.0.iter().flat_map(|used| pools.iter().map(move |pool| (used, pool)));
        pairs.filter(|(used, pool)| used.overlaps(pool)).fold(0, |sum, (used, pool)| sum.saturating_add(shared(used, pool)))
    }
}

/// The address that stateless autoconfiguration forms from a MAC (EUI-64).
pub fn eui64(net: &IpNet, mac: &str) -> Option<IpAddr> {
    let octets: Vec<u8> = mac.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    let [a, b, c, d, e, f] = octets.try_into().ok()?;
    let suffix = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let IpAddr::V6(prefix) = net.network() else { return None };
    (net.prefix_len() == 64).then(|| Ipv6Addr::from(u128::from(prefix) | u128::from(suffix)).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(text: &str) -> Range {
        let (start, end) = text.split_once('-').unwrap();
        Range { start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    #[test]
    fn hosts_of_a_network() {
        for (net, expected) in [
            ("10.0.0.0/24", "10.0.0.1-10.0.0.254"),
            ("10.0.0.0/31", "10.0.0.0-10.0.0.1"),
            ("10.0.0.4/32", "10.0.0.4-10.0.0.4"),
            ("10.0.0.0/30", "10.0.0.1-10.0.0.2"),
            ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff"),
            ("0.0.0.0/1", "0.0.0.1-127.255.255.254"),
            ("fd00::/127", "fd00::-fd00::1"),
        ] {
            assert_eq!(hosts(&net.parse().unwrap()), range(expected), "{net}");
        }
    }

    #[test]
    fn a_hole_splits_a_range() {
        let whole = range("10.0.0.1-10.0.0.4");
        let cut = |hole: &str| without(whole, Some(hole.parse().unwrap())).iter().map(Range::to_string).collect::<Vec<_>>();
        assert_eq!(cut("10.0.0.1"), ["10.0.0.2-10.0.0.4"]);
        assert_eq!(cut("10.0.0.3"), ["10.0.0.1-10.0.0.2", "10.0.0.4-10.0.0.4"]);
        assert_eq!(cut("10.0.0.9"), ["10.0.0.1-10.0.0.4"]);
        assert!(without(range("10.0.0.1-10.0.0.1"), Some("10.0.0.1".parse().unwrap())).is_empty());
    }

    #[test]
    fn eui64_is_what_guests_form() {
        let net = "fd00:1::/64".parse().unwrap();
        assert_eq!(eui64(&net, "fa:16:3e:00:00:01").unwrap().to_string(), "fd00:1::f816:3eff:fe00:1");
        assert_eq!(eui64(&"fd00::/80".parse().unwrap(), "fa:16:3e:00:00:01"), None);
    }

    #[test]
    fn a_large_subnet_stays_one_range() {
        let pools = [hosts(&"10.0.0.0/8".parse().unwrap())];
        let mut used = Used::default();
        for _ in 0..5000 {
            let next = used.lowest_free(&pools).unwrap();
            assert!(used.take(next));
        }
        assert_eq!((used.0.len(), used.count()), (1, 5000));
        let v6 = [hosts(&"fd00::/64".parse().unwrap())];
        assert_eq!(Used::default().lowest_free(&v6).unwrap().to_string(), "fd00::1");
    }

    proptest! {
        #[test]
        fn used_addresses_behave_like_a_set(steps in proptest::collection::vec((any::<bool>(), 0u8..40), 0..200)) {
            let (mut used, mut model) = (Used::default(), BTreeSet::new());
            let pool = range("10.0.0.3-10.0.0.36");
            for (take, n) in steps {
                let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
                if take {
                    prop_assert_eq!(used.take(address), model.insert(n));
                } else {
                    prop_assert_eq!(used.free(address), model.remove(&n));
                }
                let lowest = (3u8..=36).find(|n| !model.contains(n)).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)));
                prop_assert_eq!(used.lowest_free(&[pool]), lowest);
                prop_assert_eq!(used.count(), model.len() as u128);
                prop_assert_eq!(used.count_in(&[pool]), model.iter().filter(|n| (3..=36).contains(*n)).count() as u128);
                prop_assert!(used.0.windows(2).all(|pair| number(pair[0].end) + 1 < number(pair[1].start)));
            }
        }
    }
}
