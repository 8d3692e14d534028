//! What the identity service keeps: one type per kind of document.
//!
//! Those of federation and the keys of tokens have rooms of their own.
//!
//! Secrets (password hashes, secrets of application credentials, blobs of credentials, token keys) are blanked in the
//! copies that go to history and watch; whoever needs one reads the document itself. Those that are no hashes lie sealed
//! in the store ([`Secret`]).

mod federation;
mod keys;

pub use federation::*;
pub use keys::*;

use base::{DomainId, EndpointId, GroupId, ProjectId, RoleId, ServiceId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use store::{Document, Keys, Secret};

/// Attributes that the API keeps without knowing them.
pub type Extra = Map<String, Value>;

/// A project, or a domain: a domain is the project at the root of its own tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Project {
    pub id: ProjectId,
    pub name: String,
    /// None for a domain.
    pub domain_id: Option<DomainId>,
    /// The domain for a project at the top, none for a domain.
    pub parent_id: Option<ProjectId>,
    pub is_domain: bool,
    pub enabled: bool,
    pub description: Value,
    pub tags: BTreeSet<String>,
    pub options: Extra,
    pub extra: Extra,
}

impl Project {
    /// The domain it lies in; its own id for a domain.
    pub fn domain(&self) -> &str {
        self.domain_id.as_deref().unwrap_or(&self.id)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub name: String,
    pub domain_id: DomainId,
    pub enabled: bool,
    pub default_project_id: Option<ProjectId>,
    /// In passlib's format. Blank outside the store.
    pub password: Option<String>,
    pub password_changed: Option<Timestamp>,
    /// From then on the password serves only to choose another.
    #[serde(default)]
    pub password_expires_at: Option<Timestamp>,
    /// The hashes of those before, newest first, as far as they may not be chosen again. Empty outside the store.
    #[serde(default)]
    pub password_history: Vec<String>,
    pub options: Extra,
    pub extra: Extra,
    /// Who it is at identity providers.
    #[serde(default)]
    pub federated: Vec<FederatedId>,
    /// Known by an identity provider alone: its name is only shown, and others of its domain may have the same.
    #[serde(default)]
    pub shadow: bool,
    /// Set for a user whom only the directory of its domain changes.
    #[serde(default)]
    pub directory: Option<OfDirectory>,
}

/// What a directory knows something by, and whether it still does; see [`crate::directory`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfDirectory {
    pub local_id: String,
    /// It was not there when it was last asked for. Its roles are its own when it is back.
    pub gone: bool,
}

/// A user as an identity provider knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FederatedId {
    pub idp_id: String,
    pub protocol_id: String,
    pub unique_id: String,
}

impl User {
    /// True where this option is set.
    pub fn option(&self, name: &str) -> bool {
        self.options.get(name).and_then(Value::as_bool) == Some(true)
    }

    /// When the password ends, for a user whose password does.
    pub fn password_end(&self) -> Option<Timestamp> {
        self.password_expires_at.filter(|_| !self.option("ignore_password_expiry"))
    }
}

/// The failed logins of a user since the last that held. Its id is the user's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedLogins {
    pub id: String,
    pub count: u32,
    pub last: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub id: GroupId,
    pub name: String,
    pub domain_id: DomainId,
    pub description: Value,
    pub extra: Extra,
    /// Set for a group that only the directory of its domain changes.
    #[serde(default)]
    pub directory: Option<OfDirectory>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    pub id: String,
    pub user_id: UserId,
    pub group_id: GroupId,
    /// Set where an identity provider says so, for as long as that counts.
    #[serde(default)]
    pub lent: Option<Lent>,
}

/// Until when the word of an identity provider counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lent {
    pub idp_id: String,
    pub until: Timestamp,
}

impl Membership {
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.lent.as_ref().is_none_or(|lent| now < lent.until)
    }

    pub fn id_of(user: &str, group: &str) -> String {
        format!("{group}:{user}")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Role {
    pub id: RoleId,
    pub name: String,
    /// Set for a role that only its domain may use.
    pub domain_id: Option<DomainId>,
    pub description: Value,
    pub options: Extra,
    pub extra: Extra,
}

/// Who has `prior_role_id` has `implied_role_id`, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImpliedRole {
    pub id: String,
    pub prior_role_id: RoleId,
    pub implied_role_id: RoleId,
}

