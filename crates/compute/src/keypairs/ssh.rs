//! OpenSSH's key formats: fingerprints of public keys, and new Ed25519 pairs.

use base::{Env, Fault, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use md5::{Digest, Md5};

/// The most bytes of a public key.
const MOST: usize = 16 << 10;
const KINDS: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The MD5 fingerprint of a public key in OpenSSH's form.
pub fn fingerprint(public_key: &str) -> Result<String> {
    let refused = || Fault::invalid("Keypair data is invalid: failed to generate fingerprint");
    let mut words = public_key.split_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return Err(refused()) };
    if public_key.len() > MOST || public_key.trim().lines().count() != 1 || !KINDS.contains(&kind) {
        return Err(refused());
    }
    let blob = STANDARD.decode(blob).map_err(|_| refused())?;
    let named = blob.get(..4).map(|length| u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize);
    if named != Some(kind.len()) || blob.get(4..4 + kind.len()) != Some(kind.as_bytes()) || blob.len() <= 8 + kind.len()
    {
        return Err(refused());
    }
    let digest = Md5::digest(&blob);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

/// A new pair: the public key's line and the private key's PEM.
pub fn generate(env: &Env, comment: &str) -> (String, String) {
    let mut seed = [0u8; 32];
    env.random.fill(&mut seed);
    let mut check = [0u8; 4];
    env.random.fill(&mut check);
    let key = SigningKey::from_bytes(&seed);
    let public = key.verifying_key().to_bytes();
    let mut blob = Vec::new();
    put(&mut blob, b"ssh-ed25519");
    put(&mut blob, &public);
    let mut private = Vec::new();
    private.extend_from_slice(&check);
    private.extend_from_slice(&check);
    put(&mut private, b"ssh-ed25519");
    put(&mut private, &public);
    put(&mut private, &[seed, public].concat());
    put(&mut private, comment.as_bytes());
    for pad in 1.. {
        if private.len() % 8 == 0 {
            break;
        }
        private.push(pad);
    }
    let mut file = b"openssh-key-v1\0".to_vec();
    put(&mut file, b"none");
    put(&mut file, b"none");
    put(&mut file, b"");
    file.extend_from_slice(&1u32.to_be_bytes());
    put(&mut file, &blob);
    put(&mut file, &private);
    let mut pem = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let text = STANDARD.encode(&file);
    for line in text.as_bytes().chunks(70) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    (format!("ssh-ed25519 {} {comment}", STANDARD.encode(&blob)), pem)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_pair_is_one_that_ssh_reads() {
        let (env, _) = Env::seeded(3);
        let (public, private) = generate(&env, "demo");
        let print = fingerprint(&public).unwrap();
        assert_eq!(print.split(':').count(), 16);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, private).unwrap();
        std::process::Command::new("chmod").arg("600").arg(&path).status().unwrap();
        let Ok(output) = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output() else {
            println!("SKIP ssh-keygen is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            said.split_whitespace().take(2).collect::<Vec<_>>(),
            public.split_whitespace().take(2).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (env, _) = Env::seeded(3);
        let (public, _) = generate(&env, "x");
        let blob = public.split(' ').nth(1).unwrap();
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 !!!",
            "ssh-rsa AAAA",
            "bogus",
            &format!("ssh-rsa {blob}"),
            &format!("{public}\n{public}"),
        ] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
        assert!(fingerprint(&format!("  {public}\n")).is_ok());
    }
}
