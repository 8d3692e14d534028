//! Making tokens: who proves what, and the scope that was asked for.

use super::methods::Methods;
use super::payload::{FederatedScope, Payload, Scope};
use super::request::{self, DomainReference, ProjectReference, Request, ScopeRequest, UserReference};
use super::revoke::audit_id;
use super::verify::{self, Verified, refused};
use crate::{Identity, Provider};
use crate::documents::*;
use crate::model::{Model, named};
use crate::login_limit::{Subject, Taken};
use base::{Fault, FaultKind, ProjectId, Result, Timestamp, UserId};
use std::sync::Arc;

/// A new token's text and meaning.
pub struct Issued {
    pub text: String,
    pub verified: Verified,
}

/// What the proofs of a request have in common, once they hold.
pub(crate) struct Proof {
    pub user: UserId,
    pub methods: Methods,
    /// Of the token that was shown: a new one never lives longer.
    pub before: Option<Timestamp>,
    pub chain: Option<super::payload::AuditId>,
    pub scope: Option<Scope>,
    /// Set where an identity provider has said who it is.
    pub federated: Option<Federated>,
}

impl Proof {
    /// Of nothing but who it is.
    pub fn of(user: UserId) -> Proof {
        Proof { user, methods: Methods::default(), before: None, chain: None, scope: None, federated: None }
    }
}

/// What a token keeps of what an identity provider said.
#[derive(Clone)]
pub(crate) struct Federated {
    pub groups: Vec<String>,
    pub provider: String,
    pub protocol: String,
}

impl Federated {
    fn of(scope: &Scope) -> Option<Federated> {
        let Scope::Federated { groups, provider, protocol, .. } = scope else { return None };
        Some(Federated { groups: groups.clone(), provider: provider.clone(), protocol: protocol.clone() })
    }

    /// The scope, with what the provider said. The whole cloud and trusts know nothing of providers, as in Keystone.
    fn within(self, scope: Scope) -> Scope {
        let scope = match scope {
            Scope::Unscoped => FederatedScope::Unscoped,
            Scope::Project(id) => FederatedScope::Project(id),
            Scope::Domain(id) => FederatedScope::Domain(id),
            other => return other,
        };
        Scope::Federated { scope, groups: self.groups, provider: self.provider, protocol: self.protocol }
    }
}

/// What of a request's headers counts as well.
#[derive(Default)]
pub(crate) struct Headers {
    pub receipt: Option<String>,
    /// A consumer's signed request.
    pub signed: Option<crate::oauth1::SignedRequest>,
    /// A token that an identity provider has signed.
    pub bearer: Option<String>,
    /// Whom an identity provider has named already.
    pub known: Option<crate::federation::Bearer>,
    pub source: Option<std::net::IpAddr>,
}

/// What a request for a token leads to, when its proofs hold.
pub(crate) enum Outcome {
    Token(Box<Issued>),
    /// The user's rules ask for more.
    Receipt(super::receipt::Issued),
}

impl Identity {
    /// Checks the proofs and makes a token. Unauthenticated, without saying why, when they do not hold.
    pub(crate) async fn issue(&self, request: Request, headers: Headers) -> Result<Outcome> {
        let taken = self.take_place(&request, headers.source)?;
        let proved = self.prove(&request, &headers).await;
        if !matches!(&proved, Err(fault) if fault.kind == FaultKind::Unauthenticated) {
            self.login_limit.give_back(taken);
        }
        let mut proof = proved?;
        if let Some(text) = &headers.receipt {
            proof.methods = proof.methods.with(self.receipt(text, &proof.user)?);
        }
        if !super::receipt::suffices(&self.model(), &proof.user, proof.methods) {
            return self.make_receipt(proof.user, proof.methods).map(Outcome::Receipt);
        }
        self.issue_for(proof, request.auth.scope).await.map(|issued| Outcome::Token(Box::new(issued)))
    }

    /// A place for a login that may fail: of all methods that could be guessed.
    fn take_place(&self, request: &Request, source: Option<std::net::IpAddr>) -> Result<Taken> {
        let identity = &request.auth.identity;
        let users = [identity.password.as_ref().map(|p| &p.user.user), identity.totp.as_ref().map(|p| &p.user.user)];
        let mut names: Vec<String> = Vec::new();
        for user in users.into_iter().flatten() {
            let model = self.model();
            let known = find_user(&model, user).ok().flatten().map(|user| user.id.to_string());
            let asked = crate::directory::asked_for(&model, user).ok().flatten().map(|asked| asked.subject());
            names.push(known.or(asked).unwrap_or_else(|| format!("{user:?}")));
        }
        if let Some(credential) = &identity.application_credential {
            names.push(format!("{:?} {:?} {:?}", credential.id, credential.name, credential.user));
        }
        names.dedup();
        if names.is_empty() {
            return Ok(Taken::default());
        }
        let mut subjects: Vec<Subject> = names.iter().map(|name| Subject::User(name)).collect();
        subjects.extend(source.map(Subject::Source));
        self.login_limit.take(&self.options.login_limit, &subjects, self.env.now())
    }

