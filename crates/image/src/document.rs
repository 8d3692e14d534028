//! What the store keeps of images and of their members.

use base::{ImageId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::{Document, Keys};

/// An image. Its bytes are a file in the service's folder, named by [`Contents::file`].
///
/// ```text
///             PUT file                    bytes accepted
///   queued ------------> saving ------------------------------> active <----> deactivated
///     ^  |                 |                                      ^
///     |  | PUT stage       | broken, refused, or its process died | POST import
///     |  +--------> uploading ------------------------------------+
///     +---------------------+                                      |
///     |  POST import, POST locations         a job brings bytes   |
///     +----------------------> importing -------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub id: ImageId,
    /// None for an image that an administrator gave to nobody.
    pub owner: Option<ProjectId>,
    pub name: Option<String>,
    pub status: Status,
    pub visibility: Visibility,
    pub protected: bool,
    pub hidden: bool,
    pub container_format: Option<String>,
    pub disk_format: Option<String>,
    pub min_disk_gib: u64,
    pub min_ram_mib: u64,
    pub tags: BTreeSet<String>,
    pub properties: BTreeMap<String, String>,
    /// The bytes, once they are accepted.
    pub contents: Option<Contents>,
    /// Bytes that were staged and wait for an import.
    pub staged: Option<Staged>,
    /// The transfer that runs, by its nonce. Its process holds a lock on the transfer's file; a transfer whose file is
    /// not locked is dead, and the sweeper puts the image back to `queued`.
    pub transfer: Option<String>,
    /// When the transfer that runs began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_since: Option<Timestamp>,
    /// How the last transfers ended that brought nothing; none once bytes have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// The server or the volume whose disk a job brings; none: its bytes come from clients, or have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<String>,
    /// The task whose job brings the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importing: Option<String>,
    /// Where the bytes were taken from, by who said that they lie there. What was fetched and is not what was promised
    /// stays named, as in Glance, until bytes come another way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// Copies that are being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copying: Option<Copying>,
    /// Stores that did not take a copy when the last ones were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_copied: Vec<String>,
}

/// A place outside the cloud that the bytes were copied from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location {
    pub url: String,
}

/// Transfers in a row that came to nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub attempts: u32,
    /// Why the last one ended, for the owner.
    pub message: String,
}

/// The most bytes of a message that are kept.
const MESSAGE_BYTES: usize = 1_000;

/// Bytes at rest, and what was found out about them while they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The name of the file in the service's folder.
    pub file: String,
    pub size_bytes: u64,
    pub virtual_size_bytes: Option<u64>,
    /// MD5 in hex: Glance's `checksum`.
    pub md5: String,
    /// SHA-512 in hex: Glance's `os_hash_value`.
    pub sha512: String,
    /// Why the inspection refused the bytes, where they were kept all the same: no program may open them.
    pub quarantined: Option<String>,
    /// Another hash that was promised for the bytes, and held: it is shown in the place of the SHA-512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<Promised>,
    /// The stores that hold the file, each under the same name.
    #[serde(default = "local_alone")]
    pub stores: Vec<String>,
}

fn local_alone() -> Vec<String> {
    vec![LOCAL.to_owned()]
}

/// The store that every cloud has: the service's own folder.
pub const LOCAL: &str = "local";

/// The store that clients see for what was taken from a location; no store has this name.
pub const WEB: &str = "web";

/// Copies that a job makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copying {
    /// The task that tells of it.
    pub task: String,
    /// Stores that are still to come.
    pub to: Vec<String>,
    /// Stores that did not take it.
    pub failed: Vec<String>,
}

/// A hash by which somebody knows the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promised {
    /// `sha224`, `sha256`, `sha384` or `sha512`.
    pub algorithm: String,
    /// In hex.
    pub value: String,
}

impl Contents {
    /// Glance's `os_hash_algo` and `os_hash_value`.
    pub fn hash(&self) -> (&str, &str) {
        match &self.promised {
            Some(promised) => (&promised.algorithm, &promised.value),
            None => ("sha512", &self.sha512),
        }
    }
}

/// Staged bytes with what they were found to be: the formats that they are held against may still change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    pub contents: Contents,
    pub findings: format::Findings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Queued,
    Saving,
    Uploading,
    Importing,
    Active,
    Deactivated,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Saving => "saving",
            Status::Uploading => "uploading",
            Status::Importing => "importing",
            Status::Active => "active",
            Status::Deactivated => "deactivated",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    Public,
    Community,
    Shared,
    Private,
}

impl Visibility {
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Public => "public",
            Visibility::Community => "community",
            Visibility::Shared => "shared",
            Visibility::Private => "private",
        }
    }

    pub fn parse(text: &str) -> Option<Visibility> {
        use Visibility::*;
        [Public, Community, Shared, Private].into_iter().find(|one| one.as_str() == text)
    }
}

impl Image {
    /// A transfer begins now.
    pub fn begin_transfer(&mut self, nonce: &str, now: Timestamp) {
        self.transfer = Some(nonce.to_owned());
        self.transfer_since = Some(now);
    }

    /// The transfer that ran brought what was awaited.
    pub fn end_transfer(&mut self) {
        (self.transfer, self.transfer_since, self.failed) = (None, None, None);
    }

    /// The transfer that ran came to nothing, and others may bring the bytes.
    pub fn fail_transfer(&mut self, why: &str) {
        let attempts = self.failed.take().map_or(0, |failed| failed.attempts).saturating_add(1);
        self.end_transfer();
        let mut end = why.len().min(MESSAGE_BYTES);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        self.failed = Some(Failed { attempts, message: why[..end].replace('\0', " ") });
        // A job tries again, and nobody else may bring bytes meanwhile.
        self.status = if self.importing.is_some() { Status::Importing } else { Status::Queued };
    }

