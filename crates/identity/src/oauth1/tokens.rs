//! How a consumer comes to an access token (OAuth 1.0a): it asks for a request token, a user allows that with roles of
//! their own, and whoever brings the verifier that the user was shown gets an access token in exchange.
//!
//! The secrets of both tokens are shown once. A request token is used up by the exchange.

use super::SignedRequest;
use crate::Identity;
use crate::documents::*;
use crate::listing::{forbid, missing};
use crate::token::issue::{Proof, whole};
use crate::token::methods::Methods;
use crate::token::payload::Scope;
use crate::token::verify::refused;
use base::{Fault, ProjectId, Result, RoleId};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Query, Tx};
use subtle::ConstantTimeEq;

/// How long tokens last, as in Keystone.
const REQUEST_LASTS_S: i64 = 28_800;
const ACCESS_LASTS_S: i64 = 86_400;
/// Letters and digits that cannot be taken for each other.
const VERIFIER: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const VERIFIER_CHARS: usize = 8;
/// The most open requests of a consumer: anybody who has a consumer's secret can ask.
const OPEN: usize = 1000;
/// The most roles that a user can lend.
const ROLES: usize = 64;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    // The signature is the right to ask.
    let open = |path, operation| (Method::POST, path, operation, Access::Open, 201);
    let (method, path, operation, access, status) = open("/v3/OS-OAUTH1/request_token", "request_tokens:create");
    let mut routes = vec![Route::new(identity, method, path, operation, access, status, request)];
    let (method, path, operation, access, status) = open("/v3/OS-OAUTH1/access_token", "access_tokens:create");
    routes.push(Route::new(identity, method, path, operation, access, status, exchange));
    routes.extend(routes![identity;
        PUT "/v3/OS-OAUTH1/authorize/{id}", "request_tokens:authorize", "identity:authorize_request_token", 200, authorize;
    ]);
    routes
}

fn signed(call: &Call) -> Result<SignedRequest> {
    SignedRequest::of(call)?.ok_or_else(|| {
        Fault::invalid("Cannot retrieve Authorization headers: the request is to be signed by OAuth 1.0a.")
    })
}

/// The consumer with its secret. Unknown and wrongly signed look the same.
async fn secret(identity: &Identity, consumer: &str) -> Result<Option<String>> {
    let Some(consumer) = identity.store.get::<Consumer>(consumer).await? else { return Ok(None) };
    Ok(Some(identity.store.secrets().open(&consumer.doc, "secret", &consumer.secret)?))
}

