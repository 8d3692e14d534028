//! Domains whose users and groups stand in a directory (LDAP), which is only read: those whose option
//! `identity/driver` is `ldap`.
//!
//! What was seen of a directory is kept as documents ([`mirror`]), so that roles, trusts and application credentials
//! have somebody to refer to and a token is verified without waiting. The directory has the last word: a list, a look
//! and a login ask it ([`asking`]), always before a transaction and never in one. A token that is there is verified
//! against what was last seen, which is asked for again every [`FRESH_S`] seconds; a new token is made only of what the
//! directory has said within that time.
//!
//! ```text
//! unknown ── list, look, login ──> kept ── not found ──> gone ── found ──> kept
//! ```
//! What is gone is not deleted: it may be a mistake of the directory, and its roles are its own when it is back.

mod asking;
mod entry;
mod login;
mod mirror;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use entry::public_id;
pub(crate) use login::asked_for;
pub use settings::{Certificates, Server, Url};

use crate::Identity;
use crate::documents::*;
use crate::model::Model;
use crate::token::verify::Verified;
use asking::Asking;
use base::{Fault, FaultKind, Result, Timestamp, UserId};
use entry::Term;
use ldap::{Found, Search};
use rest::Call;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Opens connections to directories.
#[async_trait::async_trait]
pub trait Connect: std::fmt::Debug + Send + Sync + 'static {
    /// A connection to one of the server's addresses, with TLS where it is asked for; nobody is logged in yet.
    async fn open(&self, server: &Server) -> ldap::Result<Box<dyn Session>>;
}

/// One connection, for one operation after the other.
#[async_trait::async_trait]
pub trait Session: Send {
    /// True if the directory takes the password for this name.
    async fn bind(&mut self, dn: &str, password: &str) -> ldap::Result<bool>;
    async fn search(&mut self, search: &Search) -> ldap::Result<Found>;
    /// Says goodbye.
    async fn close(&mut self);
}

/// How long what a directory has said counts for tokens.
pub const FRESH_S: i64 = 60;
/// How long tokens are verified without asking a directory again that gave no answer.
const BROKEN_S: i64 = 30;
/// Until a login, or a look at one thing, has been answered.
const LOOK: Duration = Duration::from_secs(10);
/// The same where a token that is there can be verified without.
const GLANCE: Duration = Duration::from_secs(3);
/// The same for lists.
const LIST: Duration = Duration::from_secs(30);
/// The most users or groups of a list.
const ENTRIES: usize = 10_000;
/// The most members of a group.
const MEMBERS: usize = 5000;
/// The most connections to the directory of one domain.
const LINES: usize = 8;
/// The most users whose freshness is remembered.
const SEEN: usize = 65_536;
/// The most groups that are asked for their members in one list of role assignments.
const GROUPS: usize = 64;

/// What is remembered of directories between requests.
#[derive(Default)]
pub struct Directories(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    lines: HashMap<String, Arc<Semaphore>>,
    /// When a user was asked for, and whether there was an answer.
    seen: HashMap<String, (Timestamp, bool)>,
    broken: HashMap<String, Timestamp>,
}

fn lately(at: Option<Timestamp>, now: Timestamp, seconds: i64) -> bool {
    // A clock that was set back says nothing.
    at.is_some_and(|at| (0..seconds * 1000).contains(&now.ms_since(at)))
}

