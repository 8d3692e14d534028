//! Members: the projects with which an image of visibility `shared` is shared.
//!
//! The owner offers, the member's project accepts or rejects; only an accepted image shows in the member's lists, but
//! an offered one can be shown and used by its id, as in Glance.

use crate::Service;
use crate::document::{Image, Member, MemberStatus, Visibility};
use crate::images::ops::{is_admin, only_projects_see, target};
use crate::images::visible;
use base::{Fault, ProjectId, Result, limits};
use contract::Caller;
use rest::{Call, Reply};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Query, Reader, Stored};

/// Most members of an image (Glance's default).
const MEMBERS: usize = 128;

fn view(member: &Stored<Member>) -> Value {
    json!({
        "member_id": member.project,
        "image_id": member.image,
        "status": member.status.as_str(),
        "created_at": member.created.iso_seconds(),
        "updated_at": member.updated.iso_seconds(),
        "schema": "/v2/schemas/member",
    })
}

/// The image whose members are asked for. NotFound where the caller may not see it, Forbidden where it is not shared
/// or where the rule says no.
fn shared_image(reader: &mut Reader, call: &Call, rule: &str) -> Result<Stored<Image>> {
    let id = call.param("image_id");
    only_projects_see(call, id)?;
    let missing = || Fault::not_found(format!("Image {id} not found."));
    let image = reader.get::<Image>(id)?.ok_or_else(missing)?;
    if !visible(reader, &call.caller, &image)? {
        return Err(missing());
    }
    if image.visibility != Visibility::Shared {
        return Err(Fault::forbidden("Only shared images have members."));
    }
    let own = call.caller.project_id();
    call.enforce_rule(rule, &target(&image, own.as_ref()))?;
    Ok(image)
}

/// The owner and administrators see every member, a member itself.
fn sees(caller: &Caller, image: &Image, member: &Member) -> bool {
    let own = caller.project_id();
    is_admin(caller) || own.is_some() && (own == image.owner || own.as_ref() == Some(&member.project))
}

fn find(reader: &mut Reader, call: &Call, image: &Image) -> Result<Stored<Member>> {
    let project = call.param("member_id");
    let found = reader.get::<Member>(&Member::key(&image.id, project))?;
    found
        .filter(|member| sees(&call.caller, image, member))
        .ok_or_else(|| Fault::not_found(format!("{project} not found in the member list of the image {}.", image.id)))
}

pub async fn create(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let project = match body.get("member") {
        None => return Err(Fault::invalid("Member to be added not specified")),
        Some(Value::String(project)) if !project.is_empty() => ProjectId::new(project.clone()),
        Some(_) => return Err(Fault::invalid("Member can't be empty")),
    };
    limits::text("member", &project, limits::NAME_CHARS)?;
    let cause = call.cause();
    let written = service.store.write(cause, move |tx| {
        let image = shared_image(tx, &call, call.rule)?;
        let member = Member::new(image.id.clone(), project.clone());
        let others = tx.list::<Member>(Query::index("image", image.id.as_str()))?;
        if others.iter().any(|other| other.project == project) {
            return Err(Fault::conflict(format!("Member {project} is duplicated for image {}", image.id)));
        }
        if others.len() >= MEMBERS {
            return Err(Fault::too_large(format!(
                "Image member limit exceeded for image {}: attempted {}, maximum {MEMBERS}",
                image.id,
                others.len() + 1
            )));
        }
        Ok(tx.create(&member)?)
    });
    Reply::json(200, &view(&written.await?.value))
}

pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    let listed = service.store.read(move |reader| {
        let image = shared_image(reader, &call, call.rule)?;
        let mut members = reader.list::<Member>(Query::index("image", image.id.as_str()))?;
        members.retain(|member| sees(&call.caller, &image, member));
        Ok(members)
    });
    let members: Vec<Value> = listed.await?.iter().map(view).collect();
    Reply::json(200, &json!({"members": members, "schema": "/v2/schemas/members"}))
}

/// Whatever is refused here is not there, so that nobody learns with whom an image is shared.
pub async fn show(service: Arc<Service>, call: Call) -> Result<Reply> {
    let found = service.store.read(move |reader| {
        let image = shared_image(reader, &call, call.rule).map_err(|fault| Fault::not_found(fault.message))?;
        find(reader, &call, &image)
    });
    Reply::json(200, &view(&found.await?))
}

pub async fn update(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let status = body.get("status").ok_or_else(|| Fault::invalid("Status not specified"))?;
    let status = status.as_str().and_then(MemberStatus::parse).ok_or_else(|| {
        Fault::invalid("Incorrect request: Status must be \"pending\", \"accepted\" or \"rejected\".")
    })?;
    let cause = call.cause();
    let written = service.store.write(cause, move |tx| {
        let image = shared_image(tx, &call, "get_member")?;
        let found = find(tx, &call, &image)?;
        call.enforce(&target(&image, Some(&found.project)))?;
        let mut member = found.doc;
        member.status = status;
        tx.update(&member)?;
        Ok(tx.need::<Member>(store::Document::id(&member))?)
    });
    Reply::json(200, &view(&written.await?.value))
}

pub async fn delete(service: Arc<Service>, call: Call) -> Result<Reply> {
    let cause = call.cause();
    let deleted = service.store.write(cause, move |tx| {
        let image = shared_image(tx, &call, "get_members")?;
        let member = find(tx, &call, &image)?;
        call.enforce(&target(&image, None))?;
        tx.delete::<Member>(store::Document::id(&member.doc))?;
        Ok(())
    });
    deleted.await?;
    Ok(Reply::empty(204))
}
