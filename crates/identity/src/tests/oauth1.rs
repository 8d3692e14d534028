//! OAuth 1.0a from the consumer to the token.

use super::*;
use crate::escape::percent;
use base64::Engine;
use hmac::Mac;

/// The header of a request that a consumer signs.
fn signed(cloud: &Cloud, path: &str, consumer: (&str, &str), token: (&str, &str), more: &[(&str, &str)]) -> String {
    let at = (cloud.identity.env.now().micros() / 1_000_000).to_string();
    let mut pairs = vec![
        ("oauth_consumer_key", consumer.0),
        ("oauth_nonce", "1234"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", &at),
        ("oauth_version", "1.0"),
    ];
    if !token.0.is_empty() {
        pairs.push(("oauth_token", token.0));
    }
    pairs.extend(more);
    pairs.sort();
    let normalized: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    let url = format!("http://cloud/identity{path}");
    let text = format!("POST&{}&{}", percent(&url), percent(&normalized.join("&")));
    let key = format!("{}&{}", consumer.1, token.1);
    let mac = <hmac::Hmac<sha1::Sha1> as Mac>::new_from_slice(key.as_bytes()).unwrap();
    let signature = base64::prelude::BASE64_STANDARD.encode(mac.chain_update(text).finalize().into_bytes());
    pairs.push(("oauth_signature", &signature));
    let parts: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", percent(value))).collect();
    format!("OAuth {}", parts.join(", "))
}

/// Asks with a signed header; the answer is a form.
async fn form(cloud: &Cloud, path: &str, headers: &[(&str, &str)]) -> (u16, Vec<String>) {
    cloud.clock.advance_ms(1);
    let mut request = http::Request::builder().method("POST").uri(format!("/identity{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = cloud.gateway.handle(request.body(Body::empty()).unwrap()).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    (status, text.split('&').map(|pair| pair.split_once('=').map_or("", |pair| pair.1).to_owned()).collect())
}

const REQUEST: &str = "/v3/OS-OAUTH1/request_token";
const ACCESS: &str = "/v3/OS-OAUTH1/access_token";

async fn login(cloud: &Cloud, header: &str, scope: Value) -> Answer {
    let mut auth = json!({"identity": {"methods": ["oauth1"], "oauth1": {}}});
    if !scope.is_null() {
        auth["scope"] = scope;
    }
    cloud.ask("POST", "/v3/auth/tokens", &[("authorization", header)], Some(json!({ "auth": auth }))).await
}

#[tokio::test]
async fn a_consumer_gets_what_a_user_lends_it_and_no_more() {
    let cloud = Cloud::new().await;
    let made = cloud.post("/v3/OS-OAUTH1/consumers", json!({"consumer": {"description": "c"}})).await.body;
    let (id, secret) = (made["consumer"]["id"].as_str().unwrap(), made["consumer"]["secret"].as_str().unwrap());
    let consumer = (id, secret);
    let project = cloud.id("projects", "admin").await;
    let callback = [("oauth_callback", "oob")];
    let header = signed(&cloud, REQUEST, consumer, ("", ""), &callback);
    let ask = async |header: &str, project: &str| {
        form(&cloud, REQUEST, &[("authorization", header), ("requested-project-id", project)]).await
    };
    let (status, request) = ask(&header, &project).await;
    assert_eq!(status, 201);
    let token = (request[0].as_str(), request[1].as_str());
    assert_eq!(request.len(), 3);
    let wrong = signed(&cloud, REQUEST, (id, "wrong"), ("", ""), &callback);
    assert_eq!(ask(&wrong, &project).await.0, 401);
    assert_eq!(ask(&signed(&cloud, REQUEST, ("absent", secret), ("", ""), &callback), &project).await.0, 401);
    assert_eq!(ask(&header, "absent").await.0, 404);
    assert_eq!(ask(&header, "").await.0, 400);
    assert_eq!(form(&cloud, REQUEST, &[("requested-project-id", &project)]).await.0, 400);

    let early = signed(&cloud, ACCESS, consumer, token, &[("oauth_verifier", "abcdefgh")]);
    assert_eq!(form(&cloud, ACCESS, &[("authorization", &early)]).await.0, 401, "nobody has allowed it yet");
    let path = format!("/v3/OS-OAUTH1/authorize/{}", token.0);
    let body = |name: &str| Some(json!({"roles": [{"name": name}]}));
    assert_eq!(cloud.by(&cloud.admin, "PUT", &path, body("service")).await.status, 401, "a role that the user lacks");
    assert_eq!(cloud.by(&cloud.admin, "PUT", &path, body("absent")).await.status, 404);
    let bad = Some(json!({"roles": [{"id": "x", "name": "y"}]}));
    assert_eq!(cloud.by(&cloud.admin, "PUT", &path, bad).await.status, 400);
    let allowed = cloud.by(&cloud.admin, "PUT", &path, body("member")).await;
    assert_eq!(allowed.status, 200, "{}", allowed.body);
    let verifier = allowed.body["token"]["oauth_verifier"].as_str().unwrap();
    assert_eq!(verifier.len(), 8);
    let forged = signed(&cloud, ACCESS, consumer, token, &[("oauth_verifier", "abcdefgh")]);
    assert_eq!(form(&cloud, ACCESS, &[("authorization", &forged)]).await.0, 401);
    let header = signed(&cloud, ACCESS, consumer, token, &[("oauth_verifier", verifier)]);
    let (status, access) = form(&cloud, ACCESS, &[("authorization", &header)]).await;
    assert_eq!(status, 201);
    assert_eq!(form(&cloud, ACCESS, &[("authorization", &header)]).await.0, 404, "it is used up");

    let access = (access[0].as_str(), access[1].as_str());
    let header = signed(&cloud, "/v3/auth/tokens", consumer, access, &[]);
    let answer = login(&cloud, &header, Value::Null).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let shown = &answer.body["token"];
    assert_eq!(shown["methods"], json!(["oauth1"]));
    assert_eq!(shown["OS-OAUTH1"], json!({"access_token_id": access.0, "consumer_id": id}));
    assert_eq!(shown["project"]["id"], json!(project));
    let mut roles = names(&shown["roles"], "name");
    roles.sort();
    assert_eq!(roles, ["member", "reader"], "what was lent, with what it implies");
    assert_eq!(cloud.validate(&answer.token).await.status, 200);
    assert_eq!(cloud.by(&answer.token, "GET", "/v3/users", None).await.status, 403);
    let again = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": answer.token}}}});
    assert_eq!(cloud.ask("POST", "/v3/auth/tokens", &[], Some(again)).await.status, 403);
    let scope = json!({"project": project_named("demo")});
    assert_eq!(login(&cloud, &header, scope).await.status, 400);
    let forged = signed(&cloud, "/v3/auth/tokens", consumer, (access.0, "wrong"), &[]);
    assert_eq!(login(&cloud, &forged, Value::Null).await.status, 401);
    let bare = json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}});
    assert_eq!(cloud.ask("POST", "/v3/auth/tokens", &[], Some(bare)).await.status, 400);

    let user = cloud.id("users", "admin").await;
    let tokens = format!("/v3/users/{user}/OS-OAUTH1/access_tokens");
    let list = cloud.get(&tokens).await.body["access_tokens"].clone();
    assert_eq!((names(&list, "id"), names(&list, "consumer_id")), (vec![access.0.to_owned()], vec![id.to_owned()]));
    let one = format!("{tokens}/{}", access.0);
    assert_eq!(cloud.get(&one).await.body["access_token"]["project_id"], json!(project));
    assert_eq!(names(&cloud.get(&format!("{one}/roles")).await.body["roles"], "name"), ["member"]);
    let member = cloud.id("roles", "member").await;
    assert_eq!(cloud.get(&format!("{one}/roles/{member}")).await.body["role"]["name"], "member");
    assert_eq!(cloud.get(&format!("{one}/roles/absent")).await.status, 404);
    let other = cloud.id("users", "demo").await;
    assert_eq!(cloud.get(&format!("/v3/users/{other}/OS-OAUTH1/access_tokens/{}", access.0)).await.status, 404);
    assert_eq!(cloud.delete(&one).await, 204);
    assert_eq!(cloud.validate(&answer.token).await.status, 404, "what was made with it ends with it");
    let header = signed(&cloud, "/v3/auth/tokens", consumer, access, &[]);
    assert_eq!(login(&cloud, &header, Value::Null).await.status, 404);
}

