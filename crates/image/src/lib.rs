//! The image service: Glance's API v2 over folders of files and places that keep objects.
//!
//! Owns the documents `image`, `image_member` and `image_object`, those of metadata definitions, and the stores with the
//! bytes. Must never hand bytes to any program that its inspection has not accepted, and never hold a transaction while
//! bytes move. The life of an image is drawn at [`document::Image`].

mod cache;
pub mod data;
pub mod document;
mod explain;
pub mod images;
pub mod import;
mod locate;
mod members;
pub mod metadefs;
mod policy_rules;
pub mod protection;
pub mod quota;
mod schemas;
mod stores;
pub mod tasks;
mod versions;
pub mod web;

#[cfg(test)]
mod tests;

pub use data::objects::{self, Objects};
pub use data::{ObjectSweeper, PlaceOptions, SnapshotIntake, StoreOptions, Stray, Sweeper};
pub use document::{Image, Member, Object};
pub use import::{CopyWork, ImportWork};
pub use metadefs::bootstrap;
pub use policy_rules::RULES;

use agent_api::DiskFormat;
use base::{Env, ImageId, Result, Timestamp};
use data::Stores;
use model::deadline::{Deadlines, Operation, Passing};
use policy::Policy;
use rest::{Access, DryRun, Envelope, Method, Route, Undo};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use store::Store;
use tokio::sync::Semaphore;

/// Uploads that are taken in at a time; more wait. Each uses three blocking threads.
const UPLOADS: usize = 24;
/// Of these, imports that convert.
const CONVERTING: usize = 8;
/// Images that are read for [`data::download`] before they are given out.
const VERIFYING: usize = 4;

/// Copies on this machine of images whose bytes lie elsewhere.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    pub folder: PathBuf,
    /// What is used least lately goes when there is more.
    pub most_bytes: u64,
}

#[derive(Clone)]
pub struct Options {
    /// Where the bytes are kept: the store `local`.
    pub folder: PathBuf,
    /// Further stores, by their ids.
    pub stores: BTreeMap<String, StoreOptions>,
    /// Where bytes go that nobody names a store for; none: to the folder.
    pub default_store: Option<String>,
    /// Refuse bytes that are not what the image says. Off: they are stored and quarantined.
    pub format_enforcement: bool,
    /// Most bytes of an image's file (Glance's `image_size_cap`).
    pub size_limit_bytes: u64,
    pub format_limits: format::Limits,
    pub quota: quota::Quota,
    pub deadlines: Deadlines,
    /// The name of the region that the cloud is: what is downloaded from it is its own.
    pub region: String,
    pub protections: Arc<protection::Protections>,
    /// What may be fetched from elsewhere.
    pub web_rules: web::Rules,
    /// How it is fetched.
    pub web: Arc<dyn web::Web>,
    /// What imports make of disks; none: they stay what they are.
    pub convert_to: Option<DiskFormat>,
    /// None: the calls for the cache say that there is none.
    pub cache: Option<CacheOptions>,
}

impl Options {
    pub fn new(folder: impl Into<PathBuf>) -> Options {
        Options {
            folder: folder.into(),
            stores: BTreeMap::new(),
            default_store: None,
            format_enforcement: true,
            size_limit_bytes: 1 << 40,
            format_limits: format::Limits::default(),
            quota: quota::Quota::default(),
            deadlines: Deadlines::default(),
            region: "RegionOne".to_owned(),
            protections: Arc::default(),
            web_rules: web::Rules::default(),
            web: Arc::new(web::Unreachable),
            convert_to: None,
            cache: None,
        }
    }
}

/// What cannot answer for the past.
const NO_PAST: &[(&str, &str)] =
    &[("images:download", "the bytes of an image lie in files, and those of a deleted one are gone")];

/// Why what is done to the cache has neither dry run nor undo.
const CACHE: &str = "what is cached is no state of the cloud: it goes and comes again at any time";

