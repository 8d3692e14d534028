//! Signatures by GnuPG: made with `gpg`, and held against a keyring with `gpgv`.

use super::index::INDEX_BYTES;
use crate::child::{failure, limited, run};
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder for the files that `gpgv` reads, which nobody else may enter; gone with it.
fn own_folder() -> Result<TempDir> {
    tempfile::Builder::new().prefix("nubo-signature-").tempdir().map_err(Error::doing("making a temporary folder"))
}

fn keep(folder: &TempDir, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = folder.path().join(name);
    fs::write(&path, bytes).map_err(Error::at(&path))?;
    Ok(path)
}

/// Writes `index.asc` in a folder: its index, clear-signed by a key of the user's own GnuPG.
pub(crate) fn sign(folder: &Path, text: &str, key: &str) -> Result<Vec<u8>> {
    let own = own_folder()?;
    let (plain, signed) = (keep(&own, "index", text.as_bytes())?, own.path().join("index.asc"));
    let mut command = Command::new("gpg");
    command.args(["--batch", "--yes", "--quiet", "--digest-algo", "SHA512", "--local-user", key]);
    command.args(["--clearsign", "--output"]).arg(&signed).arg(&plain).current_dir(folder);
    let output = run(&mut command)?;
    match output.status.success() {
        true => fs::read(&signed).map_err(Error::at(&signed)),
        false => Err(failure(&command, &output)),
    }
}

/// The text that a clear-signed file really signs, if a key of the keyring has signed it.
pub(crate) fn clear(signed: &[u8], keyring: &Path) -> Result<Vec<u8>> {
    let own = own_folder()?;
    let (signed, plain) = (keep(&own, "signed", signed)?, own.path().join("plain"));
    let mut command = gpgv(&own, keyring)?;
    command.arg("--output").arg(&plain).arg(&signed);
    verified(&mut command)?;
    fs::read(&plain).map_err(Error::at(&plain))
}

/// Holds a signature that stands in a file of its own against what it signs.
pub(crate) fn detached(text: &[u8], signature: &[u8], keyring: &Path) -> Result<()> {
    let own = own_folder()?;
    let (text, signature) = (keep(&own, "text", text)?, keep(&own, "signature", signature)?);
    let mut command = gpgv(&own, keyring)?;
    verified(command.arg(&signature).arg(&text))
}

fn verified(command: &mut Command) -> Result<()> {
    let output = run(command)?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = output.stderr.replace('\n', "; ").replace("gpgv: ", "");
            Err(Error::Refused(format!(
                "the signature is not of a key of the keyring: {}",
                said.trim_end_matches("; ")
            )))
        }
    }
}

/// `gpgv` with a keyring, which may be armoured.
fn gpgv(own: &TempDir, keyring: &Path) -> Result<Command> {
    let bytes = fs::read(keyring).map_err(Error::at(keyring))?;
    let keys = keep(own, "keys", &bytes)?;
    let ring = if bytes.starts_with(b"-----BEGIN") {
        let ring = own.path().join("ring");
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--no-options", "--homedir"]).arg(own.path());
        command.arg("--output").arg(&ring).arg("--dearmor").arg(&keys);
        let output = run(&mut command)?;
        if !output.status.success() {
            return Err(failure(&command, &output));
        }
        ring
    } else {
        keys
    };
    // It unfolds what is packed before it knows who has signed it.
    let mut command = limited("gpgv", 2 * INDEX_BYTES);
    command.args(["--quiet", "--homedir"]).arg(own.path()).arg("--keyring").arg(ring);
    Ok(command)
}
