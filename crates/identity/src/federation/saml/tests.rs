//! Assertions as clients get them. That `xmlsec1` holds them for signed is a test with real clients.

use super::*;
use crate::tests::{Cloud, project_named};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use sha2::Digest;

const KEY: &str = include_str!("../rsa_test_key.b64");
const CERTIFICATE: &str = include_str!("test_certificate.b64");
const SAML2: &str = "/v3/auth/OS-FEDERATION/saml2";
const ECP: &str = "/v3/auth/OS-FEDERATION/saml2/ecp";

fn settings() -> Settings {
    serde_json::from_value(json!({
        "certfile": "cert", "keyfile": "key", "idp_entity_id": "https://cloud/idp", "idp_sso_endpoint": "https://cloud/sso",
        "relay_state_prefix": "cookie:", "assertion_expiration_time": 600,
    }))
    .unwrap()
}

fn pem(what: &str, text: &str) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", text.trim())
}

fn idp(settings: Settings) -> Result<Idp> {
    Idp::new(settings, &pem("CERTIFICATE", CERTIFICATE), &pem("RSA PRIVATE KEY", KEY))
}

async fn cloud(saml: Option<Idp>) -> Cloud {
    let store = store::Options { kinds: crate::kinds(), ..store::Options::memory() };
    let federation = crate::federation::Options { saml: saml.map(Arc::new), ..Default::default() };
    let cloud = Cloud::on(store, crate::Options { federation, ..crate::Options::default() }).await;
    for (id, enabled) in [("far", true), ("off", false)] {
        let provider = json!({"auth_url": "https://far/v3/auth", "sp_url": "https://far/ECP?a=1&b=2", "enabled": enabled});
        let path = format!("/v3/OS-FEDERATION/service_providers/{id}");
        let made = cloud.by(&cloud.admin, "PUT", &path, Some(json!({ "service_provider": provider }))).await;
        assert_eq!(made.status, 201, "{}", made.body);
    }
    let (group, user) = (cloud.made("/v3/groups", "group", json!({"name": "<crew>"})).await, cloud.id("users", "demo").await);
    assert_eq!(cloud.put(&format!("/v3/groups/{group}/users/{user}")).await, 204);
    cloud
}

async fn demo(cloud: &Cloud) -> String {
    cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token
}

fn body(token: &str, provider: &str) -> Value {
    json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}},
        "scope": {"service_provider": {"id": provider}}}})
}

async fn ask(cloud: &Cloud, method: &str, path: &str, body: Value) -> (u16, http::HeaderMap, String) {
    cloud.clock.advance_ms(1);
    let request = http::Request::builder().method(method).uri(format!("/identity{path}"));
    let answer = cloud.gateway.handle(request.body(body.to_string().into()).unwrap()).await;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8(bytes.to_vec()).unwrap())
}

/// The first part of a text between two others, with them.
fn part<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let at = text.find(begin).unwrap_or_else(|| panic!("no {begin} in {text}"));
    let length = text[at..].find(end).unwrap() + end.len();
    &text[at..at + length]
}

fn inner<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let part = part(text, begin, end);
    &part[begin.len()..part.len() - end.len()]
}

/// Holds an answer's assertion against its own signature, as far as plain texts can: no form is canonical twice.
fn holds(answer: &str) {
    let signature = part(answer, "<ds:Signature ", "</ds:Signature>");
    let assertion = part(answer, "<saml:Assertion ", "</saml:Assertion>").replace(signature, "");
    let canonical = assertion.replace(" xmlns:xs=\"http://www.w3.org/2001/XMLSchema\"", "");
    let digest = BASE64_STANDARD.encode(sha2::Sha256::digest(canonical));
    assert_eq!(digest, inner(signature, "<ds:DigestValue>", "</ds:DigestValue>"));
    let info = part(signature, "<ds:SignedInfo>", "</ds:SignedInfo>");
    let info = info.replacen('>', " xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">", 1);
    let key = RsaKeyPair::from_der(&BASE64_STANDARD.decode(KEY.trim()).unwrap()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref().to_vec());
    let value = BASE64_STANDARD.decode(inner(signature, "<ds:SignatureValue>", "</ds:SignatureValue>")).unwrap();
    public.verify(info.as_bytes(), &value).unwrap();
    assert_eq!(inner(signature, "<ds:X509Certificate>", "</ds:X509Certificate>"), CERTIFICATE.trim());
}

/// The values of an attribute.
fn said<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let Some(at) = answer.find(&format!("<saml:Attribute Name=\"{name}\"")) else { return Vec::new() };
    let attribute = part(&answer[at..], "<saml:Attribute ", "</saml:Attribute>");
    let values = attribute.split("xsi:type=\"xs:string\">").skip(1);
    values.map(|value| value.split_once("</saml:AttributeValue>").unwrap().0).collect()
}

