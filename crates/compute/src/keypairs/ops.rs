//! List, show, import, generate, delete.

use super::{KeyPair, find, ssh, wire};
use crate::{Ask, Compute, ask, input, quota};
use base::{Fault, KeyPairId, Result, UserId};
use policy::Target;
use rest::{Call, Page, PageRequest, Reply, Version};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Query;

/// Whose key pairs are meant: the caller's own, or (from 2.10 on, for administrators) those of `user_id`.
fn user(ask: &Ask, asked: Option<&str>) -> Result<UserId> {
    let own = ask.caller.user_id();
    let user = match asked.filter(|_| ask.version >= Version(2, 10)) {
        Some(id) => UserId::new(id),
        None => own,
    };
    ask.enforce(&Target::new().with("user_id", user.as_str()))?;
    Ok(user)
}

pub async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.known_query(&["user_id", "limit", "marker"])?;
    let user = user(&ask, ask.query.get("user_id"))?;
    let mut pairs = state.store.list::<KeyPair>(Query::index("user", user.as_str())).await?;
    pairs.sort_by(|a, b| a.name.cmp(&b.name));
    let paged = ask.version >= Version(2, 35);
    let request = if paged {
        PageRequest::read(&ask.query)?
    } else {
        PageRequest { limit: usize::MAX - 1, limited: false, marker: None }
    };
    let page = Page::cut(pairs, &request, |pair| pair.name.as_str())?;
    let mut body = json!({"keypairs": page.items.iter().map(|pair| wire::listed(pair)).collect::<Vec<_>>()});
    if let Some(last) = page.items.last().filter(|_| page.more) {
        body["keypairs_links"] = ask.next_link("/os-keypairs", &last.name);
    }
    ask.answer(wire::CHANGES, 200, body)
}

fn missing(user: &UserId, name: &str) -> Fault {
    Fault::not_found(format!("Keypair {name} not found for user {user}"))
}

pub async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.known_query(&["user_id"])?;
    let user = user(&ask, ask.query.get("user_id"))?;
    let pair = state
        .read(&ask, move |reader, ask| {
            find(reader, &user, ask.param("name"))?.ok_or_else(|| missing(&user, ask.param("name")))
        })
        .await?;
    ask.answer(wire::CHANGES, 200, wire::whole(&pair))
}

pub async fn delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.known_query(&["user_id"])?;
    let user = user(&ask, ask.query.get("user_id"))?;
    state
        .write(&ask, move |tx, ask| {
            let pair = find(tx, &user, ask.param("name"))?.ok_or_else(|| missing(&user, ask.param("name")))?;
            tx.delete::<KeyPair>(&pair.id)?;
            tx.charge(&quota::user_scope(&user), "key_pairs", -1, None)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(if ask.version >= Version(2, 2) { 204 } else { 202 }))
}

struct Wanted {
    name: String,
    public_key: Option<String>,
    user_id: Option<String>,
}

fn parse(body: &Value) -> Result<Wanted> {
    let mut body = input::Fields::body(body)?;
    let mut fields = body.object("keypair")?;
    body.finish()?;
    let name = input::name("name", fields.need("name")?)?;
    let kind = fields.text("type", 1, 255)?;
    let public_key = fields.text_or_null("public_key", 0, 64 << 10)?;
    let user_id = fields.text("user_id", 0, 255)?;
    fields.finish()?;
    match kind.as_deref() {
        None | Some("ssh") => {}
        Some("x509") => {
            return Err(Fault::invalid(
                "Invalid input for field/attribute type. Value: x509. Key pairs of type x509 are not supported by this cloud; import or generate one of type ssh.",
            ));
        }
        Some(other) => {
            return Err(input::refuse("type", &json!(other), format!("'{other}' is not one of ['ssh', 'x509']")));
        }
    }
    let safe = |c: char| c.is_ascii_alphanumeric() || "_- @.".contains(c);
    if !name.chars().all(safe) {
        return Err(Fault::invalid("Keypair data is invalid: Keypair name contains unsafe characters"));
    }
    Ok(Wanted { name, public_key, user_id })
}

pub async fn create(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, wire::CHANGES).await?;
    let wanted = parse(&body)?;
    let user = user(&ask, wanted.user_id.as_deref())?;
    let (public_key, private_key) = match wanted.public_key {
        Some(public_key) => (public_key, None),
        None => {
            let (public, private) = ssh::generate(&state.env, "Generated-by-nubo");
            (public, Some(private))
        }
    };
    let pair = KeyPair {
        id: KeyPairId::new(state.env.uuid()),
        user_id: user,
        name: wanted.name,
        fingerprint: ssh::fingerprint(&public_key)?,
        public_key: public_key.trim().to_owned(),
        number: 0,
    };
    let pair = state
        .write(&ask, move |tx, _| {
            if find(tx, &pair.user_id, &pair.name)?.is_some() {
                return Err(Fault::conflict(format!("Key pair '{}' already exists.", pair.name)));
            }
            let limit = quota::default_limit(tx, "key_pairs")?;
            tx.charge(&quota::user_scope(&pair.user_id), "key_pairs", 1, Some(limit)).map_err(|error| match error {
                store::Error::Quota { .. } => Fault::quota("Quota exceeded, too many key pairs."),
                other => other.into(),
            })?;
            let number = crate::next_number(tx, "key_pair")?;
            Ok(tx.create(&KeyPair { number, ..pair.clone() })?)
        })
        .await?;
    let status = if ask.version >= Version(2, 2) { 201 } else { 200 };
    ask.answer(wire::CHANGES, status, wire::created(&pair, private_key.as_deref()))
}
