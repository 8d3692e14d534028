//! Objects in a bucket of S3: Amazon's, or Ceph's radosgw.
//!
//! Its own client, since it needs nine requests of the API and has everything for them: signatures are [`sign`], the
//! rest is what fetches URLs for imports, too. A body is read from its file twice, once for the hash that is signed
//! with it and once to send it, so that an upload holds a piece of 256 KiB in memory, however large its parts are.
//!
//! What is longer than a part is a multipart upload: it shows as a whole or not at all, and [`Objects::remove`] ends
//! those of a key that somebody began and did not finish.

mod http;
mod sign;

use super::super::transfer::hex;
use super::{Bites, Error, Objects, Result, is_key, reopened, unread};
use crate::web::client::{Flow, client_config};
use ::http::{Method, Request, Response, StatusCode, header};
use async_trait::async_trait;
use base::{Env, Fault};
use http::{Endpoint, bites, part, words};
use rest::Body;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sign::{Signer, Unsigned, query};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Bytes of a part, unless there were more than [`PARTS`].
pub const PART_BYTES: u64 = 16 << 20;
/// What S3 takes of one object.
const PARTS: u64 = 10_000;
/// Until an answer begins that needs no work, and the one to whether anybody is there.
const ANSWER: Duration = Duration::from_secs(30);
const CHECK: Duration = Duration::from_secs(10);
/// Until parts are joined.
const JOIN: Duration = Duration::from_secs(300);
/// The slowest way on which bytes are sent.
const SLOWEST_BYTES_S: u64 = 256 << 10;
/// A request that an overloaded server puts off is sent so often.
const ATTEMPTS: u32 = 4;
/// Pages of a list that are read.
const PAGES: usize = 10_000;
const SECRET_BYTES: u64 = 4096;

/// `[image_stores.NAME]` with `type = "s3"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Options {
    pub endpoint: String,
    #[serde(default = "usual_region")]
    pub region: String,
    pub bucket: String,
    /// What the names of this cloud's objects begin with: no other cloud may use it.
    #[serde(default)]
    pub prefix: String,
    pub access_key: String,
    /// Holds the secret key, and is not readable for everybody.
    pub secret_file: PathBuf,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub addressing: Addressing,
}

/// Where in a URL the bucket stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addressing {
    #[default]
    Path,
    /// As a part of the host's name.
    Virtual,
}

fn usual_region() -> String {
    "us-east-1".to_owned()
}

pub struct S3 {
    endpoint: Endpoint,
    /// The header `Host`.
    host: String,
    /// Of the bucket, without a slash at its end.
    path: String,
    prefix: String,
    signer: Signer,
    env: Env,
}

/// What a request carries.
#[derive(Clone)]
enum Payload {
    Text(String),
    Part { file: Arc<File>, first: u64, length: u64 },
}

impl Payload {
    fn length(&self) -> u64 {
        match self {
            Payload::Text(text) => text.len() as u64,
            Payload::Part { length, .. } => *length,
        }
    }
}

impl S3 {
    /// # Errors
    /// Invalid for settings that cannot be right.
    pub fn new(options: &S3Options, env: Env) -> base::Result<S3> {
        let wrong = |what: String| Fault::invalid(format!("[image_stores]: {what}."));
        let url = Url::parse(&options.endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| wrong(format!("'{}' is no http or https URL", options.endpoint)))?;
        if url.query().is_some() || url.path() != "/" || !url.username().is_empty() {
            return Err(wrong(format!("the endpoint '{}' is more than a scheme, a host and a port", options.endpoint)));
        }
        let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
        if options.bucket.is_empty() || options.bucket.len() > 255 || !plain(&options.bucket, ".-_") {
            return Err(wrong(format!("'{}' is no name of a bucket", options.bucket)));
        }
        if options.prefix.len() > 256 || !plain(&options.prefix, "._-/") || options.prefix.starts_with('/') {
            return Err(wrong(format!("the prefix '{}' may have letters, digits and ._-/ in it", options.prefix)));
        }
        let tls = (url.scheme() == "https").then(|| client_config(options.ca_file.as_deref())).transpose()?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let (host, path) = match options.addressing {
            Addressing::Path => (host, format!("/{}", options.bucket)),
            Addressing::Virtual => (format!("{}.{host}", options.bucket), String::new()),
        };
        let named = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let signer = Signer {
            access_key: options.access_key.clone(),
            secret: secret(&options.secret_file)?,
            region: options.region.clone(),
        };
        let port = url.port_or_known_default().unwrap_or(443);
        let endpoint = Endpoint { host, port, tls: tls.map(Arc::new) };
        Ok(S3 { endpoint, host: named, path, prefix: options.prefix.clone(), signer, env })
    }

