//! Jobs and what they work for: each job's owners are there, and what waits for a job has one. Pure.
//!
//! The loop over jobs keeps this right itself; what stands here is written against the documents alone. A new kind of
//! job adds a line to [`OWNERS`], and one to [`claims`] for each document that waits for it.

use crate::references::{Documents, World};
use base::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The kinds of the owners of each kind of job, in their order.
const OWNERS: &[(&str, &[&str])] = &[("server.image", &["image", "server"]), ("volume.image", &["image", "volume"])];
/// The action that a job of [`OWNERS`] closes.
const ACTION: &str = "createImage";
/// The kinds that are looked at.
pub const KINDS: &[&str] = &["job", "image", "server", "volume", "instance_action"];

/// A job or a claim that hangs in the air.
#[derive(Clone, Debug, PartialEq)]
pub struct Loose {
    pub kind: &'static str,
    pub id: String,
    pub what: String,
    pub cure: &'static str,
    /// Kind and id of what is missed.
    pub misses: Option<(&'static str, String)>,
    /// The document as it shall be; none: it goes.
    pub mended: Option<Value>,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn of<'a>(world: &'a World, kind: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    world.get(kind).into_iter().flatten()
}

/// Everything that is loose, in the order in which it is mended.
pub fn loose(world: &World, now: Timestamp) -> Vec<Loose> {
    let mut all = Vec::new();
    for (id, job) in of(world, "job") {
        all.extend(owner_gone(world, id, job).or_else(|| lease_over(id, job, now)));
    }
    all.extend(claims(world, now));
    all
}

fn owner_gone(world: &World, id: &str, job: &Value) -> Option<Loose> {
    let (_, kinds) = OWNERS.iter().find(|(kind, _)| *kind == text(job, "kind"))?;
    let owners = job["owners"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let is_there = |kind: &str, owner: &str| world.get(kind).is_some_and(|all: &Documents| all.contains_key(owner));
    let (kind, owner) = kinds.iter().zip(owners).find(|(kind, owner)| !is_there(kind, owner))?;
    Some(Loose {
        kind: "job",
        id: id.to_owned(),
        what: format!("it works for {kind} {owner}, which is not there"),
        cure: "remove the job",
        misses: Some((kind, owner.to_owned())),
        mended: None,
    })
}

/// Whoever held it is dead, and nobody has taken it over.
fn lease_over(id: &str, job: &Value, now: Timestamp) -> Option<Loose> {
    let (holder, until) = (text(&job["lease"], "holder"), job["lease"]["until"].as_i64().map(Timestamp)?);
    // A worker that waits for room looks after its job in the meantime.
    if holder.is_empty() || until.plus_ms(2 * engine::job::LEASE_MS) > now {
        return None;
    }
    let mut mended = job.clone();
    // One epoch further, so that whoever held it writes nothing any more.
    let epoch = job["lease"]["epoch"].as_u64()? + 1;
    (mended["lease"]["holder"], mended["lease"]["epoch"], mended["written_by"]) =
        (json!(""), json!(epoch), json!(epoch));
    Some(Loose {
        kind: "job",
        id: id.to_owned(),
        what: format!("its lease ended at {}, and nobody has taken it over", until.iso_seconds()),
        cure: "give the lease back",
        misses: None,
        mended: Some(mended),
    })
}

/// What waits for a job that is not there.
fn claims(world: &World, now: Timestamp) -> Vec<Loose> {
    let owned: BTreeSet<&str> = of(world, "job")
        .flat_map(|(_, job)| job["owners"].as_array().into_iter().flatten().filter_map(Value::as_str))
        .collect();
    let closed: BTreeSet<&str> = of(world, "job").map(|(_, job)| text(&job["input"], "action")).collect();
    let claim = |kind, id: &str, what: String, cure, mended| Loose {
        kind,
        id: id.to_owned(),
        what,
        cure,
        misses: None,
        mended: Some(mended),
    };
    let servers =
        of(world, "server").filter(|(id, server)| server["imaging"].is_object() && !owned.contains(id.as_str()));
    let servers = servers.map(|(id, server)| {
        let what = format!("it shows the making of image {}, and no job makes it", text(&server["imaging"], "image"));
        let mut mended = server.clone();
        mended["imaging"] = Value::Null;
        claim("server", id, what, "end its task", mended)
    });
    let volumes = of(world, "volume")
        .filter(|(id, volume)| volume["uploading"].is_string() && !owned.contains(id.as_str()));
    let volumes = volumes.map(|(id, volume)| {
        let what = format!("it shows the making of image {}, and no job makes it", text(volume, "uploading"));
        let mut mended = volume.clone();
        mended["uploading"] = Value::Null;
        claim("volume", id, what, "end its uploading", mended)
    });
    let images = of(world, "image").filter(|(id, image)| image["awaits"].is_string() && !owned.contains(id.as_str()));
    let images = images.map(|(id, image)| {
        let what = format!("it waits for the disk of {}, and no job brings it", text(image, "awaits"));
        let mut mended = image.clone();
        mended["awaits"] = Value::Null;
        if text(image, "status") == "saving" && image["transfer"].is_null() {
            mended["status"] = json!("queued");
        }
        claim("image", id, what, "let other bytes be uploaded", mended)
    });
    let actions = of(world, "instance_action").filter(|(id, action)| {
        text(action, "action") == ACTION && action["finish"].is_null() && !closed.contains(id.as_str())
    });
    let actions = actions.map(|(id, action)| {
        let what = format!("it is open for server {}, and no job closes it", text(action, "server_id"));
        let mut mended = action.clone();
        mended["finish"] = json!(now);
        mended["success"] = json!(false);
        mended["message"] = json!("The job that made the image was lost.");
        claim("instance_action", id, what, "close it as failed", mended)
    });
    servers.chain(volumes).chain(images).chain(actions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn world() -> World {
        let one = |body: Value| Documents::from([(text(&body, "id").to_owned(), body)]);
        World::from([
            ("image", one(json!({"id": "i", "status": "queued", "awaits": "s", "transfer": null}))),
            ("server", one(json!({"id": "s", "imaging": {"image": "i", "uploading": false}}))),
            ("volume", one(json!({"id": "v", "uploading": null}))),
            ("instance_action", one(json!({"id": "a", "server_id": "s", "action": "createImage", "finish": null}))),
            (
                "job",
                one(json!({
                    "id": "j", "kind": "server.image", "owners": ["i", "s"], "input": {"action": "a"}, "written_by": 3,
                    "lease": {"holder": "h", "epoch": 3, "until": NOW.0},
                })),
            ),
        ])
    }

    fn found(world: &World, now: Timestamp) -> Vec<String> {
        loose(world, now).into_iter().map(|it| format!("{} {}: {}", it.kind, it.id, it.cure)).collect()
    }

    #[test]
    fn each_loose_end_is_named_and_mending_leaves_none() {
        assert_eq!(found(&world(), NOW), [""; 0]);
        let without = |kind: &str| {
            let mut world = world();
            world.remove(kind);
            world
        };
        let late = NOW.plus_ms(2 * engine::job::LEASE_MS);
        for (mut world, now, expected) in [
            (without("image"), NOW, vec!["job j: remove the job"]),
            (without("server"), NOW, vec!["job j: remove the job"]),
            (
                without("job"),
                NOW,
                vec![
                    "server s: end its task",
                    "image i: let other bytes be uploaded",
                    "instance_action a: close it as failed",
                ],
            ),
            (self::world(), late, vec!["job j: give the lease back"]),
        ] {
            assert_eq!(found(&world, now), expected);
            // What comes to light by mending is mended in the next round.
            for _ in 0..2 {
                for it in loose(&world, now) {
                    let documents = world.get_mut(it.kind).unwrap();
                    match it.mended {
                        Some(body) => documents.insert(it.id, body),
                        None => documents.remove(&it.id),
                    };
                }
            }
            assert_eq!(found(&world, now), [""; 0], "after {expected:?}");
        }
    }

    #[test]
    fn a_volume_that_waits_for_no_job_is_at_rest_again() {
        let mut world = world();
        world.get_mut("volume").unwrap().get_mut("v").unwrap()["uploading"] = json!("i");
        assert_eq!(found(&world, NOW), ["volume v: end its uploading"]);
        let job = json!({"id": "k", "kind": "volume.image", "owners": ["i", "v"], "input": {}, "lease": {"holder": ""}});
        world.get_mut("job").unwrap().insert("k".into(), job);
        assert_eq!(found(&world, NOW), [""; 0]);
        world.remove("volume");
        assert_eq!(found(&world, NOW), ["job k: remove the job"]);
    }

    #[test]
    fn a_lease_that_is_given_back_fences_whoever_held_it() {
        let mended = loose(&world(), NOW.plus_s(3600)).remove(0).mended.unwrap();
        assert_eq!(mended["lease"], json!({"holder": "", "epoch": 4, "until": NOW.0}));
        assert_eq!(mended["written_by"], 4);
    }

    #[test]
    fn an_image_whose_bytes_were_on_their_way_is_queued_again() {
        let mut world = world();
        world.remove("job");
        world.get_mut("image").unwrap().get_mut("i").unwrap()["status"] = json!("saving");
        let image = loose(&world, NOW).into_iter().find(|it| it.kind == "image").unwrap();
        assert_eq!(image.mended.unwrap()["status"], "queued");
    }
}
