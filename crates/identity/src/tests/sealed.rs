//! Secrets lie sealed in the store, and nowhere in the clear.

use super::*;

#[tokio::test]
async fn no_secret_lies_in_the_clear_and_all_of_them_still_serve() {
    let folder = std::env::temp_dir().join(format!("nubo-sealed-{}", base::Env::system().secret_hex(8)));
    std::fs::create_dir_all(&folder).unwrap();
    let _gone = Gone(folder.clone());
    let mut options = store::Options::new(format!("sqlite:{}", folder.join("nubo.db").display())).inline();
    options.kinds = kinds();
    let (env, _) = base::Env::seeded(7);
    options.secrets = store::Secrets::parse(&[store::Secrets::draw(&env)]).unwrap();
    let cloud = Cloud::on(options, Default::default()).await;
    let user = cloud.id("users", "demo").await;
    let credential = json!({"type": "totp", "blob": "GEZDGNBVGY3TQOJQ", "user_id": user});
    let credential = cloud.made("/v3/credentials", "credential", credential).await;
    let consumer = cloud.post("/v3/OS-OAUTH1/consumers", json!({"consumer": {}})).await.body;
    let secret = consumer["consumer"]["secret"].as_str().unwrap().to_owned();
    let domain = cloud.made("/v3/domains", "domain", json!({"name": "acme"})).await;
    let config = json!({"config": {"ldap": {"url": "ldap://x", "password": "ldap-hush"}}});
    let path = format!("/v3/domains/{domain}/config");
    assert_eq!(cloud.by(&cloud.admin, "PUT", &path, Some(config)).await.status, 201);
    let changed = json!({"credential": {"blob": "NEWSEEDNEWSEED23"}});
    assert_eq!(cloud.patch(&format!("/v3/credentials/{credential}"), changed).await.status, 200);
    let shown = cloud.get(&format!("/v3/credentials/{credential}")).await.body;
    assert_eq!(shown["credential"]["blob"], "NEWSEEDNEWSEED23");
    let keys = cloud.identity.store.get::<documents::TokenKeys>("tokens").await.unwrap().unwrap().doc;
    let primary = cloud.identity.store.secrets().open(&keys, "primary", &keys.primary).unwrap();
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(&credential) && holds("ldap://x"), "what is no secret is there");
    for hidden in ["GEZDGNBVGY3TQOJQ", "NEWSEEDNEWSEED23", "ldap-hush", secret.as_str(), primary.trim_end_matches('=')]
    {
        assert!(!holds(hidden), "{hidden}");
    }
}

struct Gone(std::path::PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_retired_key_is_kept_for_as_long_as_its_tokens_may_be_shown() {
    let cloud = Cloud::new().await;
    let token = cloud.admin.clone();
    let rotate = async || cloud.identity.rotate_keys(store::Cause::new("test", "", "rotate")).await;
    for _ in 0..10 {
        rotate().await.unwrap();
        assert!(cloud.identity.verify_now(&token).is_ok());
    }
    assert_eq!(cloud.identity.export_keys().await.unwrap().len(), 12);
    cloud.clock.advance_ms((3600 + 48 * 3600 - 60) * 1000);
    rotate().await.unwrap();
    let fresh = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    let cloud = Cloud { admin: fresh, ..cloud };
    let headers = [("x-auth-token", cloud.admin.as_str()), ("x-subject-token", token.as_str())];
    let shown = cloud.ask("GET", "/v3/auth/tokens?allow_expired=1", &headers, None).await.status;
    assert_eq!(shown, 200, "a minute before its end");
    cloud.clock.advance_ms(61_000);
    cloud.identity.rotate_keys(store::Cause::new("test", "", "rotate")).await.unwrap();
    assert_eq!(cloud.identity.export_keys().await.unwrap().len(), 4, "staged, primary and two that are younger");
}

#[tokio::test]
async fn keys_of_a_keystone_are_taken_over_and_nobody_is_logged_out() {
    let cloud = Cloud::new().await;
    let token = cloud.admin.clone();
    let env = base::Env::seeded(99).0;
    let keys: Vec<String> = (0..4).map(|_| token::fernet::Key::generate(&*env.random)).collect();
    let given = (0..).zip(keys.iter().map(|key| format!("{key}\n"))).collect();
    let cause = || store::Cause::new("test", "", "import");
    assert_eq!(cloud.identity.import_keys(cause(), given).await.unwrap(), 5);
    let known = cloud.identity.export_keys().await.unwrap();
    assert_eq!((&known[&0], &known[&4], &known[&3]), (&keys[0], &keys[3], &keys[2]));
    assert!(cloud.identity.verify_now(&token).is_ok());
    let made = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    let key = token::fernet::Key::parse(&keys[3]).unwrap();
    assert!(token::fernet::open([&key], &made).is_some(), "the highest number seals");
    cloud.identity.rotate_keys(cause()).await.unwrap();
    let made = cloud.login("admin", "secret", json!({"project": project_named("admin")})).await.token;
    let key = token::fernet::Key::parse(&keys[0]).unwrap();
    assert!(token::fernet::open([&key], &made).is_some(), "and then what was staged");
    for bad in [vec![], vec![(1, "short".to_owned())]] {
        assert!(cloud.identity.import_keys(cause(), bad.into_iter().collect()).await.is_err());
    }
}

#[tokio::test]
async fn a_key_that_another_process_made_is_looked_for_before_a_token_is_refused() {
    let cloud = Cloud::new().await;
    // Another process: the same store, and nobody tells this one.
    let other =
        Identity::open(cloud.identity.store.clone(), cloud.identity.env.clone(), Options::default()).await.unwrap();
    let env = base::Env::seeded(98).0;
    let key = token::fernet::Key::generate(&*env.random);
    other.import_keys(store::Cause::new("test", "", "import"), [(1, key.clone())].into()).await.unwrap();
    // What the watch tells is thrown away, as though it had not come yet.
    *cloud.identity.watch.lock().unwrap() = cloud.identity.store.watch();
    let opened = token::fernet::open(&other.model().keys.keys, &cloud.admin).unwrap();
    let sealed = token::fernet::Key::parse(&key).unwrap().encrypt(&opened.0, opened.1, [5; 16]);
    assert!(cloud.identity.verify_now(&sealed).is_err(), "it does not know the key");
    assert_eq!(cloud.by(&sealed, "GET", "/v3/auth/projects", None).await.status, 200);
    assert!(cloud.identity.verify_now(&sealed).is_ok());
}
