//! A directory that lives in the test, as clients of the cloud see it.

use super::*;
use crate::tests::{Answer, Cloud, names};
use ldap::{Entry, Filter, Scope};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, Default)]
struct Fake {
    entries: Mutex<Vec<Entry>>,
    /// By distinguished names.
    passwords: Mutex<BTreeMap<String, String>>,
    down: AtomicBool,
    asked: AtomicUsize,
    /// Logins and searches.
    operations: AtomicUsize,
}

/// A connection, and who is logged in.
struct Line(Arc<Fake>, String);

#[derive(Debug)]
struct Network(Arc<Fake>);

fn fits(filter: &Filter, entry: &Entry) -> bool {
    let any =
        |attribute: &str, fits: &dyn Fn(&str) -> bool| entry.texts(attribute).any(|text| fits(&text.to_lowercase()));
    let lower = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase();
    match filter {
        Filter::And(all) => all.iter().all(|filter| fits(filter, entry)),
        Filter::Or(some) => some.iter().any(|filter| fits(filter, entry)),
        Filter::Not(filter) => !fits(filter, entry),
        Filter::Equal(attribute, value) if attribute == "member" => {
            let wanted = ldap::Dn::parse(&lower(value));
            any(attribute, &|text| ldap::Dn::parse(text) == wanted)
        }
        Filter::Equal(attribute, value) => any(attribute, &|text| text == lower(value)),
        Filter::Present(attribute) => any(attribute, &|_| true),
        Filter::Substrings(attribute, first, parts, last) => any(attribute, &|text| {
            first.as_ref().is_none_or(|part| text.starts_with(&lower(part)))
                && parts.iter().all(|part| text.contains(&lower(part)))
                && last.as_ref().is_none_or(|part| text.ends_with(&lower(part)))
        }),
        _ => panic!("not asked by these tests: {filter:?}"),
    }
}

#[async_trait::async_trait]
impl Connect for Network {
    async fn open(&self, server: &Server) -> ldap::Result<Box<dyn Session>> {
        assert_eq!(server.urls[0].host, "ldap.example");
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        if self.0.down.load(Ordering::SeqCst) {
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
        }
        Ok(Box::new(Line(self.0.clone(), String::new())))
    }
}

#[async_trait::async_trait]
impl Session for Line {
    async fn bind(&mut self, dn: &str, password: &str) -> ldap::Result<bool> {
        self.0.operations.fetch_add(1, Ordering::SeqCst);
        // As directories do it: whoever has no password is nobody, and let in.
        let taken =
            password.is_empty() || self.0.passwords.lock().unwrap().get(dn).is_some_and(|known| known == password);
        self.1 = dn.to_owned();
        Ok(taken)
    }

    async fn search(&mut self, search: &Search) -> ldap::Result<Found> {
        self.0.operations.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.1, "cn=reader,dc=x", "only the reader searches");
        let base = ldap::Dn::parse(&search.base).unwrap();
        let entries = self.0.entries.lock().unwrap().clone();
        let placed = |entry: &Entry| {
            let levels = ldap::Dn::parse(&entry.dn).unwrap().below(&base);
            match search.scope {
                Scope::Base => levels == Some(0),
                Scope::One => levels == Some(1),
                Scope::Sub => levels.is_some(),
            }
        };
        let mut found: Vec<Entry> =
            entries.into_iter().filter(|entry| placed(entry) && fits(&search.filter, entry)).collect();
        let more = found.len() > search.most;
        found.truncate(search.most);
        Ok(Found { entries: found, more })
    }

    async fn close(&mut self) {}
}

fn entry(dn: &str, attributes: &[(&str, &str)]) -> Entry {
    let mut entry = Entry { dn: dn.into(), ..Entry::default() };
    for (name, value) in attributes {
        entry.attributes.entry(name.to_lowercase()).or_default().push(value.as_bytes().to_vec());
    }
    entry
}

fn person(uid: &str, more: &[(&str, &str)]) -> Entry {
    let mut all = vec![("objectClass", "inetOrgPerson"), ("uid", uid), ("sn", uid)];
    all.extend(more);
    entry(&format!("uid={uid},ou=people,dc=x"), &all)
}

fn crew(members: &[&str]) -> Entry {
    let mut all = vec![("objectClass", "groupOfNames"), ("cn", "crew"), ("ou", "crew")];
    all.extend(members.iter().map(|member| ("member", *member)));
    entry("cn=crew,ou=groups,dc=x", &all)
}

