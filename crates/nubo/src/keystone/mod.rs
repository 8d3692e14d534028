//! `nubo keystone import`: reads the database of a Keystone, a file of SQLite or a dump of MariaDB, and hands it to the
//! cloud.
//!
//! The file is only read. Users keep their ids, passwords and, with the key repositories, their tokens and credentials.
//! Whatever is not handed over is counted by its name.

mod catalog;
mod dump;
mod federation;
mod lent;
mod people;
mod tables;

use crate::keys;
use crate::trash;
use anyhow::Result;
use clap::Subcommand;
use identity::documents::ImpliedRole;
use identity::keystone::Dump;
use identity::token::fernet;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tables::{Tables, text};

#[derive(Subcommand)]
pub enum KeystoneCommand {
    /// Take over users, projects, roles and what hangs on them from the database of a Keystone
    Import {
        /// A file of SQLite, or what mariadb-dump or mysqldump wrote of the database
        database: PathBuf,
        /// The keys of credentials, which Keystone keeps in /etc/keystone/credential-keys; without it none is taken over
        #[arg(long)]
        credential_keys: Option<PathBuf>,
        /// The keys of tokens, which Keystone keeps in /etc/keystone/fernet-keys, so that its tokens stay good
        #[arg(long)]
        fernet_keys: Option<PathBuf>,
        /// Take over services and endpoints, which lead to the old cloud, and what is said of them
        #[arg(long)]
        catalog: bool,
        /// Put this behind names that are taken here, instead of refusing
        #[arg(long, value_name = "SUFFIX", allow_hyphen_values = true)]
        rename: Option<String>,
        /// Say what would be made, and make nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub fn main(settings: &crate::settings::Settings, command: KeystoneCommand) -> Result<ExitCode> {
    let KeystoneCommand::Import { database, credential_keys, fernet_keys, catalog, rename, dry_run } = command;
    let secrets = credential_keys.as_deref().map(credential_ring).transpose()?;
    let tokens = fernet_keys.as_deref().map(keys::read).transpose()?;
    let (dump, left_out) = read(&database, secrets.as_deref(), catalog)?;
    trash::run(settings, async |client, url| {
        let query = if dry_run { "?dry_run=true" } else { "" };
        let body = json!({"dump": dump, "rename_suffix": rename});
        let answer = client.post_url(&format!("{url}/nubo/v1/keystone{query}"), body).await?;
        for (what, count) in &left_out {
            println!("left out: {count} {what}");
        }
        for (what, count) in answer["left_out"].as_object().into_iter().flatten() {
            println!("left out: {count} {what}");
        }
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

/// Everything that is taken over, and how many of what are not. Credentials only where their keys are given.
fn read(database: &Path, secrets: Option<&[fernet::Key]>, catalog: bool) -> Result<(Dump, BTreeMap<String, usize>)> {
    let tables = Tables::open(database)?;
    let federation = federation::federation(&tables)?;
    let dump = Dump {
        projects: people::projects(&tables)?,
        roles: people::roles(&tables)?,
        users: people::users(&tables)?,
        failed_logins: people::failed_logins(&tables)?,
        groups: people::groups(&tables)?,
        memberships: people::memberships(&tables)?,
        implied_roles: tables.rows("SELECT prior_role_id, implied_role_id FROM implied_role ORDER BY 1, 2", |row| {
            Ok(ImpliedRole::new(&text(row, 0)?, &text(row, 1)?))
        })?,
        assignments: people::assignments(&tables)?,
        access_rules: lent::access_rules(&tables)?,
        application_credentials: lent::application_credentials(&tables)?,
        trusts: lent::trusts(&tables)?,
        credentials: match secrets {
            Some(keys) => lent::credentials(&tables, keys)?,
            None => {
                tables.leave_all("credential")?;
                Vec::new()
            }
        },
        consumers: lent::consumers(&tables)?,
        access_tokens: lent::access_tokens(&tables)?,
        revocations: lent::revocations(&tables)?,
        identity_providers: federation.identity_providers,
        mappings: federation.mappings,
        protocols: federation.protocols,
        service_providers: federation.service_providers,
        ..catalog::catalog(&tables, catalog)?
    };
    Ok((dump, tables.left_out()))
}
