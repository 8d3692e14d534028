//! Bytes from wherever an image has them: the first copy that gives them.

use super::download::{stream, whole};
use super::objects::{Bites, Objects, reopened};
use super::receive::{Expected, receive};
use super::stores::{Place, Store};
use super::transfer::hex;
use crate::Service;
use crate::document::Contents;
use base::{Fault, FaultKind, Result, Timestamp};
use rest::Body;
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long a file is kept for hosts that will ask for it, too.
const KEEP_MS: i64 = 10 * 60 * 1000;
/// What such files may have together: they lie where uploads come in.
const KEEP_BYTES: u64 = 16 << 30;

type Slot = Arc<tokio::sync::Mutex<Option<File>>>;

/// Files that were brought for hosts, by the SHA-512 of their bytes. They have no names, and are gone with this.
#[derive(Default)]
pub struct Brought(Mutex<BTreeMap<String, Kept>>);

#[derive(Default)]
struct Kept {
    slot: Slot,
    /// None: it is under way, or came to nothing.
    since: Option<Timestamp>,
    size_bytes: u64,
}

impl Kept {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.slot) > 1
    }
}

impl Brought {
    fn slot(&self, sha512: &str) -> Slot {
        self.all().entry(sha512.to_owned()).or_default().slot.clone()
    }

    /// It is there from now on; of the others, the oldest go for it.
    fn touch(&self, sha512: &str, size_bytes: u64, now: Timestamp) {
        let mut all = self.all();
        if let Some(kept) = all.get_mut(sha512) {
            (kept.since, kept.size_bytes) = (Some(now), size_bytes);
        }
        while all.values().map(|kept| kept.size_bytes).sum::<u64>() > KEEP_BYTES {
            let others = all.iter().filter(|(key, kept)| *key != sha512 && !kept.is_held());
            let Some(oldest) = others.min_by_key(|(_, kept)| kept.since).map(|(key, _)| key.clone()) else { break };
            all.remove(&oldest);
        }
    }