struct At {
    cloud: Cloud,
    fake: Arc<Fake>,
    domain: String,
}

async fn at() -> At {
    let fake = Arc::new(Fake::default());
    *fake.entries.lock().unwrap() = vec![
        person("ada", &[("mail", "ada@x")]),
        person("bob", &[]),
        person("eve", &[("enabled", "FALSE")]),
        entry("uid=ada,ou=machines,dc=x", &[("objectClass", "inetOrgPerson"), ("uid", "ada"), ("sn", "machine")]),
        crew(&["UID=ada, ou=People,dc=x"]),
    ];
    for (who, password) in
        [("uid=ada,ou=people", "a"), ("uid=bob,ou=people", "b"), ("uid=eve,ou=people", "e"), ("cn=reader", "r")]
    {
        fake.passwords.lock().unwrap().insert(format!("{who},dc=x"), password.into());
    }
    let store = store::Options { kinds: crate::kinds(), ..store::Options::memory() };
    let directories: Arc<dyn Connect> = Arc::new(Network(fake.clone()));
    let cloud = Cloud::on(store, crate::Options { directories: Some(directories), ..crate::Options::default() }).await;
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "corp"})).await;
    let at = At { cloud, fake, domain };
    at.configure(json!({})).await;
    at
}

impl At {
    async fn configure(&self, more: Value) {
        let mut ldap = json!({
            "url": "ldap://ldap.example", "user": "cn=reader,dc=x", "password": "r", "suffix": "dc=x",
            "user_tree_dn": "ou=people,dc=x", "user_id_attribute": "uid", "group_tree_dn": "ou=groups,dc=x",
        });
        ldap.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config = json!({"config": {"identity": {"driver": "ldap"}, "ldap": ldap}});
        let path = format!("/v3/domains/{}/config", self.domain);
        let answer = self.cloud.by(&self.cloud.admin, "PUT", &path, Some(config)).await;
        assert!(answer.status < 300, "{}", answer.body);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Entry>)) {
        change(&mut self.fake.entries.lock().unwrap());
    }

    async fn list(&self, what: &str, query: &str) -> Answer {
        self.cloud.get(&format!("/v3/{what}?domain_id={}{query}", self.domain)).await
    }

    async fn users(&self, query: &str) -> Vec<String> {
        let answer = self.list("users", query).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut all = names(&answer.body["users"], "name");
        all.sort();
        all
    }

    fn user(&self, uid: &str) -> String {
        public_id(&self.domain, "user", uid)
    }

    fn group(&self) -> String {
        public_id(&self.domain, "group", "crew")
    }

    async fn login(&self, name: &str, password: &str, scope: Value) -> Answer {
        let user = json!({"name": name, "domain": {"id": self.domain}, "password": password});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({ "auth": auth }))).await
    }

    async fn again(&self, token: &str) -> u16 {
        let auth = json!({"identity": {"methods": ["token"], "token": {"id": token}}});
        self.cloud.ask("POST", "/v3/auth/tokens", &[], Some(json!({ "auth": auth }))).await.status
    }

    /// A project in which the crew are members; its scope.
    async fn ship(&self) -> Value {
        assert_eq!(self.list("groups", "").await.status, 200);
        let project = self.cloud.made("/v3/projects", "project", json!({"name": "ship"})).await;
        let role = self.cloud.id("roles", "member").await;
        let grant = format!("/v3/projects/{project}/groups/{}/roles/{role}", self.group());
        assert_eq!(self.cloud.put(&grant).await, 204);
        json!({"project": {"id": project}})
    }

    async fn wait(&self, seconds: i64) {
        self.cloud.clock.advance_ms(seconds * 1000);
    }
}

