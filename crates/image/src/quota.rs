//! What images count towards: Glance's `image_count_total` and `image_size_total`, per owning project.

use crate::document::Image;
use base::{Fault, Result};
use store::{Reader, Tx};

pub const COUNT: &str = "image_count_total";
/// In mebibytes, as Glance's registered limit has it.
pub const SIZE: &str = "image_size_total";

/// The limits of a project without its own; none or negative is unlimited.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub image_count_total: Option<i64>,
    pub image_size_total_mib: Option<i64>,
}

/// Charges a whole image (`times` 1) to its owner, or gives it back (-1). TooLarge beyond a limit.
pub fn charge(tx: &mut Tx, defaults: &Defaults, image: &Image, times: i64) -> Result<()> {
    let Some(owner) = &image.owner else { return Ok(()) };
    add(tx, owner, COUNT, times, defaults.image_count_total)?;
    add(tx, owner, SIZE, times * image.quota_mib(), defaults.image_size_total_mib)
}

/// Charges the bytes of an image that becomes active.
pub fn charge_size(tx: &mut Tx, defaults: &Defaults, image: &Image) -> Result<()> {
    let Some(owner) = &image.owner else { return Ok(()) };
    add(tx, owner, SIZE, image.quota_mib(), defaults.image_size_total_mib)
}

fn add(tx: &mut Tx, owner: &str, resource: &'static str, delta: i64, limit: Option<i64>) -> Result<()> {
    match tx.charge(owner, resource, delta, limit) {
        Ok(_) => Ok(()),
        Err(store::Error::Quota { used, limit, asked, .. }) => Err(over(owner, resource, limit, used, asked)),
        Err(other) => Err(other.into()),
    }
}

/// Refuses an upload whose announced size can no longer fit, before any byte is taken.
pub fn precheck(reader: &mut Reader, defaults: &Defaults, image: &Image, announced: u64) -> Result<()> {
    let Some(owner) = &image.owner else { return Ok(()) };
    let usage = reader.usage(owner, SIZE)?;
    let asked = i64::try_from(announced.div_ceil(1 << 20)).unwrap_or(i64::MAX);
    let limit = usage.limit.or(defaults.image_size_total_mib).filter(|limit| *limit >= 0);
    match limit {
        Some(limit) if usage.used.saturating_add(asked) > limit => Err(over(owner, SIZE, limit, usage.used, asked)),
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
