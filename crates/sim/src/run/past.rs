//! What is said of the past is what was seen then.

use super::{History, PAST, brief};
use crate::calls::ADMIN;
use crate::check::{Broken, Held};
use crate::client::{Ask, send};
use crate::dice::Dice;
use serde_json::Value;

/// The most looks that are remembered.
const MOST: usize = 6;

/// Lists that are wholly written down.
const LISTS: [&str; 12] = [
    "/compute/v2.1/servers/detail?all_tenants=1",
    "/compute/v2.1/servers?all_tenants=1",
    "/compute/v2.1/flavors/detail",
    "/network/v2.0/networks",
    "/network/v2.0/subnets",
    "/network/v2.0/ports",
    "/network/v2.0/routers",
    "/network/v2.0/floatingips",
    "/network/v2.0/security-groups",
    "/image/v2/images?limit=100",
    "/identity/v3/users",
    "/identity/v3/projects",
];

/// Not written down: whether a host was alive, and secrets. Links say when, themselves.
const NOT_KEPT: &[&str] = &["host_status", "OS-EXT-SRV-ATTR:user_data", "links", "next", "first"];

/// What a list said at a revision.
pub(super) struct Seen {
    actor: usize,
    path: &'static str,
    rev: i64,
    json: Value,
}

/// Takes keys out, at any depth.
pub(super) fn without(mut value: Value, keys: &[&str]) -> Value {
    fn strip(value: &mut Value, keys: &[&str]) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| !keys.contains(&key.as_str()));
                map.values_mut().for_each(|value| strip(value, keys));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| strip(item, keys)),
            _ => {}
        }
    }
    strip(&mut value, keys);
    value
}

/// What is not up: a deadline that passes changes no document, so that a revision knows the state before it.
const NOT_UP: &[&str] = &["DOWN", "BUILD", "ALLOCATING", "ERROR"];

/// Takes apart only what is up and what is not, of what has its state from the time.
fn same_states(path: &str, mut value: Value) -> Value {
    fn level(value: &mut Value) {
        match value {
            Value::Object(map) => {
                if let Some(status) = map.get_mut("status").filter(|it| NOT_UP.iter().any(|state| *it == state)) {
                    *status = NOT_UP.join(" or ").into();
                }
                map.values_mut().for_each(level);
            }
            Value::Array(items) => items.iter_mut().for_each(level),
            _ => {}
        }
    }
    if path.starts_with("/network/") {
        level(&mut value);
    }
    value
}

/// Where two values differ first.
pub(super) fn difference(at: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let missing =
                left.keys().chain(right.keys()).find(|key| !left.contains_key(*key) || !right.contains_key(*key));
            match missing {
                Some(key) => Some(format!("{at}/{key}: {} and {}", one[key], other[key])),
                None => left.iter().find_map(|(key, value)| difference(&format!("{at}/{key}"), value, &right[key])),
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(n, (left, right))| difference(&format!("{at}/{n}"), left, right))
        }
        _ if one == other => None,
        _ => Some(format!("{at}: {} and {}", brief(one.to_string().as_bytes()), brief(other.to_string().as_bytes()))),
    }
}

impl History<'_> {
    /// Looks at a list of now, to come back to it later.
    pub(super) async fn see(&mut self, dice: &Dice) -> Held {
        let (path, actor) = (dice.of(LISTS), dice.of([ADMIN, ADMIN, 1]));
        self.drain().await?;
        self.refresh()?;
        let rev = self.mirror.rev();
        self.world.up().await;
        let answer = send(&self.world, &self.tokens, &self.template.actors, &Ask::look(actor, path)).await;
        self.refresh()?;
        let Some(answer) = answer.filter(|answer| answer.status == 200) else { return Ok(()) };
        if self.mirror.rev() == rev {
            self.seen.truncate(MOST - 1);
            self.seen.insert(0, Seen { actor, path, rev, json: answer.json });
        }
        Ok(())
    }

    /// Comes back to a list of then.
    pub(super) async fn see_again(&mut self, dice: &Dice) -> Held {
        if self.seen.is_empty() {
            return self.see(dice).await;
        }
        let at = dice.below(self.seen.len() as u64) as usize;
        self.compare_past(at).await
    }

    pub(super) async fn compare_past(&mut self, at: usize) -> Held {
        let Seen { actor, path, rev, json } = self.seen.remove(at);
        self.tally.operations.entry(PAST.to_owned()).or_default().0 += 1;
        let mark = if path.contains('?') { '&' } else { '?' };
        let ask = Ask::look(actor, format!("{path}{mark}as_of=rev:{rev}"));
        self.world.up().await;
        let Some(answer) = send(&self.world, &self.tokens, &self.template.actors, &ask).await else { return Ok(()) };
        self.world.say(format!("look {} {}", ask.path, answer.status));
        let broken = |what: String| Err(Broken::new("the past is as it was seen", format!("{}: {what}", ask.path)));
        match answer.status {
            200 => {
                self.tally.operations.entry(PAST.to_owned()).or_default().1 += 1;
                let kept = |value| same_states(path, without(value, NOT_KEPT));
                let (then, now) = (kept(json), kept(answer.json));
                difference("", &then, &now).map_or(Ok(()), broken)
            }
            500.. => Ok(()),
            status => broken(format!("{status} {}", brief(&answer.body))),
        }
    }
}
