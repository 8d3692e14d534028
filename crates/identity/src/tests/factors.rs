//! One-time passwords, rules of several factors, receipts.

use super::*;
use crate::token::totp;

const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

fn by_password() -> Value {
    json!({"user": {"name": "demo", "domain": {"id": "default"}, "password": "demo"}})
}

fn by_code(code: &str) -> Value {
    json!({"user": {"name": "demo", "domain": {"id": "default"}, "passcode": code}})
}

async fn login(cloud: &Cloud, methods: Value, receipt: Option<&str>) -> (Answer, Option<String>) {
    let names: Vec<String> = methods.as_object().unwrap().keys().cloned().collect();
    let mut identity = methods;
    identity["methods"] = json!(names);
    let body = json!({"auth": {"identity": identity, "scope": {"project": project_named("demo")}}}).to_string();
    let mut request = http::Request::builder().method("POST").uri("/identity/v3/auth/tokens");
    if let Some(receipt) = receipt {
        request = request.header("openstack-auth-receipt", receipt);
    }
    cloud.clock.advance_ms(1);
    let response = cloud.gateway.handle(request.body(Body::from(body)).unwrap()).await;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, receipt) = (response.status().as_u16(), header("openstack-auth-receipt"));
    let token = header("x-subject-token").unwrap_or_default();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (Answer { status, body: serde_json::from_slice(&bytes).unwrap(), token }, receipt)
}

async fn with_seed(cloud: &Cloud) -> String {
    let user = cloud.id("users", "demo").await;
    let body = json!({"type": "totp", "blob": SEED, "user_id": user});
    cloud.made("/v3/credentials", "credential", body).await;
    user
}

fn code(cloud: &Cloud, back_s: i64) -> String {
    totp::now(SEED, cloud.identity.env.now().plus_s(-back_s))
}

#[tokio::test]
async fn a_code_of_the_clock_opens_for_a_minute() {
    let cloud = Cloud::new().await;
    let code_of = by_code(&code(&cloud, 0));
    assert_eq!(login(&cloud, json!({ "totp": code_of }), None).await.0.status, 401, "there is no seed yet");
    with_seed(&cloud).await;
    let (answer, _) = login(&cloud, json!({"totp": by_code(&code(&cloud, 0))}), None).await;
    assert_eq!((answer.status, &answer.body["token"]["methods"]), (201, &json!(["totp"])));
    assert_eq!(cloud.validate(&answer.token).await.body["token"]["methods"], json!(["totp"]));
    assert_eq!(login(&cloud, json!({"totp": by_code(&code(&cloud, 30))}), None).await.0.status, 201);
    for wrong in [code(&cloud, 60), code(&cloud, -30), String::new(), "abcdef".into(), format!("0{}", code(&cloud, 0))]
    {
        assert_eq!(login(&cloud, json!({"totp": by_code(&wrong)}), None).await.0.status, 401, "{wrong}");
    }
    let nobody = json!({"user": {"name": "nobody", "domain": {"id": "default"}, "passcode": code(&cloud, 0)}});
    assert_eq!(login(&cloud, json!({ "totp": nobody }), None).await.0.status, 401);
    let (both, _) = login(&cloud, json!({"password": by_password(), "totp": by_code(&code(&cloud, 0))}), None).await;
    assert_eq!(both.body["token"]["methods"], json!(["totp", "password"]));
}

#[tokio::test]
async fn wrong_codes_lock_a_user_out() {
    let cloud = Cloud::with(compliance::Compliance { lockout_failure_attempts: Some(2), ..Default::default() }).await;
    with_seed(&cloud).await;
    for _ in 0..2 {
        assert_eq!(login(&cloud, json!({"totp": by_code("000000")}), None).await.0.status, 401);
    }
    assert_eq!(login(&cloud, json!({"totp": by_code(&code(&cloud, 0))}), None).await.0.status, 401);
    assert_eq!(login(&cloud, json!({"password": by_password()}), None).await.0.status, 401);
    cloud.clock.advance_ms(1_801_000);
    assert_eq!(login(&cloud, json!({"totp": by_code(&code(&cloud, 0))}), None).await.0.status, 201);
}

#[tokio::test]
async fn rules_ask_for_several_factors_and_a_receipt_keeps_the_first() {
    let cloud = Cloud::new().await;
    let user = with_seed(&cloud).await;
    let path = format!("/v3/users/{user}");
    let set = async |options: Value| cloud.patch(&path, json!({"user": {"options": options}})).await.status;
    let rules = json!([["password", "totp"], ["password", "nonsense", "oauth1"]]);
    assert_eq!(set(json!({"multi_factor_auth_enabled": true, "multi_factor_auth_rules": rules})).await, 200);
    let (first, receipt) = login(&cloud, json!({"password": by_password()}), None).await;
    assert_eq!((first.status, first.token.as_str()), (401, ""));
    assert_eq!(first.body["receipt"]["methods"], json!(["password"]));
    assert_eq!(first.body["receipt"]["user"]["name"], "demo");
    // What no login here takes is not asked for.
    assert_eq!(first.body["required_auth_methods"], json!([["totp", "password"], ["oauth1", "password"]]));
    let receipt = receipt.unwrap();
    let (second, none) = login(&cloud, json!({"totp": by_code(&code(&cloud, 0))}), Some(&receipt)).await;
    assert_eq!((second.status, none), (201, None), "{}", second.body);
    assert_eq!(second.body["token"]["methods"], json!(["totp", "password"]));
    let (both, _) = login(&cloud, json!({"password": by_password(), "totp": by_code(&code(&cloud, 0))}), None).await;
    assert_eq!(both.status, 201);
    let again = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": both.token}}}});
    assert_eq!(cloud.ask("POST", "/v3/auth/tokens", &[], Some(again)).await.status, 201, "a token carries its methods");
    let bent = format!("{receipt}A");
    for (wrong, why) in [("", "none"), (bent.as_str(), "bent"), (both.token.as_str(), "a token is no receipt")] {
        let (answer, _) = login(&cloud, json!({"totp": by_code(&code(&cloud, 0))}), Some(wrong)).await;
        assert_eq!(answer.status, 401, "{why}");
    }
    let admin = json!({"auth": {"identity": {"methods": ["password"],
        "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": "secret"}}}}});
    let others = [("openstack-auth-receipt", receipt.as_str())];
    assert_eq!(cloud.ask("POST", "/v3/auth/tokens", &others, Some(admin)).await.status, 401, "another user's");
    let bearer = cloud.by(&receipt, "GET", "/v3/auth/projects", None).await;
    assert_eq!(bearer.status, 401, "a receipt is no token");
    cloud.clock.advance_ms(301_000);
    let (late, _) = login(&cloud, json!({"totp": by_code(&code(&cloud, 0))}), Some(&receipt)).await;
    assert_eq!(late.status, 401);
    assert_eq!(set(json!({"multi_factor_auth_enabled": false})).await, 200);
    assert_eq!(login(&cloud, json!({"password": by_password()}), None).await.0.status, 201);
    assert_eq!(set(json!({"multi_factor_auth_enabled": null, "multi_factor_auth_rules": [["nonsense"]]})).await, 200);
    assert_eq!(login(&cloud, json!({"password": by_password()}), None).await.0.status, 201, "nobody is locked out");
    for bad in [json!("x"), json!([[]]), json!(["password"]), json!([[7]]), json!([["a", "a"]]), json!([["a"], ["a"]])]
    {
        assert_eq!(set(json!({ "multi_factor_auth_rules": bad })).await, 400, "{bad}");
    }
}