    fn named(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Sends a request, again where the server puts it off. The answer is a success.
    async fn ask(
        &self,
        method: &Method,
        key: &str,
        parts: &[(&str, &str)],
        payload: Payload,
        range: Option<String>,
        wait: Duration,
    ) -> Result<Response<Flow>> {
        let digest = digest(payload.clone()).await?;
        let mut attempt = 1;
        loop {
            let request = self.request(method, key, parts, &payload, &digest, range.as_deref())?;
            let answer = self.endpoint.send(request, wait).await?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            let put_off = matches!(status.as_u16(), 500 | 503);
            if attempt == ATTEMPTS || !put_off {
                return Err(failure(key, status, &words(answer.into_body()).await.unwrap_or_default()));
            }
            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
            attempt += 1;
        }
    }

    fn request(
        &self,
        method: &Method,
        key: &str,
        parts: &[(&str, &str)],
        payload: &Payload,
        digest: &str,
        range: Option<&str>,
    ) -> Result<Request<Body>> {
        let at = self.env.now().iso_seconds().replace(['-', ':'], "");
        let name = if key.is_empty() { String::new() } else { self.named(key) };
        let (path, query) = (format!("{}/{name}", self.path), query(parts));
        let mut headers = vec![("host", self.host.clone())];
        headers.extend(range.map(|range| ("range", range.to_owned())));
        headers.extend([("x-amz-content-sha256", digest.to_owned()), ("x-amz-date", at.clone())]);
        let unsigned = Unsigned {
            method: method.as_str(),
            path: &path,
            query: &query,
            headers: &headers,
            payload: digest,
            at: &at,
        };
        let authorization = self.signer.authorize(&unsigned);
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(method).uri(target).header(header::AUTHORIZATION, authorization);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if *method == Method::PUT || *method == Method::POST {
            request = request.header(header::CONTENT_LENGTH, payload.length());
        }
        let body = match payload {
            Payload::Text(text) => Body::from(text.clone()),
            Payload::Part { file, first, length } => part(file.clone(), *first, *length),
        };
        request.body(body).map_err(|error| Error::Refused(format!("a request cannot be made ({error})")))
    }

    /// The same for a request without a body.
    async fn plain(&self, method: Method, key: &str, parts: &[(&str, &str)]) -> Result<Response<Flow>> {
        self.ask(&method, key, parts, Payload::Text(String::new()), None, ANSWER).await
    }

    async fn put_parts(&self, key: &str, file: Arc<File>, size_bytes: u64, upload: &str) -> Result<()> {
        let most = size_bytes.div_ceil(PARTS).next_multiple_of(1 << 20).max(PART_BYTES);
        let (mut first, mut number, mut list) = (0, 1, String::new());
        while first < size_bytes {
            let length = most.min(size_bytes - first);
            let (payload, shown) = (Payload::Part { file: file.clone(), first, length }, number.to_string());
            let parts = [("partNumber", &*shown), ("uploadId", upload)];
            let answer = self.ask(&Method::PUT, key, &parts, payload, None, wait(length)).await?;
            let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
            let tag = tag.trim_matches('"');
            list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{tag}\"</ETag></Part>");
            (first, number) = (first + length, number + 1);
        }
        let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let joined = self.ask(&Method::POST, key, &[("uploadId", upload)], Payload::Text(list), None, JOIN).await?;
        // This one may say 200 before it knows.
        let said = words(joined.into_body()).await?;
        match said.contains("<Error>") {
            true => Err(failure(key, StatusCode::OK, &said)),
            false => Ok(()),
        }
    }

    /// Ends what somebody began to upload under this key and did not finish.
    async fn abort_all(&self, key: &str) -> Result<()> {
        for (found, upload) in self.uploads(&self.named(key)).await? {
            if found == key {
                self.abort(key, &upload).await?;
            }
        }
        Ok(())
    }

