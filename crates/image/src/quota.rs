//! What images count towards: Glance's `image_count_total` and `image_size_total`, per owning project.

use crate::Service;
use crate::document::Image;
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

/// Where limits come from.
#[derive(Clone, Default)]
pub struct Quota {
    /// The operator's registered limits and limits.
    pub limits: Option<Arc<dyn Limits>>,
    /// What holds where the operator registered nothing; none or negative is unlimited.
    pub image_count_total: Option<i64>,
    pub image_size_total_mib: Option<i64>,
}

impl Quota {
    /// The limit of a project; none is unlimited.
    pub(crate) fn limit(&self, reader: &mut Reader, owner: &ProjectId, resource: &str) -> Result<Option<i64>> {
        let default = if resource == COUNT { self.image_count_total } else { self.image_size_total_mib };
        let kept = match &self.limits {
            Some(limits) => limits.limit(reader, owner, "image", resource)?,
            None => None,
        };
        Ok(kept.or(default).filter(|limit| *limit >= 0))
    }
}

/// What the caller's project uses, as `GET /v2/info/usage` shows it. What is uploading or staged has no limit of its
/// own.
pub async fn show(service: Arc<Service>, call: Call) -> Result<Reply> {
    let project = call.project()?;
    call.enforce(&Target::project(project.as_str()))?;
    let quota = service.options.quota.clone();
    let usage = service.store.read(move |reader| {
        let mut of = |resource: &str| {
            let limit = quota.limit(reader, &project, resource)?.unwrap_or(-1);
            Ok::<_, Fault>(json!({"limit": limit, "usage": reader.usage(&project, resource)?.used}))
        };
        let (count, size) = (of(COUNT)?, of(SIZE)?);
        let images = reader.list::<Image>(Query::project(project.as_str()))?;
        let uploading = images.iter().filter(|image| image.transfer.is_some()).count();
        let staged: u64 = images.iter().filter_map(|image| image.staged.as_ref()).map(|s| s.contents.size_bytes).sum();
        Ok(json!({
            COUNT: count,
            SIZE: size,
            "image_stage_total": {"limit": -1, "usage": staged.div_ceil(1 << 20)},
            "image_count_uploading": {"limit": -1, "usage": uploading},
        }))
    });
    Reply::json(200, &json!({"usage": usage.await?}))
}

/// Charges a whole image (`times` 1) to its owner, or gives it back (-1). Quota beyond a limit.
pub fn charge(tx: &mut Tx, quota: &Quota, image: &Image, times: i64) -> Result<()> {
    let Some(owner) = &image.owner else { return Ok(()) };
    add(tx, quota, owner, COUNT, times)?;
    add(tx, quota, owner, SIZE, times * image.quota_mib())
}

/// Charges the bytes of an image that becomes active.
pub fn charge_size(tx: &mut Tx, quota: &Quota, image: &Image) -> Result<()> {
    let Some(owner) = &image.owner else { return Ok(()) };
    add(tx, quota, owner, SIZE, image.quota_mib())
}

fn add(tx: &mut Tx, quota: &Quota, owner: &ProjectId, resource: &'static str, delta: i64) -> Result<()> {
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
            recount::add(&mut counts, owner, COUNT, 1);
            recount::add(&mut counts, owner, SIZE, image.quota_mib());
        }
        Ok(counts)
    }
}

/// Refuses an upload whose announced size can no longer fit, before any byte is taken.
pub fn precheck(reader: &mut Reader, quota: &Quota, image: &Image, announced: u64) -> Result<()> {
    let Some(owner) = &image.owner else { return Ok(()) };
    let used = reader.usage(owner, SIZE)?.used;
    let asked = i64::try_from(announced.div_ceil(1 << 20)).unwrap_or(i64::MAX);
    match quota.limit(reader, owner, SIZE)? {
        Some(limit) if used.saturating_add(asked) > limit => Err(over(owner, SIZE, limit, used, asked)),
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
