//! `nubo keys`: the keys that seal tokens, in the form of Keystone's key repository: a directory with a file for each
//! key, named by its number; 0 is staged, the highest is the primary.

use crate::trash;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The longest file that may be a key.
const KEY_BYTES: u64 = 256;

#[derive(Subcommand)]
pub enum KeysCommand {
    /// Seal tokens with a new key from now on; those that are there stay good until they end
    Rotate,
    /// Take over the keys of a Keystone, which it keeps in /etc/keystone/fernet-keys
    Import { directory: PathBuf },
    /// Write the keys into a new directory, for a Keystone to use
    Export { directory: PathBuf },
}

pub fn main(settings: &crate::settings::Settings, command: KeysCommand) -> Result<ExitCode> {
    let given = match &command {
        KeysCommand::Import { directory } => Some(read(directory)?),
        _ => None,
    };
    trash::run(settings, async |client, url| {
        let keys = format!("{url}/nubo/v1/keys");
        match command {
            KeysCommand::Rotate => {
                client.call_url(Method::POST, &format!("{keys}/rotate")).await?;
                println!("Tokens are sealed with a new key.");
            }
            KeysCommand::Import { .. } => {
                let answer = client.put_url(&keys, json!({ "keys": given })).await?;
                println!("Imported; {} keys verify tokens now.", answer["kept"]);
            }
            KeysCommand::Export { directory } => write(&directory, &client.get_url(&keys).await?)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn read(directory: &Path) -> Result<Vec<Value>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        // As Keystone does: what is not named by a number is no key.
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if entry.metadata()?.len() > KEY_BYTES {
            bail!("{} is too long to be a key", entry.path().display());
        }
        let key =
            fs::read_to_string(entry.path()).with_context(|| format!("cannot read {}", entry.path().display()))?;
        keys.push(json!({"number": number, "key": key.trim()}));
    }
    if keys.is_empty() {
        bail!("there is no key in {}: files are named 0, 1, 2, …", directory.display());
    }
    Ok(keys)
}

fn write(directory: &Path, answer: &Value) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make {}: keys are written into a new directory only", directory.display()))?;
    let keys = answer["keys"].as_array().context("the cloud told no keys")?;
    for key in keys {
        let (number, text) = (key["number"].as_u64().context("no number")?, key["key"].as_str().context("no key")?);
        let path = directory.join(number.to_string());
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
    }
    println!("{} keys are in {}.", keys.len(), directory.display());
    Ok(())
}