#[tokio::test]
async fn users_and_groups_come_from_the_directory() {
    let at = at().await;
    assert_eq!(at.cloud.get(&format!("/v3/users/{}", at.user("ada"))).await.status, 404, "nobody has seen it yet");
    assert_eq!(at.users("").await, ["ada", "bob", "eve"]);
    assert_eq!(at.users("&name=ADA").await, ["ada"], "the directory compares");
    assert_eq!(at.users("&name__contains=b").await, ["bob"]);
    assert_eq!(at.users("&enabled=false").await, ["eve"]);
    assert!(at.users("&name=*)(uid=*").await.is_empty());
    assert!(at.users("&name=*").await.is_empty());
    let ada = at.cloud.get(&format!("/v3/users/{}", at.user("ada"))).await.body["user"].clone();
    assert_eq!((&ada["email"], &ada["domain_id"], &ada["enabled"]), (&json!("ada@x"), &json!(at.domain), &json!(true)));
    assert_eq!(names(&at.list("groups", "").await.body["groups"], "id"), [at.group()]);
    let members = at.cloud.get(&format!("/v3/groups/{}/users", at.group())).await;
    assert_eq!(names(&members.body["users"], "id"), [at.user("ada")]);
    let groups = at.cloud.get(&format!("/v3/users/{}/groups", at.user("ada"))).await;
    assert_eq!(names(&groups.body["groups"], "name"), ["crew"]);
    let member = |uid: &str| format!("/v3/groups/{}/users/{}", at.group(), at.user(uid));
    assert_eq!(at.cloud.get(&member("ada")).await.status, 204);
    assert_eq!(at.cloud.get(&member("bob")).await.status, 404);
    // An entry of the same id that is none of the users.
    at.change(|entries| {
        *entries.last_mut().unwrap() = crew(&["uid=ada,ou=machines,dc=x", "cn=nobody", "uid=bob,ou=people,dc=x"])
    });
    let members = at.cloud.get(&format!("/v3/groups/{}/users", at.group())).await;
    assert_eq!(names(&members.body["users"], "id"), [at.user("bob")]);
    assert_eq!(at.cloud.get(&member("ada")).await.status, 404);
}

#[tokio::test]
async fn logins_are_the_directorys() {
    let at = at().await;
    let scope = at.ship().await;
    let token = at.login("ada", "a", scope.clone()).await;
    assert_eq!(token.status, 201, "{}", token.body);
    assert_eq!(token.body["token"]["user"]["id"], json!(at.user("ada")));
    let mut roles = names(&token.body["token"]["roles"], "name");
    roles.sort();
    assert_eq!(roles, ["member", "reader"]);
    for (name, password) in [
        ("ada", "b"),
        ("ada", ""),
        ("eve", "e"),
        ("nobody", "a"),
        ("*", "a"),
        ("ada)(uid=*", "a"),
        ("", "a"),
        ("bob", "a"),
    ] {
        assert_eq!(at.login(name, password, Value::Null).await.status, 401, "{name} {password}");
    }
    assert_eq!(at.login("bob", "b", scope).await.status, 401, "no role there");
    assert_eq!(at.login("bob", "b", Value::Null).await.status, 201);
    let by_id = |password: &str| {
        let user = json!({"id": at.user("ada"), "password": password});
        json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}})
    };
    for (password, status) in [("a", 201), ("b", 401), ("", 401)] {
        assert_eq!(at.cloud.ask("POST", "/v3/auth/tokens", &[], Some(by_id(password))).await.status, status);
    }
    at.change(|entries| {
        entries.push(entry("uid=a2,ou=people,dc=x", &[("objectClass", "inetOrgPerson"), ("uid", "a2"), ("sn", "ada")]))
    });
    assert_eq!(at.login("ada", "a", Value::Null).await.status, 401, "two have the name");
    assert_eq!(at.users("&name=ada").await, ["ada", "ada"]);
}

#[tokio::test]
async fn what_the_directory_says_counts_for_tokens_that_are_there() {
    let at = at().await;
    let scope = at.ship().await;
    let token = at.login("ada", "a", scope).await.token;
    assert_eq!(at.cloud.validate(&token).await.status, 200);
    at.change(|entries| *entries.last_mut().unwrap() = crew(&[]));
    assert_eq!(at.cloud.validate(&token).await.status, 200, "what was seen lately counts");
    at.wait(FRESH_S).await;
    assert_eq!(at.cloud.validate(&token).await.status, 404, "no longer in the group");
    at.change(|entries| *entries.last_mut().unwrap() = crew(&["uid=ada,ou=people,dc=x"]));
    at.wait(FRESH_S).await;
    assert_eq!(at.cloud.validate(&token).await.status, 200);
    let gone = at.fake.entries.lock().unwrap().remove(0);
    at.wait(FRESH_S).await;
    assert_eq!(at.cloud.validate(&token).await.status, 404, "gone");
    let user = format!("/v3/users/{}", at.user("ada"));
    assert_eq!(at.cloud.get(&user).await.status, 404);
    assert_eq!(at.users("").await, ["bob", "eve"]);
    at.change(|entries| entries.insert(0, gone));
    assert_eq!(at.cloud.get(&user).await.status, 200, "it is back");
    assert_eq!(at.cloud.validate(&token).await.status, 200);
    at.change(|entries| entries[0] = person("ada", &[("enabled", "FALSE")]));
    at.wait(FRESH_S).await;
    assert_eq!(at.cloud.validate(&token).await.status, 404, "disabled");
}

