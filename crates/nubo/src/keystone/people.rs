//! Projects, users, groups and roles, and who has which where.

use super::tables::{ROOT, Tables, date, extra, flag, moment, some, text, words};
use anyhow::{Result, bail};
use base::Timestamp;
use identity::documents::*;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn projects(tables: &Tables) -> Result<Vec<Project>> {
    let mut tags: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (project, tag) in tables.rows("SELECT project_id, name FROM project_tag", |r| Ok((text(r, 0)?, text(r, 1)?)))? {
        tags.entry(project).or_default().insert(tag);
    }
    let mut options = tables.options("project_option", "project_id")?;
    let sql = "SELECT id, name, domain_id, parent_id, is_domain, enabled, description, extra FROM project ORDER BY id";
    let found = tables.rows(sql, |row| {
        let id = text(row, 0)?;
        let is_domain = flag(row, 4)?;
        Ok(Project {
            name: text(row, 1)?,
            domain_id: some(row, 2)?.filter(|_| !is_domain).map(Into::into),
            parent_id: some(row, 3)?.filter(|_| !is_domain).map(Into::into),
            is_domain,
            enabled: flag(row, 5)?,
            description: words(row, 6)?,
            tags: tags.remove(&id).unwrap_or_default(),
            options: options.remove(&id).unwrap_or_default(),
            extra: extra(row, 7)?,
            id: id.into(),
        })
    })?;
    // Parents first.
    let mut waiting: Vec<Project> = found.into_iter().filter(|project| project.id.as_str() != ROOT).collect();
    let (mut ordered, mut known): (Vec<Project>, BTreeSet<String>) = Default::default();
    loop {
        let before = ordered.len();
        let ready = |project: &Project| project.parent_id.as_deref().is_none_or(|parent| known.contains(parent));
        let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(ready);
        known.extend(now.iter().map(|project| project.id.to_string()));
        ordered.extend(now);
        waiting = later;
        if ordered.len() == before {
            tables.leave("project without the one above it", waiting.len());
            return Ok(ordered);
        }
    }
}

pub(super) fn roles(tables: &Tables) -> Result<Vec<Role>> {
    let mut options = tables.options("role_option", "role_id")?;
    tables.rows("SELECT id, name, domain_id, description, extra FROM role ORDER BY id", |row| {
        let id = text(row, 0)?;
        Ok(Role {
            name: text(row, 1)?,
            domain_id: some(row, 2)?.map(Into::into),
            description: words(row, 3)?,
            options: options.remove(&id).unwrap_or_default(),
            extra: extra(row, 4)?,
            id: id.into(),
        })
    })
}

/// A password of a user: hash, made and expires.
type Password = (String, Option<Timestamp>, Option<Timestamp>);

