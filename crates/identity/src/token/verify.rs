//! From the text of a token to what it means now.
//!
//! Everything but the token itself is looked up anew each time: roles, whether user, project and domain are enabled,
//! and revocations. So there is nothing to invalidate.

use super::methods::Methods;
use super::payload::{FederatedScope, Payload, Scope};
use super::revoke;
use crate::assignment::effective;
use crate::documents::*;
use crate::model::Model;
use base::{Fault, Result, Timestamp};
use bytes::Bytes;
use policy::Credentials;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// How long after its end a token still verifies for a service that asks so (`allow_expired`), as in Keystone.
pub const EXPIRED_WINDOW_S: i64 = 48 * 3600;

/// A token that holds, with what it leads to.
pub struct Verified {
    pub payload: Payload,
    pub issued: Timestamp,
    pub user: Arc<User>,
    pub user_domain: Arc<Project>,
    /// With its domain.
    pub project: Option<(Arc<Project>, Arc<Project>)>,
    pub domain: Option<Arc<Project>>,
    /// In the order of ids.
    pub roles: Vec<Arc<Role>>,
    pub application_credential: Option<Arc<ApplicationCredential>>,
    /// What the application credential restricts the token to.
    pub access_rules: Option<Vec<Arc<AccessRule>>>,
    /// What a user has lent the consumer that has this token.
    pub access_token: Option<Arc<AccessToken>>,
    pub trust: Option<Arc<Trust>>,
    /// When a membership ends that may be why a role is there.
    pub memberships_end: Option<Timestamp>,
    /// The answer to a validation, once worked out. It is dropped with the rest when anything changes.
    pub body: OnceLock<Bytes>,
}

/// Why not: for the log. A client reads the same sentence for all.
pub fn refused(why: &str) -> Fault {
    let fault = Fault::unauthenticated("The request you have made requires authentication.");
    fault.because(std::io::Error::other(why.to_owned()))
}

/// Verifies. Unauthenticated for anything that does not hold.
pub fn verify(model: &Model, token: &str, now: Timestamp, allow_expired: bool) -> Result<Verified> {
    let opened = model.keys.open(token);
    let (payload, second) = opened.ok_or_else(|| refused("no key opens the token, or it is none"))?;
    let until = if allow_expired { payload.expires.plus_s(EXPIRED_WINDOW_S) } else { payload.expires };
    if now >= until {
        return Err(refused("the token has expired"));
    }
    let verified = resolve(model, payload, second, now)?;
    // Of a deputy's token both count.
    let users = [verified.user.id.as_str(), verified.payload.user.as_str()];
    let facts = users.map(|user| revoke::Facts {
        audit_id: verified.payload.audit[0],
        chain: verified.payload.audit.get(1).copied(),
        issued: revoke::issued(verified.payload.audit[0], second),
        user,
        project: verified.project.as_ref().map(|(project, _)| project.id.as_str()),
        domains: [
            Some(verified.user_domain.id.as_str()),
            verified.project.as_ref().map(|(_, domain)| domain.id.as_str()),
            verified.domain.as_ref().map(|domain| domain.id.as_str()),
        ],
    });
    if facts.iter().any(|facts| model.revocations.hit(facts)) {
        return Err(refused("the token has been revoked"));
    }
    Ok(verified)
}

