//! What is asked of passwords and logins: Keystone's `[security_compliance]`. Everything is off unless it is set.
//!
//! Failed logins are counted in documents of their own, without history: a flood of them must neither fill it nor empty
//! the cache of verified tokens. They are counted outside of the request's scope, so that a dry run is no way to guess.

use crate::Identity;
use crate::documents::*;
use base::{Fault, Result, Timestamp};
use regex_automata::nfa::thompson::{self, pikevm::PikeVM};
use store::{Query, Tx};

const DAY_S: i64 = 86_400;
/// The most remembered passwords: each costs a hash when a user chooses a new one.
const REMEMBERED: usize = 24;
/// The largest automaton that a pattern may become.
const PATTERN_BYTES: usize = 1 << 20;

/// The settings, under Keystone's names.
#[derive(Clone, Debug)]
pub struct Compliance {
    /// A user with this many failed logins in a row is locked; none: never.
    pub lockout_failure_attempts: Option<u32>,
    /// How long a locked user stays so, in seconds.
    pub lockout_duration_s: i64,
    /// How many of a user's last passwords, the present one included, the user may not choose again; at most 24.
    pub unique_last_password_count: usize,
    /// How many days a password must have been used before its user may change it.
    pub minimum_password_age_days: i64,
    /// How many days a password is good for; none: for ever.
    pub password_expires_days: Option<i64>,
    /// What a password must match, from its first character on. May begin with conditions of the form `(?=…)`.
    pub password_regex: Option<String>,
    /// The same for people.
    pub password_regex_description: Option<String>,
    /// A password that somebody else has set must be changed by the user before it is good for anything.
    pub change_password_upon_first_use: bool,
}

impl Default for Compliance {
    fn default() -> Self {
        Compliance {
            lockout_failure_attempts: None,
            lockout_duration_s: 1800,
            unique_last_password_count: 0,
            minimum_password_age_days: 0,
            password_expires_days: None,
            password_regex: None,
            password_regex_description: None,
            change_password_upon_first_use: false,
        }
    }
}

/// Who sets a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    User,
    Other,
}

impl Compliance {
    /// Invalid where the settings mean nothing: the program must not start with a rule that it cannot keep.
    pub fn check(&self) -> Result<()> {
        if self.unique_last_password_count > REMEMBERED {
            return Err(Fault::invalid(format!("unique_last_password_count: at most {REMEMBERED} are remembered.")));
        }
        self.patterns().map(drop)
    }

    /// The pattern's conditions, and what follows them, each to match at the beginning.
    fn patterns(&self) -> Result<Vec<PikeVM>> {
        let Some(pattern) = &self.password_regex else { return Ok(Vec::new()) };
        let mut parts = Vec::new();
        let mut rest = pattern.strip_prefix('^').unwrap_or(pattern);
        while let Some(condition) = rest.strip_prefix("(?=") {
            let end = closing(condition)
                .ok_or_else(|| Fault::invalid(format!("password_regex: '{pattern}' has a condition without end.")))?;
            parts.push(&condition[..end]);
            rest = &condition[end + 1..];
        }
        parts.push(rest);
        let compile = |part: &&str| {
            let config = thompson::Config::new().nfa_size_limit(Some(PATTERN_BYTES));
            let built = PikeVM::builder().thompson(config).build(&format!("^(?:{part})"));
            built.map_err(|error| Fault::invalid(format!("password_regex: '{pattern}' cannot be read: {error}.")))
        };
        parts.iter().map(compile).collect()
    }

    /// A password looks as it must.
    pub(crate) fn fits(&self, password: &str) -> Result<()> {
        if self.patterns()?.iter().all(|pattern| pattern.is_match(&mut pattern.create_cache(), password)) {
            return Ok(());
        }
        let why = self.password_regex_description.as_deref().unwrap_or("it does not match the pattern of this cloud");
        Err(Fault::invalid(format!("The password does not meet the requirements: {why}.")))
    }

    /// The user has had the password long enough to change it.
    pub(crate) fn old_enough(&self, user: &User, now: Timestamp) -> Result<()> {
        let until = user.password_changed.map(|at| at.plus_s(self.minimum_password_age_days.saturating_mul(DAY_S)));
        match until.filter(|until| self.minimum_password_age_days > 0 && now < *until) {
            // Who must change it can.
            Some(_) if user.password_end().is_some_and(|end| end <= now) => Ok(()),
            Some(until) => Err(Fault::invalid(format!(
                "Cannot change the password before {}: it must be used for {} days first.",
                until.iso_naive(),
                self.minimum_password_age_days
            ))),
            None => Ok(()),
        }
    }