    /// A token for proofs that hold and suffice.
    pub(crate) async fn issue_for(&self, proof: Proof, scope: Option<serde_json::Value>) -> Result<Issued> {
        self.confirm(&proof.user).await?;
        let issued = self.seal(proof, scope)?;
        if let Some(trust) = &issued.verified.trust {
            self.confirm_all(&issued.verified).await?;
            if !crate::trust::chain_holds(&self.present(), trust, self.env.now()) {
                return Err(refused("the trust no longer holds"));
            }
        }
        if let Some(trust) = issued.verified.trust.as_ref().filter(|trust| trust.remaining_uses.is_some()) {
            self.use_up(&trust.id).await?;
        }
        Ok(issued)
    }

    /// Counts one token that is made with a trust. Unauthenticated when there were enough already.
    async fn use_up(&self, trust: &str) -> Result<()> {
        let id = trust.to_owned();
        let cause = store::Cause::new("nubo", "", "trust.use");
        let work = move |tx: &mut store::Tx| {
            let trust = tx.get::<Trust>(&id)?.ok_or_else(|| refused("the trust is gone"))?.doc;
            let left = trust.remaining_uses.map_or(0, |left| left - 1);
            if left < 0 {
                return Err(refused("the trust has been used up"));
            }
            Ok(tx.update(&Trust { remaining_uses: Some(left), ..trust }).map(drop)?)
        };
        self.store.write(cause, work).await?;
        self.sync().await
    }

    fn seal(&self, proof: Proof, asked: Option<serde_json::Value>) -> Result<Issued> {
        let now = self.env.now();
        let model = self.model();
        let scope = match (asked, proof.scope.clone()) {
            (None, Some(scope)) => scope,
            (Some(_), Some(_)) => {
                return Err(Fault::invalid("What was lent with a scope cannot request another."));
            }
            (Some(asked), None) => wanted(&model, asked, &proof.user)?,
            (None, None) if proof.federated.is_some() => Scope::Unscoped,
            (None, None) => usual(&model, &proof.user),
        };
        let scope = match proof.federated {
            Some(federated) => federated.within(scope),
            None => scope,
        };
        let ttl = now.plus_s(self.options.token_ttl_s);
        // The end of a token is in whole seconds, as its birth.
        let expires = whole(ttl);
        let mut audit = vec![audit_id(now, &*self.env.random)];
        audit.extend(proof.chain);
        let lent = match &scope {
            Scope::Trust { trust, .. } => model.trusts.get(trust).and_then(|trust| trust.expires_at).map(whole),
            _ => None,
        };
        let payload = Payload {
            user: proof.user,
            methods: proof.methods,
            scope,
            expires: [proof.before, lent].into_iter().flatten().fold(expires, Timestamp::min),
            audit,
        };
        let second = (now.micros() / 1_000_000) as u64;
        let verified = verify::resolve(&model, payload, second, now)?;
        let text = match self.options.token_provider {
            Provider::Jws => super::jws::seal(&model.keys.jws, &verified.payload, second)?,
            Provider::Fernet => {
                let key = model.keys.keys.first().ok_or_else(|| Fault::bug("there are no keys for tokens"))?;
                let mut iv = [0u8; 16];
                self.env.random.fill(&mut iv);
                key.encrypt(&verified.payload.pack(model.keys.methods), second, iv)
            }
        };
        Ok(Issued { text, verified })
    }

