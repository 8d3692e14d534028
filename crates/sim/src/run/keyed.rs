//! The same request twice with one `Idempotency-Key`: it is done once, and answered alike, also over a crash.

use super::{History, KEYED, brief};
use crate::check::Broken;
use crate::client::{Actor, Answer, Ask, Tokens, send};
use crate::dice::Dice;
use crate::promises;
use crate::world::World;
use http::Method;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// What the second sending brought.
pub(super) struct Again {
    answer: Option<Answer>,
    together: bool,
}

/// How a request is sent again.
#[derive(Clone, Copy)]
pub(super) enum Twice {
    Together,
    After(Duration),
}

/// Gives some requests a key, and what they make a name of its own.
pub(super) fn twice(dice: &Dice, ask: &mut Ask, step: u64) -> Option<Twice> {
    let stream = ask.headers.iter().any(|(name, value)| *name == "content-type" && value.contains("octet-stream"));
    if ask.method != Method::POST || ask.is_dry() || stream || !dice.chance(12) {
        return None;
    }
    ask.headers.push(("idempotency-key", format!("00000000-0000-4000-9000-{step:012x}")));
    if let Ok(mut body) = serde_json::from_slice::<Value>(&ask.body) {
        let object = match body.as_object_mut() {
            Some(outer) if outer.len() == 1 => outer.values_mut().next(),
            Some(_) => Some(&mut body),
            None => None,
        };
        if let Some(name) = object.and_then(|object| object.get_mut("name")).filter(|name| name.is_string()) {
            *name = name_of(step).into();
            ask.body = body.to_string().into_bytes();
        }
    }
    let after = Duration::from_millis(dice.of([0, 0, 20, 2_000]));
    Some(if dice.chance(25) { Twice::Together } else { Twice::After(after) })
}

fn name_of(step: u64) -> String {
    format!("keyed-{step}")
}

pub(super) async fn send_twice(
    world: &World,
    tokens: &Tokens,
    actors: &[Actor],
    ask: &Ask,
    twice: Option<Twice>,
) -> (Option<Answer>, Option<Again>) {
    let once = || send(world, tokens, actors, ask);
    match twice {
        None => (once().await, None),
        Some(Twice::Together) => {
            let (one, other) = tokio::join!(once(), once());
            (one, Some(Again { answer: other, together: true }))
        }
        Some(Twice::After(time)) => {
            let answer = once().await;
            tokio::time::sleep(time).await;
            world.up().await;
            (answer, Some(Again { answer: once().await, together: false }))
        }
    }
}

impl History<'_> {
    /// Returns the answer that counts for both; none where nobody knows whether it was done.
    pub(super) fn compare_keyed(
        &mut self,
        ask: &Ask,
        first: Option<Answer>,
        again: Again,
        step: u64,
        began: Instant,
    ) -> Result<Option<Answer>, Broken> {
        self.tally.operations.entry(KEYED.to_owned()).or_default().0 += 1;
        self.once_made(ask, step)?;
        let (second, together) = (again.answer, again.together);
        if let Some(second) = &second {
            self.world.say(format!("#{step} again {} {}", second.status, brief(&second.body)));
        }
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            // Who was refused the second time may have been heard the first.
            (first, second) => return Ok(first.or(second.filter(Answer::is_ok))),
        };
        let same = first.status == second.status && first.body == second.body;
        if first.is_ok() && second.is_ok() {
            self.tally.operations.entry(KEYED.to_owned()).or_default().1 += 1;
            // What wrote nothing is done again where its answer could not be kept.
            let idle = !first.replayed && !second.replayed && self.world.was_troubled(began);
            if !same || first.replayed == second.replayed && !idle {
                let what = format!("{} {}: {} and {}", ask.path, brief(&ask.body), told(&first), told(&second));
                return Err(Broken::new("one key has one answer", what));
            }
        } else if first.is_ok() && !together && second.status < 500 && !self.world.was_troubled(began) {
            let what = format!("{} {}: {} and {}", ask.path, brief(&ask.body), told(&first), told(&second));
            return Err(Broken::new("one key has one answer", what));
        }
        Ok(Some(if first.is_ok() {
            first
        } else if second.is_ok() {
            second
        } else {
            first
        }))
    }

    /// Whatever was answered: at most one object was made.
    fn once_made(&mut self, ask: &Ask, step: u64) -> Result<(), Broken> {
        self.refresh()?;
        let class = ask.path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let many = String::from_utf8_lossy(&ask.body).contains("_count");
        let Some(kind) = promises::kind_of(class).filter(|_| !many) else { return Ok(()) };
        let name = name_of(step);
        let made = self.mirror.all(kind).filter(|(_, document)| document["name"] == name.as_str()).count();
        match made {
            0 | 1 => Ok(()),
            _ => Err(Broken::new("one key makes one object", format!("{made} of {kind} are called {name}"))),
        }
    }
}

fn told(answer: &Answer) -> String {
    let replayed = if answer.replayed { "replayed " } else { "" };
    format!("{replayed}{} {}", answer.status, brief(&answer.body))
}
