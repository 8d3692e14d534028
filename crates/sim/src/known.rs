//! What clients have heard of: ids by class, where a class is the word in the path before an id.

use crate::dice::Dice;
use serde_json::Value;
use std::collections::BTreeMap;

/// The most things of a class that are remembered.
const MOST: usize = 60;

/// The same of things of which only the latest are.
const RECENT: usize = 8;

#[derive(Clone, Debug)]
pub struct Thing {
    pub id: String,
    /// Who made it, where that is known.
    pub actor: Option<usize>,
    /// Needed for the history to go on: never changed or deleted.
    pub fixed: bool,
    pub value: Value,
}

#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<String, Vec<Thing>>);

impl Known {
    pub fn learn(&mut self, class: &str, value: &Value, actor: Option<usize>, fixed: bool) {
        let id = ["id", "access", "request_id", "name"].iter().find_map(|key| value[*key].as_str());
        let number = value["id"].as_i64().map(|id| id.to_string());
        let Some(id) = number.or_else(|| id.map(str::to_owned)) else { return };
        let things = self.0.entry(class.to_owned()).or_default();
        let room = things.len() < MOST;
        match things.iter_mut().find(|thing| thing.id == id) {
            Some(thing) => {
                thing.fixed |= fixed;
                thing.actor = actor.or(thing.actor);
                if value.as_object().map_or(0, serde_json::Map::len) > 2 {
                    thing.value = value.clone();
                }
            }
            None if room => things.push(Thing { id, actor, fixed, value: value.clone() }),
            None => {}
        }
    }

    /// Takes in whatever an answer names. `class` is that of the path's collection.
    pub fn hear(&mut self, class: &str, json: &Value, actor: Option<usize>, fixed: bool) {
        let Some(object) = json.as_object() else { return };
        if object.contains_key("id") {
            self.learn(class, json, actor, fixed);
            return;
        }
        for value in object.values() {
            match value {
                Value::Array(items) => {
                    for item in items.iter().take(MOST) {
                        // Key pairs are wrapped once more.
                        self.learn(class, item.get("keypair").unwrap_or(item), None, fixed);
                    }
                }
                Value::Object(_) => self.learn(class, value, actor, fixed),
                _ => {}
            }
        }
    }

    /// Takes in what is only of use while it is fresh.
    pub fn learn_recent(&mut self, class: &str, value: &Value, actor: usize) {
        self.learn(class, value, Some(actor), false);
        if let Some(things) = self.0.get_mut(class).filter(|things| things.len() > RECENT) {
            things.remove(0);
        }
    }

    pub fn forget(&mut self, class: &str, id: &str) {
        if let Some(things) = self.0.get_mut(class) {
            things.retain(|thing| thing.id != id || thing.fixed);
        }
    }

    pub fn fix_all(&mut self) {
        self.0.values_mut().flatten().for_each(|thing| thing.fixed = true);
    }

    pub fn all(&self, class: &str) -> &[Thing] {
        self.0.get(class).map_or(&[], Vec::as_slice)
    }

    /// A thing that the actor made, or another one; with `harm` none that is needed.
    pub fn pick(&self, dice: &Dice, class: &str, actor: usize, harm: bool) -> Option<&Thing> {
        let able = self.all(class).iter().filter(|thing| !harm || !thing.fixed);
        let (own, all): (Vec<&Thing>, Vec<&Thing>) =
            (able.clone().filter(|thing| thing.actor == Some(actor)).collect(), able.collect());
        let from = if !own.is_empty() && dice.chance(93) { own } else { all };
        dice.pick(&from).copied()
    }
}
