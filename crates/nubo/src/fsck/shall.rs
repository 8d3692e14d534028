//! What shall be, as control says it, or the store itself while control is down.

use agent_api::{Desired, DesiredPower, GuestSpec, ViewObject, VolumeSpec};
use anyhow::{Context, Result, bail};
use control::Finding as StoreFinding;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The answer of `GET /nubo/v1/audit`.
#[derive(Debug, Deserialize)]
struct Answer {
    views: Option<BTreeMap<String, Vec<ViewObject>>>,
    unreadable: Option<String>,
    images: Vec<Image>,
    names: BTreeMap<String, String>,
    findings: Vec<StoreFinding>,
}

/// An image and the files that it owns.
#[derive(Clone, Debug, Deserialize)]
pub struct Image {
    pub id: String,
    pub files: Vec<File>,
    /// The nonce of an upload that is under way.
    pub transfer: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct File {
    pub file: String,
    pub size_bytes: u64,
    pub sha512: String,
}

#[derive(Debug, Default)]
pub struct Shall {
    /// What this host shall hold; none: the store is too damaged to say so.
    pub view: Option<Vec<ViewObject>>,
    pub unreadable: Option<String>,
    pub images: Vec<Image>,
    names: BTreeMap<String, String>,
    pub store: Vec<StoreFinding>,
    /// Ids of all that has an owner here, also what is not in the view: `GET /nubo/v1/owners`.
    pub owned: BTreeSet<String>,
}

impl Shall {
    pub fn read(answer: Value, owners: &Value, host: &str) -> Result<Shall> {
        let answer: Answer = serde_json::from_value(answer).context("control's answer cannot be read")?;
        let view = match answer.views {
            None => None,
            Some(mut views) => match views.remove(host) {
                Some(view) => Some(view),
                None => bail!("the cloud knows no host {host}: its agent has never reached control"),
            },
        };
        let mut shall = Shall {
            view,
            unreadable: answer.unreadable,
            images: answer.images,
            names: answer.names,
            store: answer.findings,
            owned: BTreeSet::new(),
        };
        shall.owned.extend(shall.in_view());
        shall.owned.extend(shall.images.iter().map(|image| image.id.clone()));
        shall.owned.extend(in_answer(owners, host));
        Ok(shall)
    }

    fn in_view(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for object in self.view.iter().flatten() {
            ids.push(object.key().1.to_owned());
            // A router's ports are part of its specification and have links of their own.
            if let ViewObject::Router(router) = object {
                ids.extend(router.gateway.iter().map(|gateway| gateway.port.to_string()));
                ids.extend(router.interfaces.iter().map(|interface| interface.port.to_string()));
            }
        }
        ids
    }

    /// The object's name for people: kind and name, else what it is and its id.
    pub fn name(&self, kind: &str, id: &str) -> String {
        self.names.get(id).cloned().unwrap_or_else(|| format!("{kind} {id}"))
    }

    /// True where an id, or a name that ends in its last twelve digits, has an owner.
    pub fn owns(&self, id: &str) -> bool {
        let tail = || id.len() == 12 && self.owned.iter().any(|known| known.ends_with(id));
        self.owned.contains(id) || tail()
    }

    pub fn guests(&self) -> impl Iterator<Item = &GuestSpec> {
        self.view.iter().flatten().filter_map(|object| match object {
            ViewObject::Guest(guest) => Some(guest),
            _ => None,
        })
    }

    /// The volumes that shall have files here.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeSpec> {
        let volumes = self.view.iter().flatten().filter_map(|object| match object {
            ViewObject::Volume(volume) => Some(volume),
            _ => None,
        });
        volumes.filter(|volume| volume.desired == Desired::Present)
    }

    /// The guests that shall have files here.
    pub fn kept(&self) -> impl Iterator<Item = &GuestSpec> {
        self.guests().filter(|guest| guest.power != DesiredPower::Absent)
    }
}

/// Every id that the owners' answer names: objects of this host, and whatever else it comes to list.
fn in_answer(owners: &Value, host: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for (key, value) in owners.as_object().into_iter().flatten() {
        match key.as_str() {
            "hosts" => collect(&value[host], &mut ids),
            _ => collect(value, &mut ids),
        }
    }
    ids
}

fn collect(value: &Value, ids: &mut Vec<String>) {
    match value {
        Value::String(id) => ids.push(id.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, ids)),
        Value::Object(object) => match object.get("id").and_then(Value::as_str) {
            Some(id) => ids.push(id.to_owned()),
            None => object.values().for_each(|item| collect(item, ids)),
        },
        _ => {}
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    pub fn shall(view: Vec<ViewObject>, names: &[(&str, &str)]) -> Shall {
        let names: BTreeMap<&str, &str> = names.iter().copied().collect();
        let answer = json!({"views": {"h": view}, "unreadable": null, "images": [], "names": names, "findings": []});
        Shall::read(answer, &json!({}), "h").unwrap()
    }

    #[test]
    fn what_the_owners_name_has_an_owner_on_its_own_host_only() {
        let owners = json!({
            "hosts": {"h": [{"kind": "guest", "id": "018f3c2a-1b2c-7001-8aaa-0123456789ab"}],
                      "other": [{"kind": "guest", "id": "018f3c2a-1b2c-7001-8aaa-cccccccccccc"}]},
            "images": ["018f3c2a-1b2c-7001-8aaa-ffffffffffff"],
            "trash": {"h": [{"id": "018f3c2a-1b2c-7001-8aaa-eeeeeeeeeeee"}]},
        });
        let answer = json!({"views": {"h": []}, "unreadable": null, "images": [], "names": {}, "findings": []});
        let shall = Shall::read(answer.clone(), &owners, "h").unwrap();
        for owned in ["018f3c2a-1b2c-7001-8aaa-0123456789ab", "0123456789ab", "ffffffffffff", "eeeeeeeeeeee"] {
            assert!(shall.owns(owned), "{owned}");
        }
        for stray in ["018f3c2a-1b2c-7001-8aaa-000000000000", "89ab", "", "cccccccccccc"] {
            assert!(!shall.owns(stray), "{stray}");
        }
        assert!(Shall::read(answer, &owners, "unknown").is_err());
    }
}
