//! Is a subnet possible? Pure checks of network, gateway, pools and modes, with Neutron's answers.

use crate::error;
use crate::ranges::{Range, hosts, without};
use base::Result;
use ipnet::IpNet;
use std::net::IpAddr;

/// Neutron's own limits.
pub const NAMESERVERS: usize = 5;
pub const HOST_ROUTES: usize = 20;

/// What the user said of the gateway.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gateway {
    /// Nothing: the first address.
    Default,
    None,
    At(IpAddr),
}

/// Checks the network itself.
pub fn check_cidr(cidr: &IpNet, version: i64, dhcp: bool) -> Result<()> {
    let family = if cidr.addr().is_ipv4() { 4 } else { 6 };
    if family != version {
        return Err(error::invalid_input(format!("cidr '{cidr}' does not match the ip_version '{version}'")));
    }
    if cidr.prefix_len() == 0 {
        return Err(error::invalid_input("0 is not allowed as CIDR prefix length"));
    }
    if !dhcp {
        return Ok(());
    }
    if cidr.network().is_multicast() {
        return Err(error::invalid_input("Multicast IP subnet is not supported if enable_dhcp is True"));
    }
    if cidr.network().is_loopback() {
        return Err(error::invalid_input("Loopback IP subnet is not supported if enable_dhcp is True"));
    }
    if cidr.max_prefix_len() - cidr.prefix_len() < 2 {
        return Err(error::invalid_input("Subnet has a prefix length that is incompatible with DHCP service enabled"));
    }
    Ok(())
}

/// The gateway that a subnet gets. One outside of the network is the user's own affair, as in Neutron.
pub fn gateway(cidr: &IpNet, asked: Gateway) -> Result<Option<IpAddr>> {
    let at = match asked {
        Gateway::None => return Ok(None),
        Gateway::Default => return Ok(Some(hosts(cidr).start)),
        Gateway::At(at) => at,
    };
    if at.is_ipv4() != cidr.addr().is_ipv4() {
        let version = if cidr.addr().is_ipv4() { 4 } else { 6 };
        return Err(error::invalid_input(format!("gateway_ip '{at}' does not match the ip_version '{version}'")));
    }
    let edge = at.is_ipv4() && (at == cidr.network() || at == cidr.broadcast());
    if cidr.max_prefix_len() - cidr.prefix_len() >= 2 && edge {
        return Err(error::invalid_input("Gateway is not valid on subnet"));
    }
    Ok(Some(at))
}

/// The pools of a subnet: those asked for, checked, or everything but the gateway.
pub fn pools(cidr: &IpNet, gateway: Option<IpAddr>, asked: Option<Vec<Range>>) -> Result<Vec<Range>> {
    let Some(pools) = asked else { return Ok(without(hosts(cidr), gateway)) };
    check_pools(cidr, &pools)?;
    check_gateway_outside(gateway, &pools)?;
    Ok(pools)
}

fn check_pools(cidr: &IpNet, pools: &[Range]) -> Result<()> {
    let usable = hosts(cidr);
    for pool in pools {
        if pool.start.is_ipv4() != pool.end.is_ipv4() || pool.start > pool.end {
            return Err(error::invalid_pool(pool));
        }
        if pool.start.is_ipv4() != cidr.addr().is_ipv4() {
            return Err(error::invalid_pool(pool));
        }
        if !usable.contains(pool.start) || !usable.contains(pool.end) {
            return Err(error::pool_out_of_bounds(pool, cidr));
        }
    }
    let mut sorted = pools.to_vec();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0].overlaps(&pair[1])) {
        Some(pair) => Err(error::overlapping_pools(pair[0], pair[1], cidr)),
        None => Ok(()),
    }
}

/// A gateway in a pool would be given to a guest.
pub fn check_gateway_outside(gateway: Option<IpAddr>, pools: &[Range]) -> Result<()> {
    let Some(gateway) = gateway else { return Ok(()) };
    match pools.iter().find(|pool| pool.contains(gateway)) {
        Some(pool) => Err(error::gateway_in_pool(gateway, pool)),
        None => Ok(()),
    }
}

