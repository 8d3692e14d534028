//! List, show, create, update, delete.

use super::{Flavor, find, wire};
use crate::{Ask, Compute, ask, input};
use base::{Fault, FlavorId, Result};
use rest::{Call, Page, Reply};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Query, Stored};

/// The largest number that Nova's columns hold.
pub const MOST: i64 = 0x7fff_ffff;

pub async fn list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let page = select(&state, &ask).await?;
    let items: Vec<_> = page.items.iter().map(|flavor| wire::brief(&ask, flavor)).collect();
    reply_page(&ask, "/flavors", items, &page)
}

pub async fn detail(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let page = select(&state, &ask).await?;
    let items: Vec<_> = page.items.iter().map(|flavor| wire::whole(&ask, flavor)).collect();
    reply_page(&ask, "/flavors/detail", items, &page)
}

fn reply_page(ask: &Ask, path: &str, items: Vec<Value>, page: &Page<Stored<Flavor>>) -> Result<Reply> {
    let mut body = json!({"flavors": items});
    if let Some(last) = page.items.last().filter(|_| page.more) {
        body["flavors_links"] = ask.next_link(path, &last.id);
    }
    ask.answer(wire::CHANGES, 200, body)
}

async fn select(state: &Compute, ask: &Ask) -> Result<Page<Stored<Flavor>>> {
    ask.enforce_own()?;
    ask.known_query(&["limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir"])?;
    let number = |key: &str, what: &str| -> Result<u64> {
        let Some(text) = ask.query.get(key) else { return Ok(0) };
        text.parse().map_err(|_| Fault::invalid(format!("Invalid {what} filter [{text}]")))
    };
    let (min_ram, min_disk) = (number("minRam", "minRam")?, number("minDisk", "minDisk")?);
    let admin = ask.is_admin();
    let public = match ask.query.get("is_public") {
        Some(text) if text.eq_ignore_ascii_case("none") => None,
        Some(_) if admin => ask.query.boolean("is_public").map_err(|_| {
            Fault::invalid(format!("Invalid is_public filter [{}]", ask.query.get("is_public").unwrap_or("")))
        })?,
        None if admin => Some(true),
        _ => None,
    };
    let project = ask.project_str();
    let all = state.store.list::<Flavor>(Query::all()).await?;
    let mut flavors: Vec<_> = all
        .into_iter()
        .filter(|flavor| flavor.visible_to(project, admin))
        .filter(|flavor| {
            public.is_none_or(|public| {
                flavor.is_public == public || (!public && flavor.visible_to(project, false) && !flavor.is_public)
            })
        })
        .filter(|flavor| flavor.ram_mib >= min_ram && flavor.disk_gib >= min_disk)
        .collect();
    sort(&mut flavors, ask)?;
    Page::cut(flavors, &rest::PageRequest::read(&ask.query)?, |flavor| flavor.id.as_str())
}

fn sort(flavors: &mut [Stored<Flavor>], ask: &Ask) -> Result<()> {
    let key = ask.query.get("sort_key").unwrap_or("flavorid");
    match key {
        "flavorid" | "id" => flavors.sort_by(|a, b| a.id.cmp(&b.id)),
        "name" => flavors.sort_by(|a, b| a.name.cmp(&b.name)),
        "memory_mb" => flavors.sort_by_key(|flavor| flavor.ram_mib),
        "vcpus" => flavors.sort_by_key(|flavor| flavor.vcpus),
        "root_gb" => flavors.sort_by_key(|flavor| flavor.disk_gib),
        "ephemeral_gb" => flavors.sort_by_key(|flavor| flavor.ephemeral_gib),
        "swap" => flavors.sort_by_key(|flavor| flavor.swap_mib),
        "is_public" => flavors.sort_by_key(|flavor| flavor.is_public),
        "created_at" => flavors.sort_by_key(|flavor| flavor.created),
        "updated_at" => flavors.sort_by_key(|flavor| flavor.updated),
        "rxtx_factor" => flavors.sort_by(|a, b| a.rxtx_factor.total_cmp(&b.rxtx_factor)),
        "disabled" | "deleted" | "deleted_at" | "vcpu_weight" => {}
        _ => {
            return Err(Fault::invalid(format!(
                "Invalid input for query parameters sort_key. Value: {key}. '{key}' is not a key that flavors can be sorted by"
            )));
        }
    }
    match ask.query.get("sort_dir").unwrap_or("asc") {
        "asc" => Ok(()),
        "desc" => {
            flavors.reverse();
            Ok(())
        }
        other => Err(Fault::invalid(format!(
            "Invalid input for query parameters sort_dir. Value: {other}. '{other}' is not one of ['asc', 'desc']"
        ))),
    }
}

