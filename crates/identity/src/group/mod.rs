//! Groups of users. A role that a group has, its members have.

use crate::Identity;
use crate::directory::{self, Listed};
use crate::documents::*;
use crate::fields::Fields;
use crate::listing::{allowed, cut, filtered, forbid, linked, missing, single};
use crate::project::{pairs, remove_where, taken, usual_domain};
use base::Result;
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

const NAME_CHARS: usize = 64;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one, users) = ("/v3/groups", "/v3/groups/{id}", "/v3/groups/{id}/users");
    let member = "/v3/groups/{id}/users/{user_id}";
    routes![identity;
        GET all, "groups:list", "identity:list_groups", 200, list;
        POST all, "groups:create", "identity:create_group", 201, create;
        GET one, "groups:show", "identity:get_group", 200, show;
        PATCH one, "groups:update", "identity:update_group", 200, update;
        DELETE one, "groups:delete", "identity:delete_group", 204, delete;
        GET users, "groups:users", "identity:list_users_in_group", 200, list_users;
        PUT member, "groups:add_user", "identity:add_user_to_group", 204, add_user;
        GET member, "groups:check_user", "identity:check_user_in_group", 204, check_user;
        DELETE member, "groups:remove_user", "identity:remove_user_from_group", 204, remove_user;
    ]
}

pub(crate) fn shown(call: &Call, group: &Group) -> Value {
    let mut object = group.extra.clone();
    object.extend(pairs([
        ("id", json!(group.id)),
        ("name", json!(group.name)),
        ("domain_id", json!(group.domain_id)),
        ("description", group.description.clone()),
    ]));
    linked(call, "groups", object)
}

fn target(group: &Group) -> Target<'static> {
    Target::new()
        .with("target.group.id", group.id.to_string())
        .with("target.group.domain_id", group.domain_id.to_string())
}

fn find(identity: &Identity, id: &str) -> Option<Arc<Group>> {
    let model = identity.model();
    model.groups.get(id).filter(|group| model.group_stands(group)).cloned()
}

/// The group of the path, after the right has been asked for; as its directory has it now, where it has one.
async fn looked_up(identity: &Identity, call: &Call, members: bool) -> Result<Arc<Group>> {
    let id = call.param("id");
    let known = identity.model().groups.get(id).cloned();
    let known = allowed(call, known, "group", |group| target(group))?;
    identity.renew_group(&known, members).await?;
    find(identity, id).ok_or_else(|| missing("group", id))
}

/// The group of the path, after the right to change it has been asked for.
fn to_change(identity: &Identity, call: &Call) -> Result<Arc<Group>> {
    let group = allowed(call, find(identity, call.param("id")), "group", |group| target(group))?;
    match &group.directory {
        Some(_) => Err(directory::read_only(&identity.model(), &group.domain_id)),
        None => Ok(group),
    }
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let scope = call.caller.domain_id();
    forbid(&call, &Target::new().with("target.group.domain_id", scope.as_ref().map(|id| id.to_string())))?;
    let listed = identity.listed_groups(&call).await?;
    let items: Vec<_> = {
        let model = identity.model();
        let mine = |group: &Group| scope.as_ref().is_none_or(|id| group.domain_id == *id);
        let there = |group: &Group| {
            let of = group.directory.as_ref();
            Listed::has(listed.as_ref(), &model, &group.id, &group.domain_id, of)
                && Listed::fits(&call, &group.name, of, &listed)
        };
        model.groups.all().filter(|group| mine(group) && there(group)).map(|group| shown(&call, group)).collect()
    };
    cut(&call, "groups", items, &["domain_id"], listed.is_some_and(|listed| listed.truncated))
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let group = looked_up(&identity, &call, false).await?;
    single(&call, 200, "group", shown(&call, &group))
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let mut fields = Fields::read(&mut call, "group").await?;
    let domain = fields.id("domain_id")?.flatten().unwrap_or_else(|| usual_domain(&call));
    forbid(&call, &Target::new().with("target.group.domain_id", domain.clone()))?;
    directory::writable(&identity.model(), &domain)?;
    let group = Group {
        id: identity.env.uuid_hex().into(),
        name: fields.need_name("name", NAME_CHARS)?,
        domain_id: domain.into(),
        description: fields.description()?.unwrap_or_else(|| "".into()),
        extra: fields.rest()?,
        directory: None,
    };
    let shown = shown(&call, &group);
    let work = move |tx: &mut Tx| {
        let domain = tx.get::<Project>(&group.domain_id)?.filter(|d| d.is_domain);
        domain.ok_or_else(|| missing("domain", &group.domain_id))?;
        taken(tx.create(&group).map(drop), "group", &group.name)
    };
    identity.write(&call, work).await?;
    single(&call, 201, "group", shown)
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = to_change(&identity, &call)?;
    let mut fields = Fields::read(&mut call, "group").await?;
    fields.fixed("id", &json!(known.id))?;
    fields.fixed("domain_id", &json!(known.domain_id))?;
    let (name, description) = (fields.name("name", NAME_CHARS)?, fields.description()?);
    let (id, extra) = (known.id.to_string(), fields.rest()?);
    let work = move |tx: &mut Tx| {
        let mut group = tx.get::<Group>(&id)?.ok_or_else(|| missing("group", &id))?.doc;
        group.name = name.clone().unwrap_or(group.name);
        group.description = description.clone().unwrap_or(group.description);
        group.extra.extend(extra.clone());
        taken(tx.update(&group), "group", &group.name)?;
        Ok(group)
    };
    let group = identity.write(&call, work).await?;
    single(&call, 200, "group", shown(&call, &group))
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let group = to_change(&identity, &call)?;
    let id = group.id.to_string();
    identity.write(&call, move |tx| remove(tx, &id)).await?;
    Ok(Reply::empty(204))
}

