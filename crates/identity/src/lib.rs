//! Identity: Keystone's v3 API. Who is who, who may do what where, and where the services are.
//!
//! Owns users, groups, projects, domains, roles and their assignments, the catalog, application credentials and tokens.
//! Everything is a document in the store; what a request needs is read from [`model`], which follows the store in
//! memory, and every write decides again inside its transaction. Must never show or log a secret, tell a stranger whether
//! something exists, or trust a token without looking up what it means now.

/// A table of routes that a policy rule guards: method, path, operation, rule, status, handler.
macro_rules! routes {
    ($identity:expr; $($method:ident $path:expr, $operation:literal, $rule:literal, $status:literal, $handler:path;)*) => {
        vec![$(rest::Route::new(
            $identity, rest::Method::$method, $path, $operation, rest::Access::Rule($rule), $status, $handler,
        )),*]
    };
}

pub mod access_rule;
pub mod application_credential;
pub mod assignment;
mod audit;
pub mod bootstrap;
pub mod catalog;
pub mod compliance;
pub mod credential;
pub mod directory;
pub mod documents;
pub mod domain;
pub mod endpoint_filter;
mod escape;
pub mod federation;
mod fields;
pub mod group;
pub mod keystone;
pub mod limit;
mod listing;
pub mod login_limit;
pub mod model;
pub mod oauth1;
mod oauth2;
pub mod password;
pub mod policy_text;
pub mod project;
pub mod role;
mod rights;
mod rules;
mod then;
pub mod token;
pub mod trust;
pub mod user;
mod version;

#[cfg(test)]
pub(crate) mod tests;

pub use access_rule::held_from_undo;
pub use bootstrap::{BootstrapOptions, bootstrap};
pub use password::Algorithm;
pub use rules::RULES;

use base::{Env, Fault, Result};
use documents::TokenKeys;
use model::{Keyring, Model};
use password::Passwords;
use policy::Policy;
use rest::{Call, Caller, DryRun, Envelope, Service, Undo};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use store::{Event, Kind, Store, Tx, Watch};

/// A service of the catalog that nubo itself serves.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// `compute`.
    pub kind: &'static str,
    /// `nova`.
    pub name: &'static str,
    /// Below the public URL, such as `/compute/v2.1`; may hold `$(project_id)s`.
    pub path: &'static str,
}

/// How tokens are made. Both kinds are verified, whichever is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    #[default]
    Fernet,
    Jws,
}

