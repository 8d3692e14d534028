//! Security group rules.

use super::{SecurityGroup, protocol};
use crate::attr::{self, Attr, Input, Kind};
use crate::project::touch;
use crate::query::ListRequest;
use crate::resource::{Info, Resource, bump, find};
use crate::standard::{Ctx, Look, Standard, charge, object};
use crate::error;
use agent_api::ViewKind;
use base::{Fault, ProjectId, Result, SecurityGroupId, SecurityGroupRuleId};
use ipnet::IpNet;
use policy::Target;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::{Document, Keys, Reader, Tx};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub id: SecurityGroupRuleId,
    pub project_id: ProjectId,
    pub group_id: SecurityGroupId,
    pub direction: Direction,
    pub ipv6: bool,
    /// As the user wrote it: a name, or a number.
    pub protocol: Option<String>,
    /// Ports, or ICMP type and code.
    pub port_min: Option<u16>,
    pub port_max: Option<u16>,
    pub remote_group: Option<SecurityGroupId>,
    pub remote_prefix: Option<RemotePrefix>,
    /// Counts against the project's quota.
    pub charged: bool,
    pub standard: Standard,
}

/// A network as the user wrote it (it may have host bits) and as it is meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemotePrefix {
    pub written: String,
    pub net: IpNet,
}

impl Document for SecurityGroupRule {
    const KIND: &'static str = "security_group_rule";
    const COUNTERS: &'static [&'static str] = crate::undo::COUNTERS;

    fn id(&self) -> &str {
        &self.id
    }

    fn needs(&self, needs: &mut store::Needs) {
        needs.on::<SecurityGroup>(&self.group_id);
        needs.on::<SecurityGroup>(self.remote_group.as_deref().unwrap_or(""));
    }

    fn costs(&self, costs: &mut store::Costs) {
        if self.charged {
            costs.add(&self.project_id, "security_group_rule", 1);
        }
    }

    fn restored(&mut self, now: base::Timestamp, replaced: Option<&Self>) {
        crate::undo::touch_standard(&mut self.standard, now, replaced.map(|it| &it.standard));
    }

    fn undone(tx: &mut Tx, before: Option<&Self>, after: Option<&Self>) -> Result<()> {
        crate::undo::rule(tx, before, after)
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("group", self.group_id.as_str());
        if let Some(remote) = &self.remote_group {
            keys.index("remote", remote.as_str());
        }
        keys.unique("content", self.content());
    }
}

impl SecurityGroupRule {
    /// What makes two rules the same. A network of everything is the same as none.
    fn content(&self) -> [String; 8] {
        let number = |n: Option<u16>| n.map_or(String::new(), |n| n.to_string());
        let prefix = self.remote_prefix.as_ref().filter(|prefix| prefix.net.prefix_len() > 0);
        [
            self.group_id.to_string(),
            format!("{:?}", self.direction),
            self.ethertype().to_owned(),
            self.protocol_number().map_or(String::new(), |n| n.to_string()),
            number(self.port_min),
            number(self.port_max),
            self.remote_group.as_ref().map_or(String::new(), ToString::to_string),
            prefix.map_or(String::new(), |prefix| prefix.net.to_string()),
        ]
    }

    pub fn ethertype(&self) -> &'static str {
        if self.ipv6 { "IPv6" } else { "IPv4" }
    }

    pub fn protocol_number(&self) -> Option<u8> {
        protocol::number(self.protocol.as_deref()?, self.ipv6)
    }

    fn body(&self, in_default: bool) -> Map<String, Value> {
        let prefix = self.remote_prefix.as_ref();
        object(json!({
            "security_group_id": self.group_id,
            "direction": self.direction,
            "ethertype": self.ethertype(),
            "protocol": self.protocol,
            "port_range_min": self.port_min,
            "port_range_max": self.port_max,
            "remote_group_id": self.remote_group,
            "remote_ip_prefix": prefix.map(|prefix| &prefix.written),
            "normalized_cidr": prefix.map(|prefix| prefix.net),
            "remote_address_group_id": null,
            "belongs_to_default_sg": in_default,
        }))
    }

    /// With everything, as it stands inside its group.
    pub fn whole(&self, group: &SecurityGroup) -> Value {
        let mut rule = self.body(group.is_default);
        rule.insert("id".into(), self.id.as_str().into());
        rule.insert("project_id".into(), self.project_id.as_str().into());
        rule.insert("tenant_id".into(), self.project_id.as_str().into());
        self.standard.show(&mut rule);
        Value::Object(rule)
    }
}

