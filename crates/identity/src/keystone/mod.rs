//! What an existing Keystone knew, taken over with its ids, so that passwords, tokens and whatever other services remember
//! go on meaning the same. It is one transaction, or, where there is more than one holds, several in the order in which
//! things need each other; names are looked at before the first.
//!
//! What is there by its id stays as it is, so an import can be repeated. Roles of the same name are one role. Anything
//! else whose name is taken is refused, all of it at once, unless it may be renamed. Who brings the things is an
//! administrator of the cloud; their number and their names are looked at all the same. What cannot be made here is left
//! out and counted, and nothing that restricts somebody is weakened for it.

mod catalog;

use crate::Identity;
use crate::documents::*;
use crate::limit::Model;
use base::{Fault, Result, RoleId, ServiceId, UserId};
use rest::Call;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document, Tx};

/// The most things of an import.
const THINGS: usize = 200_000;
/// The most things that one transaction makes.
const PART: usize = 10_000;
/// Clashes that are named.
const NAMED: usize = 20;

/// The things, each kind in an order in which it can be made: parents before children.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dump {
    pub projects: Vec<Project>,
    pub roles: Vec<Role>,
    pub users: Vec<User>,
    pub groups: Vec<Group>,
    pub memberships: Vec<Membership>,
    pub implied_roles: Vec<ImpliedRole>,
    pub assignments: Vec<Assignment>,
    pub access_rules: Vec<AccessRule>,
    pub application_credentials: Vec<ApplicationCredential>,
    pub trusts: Vec<Trust>,
    pub credentials: Vec<Credential>,
    pub identity_providers: Vec<IdentityProvider>,
    pub mappings: Vec<Mapping>,
    pub protocols: Vec<Protocol>,
    pub service_providers: Vec<ServiceProvider>,
    pub revocations: Vec<Revocation>,
    /// Of users that are made; those of users who are here stay as they are.
    pub failed_logins: Vec<FailedLogins>,
    pub consumers: Vec<Consumer>,
    pub access_tokens: Vec<AccessToken>,
    pub domain_configs: Vec<DomainConfig>,
    pub policies: Vec<PolicyText>,
    pub regions: Vec<Region>,
    /// Services are made with their endpoints; else they only say which service here a limit is about.
    pub catalog: bool,
    pub services: Vec<Service>,
    pub endpoints: Vec<Endpoint>,
    pub policy_associations: Vec<PolicyAssociation>,
    pub endpoint_groups: Vec<EndpointGroup>,
    pub endpoint_filters: Vec<EndpointFilter>,
    pub registered_limits: Vec<RegisteredLimit>,
    pub limits: Vec<Limit>,
}

impl Dump {
    fn things(&self) -> usize {
        let counts = [
            self.projects.len(),
            self.roles.len(),
            self.users.len(),
            self.groups.len(),
            self.memberships.len(),
            self.implied_roles.len(),
            self.assignments.len(),
            self.access_rules.len(),
            self.application_credentials.len(),
            self.trusts.len(),
            self.credentials.len(),
            self.identity_providers.len(),
            self.mappings.len(),
            self.protocols.len(),
            self.service_providers.len(),
            self.revocations.len(),
            self.failed_logins.len(),
            self.consumers.len(),
            self.access_tokens.len(),
            self.domain_configs.len(),
            self.policies.len(),
            self.regions.len(),
            self.services.len(),
            self.endpoints.len(),
            self.policy_associations.len(),
            self.endpoint_groups.len(),
            self.endpoint_filters.len(),
            self.registered_limits.len(),
            self.limits.len(),
        ];
        counts.into_iter().sum()
    }
}

/// Refuses what no part could make, before the first one makes anything.
fn sound(dump: &Dump) -> Result<()> {
    for mapping in &dump.mappings {
        crate::federation::rules::Rules::read(&mapping.schema_version, &mapping.rules)
            .map_err(|fault| Fault::invalid(format!("mapping {}: {}", mapping.id, fault.message)))?;
    }
    let rules: BTreeMap<&str, &UserId> =
        dump.access_rules.iter().map(|rule| (rule.id.as_str(), &rule.user_id)).collect();
    for credential in &dump.application_credentials {
        for rule in credential.access_rules.iter().flatten() {
            // Without its rules a credential could do everything.
            if rules.get(rule.as_str()) != Some(&&credential.user_id) {
                let id = &credential.id;
                return Err(Fault::invalid(format!("Application credential {id}: its access rule {rule} is missing.")));
            }
        }
    }
    Ok(())
}