    async fn prove(&self, request: &Request, headers: &Headers) -> Result<Proof> {
        let identity = &request.auth.identity;
        if identity.methods.is_empty() {
            return Err(Fault::invalid("Invalid input for field 'methods': at least one method is needed."));
        }
        let mut proof: Option<Proof> = None;
        for method in &identity.methods {
            let missing = || Fault::invalid(format!("Expecting to find {method} in identity."));
            let next = match method.as_str() {
                "password" => self.by_password(identity.password.as_ref().ok_or_else(missing)?).await?,
                "token" => {
                    let text = &identity.token.as_ref().ok_or_else(missing)?.id;
                    self.find_key(text).await?;
                    self.by_token(text)?
                }
                "application_credential" => {
                    let credential = identity.application_credential.as_ref().ok_or_else(missing)?;
                    self.by_application_credential(credential).await?
                }
                "totp" => self.by_totp(identity.totp.as_ref().ok_or_else(missing)?).await?,
                "oauth1" => self.by_access_token(headers.signed.as_ref()).await?,
                "mapped" | "openid" => {
                    let wanted = if method == "mapped" { &identity.mapped } else { &identity.openid };
                    self.by_mapping(wanted.as_ref().ok_or_else(missing)?, headers).await?
                }
                _ => return Err(refused("the method is not supported")),
            };
            proof = Some(match proof {
                None => next,
                Some(so_far) if so_far.user == next.user => Proof {
                    user: next.user,
                    methods: so_far.methods.with(next.methods),
                    before: so_far.before.or(next.before),
                    chain: so_far.chain.or(next.chain),
                    scope: so_far.scope.or(next.scope),
                    federated: so_far.federated.or(next.federated),
                },
                Some(_) => return Err(refused("the methods name different users")),
            });
        }
        proof.ok_or_else(|| refused("no method"))
    }

    async fn by_password(&self, proof: &request::Password) -> Result<Proof> {
        let asked = crate::directory::asked_for(&self.model(), &proof.user.user)?;
        if let Some(asked) = asked {
            return self.by_directory(&asked, &proof.user.password).await;
        }
        let found = find_user(&self.model(), &proof.user.user)?;
        if proof.user.password.len() > crate::password::PASSWORD_BYTES {
            return Err(refused("the password is too long"));
        }
        let user = self.logged_in(found.as_deref().map(|user| user.id.as_str()), proof.user.password.clone()).await?;
        let user = user.ok_or_else(|| refused("user and password do not fit, or the user is locked"))?;
        if user.password_end().is_some_and(|end| end <= self.env.now()) {
            let id = &user.id;
            return Err(Fault::unauthenticated(format!("The password of user {id} has expired and must be changed.")));
        }
        Ok(Proof { methods: Methods::PASSWORD, ..Proof::of(user.id.clone()) })
    }

    pub(crate) fn by_token(&self, text: &str) -> Result<Proof> {
        // A token that proves nothing is not there, as in Keystone, which answers so here alone.
        let shown = verify::verify(&self.model(), text, self.env.now(), false)
            .map_err(|_| Fault::not_found("Could not find token."))?;
        if shown.is_delegated() {
            return Err(Fault::forbidden(
                "A token from an application credential or a trust cannot be exchanged for another.",
            ));
        }
        Ok(Proof {
            methods: shown.payload.methods.with(Methods::TOKEN),
            before: Some(shown.payload.expires),
            chain: shown.payload.audit.last().copied(),
            federated: Federated::of(&shown.payload.scope),
            ..Proof::of(shown.user.id.clone())
        })
    }

    async fn by_application_credential(&self, proof: &request::ApplicationCredential) -> Result<Proof> {
        let found = find_application_credential(&self.model(), proof)?;
        let hash = match &found {
            Some(credential) => {
                let id = credential.id.clone();
                let stored = self.store.read(move |reader| Ok(reader.get::<ApplicationCredential>(&id)?)).await?;
                stored.map(|credential| credential.doc.secret)
            }
            None => None,
        };
        let holds = self.passwords.verify(proof.secret.clone(), hash).await?;
        let credential = found.filter(|_| holds).ok_or_else(|| refused("credential and secret do not fit"))?;
        let scope = Scope::ApplicationCredential { project: credential.project_id.clone(), id: credential.id.clone() };
        Ok(Proof {
            methods: Methods::APPLICATION_CREDENTIAL,
            before: credential.expires_at.map(whole),
            scope: Some(scope),
            ..Proof::of(credential.user_id.clone())
        })
    }
}

/// At whole seconds, as tokens end.
pub(crate) fn whole(at: Timestamp) -> Timestamp {
    Timestamp(at.micros() / 1_000_000 * 1_000_000)
}

pub(crate) fn find_domain<'a>(model: &'a Model, reference: &DomainReference) -> Result<Option<&'a Arc<Project>>> {
    match (&reference.id, &reference.name) {
        (Some(id), _) => Ok(model.domain(id)),
        (None, Some(name)) => Ok(model.domain_named(name)),
        (None, None) => Err(Fault::invalid("Expecting to find id or name in domain.")),
    }
}