#[tokio::test]
async fn a_directory_that_is_away_keeps_nobody_else_waiting() {
    let at = at().await;
    let scope = at.ship().await;
    let token = at.login("ada", "a", scope.clone()).await.token;
    at.fake.down.store(true, Ordering::SeqCst);
    let refused = at.login("ada", "a", scope.clone()).await;
    assert_eq!(refused.status, 503);
    let said = refused.body["error"]["message"].as_str().unwrap();
    assert!(said.contains("domain corp") && !said.contains("ldap.example") && !said.contains("reader"), "{said}");
    assert_eq!(at.list("users", "").await.status, 503);
    assert_eq!(at.cloud.get(&format!("/v3/users/{}", at.user("ada"))).await.status, 503);
    assert_eq!(at.cloud.login("demo", "demo", Value::Null).await.status, 201, "other domains go on");
    assert_eq!(at.cloud.get("/v3/users").await.status, 200);
    assert_eq!(at.cloud.get("/v3/role_assignments?effective").await.status, 200);
    assert_eq!(at.again(&token).await, 201, "the directory has said so lately");
    at.wait(FRESH_S).await;
    let before = at.fake.asked.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(at.cloud.validate(&token).await.status, 200, "a token that is there goes on");
    }
    assert_eq!(at.fake.asked.load(Ordering::SeqCst), before + 1, "it is not asked again and again");
    assert_eq!(at.again(&token).await, 503, "a new one needs the directory");
    at.fake.down.store(false, Ordering::SeqCst);
    assert_eq!(at.again(&token).await, 201);
}

#[tokio::test]
async fn nothing_of_a_directory_is_changed_here() {
    let at = at().await;
    at.ship().await;
    assert_eq!(at.users("").await.len(), 3);
    let (user, group) = (at.user("ada"), at.group());
    let local = at.cloud.made("/v3/users", "user", json!({"name": "local"})).await;
    let people = at.cloud.made("/v3/groups", "group", json!({"name": "people"})).await;
    for (method, path, body) in [
        ("POST", "/v3/users".into(), json!({"user": {"name": "x", "domain_id": at.domain}})),
        ("PATCH", format!("/v3/users/{user}"), json!({"user": {"name": "x"}})),
        ("DELETE", format!("/v3/users/{user}"), Value::Null),
        ("POST", format!("/v3/users/{user}/password"), json!({"user": {"original_password": "a", "password": "x"}})),
        ("POST", "/v3/groups".into(), json!({"group": {"name": "x", "domain_id": at.domain}})),
        ("PATCH", format!("/v3/groups/{group}"), json!({"group": {"name": "x"}})),
        ("DELETE", format!("/v3/groups/{group}"), Value::Null),
        ("PUT", format!("/v3/groups/{group}/users/{user}"), Value::Null),
        ("DELETE", format!("/v3/groups/{group}/users/{user}"), Value::Null),
        ("PUT", format!("/v3/groups/{people}/users/{user}"), Value::Null),
        ("PUT", format!("/v3/groups/{group}/users/{local}"), Value::Null),
    ] {
        let answer = at.cloud.by(&at.cloud.admin, method, &path, Some(body).filter(|body| !body.is_null())).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.body);
    }
    let wrong = json!({"user": {"original_password": "x", "password": "x"}});
    let stranger = at.cloud.ask("POST", &format!("/v3/users/{user}/password"), &[], Some(wrong)).await;
    assert_eq!(stranger.status, 401, "who does not know the password learns nothing");
    let said = at.cloud.by(&at.cloud.admin, "DELETE", &format!("/v3/users/{user}"), None).await.body;
    assert!(said["error"]["message"].as_str().unwrap().starts_with("LDAP does not support write operations"), "{said}");
}