    /// An image without bytes.
    pub fn queued(id: ImageId, owner: Option<ProjectId>) -> Image {
        Image {
            id,
            owner,
            name: None,
            status: Status::Queued,
            visibility: Visibility::Shared,
            protected: false,
            hidden: false,
            container_format: None,
            disk_format: None,
            min_disk_gib: 0,
            min_ram_mib: 0,
            tags: BTreeSet::new(),
            properties: BTreeMap::new(),
            contents: None,
            staged: None,
            transfer: None,
            transfer_since: None,
            failed: None,
            awaits: None,
            importing: None,
            locations: Vec::new(),
            copying: None,
            not_copied: Vec::new(),
        }
    }

    /// Every file that belongs to the image and is finished, with the store that it is in.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let staged = self.staged.as_ref().map(|staged| &staged.contents);
        let all = self.contents.iter().chain(staged);
        all.flat_map(|contents| contents.stores.iter().map(|store| (store.as_str(), contents.file.as_str())))
    }
}

impl Document for Image {
    const KIND: &'static str = "image";
    const INDEX_VERSION: u32 = 2;

    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        self.owner.as_deref().unwrap_or("")
    }

    fn keys(&self, keys: &mut Keys) {
        // What a project sees beside its own: a list must not read every private image of the cloud.
        if matches!(self.visibility, Visibility::Public | Visibility::Community) || self.owner.is_none() {
            keys.index("open", "yes");
        }
        // Whatever somebody is to bring bytes for: the sweeper looks whether somebody still does.
        if self.transfer.is_some() || self.importing.is_some() || self.copying.is_some() {
            keys.index("transfer", "yes");
        }
    }

    /// The job that was to bring its bytes has ended with it: others may be uploaded.
    fn restored(&mut self, _now: base::Timestamp, replaced: Option<&Self>) {
        if replaced.is_none() {
            self.awaits = None;
        }
    }
}

/// Bytes in a store that is no folder, and whose they are.
///
/// ```text
///   begun by a transfer                 put and committed             no name is left
///   ------------------> arriving ---------------------------> there ------------------> leaving ----> gone
///                           | its process died, or another                                ^
///                           | one brought the same bytes first                            |
///                           +-------------------------------------------------------------+
/// ```
///
/// An object has the names that a file of these bytes would have: `IMAGE.NONCE` of each transfer that brought them. A
/// name counts while its image, living or in the trash, has that file in this store, or while the transfer's lock is
/// held. A key is used once: what comes late to an object that is gone meets no other one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// STORE/KEY.
    id: String,
    pub store: String,
    pub key: String,
    pub sha512: String,
    pub size_bytes: u64,
    pub state: ObjectState,
    pub names: BTreeSet<String>,
    /// Not what was put there any more: nobody else joins.
    #[serde(default)]
    pub damaged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectState {
    Arriving,
    There,
    Leaving,
}

/// Names of one object; for more a second one begins.
const NAMES: usize = 500;

impl Object {
    pub fn arriving(store: &str, key: String, sha512: &str, size_bytes: u64, name: String) -> Object {
        let (id, state, names) = (format!("{store}/{key}"), ObjectState::Arriving, BTreeSet::from([name]));
        let (store, sha512) = (store.to_owned(), sha512.to_owned());
        Object { id, store, key, sha512, size_bytes, state, names, damaged: false }
    }

    /// Nobody needs it any more.
    pub fn leave(&mut self) {
        self.names.clear();
        self.state = ObjectState::Leaving;
    }

    /// By what an object is found that others may join.
    pub fn bytes(store: &str, sha512: &str) -> String {
        format!("{store}/{sha512}")
    }
}

impl Document for Object {
    const KIND: &'static str = "image_object";

    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        ""
    }

    fn keys(&self, keys: &mut Keys) {
        if self.state == ObjectState::There && !self.damaged && self.names.len() < NAMES {
            keys.index("bytes", Object::bytes(&self.store, &self.sha512));
        }
        let images: BTreeSet<&str> = self.names.iter().filter_map(|name| name.get(..36)).collect();
        for image in images {
            keys.index("image", image);
        }
        if self.state != ObjectState::There {
            keys.index("untidy", "yes");
        }
    }
}

/// A project with which an image is shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    id: String,
    pub image: ImageId,
    pub project: ProjectId,
    pub status: MemberStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberStatus {
    Pending,
    Accepted,
    Rejected,
}

impl MemberStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            MemberStatus::Pending => "pending",
            MemberStatus::Accepted => "accepted",
            MemberStatus::Rejected => "rejected",
        }
    }

    pub fn parse(text: &str) -> Option<MemberStatus> {
        use MemberStatus::*;
        [Pending, Accepted, Rejected].into_iter().find(|one| one.as_str() == text)
    }
}

impl Member {
    pub fn new(image: ImageId, project: ProjectId) -> Member {
        Member { id: Member::key(&image, &project), image, project, status: MemberStatus::Pending }
    }

    /// The document's id: one membership a pair.
    pub fn key(image: &ImageId, project: &str) -> String {
        format!("{image}/{project}")
    }
}

impl Document for Member {
    const KIND: &'static str = "image_member";
    const SHARE: bool = true;

    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        &self.project
    }

    fn keys(&self, keys: &mut Keys) {
        keys.index("image", self.image.as_str());
    }
}