pub(crate) fn find_user(model: &Model, reference: &UserReference) -> Result<Option<Arc<User>>> {
    match (&reference.id, &reference.name, &reference.domain) {
        (Some(id), ..) => Ok(model.users.get(id).cloned()),
        (None, Some(name), Some(domain)) => {
            let Some(domain) = find_domain(model, domain)? else { return Ok(None) };
            let known = model.users.one("name", &named(&domain.id, name));
            Ok(known.or_else(|| of_directory(model, &domain.id, name)).cloned())
        }
        (None, Some(_), None) => Err(Fault::invalid("Expecting to find domain in user.")),
        (None, None, _) => Err(Fault::invalid("Expecting to find id or name in user.")),
    }
}

/// The user of a directory whom this name leads to, among those who were seen; nobody where it leads to several.
fn of_directory<'a>(model: &'a Model, domain: &str, name: &str) -> Option<&'a Arc<User>> {
    let called = named(domain, name);
    let mut found = model.users.find("called", &called).filter(|user| model.stands(user));
    let first = found.next();
    if found.next().is_none() { first } else { None }
}

fn find_application_credential(
    model: &Model,
    proof: &request::ApplicationCredential,
) -> Result<Option<Arc<ApplicationCredential>>> {
    match (&proof.id, &proof.name, &proof.user) {
        (Some(id), ..) => Ok(model.application_credentials.get(id).cloned()),
        (None, Some(name), Some(user)) => {
            let Some(user) = find_user(model, user)? else { return Ok(None) };
            Ok(model.application_credentials.one("name", &named(&user.id, name)).cloned())
        }
        _ => Err(Fault::invalid("Expecting to find id, or name and user, in application_credential.")),
    }
}

/// The scope that a request names. Unauthenticated for one that does not exist: nobody may find out names this way.
fn wanted(model: &Model, asked: serde_json::Value, user: &UserId) -> Result<Scope> {
    if asked == "unscoped" {
        return Ok(Scope::Unscoped);
    }
    let asked: ScopeRequest =
        serde_json::from_value(asked).map_err(|error| Fault::invalid(format!("Invalid input for scope: {error}.")))?;
    let parts = [
        asked.project.is_some(),
        asked.domain.is_some(),
        asked.system.is_some(),
        asked.unscoped.is_some(),
        asked.trust.is_some(),
    ];
    if parts.into_iter().filter(|named| *named).count() != 1 {
        return Err(Fault::invalid("Expecting to find exactly one of project, domain, system or unscoped in scope."));
    }
    if asked.unscoped.is_some() {
        return Ok(Scope::Unscoped);
    }
    if asked.system.is_some_and(|system| system.all) {
        return Ok(Scope::System);
    }
    if let Some(domain) = asked.domain {
        let domain = find_domain(model, &domain)?.ok_or_else(|| refused("there is no such domain"))?;
        return Ok(Scope::Domain(domain.id.as_str().into()));
    }
    if let Some(trust) = asked.trust {
        let trust = model.trusts.get(&trust.id).ok_or_else(|| refused("there is no such trust"))?;
        if trust.trustee_user_id != *user {
            return Err(Fault::forbidden("User is not a trustee."));
        }
        let project = trust.project_id.clone().unwrap_or_else(|| ProjectId::new(""));
        return Ok(Scope::Trust { project, trust: trust.id.clone() });
    }
    let project = asked.project.ok_or_else(|| refused("this scope is not supported"))?;
    let project = find_project(model, &project)?.ok_or_else(|| refused("there is no such project"))?;
    Ok(Scope::Project(project.id.clone()))
}

fn find_project<'a>(model: &'a Model, reference: &ProjectReference) -> Result<Option<&'a Arc<Project>>> {
    match (&reference.id, &reference.name, &reference.domain) {
        (Some(id), ..) => Ok(model.projects.get(id)),
        (None, Some(name), Some(domain)) => {
            let Some(domain) = find_domain(model, domain)? else { return Ok(None) };
            Ok(model.projects.one("name", &named(&domain.id, name)))
        }
        (None, Some(_), None) => Err(Fault::invalid("Expecting to find domain in project.")),
        (None, None, _) => Err(Fault::invalid("Expecting to find id or name in project.")),
    }
}

/// Without a scope: the user's default project if the user may work there, else none.
fn usual(model: &Model, user: &UserId) -> Scope {
    let project = model.users.get(user).and_then(|user| user.default_project_id.clone());
    let usable = project.filter(|id| {
        let Some(project) = model.projects.get(id).filter(|project| project.enabled) else { return false };
        let domain = model.domain(project.domain()).is_some_and(|domain| domain.enabled);
        domain && !model.roles_of(user, &Place::Project(id.clone())).is_empty()
    });
    usable.map_or(Scope::Unscoped, Scope::Project)
}