#[tokio::test]
async fn the_bearer_of_a_token_gets_a_signed_assertion_for_a_service_provider() {
    let cloud = cloud(Some(idp(settings()).unwrap())).await;
    let token = demo(&cloud).await;
    let (status, headers, answer) = ask(&cloud, "POST", SAML2, body(&token, "far")).await;
    assert_eq!(status, 200, "{answer}");
    for (name, value) in [
        ("content-type", "text/xml"),
        ("cache-control", "no-store"),
        ("x-sp-url", "https://far/ECP?a=1&b=2"),
        ("x-auth-url", "https://far/v3/auth"),
    ] {
        assert_eq!(headers[name], value);
    }
    holds(&answer);
    assert!(answer.starts_with("<samlp:Response ") && answer.contains("Destination=\"https://far/ECP?a=1&amp;b=2\""));
    assert_eq!(answer.matches(">https://cloud/idp<").count(), 3, "twice the issuer, and who has let the user in");
    let data = part(&answer, "<saml:SubjectConfirmationData ", ">");
    assert!(data.contains("NotOnOrAfter=\"2026-01-01T00:10:") && data.contains("Recipient=\"https://far/ECP?a=1&amp;b=2\""));
    for (name, values) in [
        ("openstack_user", vec!["demo"]),
        ("openstack_user_domain", vec!["Default"]),
        ("openstack_project", vec!["demo"]),
        ("openstack_project_domain", vec!["Default"]),
        ("openstack_groups", vec![r#"JSON:{"name": "&lt;crew&gt;", "domain": {"name": "Default"}}"#]),
    ] {
        assert_eq!(said(&answer, name), values, "{name}");
    }
    let mut roles = said(&answer, "openstack_roles");
    roles.sort_unstable();
    assert_eq!(roles, ["member", "reader"]);

    let (status, _, enveloped) = ask(&cloud, "POST", ECP, body(&token, "far")).await;
    assert_eq!(status, 200, "{enveloped}");
    holds(&enveloped);
    let state = part(&enveloped, "<ecp:RelayState ", "</ecp:RelayState>");
    assert!(state.contains(">cookie:") && state.contains("soap:mustUnderstand=\"1\""), "{state}");
    assert!(enveloped.contains("</soap:Header><soap:Body><samlp:Response "));
    let id = |answer| inner(part(answer, "<saml:Assertion ", ">"), " ID=\"_", "\" ").to_owned();
    assert_ne!(id(&answer), id(&enveloped), "none is made twice");
}

#[tokio::test]
async fn an_assertion_ends_with_its_token_and_says_no_more_than_was_lent() {
    let cloud = cloud(Some(idp(settings()).unwrap())).await;
    let (token, user) = (demo(&cloud).await, cloud.id("users", "demo").await);
    let path = format!("/v3/users/{user}/application_credentials");
    let lend = async |more: Value| {
        let mut wanted = json!({"name": more.to_string(), "secret": "geheim", "expires_at": "2026-01-01T00:05:00"});
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = cloud.by(&token, "POST", &path, Some(json!({ "application_credential": wanted }))).await;
        let proof = json!({"id": made.body["application_credential"]["id"], "secret": "geheim"});
        let identity = json!({"methods": ["application_credential"], "application_credential": proof});
        cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({"auth": {"identity": identity}}))).await.token
    };
    let lent = lend(json!({"roles": [{"name": "reader"}]})).await;
    let (status, _, answer) = ask(&cloud, "POST", SAML2, body(&lent, "far")).await;
    assert_eq!(status, 200, "{answer}");
    holds(&answer);
    assert_eq!(said(&answer, "openstack_roles"), ["reader"]);
    assert!(said(&answer, "openstack_groups").is_empty(), "groups were not lent: {answer}");
    assert!(answer.contains("NotOnOrAfter=\"2026-01-01T00:05:00.000000Z\""), "{answer}");

    let rules = json!([{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]);
    let narrow = lend(json!({ "access_rules": rules })).await;
    let (status, _, answer) = ask(&cloud, "POST", SAML2, body(&narrow, "far")).await;
    assert!(status == 403 && answer.contains("access rules"), "{answer}");
}

#[tokio::test]
async fn whoever_may_not_gets_no_assertion() {
    let cloud = cloud(Some(idp(settings()).unwrap())).await;
    let token = demo(&cloud).await;
    let unscoped = cloud.login("demo", "demo", json!("unscoped")).await.token;
    let system = cloud.login("admin", "secret", json!({"system": {"all": true}})).await.token;
    let good = body(&token, "far");
    let changed = |change: fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body["auth"]);
        body
    };
    for (expected, said, body) in [
        (403, "project scoped", body(&unscoped, "far")),
        (403, "project scoped", body(&system, "far")),
        (404, "Could not find token", body("nothing", "far")),
        (404, "Could not find token", body(&token[..token.len() - 4], "far")),
        (404, "nowhere", body(&token, "nowhere")),
        (403, "not authorized", body(&token, "off")),
        (400, "auth", json!({})),
        (400, "object", json!({"auth": []})),
        (400, "scope", changed(|auth| drop(auth.as_object_mut().unwrap().remove("scope")))),
        (400, "token", changed(|auth| auth["identity"] = json!({"methods": ["password"]}))),
        (400, "project", changed(|auth| auth["scope"] = json!({"project": {"id": "x"}}))),
        (400, "extra", changed(|auth| auth["extra"] = json!(1))),
    ] {
        for path in [SAML2, ECP] {
            let (status, _, answer) = ask(&cloud, "POST", path, body.clone()).await;
            assert!(status == expected && answer.contains(said), "{body}: {status} {answer}");
        }
    }
    assert_eq!(cloud.get(SAML2).await.status, 405);
    let signed_out = [("x-auth-token", token.as_str()), ("x-subject-token", token.as_str())];
    assert_eq!(cloud.ask("DELETE", "/v3/auth/tokens", &signed_out, None).await.status, 204);
    assert_eq!(ask(&cloud, "POST", SAML2, good).await.0, 404);
}

