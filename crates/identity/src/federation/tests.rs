//! Mappings as Keystone applies them, and logins by tokens of an issuer that lives in the test.

use super::oidc::{Fetch, Issuer, Options};
use super::rules::{Assertion, Rules};
use crate::tests::{Answer, Cloud};
use base::{Fault, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL;
use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a real Keystone makes of mappings; `tests/conformance/golden-mappings` writes it.
const GOLDEN: &str = include_str!("mappings.json");
const RSA: &str = include_str!("rsa_test_key.b64");
pub(super) const ISSUER: &str = "https://idp.example";

#[test]
fn mappings_come_to_what_keystone_makes_of_them() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let said = golden["assertion"].as_object().unwrap().iter();
    let said: Assertion =
        said.map(|(name, text)| (name.clone(), text.as_str().unwrap().split(';').map(str::to_owned).collect())).collect();
    let domain = |domain: Option<&super::rules::DomainRef>| domain.map(|d| json!({"id": d.id, "name": d.name}));
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 35);
    for case in cases {
        let rules = Rules::read(case["schema_version"].as_str().unwrap(), &case["rules"]).unwrap();
        let made = rules.apply(&said).map_or(Value::Null, |made| {
            let mut names: Vec<_> = made.group_names.iter().map(|(name, d)| json!([name, domain(Some(d))])).collect();
            names.sort_by_key(Value::to_string);
            let projects = made.projects.iter();
            json!({
                "id": made.id, "name": made.name, "email": made.email, "domain": domain(made.domain.as_ref()),
                "local": made.local, "group_ids": made.group_ids, "group_names": names,
                "projects": projects.map(|p| json!({"name": p.name, "domain": domain(p.domain.as_ref()), "roles": p.roles}))
                    .collect::<Vec<_>>(),
            })
        });
        let mut expected = case["made"].clone();
        if let Some(names) = expected.get_mut("group_names").and_then(Value::as_array_mut) {
            names.sort_by_key(Value::to_string);
        }
        assert_eq!(made, expected, "{}", case["rules"]);
    }
}

#[test]
fn what_is_no_mapping_is_refused_with_the_place() {
    let remote = json!([{"type": "a"}]);
    let one = |local: Value, remote: Value| json!([{"local": local, "remote": remote}]);
    let deep = "(?=x)y";
    for (version, rules, said) in [
        ("1.0", json!([]), "there are 0 rules"),
        ("4", one(json!([]), remote.clone()), "none of 1.0, 2.0 and 3.0"),
        ("1.0", json!({}), "invalid type"),
        ("1.0", json!([{"local": []}]), "missing field `remote`"),
        ("1.0", one(json!([]), json!([])), "remote 1 to 64"),
        ("1.0", one(json!([{"user": {"nam": "x"}}]), remote.clone()), "unknown field `nam`"),
        ("1.0", one(json!([{"user": {"type": "x"}}]), remote.clone()), "ephemeral or local"),
        ("1.0", one(json!([{"user": {"name": "{1}"}}]), remote.clone()), "asks for value 1"),
        ("1.0", one(json!([{"user": {"name": "{0}"}}]), json!([{"type": "a", "any_one_of": ["x"]}])), "gives 0"),
        ("1.0", one(json!([{"group": {"id": "x", "name": "y"}}]), remote.clone()), "an id, or a name and a domain"),
        ("1.0", one(json!([{"projects": [{"name": "p", "roles": [], "domain": {}}]}]), remote.clone()), "version 2.0"),
        ("2.0", one(json!([{"projects_json": "{0}"}]), remote.clone()), "version 3.0"),
        ("1.0", one(json!([]), json!([{"type": "a", "whitelist": [], "blacklist": []}])), "at most one of"),
        ("1.0", one(json!([]), json!([{"type": "a", "regex": true}])), "regex only with one"),
        ("1.0", one(json!([]), json!([{"type": "a", "any_one_of": [deep], "regex": true}])), "cannot be read"),
    ] {
        let refused = Rules::read(version, &rules).unwrap_err().message;
        assert!(refused.contains(said), "{rules}: {refused}");
    }
}

