//! Asking the directory of a domain: one connection for one request, with a time limit over all of it. What goes wrong
//! is a fault that names the domain, and says to the log alone what it was.

use super::entry::{Circle, Person, Term};
use super::settings::{Class, Enabled, Settings};
use super::{ENTRIES, MEMBERS, Session};
use crate::Identity;
use crate::documents::*;
use base::{Fault, Result};
use ldap::{Dn, Entry, Filter, Found, Scope, Search};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::Secret;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

/// The most groups of one user.
const GROUPS: usize = 1000;
/// Searches for the groups of somebody who has any.
const OF_GROUPS: usize = 2;
/// An id that nobody has.
const NOBODY: &str = "nubo-nobody";

/// Without those whose id another one has, too: they count for none.
fn once<T>(all: Vec<T>, id: impl Fn(&T) -> &String) -> Vec<T> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    all.iter().for_each(|one| *count.entry(id(one).clone()).or_default() += 1);
    all.into_iter().filter(|one| count[id(one)] == 1).collect()
}

pub(super) struct Asking {
    settings: Settings,
    session: Box<dyn Session>,
    domain: String,
    until: Instant,
    /// Searches so far.
    asked: usize,
    _line: OwnedSemaphorePermit,
}

fn late(domain: &str) -> Fault {
    Fault::unavailable(format!("The directory of the domain {domain} does not answer in time; try again later."))
}

fn broken(domain: &str, error: ldap::Error) -> Fault {
    let message = match &error {
        ldap::Error::Io(_) => "cannot be reached at the moment; try again later",
        _ => "gives no answer that can be used; its options may be wrong",
    };
    Fault::unavailable(format!("The directory of the domain {domain} {message}.")).because(error)
}

fn misconfigured(domain: &str, why: &str) -> Fault {
    Fault::unavailable(format!("The directory of the domain {domain} cannot be asked: {why}."))
}

/// The password of the options, which only the store has.
fn password(identity: &Identity, config: &DomainConfig) -> Result<Option<String>> {
    let Some(value) = config.groups.get("ldap").and_then(|group| group.get("password")) else { return Ok(None) };
    let Ok(secret) = Secret::deserialize(value) else { return Ok(None) };
    let password = identity.store.secrets().open(config, "password", &secret)?;
    Ok(Some(password).filter(|password| !password.is_empty()))
}

impl Asking {
    pub async fn open(identity: &Identity, domain: &str, limit: Duration) -> Result<Asking> {
        let until = Instant::now() + limit;
        let name = identity.present().domain(domain).map_or_else(|| domain.to_owned(), |domain| domain.name.clone());
        let config = identity.store.get::<DomainConfig>(domain).await?.map(|stored| stored.doc);
        let config = config.ok_or_else(|| misconfigured(&name, "its options are gone"))?;
        let settings = Settings::read(&config).map_err(|why| misconfigured(&name, &format!("the option {why}")))?;
        let password = password(identity, &config)?;
        let connect = identity.options.directories.clone();
        let connect = connect.ok_or_else(|| misconfigured(&name, "this cloud connects to none"))?;
        let line = timeout_at(until, identity.directories.lines(domain).acquire_owned()).await;
        let line = line.ok().and_then(|line| line.ok()).ok_or_else(|| late(&name))?;
        let session = timeout_at(until, connect.open(&settings.server)).await.map_err(|_| late(&name))?;
        let session = session.map_err(|error| broken(&name, error))?;
        let user = settings.user.clone();
        let mut asking = Asking { settings, session, domain: name, until, asked: 0, _line: line };
        if let (Some(user), Some(password)) = (user, password)
            && !asking.bind(&user, &password).await?
        {
            return Err(misconfigured(&asking.domain, "it refuses the login of the options user and password"));
        }
        Ok(asking)
    }

    /// True if the directory takes the password of this entry, who is logged in from then on.
    pub async fn bind(&mut self, dn: &str, password: &str) -> Result<bool> {
        let answer = timeout_at(self.until, self.session.bind(dn, password)).await;
        answer.map_err(|_| late(&self.domain))?.map_err(|error| broken(&self.domain, error))
    }

    /// Says goodbye, and does not wait for it.
    pub async fn close(mut self) {
        let _ = timeout_at(self.until, self.session.close()).await;
    }

    /// What fits; nothing where the place of the search is not there, as in Keystone.
    async fn search(&mut self, search: Search) -> Result<Found> {
        self.asked += 1;
        let answer = timeout_at(self.until, self.session.search(&search)).await;
        match answer.map_err(|_| late(&self.domain))? {
            Err(ldap::Error::Refused { code: ldap::code::NO_SUCH_OBJECT, .. }) => Ok(Found::default()),
            found => found.map_err(|error| broken(&self.domain, error)),
        }
    }

