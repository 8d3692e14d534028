//! What users keep for themselves or lend to others: application credentials, trusts, keys, OAuth 1.0a; and what has been
//! revoked.

use super::tables::{Tables, date, extra, flag, json, moment, some, text, words};
use anyhow::{Context, Result};
use base::Timestamp;
use identity::documents::*;
use identity::token::fernet;
use serde_json::Value;
use std::collections::BTreeMap;

/// An access token that Keystone lets last for ever ends here with the year 9999.
const NEVER: Timestamp = Timestamp(253_402_300_799_000_000);

pub(super) fn access_rules(tables: &Tables) -> Result<Vec<AccessRule>> {
    tables.rows("SELECT external_id, user_id, service, method, path FROM access_rule ORDER BY 1", |row| {
        Ok(AccessRule {
            id: text(row, 0)?,
            user_id: text(row, 1)?.into(),
            service: text(row, 2)?,
            method: text(row, 3)?,
            path: text(row, 4)?,
        })
    })
}

pub(super) fn application_credentials(tables: &Tables) -> Result<Vec<ApplicationCredential>> {
    let mut roles = tables.roles("application_credential_role", "application_credential_id")?;
    let mut rules: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let sql = "SELECT l.application_credential_id, r.external_id FROM application_credential_access_rule l \
               LEFT JOIN access_rule r ON r.id = l.access_rule_id ORDER BY 1, 2";
    for (credential, rule) in tables.rows(sql, |row| Ok((row.get(0)?, some(row, 1)?)))? {
        let rule = rule.with_context(|| format!("an access rule of application credential {credential} is missing"))?;
        rules.entry(credential).or_default().push(rule);
    }
    let elsewhere = "SELECT count(*) FROM application_credential WHERE project_id IS NULL";
    let elsewhere = tables.rows(elsewhere, |row| row.get::<_, i64>(0))?;
    tables.leave("application_credential without a project", usize::try_from(elsewhere.into_iter().sum::<i64>())?);
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

pub(super) fn trusts(tables: &Tables) -> Result<Vec<Trust>> {
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

pub(super) fn credentials(tables: &Tables, keys: &[fernet::Key]) -> Result<Vec<Credential>> {
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

pub(super) fn consumers(tables: &Tables) -> Result<Vec<Consumer>> {
    tables.rows("SELECT id, description, secret, extra FROM consumer ORDER BY id", |row| {
        Ok(Consumer {
            id: text(row, 0)?,
            description: row.get::<_, Option<String>>(1)?.map_or(Value::Null, Value::from),
            secret: text(row, 2)?.into(),
            extra: extra(row, 3)?,
        })
    })
}

pub(super) fn access_tokens(tables: &Tables) -> Result<Vec<AccessToken>> {
    let sql = "SELECT id, consumer_id, project_id, authorizing_user_id, role_ids, expires_at, access_secret \
               FROM access_token ORDER BY id";
    tables.rows(sql, |row| {
        let roles = json::<Vec<String>>(row, 4)?.unwrap_or_default();
        Ok(AccessToken {
            id: text(row, 0)?,
            consumer_id: text(row, 1)?,
            project_id: text(row, 2)?.into(),
            authorizing_user_id: text(row, 3)?.into(),
            roles: roles.into_iter().map(Into::into).collect(),
            expires_at: date(row, 5)?.unwrap_or(NEVER),
            secret: text(row, 6)?.into(),
        })
    })
}

/// Events about tokens. Those about roles, trusts and access tokens say nothing that is not known without them: what was
/// taken away is not there.
pub(super) fn revocations(tables: &Tables) -> Result<Vec<Revocation>> {
    let others = "SELECT count(*) FROM revocation_event WHERE role_id IS NOT NULL OR trust_id IS NOT NULL \
                  OR consumer_id IS NOT NULL OR access_token_id IS NOT NULL";
    let others = tables.rows(others, |row| row.get::<_, i64>(0))?;
    tables.leave("revocation_event of a role, trust or consumer", usize::try_from(others.into_iter().sum::<i64>())?);
    let sql = "SELECT id, audit_id, audit_chain_id, user_id, project_id, domain_id, issued_before FROM revocation_event \
               WHERE role_id IS NULL AND trust_id IS NULL AND consumer_id IS NULL AND access_token_id IS NULL ORDER BY id";
    tables.rows(sql, |row| {
        // Ours ends what any of its conditions meets: of a user's tokens on a project all of the user's, rather than none.
        let (user, before) = (some(row, 3)?, date(row, 6)?.unwrap_or_default());
        Ok(Revocation {
            // Another Keystone has the same numbers.
            id: format!("keystone-{}-{}", row.get::<_, i64>(0)?, before.micros()),
            audit_id: some(row, 1)?,
            audit_chain_id: some(row, 2)?,
            project_id: some(row, 4)?.filter(|_| user.is_none()).map(Into::into),
            domain_id: some(row, 5)?.filter(|_| user.is_none()).map(Into::into),
            user_id: user.map(Into::into),
            before,
            // As long as any token of then may be shown.
            until: before.plus_s(14 * 86_400),
        })
    })
}