impl ImpliedRole {
    pub fn new(prior: &str, implied: &str) -> ImpliedRole {
        let id = ImpliedRole::id_of(prior, implied);
        ImpliedRole { id, prior_role_id: prior.into(), implied_role_id: implied.into() }
    }

    pub fn id_of(prior: &str, implied: &str) -> String {
        format!("{prior}:{implied}")
    }
}

/// Whom a role is assigned to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    User(UserId),
    Group(GroupId),
}

impl Actor {
    pub fn id(&self) -> &str {
        match self {
            Actor::User(id) => id,
            Actor::Group(id) => id,
        }
    }
}

/// Where an assigned role holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Project(ProjectId),
    Domain(DomainId),
    System,
}

impl Place {
    pub fn id(&self) -> &str {
        match self {
            Place::Project(id) => id,
            Place::Domain(id) => id,
            Place::System => "system",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub id: String,
    pub actor: Actor,
    pub place: Place,
    pub role_id: RoleId,
    /// Holds in the projects below the place, and not in the place itself.
    pub inherited: bool,
}

impl Assignment {
    pub fn new(actor: Actor, place: Place, role: &str, inherited: bool) -> Assignment {
        let (who, whom) = match &actor {
            Actor::User(id) => ("user", id.as_str()),
            Actor::Group(id) => ("group", id.as_str()),
        };
        let kind = match &place {
            Place::Project(_) => "project",
            Place::Domain(_) => "domain",
            Place::System => "system",
        };
        let below = if inherited { ":inherited" } else { "" };
        let id = format!("{who}:{whom}:{kind}:{}:{role}{below}", place.id());
        Assignment { id, actor, place, role_id: role.into(), inherited }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    pub id: String,
    pub parent_region_id: Option<String>,
    pub description: String,
    pub extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    #[serde(rename = "type")]
    pub kind: String,
    pub name: Option<String>,
    pub enabled: bool,
    pub description: Value,
    pub extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    pub service_id: ServiceId,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    pub region_id: Option<String>,
    /// May hold `$(project_id)s` and the like. An endpoint that nubo made holds the path only, and starts with `/`.
    pub url: String,
    pub enabled: bool,
    pub extra: Extra,
}

/// What one user lends another; see [`crate::trust`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    pub id: String,
    pub trustor_user_id: UserId,
    pub trustee_user_id: UserId,
    /// Without one a trust lends nothing but the name.
    pub project_id: Option<ProjectId>,
    /// Its tokens show the trustor as their user.
    pub impersonation: bool,
    pub roles: Vec<RoleId>,
    pub expires_at: Option<Timestamp>,
    /// How many tokens can still be made with it; none: as many as asked for.
    pub remaining_uses: Option<i64>,
    /// How many further trusts may follow this one in a chain.
    pub redelegation_count: i64,
    /// The trust that this one came from.
    pub redelegated_trust_id: Option<String>,
}

impl Trust {
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplicationCredential {
    pub id: String,
    pub name: String,
    pub description: Value,
    pub user_id: UserId,
    pub project_id: ProjectId,
    pub roles: Vec<RoleId>,
    pub expires_at: Option<Timestamp>,
    pub unrestricted: bool,
    /// Ids of access rules: its tokens serve for nothing else. None: for everything.
    #[serde(default)]
    pub access_rules: Option<Vec<String>>,
    /// Hash. Blank outside the store.
    pub secret: String,
}

/// A kind of request that tokens of an application credential may be used for. Belongs to a user, and stays when the
/// credential goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessRule {
    pub id: String,
    pub user_id: UserId,
    /// The type of a service of the catalog.
    pub service: String,
    pub method: String,
    /// With `{name}`, `*` and `**` in it; see [`crate::access_rule::pattern`].
    pub path: String,
}

/// Text that somebody keeps for the endpoints of services; nothing here reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyText {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub blob: String,
    pub extra: Extra,
}

/// Which policy holds for an endpoint, or for a service, or for a service in a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyAssociation {
    pub id: String,
    pub policy_id: String,
    pub endpoint_id: Option<EndpointId>,
    pub service_id: Option<ServiceId>,
    pub region_id: Option<String>,
}