#[tokio::test]
async fn without_its_settings_a_cloud_vouches_for_nobody() {
    let cloud = cloud(None).await;
    let token = demo(&cloud).await;
    for (method, path) in [("POST", SAML2), ("POST", ECP), ("GET", "/v3/OS-FEDERATION/saml2/metadata")] {
        let (status, _, answer) = ask(&cloud, method, path, body(&token, "far")).await;
        assert!(status == 500 && answer.contains("[saml]"), "{path}: {answer}");
    }
    assert_eq!(ask(&cloud, "POST", SAML2, body("nothing", "far")).await.0, 404, "who may not ask is told nothing");
}

#[tokio::test]
async fn a_name_that_no_xml_can_have_is_no_assertion() {
    let cloud = cloud(Some(idp(settings()).unwrap())).await;
    let named = async |name: &str| {
        let group = cloud.post("/v3/groups", json!({"group": {"name": name}})).await;
        let (group, user) = (group.body["group"]["id"].clone(), cloud.id("users", "demo").await);
        cloud.put(&format!("/v3/groups/{}/users/{user}", group.as_str().unwrap())).await
    };
    assert_eq!(named("naïve \u{1F600}").await, 204);
    let token = demo(&cloud).await;
    let (status, _, answer) = ask(&cloud, "POST", SAML2, body(&token, "far")).await;
    assert!(status == 200 && answer.is_ascii() && answer.contains("na&#xEF;ve &#x1F600;"), "{answer}");
    let domain = cloud.id("domains", "Default").await;
    let rename = json!({"domain": {"name": "bell \u{7}"}});
    assert_eq!(cloud.patch(&format!("/v3/domains/{domain}"), rename).await.status, 200);
    let (status, _, answer) = ask(&cloud, "POST", SAML2, body(&demo(&cloud).await, "far")).await;
    assert!(status == 400 && answer.contains("U+0007"), "{status} {answer}");
}

