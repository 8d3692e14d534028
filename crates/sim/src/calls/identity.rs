//! Bodies of the identity service.

use super::Gen;
use crate::client::login_body;
use serde_json::{Value, json};

pub fn body(g: &Gen, operation: &str) -> Option<Value> {
    let kind = operation.split(':').next().unwrap_or_default();
    Some(match operation {
        "auth:issue_token" => {
            let mut body = login_body(g.me());
            if g.chance(20) {
                body["auth"]["identity"]["password"]["user"]["password"] = json!("wrong");
            }
            body
        }
        "domains:create" => json!({"domain": {"name": g.name("domain"), "enabled": !g.chance(20)}}),
        "domains:update" => json!({"domain": {"enabled": g.chance(30), "description": g.word()}}),
        "projects:create" => json!({"project": {"name": g.name("project"), "domain_id": domain(g)}}),
        "projects:update" => json!({"project": {"name": g.name("project"), "enabled": g.chance(80)}}),
        "users:create" => json!({"user": {"name": g.name("user"), "password": "secret", "domain_id": domain(g)}}),
        "users:update" => json!({"user": {"name": g.name("user"), "enabled": g.chance(80)}}),
        "users:password" => json!({"user": {"original_password": "secret", "password": "secret"}}),
        "groups:create" => json!({"group": {"name": g.name("group"), "domain_id": domain(g)}}),
        "groups:update" => json!({"group": {"name": g.name("group")}}),
        "roles:create" => json!({"role": {"name": g.name("role")}}),
        "roles:update" => json!({"role": {"name": g.name("role")}}),
        "regions:create" => json!({"region": {"description": g.word()}}),
        "regions:create_named" => json!({"region": {"description": g.word()}}),
        "regions:update" => json!({"region": {"description": g.name("region")}}),
        "services:create" => json!({"service": {"type": g.word(), "name": g.name("service")}}),
        "services:update" => json!({"service": {"name": g.name("service"), "enabled": g.chance(80)}}),
        "endpoints:create" => json!({"endpoint": {
            "interface": g.dice.of(["public", "internal", "admin"]), "url": "http://elsewhere/",
            "service_id": g.id("services"), "region_id": g.id("regions")}}),
        "endpoints:update" => json!({"endpoint": {"url": "http://other/", "enabled": g.chance(80)}}),
        "application_credentials:create" => {
            let mut body = json!({"application_credential": {"name": g.name("credential"), "description": g.word()}});
            if g.chance(30) {
                let path = g.dice.of(["/v2.1/servers", "/v2.1/**", "/v2.1/servers/{id}"]);
                body["application_credential"]["access_rules"] =
                    json!([{"service": "compute", "method": "GET", "path": path}]);
            }
            body
        }
        "identity_providers:create" => json!({"identity_provider": {
            "enabled": !g.chance(20), "remote_ids": [g.name("remote")], "description": g.word()}}),
        "identity_providers:update" => json!({"identity_provider": {
            "enabled": g.chance(70), "authorization_ttl": g.dice.below(5)}}),
        "mappings:create" | "mappings:update" => json!({"mapping": {
            "rules": [{"local": [{"user": {"name": "{0}"}, "group": {"id": g.id("groups")}}],
                "remote": [{"type": "OIDC-sub"}, {"type": "OIDC-groups", "any_one_of": g.words()}]}],
            "schema_version": g.dice.of(["1.0", "2.0", "3.0"])}}),
        "protocols:create" | "protocols:update" => json!({"protocol": {"mapping_id": g.word()}}),
        "service_providers:create" => json!({"service_provider": {
            "enabled": g.chance(50), "auth_url": "https://elsewhere/auth", "sp_url": "https://elsewhere/sp"}}),
        "service_providers:update" => json!({"service_provider": {"enabled": g.chance(50), "description": g.word()}}),
        // Nobody here can sign for an issuer.
        "federation:auth_post" | "federation:websso_post" | "federation:websso_provider_post" => Value::Null,
        "federation:saml2" | "federation:saml2_ecp" => json!({"auth": {
            "identity": {"methods": ["token"], "token": {"id": g.word()}},
            "scope": {"service_provider": {"id": g.id("service_providers")}}}}),
        "policies:create" => json!({"policy": {"type": g.word(), "blob": g.word()}}),
        "policies:update" => json!({"policy": {"blob": g.name("blob")}}),
        "endpoint_groups:create" => json!({"endpoint_group": {
            "name": g.name("endpoints"), "filters": {"service_id": g.id("services")}}}),
        "endpoint_groups:update" => json!({"endpoint_group": {"name": g.name("endpoints")}}),
        "consumers:create" => json!({"consumer": {"description": g.word()}}),
        "consumers:update" => json!({"consumer": {"description": g.name("consumer")}}),
        "domain_config:create" | "domain_config:update" => {
            json!({"config": {"ldap": {"url": g.word(), "password": g.word()}}})
        }
        "domain_config:update_group" => json!({"config": {"ldap": {"suffix": g.word()}}}),
        "domain_config:update_option" => json!({"config": {"url": g.word()}}),
        "ec2tokens:create" => json!({"credentials": {
            "access": g.id("OS-EC2"), "signature": g.word(), "host": "cloud", "verb": "GET", "path": "/",
            "params": {"SignatureVersion": "2"}}}),
        "s3tokens:create" => json!({"credentials": {"access": g.id("OS-EC2"), "signature": g.word(), "token": "R0VU"}}),
        "request_tokens:create" | "access_tokens:create" => Value::Null,
        "oauth2:token" | "oauth2:token_put" | "oauth2:token_patch" | "oauth2:token_delete" => Value::Null,
        "request_tokens:authorize" => json!({"roles": [{"name": g.dice.of(["member", "reader", "none"])}]}),
        "ec2:create" => json!({"tenant_id": g.me().project_id}),
        "credentials:create" => json!({"credential": {
            "type": g.dice.of(["cert", "totp", "x"]), "blob": g.word(), "user_id": g.me().user_id,
            "project_id": g.me().project_id}}),
        "trusts:create" => json!({"trust": {
            "trustor_user_id": g.me().user_id, "trustee_user_id": g.id("users"), "project_id": g.me().project_id,
            "impersonation": g.chance(50), "roles": [{"name": "member"}], "allow_redelegation": g.chance(20)}}),
        "credentials:update" => json!({"credential": {"blob": g.name("blob")}}),
        "registered_limits:create" => json!({"registered_limits": [{
            "service_id": g.id("services"), "resource_name": g.name("resource"), "default_limit": g.dice.below(50)}]}),
        "registered_limits:update" => json!({"registered_limit": {"default_limit": g.dice.below(50)}}),
        "limits:create" => {
            let known = g.known.pick(g.dice, "registered_limits", g.actor, false);
            let of = |key: &str| known.map_or(json!("none"), |thing| thing.value[key].clone());
            json!({"limits": [{"service_id": of("service_id"), "resource_name": of("resource_name"),
                "project_id": g.id("projects"), "resource_limit": g.dice.below(50)}]})
        }
        "limits:update" => json!({"limit": {"resource_limit": g.dice.below(50)}}),
        "projects:tags:replace" => json!({"tags": g.words()}),
        "projects:tags:add" | "groups:add_user" | "roles:implies:create" => Value::Null,
        "policies:endpoint:add" | "policies:service:add" | "policies:region:add" => Value::Null,
        "projects:endpoints:add" | "endpoint_groups:add_project" => Value::Null,
        _ if ["grants", "inherited"].contains(&kind) => Value::Null,
        _ => return None,
    })
}

fn domain(g: &Gen) -> String {
    if g.chance(80) { "default".into() } else { g.id("domains") }
}