/// Endpoints that have something in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointGroup {
    pub id: String,
    pub name: String,
    pub description: Value,
    /// `service_id`, `region_id`, `interface`: an endpoint of the group fits all that are given.
    pub filters: Extra,
    pub extra: Extra,
}

/// An endpoint or a group of endpoints that a project sees. A project without any sees all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointFilter {
    pub id: String,
    pub project_id: ProjectId,
    pub endpoint_id: Option<EndpointId>,
    pub endpoint_group_id: Option<String>,
}

/// The options of a domain, by group and name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainConfig {
    /// The domain's.
    pub id: String,
    pub groups: BTreeMap<String, Extra>,
}

/// A program that users may lend rights to by OAuth 1.0a.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    pub id: String,
    pub description: Value,
    /// Signatures are made with it, so it is no hash. Blank outside the store.
    pub secret: Secret,
    pub extra: Extra,
}

/// What a consumer has asked for, until a user allows it; see [`crate::oauth1`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestToken {
    pub id: String,
    pub consumer_id: String,
    pub project_id: ProjectId,
    /// Blank outside the store.
    pub secret: Secret,
    /// Whoever shows it has it from the user who allowed the request. Blank outside the store.
    pub verifier: Secret,
    pub authorizing_user_id: Option<UserId>,
    pub roles: Vec<RoleId>,
    pub expires_at: Timestamp,
}

/// What a user lends a consumer: roles in a project, for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessToken {
    pub id: String,
    pub consumer_id: String,
    pub project_id: ProjectId,
    pub authorizing_user_id: UserId,
    pub roles: Vec<RoleId>,
    pub expires_at: Timestamp,
    /// Blank outside the store.
    pub secret: Secret,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub user_id: UserId,
    pub project_id: Option<ProjectId>,
    /// Blank outside the store.
    pub blob: Secret,
    pub extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegisteredLimit {
    pub id: String,
    pub service_id: ServiceId,
    pub region_id: Option<String>,
    pub resource_name: String,
    pub default_limit: i64,
    pub description: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    pub id: String,
    pub project_id: Option<ProjectId>,
    pub domain_id: Option<DomainId>,
    pub service_id: ServiceId,
    pub region_id: Option<String>,
    pub resource_name: String,
    pub resource_limit: i64,
    pub description: Value,
}

/// Makes tokens worthless: those that match any of what is set, and were issued at or before `before`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    pub id: String,
    pub audit_id: Option<String>,
    /// All tokens that were made from the one with this audit id.
    #[serde(default)]
    pub audit_chain_id: Option<String>,
    pub user_id: Option<UserId>,
    pub project_id: Option<ProjectId>,
    pub domain_id: Option<DomainId>,
    pub before: Timestamp,
    /// When no token can be left that it concerns.
    pub until: Timestamp,
}

fn blank(body: &mut Value, field: &str, with: Value) {
    if let Some(value) = body.get_mut(field).filter(|value| !value.is_null()) {
        *value = with;
    }
}

