//! What may be fetched, and what a name or a redirect that changes its mind reaches.

use super::client::Names;
use super::*;
use base::FaultKind;
use http_body_util::BodyExt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[test]
fn addresses_that_are_not_of_the_open_internet_are_refused() {
    let rules = Rules::default();
    for address in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
    ] {
        assert!(rules.look_at(address.parse().unwrap()).is_err(), "{address} is allowed");
    }
    for address in
        ["1.1.1.1", "172.32.0.1", "8.8.8.8", "2606:4700::1", "64:ff9b::101:101", "::ffff:8.8.8.8", "2002:808:808::"]
    {
        assert_eq!(rules.look_at(address.parse().unwrap()), Ok(()), "{address}");
    }
    let rules = Rules { allowed_networks: vec!["10.0.0.0/8".parse().unwrap()], ..rules };
    assert_eq!(rules.look_at("10.9.9.9".parse().unwrap()), Ok(()));
    assert_eq!(rules.look_at("::ffff:10.9.9.9".parse().unwrap()), Ok(()));
    assert!(rules.look_at("192.168.0.1".parse().unwrap()).is_err());
}

#[test]
fn urls_are_held_against_the_lists() {
    let rules = Rules { disallowed_hosts: vec!["evil.example".into(), ".bad.example".into()], ..Rules::default() };
    for url in [
        "file:///etc/passwd",
        "ftp://example.org/x",
        "gopher://example.org",
        "//example.org/x",
        "",
        "http://",
        "data:,x",
        "http://example.org:22/x",
        "http://user@example.org/x",
        "http://user:pw@example.org/x",
        "http://evil.example/x",
        "http://EVIL.example./x",
        "http://very.bad.example/x",
        "http://127.0.0.1/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "http://0177.0.0.1/",
        "http://[::1]/x",
        "http://[::ffff:169.254.169.254]/latest",
        "http://169.254.169.254/latest",
    ] {
        let fault = rules.check("URI", url).expect_err(url);
        assert_eq!(fault.kind, FaultKind::Invalid);
        assert!(fault.message.contains("does not pass filtering"), "{}", fault.message);
    }
    assert!(rules.check("URI", &format!("http://example.org/{}", "x".repeat(2048))).is_err());
    for url in ["http://example.org/x", "https://example.org:443/", "http://bad.example/", "http://notevil.example/"] {
        assert!(rules.check("URI", url).is_ok(), "{url}");
    }
    let only = Rules { allowed_hosts: vec!["mirror.example".into()], ..Rules::default() };
    assert!(only.check("URI", "http://mirror.example/x").is_ok());
    assert!(only.check("URI", "http://other.example/x").is_err());
    let plain = Rules {
        allowed_schemes: vec!["https".into()],
        disallowed_ports: vec![8443],
        allowed_ports: vec![],
        ..Rules::default()
    };
    assert!(plain.check("URI", "http://example.org/").is_err());
    assert!(plain.check("URI", "https://example.org:8443/").is_err());
    assert!(plain.check("URI", "https://example.org:8444/").is_ok());
}

/// Answers each connection with the next of these, and says how many came.
async fn server(answers: Vec<String>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, served)
}

pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

