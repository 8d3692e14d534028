//! `nubo keystone import`: reads the SQLite database of a Keystone and hands it to the cloud.
//!
//! The file is only read. Users keep their ids, passwords and, with the key repositories, their tokens and credentials.

use crate::keys;
use crate::trash;
use anyhow::{Context, Result, bail};
use base::Timestamp;
use clap::Subcommand;
use identity::documents::*;
use identity::keystone::Dump;
use identity::token::fernet;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What Keystone writes where a domain has no domain.
const ROOT: &str = "<<keystone.domain.root>>";
const NULL: &str = "<<null>>";

#[derive(Subcommand)]
pub enum KeystoneCommand {
    /// Take over users, projects, roles and what hangs on them from the SQLite database of a Keystone
    Import {
        database: PathBuf,
        /// The keys of credentials, which Keystone keeps in /etc/keystone/credential-keys; without it none is taken over
        #[arg(long)]
        credential_keys: Option<PathBuf>,
        /// The keys of tokens, which Keystone keeps in /etc/keystone/fernet-keys, so that its tokens stay good
        #[arg(long)]
        fernet_keys: Option<PathBuf>,
        /// Put this behind names that are taken here, instead of refusing
        #[arg(long, value_name = "SUFFIX", allow_hyphen_values = true)]
        rename: Option<String>,
        /// Say what would be made, and make nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub fn main(settings: &crate::settings::Settings, command: KeystoneCommand) -> Result<ExitCode> {
    let KeystoneCommand::Import { database, credential_keys, fernet_keys, rename, dry_run } = command;
    let secrets = credential_keys.as_deref().map(credential_ring).transpose()?;
    let tokens = fernet_keys.as_deref().map(keys::read).transpose()?;
    let dump = read(&database, secrets.as_deref())?;
    trash::run(settings, async |client, url| {
        let query = if dry_run { "?dry_run=true" } else { "" };
        let body = json!({"dump": dump, "rename_suffix": rename});
        let answer = client.post_url(&format!("{url}/nubo/v1/keystone{query}"), body).await?;
        if dry_run {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        for (kind, count) in answer["made"].as_object().into_iter().flatten() {
            println!("{count:>8} {kind}");
        }
        for pair in answer["renamed"].as_array().into_iter().flatten() {
            println!("renamed: {} is {}", pair[0].as_str().unwrap_or(""), pair[1].as_str().unwrap_or(""));
        }
        if let Some(tokens) = tokens {
            let answer = client.put_url(&format!("{url}/nubo/v1/keys"), json!({ "keys": tokens })).await?;
            println!("{} keys verify tokens now", answer["kept"]);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Keys of credentials, the newest first.
fn credential_ring(directory: &Path) -> Result<Vec<fernet::Key>> {
    let mut listed = keys::read(directory)?;
    listed.sort_by_key(|key| std::cmp::Reverse(key["number"].as_u64()));
    let key = |key: &Value| fernet::Key::parse(key["key"].as_str().unwrap_or_default());
    listed.iter().map(key).collect::<base::Result<_>>().map_err(|fault| anyhow::anyhow!(fault.chain()))
}

struct Tables(Connection);

impl Tables {
    /// Every row of a query, read by `each`.
    fn rows<T>(&self, sql: &str, mut each: impl FnMut(&Row) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        let mut statement = self.0.prepare(sql).with_context(|| format!("this is no database of a Keystone: {sql}"))?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(each(row)?);
        }
        Ok(all)
    }

    /// Options by the thing that has them.
    fn options(&self, table: &str, owner: &str) -> Result<BTreeMap<String, Extra>> {
        let mut all: BTreeMap<String, Extra> = BTreeMap::new();
        let rows = self.rows(&format!("SELECT {owner}, option_id, option_value FROM {table}"), |row| {
            Ok((text(row, 0)?, text(row, 1)?, row.get::<_, Option<String>>(2)?))
        })?;
        for (owner, code, value) in rows {
            let Some(name) = option_name(&code) else { continue };
            let value = value.and_then(|value| serde_json::from_str(&value).ok()).unwrap_or(Value::Null);
            all.entry(owner).or_default().insert(name.to_owned(), value);
        }
        Ok(all)
    }

    /// Ids of roles by what lends them.
    fn roles(&self, table: &str, owner: &str) -> Result<BTreeMap<String, Vec<base::RoleId>>> {
        let rows = self.rows(&format!("SELECT {owner}, role_id FROM {table} ORDER BY 1, 2"), |row| {
            let owner = row.get::<_, rusqlite::types::Value>(0)?;
            let owner = match owner {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                _ => String::new(),
            };
            Ok((owner, text(row, 1)?))
        })?;
        let mut all: BTreeMap<String, Vec<base::RoleId>> = BTreeMap::new();
        rows.into_iter().for_each(|(owner, role)| all.entry(owner).or_default().push(role.into()));
        Ok(all)
    }
}

fn option_name(code: &str) -> Option<&'static str> {
    Some(match code {
        "1000" => "ignore_change_password_upon_first_use",
        "1001" => "ignore_password_expiry",
        "1002" => "ignore_lockout_failure_attempts",
        "1003" => "lock_password",
        "1004" => "ignore_user_inactivity",
        "MFAR" => "multi_factor_auth_rules",
        "MFAE" => "multi_factor_auth_enabled",
        "IMMU" => "immutable",
        _ => return None,
    })
}

fn text(row: &Row, at: usize) -> rusqlite::Result<String> {
    Ok(row.get::<_, Option<String>>(at)?.unwrap_or_default())
}

fn some(row: &Row, at: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get::<_, Option<String>>(at)?.filter(|text| !text.is_empty() && text != NULL && text != ROOT))
}

fn flag(row: &Row, at: usize) -> rusqlite::Result<bool> {
    Ok(row.get::<_, Option<bool>>(at)?.unwrap_or(false))
}

fn extra(row: &Row, at: usize) -> rusqlite::Result<Extra> {
    let text = text(row, at)?;
    Ok(serde_json::from_str::<Map<String, Value>>(&text).unwrap_or_default())
}

fn words(row: &Row, at: usize) -> rusqlite::Result<Value> {
    Ok(row.get::<_, Option<String>>(at)?.map_or_else(|| Value::from(""), Value::from))
}

fn moment(row: &Row, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(Timestamp))
}

/// `2026-12-01 01:02:03.456`, in UTC.
fn date(row: &Row, at: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(some(row, at)?.and_then(|text| Timestamp::parse(&format!("{}Z", text.replace(' ', "T")))))
}

/// Everything that is taken over. Credentials only where their keys are given.
pub fn read(database: &Path, secrets: Option<&[fernet::Key]>) -> Result<Dump> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)
        .with_context(|| format!("cannot open {}", database.display()))?;
    let tables = Tables(connection);
    Ok(Dump {
        projects: projects(&tables)?,
        roles: roles(&tables)?,
        users: users(&tables)?,
        groups: tables.rows("SELECT id, name, domain_id, description, extra FROM \"group\" ORDER BY id", |row| {
            Ok(Group {
                id: text(row, 0)?.into(),
                name: text(row, 1)?,
                domain_id: text(row, 2)?.into(),
                description: words(row, 3)?,
                extra: extra(row, 4)?,
            })
        })?,
        memberships: tables.rows("SELECT user_id, group_id FROM user_group_membership ORDER BY 1, 2", |row| {
            let (user, group) = (text(row, 0)?, text(row, 1)?);
            let id = Membership::id_of(&user, &group);
            Ok(Membership { id, user_id: user.into(), group_id: group.into(), lent: None })
        })?,
        implied_roles: tables.rows("SELECT prior_role_id, implied_role_id FROM implied_role ORDER BY 1, 2", |row| {
            Ok(ImpliedRole::new(&text(row, 0)?, &text(row, 1)?))
        })?,
        assignments: assignments(&tables)?,
        access_rules: tables.rows("SELECT external_id, user_id, service, method, path FROM access_rule ORDER BY 1", |row| {
            Ok(AccessRule {
                id: text(row, 0)?,
                user_id: text(row, 1)?.into(),
                service: text(row, 2)?,
                method: text(row, 3)?,
                path: text(row, 4)?,
            })
        })?,
        application_credentials: application_credentials(&tables)?,
        trusts: trusts(&tables)?,
        credentials: match secrets {
            Some(keys) => credentials(&tables, keys)?,
            None => Vec::new(),
        },
        revocations: revocations(&tables)?,
        ..federation(&tables)?
    })
}

