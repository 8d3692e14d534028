//! What was seen of a directory, kept as documents: written when it differs from what is kept, and never deleted.
//!
//! This is no request's own change but what the world is like, so it is written whatever the request's scope is, as the
//! users of identity providers are.

use super::entry::{Circle, Person, public_id};
use crate::Identity;
use crate::documents::*;
use crate::model::{Model, Row, Table, named};
use base::{Fault, GroupId, Result, UserId};
use serde_json::Value;
use std::collections::BTreeSet;
use store::{Document, Query, Tx};

/// How many things are written at once: others wait for the writer, too.
const AT_ONCE: usize = 200;

/// A user or a group, as a directory has it.
pub(super) trait Seen: Clone + Send + Sync + 'static {
    type Kept: Document + Row + PartialEq;
    type Id: Clone + From<String> + AsRef<str> + Send;
    const KIND: &'static str;

    fn local_id(&self) -> &str;
    fn all(model: &Model) -> &Table<Self::Kept>;
    /// What is kept of it.
    fn document(&self, id: Self::Id, domain: &str) -> Self::Kept;

    fn put(&self, tx: &mut Tx, domain: &str) -> Result<()> {
        if let Some(known) = tx.get_unique::<Self::Kept>("directory", [domain, self.local_id()])? {
            let id = known.doc.id().to_owned().into();
            return Ok(tx.update(&self.document(id, domain)).map(drop)?);
        }
        let id = Self::Id::from(public_id(domain, Self::KIND, self.local_id()));
        // A user of an identity provider may have the id: it is no one's but that one's.
        if tx.get::<Self::Kept>(id.as_ref())?.is_none() {
            tx.create(&self.document(id, domain))?;
        }
        Ok(())
    }
}

impl Seen for Person {
    type Kept = User;
    type Id = UserId;
    const KIND: &'static str = "user";

    fn local_id(&self) -> &str {
        &self.local_id
    }

    fn all(model: &Model) -> &Table<User> {
        &model.users
    }

    fn document(&self, id: UserId, domain: &str) -> User {
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
}

impl Seen for Circle {
    type Kept = Group;
    type Id = GroupId;
    const KIND: &'static str = "group";

    fn local_id(&self) -> &str {
        &self.local_id
    }

    fn all(model: &Model) -> &Table<Group> {
        &model.groups
    }

    fn document(&self, id: GroupId, domain: &str) -> Group {
        Group {
            id,
            name: self.name.clone(),
            domain_id: domain.into(),
            description: self.description.clone().map_or_else(|| Value::from(""), Value::from),
            extra: self.extra.clone(),
            directory: Some(OfDirectory { local_id: self.local_id.clone(), gone: false }),
        }
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

    /// Keeps users or groups; their ids, in the same order, without those whose id is somebody's of elsewhere.
    pub(super) async fn keep_seen<S: Seen>(&self, domain: &str, seen: &[S]) -> Result<Vec<S::Id>> {
        let (mut ids, mut changed) = (Vec::with_capacity(seen.len()), Vec::new());
        {
            let model = self.present();
            for one in seen {
                let known = S::all(&model).one("directory", &named(domain, one.local_id()));
                let id = known.map(|kept| kept.id().to_owned());
                let id = S::Id::from(id.unwrap_or_else(|| public_id(domain, S::KIND, one.local_id())));
                if known.is_none() && S::all(&model).get(id.as_ref()).is_some() {
                    tracing::warn!(domain, id = id.as_ref(), kind = S::KIND, "the id is another's: it is left out");
                    continue;
                }
                if known.is_none_or(|kept| **kept != one.document(id.clone(), domain)) {
                    changed.push(one.clone());
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
                some.iter().try_for_each(|one| one.put(tx, &domain))
            })
            .await?;
        }
        Ok(ids)
    }

    /// Keeps a user and exactly these groups of it.
    pub(super) async fn keep_person(&self, domain: &str, person: &Person, circles: &[Circle]) -> Result<UserId> {
        let groups = self.keep_seen(domain, circles).await?;
        let user = self.keep_seen(domain, std::slice::from_ref(person)).await?.pop();
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