/// A name server that answers each question with the next of these.
pub(super) struct Fickle(Vec<&'static str>, AtomicUsize);

#[async_trait]
impl Names for Fickle {
    async fn addresses(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        let asked = self.1.fetch_add(1, Ordering::SeqCst);
        Ok(vec![self.0[asked.min(self.0.len() - 1)].parse().unwrap()])
    }
}

pub(super) fn loopback() -> Rules {
    Rules { allowed_networks: vec!["127.0.0.1/32".parse().unwrap()], allowed_ports: vec![], ..Rules::default() }
}

pub(super) fn client(answers: Vec<&'static str>) -> (Client, Arc<Fickle>) {
    let names = Arc::new(Fickle(answers, AtomicUsize::new(0)));
    (Client::with_names(names.clone()), names)
}

pub(super) async fn text(fetched: Fetched) -> String {
    String::from_utf8(fetched.body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn bytes_come_through_redirects_and_each_name_is_asked_for_once() {
    let (port, served) = server(vec![redirect("/next?a=b"), ok("the bytes")]).await;
    let (client, names) = client(vec!["127.0.0.1", "127.0.0.1", "10.0.0.1"]);
    let fetched = client.get(&format!("http://mirror.example:{port}/"), &loopback()).await.unwrap();
    assert_eq!(fetched.size_bytes, Some(9));
    assert_eq!(text(fetched).await, "the bytes");
    assert_eq!((served.load(Ordering::SeqCst), names.1.load(Ordering::SeqCst)), (2, 2));
}

#[tokio::test]
async fn no_redirect_and_no_name_leads_inside() {
    // A name whose second answer is another address: the hop after it is looked at anew.
    let (port, served) = server(vec![redirect("http://mirror.example:80/"), ok("secret")]).await;
    let (fickle, _) = client(vec!["127.0.0.1", "10.0.0.1"]);
    let fault = fickle.get(&format!("http://mirror.example:{port}/"), &loopback()).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::Forbidden);
    assert!(fault.message.contains("10.0.0.1 is a private address"), "{}", fault.message);
    assert_eq!(served.load(Ordering::SeqCst), 1);
    for to in ["http://169.254.169.254/latest", "file:///etc/passwd", "http://[::1]:80/", "http://user@mirror.example/"]
    {
        let (port, _) = server(vec![redirect(to)]).await;
        let (client, _) = client(vec!["127.0.0.1"]);
        let fault = client.get(&format!("http://mirror.example:{port}/"), &loopback()).await.err().unwrap();
        assert_eq!(fault.kind, FaultKind::Forbidden, "{to}: {}", fault.message);
    }
    // Nothing is allowed: the server is never reached.
    let (port, served) = server(vec![ok("secret")]).await;
    let open = Rules { allowed_ports: vec![], ..Rules::default() };
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let (client, _) = client(vec![address]);
        let fault = client.get(&format!("http://localhost:{port}/"), &open).await.err().unwrap();
        assert_eq!(fault.kind, FaultKind::Forbidden, "{}", fault.message);
    }
    assert_eq!(served.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_form_is_sent_once_and_whatever_is_answered_is_the_answer() {
    for (answer, status, said) in [
        (ok("fine"), 200, "fine"),
        ("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno".to_owned(), 400, "no"),
        (redirect("/elsewhere"), 302, ""),
    ] {
        let (port, served) = server(vec![answer, ok("twice")]).await;
        let (client, _) = client(vec!["127.0.0.1"]);
        let url = format!("http://mirror.example:{port}/token");
        let answer = client.post_form(&url, &loopback(), Some("Basic eDp5"), "a=b".into()).await.unwrap();
        assert_eq!(answer.0, status);
        assert_eq!(text(Fetched { size_bytes: None, body: answer.1 }).await, said);
        assert_eq!(served.load(Ordering::SeqCst), 1);
    }
    let (client, _) = client(vec!["10.0.0.1"]);
    let fault = client.post_form("http://mirror.example/", &loopback(), None, "a=b".into()).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::Forbidden, "{}", fault.message);
}

#[tokio::test]
async fn what_servers_refuse_is_told_from_what_may_come_right() {
    for (answers, kind, because) in [
        (vec!["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned()], FaultKind::NotFound, "404"),
        (vec!["HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned()], FaultKind::Unavailable, "503"),
        (vec!["HTTP/1.1 206 Partial\r\ncontent-length: 0\r\n\r\n".to_owned()], FaultKind::NotFound, "206"),
        (vec!["HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nx".to_owned()], FaultKind::NotFound, "encoded"),
        (vec!["HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned()], FaultKind::NotFound, "leads nowhere"),
        (vec!["nonsense\r\n\r\n".to_owned()], FaultKind::Unavailable, "broke off"),
        (vec![redirect("/"); 7], FaultKind::NotFound, "more than 5 times"),
    ] {
        let (port, _) = server(answers).await;
        let (client, _) = client(vec!["127.0.0.1"]);
        let fault = client.get(&format!("http://mirror.example:{port}/?secret"), &loopback()).await.err().unwrap();
        assert_eq!(fault.kind, kind, "{}", fault.message);
        assert!(fault.message.contains(because), "{}", fault.message);
    }
}
