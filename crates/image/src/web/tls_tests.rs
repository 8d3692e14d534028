//! `https`, from servers whose certificates an authority of the test's own has signed.

use super::tests::{client, loopback, ok, redirect, text};
use super::*;
use base::{Fault, FaultKind};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority, whose certificate lies in a file.
struct Authority {
    folder: tempfile::TempDir,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let authority = Authority { folder: tempfile::tempdir().unwrap(), params, key: KeyPair::generate().unwrap() };
        let certificate = authority.params.self_signed(&authority.key).unwrap();
        std::fs::write(authority.file(), certificate.pem()).unwrap();
        authority
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn trusted(&self) -> Rules {
        Rules { ca_file: Some(self.file()), ..loopback() }
    }

    /// A server of that name (or with a certificate of that validity), whose every connection gets the same answer.
    async fn serves(&self, name: &str, years: std::ops::Range<i32>, answer: String) -> u16 {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust us ends the greeting.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }
}

const NOW: std::ops::Range<i32> = 2000..4000;

async fn refusal(port: u16, rules: &Rules) -> Fault {
    let (client, _) = client(vec!["127.0.0.1"]);
    client.get(&format!("https://mirror.example:{port}/disk?secret"), rules).await.err().unwrap()
}

#[tokio::test]
async fn an_authority_of_one_s_own_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    let port = authority.serves("mirror.example", NOW, ok("the bytes")).await;
    let (client, _) = client(vec!["127.0.0.1"]);
    let fetched = client.get(&format!("https://mirror.example:{port}/"), &authority.trusted()).await.unwrap();
    assert_eq!(text(fetched).await, "the bytes");
    // By its address, which the certificate names.
    let port = authority.serves("127.0.0.1", NOW, ok("by address")).await;
    let fetched = client.get(&format!("https://127.0.0.1:{port}/"), &authority.trusted()).await.unwrap();
    assert_eq!(text(fetched).await, "by address");
}

#[tokio::test]
async fn who_is_not_trusted_is_not_asked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let port = authority.serves("mirror.example", NOW, ok("secret")).await;
    let wrong_name = authority.serves("other.example", NOW, ok("secret")).await;
    let expired = authority.serves("mirror.example", 2000..2001, ok("secret")).await;
    for (port, rules, why) in [
        (port, loopback(), "UnknownIssuer"),
        // Another authority of the same name.
        (port, other.trusted(), "BadSignature"),
        (wrong_name, authority.trusted(), "not valid for name"),
        (expired, authority.trusted(), "expired"),
    ] {
        let fault = refusal(port, &rules).await;
        assert_eq!(fault.kind, FaultKind::Invalid, "{}", fault.message);
        let begin = format!("The host of https://mirror.example:{port}/disk is not trusted: ");
        assert!(fault.message.starts_with(&begin) && fault.message.contains(why), "{}", fault.message);
    }
    // Who speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(ok("secret").as_bytes()).await;
    });
    assert_eq!(refusal(plain, &authority.trusted()).await.kind, FaultKind::Invalid);
}

#[tokio::test]
async fn a_file_of_authorities_that_is_none_is_the_operator_s_to_mend() {
    let authority = Authority::new();
    let port = authority.serves("mirror.example", NOW, ok("secret")).await;
    let empty = authority.folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    for (file, why) in [(empty, "has no certificate to trust"), (PathBuf::from("/nowhere.pem"), "cannot be read")] {
        let fault = refusal(port, &Rules { ca_file: Some(file), ..loopback() }).await;
        assert_eq!(fault.kind, FaultKind::Unavailable);
        assert!(fault.message.contains(why), "{}", fault.message);
    }
}

#[tokio::test]
async fn no_redirect_leaves_tls_or_trust() {
    let authority = Authority::new();
    let plain = authority.serves("mirror.example", NOW, redirect("http://mirror.example/")).await;
    let fault = refusal(plain, &authority.trusted()).await;
    assert_eq!(fault.kind, FaultKind::Forbidden);
    assert!(fault.message.ends_with("leads from https to http."), "{}", fault.message);
    // To another server with a certificate of nobody's, and to one that is trusted.
    let stranger = Authority::new().serves("mirror.example", NOW, ok("secret")).await;
    let port = authority.serves("mirror.example", NOW, redirect(&format!("https://mirror.example:{stranger}/"))).await;
    assert!(refusal(port, &authority.trusted()).await.message.contains("is not trusted"));
    let next = authority.serves("next.example", NOW, ok("the bytes")).await;
    let port = authority.serves("mirror.example", NOW, redirect(&format!("https://next.example:{next}/"))).await;
    let (client, _) = client(vec!["127.0.0.1"]);
    let fetched = client.get(&format!("https://mirror.example:{port}/"), &authority.trusted()).await.unwrap();
    assert_eq!(text(fetched).await, "the bytes");
}