/// An issuer with two keys, which counts how often it is asked.
#[derive(Debug, Default)]
pub(super) struct Idp {
    asked: AtomicUsize,
    pub documents: Mutex<BTreeMap<String, String>>,
    /// What its token endpoint was sent: the header, and the form.
    pub sent: Mutex<Vec<(Option<String>, String)>>,
    /// What its token endpoint answers.
    pub answer: Mutex<Option<(u16, String)>>,
}

#[async_trait::async_trait]
impl Fetch for Idp {
    async fn get(&self, url: &str) -> Result<Bytes> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.documents.lock().unwrap().get(url).cloned();
        found.map(Bytes::from).ok_or_else(|| Fault::unavailable("nobody answers"))
    }

    async fn post(&self, url: &str, authorization: Option<&str>, form: String) -> Result<(u16, Bytes)> {
        assert_eq!(url, format!("{ISSUER}/token"));
        self.sent.lock().unwrap().push((authorization.map(str::to_owned), form));
        let answer = self.answer.lock().unwrap().clone();
        let answer = answer.ok_or_else(|| Fault::unavailable("nobody answers"))?;
        Ok((answer.0, answer.1.into()))
    }
}

impl Idp {
    /// How often.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub(super) struct Keys {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

impl Keys {
    fn new() -> Keys {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap();
        Keys { ec, rsa: RsaKeyPair::from_der(&BASE64_STANDARD.decode(RSA.trim()).unwrap()).unwrap() }
    }

    fn set(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        json!({"keys": [
            {"kty": "oct", "kid": "other", "k": "AAAA"},
            {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": URL.encode(public.n), "e": URL.encode(public.e)},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": URL.encode(&point[1..33]), "y": URL.encode(&point[33..])},
        ]})
    }

    pub fn token(&self, header: Value, claims: &Value) -> String {
        let signed = format!("{}.{}", URL.encode(header.to_string()), URL.encode(claims.to_string()));
        let signature = if header["alg"] == "RS256" {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
            signature
        } else {
            self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
        };
        format!("{signed}.{}", URL.encode(signature))
    }
}

pub(super) struct Federated {
    pub cloud: Cloud,
    pub keys: Keys,
    pub idp: Arc<Idp>,
    group: String,
    project: String,
    member: String,
}

const AUTH: &str = "/v3/OS-FEDERATION/identity_providers/corp/protocols/openid/auth";

impl Federated {
    /// A provider `corp` whose developers may work in a project.
    pub async fn new() -> Federated {
        Federated::with(|_| {}).await
    }

    /// With other settings.
    pub async fn with(change: impl FnOnce(&mut Options)) -> Federated {
        let (idp, keys) = (Arc::new(Idp::default()), Keys::new());
        {
            let mut documents = idp.documents.lock().unwrap();
            let place = format!("{ISSUER}/keys");
            let discovery = json!({"issuer": ISSUER, "jwks_uri": place}).to_string();
            documents.insert(format!("{ISSUER}/.well-known/openid-configuration"), discovery);
            documents.insert(place, keys.set().to_string());
        }
        let issuer = |issuer: &str| Issuer {
            issuer: issuer.into(),
            audience: vec!["nubo".into()],
            jwks_uri: None,
            clock_skew: 60,
            client_id: None,
            client_secret: None,
            client_secret_file: None,
            scopes: None,
        };
        let mut federation = Options {
            issuers: vec![issuer(ISSUER), issuer("https://other.example")],
            trusted_dashboards: vec!["https://dashboard/auth/websso/".into()],
            web: Some(idp.clone()),
            saml: None,
        };
        change(&mut federation);
        let store = store::Options { kinds: crate::kinds(), ..store::Options::memory() };
        let cloud = Cloud::on(store, crate::Options { federation, ..crate::Options::default() }).await;
        let group = cloud.made("/v3/groups", "group", json!({"name": "developers"})).await;
        let project = cloud.made("/v3/projects", "project", json!({"name": "work"})).await;
        let member = cloud.id("roles", "member").await;
        assert_eq!(cloud.put(&format!("/v3/projects/{project}/groups/{group}/roles/{member}")).await, 204);
        let made = Federated { cloud, keys, idp, group, project, member };
        made.mapping().await;
        made.provider().await;
        made
    }