    fn in_tree(&self, class: &Class, and: Vec<Filter>, attributes: Vec<String>, most: usize) -> Search {
        Search {
            base: class.tree.clone(),
            scope: self.settings.scope,
            dereference: self.settings.dereference,
            filter: class.filter(and),
            attributes,
            page_size: self.settings.page_size,
            most,
        }
    }

    fn at(&self, dn: &str, filter: Filter, attributes: Vec<String>) -> Search {
        let (base, scope, dereference) = (dn.to_owned(), Scope::Base, self.settings.dereference);
        Search { base, scope, dereference, filter, attributes, page_size: 0, most: 1 }
    }

    /// As many as the domain lists at once, and whether there are more.
    async fn listed(&mut self, search: Search, what: &str) -> Result<(Vec<Entry>, bool)> {
        let limit = self.settings.list_limit;
        let found = self.search(search).await?;
        if found.more && limit.is_none_or(|limit| found.entries.len() < limit.min(ENTRIES)) {
            return Err(Fault::too_large(format!(
                "The directory of the domain {} has more {what} than it gives, or than the {ENTRIES} that are listed \
                 at once: ask by name, or set page_size and list_limit.",
                self.domain
            )));
        }
        Ok((found.entries, found.more))
    }

    fn most(&self) -> usize {
        self.settings.list_limit.unwrap_or(ENTRIES).min(ENTRIES)
    }

    pub async fn people(&mut self, term: &Term) -> Result<(Vec<Person>, bool)> {
        let class = self.settings.users.clone();
        let search = self.in_tree(&class, term.filters(&class.name), self.settings.of_people(), self.most());
        let (entries, more) = self.listed(search, "users").await?;
        Ok((once(self.as_people(&entries).await?, |person| &person.local_id), more))
    }

    pub async fn circles(&mut self, term: &Term) -> Result<(Vec<Circle>, bool)> {
        let class = self.settings.groups.clone();
        let search = self.in_tree(&class, term.filters(&class.name), self.settings.of_circles(), self.most());
        let (entries, more) = self.listed(search, "groups").await?;
        let circles = entries.iter().filter_map(|entry| self.settings.circle(entry)).collect();
        Ok((once(circles, |circle: &Circle| &circle.local_id), more))
    }

    /// The one entry with this value; none where there are several, which are nobody.
    async fn only(
        &mut self,
        class: &Class,
        attribute: &str,
        value: &str,
        wanted: Vec<String>,
    ) -> Result<Option<Entry>> {
        let search = self.in_tree(class, vec![Filter::equal(attribute, value)], wanted, 2);
        let mut found = self.search(search).await?;
        if found.entries.len() > 1 || found.more {
            let (domain, attribute) = (self.domain.as_str(), attribute);
            tracing::info!(
                domain,
                attribute,
                "two entries of a directory have the same name or id, and count for none"
            );
            return Ok(None);
        }
        Ok(found.entries.pop())
    }

    async fn one_person(&mut self, attribute: String, value: &str) -> Result<Option<Person>> {
        let (class, wanted) = (self.settings.users.clone(), self.settings.of_people());
        let found = self.only(&class, &attribute, value, wanted).await?;
        Ok(self.as_people(found.as_slice()).await?.pop())
    }

    /// The user with this id. A directory finds ids in other letters as well, and any of several values: those are
    /// the ids of somebody else.
    pub async fn person(&mut self, local_id: &str) -> Result<Option<Person>> {
        let found = self.member(local_id).await?;
        Ok(found.filter(|person| person.local_id == local_id))
    }

    /// The user whom a group names by an id, as the directory compares ids.
    async fn member(&mut self, local_id: &str) -> Result<Option<Person>> {
        self.one_person(self.settings.users.id.clone(), local_id).await
    }

    /// Somebody who would lie where users lie, and does not.
    pub fn nobody(&self, name: &str) -> Person {
        let (local_id, name) = (name.to_owned(), name.to_owned());
        let dn = format!("{}={NOBODY},{}", self.settings.users.id, self.settings.users.tree);
        Person { dn, local_id, name, enabled: false, default_project: None, extra: Extra::new() }
    }

    /// Asks for nobody until as much has been asked as is asked for somebody with groups who is looked up so often.
    pub async fn ask_as_often(&mut self, lookups: usize) -> Result<()> {
        let of_one = if matches!(self.settings.enabled, Enabled::Members { .. }) { 2 } else { 1 };
        let class = self.settings.users.clone();
        while self.asked < lookups * of_one + OF_GROUPS {
            self.only(&class, &class.id, NOBODY, vec!["1.1".into()]).await?;
        }
        Ok(())
    }

    /// The user of this name, if nobody else has its id: who can give himself an id must not become another by it.
    pub async fn person_named(&mut self, name: &str) -> Result<Option<Person>> {
        let Some(named) = self.one_person(self.settings.users.name.clone(), name).await? else { return Ok(None) };
        let same = self.person(&named.local_id).await?;
        Ok(same.filter(|person| person.dn == named.dn))
    }