/// Which operations have no dry run or cannot be undone.
const EXCEPT: &[(&str, DryRun, Undo)] = &[
    ("images:upload", DryRun::Not("the bytes are the change"), Undo::Not("the image is deleted instead")),
    ("images:stage", DryRun::Not("the bytes are the change"), Undo::Not("the image is deleted instead")),
    (
        "images:import",
        DryRun::Not("what the staged bytes are is found out by taking them over"),
        Undo::Not("the image is deleted instead"),
    ),
    (
        "locations:create",
        DryRun::Not("what lies behind the URL is found out by fetching it"),
        Undo::Not("the image is deleted instead"),
    ),
    (
        "tasks:create",
        DryRun::Not("what lies behind the URL is found out by fetching it"),
        Undo::Not("the image is deleted instead"),
    ),
    ("stores:delete", DryRun::Yes, Undo::Not("the bytes of a copy that is gone are gone")),
    ("tasks:delete", DryRun::Yes, Undo::Not("it answers 405 and changes nothing")),
    ("cache:clear", DryRun::Not(CACHE), Undo::Not(CACHE)),
    ("cache:clean", DryRun::Not(CACHE), Undo::Not(CACHE)),
    ("cache:prune", DryRun::Not(CACHE), Undo::Not(CACHE)),
    ("cache:queue", DryRun::Not(CACHE), Undo::Not(CACHE)),
    ("cache:delete", DryRun::Not(CACHE), Undo::Not(CACHE)),
    ("images:delete_nameless", DryRun::Yes, Undo::Not("it answers 404 and changes nothing")),
    ("images:update_nameless", DryRun::Yes, Undo::Not("it answers 404 and changes nothing")),
];

/// The service. What others need of it: [`contract::Images`], [`Service::open_file`], [`Service::rest`], [`Sweeper`].
pub struct Service {
    store: Store,
    env: Env,
    options: Options,
    stores: Stores,
    uploads: Semaphore,
    /// Imports that convert: each holds an upload's place as well, and the others stay for uploads.
    converting: Semaphore,
    /// The disks that are converted: one reads or writes at a time, and sees no other's bytes.
    conversion: Semaphore,
    /// Downloads that read all bytes first.
    verifying: Arc<Semaphore>,
    cache: Option<cache::Cache>,
    /// What uploads have in memory.
    underway: data::Underway,
    brought: data::Brought,
}

/// The kinds of documents, for opening the store.
pub fn kinds() -> Vec<store::Kind> {
    vec![
        store::Kind::of::<Image>(),
        store::Kind::of::<Member>(),
        store::Kind::of::<Object>(),
        store::Kind::of::<tasks::Task>(),
        store::Kind::of::<metadefs::Namespace>(),
        store::Kind::of::<metadefs::ResourceType>(),
    ]
}

impl Service {
    /// # Errors
    /// Unavailable when a folder cannot be made, Invalid for stores that cannot be right. Whether those that are no
    /// folders answer is not asked.
    pub fn new(store: Store, env: Env, options: Options) -> Result<Arc<Service>> {
        let stores = Stores::open(&options.folder, &options.stores, options.default_store.as_deref(), &env)?;
        let [uploads, converting, conversion] = [UPLOADS, CONVERTING, 1].map(Semaphore::new);
        let verifying = Arc::new(Semaphore::new(VERIFYING));
        let cache = options.cache.as_ref().map(cache::Cache::open).transpose()?;
        let underway = data::Underway::default();
        Ok(Arc::new(Service {
            store,
            env,
            options,
            stores,
            uploads,
            converting,
            conversion,
            verifying,
            cache,
            underway,
            brought: data::Brought::default(),
        }))
    }

    /// The image's bytes, for an agent. NotFound for an image without bytes or in quarantine. What no folder has is
    /// brought into an unnamed file first, and held against its hash.
    ///
    /// # Errors
    /// NotFound, or what the store says.
    pub async fn open_file(self: &Arc<Self>, id: &ImageId) -> Result<std::fs::File> {
        let image = self.store.get::<Image>(id).await?;
        let contents = image.and_then(|image| image.doc.contents).filter(|contents| contents.quarantined.is_none());
        let contents = contents.ok_or_else(|| base::Fault::not_found(format!("Image {id} has no usable bytes.")))?;
        match self.cached_copy(&contents) {
            Some(file) => Ok(file),
            None => self.file(&contents).await,
        }
    }

