//! A store of images that is no folder: in memory, slow, and now and then not there.

use crate::check::{Broken, Held};
use crate::dice::Dice;
use crate::mirror::Mirror;
use async_trait::async_trait;
use control::objects::memory::Memory;
use control::objects::{Bites, Error, Objects, Result};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The id by which clients know it.
pub const NAME: &str = "objects";
/// Of a hundred requests, so many find it gone.
const GONE_PERCENT: u64 = 4;
/// The longest way of a request, and of its answer.
const WAY_MS: u64 = 150;

pub struct Slow {
    memory: Memory,
    dice: Dice,
    calm: AtomicBool,
    /// When a request was lost last.
    lost: Mutex<Option<Instant>>,
}

impl Slow {
    pub fn new(dice: Dice) -> Slow {
        Slow { memory: Memory::default(), dice, calm: AtomicBool::new(false), lost: Mutex::default() }
    }

    /// From now on it is there whenever it is asked.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    /// True when a request was lost since then.
    pub fn was_gone(&self, since: Instant) -> bool {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at >= since)
    }

    async fn way(&self) -> Result<()> {
        tokio::time::sleep(Duration::from_millis(self.dice.below(WAY_MS))).await;
        match self.dice.chance(GONE_PERCENT) && !self.calm.load(Ordering::SeqCst) {
            true => {
                *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Err(Error::Silent("the dice say so".to_owned()))
            }
            false => Ok(()),
        }
    }
}

/// A request can be lost on its way, and so can its answer: then it was done all the same.
#[async_trait]
impl Objects for Slow {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn check(&self) -> Result<()> {
        self.way().await
    }

    async fn put(&self, key: &str, file: &File, size_bytes: u64) -> Result<()> {
        self.way().await?;
        self.memory.put(key, file, size_bytes).await?;
        self.way().await
    }

    async fn get(&self, key: &str, first: u64, length: u64) -> Result<Bites> {
        self.way().await?;
        self.memory.get(key, first, length).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.way().await?;
        self.memory.size(key).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.way().await?;
        self.memory.remove(key).await?;
        self.way().await
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.way().await?;
        self.memory.list().await
    }
}

/// Once all is settled: every image that has its bytes there has them there, and there is nothing else.
pub fn settled(objects: &Slow, mirror: &Mirror) -> Held {
    const RULE: &str = "what lies in a store of objects is whose it is, and nobody else's";
    let mut keys = objects.memory.keys();
    for (id, object) in mirror.all("image_object") {
        if object["state"] != "there" {
            return Err(Broken::new(RULE, format!("{id} does not come to an end: {object}")));
        }
        let key = object["key"].as_str().unwrap_or_default();
        if !keys.iter().any(|known| known == key) {
            return Err(Broken::new(RULE, format!("{id} is not there: {object}")));
        }
        keys.retain(|known| known != key);
        for name in object["names"].as_array().into_iter().flatten() {
            let image = name.as_str().and_then(|name| name.get(..36)).unwrap_or_default();
            let Some(image) = mirror.get("image", image) else { continue };
            let has = image["contents"]["stores"].as_array().is_some_and(|stores| stores.iter().any(|it| it == NAME));
            if !has || image["contents"]["file"] != *name {
                return Err(Broken::new(RULE, format!("{id} is no object of {name}: {image}")));
            }
        }
    }
    if let Some(key) = keys.first() {
        return Err(Broken::new(RULE, format!("nobody owns {key}")));
    }
    for (id, image) in mirror.all("image") {
        let contents = &image["contents"];
        if !contents["stores"].as_array().is_some_and(|stores| stores.iter().any(|it| it == NAME)) {
            continue;
        }
        let mine = mirror.all("image_object").filter(|(_, object)| {
            object["names"].as_array().is_some_and(|names| names.contains(&contents["file"]))
                && object["sha512"] == contents["sha512"]
                && object["size_bytes"] == contents["size_bytes"]
        });
        if mine.count() != 1 {
            return Err(Broken::new(RULE, format!("image {id} has not one object: {image}")));
        }
    }
    Ok(())
}

/// When its time in the trash is over, an image's object is gone as well.
pub fn nothing_left(mirror: &Mirror) -> Held {
    for (id, object) in mirror.all("image_object") {
        let mut names = object["names"].as_array().into_iter().flatten().filter_map(|name| name.as_str()?.get(..36));
        if let Some(image) = names.find(|image| mirror.get("image", image).is_none()) {
            let what = format!("{id} is of {image}: {object}");
            return Err(Broken::new("after its time nothing of the trash is left", what));
        }
    }
    Ok(())
}
