//! Logging in with a password that only a directory knows: the user is looked for, then the directory is asked to take
//! the password of its entry.

use crate::Identity;
use crate::login_limit::Subject;
use crate::model::{Model, named};
use crate::token::issue::{self, Proof};
use crate::token::methods::Methods;
use crate::token::request::UserReference;
use crate::token::verify::refused;
use base::{Result, UserId};

/// Who is asked for at a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    domain: String,
    who: Who,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Named(String),
    /// By the id in the directory, which is known here.
    Local(String),
}

impl Who {
    fn text(&self) -> &str {
        let (Who::Named(text) | Who::Local(text)) = self;
        text
    }
}

impl Asked {
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What stands for the user where failed logins are counted.
    pub fn subject(&self) -> String {
        match &self.who {
            Who::Named(name) => format!("{}/{}", self.domain, name.to_lowercase()),
            Who::Local(id) => format!("{}//{id}", self.domain),
        }
    }
}

/// The user of a directory that a login is about; none where it is about somebody who is known here. Who was made here
/// before there was a directory comes first by name, so that nobody locks himself out with a wrong option.
pub(crate) fn asked_for(model: &Model, reference: &UserReference) -> Result<Option<Asked>> {
    let asked = |domain: &str, who| model.has_directory(domain).then(|| Asked { domain: domain.to_owned(), who });
    match (&reference.id, &reference.name, &reference.domain) {
        (Some(id), ..) => Ok(model.users.get(id).and_then(|user| {
            let of = user.directory.as_ref()?;
            asked(&user.domain_id, Who::Local(of.local_id.clone()))
        })),
        (None, Some(name), Some(domain)) => {
            let Some(domain) = issue::find_domain(model, domain)? else { return Ok(None) };
            if model.users.one("name", &named(&domain.id, name)).is_some() {
                return Ok(None);
            }
            Ok(asked(&domain.id, Who::Named(name.clone())))
        }
        _ => Ok(None),
    }
}

impl Identity {
    /// Unauthenticated where the directory does not take the password. Unavailable where it says nothing.
    pub(crate) async fn by_directory(&self, asked: &Asked, password: &str) -> Result<Proof> {
        let domain = asked.domain.as_str();
        if !self.present().domain(domain).is_some_and(|domain| domain.enabled) {
            return Err(refused("the domain is disabled"));
        }
        // A login without a password is a login of nobody, which nearly every directory takes.
        if password.is_empty() || password.len() > crate::password::PASSWORD_BYTES {
            return Err(refused("the password is empty or too long"));
        }
        Ok(Proof {
            methods: Methods::PASSWORD,
            ..Proof::of(self.taken_by_directory(domain, &asked.who, password).await?)
        })
    }

    async fn taken_by_directory(&self, domain: &str, who: &Who, password: &str) -> Result<UserId> {
        let mut asking = self.asking(domain, super::LOOK).await?;
        let (person, lookups) = match who {
            Who::Named(name) => (asking.person_named(name).await?, 2),
            Who::Local(id) => (asking.person(id).await?, 1),
        };
        let is_there = person.as_ref().is_some_and(|person| person.enabled);
        let (person, circles) = match person {
            Some(person) => {
                let circles = asking.circles_of(&person).await?;
                (person, circles)
            }
            None => (asking.nobody(who.text()), Vec::new()),
        };
        // Whoever is not there, may not log in or has no groups takes as many questions as the others: nobody learns
        // names by time.
        asking.ask_as_often(lookups).await?;
        // A directory finds a name however it is spelled: what is counted is whom it finds. By id it is counted already.
        let subject = super::public_id(domain, "user", &person.local_id);
        let counted = matches!(who, Who::Named(_)).then_some(Subject::User(&subject));
        let place = self.login_limit.take(&self.options.login_limit, counted.as_slice(), self.env.now())?;
        // From here on the connection is the user's own.
        let taken = asking.bind(&person.dn, password).await.map(|taken| taken && is_there);
        if !matches!(taken, Ok(false)) {
            self.login_limit.give_back(place);
        }
        let taken = taken?;
        asking.close().await;
        if !taken {
            return Err(refused("the directory has no such user, or a disabled one, or does not take the password"));
        }
        self.keep_person(domain, &person, &circles).await
    }
}