impl Directories {
    fn with<R>(&self, work: impl FnOnce(&mut Memory) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lines(&self, domain: &str) -> Arc<Semaphore> {
        self.with(|memory| {
            let lines = memory.lines.entry(domain.to_owned());
            lines.or_insert_with(|| Arc::new(Semaphore::new(LINES))).clone()
        })
    }

    fn mark(&self, user: &str, now: Timestamp, answered: bool) {
        self.with(|memory| {
            if memory.seen.len() >= SEEN {
                memory.seen.clear();
            }
            memory.seen.insert(user.to_owned(), (now, answered));
        });
    }

    /// The directory has said something of the user lately.
    fn is_confirmed(&self, user: &str, now: Timestamp) -> bool {
        self.with(|memory| {
            memory.seen.get(user).is_some_and(|(at, answered)| *answered && lately(Some(*at), now, FRESH_S))
        })
    }

    /// True for one who asks first for a while, which is noted.
    fn is_due(&self, user: &str, domain: &str, now: Timestamp) -> bool {
        let due = self.with(|memory| {
            !lately(memory.seen.get(user).map(|(at, _)| *at), now, FRESH_S)
                && !lately(memory.broken.get(domain).copied(), now, BROKEN_S)
        });
        if due {
            self.mark(user, now, false);
        }
        due
    }

    fn mark_broken(&self, domain: &str, now: Timestamp) {
        self.with(|memory| memory.broken.insert(domain.to_owned(), now));
    }
}

impl Model {
    /// The users of this domain stand in a directory.
    pub fn has_directory(&self, domain: &str) -> bool {
        self.domain_configs.get(domain).is_some_and(|config| settings::names_directory(config))
    }

    fn holds(&self, domain: &str, of: Option<&OfDirectory>) -> bool {
        of.is_none_or(|of| !of.gone && self.has_directory(domain))
    }

    /// The user is there: nobody of a directory that has lost it, or that the domain no longer has.
    pub fn stands(&self, user: &User) -> bool {
        self.holds(&user.domain_id, user.directory.as_ref())
    }

    pub fn group_stands(&self, group: &Group) -> bool {
        self.holds(&group.domain_id, group.directory.as_ref())
    }

    /// The user, if it may do anything at all.
    pub fn active_user(&self, id: &str) -> Option<&Arc<User>> {
        self.users.get(id).filter(|user| user.enabled && self.stands(user))
    }
}

/// Refuses to change what a directory has.
pub(crate) fn read_only(model: &Model, domain: &str) -> Fault {
    let name = model.domain(domain).map_or(domain, |domain| domain.name.as_str());
    Fault::forbidden(format!(
        "LDAP does not support write operations: users and groups of the domain {name} are changed in its directory."
    ))
}

/// Refuses new users and groups where a directory has them.
pub(crate) fn writable(model: &Model, domain: &str) -> Result<()> {
    if model.has_directory(domain) { Err(read_only(model, domain)) } else { Ok(()) }
}

/// A group of a directory has no members of elsewhere, and no other group has members of a directory.
pub(crate) fn members_writable(model: &Model, group: &Group, user: &User) -> Result<()> {
    match (&group.directory, &user.directory) {
        (None, None) => Ok(()),
        (Some(_), Some(_)) if group.domain_id == user.domain_id => Err(read_only(model, &group.domain_id)),
        _ => Err(Fault::forbidden(format!(
            "The group {} and the user {} are not both of one directory, nor both of none.",
            group.id, user.id
        ))),
    }
}

/// What a directory has of what a list asks for.
pub(crate) struct Listed {
    domain: String,
    ids: BTreeSet<String>,
    /// There are more, by the domain's `list_limit`.
    pub truncated: bool,
}

impl Listed {
    /// A thing of some domain belongs into a list: those of this directory if it has said so just now.
    pub fn has(listed: Option<&Listed>, model: &Model, id: &str, domain: &str, of: Option<&OfDirectory>) -> bool {
        match listed {
            Some(listed) if of.is_some() && listed.domain == domain => listed.ids.contains(id),
            _ => model.holds(domain, of),
        }
    }

    /// The directory compares names as it is used to, so what it has found fits.
    pub fn fits(call: &Call, name: &str, of: Option<&OfDirectory>, listed: &Option<Listed>) -> bool {
        of.is_some() && listed.is_some() || call.query.get("name").is_none_or(|wanted| wanted == name)
    }
}

impl Identity {
    /// The domain whose directory a list is about: none in the past, which knows what was seen then.
    fn listed_domain(&self, call: &Call) -> Option<String> {
        if crate::then::current().is_some() {
            return None;
        }
        let scope = call.caller.domain_id().map(|id| id.to_string());
        let domain = match (call.query.get("domain_id").filter(|id| !id.is_empty()), scope) {
            (Some(asked), Some(scope)) if asked != scope => return None,
            (Some(asked), _) => asked.to_owned(),
            (None, scope) => scope?,
        };
        Some(domain).filter(|domain| self.present().has_directory(domain))
    }

