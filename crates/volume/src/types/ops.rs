//! The operations on types, and who may use them.

use super::{DEFAULT, VolumeType, default_type, find, visible};
use crate::document::{Snapshot, Volume};
use crate::listing::Listing;
use crate::{Ask, Volumes, quota, table};
use base::{Fault, ProjectId, Result};
use rest::input::{self, Fields};
use rest::{Call, Reply, Route};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Query, Reader, Tx};

/// The most types of a cloud, and the most projects that one of them lets in by name.
const MOST: usize = 1_000;

pub fn routes(state: &Arc<Volumes>) -> Vec<Route> {
    table! { state;
        GET "/v3/{project_id}/types" "types:list" "volume_extension:type_get_all" 200 list;
        POST "/v3/{project_id}/types" "types:create" "volume_extension:type_create" 200 create;
        GET "/v3/{project_id}/types/default" "types:default" "volume_extension:type_get" 200 show_default;
        GET "/v3/{project_id}/types/{type_id}" "types:show" "volume_extension:type_get" 200 show;
        PUT "/v3/{project_id}/types/{type_id}" "types:update" "volume_extension:type_update" 200 update;
        DELETE "/v3/{project_id}/types/{type_id}" "types:delete" "volume_extension:type_delete" 202 delete;
        POST "/v3/{project_id}/types/{type_id}/action" "types:action" "volume_extension:type_get" 202 action, actions(&["addProjectAccess", "removeProjectAccess"]);
        GET "/v3/{project_id}/types/{type_id}/os-volume-type-access" "types:access" "volume_extension:volume_type_access:get_all_for_type" 200 access;
        GET "/v3/{project_id}/types/{type_id}/encryption" "types:encryption" "volume_extension:volume_type_encryption:get" 200 encryption;
    }
}

const LISTING: Listing = Listing {
    plural: "volume_types",
    filters: &["name", "extra_specs"],
    open: Some((52, "volume_type")),
    sorts: &["id", "name", "created_at", "updated_at"],
    brief: &[],
};

fn view(ask: &Ask, kind: &VolumeType) -> Value {
    let mut view = json!({
        "id": kind.id,
        "name": kind.name,
        "description": kind.description,
        "is_public": kind.public,
        "os-volume-type-access:is_public": kind.public,
    });
    let seen: Vec<&str> = super::specs::SEEN_BY_ALL.to_vec();
    let admin = ask.may("volume_extension:access_types_extra_specs", &ask.own());
    let specs = kind.extra_specs.iter().filter(|(name, _)| admin || seen.contains(&name.as_str()));
    view["extra_specs"] = json!(specs.collect::<std::collections::BTreeMap<_, _>>());
    if ask.may("volume_extension:access_types_qos_specs_id", &ask.own()) {
        view["qos_specs_id"] = json!(kind.qos);
    }
    view
}

async fn list(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let public = match ask.query.get("is_public").filter(|text| !text.eq_ignore_ascii_case("none")) {
        Some(_) if ask.is_admin() => ask.query.boolean("is_public")?,
        _ if ask.is_admin() && ask.query.has("is_public") => None,
        _ if ask.is_admin() => Some(true),
        _ => None,
    };
    let kinds = state.read(&ask, |reader, _| Ok(reader.list::<VolumeType>(Query::all())?)).await?;
    let seen = kinds.iter().filter(|kind| visible(&ask, kind) && public.is_none_or(|public| kind.public == public));
    let items = seen.map(|kind| {
        let mut item = view(&ask, kind);
        item["created_at"] = json!(kind.created.iso_naive());
        item
    });
    let mut body = LISTING.page(&ask, items.collect(), true)?;
    for item in body["volume_types"].as_array_mut().into_iter().flatten() {
        item.as_object_mut().map(|item| item.remove("created_at"));
    }
    ask.reply(200, &body)
}

async fn show(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let kind = state.read(&ask, find).await?;
    ask.reply(200, &json!({"volume_type": view(&ask, &kind)}))
}

async fn show_default(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let kind = state.read(&ask, |reader, _| default_type(reader)).await?;
    let kind = kind.ok_or_else(|| Fault::not_found("Default volume type can not be found."))?;
    ask.reply(200, &json!({"volume_type": view(&ask, &kind)}))
}

fn name_of(fields: &mut Fields<'_>) -> Result<Option<String>> {
    let Some(value) = fields.opt("name").filter(|value| !value.is_null()) else { return Ok(None) };
    input::name("name", value).map(Some)
}

fn unique(tx: &mut Tx, name: &str, but: &str) -> Result<()> {
    match tx.get_unique::<VolumeType>("name", [name])?.filter(|kind| kind.id != but) {
        Some(_) => Err(Fault::conflict(format!("Volume Type {name} already exists."))),
        None => Ok(()),
    }
}

