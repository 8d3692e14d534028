//! What must hold of durable jobs: each has its owners and its worker, and what waits for one has it.

use crate::check::{Broken, Held};
use crate::mirror::Mirror;
use crate::run::late::LATE;
use crate::world::World;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What holds always: whoever writes to a job holds its lease, and nothing waits for a job that is not there.
pub fn every_step(mirror: &Mirror) -> Held {
    let (mut bringers, mut makers) = (BTreeMap::new(), BTreeSet::new());
    for (id, job) in mirror.all("job") {
        if job["written_by"] != job["lease"]["epoch"] {
            return Err(Broken::new("only the holder of a lease writes", format!("job {id}: {job}")));
        }
        if job["owners"].as_array().is_none_or(Vec::is_empty) {
            return Err(Broken::new("no job without owner", format!("job {id}: {job}")));
        }
        let (image, input) = (text(&job["input"], "image"), &job["input"]);
        let of = [text(input, "server"), text(input, "volume")].concat();
        makers.insert((image, of.clone()));
        // An image that was deleted and brought back waits for it no more, and others may bring its bytes; it ends soon.
        if !of.is_empty() && mirror.get("image", image).is_some_and(|image| !image["awaits"].is_string()) {
            continue;
        }
        if let Some(other) = bringers.insert(image, id) {
            return Err(Broken::new("one job brings an image", format!("{id} and {other} bring image {image}")));
        }
    }
    for (id, image) in mirror.all("image") {
        if image["awaits"].is_string() && !bringers.contains_key(id.as_str()) {
            let what = format!("image {id} is {} and waits for a job that is not there", image["status"]);
            return Err(Broken::new("what waits for a job has one", what));
        }
    }
    for (id, server) in mirror.all("server") {
        let image = text(&server["imaging"], "image");
        if server["imaging"].is_object() && !makers.contains(&(image, id.clone())) {
            let what = format!("server {id} shows the making of image {image}, and no job makes it");
            return Err(Broken::new("what waits for a job has one", what));
        }
    }
    for (id, volume) in mirror.all("volume") {
        let image = text(volume, "uploading");
        if volume["uploading"].is_string() && !makers.contains(&(image, id.clone())) {
            let what = format!("volume {id} shows the making of image {image}, and no job makes it");
            return Err(Broken::new("what waits for a job has one", what));
        }
    }
    Ok(())
}

/// What only shows over time.
#[derive(Default)]
pub struct Jobs {
    /// Jobs that should have ended, and since when that was seen.
    over: BTreeMap<String, Instant>,
    /// The bytes of images, at the last look.
    files: BTreeMap<String, String>,
}

impl Jobs {
    /// A job whose deadline has passed or whose owner is gone ends soon, while control runs; and one worker finishes it.
    pub fn check(&mut self, world: &World, mirror: &Mirror) -> Held {
        self.bytes(mirror)?;
        let mut before = std::mem::take(&mut self.over);
        if world.process().is_none() {
            return Ok(());
        }
        let (now, wall) = (Instant::now(), world.env.now().micros());
        let gone = |id: &Value| {
            let there = |kind: &str| mirror.get(kind, id.as_str().unwrap_or_default()).is_some();
            !there("image") && !there("server") && !there("volume")
        };
        for (id, job) in mirror.all("job") {
            let late = job["deadline"].as_i64().is_none_or(|deadline| deadline <= wall);
            let orphaned = job["owners"].as_array().is_none_or(|owners| owners.iter().any(gone));
            if !late && !orphaned {
                continue;
            }
            let since = before.remove(id).unwrap_or(now);
            if now - since > LATE {
                let what = format!("job {id} should have ended {:?} ago: {job}", now - since);
                return Err(Broken::new("a job ends with its owner and at its deadline", what));
            }
            self.over.insert(id.clone(), since);
        }
        Ok(())
    }

    /// Bytes once there are not replaced: that would be a second worker's doing.
    fn bytes(&mut self, mirror: &Mirror) -> Held {
        let mut files = BTreeMap::new();
        for (id, image) in mirror.all("image").filter(|(_, image)| image["properties"]["image_type"] == "snapshot") {
            let Some(file) = image["contents"]["file"].as_str() else { continue };
            if let Some(before) = self.files.get(id).filter(|before| *before != file) {
                let what = format!("image {id} had {before} and has {file}");
                return Err(Broken::new("one worker finishes a job", what));
            }
            files.insert(id.clone(), file.to_owned());
        }
        self.files = files;
        Ok(())
    }
}