    async fn provider(&self) {
        let provider = json!({"identity_provider": {"enabled": true, "remote_ids": [ISSUER], "domain_id": "default"}});
        self.put("identity_providers/corp", provider).await;
        self.put("identity_providers/corp/protocols/openid", json!({"protocol": {"mapping_id": "people"}})).await;
    }

    async fn mapping(&self) {
        let rules = json!([
            {"local": [{"user": {"name": "{0}", "id": "{1}", "email": "{2}"}}],
             "remote": [{"type": "HTTP_OIDC_NAME"}, {"type": "OIDC-sub"}, {"type": "OIDC-email"}]},
            {"local": [{"groups": "{0}", "domain": {"id": "default"}}], "remote": [{"type": "OIDC-groups"}]},
        ]);
        self.put("mappings/people", json!({"mapping": {"rules": rules}})).await;
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        let answer = self.cloud.by(&self.cloud.admin, "PUT", &format!("/v3/OS-FEDERATION/{path}"), Some(body)).await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.body);
        answer.body
    }

    pub fn claims(&self) -> Value {
        let now = self.cloud.identity.env.now().micros() / 1_000_000;
        json!({"iss": ISSUER, "sub": "0042", "aud": ["nubo", "x"], "exp": now + 300, "iat": now, "name": "bob",
            "email": "bob@example.org", "groups": ["developers", "nobody has this"]})
    }

    async fn login(&self, token: &str) -> Answer {
        self.cloud.ask("POST", AUTH, &[("authorization", &format!("Bearer {token}"))], None).await
    }

    async fn says(&self, change: impl FnOnce(&mut Value)) -> Answer {
        let mut claims = self.claims();
        change(&mut claims);
        self.login(&self.keys.token(json!({"alg": "ES256", "kid": "ec"}), &claims)).await
    }
}