    async fn asking(&self, domain: &str, limit: Duration) -> Result<Asking> {
        Asking::open(self, domain, limit).await
    }

    /// What a list of users asks of a directory, if it does.
    pub(crate) async fn listed_users(&self, call: &Call) -> Result<Option<Listed>> {
        let Some(domain) = self.listed_domain(call) else { return Ok(None) };
        let mut asking = self.asking(&domain, LIST).await?;
        let (people, truncated) = asking.people(&Term::of(call)).await?;
        asking.close().await;
        let ids = self.keep_seen(&domain, &people).await?;
        Ok(Some(Listed { domain, ids: ids.iter().map(ToString::to_string).collect(), truncated }))
    }

    /// The same for groups.
    pub(crate) async fn listed_groups(&self, call: &Call) -> Result<Option<Listed>> {
        let Some(domain) = self.listed_domain(call) else { return Ok(None) };
        let mut asking = self.asking(&domain, LIST).await?;
        let (circles, truncated) = asking.circles(&Term::of(call)).await?;
        asking.close().await;
        let ids = self.keep_seen(&domain, &circles).await?;
        Ok(Some(Listed { domain, ids: ids.iter().map(ToString::to_string).collect(), truncated }))
    }

    /// The user's directory is asked for user and groups; nothing happens for others, and for reads of the past.
    pub(crate) async fn renew_user(&self, user: &User) -> Result<()> {
        self.renew_user_within(user, LOOK).await
    }

    async fn renew_user_within(&self, user: &User, limit: Duration) -> Result<()> {
        let Some(of) = self.of_directory(&user.domain_id, user.directory.as_ref()) else { return Ok(()) };
        let mut asking = self.asking(&user.domain_id, limit).await?;
        let Some(person) = asking.person(&of.local_id).await? else {
            asking.close().await;
            self.keep_user_gone(&user.id).await?;
            self.directories.mark(&user.id, self.env.now(), true);
            return Ok(());
        };
        let circles = asking.circles_of(&person).await?;
        asking.close().await;
        self.keep_person(&user.domain_id, &person, &circles).await.map(drop)
    }

    /// The same for a group, with its members where these are asked for.
    pub(crate) async fn renew_group(&self, group: &Group, members: bool) -> Result<()> {
        let Some(of) = self.of_directory(&group.domain_id, group.directory.as_ref()) else { return Ok(()) };
        let mut asking = self.asking(&group.domain_id, if members { LIST } else { LOOK }).await?;
        let Some(circle) = asking.circle(&of.local_id).await? else {
            asking.close().await;
            return self.keep_group_gone(&group.id).await;
        };
        let people = if members { Some(asking.members(&circle).await?) } else { None };
        asking.close().await;
        self.keep_seen(&group.domain_id, std::slice::from_ref(&circle)).await?;
        if let Some(people) = people {
            let users = self.keep_seen(&group.domain_id, &people).await?;
            self.keep_members(&group.id, &users).await?;
        }
        Ok(())
    }

