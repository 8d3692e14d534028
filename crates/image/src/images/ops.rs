//! The operations on images. Each is one transaction.

use super::list::{self, Source, Wanted};
use super::patch::{self, Change, Dialect};
use super::wire::{self, View};
use crate::document::{Image, Member, MemberStatus, Status, Visibility};
use crate::protection::Action;
use crate::tasks::Task;
use crate::{Service, quota, versions};
use base::{Fault, FaultKind, ImageId, ProjectId, Result, is_uuid};
use contract::Caller;
use policy::Target;
use rest::{Call, HeaderName, Reply, header};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Query, Reader, Stored};

/// True for who sees everything.
pub fn is_admin(caller: &Caller) -> bool {
    caller.has_role("admin")
}

/// The membership through which the caller's project shares the image, if the image is shared at all.
fn membership(reader: &mut Reader, caller: &Caller, image: &Image) -> Result<Option<ProjectId>> {
    let Some(project) = caller.project_id().filter(|_| image.visibility == Visibility::Shared) else { return Ok(None) };
    Ok(reader.get::<Member>(&Member::key(&image.id, &project))?.map(|_| project))
}

/// Whether the image exists for the caller at all.
pub fn visible(reader: &mut Reader, caller: &Caller, image: &Image) -> Result<bool> {
    let open = matches!(image.visibility, Visibility::Public | Visibility::Community) || image.owner.is_none();
    let own = caller.project_id().is_some_and(|project| image.owner == Some(project));
    Ok(is_admin(caller) || open || own || membership(reader, caller, image)?.is_some())
}

/// What the rules look at.
pub fn target<'a>(image: &'a Image, member: Option<&'a ProjectId>) -> Target<'a> {
    let owner = image.owner.as_deref();
    Target::new()
        .with("project_id", owner)
        .with("owner", owner)
        .with("visibility", image.visibility.as_str())
        .with("member_id", member.map(|project| project.as_str()))
}

/// Refuses tokens of another scope before anything is looked at: they are wrong for every image, seen or not.
pub fn only_projects(call: &Call) -> Result<()> {
    match call.policy.check(
        "get_images",
        &call.caller.credentials,
        &Target::project(call.caller.project_id().as_deref()),
    ) {
        policy::Decision::WrongScope => Err(Fault::forbidden("Images take tokens that are scoped to a project.")),
        _ => Ok(()),
    }
}

/// The same where one image is asked for, which is not there for such a token, as in Glance.
pub fn only_projects_see(call: &Call, id: &str) -> Result<()> {
    only_projects(call).map_err(|fault| Fault::not_found(format!("No image found with ID {id}. {}", fault.message)))
}

/// An image that the caller may see and do `rule` to. NotFound for one that it may not see, Forbidden otherwise.
pub fn find(reader: &mut Reader, call: &Call, id: &str, rule: &str) -> Result<Stored<Image>> {
    only_projects_see(call, id)?;
    let missing = || Fault::not_found(format!("No image found with ID {id}"));
    let image = reader.get::<Image>(id)?.ok_or_else(missing)?;
    if !visible(reader, &call.caller, &image)? {
        return Err(missing());
    }
    let member = membership(reader, &call.caller, &image)?;
    let target = target(&image, member.as_ref());
    if !call.may("get_image", &target) {
        return Err(missing());
    }
    call.enforce_rule(rule, &target)?;
    Ok(image)
}

/// Making an image public or a community image has a rule of its own.
pub fn may_have_visibility(call: &Call, image: &Image, visibility: Visibility) -> Result<()> {
    match visibility {
        Visibility::Public => call.enforce_rule("publicize_image", &target(image, None)),
        Visibility::Community => call.enforce_rule("communitize_image", &target(image, None)),
        Visibility::Shared | Visibility::Private => Ok(()),
    }
}