macro_rules! document {
    ($type:ident, $kind:literal, $keys:expr $(, project: $project:expr)? $(, redact: $redact:expr)?
        $(, secrets: $secrets:expr)? $(, trash: $trash:literal)?) => {
        impl Document for $type {
            const KIND: &'static str = $kind;
            $(const TRASH: bool = $trash;)?
            fn id(&self) -> &str { &self.id }
            $(fn project_id(&self) -> &str { let of: fn(&$type) -> &str = $project; of(self) })?
            fn keys(&self, keys: &mut Keys) { let of: fn(&$type, &mut Keys) = $keys; of(self, keys); }
            $(fn redact(body: &mut Value) { let of: fn(&mut Value) = $redact; of(body); })?
            $(const SEALED: bool = true;
            fn secrets(&mut self, each: &mut dyn FnMut(&'static str, &mut Secret)) {
                let of: fn(&mut $type, &mut dyn FnMut(&'static str, &mut Secret)) = $secrets;
                of(self, each);
            })?
        }
    };
}
use document;

document!(Project, "project", |p, keys| {
    keys.unique("name", [p.domain_id.as_deref().unwrap_or(""), p.name.as_str()]);
    keys.index("domain", p.domain_id.as_deref().unwrap_or(""));
    keys.index("parent", p.parent_id.as_deref().unwrap_or(""));
});
impl Document for User {
    const KIND: &'static str = "user";
    /// The second knows users of identity providers.
    const INDEX_VERSION: u32 = 2;

    fn id(&self) -> &str {
        &self.id
    }

    fn keys(&self, keys: &mut Keys) {
        if !self.shadow {
            keys.unique("name", [self.domain_id.as_str(), self.name.as_str()]);
        }
        keys.index("domain", self.domain_id.as_str());
        for of in &self.federated {
            keys.unique("federated", [&of.idp_id, &of.protocol_id, &of.unique_id]);
            keys.index("idp", &of.idp_id);
        }
        if let Some(of) = &self.directory {
            keys.unique("directory", [self.domain_id.as_str(), &of.local_id]);
        }
    }

    fn redact(body: &mut Value) {
        blank(body, "password", "".into());
        blank(body, "password_history", Value::Array(Vec::new()));
    }
}

document!(Group, "group", |g, keys| {
    match &g.directory {
        None => keys.unique("name", [g.domain_id.as_str(), g.name.as_str()]),
        Some(of) => keys.unique("directory", [g.domain_id.as_str(), of.local_id.as_str()]),
    }
    keys.index("domain", g.domain_id.as_str());
});
impl Document for Membership {
    const KIND: &'static str = "membership";
    /// The second knows those that an identity provider names.
    const INDEX_VERSION: u32 = 2;

    fn id(&self) -> &str {
        &self.id
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("user", self.user_id.as_str());
        keys.index("group", self.group_id.as_str());
        if let Some(lent) = &self.lent {
            keys.index("idp", lent.idp_id.as_str());
        }
    }
}

document!(Role, "role", |r, keys| {
    keys.unique("name", [r.domain_id.as_deref().unwrap_or(""), r.name.as_str()]);
    keys.index("domain", r.domain_id.as_deref().unwrap_or(""));
});
document!(ImpliedRole, "implied_role", |i, keys| {
    keys.index("role", i.prior_role_id.as_str());
    keys.index("role", i.implied_role_id.as_str());
});
document!(Assignment, "role_assignment", |a, keys| {
    keys.index("actor", a.actor.id());
    keys.index("place", a.place.id());
    keys.index("role", a.role_id.as_str());
});
document!(Region, "region", |r, keys| keys.index("parent", r.parent_region_id.as_deref().unwrap_or("")));
document!(Service, "service", |_, _| {});
document!(Endpoint, "endpoint", |e, keys| {
    keys.index("service", e.service_id.as_str());
    keys.index("region", e.region_id.as_deref().unwrap_or(""));
});
document!(Trust, "trust", |t, keys| {
    keys.index("trustor", t.trustor_user_id.as_str());
    keys.index("trustee", t.trustee_user_id.as_str());
    keys.index("from", t.redelegated_trust_id.as_deref().unwrap_or(""));
}, project: |t| t.project_id.as_deref().unwrap_or(""));
document!(ApplicationCredential, "application_credential", |a, keys| {
    keys.unique("name", [a.user_id.as_str(), a.name.as_str()]);
    keys.index("user", a.user_id.as_str());
}, project: |a| &a.project_id, redact: |body| blank(body, "secret", "".into()), trash: false);
document!(AccessRule, "access_rule", |r, keys| {
    keys.unique("meaning", [r.user_id.as_str(), r.service.as_str(), r.method.as_str(), r.path.as_str()]);
    keys.index("user", r.user_id.as_str());
});
document!(PolicyText, "policy", |_, _| {});
document!(PolicyAssociation, "policy_association", |a, keys| {
    keys.index("policy", a.policy_id.as_str());
    keys.index("endpoint", a.endpoint_id.as_deref().unwrap_or(""));
    keys.index("service", a.service_id.as_deref().unwrap_or(""));
    keys.index("region", a.region_id.as_deref().unwrap_or(""));
});
document!(EndpointGroup, "endpoint_group", |_, _| {});
document!(EndpointFilter, "endpoint_filter", |f, keys| {
    keys.index("endpoint", f.endpoint_id.as_deref().unwrap_or(""));
    keys.index("group", f.endpoint_group_id.as_deref().unwrap_or(""));
}, project: |f| &f.project_id);
document!(DomainConfig, "domain_config", |_, _| {}, redact: |body| {
    crate::domain::config::SENSITIVE.iter().for_each(|(group, option)| {
        if let Some(group) = body.get_mut("groups").and_then(|groups| groups.get_mut(*group)) {
            blank(group, option, "".into());
        }
    });
}, secrets: |c, each| {
    crate::domain::config::SENSITIVE.iter().for_each(|(group, option)| {
        let value = c.groups.get_mut(*group).and_then(|group| group.get_mut(*option));
        let Some(value) = value.filter(|value| !value.is_null()) else { return };
        let mut secret = Secret::deserialize(&*value).unwrap_or_else(|_| value.to_string().into());
        each(option, &mut secret);
        *value = serde_json::json!(secret);
    });
}, trash: false);
document!(Consumer, "consumer", |_, _| {}, redact: |body| blank(body, "secret", "".into()),
    secrets: |c, each| each("secret", &mut c.secret), trash: false);
document!(RequestToken, "oauth1_request_token", |t, keys| {
    keys.index("consumer", t.consumer_id.as_str());
    keys.index("user", t.authorizing_user_id.as_deref().unwrap_or(""));
    keys.index("project", t.project_id.as_str());
}, project: |t| &t.project_id, redact: |body| {
    blank(body, "secret", "".into());
    blank(body, "verifier", "".into());
}, secrets: |t, each| {
    each("secret", &mut t.secret);
    each("verifier", &mut t.verifier);
}, trash: false);
document!(AccessToken, "oauth1_access_token", |t, keys| {
    keys.index("consumer", t.consumer_id.as_str());
    keys.index("user", t.authorizing_user_id.as_str());
    keys.index("project", t.project_id.as_str());
}, project: |t| &t.project_id, redact: |body| blank(body, "secret", "".into()),
    secrets: |t, each| each("secret", &mut t.secret), trash: false);
document!(Credential, "credential", |c, keys| {
    keys.index("user", c.user_id.as_str());
    keys.index("project", c.project_id.as_deref().unwrap_or(""));
}, redact: |body| blank(body, "blob", "".into()), secrets: |c, each| each("blob", &mut c.blob), trash: false);
document!(RegisteredLimit, "registered_limit", |l, keys| {
    keys.unique("resource", [l.service_id.as_str(), l.region_id.as_deref().unwrap_or(""), &l.resource_name]);
    keys.index("service", l.service_id.as_str());
});
document!(Limit, "limit", |l, keys| {
    let region = l.region_id.as_deref().unwrap_or("");
    let (project, domain) = (l.project_id.as_deref().unwrap_or(""), l.domain_id.as_deref().unwrap_or(""));
    keys.unique("resource", [project, domain, l.service_id.as_str(), region, &l.resource_name]);
    keys.index("owner", if project.is_empty() { domain } else { project });
    keys.index("service", l.service_id.as_str());
}, project: |l| l.project_id.as_deref().unwrap_or(""));
document!(Revocation, "revocation", |_, _| {}, trash: false);

impl Document for FailedLogins {
    const KIND: &'static str = "failed_logins";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;

    fn id(&self) -> &str {
        &self.id
    }
}
