//! The group that every project has.

use super::{DEFAULT, Direction, SecurityGroup, SecurityGroupRule};
use crate::attr::Input;
use crate::standard::{Look, Standard};
use base::{Result, SecurityGroupId, SecurityGroupRuleId};
use store::{Query, Reader, Tx};

/// The project's default group, made with its rules where it is missing.
pub fn ensure_default(tx: &mut Tx, project: &str) -> Result<SecurityGroupId> {
    if let Some(group) = tx.get_unique::<SecurityGroup>("default", [project])? {
        return Ok(group.doc.id);
    }
    let mut standard = Standard::new(tx, &Input::default());
    standard.description = "Default security group".into();
    let group = SecurityGroup {
        id: SecurityGroupId::new(tx.uuid()),
        project_id: project.into(),
        name: DEFAULT.into(),
        stateful: true,
        is_default: true,
        standard,
    };
    tx.create(&group)?;
    starting_rules(tx, &group)?;
    Ok(group.id)
}

/// Everything out; into the default group also what comes from its own members.
pub fn starting_rules(tx: &mut Tx, group: &SecurityGroup) -> Result<()> {
    for ipv6 in [false, true] {
        let rule = SecurityGroupRule {
            id: SecurityGroupRuleId::new(tx.uuid()),
            project_id: group.project_id.clone(),
            group_id: group.id.clone(),
            direction: Direction::Egress,
            ipv6,
            protocol: None,
            port_min: None,
            port_max: None,
            remote_group: None,
            remote_prefix: None,
            charged: false,
            standard: Standard::new(tx, &Input::default()),
        };
        tx.create(&rule)?;
        if group.is_default {
            let id = SecurityGroupRuleId::new(tx.uuid());
            tx.create(&SecurityGroupRule { id, direction: Direction::Ingress, remote_group: Some(group.id.clone()), ..rule })?;
        }
    }
    Ok(())
}

/// A group of a project by what a user calls it. More than one of a name: none is meant.
pub fn find_by_name_or_id(reader: &mut Reader, project: &str, text: &str) -> Result<Option<SecurityGroup>> {
    if let Some(group) = reader.doc::<SecurityGroup>(text)?.filter(|group| group.project_id.as_str() == project) {
        return Ok(Some(group));
    }
    let groups: Vec<SecurityGroup> = reader.docs(Query::project(project))?;
    let mut named = groups.into_iter().filter(|group| group.name == text);
    match (named.next(), named.next()) {
        (Some(only), None) => Ok(Some(only)),
        (Some(_), Some(_)) => Err(base::Fault::conflict(format!(
            "Multiple security groups found matching '{text}'. Use an ID to be more specific."
        )).named("NoUniqueMatch")),
        _ => Ok(None),
    }
}