fn projects(tables: &Tables) -> Result<Vec<Project>> {
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
    // Parents first. What hangs on nothing is left out.
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
            return Ok(ordered);
        }
    }
}

fn roles(tables: &Tables) -> Result<Vec<Role>> {
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

/// Local users and those of identity providers. Users of an LDAP directory have neither name nor password here.
fn users(tables: &Tables) -> Result<Vec<User>> {
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
    Ok(users.into_iter().filter(|user| !user.name.is_empty()).collect())
}

fn assignments(tables: &Tables) -> Result<Vec<Assignment>> {
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

fn application_credentials(tables: &Tables) -> Result<Vec<ApplicationCredential>> {
    let mut roles = tables.roles("application_credential_role", "application_credential_id")?;
    let mut rules: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let sql = "SELECT l.application_credential_id, r.external_id FROM application_credential_access_rule l \
               JOIN access_rule r ON r.id = l.access_rule_id ORDER BY 1, 2";
    for (credential, rule) in tables.rows(sql, |row| Ok((row.get(0)?, text(row, 1)?)))? {
        rules.entry(credential).or_default().push(rule);
    }
    let sql = "SELECT internal_id, id, name, secret_hash, description, user_id, project_id, expires_at, unrestricted \
               FROM application_credential WHERE project_id IS NOT NULL ORDER BY id";
    tables.rows(sql, |row| {
        Ok(ApplicationCredential {
            roles: roles.remove(&row.get::<_, i64>(0)?.to_string()).unwrap_or_default(),
            id: text(row, 1)?,
            name: text(row, 2)?,
            secret: text(row, 3)?,
            description: words(row, 4)?,
            user_id: text(row, 5)?.into(),
            project_id: text(row, 6)?.into(),
            expires_at: moment(row, 7)?,
            unrestricted: flag(row, 8)?,
            // One that lists none may do everything.
            access_rules: rules.remove(&row.get(0)?),
        })
    })
}

fn trusts(tables: &Tables) -> Result<Vec<Trust>> {
    let mut roles = tables.roles("trust_role", "trust_id")?;
    let sql = "SELECT id, trustor_user_id, trustee_user_id, project_id, impersonation, expires_at_int, remaining_uses, \
               redelegation_count, redelegated_trust_id FROM trust WHERE deleted_at IS NULL ORDER BY id";
    tables.rows(sql, |row| {
        let id = text(row, 0)?;
        Ok(Trust {
            trustor_user_id: text(row, 1)?.into(),
            trustee_user_id: text(row, 2)?.into(),
            project_id: some(row, 3)?.map(Into::into),
            impersonation: flag(row, 4)?,
            roles: roles.remove(&id).unwrap_or_default(),
            expires_at: moment(row, 5)?,
            remaining_uses: row.get(6)?,
            redelegation_count: row.get::<_, Option<i64>>(7)?.unwrap_or(0),
            redelegated_trust_id: some(row, 8)?,
            id,
        })
    })
}

fn credentials(tables: &Tables, keys: &[fernet::Key]) -> Result<Vec<Credential>> {
    let sql = "SELECT id, type, user_id, project_id, extra, encrypted_blob FROM credential ORDER BY id";
    let rows = tables.rows(sql, |row| {
        let credential = Credential {
            id: text(row, 0)?,
            kind: text(row, 1)?,
            user_id: text(row, 2)?.into(),
            project_id: some(row, 3)?.map(Into::into),
            blob: Default::default(),
            extra: extra(row, 4)?,
        };
        Ok((credential, text(row, 5)?))
    })?;
    let open = |(credential, sealed): (Credential, String)| {
        let opened = fernet::open(keys, &sealed).and_then(|(blob, _)| String::from_utf8(blob).ok());
        let blob = opened.with_context(|| format!("none of the keys opens credential {}", credential.id))?;
        // Keystone seals the blob as JSON: a string once more in quotes.
        let blob = serde_json::from_str::<String>(&blob).unwrap_or(blob);
        Ok(Credential { blob: blob.into(), ..credential })
    };
    rows.into_iter().map(open).collect()
}

fn federation(tables: &Tables) -> Result<Dump> {
    let mut remotes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, remote) in tables.rows("SELECT idp_id, remote_id FROM idp_remote_ids", |r| Ok((text(r, 0)?, text(r, 1)?)))? {
        remotes.entry(id).or_default().insert(remote);
    }
    let sql = "SELECT id, domain_id, enabled, description, authorization_ttl FROM identity_provider ORDER BY id";
    let identity_providers = tables.rows(sql, |row| {
        let id = text(row, 0)?;
        Ok(IdentityProvider {
            domain_id: text(row, 1)?.into(),
            enabled: flag(row, 2)?,
            description: row.get::<_, Option<String>>(3)?.map_or(Value::Null, Value::from),
            remote_ids: remotes.remove(&id).unwrap_or_default(),
            authorization_ttl: row.get(4)?,
            id,
        })
    })?;
    let mappings = tables.rows("SELECT id, rules, schema_version FROM mapping ORDER BY id", |row| {
        // JSON, and that once more as JSON.
        let rules: Value = serde_json::from_str(&text(row, 1)?).unwrap_or_default();
        let rules = rules.as_str().and_then(|inner| serde_json::from_str(inner).ok()).unwrap_or(rules);
        Ok(Mapping { id: text(row, 0)?, rules, schema_version: text(row, 2)? })
    })?;
    let sql = "SELECT id, idp_id, mapping_id, remote_id_attribute FROM federation_protocol ORDER BY 1, 2";
    let protocols = tables.rows(sql, |row| {
        let (name, idp) = (text(row, 0)?, text(row, 1)?);
        Ok(Protocol {
            id: Protocol::id_of(&idp, &name),
            idp_id: idp,
            mapping_id: text(row, 2)?,
            remote_id_attribute: some(row, 3)?,
            name,
        })
    })?;
    Ok(Dump { identity_providers, mappings, protocols, ..Dump::default() })
}

/// Events about tokens; those about what is deleted say nothing that is not known anyway.
fn revocations(tables: &Tables) -> Result<Vec<Revocation>> {
    let sql = "SELECT id, audit_id, audit_chain_id, user_id, project_id, domain_id, issued_before FROM revocation_event \
               WHERE role_id IS NULL AND trust_id IS NULL AND consumer_id IS NULL AND access_token_id IS NULL ORDER BY id";
    let rows = tables.rows(sql, |row| {
        let before = date(row, 6)?.unwrap_or_default();
        Ok(Revocation {
            id: format!("keystone-{}", row.get::<_, i64>(0)?),
            audit_id: some(row, 1)?,
            audit_chain_id: some(row, 2)?,
            user_id: some(row, 3)?.map(Into::into),
            project_id: some(row, 4)?.map(Into::into),
            domain_id: some(row, 5)?.map(Into::into),
            before,
            // As long as any token of then may be shown.
            until: before.plus_s(14 * 86_400),
        })
    })?;
    // With two conditions an event concerns fewer tokens than each says by itself; ours knows one.
    let conditions = |event: &Revocation| {
        let ids = [event.user_id.is_some(), event.project_id.is_some(), event.domain_id.is_some()];
        ids.into_iter().filter(|set| *set).count()
    };
    Ok(rows.into_iter().filter(|event| conditions(event) <= 1).collect())
}
