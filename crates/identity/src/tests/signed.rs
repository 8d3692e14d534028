//! Signed tokens as the way in which tokens are made.

use super::*;

async fn cloud() -> Cloud {
    let store = store::Options { kinds: kinds(), ..store::Options::memory() };
    Cloud::on(store, Options { token_provider: Provider::Jws, ..Options::default() }).await
}

fn cause() -> store::Cause {
    store::Cause::new("test", "", "keys")
}

#[tokio::test]
async fn signed_tokens_work_as_sealed_ones_and_are_revoked_as_they_are() {
    let cloud = cloud().await;
    assert!(token::jws::looks_like(&cloud.admin), "{}", cloud.admin);
    let token = cloud.login("demo", "demo", json!({"project": project_named("demo")})).await.token;
    let shown = cloud.validate(&token).await;
    assert_eq!((shown.status, &shown.body["token"]["user"]["name"]), (200, &json!("demo")));
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}});
    let again = cloud.ask("POST", "/v3/auth/tokens", &[], Some(body)).await;
    assert_eq!((again.status, &again.body["token"]["methods"]), (201, &json!(["token", "password"])));
    // A token of the other kind is verified beside it.
    let sealed = {
        let model = cloud.identity.model();
        let (payload, second) = model.keys.open(&token).unwrap();
        model.keys.keys[0].encrypt(&payload.pack(model.keys.methods), second, [7; 16])
    };
    assert_eq!(cloud.validate(&sealed).await.status, 200);
    let headers = [("x-auth-token", token.as_str()), ("x-subject-token", token.as_str())];
    assert_eq!(cloud.ask("DELETE", "/v3/auth/tokens", &headers, None).await.status, 204);
    for gone in [&token, &again.token, &sealed] {
        assert_eq!(cloud.validate(gone).await.status, 404);
    }
    cloud.clock.advance_ms(3_600_000);
    assert_eq!(cloud.by(&cloud.admin, "GET", "/v3/auth/projects", None).await.status, 401, "it has expired");
}

#[tokio::test]
async fn keys_of_signed_tokens_rotate_and_are_taken_over() {
    let cloud = cloud().await;
    let (first, _) = cloud.identity.export_signing().await.unwrap();
    cloud.identity.rotate_keys(cause()).await.unwrap();
    let (second, public) = cloud.identity.export_signing().await.unwrap();
    assert_eq!((first != second, public.len()), (true, 2));
    assert_eq!(cloud.validate(&cloud.admin).await.status, 200, "of the key before");
    let other = self::cloud().await;
    assert_eq!(other.by(&cloud.admin, "GET", "/v3/auth/projects", None).await.status, 401);
    // With carriage returns and blanks, as editors leave them.
    let given = public.iter().map(|pem| format!(" {}\r\n", pem.replace('\n', "\r\n"))).collect();
    assert_eq!(other.identity.import_signing(cause(), second.clone(), given).await.unwrap(), 3);
    assert_eq!(other.identity.export_signing().await.unwrap().0, second);
    assert_eq!(other.validate(&other.admin).await.status, 200, "nobody is logged out");
    assert!(other.identity.model().keys.open(&cloud.admin).is_some());
    for (private, public) in [("x".to_owned(), vec![]), (second, vec!["x".to_owned()])] {
        assert!(other.identity.import_signing(cause(), private, public).await.is_err());
    }
    // What nothing is signed with any more goes when no token of it can be left.
    cloud.clock.advance_ms((3600 + 48 * 3600 + 1) * 1000);
    cloud.identity.rotate_keys(cause()).await.unwrap();
    assert_eq!(cloud.identity.export_signing().await.unwrap().1.len(), 2);
}