pub async fn create(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let body: Map<String, Value> = call.json().await?;
    let id = match body.get("id") {
        None => service.env.uuid(),
        Some(Value::String(id)) if id.len() == 36 && is_uuid(id) => id.clone(),
        Some(other) => {
            return Err(Fault::invalid(format!(
                "Provided object does not match schema 'image': {other} is not a UUID. Failed validating 'id'."
            )));
        }
    };
    let image = new_image(&service, &call, ImageId::new(id), &body)?;
    call.enforce(&target(&image, None)).map_err(|fault| match &image.owner {
        Some(owner) if Some(owner) != call.caller.project_id().as_ref() => {
            Fault::forbidden(format!("You are not permitted to create images owned by '{owner}'"))
        }
        _ => fault,
    })?;
    may_have_visibility(&call, &image, image.visibility)?;
    let (quota, caller) = (service.options.quota.clone(), call.caller.clone());
    let stored = service.store.write(call.cause(), move |tx| {
        if tx.get::<Image>(&image.id)?.is_some() {
            return Err(Fault::conflict(format!("Image ID {} already exists!", image.id)));
        }
        quota::settle(tx, &quota, None, Some(&image))?;
        Ok(tx.create(&image)?)
    });
    let stored = service.options.protections.shown(&caller, stored.await?.value);
    let reply = Reply::json(201, &View(&stored))?
        .header(header::LOCATION, call.link(&format!("/v2/images/{}", stored.id)))
        .header(HeaderName::from_static("openstack-image-import-methods"), versions::import_methods(&service).join(","))
        .header(HeaderName::from_static("openstack-image-store-ids"), service.stores.ids().join(","));
    Ok(reply)
}

pub fn new_image(service: &Service, call: &Call, id: ImageId, body: &Map<String, Value>) -> Result<Image> {
    let mut image = Image::queued(id, call.caller.project_id());
    for (name, value) in body {
        if wire::DISALLOWED.contains(&name.as_str()) || (name != "id" && wire::READ_ONLY.contains(&name.as_str())) {
            return Err(Fault::forbidden(format!("Attribute '{name}' is read-only.")));
        }
        if wire::is_reserved(name) || name == "locations" {
            return Err(Fault::forbidden(format!("Attribute '{name}' is reserved.")));
        }
        if name != "id" {
            wire::set(&mut image, name, value)?;
        }
    }
    let protections = &service.options.protections;
    image.properties.keys().try_for_each(|name| protections.need(&call.caller, Action::Create, name))?;
    Ok(image)
}

pub async fn show(service: Arc<Service>, call: Call) -> Result<Reply> {
    let caller = call.caller.clone();
    let image = service.store.read(move |reader| find(reader, &call, call.param("image_id"), call.rule)).await?;
    Reply::json(200, &View(&service.options.protections.shown(&caller, image)))
}

/// What a client asks for that leaves the id of an image empty, `/v2/images/`: no image. Glance's routes know no
/// slash at the end, and clients that test for it rely on the 404.
pub async fn nameless(_: Arc<Service>, call: Call) -> Result<Reply> {
    if call.path.ends_with('/') {
        return Err(Fault::not_found("No image found with an empty ID"));
    }
    let message = format!("The method {} is not allowed for this resource; allowed: GET, POST.", call.method);
    Err(Fault::new(FaultKind::MethodNotAllowed, message).named("GET, POST"))
}

pub async fn list(service: Arc<Service>, call: Call) -> Result<Reply> {
    if call.path.ends_with('/') {
        return nameless(service, call).await;
    }
    let wanted = Wanted::read(&call.query)?;
    let own = call.caller.project_id();
    call.enforce(&Target::project(own.as_deref()))?;
    let (caller, protections) = (call.caller.clone(), service.options.protections.clone());
    let (first, limit) = (link(&call.query.without("marker")), wanted.limit);
    let read = move |reader: &mut Reader| {
        // Before the filters: what cannot be seen is not found either.
        let shown = |image| protections.shown(&caller, image);
        let mut page = Page { limit, ..Page::default() };
        if let Some(rises) = wanted.by_creation() {
            let mut sources = by_creation(reader, &caller, &wanted, rises)?;
            wanted.read_page(&mut sources, reader, own.as_deref(), shown, |image| page.add(image))?;
        } else {
            let seen = all_visible(reader, &caller, wanted.member_status)?.into_iter().map(shown).collect();
            for image in wanted.page(seen, own.as_deref())? {
                page.add(&image)?;
            }
        }
        Ok(page)
    };
    let page = service.store.read(read).await?;
    // A full page is when Glance names a next one.
    let full = page.last.as_ref().filter(|_| page.count == limit);
    let next = full.map(|last| link(&call.query.with("marker", last)));
    Ok(Reply::json_bytes(200, page.finish(&first, next.as_deref())?))
}