#[tokio::test]
async fn roles_are_given_to_whom_the_directory_has() {
    let at = at().await;
    at.ship().await;
    let lines = |answer: Answer| {
        let all = answer.body["role_assignments"].as_array().unwrap().clone();
        all.into_iter().filter(|line| line["user"]["id"] == json!(at.user("ada"))).count()
    };
    assert_eq!(lines(at.cloud.get("/v3/role_assignments?effective").await), 2, "member and reader, by the group");
    assert_eq!(at.users("").await.len(), 3);
    at.change(|entries| drop(entries.remove(1)));
    let (project, role) = (at.cloud.id("projects", "ship").await, at.cloud.id("roles", "member").await);
    let grant = |uid: &str| format!("/v3/projects/{project}/users/{}/roles/{role}", at.user(uid));
    assert_eq!(at.cloud.put(&grant("bob")).await, 404, "it was there, and is gone");
    assert_eq!(at.cloud.put(&grant("eve")).await, 204);
    assert_eq!(at.cloud.delete(&grant("eve")).await, 204);
    let dry = format!("{}?dry_run=true", grant("ada"));
    assert_eq!(at.cloud.by(&at.cloud.admin, "PUT", &dry, None).await.status, 200);
    assert_eq!(at.cloud.get(&grant("ada")).await.status, 404, "nothing was kept");
}

#[tokio::test]
async fn a_domain_may_change_its_mind() {
    let at = at().await;
    let before = json!({"name": "old", "domain_id": at.domain, "password": "old"});
    let path = format!("/v3/domains/{}/config", at.domain);
    assert_eq!(at.cloud.delete(&path).await, 204);
    at.cloud.made("/v3/users", "user", before).await;
    at.configure(json!({})).await;
    assert_eq!(at.users("").await, ["ada", "bob", "eve", "old"]);
    assert_eq!(at.login("old", "old", Value::Null).await.status, 201, "who was here before logs in as before");
    let token = at.login("ada", "a", Value::Null).await.token;
    assert_eq!(at.cloud.delete(&path).await, 204);
    assert_eq!(at.users("").await, ["old"]);
    assert_eq!(at.cloud.validate(&token).await.status, 404);
    assert_eq!(at.login("ada", "a", Value::Null).await.status, 401);
    assert_eq!(at.cloud.get(&format!("/v3/users/{}", at.user("ada"))).await.status, 404);
    at.configure(json!({"user_enabled_mask": "x"})).await;
    let wrong = at.list("users", "").await;
    assert_eq!(wrong.status, 503);
    assert!(wrong.body["error"]["message"].as_str().unwrap().contains("user_enabled_mask"), "{}", wrong.body);
    at.configure(json!({"password": "wrong"})).await;
    let wrong = at.list("users", "").await;
    assert!(wrong.body["error"]["message"].as_str().unwrap().contains("options user and password"), "{}", wrong.body);
}

#[tokio::test]
async fn lists_have_limits() {
    let at = at().await;
    let path = format!("/v3/domains/{}/config/identity/list_limit", at.domain);
    let limit = json!({"config": {"identity": {"driver": "ldap", "list_limit": 2}}});
    let all = format!("/v3/domains/{}/config", at.domain);
    assert_eq!(at.cloud.patch(&all, limit).await.status, 200);
    let cut = at.list("users", "").await;
    assert_eq!((cut.body["users"].as_array().unwrap().len(), &cut.body["truncated"]), (2, &json!(true)));
    assert_eq!(at.list("users", "&name=eve").await.body["truncated"], Value::Null);
    assert_eq!(at.cloud.delete(&path).await, 204);
    at.change(|entries| entries.extend((0..ENTRIES).map(|n| person(&format!("u{n}"), &[]))));
    let refused = at.list("users", "").await;
    assert_eq!(refused.status, 413, "{}", refused.body);
    assert_eq!(at.users("&name=u77").await, ["u77"]);
}

