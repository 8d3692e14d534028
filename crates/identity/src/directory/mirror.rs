//! What was seen of a directory, kept as documents: written when it differs from what is kept, and never deleted.
//!
//! This is no request's own change but what the world is like, so it is written whatever the request's scope is, as the
//! users of identity providers are.

use super::entry::{Circle, Person, public_id};
use super::{Groups, Users};
use crate::Identity;
use crate::documents::*;
use crate::model::named;
use base::{Fault, GroupId, Result, UserId};
use serde_json::Value;
use std::collections::BTreeSet;
use store::{Query, Tx};

/// How many things are written at once: others wait for the writer, too.
const AT_ONCE: usize = 200;

impl Person {
    fn user(&self, id: UserId, domain: &str) -> User {
        User {
            id,
            name: self.name.clone(),
            domain_id: domain.into(),
            enabled: self.enabled,
            default_project_id: self.default_project.clone().map(Into::into),
            password: None,
            password_changed: None,
            password_expires_at: None,
            password_history: Vec::new(),
            options: Extra::new(),
            extra: self.extra.clone(),
            federated: Vec::new(),
            // Two entries may have the same name.
            shadow: true,
            directory: Some(OfDirectory { local_id: self.local_id.clone(), gone: false }),
        }
    }

    fn put(&self, tx: &mut Tx, domain: &str) -> Result<()> {
        match tx.get_unique::<User>("directory", [domain, &self.local_id])? {
            Some(known) => drop(tx.update(&self.user(known.doc.id, domain))?),
            None => {
                let id: UserId = public_id(domain, "user", &self.local_id).into();
                // A user of an identity provider may have the id: it is no one's but that one's.
                if tx.get::<User>(&id)?.is_none() {
                    tx.create(&self.user(id, domain))?;
                }
            }
        }
        Ok(())
    }
}

impl Circle {
    fn group(&self, id: GroupId, domain: &str) -> Group {
        Group {
            id,
            name: self.name.clone(),
            domain_id: domain.into(),
            description: self.description.clone().map_or_else(|| Value::from(""), Value::from),
            extra: self.extra.clone(),
            directory: Some(OfDirectory { local_id: self.local_id.clone(), gone: false }),
        }
    }

    fn put(&self, tx: &mut Tx, domain: &str) -> Result<()> {
        match tx.get_unique::<Group>("directory", [domain, &self.local_id])? {
            Some(known) => drop(tx.update(&self.group(known.doc.id, domain))?),
            None => drop(tx.create(&self.group(public_id(domain, "group", &self.local_id).into(), domain))?),
        }
        Ok(())
    }
}

/// The domain may have been deleted meanwhile: nothing is made in it then.
fn is_there(tx: &mut Tx, domain: &str) -> Result<bool> {
    Ok(tx.get::<Project>(domain)?.is_some_and(|domain| domain.is_domain))
}

impl Identity {
    async fn keep(&self, work: impl FnMut(&mut Tx) -> Result<()> + Send + 'static) -> Result<()> {
        let cause = store::Cause::new("nubo", "", "directory.seen");
        store::scope::run(store::Scope::default(), self.store.write(cause, work)).await?;
        self.sync().await
    }

    /// Keeps users; their ids, in the same order, without those whom somebody of elsewhere has the id of.
    pub(super) async fn keep_people(&self, domain: &str, people: &[Person]) -> Result<Users> {
        let (mut ids, mut changed) = (Vec::with_capacity(people.len()), Vec::new());
        {
            let model = self.present();
            for person in people {
                let known = model.users.one("directory", &named(domain, &person.local_id));
                let id: UserId =
                    known.map_or_else(|| public_id(domain, "user", &person.local_id).into(), |user| user.id.clone());
                if known.is_none() && model.users.get(&id).is_some() {
                    tracing::warn!(domain, user = %id, "a user of a directory has the id of another user, and is left out");
                    continue;
                }
                if known.is_none_or(|user| **user != person.user(id.clone(), domain)) {
                    changed.push(person.clone());
                }
                ids.push(id);
            }
        }
        for some in changed.chunks(AT_ONCE) {
            let (some, domain) = (some.to_vec(), domain.to_owned());
            self.keep(move |tx| {
                if !is_there(tx, &domain)? {
                    return Ok(());
                }
                some.iter().try_for_each(|person| person.put(tx, &domain))
            })
            .await?;
        }
        Ok(ids)
    }

