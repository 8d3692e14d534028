//! Lending on what was lent: each trust of a chain is narrower than the one before.

use crate::documents::{Place, Trust};
use crate::model::Model;
use base::{Fault, Result, Timestamp, UserId};

/// How many trusts may follow the first of a chain.
const MOST: i64 = 3;

/// What a new trust asks for.
pub(super) struct Asked {
    pub allowed: bool,
    pub count: Option<i64>,
}

/// How often a new trust may be lent on.
pub(super) fn depth(asked: &Asked, remaining_uses: Option<i64>, parent: Option<&Trust>) -> Result<i64> {
    let again = asked.allowed && asked.count != Some(0);
    if again && asked.count.is_some_and(|count| count > MOST) {
        return Err(Fault::forbidden(format!(
            "Requested redelegation depth of {} is greater than allowed {MOST}.",
            asked.count.unwrap_or(0)
        )));
    }
    if again && remaining_uses.is_some() {
        return Err(Fault::invalid("remaining_uses must not be set if redelegation is allowed."));
    }
    let Some(parent) = parent else {
        return Ok(if again { asked.count.unwrap_or(MOST) } else { 0 });
    };
    let left = parent.redelegation_count - 1;
    if !(0..MOST).contains(&left) {
        return Err(Fault::forbidden(format!(
            "Remaining redelegation depth of {} out of allowed range of [0..{MOST}].",
            parent.redelegation_count
        )));
    }
    if again && asked.count.is_some_and(|count| count != left) {
        return Err(Fault::forbidden(
            "Modifying \"redelegation_count\" upon redelegation is forbidden. Omitting this parameter is advised.",
        ));
    }
    Ok(if again { left } else { 0 })
}

/// Forbidden unless the new trust gives no more than its parent. Returns when it ends: no later than that.
pub(super) fn narrower(parent: &Trust, new: &Trust) -> Result<Option<Timestamp>> {
    let forbidden = |why: &str| Err(Fault::forbidden(why.to_owned()));
    if new.remaining_uses.is_some() {
        return forbidden("remaining_uses must not be set in order to redelegate a trust.");
    }
    if let (Some(asked), Some(most)) = (new.expires_at, parent.expires_at)
        && asked > most
    {
        return forbidden("Requested expiration time is more than redelegated trust can provide.");
    }
    if new.project_id != parent.project_id {
        return forbidden("A redelegated trust is for the project of the trust that it comes from.");
    }
    if !new.roles.iter().all(|role| parent.roles.contains(role)) {
        return forbidden("Some of requested roles are not in redelegated trust.");
    }
    if new.impersonation && !parent.impersonation {
        return forbidden("Impersonation is not allowed because redelegated trust does not specify impersonation.");
    }
    Ok(new.expires_at.or(parent.expires_at))
}

/// From a trust to the first of its chain. A chain is at most [`MOST`] + 1 long.
fn ancestors<'a>(model: &'a Model, trust: &'a Trust) -> impl Iterator<Item = &'a Trust> {
    let mut next = trust.redelegated_trust_id.as_deref();
    std::iter::from_fn(move || {
        let parent = model.trusts.get(next?)?;
        next = parent.redelegated_trust_id.as_deref();
        Some(&**parent)
    })
    .take(MOST as usize + 1)
}

/// Whose roles are lent in the end.
pub(crate) fn origin(model: &Model, trust: &Trust) -> UserId {
    ancestors(model, trust).last().unwrap_or(trust).trustor_user_id.clone()
}

/// Everybody who lends by the trust, or by one before it.
pub(crate) fn lenders(model: &Model, trust: &Trust) -> Vec<UserId> {
    std::iter::once(trust).chain(ancestors(model, trust)).map(|trust| trust.trustor_user_id.clone()).collect()
}

/// True if the trust and all before it last, all that have part in it are enabled, and the first trustor still has every
/// role that is lent.
pub(crate) fn chain_holds(model: &Model, trust: &Trust, now: Timestamp) -> bool {
    let enabled = |user: &UserId| {
        let user = model.active_user(user);
        user.is_some_and(|user| model.domain(&user.domain_id).is_some_and(|domain| domain.enabled))
    };
    let whole = |trust: &Trust| trust.lasts(now) && enabled(&trust.trustor_user_id) && enabled(&trust.trustee_user_id);
    let orphaned = trust.redelegated_trust_id.as_deref().is_some_and(|parent| model.trusts.get(parent).is_none());
    if orphaned || !whole(trust) || !ancestors(model, trust).all(whole) {
        return false;
    }
    let Some(project) = &trust.project_id else { return true };
    let held = model.roles_of(&origin(model, trust), &Place::Project(project.clone()));
    let mut lent = trust.roles.iter().map(ToString::to_string).collect();
    crate::assignment::effective::expand(model, &mut lent);
    lent.iter().all(|role| held.contains(role))
}