#[tokio::test]
async fn metadata_say_what_the_settings_say() {
    let bare = metadata::descriptor(&idp(settings()).unwrap()).document().unwrap();
    assert!(!bare.contains("md:Organization") && !bare.contains("md:ContactPerson"), "{bare}");
    let named = |name: &str| Some(format!("{name} & Co"));
    let full = Settings {
        idp_organization_name: named("name"),
        idp_organization_display_name: named("shown"),
        idp_organization_url: Some("https://co".into()),
        idp_contact_email: Some("root@co".into()),
        ..settings()
    };
    let cloud = cloud(Some(idp(full).unwrap())).await;
    let (status, headers, answer) = ask(&cloud, "GET", "/v3/OS-FEDERATION/saml2/metadata", Value::Null).await;
    assert_eq!((status, &headers["content-type"]), (200, &http::HeaderValue::from_static("text/xml")));
    assert!(answer.contains("<md:OrganizationName xml:lang=\"en\">name &amp; Co</md:OrganizationName>"), "{answer}");
    assert!(answer.contains("<md:ContactPerson contactType=\"other\"><md:EmailAddress>root@co</md:EmailAddress></"));
    assert_eq!(inner(&answer, "<ds:X509Certificate>", "</ds:X509Certificate>"), CERTIFICATE.trim());
    let order = ["KeyDescriptor", "Organization>", "ContactPerson ", "NameIDFormat", "SingleSignOnService"];
    let places: Vec<usize> = order.iter().map(|name| answer.find(&format!("<md:{name}")).unwrap()).collect();
    assert!(places.is_sorted(), "the schema wants them in this order: {answer}");
}

#[test]
fn settings_that_cannot_be_kept_are_refused() {
    for (change, said) in [
        (json!({"idp_entity_id": "no uri"}), "idp_entity_id"),
        (json!({"idp_sso_endpoint": "x".repeat(2000)}), "idp_sso_endpoint"),
        (json!({"assertion_expiration_time": 0}), "assertion_expiration_time"),
        (json!({"idp_contact_type": "friend"}), "idp_contact_type"),
        (json!({"idp_organization_name": "half"}), "organization"),
    ] {
        let mut all = json!({"certfile": "c", "keyfile": "k", "idp_entity_id": "a:b", "idp_sso_endpoint": "a:b"});
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let fault = idp(serde_json::from_value(all).unwrap()).unwrap_err();
        assert!(fault.message.contains(said), "{}", fault.message);
    }
    let (certificate, key) = (pem("CERTIFICATE", CERTIFICATE), pem("RSA PRIVATE KEY", KEY));
    let other = pem("CERTIFICATE", &BASE64_STANDARD.encode("another"));
    for (certificate, key, said) in [
        ("", key.as_str(), "certfile holds no certificate"),
        (&certificate, "", "keyfile holds no private key"),
        (&certificate, &certificate, "keyfile holds no private key"),
        (&certificate, &pem("PRIVATE KEY", KEY), "no RSA key that is taken"),
        (&other, &key, "not of the key"),
    ] {
        let fault = Idp::new(settings(), certificate, key).unwrap_err();
        assert!(fault.message.contains(said), "{said}: {}", fault.message);
    }
}