/// Room for an image that is longer than the first one of its page.
const SPARE_BYTES: usize = 64;
const MOST_RESERVED: usize = 2 << 20;

/// A page as its bytes: images are written as they are read.
#[derive(Default)]
struct Page {
    images: Vec<u8>,
    limit: usize,
    count: usize,
    last: Option<ImageId>,
}

impl Page {
    fn add(&mut self, image: &Stored<Image>) -> Result<()> {
        self.images.extend_from_slice(if self.count == 0 { b"{\"images\":[" } else { b"," });
        serde_json::to_writer(&mut self.images, &View(image)).map_err(unwritten)?;
        if self.count == 0 {
            // The others are likely to be as long: the page does not move while it grows.
            self.images.reserve((self.images.len() + SPARE_BYTES).saturating_mul(self.limit).min(MOST_RESERVED));
        }
        (self.count, self.last) = (self.count + 1, Some(image.id.clone()));
        Ok(())
    }

    fn finish(self, first: &str, next: Option<&str>) -> Result<Vec<u8>> {
        let mut bytes = self.images;
        bytes.extend_from_slice(if self.count == 0 { b"{\"images\":[]," } else { b"]," });
        let mut rest = json!({"first": first, "schema": "/v2/schemas/images"});
        if let Some(next) = next {
            rest["next"] = json!(next);
        }
        // The same object goes on.
        bytes.extend_from_slice(&serde_json::to_vec(&rest).map_err(unwritten)?[1..]);
        Ok(bytes)
    }
}

fn unwritten(error: serde_json::Error) -> Fault {
    Fault::bug("a list of images cannot be written").because(error)
}

fn link(query: &str) -> String {
    if query.is_empty() { "/v2/images".to_owned() } else { format!("/v2/images?{query}") }
}

/// Everything that the caller may list, in no order: an administrator all, others the open images, their own, and what
/// is shared with them.
fn all_visible(reader: &mut Reader, caller: &Caller, status: Option<MemberStatus>) -> Result<Vec<Stored<Image>>> {
    if is_admin(caller) {
        return Ok(reader.list::<Image>(Query::all())?);
    }
    let mut images: BTreeMap<String, Stored<Image>> = BTreeMap::new();
    let mut found = reader.list::<Image>(Query::index("open", "yes"))?;
    if let Some(project) = caller.project_id() {
        found.extend(reader.list::<Image>(Query::project(project.as_str()))?);
        found.extend(shared_with(reader, &project, status)?);
    }
    for image in found {
        images.insert(image.id.to_string(), image);
    }
    Ok(images.into_values().collect())
}

fn shared_with(reader: &mut Reader, project: &ProjectId, status: Option<MemberStatus>) -> Result<Vec<Stored<Image>>> {
    let mut found = Vec::new();
    for member in reader.list::<Member>(Query::project(project.as_str()))? {
        let fits = status.is_none_or(|status| status == member.status);
        let image = if fits { reader.get::<Image>(&member.image)? } else { None };
        found.extend(image.filter(|image| image.visibility == Visibility::Shared));
    }
    Ok(found)
}

/// The same in the order of creation, after the marker. Invalid for a marker that the caller may not see.
fn by_creation(reader: &mut Reader, caller: &Caller, wanted: &Wanted, rises: bool) -> Result<Vec<Source>> {
    let marker = match &wanted.marker {
        None => None,
        Some(id) => {
            let found = reader.get::<Image>(id)?;
            let seen = found.as_ref().map(|image| visible(reader, caller, image)).transpose()?;
            Some(found.filter(|_| seen == Some(true)).ok_or_else(|| list::no_marker(id))?)
        }
    };
    let source = |query: Query| {
        let query = if rises { query } else { query.reverse() };
        let query = match &marker {
            Some(marker) => query.after(marker.id.as_str()),
            None => query,
        };
        Source::of(query)
    };
    if is_admin(caller) {
        return Ok(vec![source(Query::all())]);
    }
    let mut sources = vec![source(Query::index("open", "yes"))];
    if let Some(project) = caller.project_id() {
        sources.push(source(Query::project(project.as_str())));
        let mut shared = shared_with(reader, &project, wanted.member_status)?;
        wanted.put_in_order(&mut shared, marker.as_ref());
        sources.push(Source::these(shared));
    }
    Ok(sources)
}

