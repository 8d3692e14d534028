//! Objects in memory: for tests, and as the shortest driver that keeps the rules.

use super::{Bites, Error, Objects, Result, is_key, reopened, unread};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Memory(Mutex<Held>);

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Bytes>,
    down: bool,
}

impl Memory {
    /// From now on it does not answer, or answers again.
    pub fn set_down(&self, down: bool) {
        self.held().down = down;
    }

    /// Puts other bytes in the place of an object's.
    pub fn overwrite(&self, key: &str, bytes: &'static [u8]) {
        self.held().objects.insert(key.to_owned(), Bytes::from_static(bytes));
    }

    pub fn keys(&self) -> Vec<String> {
        self.held().objects.keys().cloned().collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up(&self) -> Result<MutexGuard<'_, Held>> {
        let held = self.held();
        if held.down { Err(Error::Silent("it is switched off".to_owned())) } else { Ok(held) }
    }
}

#[async_trait]
impl Objects for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn check(&self) -> Result<()> {
        self.up().map(drop)
    }

    async fn put(&self, key: &str, file: &File, size_bytes: u64) -> Result<()> {
        let mut bytes = Vec::new();
        reopened(file).and_then(|file| file.take(size_bytes).read_to_end(&mut bytes)).map_err(unread)?;
        self.up()?.objects.insert(key.to_owned(), bytes.into());
        Ok(())
    }

    async fn get(&self, key: &str, first: u64, length: u64) -> Result<Bites> {
        let held = self.up()?;
        let object = held.objects.get(key).ok_or_else(|| Error::Missing(key.to_owned()))?;
        let end = (first + length).min(object.len() as u64) as usize;
        let bytes = object.slice((first as usize).min(end)..end);
        Ok(futures::stream::iter([Ok(bytes)]).boxed())
    }

    async fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.up()?.objects.get(key).map(|bytes| bytes.len() as u64))
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.up()?.objects.remove(key);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>> {
        Ok(self.up()?.objects.keys().filter(|key| is_key(key)).cloned().collect())
    }
}