const ATTRS: &[Attr] = &[
    Attr::new("security_group_id", Kind::Text(255)).post_only().required(),
    Attr::new("direction", Kind::OneOf(&["ingress", "egress"])).post_only().required(),
    Attr::new("ethertype", Kind::Custom(ethertype)).post_only(),
    Attr::new("protocol", Kind::Custom(protocol_text)).post_only(),
    Attr::new("port_range_min", Kind::Custom(port)).post_only(),
    Attr::new("port_range_max", Kind::Custom(port)).post_only(),
    Attr::new("remote_group_id", Kind::TextOrNull(255)).post_only(),
    Attr::new("remote_ip_prefix", Kind::Custom(prefix)).post_only(),
    Attr::new("remote_address_group_id", Kind::Null).post_only(),
    Attr::fixed("normalized_cidr"),
    Attr::fixed("belongs_to_default_sg"),
];

fn ethertype(value: Value) -> Result<Value, String> {
    match value.as_str() {
        None if value.is_null() => Ok("IPv4".into()),
        Some(text) if text.eq_ignore_ascii_case("ipv4") => Ok("IPv4".into()),
        Some(text) if text.eq_ignore_ascii_case("ipv6") => Ok("IPv6".into()),
        _ => Err(format!("ethertype '{}' is not one of ['IPv4', 'IPv6']", attr::shown(&value))),
    }
}

/// Text or a number; no protocol at all stays null.
fn protocol_text(value: Value) -> Result<Value, String> {
    let text = match &value {
        Value::Null => return Ok(Value::Null),
        Value::String(text) if text.len() <= 40 && !text.contains('\0') => text.to_ascii_lowercase(),
        Value::Number(number) if number.is_i64() => number.to_string(),
        other => return Err(format!("'{}' is not a protocol", attr::shown(other))),
    };
    Ok(if protocol::is_any(&text) { Value::Null } else { text.into() })
}

/// A port, or what stands in its place for ICMP; its bounds depend on the protocol.
fn port(value: Value) -> Result<Value, String> {
    if value.is_null() || value.as_str() == Some("") {
        return Ok(Value::Null);
    }
    match value.as_i64().or_else(|| value.as_str()?.trim().parse().ok()) {
        Some(port @ 0..=65_535) => Ok(port.into()),
        _ => Err(format!("Invalid value for port {}", attr::shown(&value))),
    }
}

/// A network or an address; host bits are allowed and normalised away.
fn prefix(value: Value) -> Result<Value, String> {
    if value.is_null() || value.as_str() == Some("") {
        return Ok(Value::Null);
    }
    read_prefix(value.as_str().unwrap_or("")).map(|_| value.clone()).ok_or_else(|| format!("'{}' is not a valid IP subnet", attr::shown(&value)))
}

fn read_prefix(text: &str) -> Option<RemotePrefix> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        let net = IpNet::from(address);
        return Some(RemotePrefix { written: net.to_string(), net });
    }
    let net: IpNet = text.parse().ok()?;
    Some(RemotePrefix { written: text.to_owned(), net: net.trunc() })
}

impl Resource for SecurityGroupRule {
    const INFO: Info = Info { one: "security_group_rule", many: "security_group_rules", attrs: ATTRS, filters: &[] };

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn standard_mut(&mut self) -> &mut Standard {
        &mut self.standard
    }

    fn not_found(id: &str) -> Fault {
        error::security_group_rule_not_found(id)
    }

    fn show(&self, reader: &mut Reader, _net: &crate::Network) -> Result<Map<String, Value>> {
        let in_default = reader.doc::<SecurityGroup>(&self.group_id)?.is_some_and(|group| group.is_default);
        Ok(self.body(in_default))
    }