/// How many of each kind were made, and how many were there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub made: BTreeMap<&'static str, usize>,
    pub there: BTreeMap<&'static str, usize>,
    /// Old and new names of what was renamed.
    pub renamed: Vec<(String, String)>,
    /// How many of what kind have no place here, and why.
    pub left_out: BTreeMap<String, usize>,
}

impl Report {
    /// This one of earlier parts, and the next, which has found what they made.
    fn and_then(self, next: Report) -> Report {
        let (mut made, mut there) = (self.made, next.there);
        for (kind, count) in &made {
            if let Some(found) = there.get_mut(kind) {
                *found = found.saturating_sub(*count);
            }
        }
        there.retain(|_, count| *count > 0);
        // The first has looked at all names.
        let renamed = if made.is_empty() { next.renamed } else { self.renamed };
        next.made.into_iter().for_each(|(kind, count)| *made.entry(kind).or_default() += count);
        Report { made, there, renamed, left_out: next.left_out }
    }
}

struct Import<'a> {
    tx: &'a mut Tx,
    /// How many more things this transaction may make.
    room: usize,
    /// Something was left for the next transaction, and so is all that comes after it. What is counted as left out means
    /// nothing then.
    full: bool,
    /// What is put behind a name that is taken.
    suffix: Option<&'a str>,
    clashes: Vec<String>,
    report: Report,
    /// Their ids of roles that are here under another.
    roles: BTreeMap<String, RoleId>,
    /// The services here that theirs are, by their ids.
    services: BTreeMap<String, ServiceId>,
    model: Model,
}

