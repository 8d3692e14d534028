//! The compound attributes of a port's body: checked and normalised.

use super::{AddressPair, DhcpOption, Wanted};
use crate::attr::{self, Input, entries, only, shown};
use base::SubnetId;
use serde_json::{Value, json};

/// Neutron's own limit.
const PAIRS: usize = 10;
const OPTIONS: usize = 64;

pub fn mac_or_null(value: Value) -> Result<Value, String> {
    if value.is_null() { Ok(value) } else { attr::mac(&value).map(Value::String) }
}

/// `[{"subnet_id": …, "ip_address": …}]`, either of them.
pub fn fixed_ips(value: Value) -> Result<Value, String> {
    let mut seen = Vec::new();
    let list = entries(value, |map| {
        only(&map, &["subnet_id", "ip_address"])?;
        let mut fixed = serde_json::Map::new();
        if let Some(address) = map.get("ip_address").filter(|value| !value.is_null()) {
            fixed.insert("ip_address".into(), json!(attr::ip(address)?));
        }
        if let Some(subnet) = map.get("subnet_id").filter(|value| !value.is_null()) {
            match subnet.as_str() {
                Some(text) if base::is_uuid(text) => fixed.insert("subnet_id".into(), subnet.clone()),
                _ => return Err(format!("'{}' is not a valid UUID", shown(subnet))),
            };
        }
        if fixed.is_empty() {
            return Err("an entry of fixed_ips needs a subnet_id or an ip_address".into());
        }
        Ok(Value::Object(fixed))
    })?;
    for fixed in list.as_array().into_iter().flatten() {
        let address = fixed.get("ip_address");
        if address.is_some() && seen.contains(&address) {
            return Err(format!("Duplicate IP address '{}'", address.map(shown).unwrap_or_default()));
        }
        seen.push(address);
    }
    Ok(list)
}

pub fn wanted(input: &Input) -> Option<Vec<Wanted>> {
    let list = input.list("fixed_ips")?;
    let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(list.iter().map(|item| Wanted {
        subnet: text(item, "subnet_id").map(SubnetId::new),
        address: text(item, "ip_address").and_then(|text| text.parse().ok()),
    }).collect())
}

/// `[{"ip_address": address or network, "mac_address": …}]`.
pub fn address_pairs(value: Value) -> Result<Value, String> {
    let mut seen = Vec::new();
    let list = entries(value, |map| {
        only(&map, &["ip_address", "mac_address"])?;
        let Some(ip) = map.get("ip_address").filter(|value| !value.is_null()) else {
            return Err("AllowedAddressPair must contain ip_address".into());
        };
        if attr::ip(ip).is_err() {
            attr::cidr(ip)?;
        }
        let mut pair = serde_json::Map::from_iter([("ip_address".to_owned(), ip.clone())]);
        if let Some(mac) = map.get("mac_address").filter(|value| !value.is_null()) {
            pair.insert("mac_address".into(), attr::mac(mac)?.into());
        }
        Ok(Value::Object(pair))
    })?;
    let pairs = list.as_array().map_or(0, Vec::len);
    if pairs > PAIRS {
        return Err(format!("The number of allowed address pair exceeds the maximum {PAIRS}"));
    }
    for pair in list.as_array().into_iter().flatten() {
        if seen.contains(&pair) {
            return Err(format!("Request contains duplicate address pair: {}", shown(pair)));
        }
        seen.push(pair);
    }
    Ok(list)
}

pub fn pairs(input: &Input) -> Option<Vec<AddressPair>> {
    if input.is_null("allowed_address_pairs") {
        return Some(vec![]);
    }
    let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
    let list = input.list("allowed_address_pairs")?;
    Some(list.iter().filter_map(|item| Some(AddressPair { mac: text(item, "mac_address"), ip: text(item, "ip_address")? })).collect())
}

/// `[{"opt_name": …, "opt_value": …, "ip_version": 4}]`; a null value removes the option in an update.
pub fn dhcp_options(value: Value) -> Result<Value, String> {
    let list = entries(value, |map| {
        only(&map, &["opt_name", "opt_value", "ip_version"])?;
        let text = |name: &str| match map.get(name) {
            Some(Value::String(text)) if !text.trim().is_empty() && text.chars().count() <= 255 && !text.contains(['\0', '\n', '\r']) => Ok(text.clone()),
            other => Err(format!("'{}' is not a valid {name}", other.map(shown).unwrap_or_default())),
        };
        let version = match map.get("ip_version") {
            None => 4,
            Some(version) => match version.as_i64().or_else(|| version.as_str()?.parse().ok()) {
                Some(version @ (4 | 6)) => version,
                _ => return Err(format!("'{}' is not in [4, 6]", shown(version))),
            },
        };
        let value = match map.get("opt_value") {
            Some(Value::Null) => Value::Null,
            _ => text("opt_value")?.into(),
        };
        Ok(json!({"opt_name": text("opt_name")?, "opt_value": value, "ip_version": version}))
    })?;
    if list.as_array().is_some_and(|list| list.len() > OPTIONS) {
        return Err(format!("at most {OPTIONS} DHCP options can be set"));
    }
    Ok(list)
}

/// Lays the options of a body over those that a port has.
pub fn merge_options(options: &mut Vec<DhcpOption>, input: &Input) {
    for item in input.list("extra_dhcp_opts").into_iter().flatten() {
        let name = item.get("opt_name").and_then(Value::as_str).unwrap_or("");
        let version = item.get("ip_version").and_then(Value::as_u64).unwrap_or(4) as u8;
        options.retain(|known| known.opt_name != name || known.ip_version != version);
        if let Some(value) = item.get("opt_value").and_then(Value::as_str) {
            options.push(DhcpOption { opt_name: name.to_owned(), opt_value: value.to_owned(), ip_version: version });
        }
    }
}