/// What a payload means now. Unauthenticated when something of it is gone or disabled, or no role is left.
pub fn resolve(model: &Model, payload: Payload, second: u64, now: Timestamp) -> Result<Verified> {
    let user = model.active_user(&payload.user);
    let user = user.ok_or_else(|| refused("the user is gone or disabled"))?.clone();
    let user_domain = enabled_domain(model, &user.domain_id)?;
    let mut verified = Verified {
        issued: Timestamp(i64::try_from(second).unwrap_or(0).saturating_mul(1_000_000)),
        user,
        user_domain,
        project: None,
        domain: None,
        roles: Vec::new(),
        application_credential: None,
        access_rules: None,
        access_token: None,
        trust: None,
        memberships_end: None,
        body: OnceLock::new(),
        payload,
    };
    let place = match verified.payload.scope.clone() {
        Scope::Unscoped => return Ok(verified),
        Scope::System => Place::System,
        Scope::Domain(id) => {
            verified.domain = Some(enabled_domain(model, &id)?);
            Place::Domain(id)
        }
        Scope::Project(id) => verified.in_project(model, id)?,
        Scope::ApplicationCredential { project, id } => {
            let credential = model.application_credentials.get(&id).filter(|credential| {
                credential.expires_at.is_none_or(|at| now < at)
                    && credential.user_id == verified.user.id
                    && credential.project_id == project
            });
            let credential = credential.ok_or_else(|| refused("the application credential is gone or has expired"))?;
            let rules = credential.access_rules.as_ref();
            verified.access_rules =
                rules.map(|ids| ids.iter().filter_map(|id| model.access_rules.get(id)).cloned().collect());
            verified.application_credential = Some(credential.clone());
            verified.in_project(model, project)?
        }
        Scope::Trust { trust, .. } => return by_trust(model, verified, &trust, now),
        Scope::Federated { scope, groups, provider, protocol } => {
            return by_provider(model, verified, (scope, &groups), (&provider, &protocol));
        }
        Scope::Oauth { project, access_token } => {
            let found = model.access_tokens.get(&access_token).filter(|found| {
                now < found.expires_at
                    && found.authorizing_user_id == verified.user.id
                    && found.project_id == project
                    && model.consumers.get(&found.consumer_id).is_some()
            });
            let found = found.ok_or_else(|| refused("the access token is gone or has expired"))?;
            verified.access_token = Some(found.clone());
            verified.in_project(model, project)?
        }
        Scope::Oauth2 { .. } => {
            return Err(refused("tokens of this kind are not issued here"));
        }
    };
    let mut ids = model.roles_of(&verified.user.id, &place);
    verified.memberships_end = model.memberships_end(&verified.user.id);
    let lent = verified.application_credential.as_ref().map(|credential| &credential.roles);
    if let Some(roles) = lent.or(verified.access_token.as_ref().map(|token| &token.roles)) {
        let mut granted = roles.iter().map(ToString::to_string).collect();
        effective::expand(model, &mut granted);
        ids.retain(|id| granted.contains(id));
    }
    verified.with_roles(model, &ids).ok_or_else(|| refused("the user has no role there"))
}

/// A token of somebody whom an identity provider knows: its groups count beside the user's own.
fn by_provider(
    model: &Model,
    mut verified: Verified,
    (scope, groups): (FederatedScope, &[String]),
    (provider, protocol): (&str, &str),
) -> Result<Verified> {
    let heard = model.identity_providers.get(provider).is_some_and(|provider| provider.enabled)
        && model.protocols.get(&Protocol::id_of(provider, protocol)).is_some();
    if !heard {
        return Err(refused("the identity provider is gone or disabled"));
    }
    let place = match scope {
        FederatedScope::Unscoped => return Ok(verified),
        FederatedScope::Project(id) => verified.in_project(model, id)?,
        FederatedScope::Domain(id) => {
            verified.domain = Some(enabled_domain(model, &id)?);
            Place::Domain(id)
        }
    };
    verified.memberships_end = model.memberships_end(&verified.user.id);
    let ids = effective::roles_with(model, &verified.user.id, groups, &place);
    verified.with_roles(model, &ids).ok_or_else(|| refused("the user has no role there"))
}