    fn of_directory<'a>(&self, domain: &str, of: Option<&'a OfDirectory>) -> Option<&'a OfDirectory> {
        of.filter(|_| crate::then::current().is_none() && self.present().has_directory(domain))
    }

    /// The actor of a new assignment is there.
    pub(crate) async fn renew_actor(&self, actor: &Actor) -> Result<()> {
        match actor {
            Actor::User(id) => {
                let user = self.present().users.get(id).cloned();
                match user {
                    Some(user) => self.renew_user(&user).await,
                    None => Ok(()),
                }
            }
            Actor::Group(id) => {
                let group = self.present().groups.get(id).cloned();
                match group {
                    Some(group) => self.renew_group(&group, false).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Brings the members of groups that have roles up to date, or the groups of one user. A directory that gives no
    /// answer leaves what was seen last: the list is about other domains, too.
    pub(crate) async fn renew_assigned(&self, user: Option<&str>) {
        if crate::then::current().is_some() {
            return;
        }
        if let Some(user) = user {
            let user = self.present().users.get(user).cloned();
            if let Some(user) = user {
                self.note(&format!("lists of {}", user.domain_id), self.renew_user(&user).await);
            }
            return;
        }
        let groups: Vec<Arc<Group>> = {
            let model = self.present();
            let actors: BTreeSet<&str> = model.assignments.all().map(|assignment| assignment.actor.id()).collect();
            let groups = actors.into_iter().filter_map(|id| model.groups.get(id));
            groups
                .filter(|group| group.directory.is_some() && model.group_stands(group))
                .take(GROUPS)
                .cloned()
                .collect()
        };
        for group in groups {
            // Members may take long where one look at one user does not: a slow list says nothing to tokens.
            let (lists, now) = (format!("lists of {}", group.domain_id), self.env.now());
            let is_broken = |of: &str| self.directories.with(|memory| lately(memory.broken.get(of).copied(), now, BROKEN_S));
            if !is_broken(&group.domain_id) && !is_broken(&lists) {
                self.note(&lists, self.renew_group(&group, true).await);
            }
        }
    }

    fn note(&self, domain: &str, asked: Result<()>) {
        if let Err(fault) = asked {
            // What is wrong with one user or group says nothing of the others.
            if fault.kind == FaultKind::Unavailable {
                self.directories.mark_broken(domain, self.env.now());
            }
            tracing::warn!(domain, "what was last seen of a directory is used: {}", fault.chain());
        }
    }

    /// A new token is made only of what the directory of its user has said lately.
    pub(crate) async fn confirm(&self, user: &UserId) -> Result<()> {
        let known = self.present().users.get(user).filter(|user| user.directory.is_some()).cloned();
        match known {
            Some(known) if !self.directories.is_confirmed(user, self.env.now()) => self.renew_user(&known).await,
            _ => Ok(()),
        }
    }

    /// The same for everybody who stands behind a token.
    pub(crate) async fn confirm_all(&self, verified: &Verified) -> Result<()> {
        let users = behind(&self.present(), verified);
        for user in &users {
            self.confirm(user).await?;
        }
        Ok(())
    }

    /// Asks for whom a token stands, if that is due. True if what is known may have changed.
    pub(crate) async fn refresh(&self, token: &str, verified: Option<&Verified>) -> bool {
        // Nearly always.
        if verified.is_some_and(|verified| {
            verified.user.directory.is_none() && verified.user.id == verified.payload.user && verified.trust.is_none()
        }) {
            return false;
        }
        let users: Vec<Arc<User>> = {
            let model = self.present();
            let mut ids: BTreeSet<UserId> = BTreeSet::new();
            match verified {
                Some(verified) => ids.extend(behind(&model, verified)),
                None if model.domain_configs.all().any(|config| settings::names_directory(config)) => {
                    ids.extend(model.keys.open(token).map(|(payload, _)| payload.user));
                }
                None => return false,
            }
            ids.iter().filter_map(|id| model.users.get(id)).filter(|user| user.directory.is_some()).cloned().collect()
        };
        let mut asked = false;
        for user in users {
            let domain = user.domain_id.as_str();
            if self.present().has_directory(domain) && self.directories.is_due(&user.id, domain, self.env.now()) {
                self.note(domain, self.renew_user_within(&user, GLANCE).await);
                asked = true;
            }
        }
        asked
    }
}

/// Who must be there for a token to hold: its user, who has it, and who lends by its trust or by one before that, since
/// he must still have what he lends.
fn behind(model: &Model, verified: &Verified) -> BTreeSet<UserId> {
    let lenders = verified.trust.iter().flat_map(|trust| crate::trust::lenders(model, trust));
    [verified.user.id.clone(), verified.payload.user.clone()].into_iter().chain(lenders).collect()
}