    async fn abort(&self, key: &str, upload: &str) -> Result<()> {
        match self.plain(Method::DELETE, key, &[("uploadId", upload)]).await {
            Err(Error::Missing(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Keys and ids of uploads that are not finished.
    async fn uploads(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let (mut all, mut after) = (Vec::new(), (String::new(), String::new()));
        for _ in 0..PAGES {
            let mut parts = vec![("uploads", ""), ("prefix", prefix)];
            if !after.0.is_empty() {
                parts.extend([("key-marker", &*after.0), ("upload-id-marker", &*after.1)]);
            }
            let text = words(self.plain(Method::GET, "", &parts).await?.into_body()).await?;
            for upload in texts(&text, "Upload") {
                let name = texts(upload, "Key").next();
                let key = name.and_then(|name| name.strip_prefix(&self.prefix)).map(str::to_owned);
                let id = texts(upload, "UploadId").next().map(plain_text);
                all.extend(key.filter(|key| is_key(key)).zip(id));
            }
            let next = |tag| texts(&text, tag).next().map(plain_text).unwrap_or_default();
            after = (next("NextKeyMarker"), next("NextUploadIdMarker"));
            if next("IsTruncated") != "true" || after.0.is_empty() {
                break;
            }
        }
        Ok(all)
    }
}

#[async_trait]
impl Objects for S3 {
    fn kind(&self) -> &'static str {
        "s3"
    }

    async fn check(&self) -> Result<()> {
        match self.ask(&Method::HEAD, "", &[], Payload::Text(String::new()), None, CHECK).await {
            Err(Error::Missing(_)) => Err(Error::Refused("there is no such bucket".to_owned())),
            other => other.map(drop),
        }
    }

    async fn put(&self, key: &str, file: &File, size_bytes: u64) -> Result<()> {
        let file = Arc::new(reopened(file).map_err(unread)?);
        if size_bytes <= PART_BYTES {
            let payload = Payload::Part { file, first: 0, length: size_bytes };
            return self.ask(&Method::PUT, key, &[], payload, None, wait(size_bytes)).await.map(drop);
        }
        let begun = words(self.plain(Method::POST, key, &[("uploads", "")]).await?.into_body()).await?;
        let upload = texts(&begun, "UploadId").next().map(plain_text);
        let upload = upload.ok_or_else(|| Error::Refused("it gives an upload no id".to_owned()))?;
        let put = self.put_parts(key, file, size_bytes, &upload).await;
        if put.is_err() {
            // Where this fails, too, `remove` comes.
            let _ = self.abort(key, &upload).await;
        }
        put
    }

    async fn get(&self, key: &str, first: u64, length: u64) -> Result<Bites> {
        // A range of no bytes cannot be written.
        let range = (length > 0).then(|| format!("bytes={first}-{}", first + length - 1));
        let answer = self.ask(&Method::GET, key, &[], Payload::Text(String::new()), range.clone(), ANSWER).await?;
        if range.is_some() && answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Error::Refused("it gives no part of an object".to_owned()));
        }
        Ok(bites(answer.into_body(), length))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.plain(Method::HEAD, key, &[]).await {
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(answer) => {
                let length = answer.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|text| text.to_str().ok()?.parse().ok());
                length.map(Some).ok_or_else(|| Error::Refused("it does not say how long an object is".to_owned()))
            }
        }
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.abort_all(key).await?;
        match self.plain(Method::DELETE, key, &[]).await {
            Err(Error::Missing(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn list(&self) -> Result<Vec<String>> {
        let (mut keys, mut after) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let mut parts = vec![("list-type", "2"), ("prefix", &*self.prefix)];
            if !after.is_empty() {
                parts.push(("continuation-token", &after));
            }
            let text = words(self.plain(Method::GET, "", &parts).await?.into_body()).await?;
            let names = texts(&text, "Key").filter_map(|name| name.strip_prefix(&self.prefix));
            keys.extend(names.filter(|key| is_key(key)).map(str::to_owned));
            after = texts(&text, "NextContinuationToken").next().map(plain_text).unwrap_or_default();
            if after.is_empty() {
                break;
            }
        }
        keys.extend(self.uploads(&self.prefix).await?.into_iter().map(|(key, _)| key));
        keys.sort();
        keys.dedup();
        Ok(keys)
    }
}

/// How long sending so much may take.
fn wait(length: u64) -> Duration {
    Duration::from_secs(60 + length / SLOWEST_BYTES_S)
}

/// SHA-256 in hex of what a request carries.
async fn digest(payload: Payload) -> Result<String> {
    let (file, first, length) = match payload {
        Payload::Text(text) => return Ok(hex(&Sha256::digest(text))),
        Payload::Part { file, first, length } => (file, first, length),
    };
    let hashing = move || {
        let (mut digest, mut piece, mut done) = (Sha256::new(), vec![0; 256 << 10], 0);
        while done < length {
            let now = (length - done).min(piece.len() as u64) as usize;
            file.read_exact_at(&mut piece[..now], first + done)?;
            digest.update(&piece[..now]);
            done += now as u64;
        }
        Ok(hex(&digest.finalize()))
    };
    let hashed = tokio::task::spawn_blocking(hashing).await;
    hashed.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(unread)
}

fn failure(key: &str, status: StatusCode, said: &str) -> Error {
    let code: String = texts(said, "Code").next().unwrap_or_default().chars().take(64).collect();
    match (status.as_u16(), &*code) {
        (_, "NoSuchBucket") => Error::Refused("there is no such bucket".to_owned()),
        (404, _) => Error::Missing(key.to_owned()),
        (507, _) | (_, "QuotaExceeded" | "InsufficientCapacity") => Error::Full,
        (status, code) => Error::Refused(format!("{status} {code}").trim_end().to_owned()),
    }
}

/// The texts of the elements with this name, which have no attributes in what S3 answers.
fn texts<'a>(xml: &'a str, tag: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let begin = rest.find(&open)? + open.len();
        let end = begin + rest[begin..].find(&close)?;
        let text = &rest[begin..end];
        rest = &rest[end + close.len()..];
        Some(text)
    })
}

