//! Connections to the directories of domains, for the identity service: over TCP, with TLS or without.
//!
//! Which directories there are is the word of administrators of the cloud, so the addresses of a private network are
//! allowed. Whoever waits sets the time limit.

use identity::directory::{Certificates, Connect, Server, Session, Url};
use ldap::{Connection, Error, Found, Search};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Until one server counts as away, and all of several: somebody waits no longer than this for what may be old.
const ONE: Duration = Duration::from_secs(3);
/// Where systems keep whom they believe.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The most bytes of a file of certificates, and files of a folder.
const FILE_BYTES: u64 = 4 << 20;
const FILES: usize = 1000;

/// Opens real connections.
#[derive(Debug, Default)]
pub struct Network;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Line(Connection<Box<dyn Stream>>);

#[async_trait::async_trait]
impl Connect for Network {
    async fn open(&self, server: &Server) -> ldap::Result<Box<dyn Session>> {
        let mut last = Error::Io(io::ErrorKind::NotConnected.into());
        for url in &server.urls {
            match tokio::time::timeout(ONE / (server.urls.len() as u32).max(1), connect(url, server)).await {
                Ok(Ok(connection)) => return Ok(Box::new(Line(connection))),
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::Io(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
    }
}

async fn connect(url: &Url, server: &Server) -> ldap::Result<Connection<Box<dyn Stream>>> {
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await?;
    tcp.set_nodelay(true)?;
    if !url.tls && !server.start_tls {
        return Ok(Connection::new(Box::new(tcp)));
    }
    let certificates = server.certificates.clone();
    // Files are read anew each time: whoever replaces one restarts nothing.
    let config = tokio::task::spawn_blocking(move || tls(&certificates)).await.map_err(io::Error::other)??;
    let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
    let tcp = if server.start_tls { Connection::new(tcp).start_tls().await? } else { tcp };
    Ok(Connection::new(Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)))
}

#[async_trait::async_trait]
impl Session for Line {
    async fn bind(&mut self, dn: &str, password: &str) -> ldap::Result<bool> {
        self.0.bind(dn, password).await
    }

    async fn search(&mut self, search: &Search) -> ldap::Result<Found> {
        self.0.search(search).await
    }

    async fn close(&mut self) {
        self.0.unbind().await;
    }
}

fn tls(certificates: &Certificates) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = versions.map_err(io::Error::other)?;
    let files = match certificates {
        Certificates::Any => {
            let anybody = Arc::new(Anybody(provider));
            return Ok(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth());
        }
        Certificates::System => vec![PathBuf::from(SYSTEM)],
        Certificates::File(file) => vec![file.clone()],
        Certificates::Folder(folder) => std::fs::read_dir(folder)?
            .take(FILES)
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.is_file())
            .collect(),
    };
    let mut roots = RootCertStore::empty();
    for file in &files {
        certificates_of(file)?.into_iter().for_each(|certificate| drop(roots.add(certificate)));
    }
    if roots.is_empty() {
        return Err(io::Error::other("there are no certificates to believe"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A bundle may hold what rustls does not take; the others still count.
fn certificates_of(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let meta = std::fs::metadata(file)?;
    if !meta.is_file() || meta.len() > FILE_BYTES {
        return Err(io::Error::other("a file of certificates is too large, or no file"));
    }
    Ok(CertificateDer::pem_slice_iter(&std::fs::read(file)?).flatten().collect())
}

/// Believes every certificate: what an operator asks for with `tls_req_cert`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
