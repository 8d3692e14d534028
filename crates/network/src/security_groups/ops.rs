//! Making, changing and removing groups.

use super::{DEFAULT, SecurityGroup, SecurityGroupRule, default};
use crate::attr::Input;
use crate::error;
use crate::ports::Port;
use crate::project::touch;
use crate::resource::bump;
use crate::standard::{Ctx, Look, Standard, charge};
use agent_api::ViewKind;
use base::{Result, SecurityGroupId};
use store::Tx;

pub fn create(tx: &mut Tx, _ctx: &Ctx, project: &str, input: &Input) -> Result<SecurityGroup> {
    let name = input.text("name").unwrap_or("");
    default::ensure_default(tx, project)?;
    if name.eq_ignore_ascii_case(DEFAULT) {
        return Err(error::default_exists());
    }
    charge(tx, project, "security_group", 1)?;
    let group = SecurityGroup {
        id: SecurityGroupId::new(tx.uuid()),
        project_id: project.into(),
        name: name.to_owned(),
        stateful: input.boolean("stateful").unwrap_or(true),
        is_default: false,
        standard: Standard::new(tx, input),
    };
    tx.create(&group)?;
    default::starting_rules(tx, &group)?;
    Ok(group)
}

pub fn update(group: &mut SecurityGroup, tx: &mut Tx, _ctx: &Ctx, input: &Input) -> Result<()> {
    if let Some(name) = input.text("name")
        && name != group.name
    {
        if group.is_default {
            return Err(error::cannot_update_default());
        }
        if name.eq_ignore_ascii_case(DEFAULT) {
            return Err(error::default_exists());
        }
        group.name = name.to_owned();
    }
    if let Some(stateful) = input.boolean("stateful") {
        if stateful != group.stateful && in_use(tx, &group.id)? {
            return Err(error::security_group_in_use(&group.id));
        }
        group.stateful = stateful;
    }
    Ok(())
}

fn in_use(tx: &mut Tx, group: &str) -> Result<bool> {
    Ok(tx.first::<Port>("group", group)?.is_some())
}

pub fn delete(group: SecurityGroup, tx: &mut Tx, ctx: &Ctx) -> Result<()> {
    if group.is_default && !ctx.is_admin() {
        return Err(error::cannot_remove_default());
    }
    if in_use(tx, &group.id)? {
        return Err(error::security_group_in_use(&group.id));
    }
    // Rules of other groups that name this one as their remote go with it, as in Neutron.
    let own: Vec<SecurityGroupRule> = tx.by("group", &group.id)?;
    let naming: Vec<SecurityGroupRule> = tx.by("remote", &group.id)?;
    for rule in own.into_iter().chain(naming) {
        if tx.doc::<SecurityGroupRule>(&rule.id)?.is_none() {
            continue;
        }
        if rule.charged {
            charge(tx, &rule.project_id, "security_group_rule", -1)?;
        }
        tx.delete::<SecurityGroupRule>(&rule.id)?;
        if rule.group_id != group.id {
            bump::<SecurityGroup>(tx, &rule.group_id)?;
        }
    }
    if !group.is_default {
        charge(tx, &group.project_id, "security_group", -1)?;
    }
    touch(tx, ViewKind::SecurityGroup, &group.id)?;
    touch(tx, ViewKind::AddressSet, &group.id)?;
    tx.delete::<SecurityGroup>(&group.id)?;
    Ok(())
}