#[tokio::test]
async fn who_is_enabled_may_be_told_by_a_group() {
    let at = at().await;
    at.configure(json!({"user_enabled_emulation": true})).await;
    at.change(|entries| {
        let members = [
            ("objectClass", "groupOfNames"),
            ("member", "uid=eve,ou=people,dc=x"),
            ("member", "UID=bob, OU=people,dc=x"),
        ];
        entries.push(entry("cn=enabled_users,ou=people,dc=x", &members));
    });
    assert_eq!(at.users("&enabled=true").await, ["bob", "eve"]);
    assert_eq!(at.login("eve", "e", Value::Null).await.status, 201);
    assert_eq!(at.login("ada", "a", Value::Null).await.status, 401);
}

#[tokio::test]
async fn nobody_becomes_another_by_an_id_that_he_gives_himself() {
    let at = at().await;
    let own = at.login("bob", "b", Value::Null).await;
    assert_eq!(own.status, 201);
    // Bob may write what is his id here, and takes that of another.
    let stolen = [("objectClass", "inetOrgPerson"), ("uid", "ada"), ("sn", "bob")];
    at.change(|entries| entries[1] = entry("uid=bob,ou=people,dc=x", &stolen));
    assert_eq!(at.login("bob", "b", Value::Null).await.status, 401);
    assert_eq!(at.users("").await, ["eve"], "two have one id, and count for none");
    at.wait(FRESH_S).await;
    assert_eq!(at.cloud.validate(&own.token).await.status, 404, "who had the id of before is gone");
    // A group with the id of another one gives none of its roles.
    at.change(|entries| entries[1] = person("bob", &[]));
    at.ship().await;
    let mut second = crew(&["uid=bob,ou=people,dc=x"]);
    second.dn = "cn=crew,ou=mine,ou=groups,dc=x".into();
    at.configure(json!({"query_scope": "sub"})).await;
    at.change(|entries| entries.push(second));
    assert_eq!(at.login("bob", "b", Value::Null).await.status, 201);
    let groups = at.cloud.get(&format!("/v3/users/{}/groups", at.user("bob"))).await;
    assert_eq!(groups.body["groups"], json!([]), "{}", groups.body);
}

#[tokio::test]
async fn an_entry_under_another_spelling_of_its_id_is_another_user() {
    let at = at().await;
    let token = at.login("ada", "a", Value::Null).await.token;
    at.change(|entries| entries[0] = person("ADA", &[("enabled", "FALSE")]));
    at.wait(FRESH_S).await;
    assert_eq!(at.cloud.validate(&token).await.status, 404, "ada is gone, and ADA is disabled");
}

#[tokio::test]
async fn who_is_not_there_takes_as_many_questions_as_who_is() {
    let at = at().await;
    let asks = async |name: &str| {
        let before = at.fake.operations.load(Ordering::SeqCst);
        assert_eq!(at.login(name, "wrong", Value::Null).await.status, 401, "{name}");
        at.fake.operations.load(Ordering::SeqCst) - before
    };
    let by_id = async |id: &str| {
        let before = at.fake.operations.load(Ordering::SeqCst);
        let user = json!({"id": id, "password": "wrong"});
        let auth = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}});
        assert_eq!(at.cloud.ask("POST", "/v3/auth/tokens", &[], Some(auth)).await.status, 401, "{id}");
        at.fake.operations.load(Ordering::SeqCst) - before
    };
    assert_eq!(at.users("").await.len(), 3);
    for options in [json!({}), json!({"user_enabled_emulation": true, "user_enabled_emulation_dn": "cn=crew,ou=groups,dc=x"})] {
        at.configure(options.clone()).await;
        // Of the crew she is the one who has a group, and may log in where that is asked.
        let (named, known) = (asks("ada").await, by_id(&at.user("ada")).await);
        assert!(named >= 6, "{named}");
        for name in ["nobody", "bob", "eve"] {
            assert_eq!(asks(name).await, named, "{name} {options}");
        }
        for name in ["bob", "eve"] {
            assert_eq!(by_id(&at.user(name)).await, known, "{name} {options}");
        }
        at.change(|entries| entries.retain(|entry| !entry.dn.starts_with("uid=eve")));
        assert_eq!(by_id(&at.user("eve")).await, known, "gone, {options}");
        at.change(|entries| entries.push(person("eve", &[("enabled", "FALSE")])));
    }
    at.configure(json!({})).await;
    at.fake.passwords.lock().unwrap().insert("uid=nubo-nobody,ou=people,dc=x".into(), "wrong".into());
    assert_eq!(at.login("nobody", "wrong", Value::Null).await.status, 401, "whatever the directory says");
}
