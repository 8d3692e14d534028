//! Browsers on their way to a provider and back, against a provider that lives in the test.

use super::ClientSecret;
use super::oidc::{Issuer, Options};
use super::tests::{Federated, ISSUER};
use crate::tests::Cloud;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http_body_util::BodyExt;
use rest::{Body, Gateway};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

const DASHBOARD: &str = "https://dashboard/auth/websso/";
const CALLBACK: &str = "/identity/v3/auth/OS-FEDERATION/oidc/callback";

fn client(options: &mut Options) {
    options.issuers[0].client_id = Some("our client".into());
    options.issuers[0].client_secret = Some(ClientSecret::new("ge:heim"));
}

async fn cloud() -> Federated {
    cloud_with(client).await
}

async fn cloud_with(change: impl FnOnce(&mut Options)) -> Federated {
    let at = Federated::with(change).await;
    let discovery = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys"), "token_endpoint": format!("{ISSUER}/token"),
        "authorization_endpoint": format!("{ISSUER}/login?realm=a")});
    let place = format!("{ISSUER}/.well-known/openid-configuration");
    at.idp.documents.lock().unwrap().insert(place, discovery.to_string());
    at
}

struct Said {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Said {
    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(gateway: &Gateway, method: &str, uri: &str, cookie: &str) -> Said {
    let request = http::Request::builder().method(method).uri(uri).header(COOKIE, cookie);
    let answer = gateway.handle(request.body(Body::empty()).unwrap()).await;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    Said { status, headers, body: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// A browser that has been sent to the provider.
struct Sent {
    /// `name=value`.
    cookie: String,
    asked: BTreeMap<String, String>,
}

async fn sent(at: &Federated, path: &str) -> Sent {
    let uri = format!("/identity/v3/auth/OS-FEDERATION/{path}?origin={DASHBOARD}");
    let said = ask(&at.cloud.gateway, "GET", &uri, "").await;
    assert_eq!(said.status, 303, "{}", said.body);
    assert_eq!(said.header("cache-control"), "no-store");
    let (place, query) = said.header(LOCATION).split_once("&").unwrap();
    assert_eq!(place, format!("{ISSUER}/login?realm=a"));
    let asked = rest::Query::parse(query).unwrap();
    let asked = asked.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let cookie = said.header(SET_COOKIE);
    for word in ["; HttpOnly", "; SameSite=Lax", "; Max-Age=600", &format!("; Path={CALLBACK}")] {
        assert!(cookie.contains(word), "{cookie}");
    }
    Sent { cookie: cookie.split(';').next().unwrap().to_owned(), asked }
}

/// The provider's answer to a code, with these claims changed.
fn grant(at: &Federated, nonce: &str, change: impl FnOnce(&mut Value)) {
    let mut claims = at.claims();
    (claims["aud"], claims["nonce"]) = (json!("our client"), json!(nonce));
    change(&mut claims);
    let token = at.keys.token(json!({"alg": "RS256", "kid": "rsa"}), &claims);
    let answer = json!({"access_token": "x", "token_type": "Bearer", "id_token": token});
    *at.idp.answer.lock().unwrap() = Some((200, answer.to_string()));
}

fn back(sent: &Sent) -> String {
    format!("{CALLBACK}?code=c0de&state={}", sent.asked["state"])
}

/// The token on the page that goes to the dashboard.
async fn token(cloud: &Cloud, said: &Said) -> Value {
    assert_eq!(said.status, 200, "{}", said.body);
    assert!(said.body.contains(&format!("action=\"{DASHBOARD}\"")), "{}", said.body);
    let token = said.body.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    cloud.validate(token).await.body["token"].clone()
}

#[tokio::test]
async fn a_browser_comes_back_with_a_code_and_goes_on_with_a_token() {
    let at = cloud().await;
    for path in ["websso/openid", "identity_providers/corp/protocols/openid/websso"] {
        let sent = sent(&at, path).await;
        assert_eq!((&*sent.asked["client_id"], &*sent.asked["response_type"]), ("our client", "code"));
        assert_eq!((&*sent.asked["scope"], &*sent.asked["code_challenge_method"]), ("openid profile email", "S256"));
        assert_eq!(sent.asked["redirect_uri"], format!("http://cloud{CALLBACK}"));
        grant(&at, &sent.asked["nonce"], |_| {});
        let said = ask(&at.cloud.gateway, "GET", &back(&sent), &format!("other=1; {}", sent.cookie)).await;
        let token = token(&at.cloud, &said).await;
        assert_eq!((&token["user"]["name"], &token["methods"]), (&json!("bob"), &json!(["openid"])));
        assert!(said.header(SET_COOKIE).contains("Max-Age=0"), "the cookie goes");
        let (authorization, form) = at.idp.sent.lock().unwrap().pop().unwrap();
        assert_eq!(authorization, Some(format!("Basic {}", BASE64_STANDARD.encode("our+client:ge%3Aheim"))));
        let form = rest::Query::parse(&form).unwrap();
        assert_eq!((form.get("code"), form.get("grant_type")), (Some("c0de"), Some("authorization_code")));
        assert_eq!(form.get("redirect_uri"), Some(sent.asked["redirect_uri"].as_str()));
        let verifier = Sha256::digest(form.get("code_verifier").unwrap());
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(verifier), sent.asked["code_challenge"]);
    }
}

#[tokio::test]
async fn another_process_goes_on_with_what_one_began() {
    let at = cloud().await;
    let ours = &at.cloud.identity;
    let options = crate::Options { federation: ours.options.federation.clone(), ..crate::Options::default() };
    let other = crate::Identity::open(ours.store.clone(), ours.env.clone(), options).await.unwrap();
    let policy = Arc::new(policy::Policy::new(crate::RULES, None).unwrap());
    let gateway =
        rest::GatewayOptions { public_url: "http://cloud".into(), env: ours.env.clone(), identity_path: "/identity" };
    let gateway = Gateway::new(gateway, other.clone(), vec![other.service(policy)]).unwrap();
    let sent = sent(&at, "websso/openid").await;
    grant(&at, &sent.asked["nonce"], |_| {});
    let said = ask(&gateway, "GET", &back(&sent), &sent.cookie).await;
    assert_eq!(said.status, 200, "{}", said.body);
}

#[tokio::test]
async fn only_the_browser_that_began_a_login_ends_it_and_in_time() {
    let at = cloud().await;
    let (mine, yours) = (sent(&at, "websso/openid").await, sent(&at, "websso/openid").await);
    assert_ne!(mine.asked["state"], yours.asked["state"]);
    grant(&at, &mine.asked["nonce"], |_| {});
    let name = mine.cookie.split_once('=').unwrap().0;
    let under_my_name = format!("{name}={}", yours.cookie.split_once('=').unwrap().1);
    let bent = format!("{}AAAA", &mine.cookie[..mine.cookie.len() - 4]);
    let of_the_cloud = format!("{name}={}", at.cloud.admin);
    for cookie in ["", &yours.cookie, &under_my_name, &bent, &of_the_cloud] {
        let said = ask(&at.cloud.gateway, "GET", &back(&mine), cookie).await;
        assert!(said.status == 401 && said.body.contains("begin again"), "{cookie}: {} {}", said.status, said.body);
    }
    for query in ["", "code=c0de", &format!("state={}", mine.asked["state"])] {
        let said = ask(&at.cloud.gateway, "GET", &format!("{CALLBACK}?{query}"), &mine.cookie).await;
        assert_eq!(said.status, 400, "{query}: {}", said.body);
    }
    let said = ask(&at.cloud.gateway, "GET", &format!("{}&iss=https://evil", back(&mine)), &mine.cookie).await;
    assert_eq!(said.status, 401, "{}", said.body);
    let denied = format!("{CALLBACK}?error=access_denied&state={}", mine.asked["state"]);
    let said = ask(&at.cloud.gateway, "GET", &denied, &mine.cookie).await;
    assert!(said.status == 401 && said.body.contains("access_denied"), "{}", said.body);
    assert!(at.idp.sent.lock().unwrap().is_empty(), "no code was given away");
    at.cloud.clock.advance_ms(599_000);
    grant(&at, &mine.asked["nonce"], |_| {});
    assert_eq!(ask(&at.cloud.gateway, "GET", &back(&mine), &mine.cookie).await.status, 200);
    at.cloud.clock.advance_ms(1_000);
    let said = ask(&at.cloud.gateway, "GET", &back(&mine), &mine.cookie).await;
    assert!(said.status == 401 && said.body.contains("too long ago"), "{}", said.body);
    assert_eq!(at.cloud.validate(mine.cookie.split_once('=').unwrap().1).await.status, 404, "it is no token");
}

#[tokio::test]
async fn an_id_token_of_another_login_or_for_somebody_else_is_refused() {
    let at = cloud().await;
    let ours = sent(&at, "websso/openid").await;
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 9] = [
        ("nonce", |claims| claims["nonce"] = json!("another")),
        ("no nonce", |claims| drop(claims.as_object_mut().unwrap().remove("nonce"))),
        ("audience", |claims| claims["aud"] = json!("nubo")),
        ("a list in a word", |claims| claims["aud"] = json!("x;our client")),
        ("several, and for nobody", |claims| claims["aud"] = json!(["our client", "other"])),
        ("another party", |claims| claims["azp"] = json!("other")),
        ("issuer", |claims| claims["iss"] = json!("https://other.example")),
        ("time", |claims| claims["exp"] = json!(1)),
        ("no end", |claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
    ];
    for (what, change) in changes {
        grant(&at, &ours.asked["nonce"], change);
        let said = ask(&at.cloud.gateway, "GET", &back(&ours), &ours.cookie).await;
        assert_eq!(said.status, 401, "{what}: {}", said.body);
    }
    grant(&at, &ours.asked["nonce"], |claims| (claims["aud"], claims["azp"]) = (json!(["our client", "x"]), json!("our client")));
    assert_eq!(ask(&at.cloud.gateway, "GET", &back(&ours), &ours.cookie).await.status, 200);
    let unsigned = |answer: &str| answer.replace("\"}", "A\"}");
    let answer = at.idp.answer.lock().unwrap().clone().unwrap();
    *at.idp.answer.lock().unwrap() = Some((200, unsigned(&answer.1).replace("eyJhbGci", "eyJhbGcj")));
    assert_eq!(ask(&at.cloud.gateway, "GET", &back(&ours), &ours.cookie).await.status, 401);
}

#[tokio::test]
async fn a_provider_that_says_no_or_nothing_makes_no_token() {
    let at = cloud().await;
    let ours = sent(&at, "websso/openid").await;
    for (answer, status) in [
        (Some((400, json!({"error": "invalid_grant"}).to_string())), 401),
        (Some((401, json!({"error": "invalid_client"}).to_string())), 503),
        (Some((200, json!({"access_token": "x"}).to_string())), 503),
        (Some((200, "<html>".into())), 503),
        (Some((500, String::new())), 503),
        (None, 503),
    ] {
        *at.idp.answer.lock().unwrap() = answer.clone();
        let said = ask(&at.cloud.gateway, "GET", &back(&ours), &ours.cookie).await;
        assert_eq!(said.status, status, "{answer:?}: {}", said.body);
    }
}

#[tokio::test]
async fn nobody_is_sent_away_before_everything_holds() {
    let at = cloud().await;
    let websso = "/identity/v3/auth/OS-FEDERATION/websso/openid";
    let corp = "/identity/v3/auth/OS-FEDERATION/identity_providers/corp/protocols";
    for (uri, status) in [
        (websso.to_owned(), 400),
        (format!("{websso}?origin=https://evil/"), 401),
        (format!("{websso}?origin={DASHBOARD}evil"), 401),
        (format!("/identity/v3/auth/OS-FEDERATION/websso/none?origin={DASHBOARD}"), 401),
        (format!("{corp}/none/websso?origin={DASHBOARD}"), 401),
        (format!("{websso}?origin={DASHBOARD}"), 303),
    ] {
        for method in ["GET", "POST"] {
            let said = ask(&at.cloud.gateway, method, &uri, "").await;
            assert_eq!((said.status, said.headers.contains_key(LOCATION)), (status, status == 303), "{uri}: {}", said.body);
        }
    }
    let disable = json!({"identity_provider": {"enabled": false}});
    assert_eq!(at.cloud.patch("/v3/OS-FEDERATION/identity_providers/corp", disable).await.status, 200);
    let said = ask(&at.cloud.gateway, "GET", &format!("{corp}/openid/websso?origin={DASHBOARD}"), "").await;
    assert_eq!(said.status, 403, "{}", said.body);
    let without = Federated::new().await;
    let said = ask(&without.cloud.gateway, "GET", &format!("{websso}?origin={DASHBOARD}"), "").await;
    assert_eq!(said.status, 401, "without a client_id a bearer's token is wanted: {}", said.body);
}

#[tokio::test]
async fn who_is_on_the_way_when_the_provider_is_disabled_does_not_arrive() {
    let at = cloud().await;
    let ours = sent(&at, "websso/openid").await;
    grant(&at, &ours.asked["nonce"], |_| {});
    let disable = json!({"identity_provider": {"enabled": false}});
    assert_eq!(at.cloud.patch("/v3/OS-FEDERATION/identity_providers/corp", disable).await.status, 200);
    assert_eq!(ask(&at.cloud.gateway, "GET", &back(&ours), &ours.cookie).await.status, 403);
}

#[tokio::test]
async fn a_provider_that_is_down_is_not_asked_all_the_time() {
    let at = Federated::with(client).await;
    // Its discovery document knows no logins, and comes back with them later.
    let uri = format!("/identity/v3/auth/OS-FEDERATION/websso/openid?origin={DASHBOARD}");
    for _ in 0..3 {
        assert_eq!(ask(&at.cloud.gateway, "GET", &uri, "").await.status, 503);
    }
    assert_eq!(at.idp.asked(), 1);
    let evil = json!({"issuer": ISSUER, "token_endpoint": "http://plain/token", "authorization_endpoint": ISSUER});
    for (document, status) in [
        (evil.clone(), 503),
        (json!({"issuer": "https://evil", "token_endpoint": ISSUER, "authorization_endpoint": ISSUER}), 503),
        (json!({"issuer": ISSUER, "token_endpoint": ISSUER, "authorization_endpoint": format!("{ISSUER}#x")}), 503),
        (json!({"issuer": ISSUER, "token_endpoint": ISSUER, "authorization_endpoint": ISSUER}), 303),
        (evil, 303),
    ] {
        at.cloud.clock.advance_ms(10_000);
        let place = format!("{ISSUER}/.well-known/openid-configuration");
        at.idp.documents.lock().unwrap().insert(place, document.to_string());
        assert_eq!(ask(&at.cloud.gateway, "GET", &uri, "").await.status, status, "{document}");
    }
}

#[tokio::test]
async fn a_secret_goes_as_the_provider_takes_it() {
    for (methods, secret, in_form) in [
        (json!(["client_secret_post"]), Some("geheim"), Some("geheim")),
        (json!(["client_secret_post", "client_secret_basic"]), Some("geheim"), None),
        (json!(["none"]), None, None),
    ] {
        let at = cloud_with(|options| {
            options.issuers[0].client_id = Some("us".into());
            options.issuers[0].client_secret = secret.map(ClientSecret::new);
            options.issuers[0].scopes = Some(vec!["openid".into(), "groups".into()]);
        })
        .await;
        {
            let mut documents = at.idp.documents.lock().unwrap();
            let document = documents.get_mut(&format!("{ISSUER}/.well-known/openid-configuration")).unwrap();
            let mut changed: Value = serde_json::from_str(document).unwrap();
            changed["token_endpoint_auth_methods_supported"] = methods.clone();
            *document = changed.to_string();
        }
        let ours = sent(&at, "websso/openid").await;
        assert_eq!(ours.asked["scope"], "openid groups");
        grant(&at, &ours.asked["nonce"], |claims| claims["aud"] = json!("us"));
        assert_eq!(ask(&at.cloud.gateway, "GET", &back(&ours), &ours.cookie).await.status, 200);
        let (authorization, form) = at.idp.sent.lock().unwrap().pop().unwrap();
        let form = rest::Query::parse(&form).unwrap();
        assert_eq!((form.get("client_secret"), authorization.is_some()), (in_form, secret.is_some() && in_form.is_none()));
        assert_eq!(form.get("client_id").is_some(), authorization.is_none(), "{methods}");
    }
}

#[test]
fn settings_of_clients_that_cannot_be_kept_are_refused() {
    let issuer = |more: Value| {
        let mut all = json!({"issuer": ISSUER, "audience": ["nubo"]});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let issuer: Issuer = serde_json::from_value(all).unwrap();
        assert!(!format!("{issuer:?}").contains("geheim"), "no secret is shown");
        Options { issuers: vec![issuer], ..Options::default() }.check()
    };
    issuer(json!({})).unwrap();
    issuer(json!({"client_id": "us", "client_secret": "geheim", "scopes": ["openid"]})).unwrap();
    for more in [
        json!({"client_secret": "geheim"}),
        json!({"scopes": ["openid"]}),
        json!({"client_id": ""}),
        json!({"client_id": "us", "client_secret": ""}),
        json!({"client_id": "us", "scopes": ["profile"]}),
        json!({"client_id": "us", "scopes": ["openid", "two words"]}),
    ] {
        assert!(issuer(more.clone()).is_err(), "{more}");
    }
}