/// Deletes a group with its memberships and assignments.
pub(crate) fn remove(tx: &mut Tx, id: &str) -> Result<()> {
    if tx.get::<Group>(id)?.is_none() {
        return Err(missing("group", id));
    }
    remove_where::<Assignment>(tx, "actor", id)?;
    remove_where::<Membership>(tx, "group", id)?;
    tx.delete::<Group>(id)?;
    Ok(())
}

async fn list_users(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let group = looked_up(&identity, &call, true).await?;
    let items: Vec<_> = {
        let model = identity.model();
        model.members_of(&group.id).map(|user| crate::user::shown(&call, user)).collect()
    };
    filtered(&call, "users", items, &["name", "domain_id", "enabled"])
}

/// Group and user of a path, after the right has been asked for.
fn pair(identity: &Identity, call: &Call) -> Result<(Arc<Group>, Arc<User>)> {
    let (group, user) = (find(identity, call.param("id")), crate::user::find(identity, call.param("user_id")));
    let mut wanted = group.as_deref().map_or_else(Target::new, target);
    if let Some(user) = &user {
        wanted = wanted
            .with("target.user.id", user.id.to_string())
            .with("target.user.domain_id", user.domain_id.to_string());
    }
    forbid(call, &wanted)?;
    let group = group.ok_or_else(|| missing("group", call.param("id")))?;
    let user = user.ok_or_else(|| missing("user", call.param("user_id")))?;
    Ok((group, user))
}

/// Their ids, where members may be added and removed here.
fn pair_to_change(identity: &Identity, call: &Call) -> Result<(String, String)> {
    let (group, user) = pair(identity, call)?;
    directory::members_writable(&identity.model(), &group, &user)?;
    Ok((group.id.to_string(), user.id.to_string()))
}

async fn add_user(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (group, user) = pair_to_change(&identity, &call)?;
    let work = move |tx: &mut Tx| {
        tx.need::<Group>(&group)?;
        tx.need::<User>(&user)?;
        let id = Membership::id_of(&user, &group);
        Ok(tx.put(&Membership { id, user_id: user.as_str().into(), group_id: group.as_str().into(), lent: None })?)
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}

fn not_in(user: &str, group: &str) -> base::Fault {
    missing("user in group", &format!("{user} in {group}"))
}

async fn check_user(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (group, user) = pair(&identity, &call)?;
    identity.renew_user(&user).await?;
    let known = identity.model().groups_of(&user.id).any(|of| of == group.id.as_str());
    if known { Ok(Reply::empty(204)) } else { Err(not_in(&user.id, &group.id)) }
}

async fn remove_user(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let (group, user) = pair_to_change(&identity, &call)?;
    let work = move |tx: &mut Tx| {
        let id = Membership::id_of(&user, &group);
        tx.get::<Membership>(&id)?.ok_or_else(|| not_in(&user, &group))?;
        tx.delete::<Membership>(&id)?;
        Ok(())
    };
    identity.write(&call, work).await?;
    Ok(Reply::empty(204))
}
