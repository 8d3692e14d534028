//! `/v3/ec2tokens` and `/v3/s3tokens`: a service hands in a request that somebody signed with an EC2 key, and gets a
//! token of the key's owner.
//!
//! For services and administrators only, as in Keystone since 2025: whoever has seen a signed URL could otherwise make
//! tokens of it. Such a token counts as lent: it makes no other tokens and no credentials.

use super::ec2_id;
use super::signature::Signed;
use crate::Identity;
use crate::documents::*;
use crate::listing::forbid;
use crate::token::issue::{Issued, Proof};
use crate::token::methods::Methods;
use crate::token::payload::Scope;
use crate::token::verify::refused;
use base::{Fault, Result, Timestamp};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::sync::Arc;

/// How long a signature holds, as in Keystone.
const LASTS_S: i64 = 15 * 60;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let why = "a token is the answer itself, and nothing is kept of it";
    let routes = routes![identity;
        POST "/v3/ec2tokens", "ec2tokens:create", "identity:ec2tokens_validate", 200, ec2;
        POST "/v3/s3tokens", "s3tokens:create", "identity:s3tokens_validate", 200, s3;
    ];
    routes.into_iter().map(|route| route.no_repeat(why)).collect()
}

async fn ec2(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let issued = exchange(&identity, &mut call, Signed::holds_for_ec2).await?;
    Ok(crate::token::reply(&identity, 200, &issued.verified, &issued.text, true))
}

async fn s3(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let issued = exchange(&identity, &mut call, Signed::holds_for_s3).await?;
    let mut reply = crate::token::reply(&identity, 200, &issued.verified, &issued.text, true);
    // Who serves S3 learns who it was, and does not get the token, as in Keystone.
    reply.headers.retain(|(name, _)| name.as_str() != "x-subject-token");
    Ok(reply)
}

async fn exchange(identity: &Identity, call: &mut Call, holds: fn(&Signed, &str) -> bool) -> Result<Issued> {
    forbid(call, &Target::new())?;
    let mut body: Value = call.json().await?;
    // Clients have used all of these names.
    let names = ["credentials", "credential", "ec2Credentials"];
    let named = names.into_iter().find(|name| body.get(name).is_some_and(|value| !value.is_null()));
    let signed = named.map_or_else(|| json!({}), |name| body[name].take());
    let signed: Signed = serde_json::from_value(signed)
        .map_err(|error| Fault::invalid(format!("Invalid input for field 'credentials': {error}.")))?;
    let access = signed.access.clone().ok_or_else(|| Fault::unauthenticated("EC2 Signature not supplied"))?;
    let id = ec2_id(&json!({ "access": access }).to_string())?;
    let stored = identity.store.get::<Credential>(&id).await?.map(|stored| stored.doc);
    let credential = stored.filter(|credential| credential.kind == "ec2");
    let credential = credential.ok_or_else(|| Fault::not_found("EC2 access key not found."))?;
    let blob = identity.store.secrets().open(&credential, "blob", &credential.blob)?;
    let blob: Value = serde_json::from_str(&blob).unwrap_or_default();
    let secret = blob["secret"].as_str().filter(|secret| !secret.is_empty());
    if !secret.is_some_and(|secret| holds(&signed, secret)) {
        return Err(Fault::unauthenticated("Invalid EC2 signature."));
    }
    if let Some(text) = signed.at() {
        let at = moment(text).ok_or_else(|| Fault::unauthenticated("Credential timestamp is invalid"))?;
        if identity.env.now() > at.plus_s(LASTS_S) {
            return Err(Fault::unauthenticated("Credential is expired"));
        }
    }
    let proof = proof(identity, &credential, &blob)?;
    identity.issue_for(proof, None).await
}

/// RFC 3339, or `20260102T030405Z`.
fn moment(text: &str) -> Option<Timestamp> {
    let basic = text.len() >= 15 && text.is_ascii() && text.as_bytes()[8] == b'T' && !text.contains(['-', ':']);
    if !basic {
        return Timestamp::parse(text);
    }
    let part = |range| text.get(range).unwrap_or_default();
    let (date, time) = ([part(0..4), part(4..6), part(6..8)].join("-"), [part(9..11), part(11..13), part(13..15)]);
    Timestamp::parse(&format!("{date}T{}{}", time.join(":"), part(15..text.len())))
}

/// Whose token it will be, and what it is good for: the key's project, or what its blob says was lent. What was lent is
/// looked up whenever the token is used; here it must only be the owner's.
fn proof(identity: &Identity, credential: &Credential, blob: &Value) -> Result<Proof> {
    let project = credential.project_id.clone().ok_or_else(|| refused("the EC2 key has no project"))?;
    let model = identity.model();
    let (mut user, named) = (credential.user_id.clone(), |key: &str| blob[key].as_str().map(str::to_owned));
    let scope = if let Some(id) = named("trust_id") {
        let trust = model.trusts.get(&id).ok_or_else(|| refused("the trust of the EC2 key is gone"))?;
        // A key made with a trust in the trustor's name belongs to the trustor.
        if trust.impersonation && trust.trustor_user_id == user {
            user = trust.trustee_user_id.clone();
        }
        if trust.project_id.as_ref() != Some(&project) {
            return Err(refused("the trust of the EC2 key is of another project"));
        }
        Scope::Trust { project, trust: id }
    } else if let Some(id) = named("app_cred_id") {
        Scope::ApplicationCredential { project, id }
    } else if let Some(id) = named("access_token_id") {
        Scope::Oauth { project, access_token: id }
    } else {
        Scope::Project(project)
    };
    Ok(Proof { methods: Methods::EC2, scope: Some(scope), ..Proof::of(user) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_moment_are_read() {
        let expected = Timestamp::parse("2026-01-02T03:04:05Z");
        assert_eq!(moment("20260102T030405Z"), expected);
        assert_eq!(moment("2026-01-02T03:04:05Z"), expected);
        for bad in ["", "2026", "20261302T030405Z", "ü0260102T030405Z", "2026-01-02T"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