    /// Lets go of what has been there long enough, and of what came to nothing.
    pub fn sweep(&self, now: Timestamp) {
        let fresh = |kept: &Kept| kept.since.is_some_and(|since| now.ms_since(since) < KEEP_MS);
        self.all().retain(|_, kept| kept.is_held() || fresh(kept));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// `length` bytes of an image from `first` on.
    ///
    /// # Errors
    /// Bug where a folder has lost them, Unavailable where a store does not give them, of the only copy; Unavailable
    /// with all reasons where there are several.
    pub async fn bytes(&self, contents: &Contents, first: u64, length: u64) -> Result<Body> {
        let mut faults = Vec::new();
        for store in self.stores.of(contents) {
            let read = match &store.place {
                Place::Folder(files) => files.read(&contents.file).and_then(|file| self.part(file, first, length)),
                Place::Remote(objects) => {
                    self.object_bytes(&store, objects, contents, first, length).await.map(Body::from_stream)
                }
            };
            match read {
                Ok(body) => return Ok(body),
                Err(fault) => faults.push(fault),
            }
        }
        Err(together(contents, faults))
    }

    /// A file that has the bytes and nothing else. What comes from a place that is no folder was held against its hash.
    ///
    /// # Errors
    /// As those of [`Service::bytes`].
    pub async fn file(self: &Arc<Self>, contents: &Contents) -> Result<File> {
        let mut faults = Vec::new();
        for store in self.stores.of(contents) {
            let read = match &store.place {
                Place::Folder(files) => files.read(&contents.file),
                Place::Remote(_) => self.kept(store, contents).await,
            };
            match read {
                Ok(file) => return Ok(file),
                Err(fault) => faults.push(fault),
            }
        }
        Err(together(contents, faults))
    }

    /// The first copy whose bytes are those that were accepted, as a file. Reads all of it.
    ///
    /// # Errors
    /// Unavailable where no copy is whole.
    pub async fn verified(&self, contents: &Contents) -> Result<File> {
        let mut why = Vec::new();
        for store in self.stores.of(contents) {
            let read = match &store.place {
                Place::Folder(files) => match files.read(&contents.file) {
                    Ok(file) => self.proven(file, contents).await,
                    Err(fault) => Err(fault),
                },
                Place::Remote(objects) => self.brought(&store, objects, contents).await.map(Some).or_else(|fault| {
                    if fault.kind == FaultKind::Precondition { Ok(None) } else { Err(fault) }
                }),
            };
            match read {
                Ok(Some(file)) => return Ok(file),
                Ok(None) => why.push(format!("the copy in '{}' has other bytes than were accepted", store.id)),
                Err(fault) => {
                    tracing::error!(file = contents.file, store = store.id, "{}", fault.chain());
                    why.push(format!("the copy in '{}' cannot be read", store.id));
                }
            }
        }
        Err(Fault::unavailable(format!("The image is damaged: {}. Upload it again.", why.join(", "))))
    }

    /// [`Service::brought`], once for all who ask while it is under way and for a while after. Goes on without them: a
    /// host that has lost its patience finds the bytes when it asks again.
    async fn kept(self: &Arc<Self>, store: Store, contents: &Contents) -> Result<File> {
        let slot = self.brought.slot(&contents.sha512);
        let (service, contents) = (self.clone(), contents.clone());
        let bringing = async move {
            let mut kept = slot.lock().await;
            if kept.is_none() {
                let Some(objects) = store.objects() else { return Err(Fault::bug("a folder brings no objects")) };
                *kept = Some(service.brought(&store, objects, &contents).await?);
                // Whoever asked may be gone, and comes again.
                service.brought.touch(&contents.sha512, contents.size_bytes, service.env.now());
            }
            let file = kept.as_ref().ok_or_else(|| Fault::bug("a file was brought and is gone"))?;
            reopened(file).map_err(unread)
        };
        if self.store.is_inline() {
            return bringing.await;
        }
        tokio::spawn(bringing).await.map_err(|error| Fault::bug("the bringing of an image ended badly").because(error))?
    }

    pub fn part(&self, mut file: File, first: u64, length: u64) -> Result<Body> {
        file.seek(SeekFrom::Start(first)).map_err(|error| Fault::bug("seek in an image file").because(error))?;
        if self.store.is_inline() { whole(file, length) } else { Ok(stream(file, length)) }
    }

    async fn object_bytes(
        &self,
        store: &Store,
        objects: &Arc<dyn Objects>,
        contents: &Contents,
        first: u64,
        length: u64,
    ) -> Result<Bites> {
        let lost = || Fault::unavailable(format!("The image store '{}' has lost an image.", store.id));
        let object = self.object(&store.id, &contents.file).await?.ok_or_else(lost)?;
        store.said(objects.get(&object.key, first, length).await)
    }

    /// The bytes of an object in an unnamed file of the folder. Precondition where they are not what was accepted.
    async fn brought(&self, store: &Store, objects: &Arc<dyn Objects>, contents: &Contents) -> Result<File> {
        let _permit = self.verifying.acquire().await;
        let bites = self.object_bytes(store, objects, contents, 0, contents.size_bytes).await?;
        let mut file = self.unnamed()?;
        let expected = Expected {
            disk_format: String::new(),
            container_format: String::new(),
            enforced: None,
            most_bytes: contents.size_bytes,
            size_bytes: None,
            promised: None,
            inline: self.store.is_inline(),
            underway: self.underway.clone(),
        };
        let received = receive(Body::from_stream(bites), &file, &expected).await.map_err(|fault| match fault.kind {
            FaultKind::Invalid => {
                Fault::unavailable(format!("The image store '{}' broke off.", store.id)).because(fault)
            }
            _ => fault,
        })?;
        if hex(&received.sha512) != contents.sha512 {
            if let Some(object) = self.object(&store.id, &contents.file).await? {
                self.distrust(store::Document::id(&object), None).await?;
            }
            let message = format!("The copy in the image store '{}' has other bytes than were accepted.", store.id);
            return Err(Fault::new(FaultKind::Precondition, message).with_status(503));
        }
        file.rewind().map_err(unread)?;
        Ok(file)
    }

    /// The file at its beginning again, if its SHA-512 is that of the contents.
    async fn proven(&self, file: File, contents: &Contents) -> Result<Option<File>> {
        let sha512 = contents.sha512.clone();
        let permit = self.verifying.clone().acquire_owned().await;
        // The place is free when all is read, whether its client still waits or not.
        self.beside(move || (proven(file, &sha512), permit).0).await
    }

    /// A file of the folder that is gone with whoever has it open.
    fn unnamed(&self) -> Result<File> {
        let failed = |error| Fault::unavailable("The image service cannot make a file for an image.").because(error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o640);
        let flags = nix::fcntl::OFlag::O_TMPFILE.bits();
        let folder = self.stores.local().files().map(|files| files.path(".")).unwrap_or_default();
        if let Ok(file) = options.clone().custom_flags(flags).open(&folder) {
            return Ok(file);
        }
        // Not every file system has them.
        let path = folder.join(format!(".fetch-{}", self.env.secret_hex(8)));
        let file = options.create_new(true).open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        Ok(file)
    }
}

fn proven(mut file: File, sha512: &str) -> Result<Option<File>> {
    let mut digest = Sha512::new();
    std::io::copy(&mut file, &mut digest).map_err(unread)?;
    file.rewind().map_err(unread)?;
    Ok(Some(file).filter(|_| hex(&digest.finalize()) == sha512))
}

fn unread(error: std::io::Error) -> Fault {
    Fault::unavailable("The image service cannot read an image.").because(error)
}

/// One fault of those of all copies.
fn together(contents: &Contents, mut faults: Vec<Fault>) -> Fault {
    match faults.len() {
        0 => Fault::bug(format!("image file {} is in no store that is known", contents.file)),
        1 => faults.remove(0),
        _ => {
            let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
            let said = format!("No copy of the image can be read. {}", messages.join(" "));
            Fault::unavailable(said).because(faults.remove(0))
        }
    }
}