impl Provider {
    pub const NAMES: [&'static str; 2] = ["fernet", "jws"];

    pub fn parse(name: &str) -> Option<Provider> {
        match name {
            "fernet" => Some(Provider::Fernet),
            "jws" => Some(Provider::Jws),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Where clients reach the cloud, such as `http://127.0.0.1:8774`; no trailing slash.
    pub public_url: String,
    pub password_algorithm: Algorithm,
    pub token_ttl_s: i64,
    pub token_provider: Provider,
    /// What the bits of methods mean in tokens.
    pub methods: token::methods::Order,
    /// How often a new primary key seals tokens.
    pub key_rotation_s: i64,
    pub compliance: compliance::Compliance,
    pub limit_model: limit::Model,
    pub federation: federation::Options,
    pub login_limit: login_limit::Options,
    /// Connects to the directories of domains; without it there are none.
    pub directories: Option<Arc<dyn directory::Connect>>,
    /// No other process shares the store.
    pub alone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            public_url: "http://127.0.0.1:8774".into(),
            password_algorithm: Algorithm::default(),
            token_ttl_s: 3600,
            token_provider: Provider::Fernet,
            methods: Default::default(),
            key_rotation_s: 86_400,
            compliance: Default::default(),
            limit_model: Default::default(),
            federation: Default::default(),
            login_limit: Default::default(),
            directories: None,
            alone: true,
        }
    }
}

const NO_TOKEN_TWICE: DryRun = DryRun::Not("a token is the answer itself, and nothing is kept of it");
const NO_TOKEN_BACK: Undo = Undo::Not("a token is revoked, and nothing is kept of it");
const NO_ASSERTION_TWICE: DryRun = DryRun::Not("an assertion is the answer itself, and nothing is kept of it");
const NO_ASSERTION_BACK: Undo = Undo::Not("an assertion that was given away ends by itself");
const NOTHING_DONE: Undo = Undo::Not("it answers 405 and changes nothing");

/// Which operations have no dry run or cannot be undone.
const EXCEPT: &[(&str, DryRun, Undo)] = &[
    ("auth:issue_token", NO_TOKEN_TWICE, NO_TOKEN_BACK),
    ("auth:revoke_token", DryRun::Yes, Undo::Not("a revoked token never comes back")),
    ("users:revoke", DryRun::Yes, Undo::Not("a revoked token never comes back")),
    ("users:password", DryRun::Yes, Undo::Not("the password that was replaced is not kept")),
    ("credentials:update", DryRun::Yes, Undo::Not("a secret that was replaced is not kept")),
    ("credentials:delete", DryRun::Yes, Undo::Not("a deleted secret is not kept")),
    ("ec2:delete", DryRun::Yes, Undo::Not("a deleted secret is not kept")),
    ("domain_config:create", DryRun::Yes, Undo::Not("a secret option that was replaced is not kept")),
    ("domain_config:update", DryRun::Yes, Undo::Not("a secret option that was replaced is not kept")),
    ("domain_config:delete", DryRun::Yes, Undo::Not("a deleted secret option is not kept")),
    ("domain_config:update_group", DryRun::Yes, Undo::Not("a secret option that was replaced is not kept")),
    ("domain_config:delete_group", DryRun::Yes, Undo::Not("a deleted secret option is not kept")),
    ("domain_config:update_option", DryRun::Yes, Undo::Not("a secret option that was replaced is not kept")),
    ("domain_config:delete_option", DryRun::Yes, Undo::Not("a deleted secret option is not kept")),
    ("ec2tokens:create", NO_TOKEN_TWICE, NO_TOKEN_BACK),
    ("s3tokens:create", NO_TOKEN_TWICE, NO_TOKEN_BACK),
    ("oauth2:token", NO_TOKEN_TWICE, NO_TOKEN_BACK),
    ("oauth2:token_put", DryRun::Yes, NOTHING_DONE),
    ("oauth2:token_patch", DryRun::Yes, NOTHING_DONE),
    ("oauth2:token_delete", DryRun::Yes, NOTHING_DONE),
    ("request_tokens:create", DryRun::Yes, Undo::Not("a request token ends by itself")),
    ("request_tokens:authorize", DryRun::Yes, Undo::Not("a verifier that was given away cannot be called back")),
    ("access_tokens:create", DryRun::Yes, Undo::Not("a request token that was used up is not kept")),
    ("access_tokens:delete", DryRun::Yes, Undo::Not("a deleted secret is not kept")),
    ("consumers:update", DryRun::Yes, Undo::Not("a secret is not kept twice")),
    ("consumers:delete", DryRun::Yes, Undo::Not("a deleted secret is not kept")),
    ("federation:auth_post", NO_TOKEN_TWICE, NO_TOKEN_BACK),
    ("federation:websso_post", NO_TOKEN_TWICE, NO_TOKEN_BACK),
    ("federation:websso_provider_post", NO_TOKEN_TWICE, NO_TOKEN_BACK),
    ("federation:saml2", NO_ASSERTION_TWICE, NO_ASSERTION_BACK),
    ("federation:saml2_ecp", NO_ASSERTION_TWICE, NO_ASSERTION_BACK),
    ("application_credentials:delete", DryRun::Yes, Undo::Not("a deleted secret is not kept")),
];

/// The service. Shared by its routes.
pub struct Identity {
    store: Store,
    env: Env,
    options: Options,
    passwords: Passwords,
    model: RwLock<Model>,
    watch: Mutex<Watch>,
    verified: token::cache::Cache,
    /// When the keys were last looked for because of a token.
    reloaded: Mutex<Option<base::Timestamp>>,
    key_sets: federation::oidc::KeySets,
    logins: federation::oidc::Logins,
    login_limit: login_limit::Limit,
    directories: directory::Directories,
    /// Names this process among those that share the store.
    process: String,
}

/// Every kind of document that this service keeps.
pub fn kinds() -> Vec<Kind> {
    use documents::*;
    vec![
        Kind::of::<Project>(),
        Kind::of::<User>(),
        Kind::of::<Group>(),
        Kind::of::<Membership>(),
        Kind::of::<Role>(),
        Kind::of::<ImpliedRole>(),
        Kind::of::<Assignment>(),
        Kind::of::<Region>(),
        Kind::of::<documents::Service>(),
        Kind::of::<Endpoint>(),
        Kind::of::<ApplicationCredential>(),
        Kind::of::<Trust>(),
        Kind::of::<Credential>(),
        Kind::of::<RegisteredLimit>(),
        Kind::of::<Limit>(),
        Kind::of::<FailedLogins>(),
        Kind::of::<AccessRule>(),
        Kind::of::<PolicyText>(),
        Kind::of::<PolicyAssociation>(),
        Kind::of::<EndpointGroup>(),
        Kind::of::<EndpointFilter>(),
        Kind::of::<DomainConfig>(),
        Kind::of::<Consumer>(),
        Kind::of::<RequestToken>(),
        Kind::of::<AccessToken>(),
        Kind::of::<IdentityProvider>(),
        Kind::of::<Protocol>(),
        Kind::of::<Mapping>(),
        Kind::of::<ServiceProvider>(),
        Kind::of::<Revocation>(),
        Kind::of::<TokenKeys>(),
        Kind::of::<JwsKeys>(),
        Kind::of::<KeyHolder>(),
    ]
}

impl Identity {
    /// Reads everything into memory. Tokens can be made once [`bootstrap`] has run.
    pub async fn open(store: Store, env: Env, options: Options) -> Result<Arc<Identity>> {
        options.compliance.check()?;
        options.federation.check()?;
        let watch = store.watch();
        if options.token_provider == Provider::Jws {
            token::keys::ensure_signing(&store).await?;
        }
        token::keys::follow_order(&store, options.methods).await?;
        let model = store.read(|reader| Model::load(reader)).await?;
        let model = Model { clock: Some(env.clock.clone()), ..model };
        let passwords = Passwords::new(options.password_algorithm).inline(store.is_inline());
        let (model, watch) = (RwLock::new(model), Mutex::new(watch));
        // Where nobody else is, nobody needs a name: the simulator counts each draw.
        let process = if options.alone { String::new() } else { env.uuid_hex() };
        Ok(Arc::new(Identity {
            store,
            env,
            options,
            passwords,
            model,
            watch,
            verified: Default::default(),
            reloaded: Mutex::default(),
            key_sets: Default::default(),
            logins: Default::default(),
            login_limit: Default::default(),
            directories: Default::default(),
            process,
        }))
    }