/// Local users, those of identity providers, and those of directories (LDAP), by the names under which they were last
/// seen.
pub(super) fn users(tables: &Tables) -> Result<Vec<User>> {
    let mut passwords: BTreeMap<String, Vec<Password>> = BTreeMap::new();
    let sql = "SELECT l.user_id, p.password_hash, p.created_at_int, p.expires_at_int FROM password p \
               JOIN local_user l ON l.id = p.local_user_id ORDER BY p.created_at_int DESC, p.id DESC";
    for (user, password) in tables.rows(sql, |r| Ok((text(r, 0)?, (text(r, 1)?, moment(r, 2)?, moment(r, 3)?))))? {
        passwords.entry(user).or_default().push(password);
    }
    let mut federated: BTreeMap<String, Vec<(FederatedId, String)>> = BTreeMap::new();
    let sql = "SELECT user_id, idp_id, protocol_id, unique_id, display_name FROM federated_user ORDER BY id";
    let known = tables.rows(sql, |row| {
        let of = FederatedId { idp_id: text(row, 1)?, protocol_id: text(row, 2)?, unique_id: text(row, 3)? };
        Ok((text(row, 0)?, (of, text(row, 4)?)))
    })?;
    known.into_iter().for_each(|(user, of)| federated.entry(user).or_default().push(of));
    let mut options = tables.options("user_option", "user_id")?;
    let sql = "SELECT u.id, u.domain_id, u.enabled, u.default_project_id, u.extra, l.name \
               FROM user u LEFT JOIN local_user l ON l.user_id = u.id ORDER BY u.id";
    let users = tables.rows(sql, |row| {
        let id = text(row, 0)?;
        let mut of = federated.remove(&id).unwrap_or_default();
        let local = some(row, 5)?;
        let shown = of.first().map(|(_, name)| name.clone());
        let mut hashes = passwords.remove(&id).unwrap_or_default().into_iter();
        let (password, password_changed, password_expires_at) = match hashes.next() {
            Some((hash, made, ends)) => (Some(hash).filter(|hash| !hash.is_empty()), made, ends),
            None => (None, None, None),
        };
        Ok(User {
            shadow: local.is_none(),
            directory: None,
            name: local.or(shown).unwrap_or_default(),
            domain_id: text(row, 1)?.into(),
            enabled: flag(row, 2)?,
            default_project_id: some(row, 3)?.map(Into::into),
            password,
            password_changed,
            password_expires_at,
            password_history: hashes.map(|(hash, ..)| hash).take(23).collect(),
            options: options.remove(&id).unwrap_or_default(),
            extra: extra(row, 4)?,
            federated: of.drain(..).map(|(of, _)| of).collect(),
            id: id.into(),
        })
    })?;
    let (mut known, nameless): (Vec<User>, Vec<User>) = users.into_iter().partition(|user| !user.name.is_empty());
    let here: BTreeSet<String> = known.iter().map(|user| user.id.to_string()).collect();
    let names = tables.rows("SELECT user_id, name FROM nonlocal_user", |row| Ok((text(row, 0)?, text(row, 1)?)))?;
    let mut names: BTreeMap<String, String> = names.into_iter().collect();
    let mut unmapped: BTreeSet<String> = nameless.into_iter().map(|user| user.id.to_string()).collect();
    for (id, domain, of) in mapped(tables, "user")?.into_iter().filter(|(id, ..)| !here.contains(id)) {
        unmapped.remove(&id);
        known.push(User {
            name: names.remove(&id).unwrap_or_else(|| of.local_id.clone()),
            domain_id: domain.into(),
            enabled: true,
            default_project_id: None,
            password: None,
            password_changed: None,
            password_expires_at: None,
            password_history: Vec::new(),
            options: Extra::new(),
            extra: Extra::new(),
            federated: Vec::new(),
            shadow: true,
            directory: Some(of),
            id: id.into(),
        });
    }
    tables.leave("user of a directory (LDAP) that id_mapping does not name", unmapped.len());
    Ok(known)
}

/// Ids of a directory's users or groups, with their domains and what the directory knows them by. None counts before
/// the directory has confirmed it here.
fn mapped(tables: &Tables, kind: &str) -> Result<Vec<(String, String, OfDirectory)>> {
    let sql = "SELECT m.public_id, m.domain_id, m.local_id, m.entity_type, p.id FROM id_mapping m \
               LEFT JOIN project p ON p.id = m.domain_id ORDER BY 1";
    let all = tables.rows(sql, |row| {
        let of = OfDirectory { local_id: text(row, 2)?, gone: true };
        Ok((text(row, 3)?, some(row, 4)?.is_some(), (text(row, 0)?, text(row, 1)?, of)))
    })?;
    let of_kind: Vec<_> = all.into_iter().filter(|(of, ..)| of == kind).collect();
    let (placed, lost): (Vec<_>, Vec<_>) = of_kind.into_iter().partition(|(_, placed, _)| *placed);
    tables.leave("id_mapping of a domain that is not there", lost.len());
    Ok(placed.into_iter().map(|(.., mapping)| mapping).collect())
}

