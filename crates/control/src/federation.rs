//! The keys of identity providers, fetched for the identity service by the client that fetches images; and the key with
//! which this cloud vouches for its users elsewhere.
//!
//! Which providers there are is the operator's word and no tenant's, so the addresses of a private network are allowed.

use base::{Fault, Result};
use http_body_util::{BodyExt, Limited};
use identity::federation::saml::{Idp, Settings};
use identity::federation::{ClientSecret, DOCUMENT_BYTES, Fetch, Issuer, Options};
use image::web::{Client, Rules, Web};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The most bytes of a key, a certificate or a secret in a file.
const FILE_BYTES: u64 = 64 << 10;
/// Until a document is there.
const DOCUMENT: Duration = Duration::from_secs(10);

/// What `nubo.toml` says of federation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Federation {
    pub issuers: Vec<Issuer>,
    pub trusted_dashboards: Vec<String>,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Federation {
    /// For the identity service, over the network. Reads the files that the settings name: only control needs to.
    pub fn options(self, saml: Option<Settings>) -> Result<Options> {
        let rules = Rules {
            allowed_ports: Vec::new(),
            allowed_networks: ["0.0.0.0/0", "::/0"].iter().filter_map(|all| all.parse().ok()).collect(),
            ca_file: self.ca_file,
            ..Rules::default()
        };
        let web = Arc::new(Documents { client: Client::default(), rules });
        let mut issuers = self.issuers;
        for issuer in &mut issuers {
            let Some(file) = &issuer.client_secret_file else { continue };
            if issuer.client_secret.is_some() {
                let both = format!("federation: {} has a client_secret and a client_secret_file.", issuer.issuer);
                return Err(Fault::invalid(both));
            }
            issuer.client_secret = Some(ClientSecret::new(read(file)?.trim_end_matches(['\r', '\n'])));
        }
        let saml = saml.map(|saml| {
            let (certificate, key) = (read(&saml.certfile)?, read(&saml.keyfile)?);
            Idp::new(saml, &certificate, &key).map(Arc::new)
        });
        let saml = saml.transpose()?;
        Ok(Options { issuers, trusted_dashboards: self.trusted_dashboards, web: Some(web), saml })
    }
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text));
    read.map_err(|error| Fault::invalid(format!("{} cannot be read: {error}.", path.display())))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(Fault::invalid(format!("{} is larger than {FILE_BYTES} bytes.", path.display())));
    }
    Ok(text)
}

struct Documents {
    client: Client,
    rules: Rules,
}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Documents")
    }
}

#[async_trait::async_trait]
impl Fetch for Documents {
    async fn get(&self, url: &str) -> Result<bytes::Bytes> {
        in_time(url, async {
            let fetched = self.client.get(url, &self.rules).await?;
            whole(url, fetched.body).await
        })
        .await
    }

    async fn post(&self, url: &str, authorization: Option<&str>, form: String) -> Result<(u16, bytes::Bytes)> {
        in_time(url, async {
            let (status, body) = self.client.post_form(url, &self.rules, authorization, form).await?;
            Ok((status, whole(url, body).await?))
        })
        .await
    }
}

async fn whole(url: &str, body: rest::Body) -> Result<bytes::Bytes> {
    let body = Limited::new(body, DOCUMENT_BYTES).collect().await;
    let body = body.map_err(|_| Fault::unavailable(format!("What stands at {url} breaks off or is too long.")))?;
    Ok(body.to_bytes())
}

async fn in_time<T>(url: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Fault::unavailable(format!("What stands at {url} does not come within {DOCUMENT:?}."));
    tokio::time::timeout(DOCUMENT, work).await.unwrap_or_else(|_| Err(late()))
}
