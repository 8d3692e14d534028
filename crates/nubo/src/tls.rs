//! TLS with nubo's own authority, for addresses other than loopback.

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Connects and checks the other side against the authority in `ca`.
pub async fn connect(stream: TcpStream, host: &str, ca: Option<&Path>) -> Result<TlsStream<TcpStream>> {
    let ca = ca.context("an https address needs the authority's certificate (cacert)")?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// Makes `ca.pem` in the state, and below `directory` (control's own) a certificate and key for `address`. What stands
/// is kept, so that clients that trust the authority go on trusting it.
pub fn ensure(state: &Path, directory: &Path, address: IpAddr, names: &[String]) -> Result<()> {
    let (ca_path, ca_key_path) = (state.join("ca.pem"), state.join("ca.key"));
    let (certificate_path, key_path) = (directory.join("tls.pem"), directory.join("tls.key"));
    if ca_path.exists() && certificate_path.exists() && key_path.exists() {
        return Ok(());
    }
    let mut subject = rcgen::CertificateParams::new(Vec::<String>::new())?;
    subject.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    subject.distinguished_name.push(rcgen::DnType::CommonName, "nubo");
    let ca_key = rcgen::KeyPair::generate()?;
    let ca = subject.self_signed(&ca_key)?;
    let issuer = rcgen::Issuer::from_params(&subject, &ca_key);
    let mut all = vec![address.to_string(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    all.extend(names.iter().cloned());
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(all)?.signed_by(&key, &issuer)?;
    crate::setup::write_private(&ca_key_path, ca_key.serialize_pem().as_bytes(), None)?;
    crate::setup::write_private(&key_path, key.serialize_pem().as_bytes(), None)?;
    std::fs::write(certificate_path, certificate.pem())?;
    std::fs::write(ca_path, ca.pem())?;
    Ok(())
}

/// What a server presents.
pub fn server_config(directory: &Path) -> Result<rustls::ServerConfig> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(directory.join("tls.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key"))?;
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