/// A trust's token: of the trustee, or in the name of the trustor, with the roles of the trust.
fn by_trust(model: &Model, mut verified: Verified, id: &str, now: Timestamp) -> Result<Verified> {
    let trust = model.trusts.get(id).filter(|trust| trust.trustee_user_id == verified.user.id);
    let trust = trust.filter(|trust| crate::trust::chain_holds(model, trust, now));
    let trust = trust.ok_or_else(|| refused("the trust is gone, has ended, or lends what its trustor lost"))?.clone();
    if trust.impersonation {
        let trustor = model.active_user(&trust.trustor_user_id).ok_or_else(|| refused("the trustor is gone"))?;
        verified.user = trustor.clone();
        verified.user_domain = enabled_domain(model, &trustor.domain_id)?;
    }
    let Some(project) = trust.project_id.clone() else {
        verified.trust = Some(trust);
        return Ok(verified);
    };
    verified.in_project(model, project)?;
    let mut lent = trust.roles.iter().map(ToString::to_string).collect();
    effective::expand(model, &mut lent);
    verified.trust = Some(trust);
    verified.with_roles(model, &lent).ok_or_else(|| refused("the trust lends no role"))
}

fn enabled_domain(model: &Model, id: &str) -> Result<Arc<Project>> {
    let domain = model.domain(id).filter(|domain| domain.enabled);
    domain.cloned().ok_or_else(|| refused("the domain is gone or disabled"))
}

/// The roles that show in tokens: one of a domain alone shows only by what it implies.
pub(crate) fn shown_roles(model: &Model, ids: &BTreeSet<String>) -> Vec<Arc<Role>> {
    let found = ids.iter().filter_map(|id| model.roles.get(id));
    found.filter(|role| role.domain_id.is_none()).cloned().collect()
}

impl Verified {
    /// With these roles; none where nothing is left of them.
    fn with_roles(mut self, model: &Model, ids: &BTreeSet<String>) -> Option<Verified> {
        self.roles = shown_roles(model, ids);
        (!self.roles.is_empty()).then_some(self)
    }

    /// The groups that an identity provider named.
    pub fn lent_groups(&self) -> &[String] {
        match &self.payload.scope {
            Scope::Federated { groups, .. } => groups,
            _ => &[],
        }
    }

    fn in_project(&mut self, model: &Model, id: base::ProjectId) -> Result<Place> {
        let project = model.projects.get(&id).filter(|project| project.enabled);
        let project = project.ok_or_else(|| refused("the project is gone or disabled"))?.clone();
        let domain = enabled_domain(model, project.domain())?;
        self.project = Some((project, domain));
        Ok(Place::Project(id))
    }

    /// True where somebody else's power was lent: such a token may not lend it on.
    pub fn is_delegated(&self) -> bool {
        self.application_credential.is_some() || self.trust.is_some() || self.payload.methods.lent()
    }

    pub fn credentials(&self) -> Credentials {
        let (project, project_domain) = self.project.as_ref().map(|(p, d)| (Some(p), Some(d))).unwrap_or_default();
        Credentials {
            user_id: self.user.id.clone(),
            user_name: self.user.name.clone(),
            user_domain_id: self.user.domain_id.clone(),
            project_id: project.map(|project| project.id.clone()),
            project_name: project.map(|project| project.name.clone()),
            project_domain_id: project_domain.map(|domain| domain.id.as_str().into()),
            domain_id: self.domain.as_ref().map(|domain| domain.id.as_str().into()),
            system_scope: (self.payload.scope == Scope::System).then_some("all"),
            roles: self.roles.iter().map(|role| role.name.clone()).collect(),
            is_admin_project: true,
            is_delegated_auth: self.is_delegated(),
            application_credential_id: self.application_credential.as_ref().map(|credential| credential.id.clone()),
            trust_id: self.trust.as_ref().map(|trust| trust.id.clone()),
            trustor_id: self.trust.as_ref().map(|trust| trust.trustor_user_id.clone()),
            trustee_id: self.trust.as_ref().map(|trust| trust.trustee_user_id.clone()),
            ..Credentials::default()
        }
    }

    /// True if a password was part of the proof.
    pub fn by(&self, method: Methods) -> bool {
        self.payload.methods.contains(method)
    }
}