    /// Follows the store, rotates the keys of tokens and throws outdated revocations away, until the store is gone.
    pub async fn run(self: Arc<Self>) {
        let mut signal = self.store.watch();
        let mut chores = tokio::time::interval(std::time::Duration::from_secs(300));
        loop {
            tokio::select! {
                biased;
                seen = signal.next() => if seen.is_none() { return },
                _ = chores.tick() => if let Err(fault) = self.chores().await {
                    tracing::warn!("identity: {}", fault.chain());
                },
            }
            if let Err(fault) = self.sync().await {
                tracing::warn!("identity: following the store: {}", fault.chain());
            }
        }
    }

    async fn chores(&self) -> Result<()> {
        let now = self.env.now();
        let outdated = self.model().revocations.outdated(now);
        let strangers = self.failures_of_nobody().await?;
        let lapsed: Vec<String> = {
            let model = self.model();
            model.memberships.all().filter(|member| !member.lasts(now)).map(|member| member.id.clone()).collect()
        };
        let (every, ttl_s) = (self.options.key_rotation_s, self.options.token_ttl_s);
        self.reload_keys().await?;
        let holder = self.holder(now);
        let env = self.env.clone();
        let signs = self.options.token_provider == Provider::Jws;
        let cause = store::Cause::new("nubo", "", "identity.chores");
        let work = move |tx: &mut Tx| {
            for id in &outdated {
                if tx.get::<documents::Revocation>(id)?.is_some() {
                    tx.delete::<documents::Revocation>(id)?;
                }
            }
            for id in &lapsed {
                if tx.get::<documents::Membership>(id)?.is_some_and(|member| !member.lasts(now)) {
                    tx.delete::<documents::Membership>(id)?;
                }
            }
            for id in &strangers {
                if tx.get::<documents::FailedLogins>(id)?.is_some() {
                    tx.delete::<documents::FailedLogins>(id)?;
                }
            }
            token::keys::announce(tx, holder.as_ref())?;
            match tx.get::<TokenKeys>(TokenKeys::ID)? {
                // Where somebody has not the next key yet, it waits for the next time.
                Some(keys) if keys.rotated.plus_s(every) <= now && token::keys::laggard(tx)?.is_none() => {
                    token::keys::rotate(tx, &env, ttl_s)?;
                }
                _ => {}
            }
            match tx.get::<documents::JwsKeys>(documents::JwsKeys::ID)? {
                Some(keys) if signs && keys.rotated.plus_s(every) <= now => token::keys::rotate_signing(tx, ttl_s),
                _ => Ok(()),
            }
        };
        self.store.write(cause, work).await?;
        Ok(())
    }

    /// Takes over what has been committed. Own writes do this before they answer; others are seen by [`Identity::run`].
    pub async fn sync(&self) -> Result<()> {
        let (mut keys, mut lost) = (false, false);
        {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(seen) = watch.try_next() {
                match seen {
                    Event::Revision(revision) => {
                        let applied = self.model.write().unwrap_or_else(PoisonError::into_inner).apply(&revision);
                        match applied {
                            Ok(changed) => keys |= changed,
                            Err(_) => lost = true,
                        }
                    }
                    Event::Lost => lost = true,
                }
            }
        }
        if lost {
            let fresh = self.store.read(|reader| Model::load(reader)).await?;
            let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
            // A model that is newer than the snapshot has seen more than was read.
            if fresh.rev >= model.rev {
                let generation = model.generation + 1;
                let clock = model.clock.take();
                *model = Model { generation, clock, ..fresh };
            }
        } else if keys {
            let keys = self.store.read(|reader| Keyring::read(reader)).await?;
            let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
            model.keys = keys;
            model.generation += 1;
        }
        Ok(())
    }