async fn request(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let signed = signed(&call)?;
    let consumer = signed.need("oauth_consumer_key")?.to_owned();
    let project = call.header("requested-project-id").filter(|project| !project.is_empty());
    let project =
        ProjectId::new(project.ok_or_else(|| Fault::invalid("Expecting to find Requested-Project-Id in request."))?);
    let known = secret(&identity, &consumer).await?;
    if !known.is_some_and(|secret| signed.holds(&secret, "")) {
        return Err(Fault::unauthenticated("Invalid signature"));
    }
    let token = identity.env.secret_hex(16);
    let made = RequestToken {
        id: identity.env.secret_hex(16),
        consumer_id: consumer,
        project_id: project,
        secret: token.as_str().into(),
        verifier: Default::default(),
        authorizing_user_id: None,
        roles: Vec::new(),
        expires_at: whole(call.now.plus_s(REQUEST_LASTS_S)),
    };
    let answer = form(&made.id, &token, &made.expires_at.iso_micros());
    let work = move |tx: &mut Tx| {
        tx.get::<Project>(&made.project_id)?.ok_or_else(|| missing("project", &made.project_id))?;
        tx.get::<Consumer>(&made.consumer_id)?.ok_or_else(|| missing("consumer", &made.consumer_id))?;
        let open = tx.list::<RequestToken>(Query::index("consumer", &made.consumer_id))?;
        let now = tx.now();
        let mut living = 0;
        for token in open {
            if token.expires_at <= now {
                tx.delete::<RequestToken>(&token.id)?;
            } else {
                living += 1;
            }
        }
        if living >= OPEN {
            return Err(Fault::forbidden(format!("The consumer has {OPEN} open requests; they end by themselves.")));
        }
        Ok(tx.create(&made).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(answer)
}

fn form(id: &str, secret: &str, expires: &str) -> Reply {
    let text = format!("oauth_token={id}&oauth_token_secret={secret}&oauth_expires_at={expires}");
    Reply::empty(201).content_type("application/x-www-form-urlencoded").body(text.into())
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Authorization {
    #[serde(default)]
    roles: Vec<RoleReference>,
}

/// By id or by name.
#[derive(Deserialize)]
#[serde(expecting = "an object with id or name", deny_unknown_fields)]
struct RoleReference {
    id: Option<String>,
    name: Option<String>,
}

async fn authorize(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    forbid(&call, &Target::new())?;
    if call.caller.credentials.is_delegated_auth {
        return Err(Fault::forbidden("Cannot authorize a request token with a token issued via delegation."));
    }
    let body: Authorization = call.json().await?;
    let (id, user) = (call.param("id").to_owned(), call.caller.user_id());
    let known = identity.store.get::<RequestToken>(&id).await?;
    let known = known.ok_or_else(|| missing("request token", &id))?;
    if known.expires_at <= call.now {
        return Err(Fault::unauthenticated("Request token is expired"));
    }
    let roles = wanted(&identity, body.roles)?;
    let held = identity.model().roles_of(&user, &Place::Project(known.project_id.clone()));
    if !roles.iter().all(|role| held.contains(role.as_str())) {
        return Err(Fault::unauthenticated("authorizing user does not have role required"));
    }
    let verifier = verifier(&identity);
    let shown = json!({"token": {"oauth_verifier": verifier}});
    let work = move |tx: &mut Tx| {
        let token = tx.get::<RequestToken>(&id)?.ok_or_else(|| missing("request token", &id))?.doc;
        let (user, roles) = (Some(user.clone()), roles.clone());
        tx.update(&RequestToken { authorizing_user_id: user, roles, verifier: verifier.as_str().into(), ..token })?;
        Ok(())
    };
    identity.write(&call, work).await?;
    call.reply(200, &shown)
}

fn wanted(identity: &Identity, roles: Vec<RoleReference>) -> Result<Vec<RoleId>> {
    if roles.len() > ROLES {
        return Err(Fault::invalid(format!("Invalid input for field 'roles': at most {ROLES} can be lent.")));
    }
    let model = identity.model();
    let mut found = BTreeSet::new();
    for role in roles {
        let (role, name) = match (role.id, role.name) {
            (Some(id), None) => (model.roles.get(&id), id),
            (None, Some(name)) => (model.roles.one("name", &crate::model::named("", &name)), name),
            _ => return Err(Fault::invalid("Invalid input for field 'roles': each has an id or a name.")),
        };
        found.insert(role.ok_or_else(|| missing("role", &name))?.id.clone());
    }
    Ok(found.into_iter().collect())
}

fn verifier(identity: &Identity) -> String {
    let mut text = String::new();
    while text.len() < VERIFIER_CHARS {
        let mut bytes = [0u8; 16];
        identity.env.random.fill(&mut bytes);
        // Of 256 values those below a multiple of the alphabet's length are even.
        let even = bytes.into_iter().filter(|byte| usize::from(*byte) < 256 / VERIFIER.len() * VERIFIER.len());
        let letters = even.map(|byte| VERIFIER[usize::from(byte) % VERIFIER.len()] as char);
        text.extend(letters.take(VERIFIER_CHARS - text.len()));
    }
    text
}

async fn exchange(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let signed = signed(&call)?;
    let consumer = signed.need("oauth_consumer_key")?.to_owned();
    let id = signed.need("oauth_token")?.to_owned();
    let verifier = signed.need("oauth_verifier")?.to_owned();
    let known = identity.store.get::<RequestToken>(&id).await?;
    let known = known.ok_or_else(|| missing("request token", &id))?.doc;
    if known.expires_at <= call.now {
        return Err(Fault::unauthenticated("Request token is expired"));
    }
    let secrets = identity.store.secrets();
    let token = secrets.open(&known, "secret", &known.secret)?;
    let secret = secret(&identity, &consumer).await?.filter(|_| known.consumer_id == consumer);
    if !secret.is_some_and(|secret| signed.holds(&secret, &token)) {
        return Err(Fault::unauthenticated("Invalid signature"));
    }
    let right = secrets.open(&known, "verifier", &known.verifier)?;
    let user = known.authorizing_user_id.filter(|_| !right.is_empty());
    let user = user.ok_or_else(|| Fault::unauthenticated("Request Token does not have an authorizing user id."))?;
    if !bool::from(right.as_bytes().ct_eq(verifier.as_bytes())) {
        return Err(Fault::unauthenticated("Provided verifier does not match stored verifier"));
    }
    let secret = identity.env.secret_hex(16);
    let made = AccessToken {
        id: identity.env.secret_hex(16),
        consumer_id: consumer,
        project_id: known.project_id,
        authorizing_user_id: user,
        roles: known.roles,
        expires_at: whole(call.now.plus_s(ACCESS_LASTS_S)),
        secret: secret.as_str().into(),
    };
    let answer = form(&made.id, &secret, &made.expires_at.iso_micros());
    let work = move |tx: &mut Tx| {
        // Of two at the same time one gets it.
        if tx.get::<RequestToken>(&id)?.is_none() {
            return Err(missing("request token", &id));
        }
        tx.delete::<RequestToken>(&id)?;
        Ok(tx.create(&made).map(drop)?)
    };
    identity.write(&call, work).await?;
    Ok(answer)
}

impl Identity {
    /// The method `oauth1`: a request that a consumer has signed with an access token.
    pub(crate) async fn by_access_token(&self, signed: Option<&SignedRequest>) -> Result<Proof> {
        let signed = signed.ok_or_else(|| {
            Fault::invalid("Cannot retrieve Authorization headers: the request is to be signed by OAuth 1.0a.")
        })?;
        let id = signed.need("oauth_token")?;
        let known = self.store.get::<AccessToken>(id).await?.map(|stored| stored.doc);
        let known = known.ok_or_else(|| missing("access token", id))?;
        let token = self.store.secrets().open(&known, "secret", &known.secret)?;
        let consumer = signed.need("oauth_consumer_key")?;
        let secret = secret(self, consumer).await?.filter(|_| known.consumer_id == consumer);
        if !secret.is_some_and(|secret| signed.holds(&secret, &token)) || known.expires_at <= self.env.now() {
            return Err(refused("the signature does not hold, or the access token has expired"));
        }
        Ok(Proof {
            methods: Methods::OAUTH1,
            before: Some(known.expires_at),
            scope: Some(Scope::Oauth { project: known.project_id, access_token: known.id }),
            ..Proof::of(known.authorizing_user_id)
        })
    }
}