    fn target(&self, reader: &mut Reader) -> Result<Target<'static>> {
        let owner = reader.doc::<SecurityGroup>(&self.group_id)?.map_or(String::new(), |group| group.project_id.to_string());
        Ok(Target::project(self.project_id.to_string()).with("security_group:project_id", owner))
    }

    fn create_target(reader: &mut Reader, ctx: &Ctx, project: &str, input: &Input) -> Result<Target<'static>> {
        let (group, _) = find::<SecurityGroup>(reader, ctx, input.text("security_group_id").unwrap_or(""))?;
        Ok(Target::project(project.to_owned()).with("security_group:project_id", group.project_id.to_string()))
    }

    fn index(request: &ListRequest) -> Option<(&'static str, String)> {
        Some(("group", request.one("security_group_id").filter(|id| base::is_uuid(id))?.to_owned()))
    }

    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<SecurityGroupRule> {
        let rule = read(tx, ctx, project, input)?;
        if let Some(known) = tx.get_unique::<SecurityGroupRule>("content", rule.content())? {
            return Err(error::rule_exists(&known.id));
        }
        charge(tx, project, "security_group_rule", 1)?;
        tx.create(&rule)?;
        bump::<SecurityGroup>(tx, &rule.group_id)?;
        Ok(rule)
    }

    /// Only the description, which is common to all.
    fn update(&mut self, _tx: &mut Tx, _ctx: &Ctx, _input: &Input) -> Result<()> {
        Ok(())
    }

    fn delete(self, tx: &mut Tx, _ctx: &Ctx) -> Result<()> {
        if self.charged {
            charge(tx, &self.project_id, "security_group_rule", -1)?;
        }
        if let Some(remote) = &self.remote_group {
            touch(tx, ViewKind::AddressSet, remote)?;
        }
        tx.delete::<SecurityGroupRule>(&self.id)?;
        bump::<SecurityGroup>(tx, &self.group_id)
    }
}

fn read(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<SecurityGroupRule> {
    let group = input.text("security_group_id").unwrap_or("");
    let remote_prefix = input.text("remote_ip_prefix").and_then(read_prefix);
    let remote_group = input.text("remote_group_id");
    if remote_prefix.is_some() && remote_group.is_some() {
        return Err(error::multiple_remotes());
    }
    if let Some(remote) = remote_group {
        find::<SecurityGroup>(tx, ctx, remote)?;
    }
    let ipv6 = input.text("ethertype") == Some("IPv6");
    if let Some(prefix) = &remote_prefix
        && prefix.net.addr().is_ipv6() != ipv6
    {
        return Err(error::prefix_conflict(if ipv6 { "IPv6" } else { "IPv4" }, &prefix.written));
    }
    let (port_min, port_max) = ports(input, ipv6)?;
    Ok(SecurityGroupRule {
        id: SecurityGroupRuleId::new(tx.uuid()),
        project_id: project.into(),
        group_id: group.into(),
        direction: if input.text("direction") == Some("egress") { Direction::Egress } else { Direction::Ingress },
        ipv6,
        protocol: input.text("protocol").map(str::to_owned),
        port_min,
        port_max,
        remote_group: remote_group.map(SecurityGroupId::from),
        remote_prefix,
        charged: true,
        standard: Standard::new(tx, input),
    })
}

/// Ports or ICMP type and code, as far as they suit the protocol.
fn ports(input: &Input, ipv6: bool) -> Result<(Option<u16>, Option<u16>)> {
    let bound = |name: &str| input.int(name).and_then(|n| u16::try_from(n).ok());
    let (min, max) = (bound("port_range_min"), bound("port_range_max"));
    let Some(text) = input.text("protocol") else {
        return if min.is_some() || max.is_some() { Err(error::protocol_required()) } else { Ok((None, None)) };
    };
    let Some(number) = protocol::number(text, ipv6) else { return Err(error::invalid_rule_protocol(text)) };
    if protocol::only_ipv6(number) && !ipv6 {
        return Err(error::ethertype_conflict("IPv4", text));
    }
    if protocol::is_icmp(number) {
        for (value, attribute, field) in [(min, "port_range_min", "type"), (max, "port_range_max", "code")] {
            if let Some(value) = value.filter(|value| *value > 255) {
                return Err(error::invalid_icmp(field, attribute, value));
            }
        }
        return match (min, max) {
            (None, Some(code)) => Err(error::missing_icmp_type(code)),
            pair => Ok(pair),
        };
    }
    if min.is_none() && max.is_none() {
        return Ok((None, None));
    }
    if !protocol::has_ports(number) {
        return Err(error::invalid_protocol_for_port(text));
    }
    match (min, max) {
        (Some(0), _) | (_, Some(0)) if number != 132 => Err(error::invalid_port_value(0)),
        (Some(min), Some(max)) if min <= max => Ok((Some(min), Some(max))),
        _ => Err(error::invalid_port_range()),
    }
}