    /// The read model; that of the past where the request asks for it. Hold it briefly, and never across an await.
    pub(crate) fn model(&self) -> then::Seen<'_> {
        then::current().map_or_else(|| then::Seen::Now(self.present()), then::Seen::Then)
    }

    /// The read model of now: for what decides who the caller is.
    fn present(&self) -> RwLockReadGuard<'_, Model> {
        self.model.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a change and brings the model up to date with it.
    pub(crate) fn write<'a, R, F>(
        &'a self,
        call: &Call,
        work: F,
    ) -> impl Future<Output = Result<R>> + Send + use<'a, R, F>
    where
        R: Send + 'static,
        F: FnMut(&mut Tx) -> Result<R> + Send + 'static,
    {
        let cause = call.cause();
        async move {
            let committed = self.store.write(cause, work).await?;
            // A dry run has changed nothing that the model should follow.
            if !store::scope::is_dry() {
                self.sync().await?;
            }
            Ok(committed.value)
        }
    }

    /// The service for the gateway, below `/identity`.
    pub fn service(self: &Arc<Self>, policy: Arc<Policy>) -> Service {
        let routes = [
            version::routes(self),
            token::routes(self),
            domain::routes(self),
            project::routes(self),
            user::routes(self),
            group::routes(self),
            role::routes(self),
            assignment::routes(self),
            catalog::routes(self),
            application_credential::routes(self),
            access_rule::routes(self),
            policy_text::routes(self),
            endpoint_filter::routes(self),
            oauth1::routes(self),
            oauth2::routes(self),
            federation::routes(self),
            trust::routes(self),
            credential::routes(self),
            limit::routes(self),
        ];
        Service {
            name: "identity",
            prefix: "/identity",
            envelope: Envelope::Identity,
            microversions: None,
            policy,
            routes: audit::routes(
                self,
                rest::except(then::routes(self, routes.into_iter().flatten().collect()), EXCEPT),
            ),
        }
    }

    /// Where a request comes from.
    pub(crate) fn source(&self, call: &Call) -> Option<std::net::IpAddr> {
        self.options.login_limit.source(call.peer, call.header("x-forwarded-for"))
    }

    /// Verifies a token without waiting for anything.
    pub fn verify_now(&self, token: &str) -> Result<Arc<Caller>> {
        self.known(token).map(|entry| entry.caller)
    }

    /// Verifies a token by the newest keys, and by what the directory of its user has said lately.
    pub(crate) async fn verify_lately(&self, token: &str) -> Result<token::cache::Entry> {
        let found = match self.known(token) {
            Err(_) => {
                self.find_key(token).await?;
                self.known(token)
            }
            found => found,
        };
        let refreshed = self.refresh(token, found.as_ref().ok().map(|entry| &*entry.verified)).await;
        if refreshed { self.known(token) } else { found }
    }

    pub(crate) fn known(&self, token: &str) -> Result<token::cache::Entry> {
        let now = self.env.now();
        let model = self.present();
        if let Some(entry) = self.verified.get(model.generation, token, now) {
            return Ok(entry);
        }
        let entry = token::cache::Entry::new(token::verify::verify(&model, token, now, false)?);
        self.verified.put(model.generation, token, entry.clone());
        Ok(entry)
    }
}

#[async_trait::async_trait]
impl rest::Tokens for Identity {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        self.verify_lately(token).await.map(|entry| entry.caller)
    }

    fn admit(&self, caller: &Caller, service: &Service, method: &rest::Method, path: &str) -> Result<()> {
        let verified = caller.token.as_ref().and_then(|token| token.downcast_ref::<token::verify::Verified>());
        let Some(verified) = verified else { return Ok(()) };
        // Good for other services only, as in Keystone since 2026; who has the keys of tokens has identity as well.
        if matches!(service.name, "identity" | "nubo") && verified.by(token::methods::Methods::EC2) {
            return Err(Fault::forbidden(
                "You are not authorized to perform the requested action: tokens of EC2 keys are for other services only.",
            ));
        }
        access_rule::admit(verified, service, method, path)
    }
}

/// The text of a conflict, as Keystone says it.
fn duplicate(what: &str, name: &str) -> Fault {
    Fault::conflict(format!("Conflict occurred attempting to store {what} - Duplicate entry found with name {name}."))
}
