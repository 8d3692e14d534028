//! The read model: everything that the identity service knows, in memory, so that verifying a token reads no database.
//!
//! Fed by the store's watch, and brought up to date after each write of this process before the write is answered: who
//! was told that a token is revoked finds it revoked. Holds no secrets except the keys of tokens. Never the last word
//! on what a write may do: that is decided again inside the transaction.

use crate::assignment::effective;
use crate::documents::*;
use crate::token::fernet::{self, Key};
use crate::token::jws;
use crate::token::methods::Order;
use crate::token::payload::Payload;
use crate::token::revoke::Revocations;
use base::{Clock, Result, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use store::{Document, Query, Reader, Rev, Revision, Secret, Secrets};

/// A kind in memory, with the ways to find it.
pub struct Table<T> {
    rows: BTreeMap<String, Arc<T>>,
    index: HashMap<&'static str, HashMap<String, BTreeSet<String>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: BTreeMap::new(), index: HashMap::new() }
    }
}

impl<T: Row> Table<T> {
    pub fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.rows.get(id)
    }

    /// In the order of ids, which is that of creation.
    pub fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.rows.values()
    }

    pub fn find<'a>(&'a self, index: &str, value: &str) -> impl Iterator<Item = &'a Arc<T>> {
        let ids = self.index.get(index).and_then(|values| values.get(value));
        ids.into_iter().flatten().filter_map(|id| self.rows.get(id))
    }

    /// The one with this unique value.
    pub fn one(&self, index: &str, value: &str) -> Option<&Arc<T>> {
        self.find(index, value).next()
    }

    fn put(&mut self, row: T) {
        self.remove(row.id());
        let id = row.id().to_owned();
        row.lookup(&mut |index, value| {
            self.index.entry(index).or_default().entry(value).or_default().insert(id.clone());
        });
        self.rows.insert(id, Arc::new(row));
    }

    fn remove(&mut self, id: &str) {
        let Some(row) = self.rows.remove(id) else { return };
        row.lookup(&mut |index, value| {
            let Some(values) = self.index.get_mut(index) else { return };
            let Some(ids) = values.get_mut(&value) else { return };
            ids.remove(id);
            if ids.is_empty() {
                values.remove(&value);
            }
        });
    }
}

/// A document that the model follows.
pub trait Row: Document {
    fn lookup(&self, _add: &mut dyn FnMut(&'static str, String)) {}
    /// Takes out what memory need not hold.
    fn stripped(self) -> Self {
        self
    }
}

/// `domain` and name in one value. No id holds a slash.
pub fn named(domain: &str, name: &str) -> String {
    format!("{domain}/{name}")
}

/// A user of an identity provider in one value: lengths keep the parts apart.
pub fn federated(idp: &str, protocol: &str, unique: &str) -> String {
    format!("{}/{idp}{}/{protocol}{unique}", idp.len(), protocol.len())
}

impl Row for Project {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("name", named(self.domain_id.as_deref().unwrap_or(""), &self.name));
        add("parent", self.parent_id.as_deref().unwrap_or("").to_owned());
        add("domain", self.domain_id.as_deref().unwrap_or("").to_owned());
    }
}

impl Row for User {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        if !self.shadow {
            add("name", named(&self.domain_id, &self.name));
        }
        add("domain", self.domain_id.to_string());
        for of in &self.federated {
            add("federated", federated(&of.idp_id, &of.protocol_id, &of.unique_id));
        }
        if let Some(of) = &self.directory {
            add("directory", named(&self.domain_id, &of.local_id));
            add("called", named(&self.domain_id, &self.name));
        }
    }

    fn stripped(mut self) -> User {
        self.password = None;
        self.password_history = Vec::new();
        self
    }
}

impl Row for Group {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        match &self.directory {
            None => add("name", named(&self.domain_id, &self.name)),
            Some(of) => add("directory", named(&self.domain_id, &of.local_id)),
        }
        add("domain", self.domain_id.to_string());
    }
}

impl Row for Membership {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("user", self.user_id.to_string());
        add("group", self.group_id.to_string());
    }
}

impl Row for Role {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("name", named(self.domain_id.as_deref().unwrap_or(""), &self.name));
    }
}

impl Row for ImpliedRole {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("prior", self.prior_role_id.to_string());
    }
}

impl Row for Assignment {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("actor", self.actor.id().to_owned());
        add("place", self.place.id().to_owned());
    }
}

impl Row for Region {}
impl Row for Service {}
impl Row for Endpoint {}
impl Row for AccessRule {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("user", self.user_id.to_string());
    }
}

impl Row for EndpointFilter {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("project", self.project_id.to_string());
        add("endpoint", self.endpoint_id.as_deref().unwrap_or("").to_owned());
        add("group", self.endpoint_group_id.clone().unwrap_or_default());
    }
}