pub async fn update(service: Arc<Service>, mut call: Call) -> Result<Reply> {
    let dialect = Dialect::of(call.header("content-type"))?;
    let body: Value = call.json().await?;
    let changes = patch::read(dialect, &body)?;
    let (quota, cause, caller) = (service.options.quota.clone(), call.cause(), call.caller.clone());
    let protections = service.options.protections.clone();
    let written = service.store.write(cause, move |tx| {
        let before = find(tx, &call, call.param("image_id"), call.rule)?;
        let mut image = before.doc.clone();
        for change in &changes {
            if matches!(change, Change::Replace { name, .. } | Change::Add { name, .. } if name == "owner")
                && !is_admin(&call.caller)
            {
                return Err(Fault::forbidden("Owner can't be updated by non admin."));
            }
            if let Some(visibility) = change.visibility() {
                may_have_visibility(&call, &before, visibility)?;
            }
            patch::apply(&mut image, change, &protections, &call.caller)?;
        }
        quota::settle(tx, &quota, Some(&before.doc), Some(&image))?;
        tx.update(&image)?;
        Ok(tx.need::<Image>(&image.id)?)
    });
    let image = service.options.protections.shown(&caller, written.await?.value);
    Reply::json(200, &View(&image))
}

/// The bytes are removed after the commit: a crash between leaves files without a document, which the sweeper finds.
pub async fn delete(service: Arc<Service>, call: Call) -> Result<Reply> {
    let (quota, cause) = (service.options.quota.clone(), call.cause());
    let deleted = service.store.write(cause, move |tx| {
        let image = find(tx, &call, call.param("image_id"), call.rule)?;
        if image.protected {
            let message = format!("Image {} is protected and cannot be deleted.", image.id);
            return Err(Fault::forbidden(message));
        }
        for member in tx.list::<Member>(Query::index("image", image.id.as_str()))? {
            tx.delete::<Member>(store::Document::id(&member.doc))?;
        }
        Task::forget(tx, &image.id)?;
        quota::settle(tx, &quota, Some(&image.doc), None)?;
        Ok(tx.delete::<Image>(&image.id)?)
    });
    let image = deleted.await?.value;
    if !store::scope::is_dry() {
        service.reclaim(&image.id).await;
    }
    Ok(Reply::empty(204))
}

pub async fn deactivate(service: Arc<Service>, call: Call) -> Result<Reply> {
    switch(service, call, Status::Active, Status::Deactivated).await
}

pub async fn reactivate(service: Arc<Service>, call: Call) -> Result<Reply> {
    switch(service, call, Status::Deactivated, Status::Active).await
}

async fn switch(service: Arc<Service>, call: Call, from: Status, to: Status) -> Result<Reply> {
    let cause = call.cause();
    let done = service.store.write(cause, move |tx| {
        let mut image = find(tx, &call, call.param("image_id"), call.rule)?.doc;
        if image.status != from && image.status != to {
            let message = format!("Not allowed to {} image in status '{}'", call.rule, image.status.as_str());
            return Err(Fault::new(FaultKind::Forbidden, message));
        }
        image.status = to;
        tx.update(&image)?;
        Ok(())
    });
    done.await?;
    Ok(Reply::empty(204))
}

pub async fn add_tag(service: Arc<Service>, call: Call) -> Result<Reply> {
    let tag = wire::tag(&json!(call.param("tag")))?;
    change_tags(service, call, move |image| {
        image.tags.insert(tag.clone());
        wire::within_limits(image)
    })
    .await
}

pub async fn remove_tag(service: Arc<Service>, call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    change_tags(service, call, move |image| match image.tags.remove(&tag) {
        true => Ok(()),
        false => Err(Fault::not_found(format!("The image has no tag '{tag}'."))),
    })
    .await
}

async fn change_tags(
    service: Arc<Service>,
    call: Call,
    change: impl Fn(&mut Image) -> Result<()> + Send + Sync + 'static,
) -> Result<Reply> {
    let cause = call.cause();
    let done = service.store.write(cause, move |tx| {
        let mut image = find(tx, &call, call.param("image_id"), call.rule)?.doc;
        change(&mut image)?;
        tx.update(&image)?;
        Ok(())
    });
    done.await?;
    Ok(Reply::empty(204))
}
