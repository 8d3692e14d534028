//! What images count towards, per owning project: Glance's `image_count_total`, `image_size_total`,
//! `image_stage_total` and `image_count_uploading`.

use crate::Service;
use crate::document::{Image, Status};
use base::{Fault, ProjectId, Result};
use contract::Limits;
use contract::recount::{self, Counts, Recount};
use policy::Target;
use rest::{Call, Reply};
use serde_json::json;
use std::sync::Arc;
use store::{Query, Reader, Tx};

pub const COUNT: &str = "image_count_total";
/// In mebibytes, as Glance's registered limit has it.
pub const SIZE: &str = "image_size_total";
/// Bytes that are staged and wait for an import, in mebibytes.
pub const STAGE: &str = "image_stage_total";
/// Images whose bytes are on their way.
pub const UPLOADING: &str = "image_count_uploading";
pub const RESOURCES: [&str; 4] = [COUNT, SIZE, STAGE, UPLOADING];

/// Where limits come from.
#[derive(Clone, Default)]
pub struct Quota {
    /// The operator's registered limits and limits.
    pub limits: Option<Arc<dyn Limits>>,
    /// What holds where the operator registered nothing; none or negative is unlimited.
    pub image_count_total: Option<i64>,
    pub image_size_total_mib: Option<i64>,
    pub image_stage_total_mib: Option<i64>,
    pub image_count_uploading: Option<i64>,
}

impl Quota {
    /// The limit of a project; none is unlimited.
    pub(crate) fn limit(&self, reader: &mut Reader, owner: &ProjectId, resource: &str) -> Result<Option<i64>> {
        let default = match resource {
            COUNT => self.image_count_total,
            SIZE => self.image_size_total_mib,
            STAGE => self.image_stage_total_mib,
            _ => self.image_count_uploading,
        };
        let kept = match &self.limits {
            Some(limits) => limits.limit(reader, owner, "image", resource)?,
            None => None,
        };
        Ok(kept.or(default).filter(|limit| *limit >= 0))
    }
}

/// What an image counts towards, in the order of [`RESOURCES`].
fn usage(image: &Image) -> [i64; 4] {
    let mib = |bytes: u64| i64::try_from(bytes.div_ceil(1 << 20)).unwrap_or(i64::MAX);
    // Each copy lies somewhere.
    let size = image.contents.as_ref().map_or(0, |it| it.size_bytes.saturating_mul(it.stores.len() as u64));
    let staged = image.staged.as_ref().map_or(0, |staged| staged.contents.size_bytes);
    let on_its_way = matches!(image.status, Status::Saving | Status::Uploading | Status::Importing);
    [1, mib(size), mib(staged), i64::from(on_its_way)]
}

/// What the caller's project uses, as `GET /v2/info/usage` shows it.
pub async fn show(service: Arc<Service>, call: Call) -> Result<Reply> {
    let project = call.project()?;
    call.enforce(&Target::project(project.as_str()))?;
    let quota = service.options.quota.clone();
    let usage = service.store.read(move |reader| {
        let mut all = serde_json::Map::new();
        for resource in RESOURCES {
            let limit = quota.limit(reader, &project, resource)?.unwrap_or(-1);
            let used = reader.usage(&project, resource)?.used;
            all.insert(resource.to_owned(), json!({"limit": limit, "usage": used}));
        }
        Ok(all)
    });
    Reply::json(200, &json!({"usage": usage.await?}))
}

/// Charges what lies between an image before and after a change; none stands for an image that is not there. Quota
/// beyond a limit.
pub fn settle(tx: &mut Tx, quota: &Quota, before: Option<&Image>, after: Option<&Image>) -> Result<()> {
    let owner = |image: Option<&Image>| image.and_then(|image| image.owner.clone());
    let of = |image: Option<&Image>| image.map(usage).unwrap_or_default();
    let (from, to) = (owner(before), owner(after));
    for (n, resource) in RESOURCES.into_iter().enumerate() {
        let (had, has) = (of(before)[n], of(after)[n]);
        if from == to {
            add(tx, quota, &to, resource, has - had)?;
        } else {
            add(tx, quota, &from, resource, -had)?;
            add(tx, quota, &to, resource, has)?;
        }
    }
    Ok(())
}

fn add(tx: &mut Tx, quota: &Quota, owner: &Option<ProjectId>, resource: &'static str, delta: i64) -> Result<()> {
    let Some(owner) = owner.as_ref().filter(|_| delta != 0) else { return Ok(()) };
    let limit = quota.limit(tx, owner, resource)?;
    match tx.charge(owner, resource, delta, limit) {
        Ok(_) => Ok(()),
        Err(store::Error::Quota { used, limit, asked, .. }) => Err(over(owner, resource, limit, used, asked)),
        Err(other) => Err(other.into()),
    }
}

impl Recount for Service {
    fn name(&self) -> &'static str {
        "image"
    }

    fn recount(&self, reader: &mut Reader) -> Result<Counts> {
        let mut counts = Counts::new();
        for image in reader.list::<Image>(Query::all())? {
            let Some(owner) = &image.owner else { continue };
            for (resource, amount) in RESOURCES.into_iter().zip(usage(&image)) {
                recount::add(&mut counts, owner, resource, amount);
            }
        }
        Ok(counts)
    }
}

/// Refuses an upload whose announced size can no longer fit, before any byte is taken.
pub fn precheck(
    reader: &mut Reader,
    quota: &Quota,
    image: &Image,
    resource: &'static str,
    announced: u64,
) -> Result<()> {
    let Some(owner) = &image.owner else { return Ok(()) };
    let used = reader.usage(owner, resource)?.used;
    let asked = i64::try_from(announced.div_ceil(1 << 20)).unwrap_or(i64::MAX);
    match quota.limit(reader, owner, resource)? {
        Some(limit) if used.saturating_add(asked) > limit => Err(over(owner, resource, limit, used, asked)),
        _ => Ok(()),
    }
}

/// The words of oslo.limit.
fn over(owner: &str, resource: &str, limit: i64, used: i64, asked: i64) -> Fault {
    Fault::quota(format!(
        "Project {owner} is over a limit for [Resource {resource} is over limit of {limit} due to current usage {used} \
         and delta {asked}]"
    ))
}