    pub async fn circle(&mut self, local_id: &str) -> Result<Option<Circle>> {
        let (class, wanted) = (self.settings.groups.clone(), self.settings.of_circles());
        let found = self.only(&class, &class.id, local_id, wanted).await?;
        let circle = found.and_then(|entry| self.settings.circle(&entry));
        Ok(circle.filter(|circle| circle.local_id == local_id))
    }

    /// The groups of a user.
    pub async fn circles_of(&mut self, person: &Person) -> Result<Vec<Circle>> {
        let key = if self.settings.members_are_ids { &person.local_id } else { &person.dn };
        let (class, member) = (self.settings.groups.clone(), Filter::equal(&self.settings.member, key));
        let found = self.search(self.in_tree(&class, vec![member], self.settings.of_circles(), GROUPS)).await?;
        if found.more {
            return Err(Fault::too_large(format!(
                "A user of the domain {} has more than {GROUPS} groups.",
                self.domain
            )));
        }
        let circles: Vec<Circle> = found.entries.iter().filter_map(|entry| self.settings.circle(entry)).collect();
        if circles.is_empty() {
            return Ok(circles);
        }
        // Another group with the id of one of them would be that one.
        let ids = circles.iter().map(|circle| Filter::equal(&class.id, &circle.local_id)).collect();
        let search = self.in_tree(&class, vec![Filter::Or(ids)], self.settings.of_circles(), 2 * GROUPS);
        let same: Vec<Circle> =
            self.search(search).await?.entries.iter().filter_map(|entry| self.settings.circle(entry)).collect();
        let same = once(same, |circle| &circle.local_id);
        Ok(circles.into_iter().filter(|circle| same.iter().any(|it| it.dn == circle.dn)).collect())
    }

    /// Those members of a group that are users of the domain.
    pub async fn members(&mut self, circle: &Circle) -> Result<Vec<Person>> {
        let attribute = self.settings.member.clone();
        let keys = self.values(&circle.dn, &attribute).await?;
        let mut people = Vec::new();
        for key in keys {
            let found =
                if self.settings.members_are_ids { self.member(&key).await? } else { self.person_at(&key).await? };
            people.extend(found);
        }
        Ok(people)
    }

    /// The values of one attribute of one entry, as far as they are text.
    async fn values(&mut self, dn: &str, attribute: &str) -> Result<Vec<String>> {
        let found = self.search(self.at(dn, Filter::present("objectClass"), vec![attribute.to_owned()])).await?;
        let Some(entry) = found.entries.first() else { return Ok(Vec::new()) };
        let part = format!("{};range=", attribute.to_lowercase());
        if entry.attributes.keys().any(|name| name.starts_with(&part)) || entry.texts(attribute).count() > MEMBERS {
            return Err(Fault::too_large(format!(
                "A group of the domain {} has more members than its directory gives at once, or than {MEMBERS}.",
                self.domain
            )));
        }
        Ok(entry.texts(attribute).map(str::to_owned).collect())
    }

    /// The user of this name, if it lies where users lie: an entry elsewhere may have the same id as one of them.
    async fn person_at(&mut self, dn: &str) -> Result<Option<Person>> {
        let levels = Dn::parse(dn).and_then(|dn| dn.below(&self.settings.users.tree_dn));
        let within = match self.settings.scope {
            Scope::One => levels == Some(1),
            _ => levels.is_some(),
        };
        if !within {
            return Ok(None);
        }
        let search = self.at(dn, self.settings.users.filter(Vec::new()), self.settings.of_people());
        let found = self.search(search).await?;
        Ok(self.as_people(&found.entries).await?.pop())
    }

    /// What entries mean, membership in the entry of the enabled counted in.
    async fn as_people(&mut self, entries: &[Entry]) -> Result<Vec<Person>> {
        let mut people: Vec<Person> = entries.iter().filter_map(|entry| self.settings.person(entry)).collect();
        let Enabled::Members { dn, attribute, are_ids } = self.settings.enabled.clone() else { return Ok(people) };
        if let [person] = people.as_mut_slice() {
            let key = if are_ids { &person.local_id } else { &person.dn };
            let asked = self.at(&dn, Filter::equal(&attribute, key), vec!["1.1".into()]);
            person.enabled = !self.search(asked).await?.entries.is_empty();
            return Ok(people);
        }
        if !people.is_empty() {
            let members: Vec<String> = self.values(&dn, &attribute).await?;
            let ids: BTreeSet<&String> = members.iter().filter(|_| are_ids).collect();
            let dns: BTreeSet<Dn> = members.iter().filter(|_| !are_ids).filter_map(|dn| Dn::parse(dn)).collect();
            let itself = Dn::parse(&dn);
            people.retain(|person| Dn::parse(&person.dn) != itself);
            for person in &mut people {
                person.enabled =
                    ids.contains(&person.local_id) || Dn::parse(&person.dn).is_some_and(|dn| dns.contains(&dn));
            }
        }
        Ok(people)
    }
}