impl Row for DomainConfig {
    fn stripped(mut self) -> Self {
        for (group, option) in crate::domain::config::SENSITIVE {
            self.groups.get_mut(*group).map(|group| group.remove(*option));
        }
        self
    }
}

impl Row for Consumer {
    fn stripped(mut self) -> Self {
        self.secret = Secret::default();
        self
    }
}

impl Row for AccessToken {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("user", self.authorizing_user_id.to_string());
    }

    fn stripped(mut self) -> Self {
        self.secret = Secret::default();
        self
    }
}

impl Row for IdentityProvider {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        self.remote_ids.iter().for_each(|remote| add("remote", remote.clone()));
    }
}

impl Row for Protocol {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("idp", self.idp_id.clone());
    }
}

impl Row for Mapping {}
impl Row for ServiceProvider {}
impl Row for EndpointGroup {}
impl Row for PolicyText {}
impl Row for PolicyAssociation {}
impl Row for RegisteredLimit {}
impl Row for Limit {}

impl Row for Trust {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("trustor", self.trustor_user_id.to_string());
        add("trustee", self.trustee_user_id.to_string());
    }
}

impl Row for ApplicationCredential {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("user", self.user_id.to_string());
        add("name", named(&self.user_id, &self.name));
    }

    fn stripped(mut self) -> Self {
        self.secret = String::new();
        self
    }
}

impl Row for Credential {
    fn lookup(&self, add: &mut dyn FnMut(&'static str, String)) {
        add("user", self.user_id.to_string());
    }

    fn stripped(mut self) -> Self {
        self.blob = Secret::default();
        self
    }
}

macro_rules! model {
    ($($field:ident: $type:ident),* $(,)?) => {
        #[derive(Default)]
        pub struct Model {
            pub rev: Rev,
            /// Raised whenever anything here changes.
            pub generation: u64,
            $(pub $field: Table<$type>,)*
            pub revocations: Revocations,
            pub keys: Keyring,
            /// What the time is; none in a model of the past, which stands still at `read_at`.
            pub clock: Option<Arc<dyn Clock>>,
            pub read_at: Timestamp,
            /// The catalog without and with each substitution, worked out when first asked for; see [`crate::catalog`].
            pub catalogs: std::sync::Mutex<HashMap<String, Arc<serde_json::value::RawValue>>>,
        }

        impl Model {
            /// Reads everything.
            pub fn load(reader: &mut Reader) -> Result<Model> {
                let mut model = Model { rev: reader.snapshot_rev()?, read_at: reader.clock(), ..Model::default() };
                $(for stored in reader.list::<$type>(Query::all())? { model.$field.put(stored.doc.stripped()); })*
                for stored in reader.list::<Revocation>(Query::all())? {
                    model.revocations.put(&stored.doc);
                }
                // The past knows no keys: nothing is verified there.
                if reader.stands_in().is_none() {
                    model.keys = Keyring::read(reader)?;
                }
                Ok(model)
            }

            /// Takes over a commit. True if the keys of tokens changed, which the watch does not show.
            pub fn apply(&mut self, revision: &Revision) -> Result<bool> {
                if revision.rev <= self.rev {
                    return Ok(false);
                }
                self.rev = revision.rev;
                let (mut keys, mut catalog) = (false, false);
                for change in &revision.changes {
                    self.generation += 1;
                    match &*change.kind {
                        $($type::KIND => match change.document::<$type>()? {
                            Some(stored) => self.$field.put(stored.doc.stripped()),
                            None => self.$field.remove(&change.id),
                        },)*
                        Revocation::KIND => match change.document::<Revocation>()? {
                            Some(stored) => self.revocations.put(&stored.doc),
                            None => self.revocations.remove(&change.id),
                        },
                        TokenKeys::KIND | JwsKeys::KIND => keys = true,
                        // Of another service.
                        _ => self.generation -= 1,
                    }
                    catalog |= matches!(&*change.kind, Service::KIND | Endpoint::KIND | Region::KIND)
                        || matches!(&*change.kind, EndpointGroup::KIND | EndpointFilter::KIND);
                }
                if catalog {
                    self.catalogs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
                }
                Ok(keys)
            }
        }
    };
}

model! {
    projects: Project, users: User, groups: Group, memberships: Membership, roles: Role, implied: ImpliedRole,
    assignments: Assignment, regions: Region, services: Service, endpoints: Endpoint,
    application_credentials: ApplicationCredential, trusts: Trust, credentials: Credential,
    registered_limits: RegisteredLimit, limits: Limit, access_rules: AccessRule, policies: PolicyText,
    policy_associations: PolicyAssociation, endpoint_groups: EndpointGroup, endpoint_filters: EndpointFilter,
    domain_configs: DomainConfig, consumers: Consumer, access_tokens: AccessToken,
    identity_providers: IdentityProvider, protocols: Protocol, mappings: Mapping, service_providers: ServiceProvider,
}

impl Model {
    pub fn domain(&self, id: &str) -> Option<&Arc<Project>> {
        self.projects.get(id).filter(|project| project.is_domain)
    }

