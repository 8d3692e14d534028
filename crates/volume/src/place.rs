//! Finding a host for a volume: by what its type asks for, and by free room, in the commit that makes it.

use crate::document::{Pool, Volume, Why};
use crate::types::VolumeType;
use crate::{Volumes, messages};
use async_trait::async_trait;
use base::{Fault, HostName, Result};
use engine::{Outcome, Reconciler};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Cause, Change, Document, Query, Reader, Tx};

/// What a volume reserves of a host, in GiB of its nominal size.
pub const ROOM: &str = "VOLUME_GB";

pub fn scope(host: &str) -> String {
    format!("host:{host}")
}

pub fn capacity(state: &Volumes, pool: &Pool) -> i64 {
    (pool.total_gib as f64 * state.options.over_subscription) as i64
}

/// What a pool can do, by the names that extra specs ask for.
pub fn capabilities(pool: &Pool) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("volume_backend_name", pool.backend.clone()),
        ("storage_protocol", pool.backend.clone()),
        ("vendor_name", "nubo".to_owned()),
        ("driver_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("thin_provisioning_support", "true".to_owned()),
    ])
}

/// Specs of other scopes are for others; of ours, a pool must have what is asked for.
pub fn suits(pool: &Pool, specs: &BTreeMap<String, String>) -> std::result::Result<(), String> {
    let has = capabilities(pool);
    for (name, wanted) in specs {
        let name = match name.split_once(':') {
            Some(("capabilities", name)) => name,
            Some(_) => continue,
            None => name.as_str(),
        };
        let wanted = wanted.strip_prefix("<is> ").unwrap_or(wanted);
        match has.get(name) {
            Some(have) if have.eq_ignore_ascii_case(wanted) => {}
            Some(have) => return Err(format!("its {name} is {have}, not {wanted}")),
            None => return Err(format!("it has no {name}")),
        }
    }
    Ok(())
}

/// The zones that a type restricts its volumes to; none: all.
fn zones(specs: &BTreeMap<String, String>) -> Option<Vec<&str>> {
    specs.get("RESKEY:availability_zones").map(|zones| zones.split(',').map(str::trim).collect())
}

/// An administrator has frozen a host: what it has stays as it is.
pub fn refuse_frozen(reader: &mut Reader, host: Option<&HostName>) -> Result<()> {
    let Some(host) = host else { return Ok(()) };
    match reader.get::<Pool>(host)?.is_some_and(|pool| pool.frozen) {
        true => Err(Fault::invalid(
            "Invalid input received: Modification operations are not allowed on frozen storage backends.",
        )),
        false => Ok(()),
    }
}

/// How the search for a host ended.
pub enum Search {
    Found(HostName),
    /// None of those that would do answers now.
    Later,
    Never(Why),
}

/// Why a volume cannot be made in a pool, whether its host answers or not. `needed`: GiB, with what comes with it.
pub fn unfit(
    state: &Volumes,
    reader: &mut Reader,
    pool: &Pool,
    volume: &Volume,
    only: Option<&HostName>,
    needed: u64,
) -> Result<Option<String>> {
    let specs = reader.get::<VolumeType>(&volume.volume_type)?.map(|kind| kind.doc.extra_specs).unwrap_or_default();
    let used = reader.usage(&scope(&pool.host), ROOM)?.used;
    let left = capacity(state, pool).saturating_sub(used);
    Ok(if only.is_some_and(|only| *only != pool.host) {
        Some("what the volume is made of lies on another host".to_owned())
    } else if !pool.enabled {
        Some("it is disabled".to_owned())
    } else if pool.zone != volume.zone || zones(&specs).is_some_and(|zones| !zones.contains(&pool.zone.as_str())) {
        Some(format!("its zone is {}", pool.zone))
    } else if let Err(why) = suits(pool, &specs) {
        Some(why)
    } else if left < needed as i64 {
        Some(format!("it has room for {left} GiB, and {needed} are asked for"))
    } else {
        None
    })
}