    /// Work that blocks: on a thread of its own, or right here where there are none (see [`store::Store::is_inline`]).
    async fn beside<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if self.store.is_inline() {
            return work();
        }
        let worked = tokio::task::spawn_blocking(work).await;
        worked.map_err(|error| base::Fault::bug("work of the image service ended badly").because(error))?
    }

    /// The bytes of an image, where the cache has them.
    fn cached_copy(&self, contents: &document::Contents) -> Option<std::fs::File> {
        self.cache.as_ref()?.folder.read(&contents.file)
    }

    /// The ids of all images, those in the trash included: what is named after another belongs to nobody.
    pub fn ids(reader: &mut store::Reader) -> Result<Vec<String>> {
        let images = reader.list::<Image>(store::Query::all())?;
        let mut ids: Vec<String> = images.into_iter().map(|image| image.doc.id.to_string()).collect();
        let kind = <Image as store::Document>::KIND;
        for trash in reader.list::<store::Trash>(store::Query::all())? {
            ids.extend(
                trash.doc.documents.into_iter().filter(|document| document.kind == kind).map(|document| document.id),
            );
        }
        Ok(ids)
    }

    /// What an undo may charge of a row of the ledger that has no limit of its own; none: no limit, or not ours.
    ///
    /// # Errors
    /// What the store says.
    pub fn undo_limit(&self, reader: &mut store::Reader, project: &str, resource: &str) -> Result<Option<i64>> {
        match resource {
            _ if quota::RESOURCES.contains(&resource) => self.options.quota.limit(reader, &project.into(), resource),
            _ => Ok(None),
        }
    }

    /// A transfer that has run since then.
    pub(crate) fn passing(&self, since: Timestamp) -> Passing {
        self.options.deadlines.passing(Operation::Image, since)
    }

    /// The service as the gateway takes it.
    pub fn rest(self: &Arc<Self>, policy: Arc<Policy>) -> rest::Service {
        rest::Service {
            name: "image",
            prefix: "/image",
            envelope: Envelope::Image,
            microversions: None,
            policy,
            routes: rest::no_past(rest::except(self.all_routes(), EXCEPT), NO_PAST),
        }
    }

    fn all_routes(self: &Arc<Self>) -> Vec<Route> {
        let mut routes = self.routes();
        routes.extend(metadefs::routes(self));
        routes
    }

    fn routes(self: &Arc<Self>) -> Vec<Route> {
        use Access::{Open, Rule};
        use Method as M;
        use {data, images::ops, import, members, quota, schemas, stores, tasks, versions};
        macro_rules! table {
            ($($method:expr, $path:literal, $operation:literal, $access:expr, $success:literal, $handler:path;)*) => {
                vec![$(Route::new(self, $method, $path, $operation, $access, $success, $handler)),*]
            };
        }
        table! {
            M::GET, "", "versions:choices", Open, 300, versions::choices;
            M::GET, "/versions", "versions:list", Open, 200, versions::list;
            M::GET, "/v2", "versions:v2", Open, 300, versions::choices;
            M::GET, "/v2/info/import", "info:import", Rule("get_images"), 200, versions::show_import;
            M::GET, "/v2/info/usage", "info:usage", Rule("get_images"), 200, quota::show;
            M::GET, "/v2/info/stores", "info:stores", Rule("get_images"), 200, stores::list;
            M::GET, "/v2/info/stores/detail", "info:stores_detail", Rule("stores_info_detail"), 200, stores::detail;
            M::GET, "/v2/schemas/image", "schemas:image", Rule("get_images"), 200, schemas::image;
            M::GET, "/v2/schemas/images", "schemas:images", Rule("get_images"), 200, schemas::images;
            M::GET, "/v2/schemas/member", "schemas:member", Rule("get_images"), 200, schemas::member;
            M::GET, "/v2/schemas/members", "schemas:members", Rule("get_images"), 200, schemas::members;
            M::GET, "/v2/schemas/task", "schemas:task", Rule("get_images"), 200, schemas::task;
            M::GET, "/v2/schemas/tasks", "schemas:tasks", Rule("get_images"), 200, schemas::tasks;
            M::POST, "/v2/images", "images:create", Rule("add_image"), 201, ops::create;
            M::GET, "/v2/images", "images:list", Rule("get_images"), 200, ops::list;
            M::DELETE, "/v2/images", "images:delete_nameless", Rule("delete_image"), 404, ops::nameless;
            M::PATCH, "/v2/images", "images:update_nameless", Rule("modify_image"), 404, ops::nameless;
            M::GET, "/v2/images/{image_id}", "images:show", Rule("get_image"), 200, ops::show;
            M::PATCH, "/v2/images/{image_id}", "images:update", Rule("modify_image"), 200, ops::update;
            M::DELETE, "/v2/images/{image_id}", "images:delete", Rule("delete_image"), 204, ops::delete;
            M::PUT, "/v2/images/{image_id}/file", "images:upload", Rule("upload_image"), 204, data::upload;
            M::GET, "/v2/images/{image_id}/file", "images:download", Rule("download_image"), 200, data::download;
            M::PUT, "/v2/images/{image_id}/stage", "images:stage", Rule("modify_image"), 204, data::stage;
            M::POST, "/v2/images/{image_id}/import", "images:import", Rule("modify_image"), 202, import::import;
            M::GET, "/v2/images/{image_id}/tasks", "images:tasks", Rule("get_image"), 200, tasks::ops::of_image;
            M::POST, "/v2/images/{image_id}/locations", "locations:create", Rule("add_image_location"), 202, import::locations::create;
            M::GET, "/v2/images/{image_id}/locations", "locations:list", Rule("fetch_image_location"), 200, import::locations::list;
            M::POST, "/v2/tasks", "tasks:create", Rule("add_task"), 201, tasks::ops::create;
            M::GET, "/v2/tasks", "tasks:list", Rule("get_tasks"), 200, tasks::ops::list;
            M::GET, "/v2/tasks/{task_id}", "tasks:show", Rule("get_task"), 200, tasks::ops::show;
            M::DELETE, "/v2/tasks/{task_id}", "tasks:delete", Rule("modify_task"), 405, tasks::ops::delete;
            M::GET, "/v2/cache", "cache:list", Rule("cache_list"), 200, cache::list;
            M::DELETE, "/v2/cache", "cache:clear", Rule("cache_delete"), 204, cache::clear;
            M::POST, "/v2/cache/clean", "cache:clean", Rule("cache_clean"), 200, cache::clean;
            M::POST, "/v2/cache/prune", "cache:prune", Rule("cache_prune"), 200, cache::prune;
            M::GET, "/v2/cache/nodes/{image_id}", "cache:nodes", Rule("list_cached_nodes"), 409, cache::nodes;
            M::PUT, "/v2/cache/{image_id}", "cache:queue", Rule("cache_image"), 202, cache::queue;
            M::DELETE, "/v2/cache/{image_id}", "cache:delete", Rule("cache_delete"), 204, cache::delete;
            M::POST, "/v2/images/{image_id}/actions/deactivate", "images:deactivate", Rule("deactivate"), 204, ops::deactivate;
            M::POST, "/v2/images/{image_id}/actions/reactivate", "images:reactivate", Rule("reactivate"), 204, ops::reactivate;
            M::PUT, "/v2/images/{image_id}/tags/{tag}", "tags:create", Rule("modify_image"), 204, ops::add_tag;
            M::DELETE, "/v2/images/{image_id}/tags/{tag}", "tags:delete", Rule("modify_image"), 204, ops::remove_tag;
            M::DELETE, "/v2/stores/{store_id}/{image_id}", "stores:delete", Rule("delete_image_location"), 204, stores::delete;
            M::POST, "/v2/images/{image_id}/members", "members:create", Rule("add_member"), 200, members::create;
            M::GET, "/v2/images/{image_id}/members", "members:list", Rule("get_members"), 200, members::list;
            M::GET, "/v2/images/{image_id}/members/{member_id}", "members:show", Rule("get_member"), 200, members::show;
            M::PUT, "/v2/images/{image_id}/members/{member_id}", "members:update", Rule("modify_member"), 200, members::update;
            M::DELETE, "/v2/images/{image_id}/members/{member_id}", "members:delete", Rule("delete_member"), 204, members::delete;
        }
    }
}