#[tokio::test]
async fn with_a_consumer_go_its_tokens_and_old_requests_end() {
    let cloud = Cloud::new().await;
    let made = cloud.post("/v3/OS-OAUTH1/consumers", json!({"consumer": {}})).await.body;
    let (id, secret) = (made["consumer"]["id"].as_str().unwrap(), made["consumer"]["secret"].as_str().unwrap());
    let project = cloud.id("projects", "admin").await;
    let ask = async || {
        let header = signed(&cloud, REQUEST, (id, secret), ("", ""), &[("oauth_callback", "oob")]);
        form(&cloud, REQUEST, &[("authorization", &header), ("requested-project-id", &project)]).await.1
    };
    let first = ask().await;
    cloud.clock.advance_ms(28_801_000);
    let admin = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    let authorize = async |token: &str| {
        let path = format!("/v3/OS-OAUTH1/authorize/{token}");
        cloud.by(&admin, "PUT", &path, Some(json!({"roles": []}))).await.status
    };
    assert_eq!(authorize(&first[0]).await, 401, "it has expired");
    let second = ask().await;
    assert_eq!(authorize(&first[0]).await, 404, "and was swept when the consumer asked again");
    assert_eq!(authorize(&second[0]).await, 200);
    let path = format!("/v3/OS-OAUTH1/consumers/{id}");
    assert_eq!(cloud.by(&admin, "DELETE", &path, None).await.status, 204);
    assert_eq!(authorize(&second[0]).await, 404);
}