#[tokio::test]
async fn whom_a_provider_knows_logs_in_and_works_where_its_groups_may() {
    let at = Federated::new().await;
    let first = at.says(|_| {}).await;
    assert_eq!(first.status, 201, "{}", first.body);
    let token = &first.body["token"];
    assert_eq!(token["methods"], json!(["openid"]));
    assert_eq!((&token["user"]["name"], &token["user"]["domain"]["id"]), (&json!("bob"), &json!("default")));
    let expected = json!({"groups": [{"id": at.group}], "identity_provider": {"id": "corp"}, "protocol": {"id": "openid"}});
    assert_eq!(token["user"]["OS-FEDERATION"], expected);
    assert!(token["user"].get("password_expires_at").is_none() && token.get("project").is_none());
    let id = token["user"]["id"].as_str().unwrap().to_owned();
    // As Keystone's generator of public ids has it.
    use sha2::Digest;
    let sum = sha2::Sha256::digest(b"defaultuser0042");
    assert_eq!(id, sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    for path in ["/v3/auth/projects", "/v3/OS-FEDERATION/projects"] {
        let listed = at.cloud.by(&first.token, "GET", path, None).await;
        assert_eq!(listed.body["projects"][0]["id"], at.project, "{path}");
    }
    let scope = json!({"project": {"id": at.project}});
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": first.token}}, "scope": scope}});
    let scoped = at.cloud.ask("POST", "/v3/auth/tokens", &[], Some(body)).await;
    assert_eq!((scoped.status, &scoped.body["token"]["methods"]), (201, &json!(["openid", "token"])), "{}", scoped.body);
    assert_eq!(scoped.body["token"]["user"]["OS-FEDERATION"], expected);
    let roles = crate::tests::names(&scoped.body["token"]["roles"], "name");
    assert_eq!(roles.iter().filter(|role| ["member", "reader"].contains(&role.as_str())).count(), 2);
    assert_eq!(at.cloud.validate(&scoped.token).await.body["token"]["user"]["OS-FEDERATION"], expected);
    let shown = at.cloud.get(&format!("/v3/users/{id}")).await.body;
    let federated = json!([{"idp_id": "corp", "protocols": [{"protocol_id": "openid", "unique_id": "0042"}]}]);
    assert_eq!((&shown["user"]["federated"], &shown["user"]["email"]), (&federated, &json!("bob@example.org")));
    assert_eq!(at.cloud.get("/v3/users?idp_id=corp&unique_id=0042").await.body["users"].as_array().unwrap().len(), 1);
    assert_eq!(at.cloud.get("/v3/users?idp_id=none").await.body["users"], json!([]));
    // Renamed there is renamed here; a local user of the name is another.
    at.cloud.made("/v3/users", "user", json!({"name": "bobby", "password": "x"})).await;
    let again = at.says(|claims| claims["name"] = "bobby".into()).await;
    assert_eq!((&again.body["token"]["user"]["id"], &again.body["token"]["user"]["name"]), (&json!(id), &json!("bobby")));
    // No longer in the group: a new token opens nothing there.
    let out = at.says(|claims| claims["groups"] = json!([])).await;
    assert_eq!(at.cloud.by(&out.token, "GET", "/v3/auth/projects", None).await.body["projects"], json!([]));
    // A disabled provider ends what was made, and a deleted one takes its users along.
    let path = "/v3/OS-FEDERATION/identity_providers/corp";
    at.cloud.patch(path, json!({"identity_provider": {"enabled": false}})).await;
    assert_eq!(at.cloud.validate(&scoped.token).await.status, 404);
    assert_eq!(at.says(|_| {}).await.status, 403);
    at.cloud.patch(path, json!({"identity_provider": {"enabled": true}})).await;
    assert_eq!(at.cloud.validate(&scoped.token).await.status, 200);
    assert_eq!(at.cloud.delete(path).await, 204);
    assert_eq!(at.cloud.get(&format!("/v3/users/{id}")).await.status, 404);
    at.provider().await;
    assert_eq!(at.cloud.validate(&scoped.token).await.status, 404);
}

#[tokio::test]
async fn a_token_that_does_not_hold_opens_nothing() {
    let at = Federated::new().await;
    let now = at.cloud.identity.env.now().micros() / 1_000_000;
    for (name, value, status) in [
        ("exp", json!(now - 30), 201),
        ("exp", json!(now - 61), 401),
        ("exp", json!(null), 401),
        ("exp", json!("soon"), 401),
        ("nbf", json!(now + 120), 401),
        ("nbf", json!(now + 30), 201),
        ("iat", json!(now + 120), 401),
        ("aud", json!("nubo"), 201),
        ("aud", json!("another"), 401),
        ("aud", json!([]), 401),
        ("iss", json!("https://elsewhere.example"), 401),
        ("iss", json!(7), 401),
        // An issuer that counts, but is not this provider's; its keys cannot be had.
        ("iss", json!("https://other.example"), 503),
        // No rule names the user, and neither does the token.
        ("sub", json!(null), 401),
    ] {
        let answer = at.says(|claims| claims[name] = value.clone()).await;
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.body);
    }
    let claims = at.claims();
    let sign = |header: Value| at.keys.token(header, &claims);
    let rsa = sign(json!({"alg": "RS256", "kid": "rsa"}));
    assert_eq!(at.login(&rsa).await.status, 201);
    let (signed, _) = rsa.rsplit_once('.').unwrap();
    let none = format!("{}.{}.", URL.encode(json!({"alg": "none"}).to_string()), URL.encode(claims.to_string()));
    for (what, token) in [
        ("no algorithm", none),
        ("no signature", format!("{signed}.")),
        ("another's signature", format!("{signed}.{}", sign(json!({"alg": "ES256"})).rsplit_once('.').unwrap().1)),
        ("an algorithm of another key", sign(json!({"alg": "RS256", "kid": "ec"}))),
        ("a key that is not there", sign(json!({"alg": "ES256", "kid": "new"}))),
        ("an extension", sign(json!({"alg": "ES256", "kid": "ec", "crit": ["b64"]}))),
        ("a shared secret", sign(json!({"alg": "HS256", "kid": "other"}))),
        ("nonsense", "a.b.c".into()),
        ("nothing", String::new()),
    ] {
        assert_eq!(at.login(&token).await.status, 401, "{what}");
    }
    assert_eq!(at.cloud.ask("POST", AUTH, &[], None).await.status, 401);
    let elsewhere = AUTH.replace("corp", "none");
    let bearer = format!("Bearer {rsa}");
    assert_eq!(at.cloud.ask("POST", &elsewhere, &[("authorization", &bearer)], None).await.status, 404);
    // The issuer stands for no provider that does not name it.
    let path = "/v3/OS-FEDERATION/identity_providers/corp";
    at.cloud.patch(path, json!({"identity_provider": {"remote_ids": []}})).await;
    assert_eq!(at.login(&rsa).await.status, 403);
}