impl Import<'_> {
    /// Makes one unless it is there.
    fn put<T: Document>(&mut self, thing: &T) -> Result<()> {
        base::limits::text("an id of the import", thing.id(), 256)?;
        if self.tx.get::<T>(thing.id())?.is_some() {
            *self.report.there.entry(T::KIND).or_default() += 1;
            return Ok(());
        }
        if self.room == 0 {
            self.full = true;
            return Ok(());
        }
        match self.tx.create(thing) {
            Ok(_) => {
                self.room -= 1;
                *self.report.made.entry(T::KIND).or_default() += 1;
            }
            Err(store::Error::Taken { .. }) => self.clashes.push(format!("{} {}", T::KIND, thing.id())),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn left_out(&mut self, what: impl Into<String>) {
        *self.report.left_out.entry(what.into()).or_default() += 1;
    }

    /// The user is here; else the thing is counted.
    fn of_user<T: Document>(&mut self, user: &str) -> Result<bool> {
        let known = self.tx.get::<User>(user)?.is_some();
        if !known {
            self.left_out(format!("{} of a user who is not here", T::KIND));
        }
        Ok(known)
    }

    /// The name under which a thing can be made: its own, or with the suffix where that is another's.
    fn name<T: Document>(&mut self, parts: [&str; 2], id: &str) -> Result<String> {
        let [within, name] = parts;
        base::limits::text("a name of the import", name, base::limits::NAME_CHARS)?;
        let taken = self.tx.get_unique::<T>("name", parts)?.is_some_and(|other| other.id() != id);
        match self.suffix.filter(|_| taken) {
            Some(suffix) => {
                let longer = format!("{name}{suffix}");
                let free = self.tx.get_unique::<T>("name", [within, longer.as_str()])?;
                if free.is_some_and(|other| other.id() != id) {
                    self.clashes.push(format!("{} {longer}", T::KIND));
                } else {
                    self.report.renamed.push((name.to_owned(), longer.clone()));
                }
                Ok(longer)
            }
            None if taken => {
                self.clashes.push(format!("{} {name}", T::KIND));
                Ok(name.to_owned())
            }
            None => Ok(name.to_owned()),
        }
    }

    fn role(&self, id: &RoleId) -> RoleId {
        self.roles.get(id.as_str()).unwrap_or(id).clone()
    }

    fn all(&mut self, dump: &Dump) -> Result<()> {
        for project in &dump.projects {
            if self.tx.get::<Project>(&project.id)?.is_none() {
                let within = project.domain_id.as_deref().unwrap_or("");
                let name = self.name::<Project>([within, &project.name], &project.id)?;
                self.put(&Project { name, ..project.clone() })?;
            } else {
                self.put(project)?;
            }
        }
        for role in &dump.roles {
            let within = role.domain_id.as_deref().unwrap_or("");
            match self.tx.get_unique::<Role>("name", [within, &role.name])? {
                Some(known) if known.id != role.id => drop(self.roles.insert(role.id.to_string(), known.doc.id)),
                _ => self.put(role)?,
            }
        }
        let failed: BTreeMap<&str, &FailedLogins> = dump.failed_logins.iter().map(|of| (of.id.as_str(), of)).collect();
        for user in &dump.users {
            let known = self.tx.get::<User>(&user.id)?.is_some();
            let name = match user.shadow || known {
                true => user.name.clone(),
                false => self.name::<User>([&user.domain_id, &user.name], &user.id)?,
            };
            // Before the user: where a part has room for one of both, the next one has not seen the user.
            if let Some(failed) = failed.get(user.id.as_str()).filter(|_| !known) {
                self.put(*failed)?;
            }
            self.put(&User { name, ..user.clone() })?;
        }
        for group in &dump.groups {
            let known = self.tx.get::<Group>(&group.id)?.is_some();
            let name = match known || group.directory.is_some() {
                true => group.name.clone(),
                false => self.name::<Group>([&group.domain_id, &group.name], &group.id)?,
            };
            self.put(&Group { name, ..group.clone() })?;
        }
        if self.clashes.is_empty() { self.relations(dump) } else { Ok(()) }
    }

    fn relations(&mut self, dump: &Dump) -> Result<()> {
        for member in &dump.memberships {
            let id = Membership::id_of(&member.user_id, &member.group_id);
            if self.of_user::<Membership>(&member.user_id)? {
                self.put(&Membership { id, ..member.clone() })?;
            }
        }
        for implied in &dump.implied_roles {
            let (prior, to) = (self.role(&implied.prior_role_id), self.role(&implied.implied_role_id));
            self.put(&ImpliedRole::new(&prior, &to))?;
        }
        for given in &dump.assignments {
            let role = self.role(&given.role_id);
            let known = match &given.actor {
                Actor::User(id) => self.tx.get::<User>(id)?.is_some(),
                Actor::Group(id) => self.tx.get::<Group>(id)?.is_some(),
            };
            let place = match &given.place {
                Place::Project(id) => self.tx.get::<Project>(id)?.is_some(),
                Place::Domain(id) => self.tx.get::<Project>(id)?.is_some_and(|domain| domain.is_domain),
                Place::System => true,
            };
            if !known || !place {
                self.left_out("role_assignment of somebody, or to something, that is not here");
                continue;
            }
            self.put(&Assignment::new(given.actor.clone(), given.place.clone(), &role, given.inherited))?;
        }
        self.lent(dump)?;
        if self.full {
            return Ok(());
        }
        self.federation(dump)?;
        self.catalog(dump)?;
        self.limits(dump)
    }

    /// What users have lent to others, or keep for themselves.
    fn lent(&mut self, dump: &Dump) -> Result<()> {
        for rule in &dump.access_rules {
            if self.of_user::<AccessRule>(&rule.user_id)? {
                self.put(rule)?;
            }
        }
        if self.full {
            return Ok(());
        }
        for credential in &dump.application_credentials {
            if !self.of_user::<ApplicationCredential>(&credential.user_id)? {
                continue;
            }
            let roles = credential.roles.iter().map(|role| self.role(role)).collect();
            self.put(&ApplicationCredential { roles, ..credential.clone() })?;
        }
        for trust in &dump.trusts {
            if self.of_user::<Trust>(&trust.trustor_user_id)? && self.of_user::<Trust>(&trust.trustee_user_id)? {
                let roles = trust.roles.iter().map(|role| self.role(role)).collect();
                self.put(&Trust { roles, ..trust.clone() })?;
            }
        }
        for credential in &dump.credentials {
            if self.of_user::<Credential>(&credential.user_id)? {
                self.put(credential)?;
            }
        }
        dump.consumers.iter().try_for_each(|consumer| self.put(consumer))?;
        for token in &dump.access_tokens {
            if self.tx.get::<Consumer>(&token.consumer_id)?.is_none() {
                self.left_out("oauth1_access_token of a consumer that is not here");
            } else if self.of_user::<AccessToken>(&token.authorizing_user_id)? {
                let roles = token.roles.iter().map(|role| self.role(role)).collect();
                self.put(&AccessToken { roles, ..token.clone() })?;
            }
        }
        Ok(())
    }

    fn federation(&mut self, dump: &Dump) -> Result<()> {
        dump.identity_providers.iter().try_for_each(|provider| self.put(provider))?;
        dump.mappings.iter().try_for_each(|mapping| self.put(mapping))?;
        dump.protocols.iter().try_for_each(|protocol| self.put(protocol))?;
        dump.service_providers.iter().try_for_each(|provider| self.put(provider))?;
        dump.revocations.iter().try_for_each(|event| self.put(event))
    }
}

/// Makes what there is room for; true where something is left for another transaction.
fn import(tx: &mut Tx, dump: &Dump, suffix: Option<&str>, model: Model, room: usize) -> Result<(Report, bool)> {
    let mut import = Import {
        tx,
        room,
        full: false,
        suffix,
        clashes: Vec::new(),
        report: Report::default(),
        roles: BTreeMap::new(),
        services: BTreeMap::new(),
        model,
    };
    import.all(dump)?;
    if import.clashes.is_empty() {
        return Ok((import.report, import.full));
    }
    let more = import.clashes.len().saturating_sub(NAMED);
    let named = import.clashes.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Fault::conflict(format!(
        "Nothing was imported: these names are taken by others here: {named}{rest}. They can be renamed by a suffix."
    )))
}