    /// Gives a user another password, or none.
    pub(crate) fn set(&self, user: &mut User, hash: Option<String>, now: Timestamp, by: By) {
        if let Some(before) = std::mem::replace(&mut user.password, hash) {
            user.password_history.insert(0, before);
        }
        user.password_history.truncate(self.unique_last_password_count.saturating_sub(1));
        user.password_changed = Some(now);
        let must = self.change_password_upon_first_use && by == By::Other;
        user.password_expires_at = if must && !user.option("ignore_change_password_upon_first_use") {
            Some(now)
        } else {
            self.password_expires_days.map(|days| now.plus_s(days.saturating_mul(DAY_S)))
        };
    }
}

/// Where the group ends that has been opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut class, mut escaped) = (0, false, false);
    for (at, next) in text.char_indices() {
        match next {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            '(' if !class => depth += 1,
            ')' if !class && depth == 0 => return Some(at),
            ')' if !class => depth -= 1,
            _ => {}
        }
    }
    None
}

impl Identity {
    /// The user with all that is kept of it, if the password is right and the user is not locked out. Takes as long
    /// whether there is such a user or not.
    pub(crate) async fn logged_in(&self, user: Option<&str>, password: String) -> Result<Option<User>> {
        let known = match user {
            Some(id) => self.store.get::<User>(id).await?.map(|stored| stored.doc),
            None => None,
        };
        let most = self.options.compliance.lockout_failure_attempts;
        let counted = known.as_ref().filter(|user| !user.option("ignore_lockout_failure_attempts"));
        let counted = most.zip(counted.map(|user| user.id.to_string()));
        let locked = match &counted {
            Some((most, id)) => self.locked(id, *most).await?,
            None => false,
        };
        let hash = known.as_ref().filter(|_| !locked).and_then(|user| user.password.clone());
        let holds = self.passwords.verify(password, hash).await?;
        let Some((most, id)) = counted.filter(|_| !locked) else { return Ok(known.filter(|_| holds)) };
        // Of many guesses at the same time no more may count than of those one after another.
        let holds = holds && !self.locked(&id, most).await?;
        self.note_login(id, holds, most).await?;
        Ok(known.filter(|_| holds))
    }

    /// The user, if a proof other than a password holds and the user is not locked out; the failure counts if not.
    pub(crate) async fn counted_login(&self, user: Option<&str>, holds: bool) -> Result<Option<User>> {
        let Some(user) = user else { return Ok(None) };
        let Some(known) = self.store.get::<User>(user).await?.map(|stored| stored.doc) else { return Ok(None) };
        let most = self.options.compliance.lockout_failure_attempts;
        let Some(most) = most.filter(|_| !known.option("ignore_lockout_failure_attempts")) else {
            return Ok(Some(known).filter(|_| holds));
        };
        if self.locked(user, most).await? {
            return Ok(None);
        }
        self.note_login(user.to_owned(), holds, most).await?;
        Ok(Some(known).filter(|_| holds))
    }

    async fn locked(&self, id: &str, most: u32) -> Result<bool> {
        let (now, lasts) = (self.env.now(), self.options.compliance.lockout_duration_s);
        let failed = self.store.get::<FailedLogins>(id).await?;
        Ok(failed.is_some_and(|failed| failed.count >= most && now < failed.last.plus_s(lasts)))
    }

    async fn note_login(&self, id: String, holds: bool, most: u32) -> Result<()> {
        if holds && self.store.get::<FailedLogins>(&id).await?.is_none() {
            return Ok(());
        }
        let lasts = self.options.compliance.lockout_duration_s;
        let work = move |tx: &mut Tx| {
            let known = tx.get::<FailedLogins>(&id)?.map(|stored| stored.doc);
            if holds {
                return Ok(known.map(|known| tx.delete::<FailedLogins>(&known.id)).transpose().map(drop)?);
            }
            let now = tx.now();
            let over = |known: &FailedLogins| known.count >= most && known.last.plus_s(lasts) <= now;
            let count = known.filter(|known| !over(known)).map_or(0, |known| known.count);
            Ok(tx.put(&FailedLogins { id: id.clone(), count: count.saturating_add(1), last: now }).map(drop)?)
        };
        let cause = store::Cause::new("nubo", "", "login.counted");
        store::scope::run(store::Scope::default(), self.store.write(cause, work)).await.map(drop)
    }

    /// The failures of users that are gone.
    pub(crate) async fn failures_of_nobody(&self) -> Result<Vec<String>> {
        let all = self.store.list::<FailedLogins>(Query::all()).await?;
        let model = self.model();
        Ok(all.iter().filter(|failed| model.users.get(&failed.id).is_none()).map(|failed| failed.id.clone()).collect())
    }

    /// Refuses a password that the user has, or has had lately.
    pub(crate) async fn never_had(&self, user: &User, wanted: String) -> Result<()> {
        let count = self.options.compliance.unique_last_password_count;
        for hash in user.password.iter().chain(&user.password_history).take(count) {
            if self.passwords.verify(wanted.clone(), Some(hash.clone())).await? {
                return Err(Fault::invalid(format!(
                    "The new password cannot be identical to a previous one: it must differ from the last {count}."
                )));
            }
        }
        Ok(())
    }
}