async fn create(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("volume_type")?;
    outer.finish()?;
    let name = name_of(&mut fields)?.ok_or_else(|| Fault::invalid("'name' is a required property"))?;
    let description = fields.text_or_null("description", 0, 255)?;
    let public = fields.boolean("os-volume-type-access:is_public")?.unwrap_or(true);
    let extra_specs = match fields.opt("extra_specs").filter(|specs| !specs.is_null()) {
        Some(specs) => input::keyed("extra_specs", specs, super::specs::LEGAL_WITH_A_TYPE, 255)?,
        None => Default::default(),
    };
    fields.finish()?;
    let kind = state
        .write(&ask, move |tx, _| {
            unique(tx, &name, "")?;
            if tx.count::<VolumeType>(Query::all())? >= MOST {
                return Err(Fault::too_large(format!("A cloud has at most {MOST} volume types.")));
            }
            let kind = VolumeType {
                id: tx.uuid(),
                name: name.clone(),
                description: description.clone(),
                public,
                extra_specs: extra_specs.clone(),
                access: BTreeSet::new(),
                qos: None,
            };
            tx.create(&kind)?;
            Ok(kind)
        })
        .await?;
    let mut view = view(&ask, &kind);
    view.as_object_mut().map(|view| view.remove("qos_specs_id"));
    ask.reply(200, &json!({"volume_type": view}))
}

async fn update(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    ask.enforce_own()?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("volume_type")?;
    outer.finish()?;
    let name = name_of(&mut fields)?;
    let description = fields.opt("description").map(|value| match value {
        Value::Null => Ok(None),
        value => input::text("description", value, 0, 255).map(Some),
    });
    let description = description.transpose()?;
    let public = fields.boolean("is_public")?;
    fields.finish()?;
    if name.is_none() && description.is_none() && public.is_none() {
        return Err(Fault::invalid("Specify volume type name, description, is_public or a combination thereof."));
    }
    let kind = state
        .write(&ask, move |tx, ask| {
            let mut kind = find(tx, ask)?.doc;
            if let Some(name) = &name {
                unique(tx, name, &kind.id)?;
                if kind.name == DEFAULT && *name != DEFAULT {
                    return Err(Fault::invalid("The default volume type keeps its name."));
                }
                kind.name = name.clone();
            }
            kind.description = description.clone().unwrap_or(kind.description);
            kind.public = public.unwrap_or(kind.public);
            tx.update(&kind)?;
            Ok(kind)
        })
        .await?;
    let mut view = view(&ask, &kind);
    for field in ["qos_specs_id", "os-volume-type-access:is_public"] {
        view.as_object_mut().map(|view| view.remove(field));
    }
    ask.reply(200, &json!({"volume_type": view}))
}

fn in_use(reader: &mut Reader, id: &str) -> Result<bool> {
    if reader.count::<Volume>(Query::index("type", id).limit(1))? > 0 {
        return Ok(true);
    }
    let snapshots = reader.list::<Snapshot>(Query::all())?;
    Ok(snapshots.iter().any(|snapshot| snapshot.volume_type == id))
}

async fn delete(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    state
        .write(&ask, |tx, ask| {
            let kind = find(tx, ask)?;
            if kind.name == DEFAULT {
                return Err(Fault::invalid(format!("Volume type {} is the default and cannot be deleted.", kind.id)));
            }
            if in_use(tx, &kind.id)? {
                return Err(Fault::invalid("Target volume type is still in use."));
            }
            for resource in quota::OF_TYPES {
                let row = quota::of_type(resource, &kind.id);
                for project in &kind.access {
                    tx.set_limit(&quota::scope(project), &row, None)?;
                }
            }
            Ok(tx.delete::<VolumeType>(&kind.id).map(drop)?)
        })
        .await?;
    Ok(Reply::empty(202))
}

async fn action(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let (name, value) = input::action(&body)?;
    let adds = match name {
        "addProjectAccess" => true,
        "removeProjectAccess" => false,
        other => return Err(Fault::invalid(format!("There is no such action: {other:.100}"))),
    };
    ask.enforce_rule(&format!("volume_extension:volume_type_access:{name}"), &ask.own())?;
    let mut fields = Fields::of(name, value)?;
    let project = ProjectId::new(input::text("project", fields.need("project")?, 1, 255)?);
    fields.finish()?;
    state
        .write(&ask, move |tx, ask| {
            let mut kind = find(tx, ask)?.doc;
            let (id, has) = (kind.id.clone(), kind.access.contains(&project));
            match adds {
                true if kind.public => {
                    return Err(Fault::conflict("Type access modification is not applicable to public volume type."));
                }
                true if has => {
                    return Err(Fault::conflict(format!(
                        "Volume type access for {id} / {project} combination already exists."
                    )));
                }
                true if kind.access.len() >= MOST => {
                    return Err(Fault::too_large(format!("A volume type lets in at most {MOST} projects by name.")));
                }
                true => drop(kind.access.insert(project.clone())),
                false if kind.public => {
                    return Err(Fault::conflict("Type access modification is not applicable to public volume type."));
                }
                false if !has => {
                    return Err(Fault::not_found(format!(
                        "Volume type access not found for {id} / {project} combination."
                    )));
                }
                false => drop(kind.access.remove(&project)),
            }
            tx.update(&kind)?;
            Ok(())
        })
        .await?;
    Ok(Reply::empty(202))
}

async fn access(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    let kind = state.read(&ask, find).await?;
    if kind.public {
        return Err(Fault::not_found("Access list not available for public volume types."));
    }
    let list: Vec<Value> =
        kind.access.iter().map(|project| json!({"volume_type_id": kind.id, "project_id": project})).collect();
    ask.reply(200, &json!({"volume_type_access": list}))
}

/// No volume is encrypted yet.
async fn encryption(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    ask.enforce_own()?;
    state.read(&ask, find).await?;
    ask.reply(200, &json!({}))
}