    pub fn domain_named(&self, name: &str) -> Option<&Arc<Project>> {
        self.projects.one("name", &named("", name))
    }

    pub fn now(&self) -> Timestamp {
        self.clock.as_ref().map_or(self.read_at, |clock| clock.now())
    }

    /// The groups of a user.
    pub fn groups_of<'a>(&'a self, user: &str) -> impl Iterator<Item = &'a str> {
        let now = self.now();
        let lasting = self.memberships.find("user", user).filter(move |membership| membership.lasts(now));
        lasting.map(|membership| membership.group_id.as_str())
    }

    /// The members of a group.
    pub fn members_of<'a>(&'a self, group: &str) -> impl Iterator<Item = &'a Arc<User>> {
        let now = self.now();
        let lasting = self.memberships.find("group", group).filter(move |membership| membership.lasts(now));
        lasting.filter_map(|membership| self.users.get(&membership.user_id)).filter(|user| self.stands(user))
    }

    /// When the first membership of a user ends that ends by itself.
    pub fn memberships_end(&self, user: &str) -> Option<Timestamp> {
        let now = self.now();
        let ends = self.memberships.find("user", user).filter_map(|m| m.lent.as_ref().map(|lent| lent.until));
        ends.filter(|until| now < *until).min()
    }

    /// From the project's parent up to its domain. A project's tree is at most [`crate::project::DEPTH`] deep.
    pub fn ancestors<'a>(&'a self, project: &'a Project) -> impl Iterator<Item = &'a Arc<Project>> {
        let mut next = project.parent_id.as_deref();
        std::iter::from_fn(move || {
            let parent = self.projects.get(next?)?;
            next = parent.parent_id.as_deref();
            Some(parent)
        })
        .take(crate::project::DEPTH + 2)
    }

    /// All projects below, nearest first.
    pub fn descendants(&self, project: &str) -> Vec<Arc<Project>> {
        let mut found: Vec<Arc<Project>> = self.projects.find("parent", project).cloned().collect();
        let mut at = 0;
        while at < found.len() {
            let below: Vec<_> = self.projects.find("parent", &found[at].id).cloned().collect();
            found.extend(below);
            at += 1;
        }
        found
    }

    /// The ids of the roles that a user has in a place, implied ones included.
    pub fn roles_of(&self, user: &str, place: &Place) -> BTreeSet<String> {
        effective::roles(self, user, place)
    }
}

/// The keys of tokens, ready to use.
#[derive(Clone, Default)]
pub struct Keyring {
    /// The first seals.
    pub keys: Vec<Key>,
    /// What the bits mean in what these keys seal.
    pub methods: Order,
    /// Those of signed tokens; empty where none was ever signed.
    pub jws: jws::Ring,
}

impl Keyring {
    /// All that the store has.
    pub fn read(reader: &mut Reader) -> Result<Keyring> {
        let secrets = reader.secrets();
        let mut ring = match reader.get::<TokenKeys>(TokenKeys::ID)? {
            Some(keys) => Keyring::parse(&keys.doc, &secrets)?,
            None => Keyring::default(),
        };
        if let Some(keys) = reader.get::<JwsKeys>(JwsKeys::ID)? {
            ring.jws = jws::Ring::parse(&keys.doc, &secrets)?;
        }
        Ok(ring)
    }

    fn parse(keys: &TokenKeys, secrets: &Secrets) -> Result<Keyring> {
        let key = |field, secret: &Secret| Key::parse(&secrets.open(keys, field, secret)?);
        let mut ring = vec![key("primary", &keys.primary)?, key("staged", &keys.staged)?];
        for old in &keys.secondary {
            ring.push(key("secondary", &old.key)?);
        }
        let methods = Order::parse(&keys.methods)?;
        Ok(Keyring { keys: ring, methods, jws: jws::Ring::default() })
    }

    /// What a token says and the second of its making, if one of the keys has made it.
    pub fn open(&self, token: &str) -> Option<(Payload, u64)> {
        if jws::looks_like(token) {
            return jws::open(&self.jws, token);
        }
        let (message, second) = fernet::open(&self.keys, token)?;
        Some((Payload::unpack(&message, self.methods)?, second))
    }

    /// Not the same keys in the same order.
    pub fn texts_differ(&self, other: &Keyring) -> bool {
        self.jws.differs(&other.jws)
            || self.methods != other.methods
            || self.keys.len() != other.keys.len()
            || self.keys.iter().zip(&other.keys).any(|(one, two)| !one.same(two))
    }
}
