//! `nubo keys`: the keys that seal tokens, in the form of Keystone's key repositories. That of Fernet is a directory with
//! a file for each key, named by its number; 0 is staged, the highest is the primary. That of JWS has the folders
//! `private`, with `private.pem`, and `public`, with any number of keys.

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
const PEM_BYTES: u64 = 4096;

#[derive(Subcommand)]
pub enum KeysCommand {
    /// Seal tokens with a new key from now on; those that are there stay good until they end
    Rotate,
    /// Take over the keys of a Keystone, which it keeps in /etc/keystone/fernet-keys or /etc/keystone/jws-keys
    Import { directory: PathBuf },
    /// Write the keys into a new directory, for a Keystone to use
    Export {
        directory: PathBuf,
        /// Those of signed tokens (JWS) and not those of Fernet
        #[arg(long)]
        jws: bool,
    },
}

pub fn main(settings: &crate::settings::Settings, command: KeysCommand) -> Result<ExitCode> {
    let given = match &command {
        KeysCommand::Import { directory } if directory.join("private/private.pem").exists() => {
            Some(("/jws", read_signing(directory)?))
        }
        KeysCommand::Import { directory } => Some(("", json!({ "keys": read(directory)? }))),
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
                let (kind, body) = given.context("nothing was read")?;
                let answer = client.put_url(&format!("{keys}{kind}"), body).await?;
                println!("Imported; {} keys verify tokens now.", answer["kept"]);
            }
            KeysCommand::Export { directory, jws: true } => {
                write_signing(&directory, &client.get_url(&format!("{keys}/jws")).await?)?;
            }
            KeysCommand::Export { directory, jws: false } => write(&directory, &client.get_url(&keys).await?)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn read(directory: &Path) -> Result<Vec<Value>> {
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

fn pem(path: &Path) -> Result<String> {
    if fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len() > PEM_BYTES {
        bail!("{} is too long to be a key", path.display());
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The private key, and every public one.
fn read_signing(directory: &Path) -> Result<Value> {
    let public = directory.join("public");
    let mut files: Vec<PathBuf> = fs::read_dir(&public)
        .with_context(|| format!("cannot read {}", public.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let keys = files.iter().map(|file| pem(file)).collect::<Result<Vec<_>>>()?;
    Ok(json!({"private": pem(&directory.join("private/private.pem"))?, "public": keys}))
}

fn write_signing(directory: &Path, answer: &Value) -> Result<()> {
    make(directory)?;
    let (private, public) = (directory.join("private"), directory.join("public"));
    make(&private)?;
    make(&public)?;
    write_key(&private.join("private.pem"), answer["private"].as_str().context("no private key")?)?;
    let keys = answer["public"].as_array().context("the cloud told no keys")?;
    for (number, key) in keys.iter().enumerate() {
        write_key(&public.join(format!("public-{number}.pem")), key.as_str().context("no key")?)?;
    }
    println!("The key that signs and {} that verify are in {}.", keys.len(), directory.display());
    Ok(())
}

fn make(directory: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(directory);
    made.with_context(|| format!("cannot make {}: keys are written into a new directory only", directory.display()))
}

fn write_key(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn write(directory: &Path, answer: &Value) -> Result<()> {
    make(directory)?;
    let keys = answer["keys"].as_array().context("the cloud told no keys")?;
    for key in keys {
        let (number, text) = (key["number"].as_u64().context("no number")?, key["key"].as_str().context("no key")?);
        write_key(&directory.join(number.to_string()), text)?;
    }
    println!("{} keys are in {}.", keys.len(), directory.display());
    Ok(())
}