pub async fn show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    let flavor = state.read(&ask, |reader, ask| find(reader, ask, ask.param("flavor_id"))).await?;
    ask.answer(wire::CHANGES, 200, json!({"flavor": wire::whole(&ask, &flavor)}))
}

pub async fn create(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, wire::CHANGES).await?;
    ask.enforce_own()?;
    let flavor = parse(&body, &state.env)?;
    let flavor = state
        .write(&ask, move |tx, _| {
            if tx.get::<Flavor>(&flavor.id)?.is_some() {
                return Err(Fault::conflict(format!("Flavor with ID {} already exists.", flavor.id)));
            }
            if tx.get_unique::<Flavor>("name", [&flavor.name])?.is_some() {
                return Err(Fault::conflict(format!("Flavor with name {} already exists.", flavor.name)));
            }
            Ok(tx.create(&flavor)?)
        })
        .await?;
    ask.answer(wire::CHANGES, 200, json!({"flavor": wire::whole(&ask, &flavor)}))
}

fn parse(body: &Value, env: &base::Env) -> Result<Flavor> {
    let mut body = input::Fields::body(body)?;
    let mut fields = body.object("flavor")?;
    body.finish()?;
    let name = input::name("name", fields.need("name")?)?;
    let id = match fields.opt("id") {
        None | Some(Value::Null) => None,
        Some(value @ Value::Number(_)) => Some(input::integer("id", value, 0, MOST)?.to_string()),
        Some(value) => {
            let id = input::text("id", value, 1, 255)?;
            let legal = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
            if !id.chars().all(legal) || id.trim() != id {
                return Err(input::refuse(
                    "id",
                    value,
                    format!("{} does not match '^(?! )[a-zA-Z0-9. _-]+(?<! )$'", input::repr(value)),
                ));
            }
            Some(id).filter(|id| id != "auto")
        }
    };
    let flavor = Flavor {
        id: FlavorId::new(id.unwrap_or_else(|| env.uuid())),
        name,
        ram_mib: input::integer("ram", fields.need("ram")?, 1, MOST)? as u64,
        vcpus: input::integer("vcpus", fields.need("vcpus")?, 1, MOST)? as u32,
        disk_gib: input::integer("disk", fields.need("disk")?, 0, MOST)? as u64,
        ephemeral_gib: fields.integer("OS-FLV-EXT-DATA:ephemeral", 0, MOST)?.unwrap_or(0) as u64,
        swap_mib: fields.integer("swap", 0, MOST)?.unwrap_or(0) as u64,
        rxtx_factor: fields.opt("rxtx_factor").map(rxtx).transpose()?.unwrap_or(1.0),
        is_public: fields.boolean("os-flavor-access:is_public")?.unwrap_or(true),
        description: fields.text_or_null("description", 0, 65_535)?,
        extra_specs: Default::default(),
        projects: Default::default(),
    };
    fields.finish()?;
    Ok(flavor)
}

fn rxtx(value: &Value) -> Result<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.len() < 40 => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number: &f64| number.is_finite() && *number > 0.0 && *number <= 3.40282e38)
        .ok_or_else(|| input::refuse("rxtx_factor", value, format!("{} is not a number above 0", input::repr(value))))
}

pub async fn update(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, wire::CHANGES).await?;
    ask.enforce_own()?;
    let mut outer = input::Fields::body(&body)?;
    let mut fields = outer.object("flavor")?;
    outer.finish()?;
    fields.need("description")?;
    let description = fields.text_or_null("description", 0, 65_535)?;
    fields.finish()?;
    let flavor = state
        .write(&ask, move |tx, ask| {
            let id = find(tx, ask, ask.param("flavor_id"))?.doc.id;
            Ok(tx.modify::<Flavor>(&id, |flavor| flavor.description = description.clone())?)
        })
        .await?;
    ask.answer(wire::CHANGES, 200, json!({"flavor": wire::whole(&ask, &flavor)}))
}

pub async fn delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    ask.enforce_own()?;
    state
        .write(&ask, move |tx, ask| {
            let flavor = find(tx, ask, ask.param("flavor_id"))?;
            tx.delete::<Flavor>(&flavor.id)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(202))
}