/// `only`: the host on which the volume must be, since what it is made of lies there.
pub fn search(state: &Volumes, reader: &mut Reader, volume: &Volume, only: Option<&HostName>) -> Result<Search> {
    let (mut best, mut asleep, mut table) = (None::<(i64, HostName)>, false, Vec::new());
    for pool in reader.list::<Pool>(Query::all())? {
        let left = capacity(state, &pool).saturating_sub(reader.usage(&scope(&pool.host), ROOM)?.used);
        let mut why = unfit(state, reader, &pool, volume, only, volume.size_gib)?;
        if why.is_none() && !state.hosts.is_alive(&pool.host) {
            asleep = true;
            why = Some("it does not answer".to_owned());
        }
        match why {
            Some(why) => table.push(format!("{}: {why}", pool.host)),
            None if best.as_ref().is_none_or(|(most, host)| (left, host) > (*most, &pool.host)) => {
                best = Some((left, pool.host.clone()));
            }
            None => {}
        }
    }
    let young = reader.clock() < state.started.plus_ms(state.options.host_grace_ms);
    Ok(match best {
        Some((_, host)) => Search::Found(host),
        None if asleep || young && table.is_empty() => Search::Later,
        None => Search::Never(Why {
            message: match table.as_slice() {
                [] => "No host keeps volumes.".to_owned(),
                all => format!(
                    "None of {} hosts can take the volume: too little room, or not what its type asks for.",
                    all.len()
                ),
            },
            details: table.join("\n"),
        }),
    })
}

/// Takes the room and tells the host.
pub fn settle_on(state: &Volumes, tx: &mut Tx, volume: &mut Volume, host: HostName) -> Result<()> {
    let pool = tx.need::<Pool>(&host)?;
    tx.charge(&scope(&host), ROOM, volume.size_gib as i64, Some(capacity(state, &pool)))?;
    volume.host = Some(host);
    volume.goes_with = None;
    volume.touch();
    volume.verb_generation = volume.generation;
    Ok(())
}

/// Looks for a host and writes into the document what came of it.
pub fn place(state: &Volumes, tx: &mut Tx, volume: &mut Volume, only: Option<&HostName>) -> Result<bool> {
    match search(state, tx, volume, only)? {
        Search::Found(host) => settle_on(state, tx, volume, host)?,
        Search::Later => return Ok(false),
        Search::Never(why) => {
            messages::say(tx, &volume.project_id, &volume.id, messages::Event::NoHost, &why.message)?;
            volume.unplaceable = Some(why);
            volume.passing_since = None;
        }
    }
    Ok(true)
}

/// Where a volume must be by what it is made of.
pub fn bound_to(reader: &mut Reader, volume: &Volume) -> Result<Option<HostName>> {
    let Some(parent) = volume.origin.parent() else { return Ok(None) };
    Ok(reader.get::<Volume>(parent)?.and_then(|parent| parent.doc.host))
}

/// Gives volumes a host that found none when they were made.
pub struct Placer(pub Arc<Volumes>);

#[async_trait]
impl Reconciler for Placer {
    fn name(&self) -> &'static str {
        "volume_place"
    }

    fn concerns(&self, change: &Change) -> Option<String> {
        if change.kind != Volume::KIND {
            return None;
        }
        let volume = change.document::<Volume>().ok().flatten()?;
        volume.needs_placing().then(|| volume.id.to_string())
    }

    async fn pending(&self) -> Result<Vec<String>> {
        let volumes = self.0.store.list::<Volume>(Query::index("todo", "place")).await?;
        Ok(volumes.iter().map(|volume| volume.id.to_string()).collect())
    }

    async fn reconcile(&self, id: &str) -> Result<Outcome> {
        let (state, id) = (self.0.clone(), id.to_owned());
        let placed = self.0.store.write(Cause::new("nubo", "", "volume.place"), move |tx| {
            let Some(volume) = tx.get::<Volume>(&id)?.filter(|it| it.needs_placing()) else { return Ok(true) };
            let mut volume = volume.doc;
            let only = bound_to(tx, &volume)?;
            let placed = place(&state, tx, &mut volume, only.as_ref())?;
            tx.update(&volume)?;
            Ok(placed)
        });
        Ok(if placed.await?.value { Outcome::Settled } else { Outcome::Again { after_ms: 500 } })
    }
}