#[tokio::test]
async fn keys_are_asked_for_once_and_a_new_one_is_found() {
    let at = Federated::new().await;
    for _ in 0..3 {
        assert_eq!(at.says(|_| {}).await.status, 201);
    }
    assert_eq!(at.idp.asked.load(Ordering::SeqCst), 2, "discovery and keys");
    let new = Keys::new();
    let token = new.token(json!({"alg": "ES256", "kid": "new"}), &at.claims());
    assert_eq!(at.login(&token).await.status, 401);
    assert_eq!(at.idp.asked.load(Ordering::SeqCst), 2, "asked just now");
    let mut set = new.set();
    set["keys"][2]["kid"] = "new".into();
    at.idp.documents.lock().unwrap().insert(format!("{ISSUER}/keys"), set.to_string());
    at.cloud.clock.advance_ms(11_000);
    assert_eq!(at.login(&token).await.status, 201);
    assert_eq!(at.idp.asked.load(Ordering::SeqCst), 4);
    // Out of reach, it is believed by its last keys for a day.
    at.idp.documents.lock().unwrap().clear();
    for (wait_ms, status) in [(7_200_000, 201), (90_000_000, 503)] {
        at.cloud.clock.advance_ms(wait_ms);
        let token = new.token(json!({"alg": "ES256", "kid": "new"}), &at.claims());
        assert_eq!(at.login(&token).await.status, status);
    }
}

