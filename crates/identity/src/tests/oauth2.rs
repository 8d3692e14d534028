//! Client credentials of OAuth 2.0.

use super::*;
use crate::login_limit::Rate;
use base64::Engine;

const FORM: &str = "application/x-www-form-urlencoded";
const GRANT: &str = "grant_type=client_credentials";

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{id}:{secret}")))
}

struct Said {
    status: u16,
    headers: http::HeaderMap,
    body: Value,
}

impl Said {
    fn error(&self) -> (u16, &str) {
        (self.status, self.body["error"].as_str().unwrap())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn ask(cloud: &Cloud, method: &str, kind: &str, authorization: Option<&str>, body: impl Into<Body>) -> Said {
    cloud.clock.advance_ms(1);
    let mut request = http::Request::builder().method(method).uri("/identity/v3/OS-OAUTH2/token");
    request = request.header("content-type", kind);
    if let Some(text) = authorization {
        request = request.header("authorization", text);
    }
    let answer = cloud.gateway.handle(request.body(body.into()).unwrap()).await;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    Said { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

/// An application credential of the user demo: its id, and its secret is `geheim`.
async fn credential(cloud: &Cloud, more: Value) -> String {
    let token = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token;
    let user = cloud.id("users", "demo").await;
    let mut wanted = json!({"name": cloud.identity.env.uuid_hex(), "secret": "geheim"});
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let path = format!("/v3/users/{user}/application_credentials");
    let made = cloud.by(&token, "POST", &path, Some(json!({ "application_credential": wanted }))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body["application_credential"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_gets_a_token_of_its_application_credential() {
    let cloud = Cloud::new().await;
    let id = credential(&cloud, json!({})).await;
    let in_form = format!("{GRANT}&client_id={id}&client_secret=geheim&scope=ignored");
    let header = basic(&id, "geheim");
    for (authorization, form) in [(Some(header.as_str()), GRANT), (None, in_form.as_str())] {
        let said = ask(&cloud, "POST", FORM, authorization, form.to_owned()).await;
        assert_eq!(said.status, 200, "{}", said.body);
        assert_eq!((&said.body["token_type"], &said.body["expires_in"]), (&json!("Bearer"), &json!(3600)));
        assert_eq!(said.header("cache-control"), Some("no-store"));
        let shown = cloud.validate(said.body["access_token"].as_str().unwrap()).await;
        assert_eq!(shown.body["token"]["application_credential"]["id"], json!(id));
        assert_eq!(shown.body["token"]["methods"], json!(["application_credential"]));
        assert_eq!(shown.body["token"]["project"]["name"], "demo");
    }
    let soon = credential(&cloud, json!({"expires_at": "2026-01-01T00:10:00"})).await;
    let said = ask(&cloud, "POST", FORM, Some(&basic(&soon, "geheim")), GRANT).await;
    assert_eq!((said.status, &said.body["expires_in"]), (200, &json!(600)), "it ends with the credential");
}

#[tokio::test]
async fn what_is_refused_is_refused_in_the_words_of_oauth() {
    let cloud = Cloud::new().await;
    let id = credential(&cloud, json!({})).await;
    let good = basic(&id, "geheim");
    for (kind, authorization, form, expected) in [
        (FORM, Some(good.as_str()), "", (400, "invalid_request")),
        (FORM, Some(&good), "grant_type=", (400, "unsupported_grant_type")),
        (FORM, Some(&good), "grant_type=password", (400, "unsupported_grant_type")),
        ("application/json", Some(&good), r#"{"grant_type": "client_credentials"}"#, (400, "invalid_request")),
        (FORM, None, GRANT, (401, "invalid_client")),
        (FORM, None, &format!("{GRANT}&client_id={id}"), (401, "invalid_client")),
        (FORM, Some(&basic(&id, "wrong")), GRANT, (401, "invalid_client")),
        (FORM, Some(&basic(&id, "")), GRANT, (401, "invalid_client")),
        (FORM, Some(&basic("nobody", "geheim")), GRANT, (401, "invalid_client")),
        (FORM, Some("Basic ???"), GRANT, (401, "invalid_client")),
        (FORM, Some("Basic bm9ib2R5"), GRANT, (401, "invalid_client")),
        (FORM, Some("Bearer x"), GRANT, (401, "invalid_client")),
        (FORM, Some(&good), &format!("{GRANT}&x={}", "y".repeat(20_000)), (413, "other_error")),
        (FORM, Some(&good), &format!("{GRANT}{}", "&a=b".repeat(300)), (400, "invalid_request")),
    ] {
        let said = ask(&cloud, "POST", kind, authorization, form.to_owned()).await;
        assert_eq!(said.error(), expected, "{form:.80} {authorization:?}");
        assert!(said.body["error_description"].as_str().is_some_and(|text| !text.is_empty()));
        let scheme = said.header("www-authenticate");
        assert_eq!(scheme, (expected.0 == 401).then_some("Keystone uri=\"http://cloud/identity/v3\""), "{form:.80}");
    }
    let said = ask(&cloud, "POST", FORM, Some(&good), vec![0xff, 0xfe]).await;
    assert_eq!(said.error(), (400, "invalid_request"));
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        let said = ask(&cloud, method, FORM, Some(&good), "").await;
        assert_eq!((said.error(), said.header("allow")), ((405, "other_error"), Some("POST")), "{method}");
    }
    assert_eq!(ask(&cloud, "HEAD", FORM, None, "").await.status, 405);
}

#[tokio::test]
async fn a_client_that_fails_often_waits() {
    let store = store::Options { kinds: kinds(), ..store::Options::memory() };
    let rate = |burst| Rate { burst, per_minute: 1 };
    let login_limit = login_limit::Options { per_user: rate(2), per_source: rate(8), trusted_proxies: Vec::new() };
    let cloud = Cloud::on(store, Options { login_limit, ..Options::default() }).await;
    let id = credential(&cloud, json!({})).await;
    for _ in 0..2 {
        assert_eq!(ask(&cloud, "POST", FORM, Some(&basic(&id, "wrong")), GRANT).await.status, 401);
    }
    let said = ask(&cloud, "POST", FORM, Some(&basic(&id, "geheim")), GRANT).await;
    assert_eq!((said.error(), said.header("retry-after")), ((429, "other_error"), Some("60")));
}