    /// Keeps groups; their ids, in the same order.
    pub(super) async fn keep_circles(&self, domain: &str, circles: &[Circle]) -> Result<Groups> {
        let (mut ids, mut changed) = (Vec::with_capacity(circles.len()), Vec::new());
        {
            let model = self.present();
            for circle in circles {
                let known = model.groups.one("directory", &named(domain, &circle.local_id));
                let id =
                    known.map_or_else(|| public_id(domain, "group", &circle.local_id).into(), |group| group.id.clone());
                if known.is_none_or(|group| **group != circle.group(id.clone(), domain)) {
                    changed.push(circle.clone());
                }
                ids.push(id);
            }
        }
        for some in changed.chunks(AT_ONCE) {
            let (some, domain) = (some.to_vec(), domain.to_owned());
            self.keep(move |tx| {
                if !is_there(tx, &domain)? {
                    return Ok(());
                }
                some.iter().try_for_each(|circle| circle.put(tx, &domain))
            })
            .await?;
        }
        Ok(ids)
    }

    /// Keeps a user and exactly these groups of it.
    pub(super) async fn keep_person(&self, domain: &str, person: &Person, circles: &[Circle]) -> Result<UserId> {
        let groups = self.keep_circles(domain, circles).await?;
        let user = self.keep_people(domain, std::slice::from_ref(person)).await?.pop();
        let user = user.ok_or_else(|| Fault::conflict("Another user has the id of this user of a directory."))?;
        let wanted = groups.iter().map(|group| (user.clone(), group.clone())).collect();
        self.keep_memberships("user", &user, wanted).await?;
        self.directories.mark(&user, self.env.now(), true);
        Ok(user)
    }

    /// Keeps exactly these members of a group.
    pub(super) async fn keep_members(&self, group: &GroupId, users: &[UserId]) -> Result<()> {
        let wanted = users.iter().map(|user| (user.clone(), group.clone())).collect();
        self.keep_memberships("group", group, wanted).await
    }

    async fn keep_memberships(&self, index: &'static str, of: &str, wanted: BTreeSet<(UserId, GroupId)>) -> Result<()> {
        let known: BTreeSet<(UserId, GroupId)> = {
            let model = self.present();
            // What an identity provider has lent is no word of the directory's.
            let own = model.memberships.find(index, of).filter(|member| member.lent.is_none());
            own.map(|member| (member.user_id.clone(), member.group_id.clone())).collect()
        };
        let over = known.difference(&wanted).map(|pair| (pair.clone(), false));
        let new = wanted.difference(&known).map(|pair| (pair.clone(), true));
        let changes: Vec<((UserId, GroupId), bool)> = over.chain(new).collect();
        for some in changes.chunks(AT_ONCE) {
            let some = some.to_vec();
            self.keep(move |tx| {
                for ((user, group), is_member) in &some {
                    let id = Membership::id_of(user, group);
                    if *is_member && tx.get::<User>(user)?.is_some() && tx.get::<Group>(group)?.is_some() {
                        tx.put(&Membership { id, user_id: user.clone(), group_id: group.clone(), lent: None })?;
                    } else if !is_member && tx.get::<Membership>(&id)?.is_some_and(|member| member.lent.is_none()) {
                        tx.delete::<Membership>(&id)?;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The directory no longer has the user.
    pub(super) async fn keep_user_gone(&self, id: &UserId) -> Result<()> {
        if self.present().users.get(id).is_none_or(|user| user.directory.as_ref().is_none_or(|of| of.gone)) {
            return Ok(());
        }
        let id = id.clone();
        self.keep(move |tx| {
            let Some(user) = tx.get::<User>(&id)?.map(|stored| stored.doc) else { return Ok(()) };
            for member in tx.list::<Membership>(Query::index("user", id.as_str()))? {
                tx.delete::<Membership>(&member.id)?;
            }
            let directory = user.directory.clone().map(|of| OfDirectory { gone: true, ..of });
            Ok(tx.update(&User { directory, ..user }).map(drop)?)
        })
        .await
    }

    /// The directory no longer has the group.
    pub(super) async fn keep_group_gone(&self, id: &GroupId) -> Result<()> {
        if self.present().groups.get(id).is_none_or(|group| group.directory.as_ref().is_none_or(|of| of.gone)) {
            return Ok(());
        }
        let id = id.clone();
        self.keep(move |tx| {
            let Some(group) = tx.get::<Group>(&id)?.map(|stored| stored.doc) else { return Ok(()) };
            for member in tx.list::<Membership>(Query::index("group", id.as_str()))? {
                tx.delete::<Membership>(&member.id)?;
            }
            let directory = group.directory.clone().map(|of| OfDirectory { gone: true, ..of });
            Ok(tx.update(&Group { directory, ..group }).map(drop)?)
        })
        .await
    }
}