fn plain_text(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// # Errors
/// Invalid where everybody may read it.
fn secret(file: &Path) -> base::Result<String> {
    let shown = file.display();
    let unread = || Fault::invalid(format!("The secret of an image store in {shown} cannot be read."));
    let failed = |error| unread().because(error);
    let opened = File::open(file).map_err(failed)?;
    if opened.metadata().map_err(failed)?.mode() & 0o007 != 0 {
        return Err(Fault::invalid(format!("Everybody may read {shown}, which holds a secret: chmod o= it.")));
    }
    let mut text = String::new();
    opened.take(SECRET_BYTES).read_to_string(&mut text).map_err(failed)?;
    let secret = text.trim().to_owned();
    if secret.is_empty() {
        return Err(Fault::invalid(format!("{shown} holds no secret.")));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(change: impl FnOnce(&mut serde_json::Value)) -> (S3Options, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let mut settings = serde_json::json!({
            "endpoint": "http://127.0.0.1:7480", "bucket": "images", "access_key": "k", "secret_file": file.path(),
        });
        change(&mut settings);
        (serde_json::from_value(settings).unwrap(), file)
    }

    #[test]
    fn settings_that_cannot_be_right_are_refused() {
        let (good, file) = options(|_| {});
        let made = S3::new(&good, Env::system()).unwrap();
        assert_eq!((&*made.host, &*made.path, &*made.signer.secret), ("127.0.0.1:7480", "/images", "secret"));
        let (by_host, _file) = options(|it| {
            (it["addressing"], it["endpoint"]) = ("virtual".into(), "http://s3.example.org".into());
        });
        let made = S3::new(&by_host, Env::system()).unwrap();
        assert_eq!((&*made.host, &*made.path, made.endpoint.port), ("images.s3.example.org", "", 80));
        for (name, value, said) in [
            ("endpoint", "ftp://x", "no http or https URL"),
            ("endpoint", "http://x/y", "more than a scheme"),
            ("bucket", "a/b", "no name of a bucket"),
            ("prefix", "a b", "the prefix 'a b'"),
            ("secret_file", "/nowhere", "cannot be read"),
        ] {
            let (bad, _file) = options(|it| it[name] = value.into());
            let refused = S3::new(&bad, Env::system()).err().unwrap().message;
            assert!(refused.contains(said), "{refused}");
        }
        std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let refused = S3::new(&good, Env::system()).err().unwrap().message;
        assert!(refused.starts_with("Everybody may read"), "{refused}");
    }

    #[test]
    fn answers_are_read() {
        let xml = "<L><Upload><Key>a</Key><UploadId>2~x&amp;y</UploadId></Upload><Upload><Key>b</Key></Upload></L>";
        let uploads: Vec<&str> = texts(xml, "Upload").collect();
        assert_eq!(uploads, ["<Key>a</Key><UploadId>2~x&amp;y</UploadId>", "<Key>b</Key>"]);
        assert_eq!(texts(uploads[0], "UploadId").map(plain_text).collect::<Vec<_>>(), ["2~x&y"]);
        let said = |status, xml: &str| failure("k", StatusCode::from_u16(status).unwrap(), xml).to_string();
        assert_eq!(said(403, "<Error><Code>AccessDenied</Code></Error>"), "refuses: 403 AccessDenied");
        assert_eq!(said(404, ""), "has no object k");
        assert_eq!(said(404, "<Code>NoSuchBucket</Code>"), "refuses: there is no such bucket");
        assert_eq!(said(403, "<Code>QuotaExceeded</Code>"), "is full");
        assert_eq!(said(502, "<html>"), "refuses: 502");
    }

    #[tokio::test]
    async fn nobody_at_the_endpoint_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (options, _file) = options(|it| it["endpoint"] = format!("http://{address}").into());
        let silent = S3::new(&options, Env::system()).unwrap().check().await.unwrap_err();
        assert_eq!(silent.to_string(), "does not answer: connection refused");
    }
}