#[tokio::test]
async fn mappings_lend_memberships_and_give_projects() {
    let at = Federated::new().await;
    let path = "/v3/OS-FEDERATION/identity_providers/corp";
    at.cloud.patch(path, json!({"identity_provider": {"authorization_ttl": 60}})).await;
    let rules = |projects: Value| {
        json!({"mapping": {"schema_version": "3.0", "rules": [{
            "local": [{"user": {"name": "{0}"}}, {"group": {"id": at.group}}, {"projects": projects}],
            "remote": [{"type": "OIDC-name"}]}]}})
    };
    let given = json!([{"name": "own-{0}", "roles": [{"name": "member"}]}, {"name": "work", "roles": [{"name": "reader"}]}]);
    let mapping = "/v3/OS-FEDERATION/mappings/people";
    assert_eq!(at.cloud.patch(mapping, rules(given)).await.status, 200);
    let login = at.says(|_| {}).await;
    assert_eq!(login.status, 201, "{}", login.body);
    let user = login.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    let projects = async || {
        let listed = at.cloud.get(&format!("/v3/users/{user}/projects")).await.body;
        let mut names = crate::tests::names(&listed["projects"], "name");
        names.sort();
        names
    };
    assert_eq!(projects().await, ["own-bob", "work"]);
    let member = format!("/v3/groups/{}/users/{user}", at.group);
    assert_eq!(at.cloud.get(&member).await.status, 204);
    // Scoped by the membership that lasts, beyond the token's own groups.
    at.cloud.clock.advance_ms(59 * 60_000);
    let fresh = at.cloud.login("admin", "secret", json!({"project": crate::tests::project_named("admin")})).await.token;
    assert_eq!(at.cloud.by(&fresh, "GET", &member, None).await.status, 204);
    at.cloud.clock.advance_ms(2 * 60_000);
    assert_eq!(at.cloud.by(&fresh, "GET", &member, None).await.status, 404);
    at.cloud.identity.chores().await.unwrap();
    at.cloud.identity.sync().await.unwrap();
    assert_eq!(at.cloud.identity.model().memberships.find("user", &user).count(), 0);
    // What the provider no longer says goes.
    let one = rules(json!([{"name": "own-{0}", "roles": [{"name": "reader"}]}]));
    assert_eq!(at.cloud.by(&fresh, "PATCH", mapping, Some(one)).await.status, 200);
    assert_eq!(at.says(|_| {}).await.status, 201);
    let listed = at.cloud.by(&fresh, "GET", &format!("/v3/role_assignments?user.id={user}"), None).await.body;
    assert_eq!(listed["role_assignments"].as_array().unwrap().len(), 1, "{listed}");
    let wrong = rules(json!([{"name": "x", "roles": [{"name": "no such role"}]}]));
    assert_eq!(at.cloud.by(&fresh, "PATCH", mapping, Some(wrong)).await.status, 200);
    assert_eq!(at.says(|_| {}).await.status, 404);
    let local = json!({"mapping": {"rules": [{"local": [{"user": {"name": "demo", "type": "local",
        "domain": {"id": "default"}}}], "remote": [{"type": "OIDC-sub"}]}]}});
    assert_eq!(at.cloud.by(&fresh, "PATCH", mapping, Some(local)).await.status, 200);
    let demo = at.says(|_| {}).await.body;
    assert_eq!((&demo["token"]["user"]["name"], &demo["token"]["methods"]), (&json!("demo"), &json!(["openid"])));
    assert!(demo["token"]["user"].get("OS-FEDERATION").is_none() && !at.member.is_empty());
}

