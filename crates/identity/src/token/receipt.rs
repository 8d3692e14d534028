//! Receipts: a user whose rules ask for several factors, and who has shown some of them, gets one with the refusal, and
//! shows it with the next. It is sealed as a token is, says which methods have been used, and lasts five minutes.

use super::methods::Methods;
use super::payload::Receipt;
use super::verify::refused;
use super::{fernet, issue};
use crate::Identity;
use crate::documents::User;
use crate::model::Model;
use base::{Fault, Result, Timestamp, UserId};
use rest::{Call, HeaderName, Reply};
use serde_json::{Value, json};
use std::sync::Arc;

/// How long a user has to show what is missing.
const LASTS_S: i64 = 300;
const HEADER: HeaderName = HeaderName::from_static("openstack-auth-receipt");

/// A new receipt.
pub(crate) struct Issued {
    text: String,
    receipt: Receipt,
    issued: Timestamp,
    user: Arc<User>,
    domain: String,
    required: Value,
}

/// The rules of a user that mean something: without the methods that no login here takes, as in Keystone, which would
/// rather let a user in than lock everybody out whose method was switched off.
fn rules(user: &User) -> Vec<Methods> {
    let off = user.options.get("multi_factor_auth_enabled").and_then(Value::as_bool) == Some(false);
    let rules = user.options.get("multi_factor_auth_rules").and_then(Value::as_array).filter(|_| !off);
    let names = |rule: &Value| {
        let names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.fold(Methods::default(), |all, name| all.with(Methods::named(name).and(Methods::LOGIN)))
    };
    rules.into_iter().flatten().map(names).filter(|rule| *rule != Methods::default()).collect()
}

/// The methods satisfy one of the user's rules, or there are none.
pub(crate) fn suffices(model: &Model, user: &UserId, methods: Methods) -> bool {
    let rules = model.users.get(user).map_or_else(Vec::new, |user| rules(user));
    rules.is_empty() || rules.iter().any(|rule| methods.contains(*rule))
}

impl Identity {
    /// The methods of a receipt that holds and is this user's.
    pub(crate) fn receipt(&self, text: &str, user: &UserId) -> Result<Methods> {
        let opened = {
            let keys = &self.model().keys;
            fernet::open(&keys.keys, text).and_then(|(bytes, _)| Receipt::unpack(&bytes, keys.methods))
        };
        let receipt = opened.filter(|receipt| receipt.user == *user && self.env.now() < receipt.expires);
        receipt.map(|receipt| receipt.methods).ok_or_else(|| refused("the receipt does not hold, or is another user's"))
    }

    pub(crate) fn make_receipt(&self, user: UserId, methods: Methods) -> Result<Issued> {
        let now = self.env.now();
        let model = self.model();
        let known = model.active_user(&user).cloned();
        let known = known.ok_or_else(|| refused("the user is gone or disabled"))?;
        let domain = model.domain(&known.domain_id).filter(|domain| domain.enabled);
        let domain = domain.ok_or_else(|| refused("the user's domain is disabled"))?.name.clone();
        let key = model.keys.keys.first().ok_or_else(|| Fault::bug("there are no keys for receipts"))?;
        let mut iv = [0u8; 16];
        self.env.random.fill(&mut iv);
        let receipt = Receipt { user, methods, expires: issue::whole(now.plus_s(LASTS_S)) };
        let text = key.encrypt(&receipt.pack(model.keys.methods), (now.micros() / 1_000_000) as u64, iv);
        let required = rules(&known).into_iter().map(Methods::names).collect();
        Ok(Issued { text, receipt, issued: issue::whole(now), user: known, domain, required })
    }
}

impl Issued {
    /// 401, as Keystone has it: with what has been shown and what would do.
    pub(crate) fn reply(&self, call: &Call) -> Result<Reply> {
        let domain = json!({"id": self.user.domain_id, "name": self.domain});
        let body = json!({
            "receipt": {
                "methods": self.receipt.methods.names(),
                "user": {"id": self.user.id, "name": self.user.name, "domain": domain},
                "expires_at": self.receipt.expires.iso_micros(),
                "issued_at": self.issued.iso_micros(),
            },
            "required_auth_methods": self.required,
        });
        Ok(call.reply(401, &body)?.header(HEADER, &self.text))
    }
}