/// How often a user's logins have failed in a row: whoever is locked there stays so here.
pub(super) fn failed_logins(tables: &Tables) -> Result<Vec<FailedLogins>> {
    let sql =
        "SELECT user_id, failed_auth_count, failed_auth_at FROM local_user WHERE failed_auth_count > 0 ORDER BY 1";
    tables.rows(sql, |row| {
        Ok(FailedLogins { id: text(row, 0)?, count: row.get(1)?, last: date(row, 2)?.unwrap_or_default() })
    })
}

pub(super) fn groups(tables: &Tables) -> Result<Vec<Group>> {
    let sql = "SELECT id, name, domain_id, description, extra FROM \"group\" ORDER BY id";
    let mut known = tables.rows(sql, |row| {
        Ok(Group {
            id: text(row, 0)?.into(),
            name: text(row, 1)?,
            domain_id: text(row, 2)?.into(),
            description: words(row, 3)?,
            extra: extra(row, 4)?,
            directory: None,
        })
    })?;
    let here: BTreeSet<String> = known.iter().map(|group| group.id.to_string()).collect();
    for (id, domain, of) in mapped(tables, "group")?.into_iter().filter(|(id, ..)| !here.contains(id)) {
        known.push(Group {
            name: of.local_id.clone(),
            domain_id: domain.into(),
            description: "".into(),
            extra: Extra::new(),
            directory: Some(of),
            id: id.into(),
        });
    }
    Ok(known)
}

/// Those that an identity provider names last as long as the provider says; for good goes before.
pub(super) fn memberships(tables: &Tables) -> Result<Vec<Membership>> {
    let member = |user: String, group: String, lent| {
        let id = Membership::id_of(&user, &group);
        Membership { id, user_id: user.into(), group_id: group.into(), lent }
    };
    let mut all = tables.rows("SELECT user_id, group_id FROM user_group_membership ORDER BY 1, 2", |row| {
        Ok(member(text(row, 0)?, text(row, 1)?, None))
    })?;
    let sql = "SELECT m.user_id, m.group_id, m.idp_id, m.last_verified, p.authorization_ttl \
               FROM expiring_user_group_membership m LEFT JOIN identity_provider p ON p.id = m.idp_id ORDER BY 1, 2, 3";
    let lent = tables.rows(sql, |row| {
        let (seen, minutes) = (date(row, 3)?, row.get::<_, Option<i64>>(4)?.unwrap_or(0));
        let until = seen.filter(|_| minutes > 0).map(|seen| seen.plus_s(minutes.saturating_mul(60)));
        let lent = until.map(|until| Ok::<_, rusqlite::Error>(Lent { idp_id: text(row, 2)?, until })).transpose()?;
        Ok((lent.is_some(), member(text(row, 0)?, text(row, 1)?, lent)))
    })?;
    let (lasting, over): (Vec<_>, Vec<_>) = lent.into_iter().partition(|(lasts, _)| *lasts);
    tables.leave("expiring_user_group_membership without an end", over.len());
    all.extend(lasting.into_iter().map(|(_, member)| member));
    Ok(all)
}

pub(super) fn assignments(tables: &Tables) -> Result<Vec<Assignment>> {
    let sql = "SELECT type, actor_id, target_id, role_id, inherited FROM assignment UNION ALL \
               SELECT type, actor_id, target_id, role_id, inherited FROM system_assignment ORDER BY 1, 2, 3, 4, 5";
    let rows = tables.rows(sql, |r| Ok((text(r, 0)?, text(r, 1)?, text(r, 2)?, text(r, 3)?, flag(r, 4)?)))?;
    let mut all = Vec::new();
    for (kind, actor, target, role, inherited) in rows {
        let actor = match kind.starts_with("User") {
            true => Actor::User(actor.into()),
            false => Actor::Group(actor.into()),
        };
        let place = match kind.trim_start_matches("User").trim_start_matches("Group") {
            "Project" => Place::Project(target.into()),
            "Domain" => Place::Domain(target.into()),
            "System" => Place::System,
            _ => bail!("an assignment is of the kind {kind}, which is not known here"),
        };
        all.push(Assignment::new(actor, place, &role, inherited));
    }
    Ok(all)
}