#[tokio::test]
async fn providers_protocols_mappings_and_service_providers_are_kept() {
    let at = Federated::new().await;
    let own = at.put("identity_providers/own", json!({"identity_provider": {"remote_ids": ["r"]}})).await;
    let domain = own["identity_provider"]["domain_id"].as_str().unwrap().to_owned();
    assert_eq!(own["identity_provider"]["enabled"], false);
    assert_eq!(at.cloud.get(&format!("/v3/domains/{domain}")).await.body["domain"]["name"], domain);
    let put = async |path: &str, body: Value| {
        at.cloud.by(&at.cloud.admin, "PUT", &format!("/v3/OS-FEDERATION/{path}"), Some(body)).await.status
    };
    let provider = |inner: Value| json!({ "identity_provider": inner });
    assert_eq!(put("identity_providers/own", provider(json!({}))).await, 409);
    assert_eq!(put("identity_providers/b", provider(json!({"remote_ids": ["r"]}))).await, 409);
    for bad in [
        json!({"x": 1}),
        json!({"enabled": "yes"}),
        json!({"remote_ids": "r"}),
        json!({"remote_ids": ["s", "s"]}),
        json!({"authorization_ttl": -1}),
        json!({"description": 1}),
    ] {
        assert_eq!(put("identity_providers/b", provider(bad.clone())).await, 400, "{bad}");
    }
    assert_eq!(put("identity_providers/b", provider(json!({"domain_id": "none"}))).await, 404);
    assert_eq!(put(&format!("identity_providers/{}", "x".repeat(65)), provider(json!({}))).await, 400);
    let protocol = |mapping: &str| json!({"protocol": {"mapping_id": mapping}});
    assert_eq!(put("identity_providers/none/protocols/p", protocol("people")).await, 404);
    assert_eq!(put("identity_providers/own/protocols/p", protocol("none")).await, 400);
    assert_eq!(put("identity_providers/own/protocols/p", json!({"protocol": {}})).await, 400);
    assert_eq!(put("identity_providers/own/protocols/p", protocol("people")).await, 201);
    let one = "/v3/OS-FEDERATION/identity_providers/own/protocols/p";
    let changed = at.cloud.patch(one, json!({"protocol": {"mapping_id": "people", "remote_id_attribute": "OIDC-tid"}}));
    assert_eq!(changed.await.body["protocol"]["remote_id_attribute"], "OIDC-tid");
    let all = at.cloud.get("/v3/OS-FEDERATION/identity_providers/own/protocols").await.body;
    assert_eq!(crate::tests::names(&all["protocols"], "id"), ["p"]);
    assert_eq!(at.cloud.delete(one).await, 204);
    assert_eq!(at.cloud.get(one).await.status, 404);
    let sp = |inner: Value| json!({ "service_provider": inner });
    let urls = json!({"auth_url": "https://sp/auth", "sp_url": "https://sp/saml", "enabled": true});
    assert_eq!(put("service_providers/far", sp(json!({"auth_url": "https://sp/auth"}))).await, 400);
    assert_eq!(put("service_providers/far", sp(json!({"auth_url": "ftp://x", "sp_url": "https://y"}))).await, 400);
    let made = at.put("service_providers/far", sp(urls)).await;
    assert_eq!(made["service_provider"]["relay_state_prefix"], "ss:mem:");
    let token = at.says(|_| {}).await.body;
    let expected = json!([{"id": "far", "auth_url": "https://sp/auth", "sp_url": "https://sp/saml"}]);
    assert_eq!(token["token"]["service_providers"], expected);
    at.cloud.patch("/v3/OS-FEDERATION/service_providers/far", sp(json!({"enabled": false}))).await;
    assert!(at.says(|_| {}).await.body["token"].get("service_providers").is_none());
    assert_eq!(at.cloud.delete("/v3/OS-FEDERATION/service_providers/far").await, 204);
    let user = json!({"name": "linked", "federated": [{"idp_id": "corp", "protocols": [
        {"protocol_id": "openid", "unique_id": "0077"}]}]});
    let linked = at.cloud.made("/v3/users", "user", user.clone()).await;
    let login = at.says(|claims| claims["sub"] = "0077".into()).await.body;
    assert_eq!(login["token"]["user"]["id"], linked, "the provider's user is this one");
    let mut other = user;
    other["name"] = "other".into();
    assert_eq!(at.cloud.post("/v3/users", json!({ "user": other })).await.status, 409);
    other["federated"][0]["idp_id"] = "none".into();
    assert_eq!(at.cloud.post("/v3/users", json!({ "user": other })).await.status, 400);
    // The domain takes its providers along.
    at.cloud.patch(&format!("/v3/domains/{domain}"), json!({"domain": {"enabled": false}})).await;
    assert_eq!(at.cloud.delete(&format!("/v3/domains/{domain}")).await, 204);
    assert_eq!(at.cloud.get("/v3/OS-FEDERATION/identity_providers/own").await.status, 404);
}

#[tokio::test]
async fn a_browser_is_sent_to_dashboards_of_the_settings_only() {
    let at = Federated::new().await;
    let token = at.keys.token(json!({"alg": "ES256", "kid": "ec"}), &at.claims());
    let bearer = format!("Bearer {token}");
    for (path, status) in [
        ("/v3/auth/OS-FEDERATION/websso/openid", 400),
        ("/v3/auth/OS-FEDERATION/websso/openid?origin=https://evil/", 401),
        ("/v3/auth/OS-FEDERATION/websso/none?origin=https://dashboard/auth/websso/", 404),
    ] {
        assert_eq!(at.cloud.ask("GET", path, &[("authorization", &bearer)], None).await.status, status, "{path}");
    }
    for path in ["websso/openid", "identity_providers/corp/protocols/openid/websso"] {
        let path = format!("/identity/v3/auth/OS-FEDERATION/{path}?origin=https://dashboard/auth/websso/");
        let request = http::Request::builder().uri(path).header("authorization", &bearer);
        let answer = at.cloud.gateway.handle(request.body(rest::Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), 200);
        let page = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(page.contains("action=\"https://dashboard/auth/websso/\"") && page.contains("name=\"token\""), "{page}");
        let token = page.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert_eq!(at.cloud.validate(token).await.status, 200);
    }
}