impl Identity {
    /// Takes over what a Keystone knew.
    pub async fn import_keystone(&self, call: &Call, dump: Dump, suffix: Option<String>) -> Result<Report> {
        if dump.things() > THINGS {
            return Err(Fault::too_large(format!("An import may have at most {THINGS} things.")));
        }
        if let Some(suffix) = &suffix {
            base::limits::text("the suffix", suffix, 32)?;
        }
        sound(&dump)?;
        let (model, dump, mut whole) = (self.options.limit_model, Arc::new(dump), Report::default());
        // A dry run sees nothing of an earlier transaction.
        let room = if store::scope::is_dry() { THINGS } else { PART };
        loop {
            let (dump, suffix) = (dump.clone(), suffix.clone());
            let work = move |tx: &mut Tx| import(tx, &dump, suffix.as_deref(), model, room);
            let (report, more) = self.write(call, work).await?;
            whole = whole.and_then(report);
            if !more {
                return Ok(whole);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use store::{Options, Store};

    fn user(n: usize, name: &str) -> User {
        let user = json!({"id": format!("{n:032x}"), "name": name, "domain_id": "default", "enabled": true, "options": {},
            "extra": {}});
        serde_json::from_value(user).unwrap()
    }

    fn dump() -> Dump {
        let role = json!({"id": "sailor", "name": "sailor", "description": null, "options": {}, "extra": {}});
        let given = |n: usize| {
            let actor = Actor::User(format!("{n:032x}").into());
            Assignment::new(actor, Place::System, &RoleId::from("sailor"), false)
        };
        Dump {
            roles: vec![serde_json::from_value(role).unwrap()],
            users: (0..5).map(|n| user(n, &format!("user-{n}"))).collect(),
            // The last is of nobody.
            assignments: (0..6).map(given).collect(),
            ..Dump::default()
        }
    }

    async fn parts(store: &Store, room: usize, suffix: Option<&'static str>) -> Result<(Report, usize)> {
        let mut whole = Report::default();
        for count in 1.. {
            let work = move |tx: &mut Tx| import(tx, &dump(), suffix, Model::Flat, room);
            let (report, more) = store.write(store::Cause::new("test", "", "import"), work).await?.value;
            whole = whole.and_then(report);
            if !more {
                return Ok((whole, count));
            }
        }
        unreachable!("a part makes something")
    }

    #[tokio::test]
    async fn parts_make_what_one_transaction_makes_and_a_taken_name_stops_the_first() {
        let mut whole = Vec::new();
        for (room, transactions) in [(100, 1), (11, 1), (4, 3), (1, 11)] {
            let options = Options { kinds: crate::kinds(), ..Options::memory() };
            let store = Store::open(options, base::Env::seeded(7).0).await.unwrap();
            let (report, count) = parts(&store, room, None).await.unwrap();
            assert_eq!(count, transactions);
            whole.push(report);
            let (again, count) = parts(&store, room, None).await.unwrap();
            assert_eq!((again.made.len(), again.there["user"], count), (0, 5, 1));
        }
        assert_eq!((whole[0].made["user"], whole[0].made["role_assignment"], whole[0].left_out.len()), (5, 5, 1));
        assert!(whole.iter().all(|report| *report == whole[0]), "{whole:?}");

        let options = Options { kinds: crate::kinds(), ..Options::memory() };
        let store = Store::open(options, base::Env::seeded(7).0).await.unwrap();
        let work = move |tx: &mut Tx| Ok::<_, Fault>(tx.create(&user(77, "user-4"))?);
        store.write(store::Cause::new("test", "", "taken"), work).await.unwrap();
        let refused = parts(&store, 2, None).await.unwrap_err();
        assert!(refused.message.contains("user user-4"), "{}", refused.message);
        assert!(store.get::<Role>("sailor").await.unwrap().is_none(), "nothing was imported");
        let (report, _) = parts(&store, 2, Some("-old")).await.unwrap();
        assert_eq!((report.renamed.len(), report.made["user"]), (1, 5));
    }

    #[test]
    fn what_no_part_could_make_is_refused_before_the_first() {
        let mapping = json!({"id": "m", "rules": [{"local": [{"user": {"name": "{7}"}}], "remote": [{"type": "A"}]}],
            "schema_version": "1.0"});
        let bad = Dump { mappings: vec![serde_json::from_value(mapping).unwrap()], ..dump() };
        assert!(sound(&bad).unwrap_err().message.starts_with("mapping m: "));
        let credential = json!({"id": "c", "name": "ci", "user_id": "u", "project_id": "p", "description": null,
            "unrestricted": false, "expires_at": null, "secret": "", "roles": [], "access_rules": ["r"]});
        let mut bad = Dump { application_credentials: vec![serde_json::from_value(credential).unwrap()], ..dump() };
        assert!(sound(&bad).unwrap_err().message.contains("its access rule r is missing"));
        let rule = |user: &str| {
            let rule = json!({"id": "r", "user_id": user, "service": "compute", "method": "GET", "path": "/v2.1/servers"});
            serde_json::from_value::<AccessRule>(rule).unwrap()
        };
        bad.access_rules = vec![rule("another")];
        assert!(sound(&bad).is_err(), "it is another's");
        bad.access_rules = vec![rule("u")];
        sound(&bad).unwrap();
    }

    /// The limits of a domain are there before those of its projects are held against them, wherever a part ends.
    #[tokio::test]
    async fn a_part_may_end_within_the_limits_of_two_levels() {
        let project = |id: &str, domain: Option<&str>| {
            let project = json!({"id": id, "name": id, "domain_id": domain, "parent_id": domain, "enabled": true,
                "is_domain": domain.is_none(), "description": "", "tags": [], "options": {}, "extra": {}});
            serde_json::from_value::<Project>(project).unwrap()
        };
        let limit = |id: &str, project: Option<&str>, domain: Option<&str>, most: i64| {
            let limit = json!({"id": id, "project_id": project, "domain_id": domain, "service_id": "s", "region_id": null,
                "resource_name": "cores", "resource_limit": most, "description": null});
            serde_json::from_value::<Limit>(limit).unwrap()
        };
        let service = json!({"id": "s", "type": "compute", "name": "nova", "enabled": true, "description": null, "extra": {}});
        let registered = json!({"id": "r", "service_id": "s", "region_id": null, "resource_name": "cores",
            "default_limit": 10, "description": null});
        let dump = Arc::new(Dump {
            catalog: true,
            projects: vec![project("d", None), project("p", Some("d"))],
            services: vec![serde_json::from_value(service).unwrap()],
            registered_limits: vec![serde_json::from_value(registered).unwrap()],
            // As they come from the database: by their ids.
            limits: vec![limit("a", Some("p"), None, 50), limit("b", None, Some("d"), 100)],
            ..Dump::default()
        });
        for room in [100, 5, 1] {
            let options = Options { kinds: crate::kinds(), ..Options::memory() };
            let store = Store::open(options, base::Env::seeded(7).0).await.unwrap();
            let mut made = 0;
            loop {
                let dump = dump.clone();
                let work = move |tx: &mut Tx| import(tx, &dump, None, Model::StrictTwoLevel, room);
                let (report, more) = store.write(store::Cause::new("test", "", "import"), work).await.unwrap().value;
                made += report.made.values().sum::<usize>();
                if !more {
                    break;
                }
            }
            assert_eq!(made, 6, "in parts of {room}");
        }
    }
}