/// The IPv6 modes that go together.
pub fn check_modes(cidr: &IpNet, dhcp: bool, ra: Option<&str>, address: Option<&str>) -> Result<()> {
    if ra.is_none() && address.is_none() {
        return Ok(());
    }
    if cidr.addr().is_ipv4() {
        return Err(error::invalid_input("ipv6_ra_mode and ipv6_address_mode are not valid when ip_version is 4"));
    }
    if !dhcp {
        return Err(error::invalid_input("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False"));
    }
    if let (Some(ra), Some(address)) = (ra, address)
        && ra != address
    {
        return Err(error::invalid_input(format!(
            "ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. If both attributes are set, they must be the same value"
        )));
    }
    let stateless = |mode: Option<&str>| matches!(mode, Some("slaac" | "dhcpv6-stateless"));
    if (stateless(ra) || stateless(address)) && cidr.prefix_len() != 64 {
        return Err(error::invalid_input(format!(
            "Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn plan(text: &str, asked: Gateway, wanted: Option<&[&str]>) -> String {
        let cidr: IpNet = text.parse().unwrap();
        let version = if cidr.addr().is_ipv4() { 4 } else { 6 };
        let wanted = wanted.map(|list| {
            list.iter().map(|text| text.split_once('-').unwrap()).map(|(a, b)| Range { start: a.parse().unwrap(), end: b.parse().unwrap() }).collect()
        });
        let all = check_cidr(&cidr, version, true).and_then(|()| gateway(&cidr, asked)).and_then(|gateway| {
            pools(&cidr, gateway, wanted).map(|pools| (gateway, pools))
        });
        match all {
            Ok((gateway, pools)) => format!("{gateway:?} {}", pools.iter().map(Range::to_string).collect::<Vec<_>>().join(" ")),
            Err(fault) => format!("{} {}", fault.name.unwrap_or_default(), fault.message),
        }
    }

    #[test]
    fn subnets_are_planned_or_refused() {
        let at = |text: &str| Gateway::At(text.parse().unwrap());
        let mut lines = Vec::new();
        for (cidr, gateway, pools) in [
            ("10.0.0.0/24", Gateway::Default, None),
            ("10.0.0.0/24", Gateway::None, None),
            ("10.0.0.0/24", at("10.0.0.9"), None),
            ("10.0.0.0/24", at("10.0.1.1"), None),
            ("10.0.0.0/24", at("10.0.0.0"), None),
            ("10.0.0.0/24", at("10.0.0.255"), None),
            ("10.0.0.0/24", at("fd00::1"), None),
            ("10.0.0.0/24", Gateway::Default, Some(&["10.0.0.10-10.0.0.20", "10.0.0.30-10.0.0.40"][..])),
            ("10.0.0.0/24", Gateway::Default, Some(&["10.0.0.1-10.0.0.20"])),
            ("10.0.0.0/24", Gateway::Default, Some(&["10.0.0.10-10.0.0.20", "10.0.0.15-10.0.0.40"])),
            ("10.0.0.0/24", Gateway::Default, Some(&["10.0.0.20-10.0.0.10"])),
            ("10.0.0.0/24", Gateway::Default, Some(&["10.0.0.20-10.0.1.10"])),
            ("10.0.0.0/24", Gateway::Default, Some(&["fd00::1-fd00::2"])),
            ("0.0.0.0/0", Gateway::Default, None),
            ("224.0.0.0/24", Gateway::Default, None),
            ("127.0.0.0/8", Gateway::Default, None),
            ("10.0.0.0/31", Gateway::Default, None),
            ("fd00::/64", Gateway::Default, None),
        ] {
            lines.push(format!("{cidr}: {}", plan(cidr, gateway, pools)));
        }
        expect![[r#"
            10.0.0.0/24: Some(10.0.0.1) 10.0.0.2-10.0.0.254
            10.0.0.0/24: None 10.0.0.1-10.0.0.254
            10.0.0.0/24: Some(10.0.0.9) 10.0.0.1-10.0.0.8 10.0.0.10-10.0.0.254
            10.0.0.0/24: Some(10.0.1.1) 10.0.0.1-10.0.0.254
            10.0.0.0/24: InvalidInput Invalid input for operation: Gateway is not valid on subnet.
            10.0.0.0/24: InvalidInput Invalid input for operation: Gateway is not valid on subnet.
            10.0.0.0/24: InvalidInput Invalid input for operation: gateway_ip 'fd00::1' does not match the ip_version '4'.
            10.0.0.0/24: Some(10.0.0.1) 10.0.0.10-10.0.0.20 10.0.0.30-10.0.0.40
            10.0.0.0/24: GatewayConflictWithAllocationPools Gateway ip 10.0.0.1 conflicts with allocation pool 10.0.0.1-10.0.0.20.
            10.0.0.0/24: OverlappingAllocationPools Found overlapping allocation pools: 10.0.0.10-10.0.0.20 10.0.0.15-10.0.0.40 for subnet 10.0.0.0/24.
            10.0.0.0/24: InvalidAllocationPool The allocation pool 10.0.0.20-10.0.0.10 is not valid.
            10.0.0.0/24: OutOfBoundsAllocationPool The allocation pool 10.0.0.20-10.0.1.10 spans beyond the subnet cidr 10.0.0.0/24.
            10.0.0.0/24: InvalidAllocationPool The allocation pool fd00::1-fd00::2 is not valid.
            0.0.0.0/0: InvalidInput Invalid input for operation: 0 is not allowed as CIDR prefix length.
            224.0.0.0/24: InvalidInput Invalid input for operation: Multicast IP subnet is not supported if enable_dhcp is True.
            127.0.0.0/8: InvalidInput Invalid input for operation: Loopback IP subnet is not supported if enable_dhcp is True.
            10.0.0.0/31: InvalidInput Invalid input for operation: Subnet has a prefix length that is incompatible with DHCP service enabled.
            fd00::/64: Some(fd00::1) fd00::2-fd00::ffff:ffff:ffff:ffff"#]]
        .assert_eq(&lines.join("\n"));
    }
}
