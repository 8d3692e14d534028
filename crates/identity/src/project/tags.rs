//! Tags of projects, and the filters of lists by tags.

use super::{find, target};
use crate::Identity;
use crate::documents::Project;
use crate::listing::{allowed, missing};
use base::{Fault, Result};
use rest::{Call, Reply, Route, header};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const TAGS: usize = 80;
const TAG_CHARS: usize = 255;

pub(super) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let (all, one) = ("/v3/projects/{id}/tags", "/v3/projects/{id}/tags/{tag}");
    routes![identity;
        GET all, "projects:tags:list", "identity:list_project_tags", 200, list;
        PUT all, "projects:tags:replace", "identity:update_project_tags", 200, replace;
        DELETE all, "projects:tags:clear", "identity:delete_project_tags", 204, clear;
        GET one, "projects:tags:check", "identity:get_project_tag", 204, check;
        PUT one, "projects:tags:add", "identity:create_project_tag", 201, add;
        DELETE one, "projects:tags:remove", "identity:delete_project_tag", 204, remove;
    ]
}

/// Tags of a body: a list of different names without `/` and `,`.
pub(super) fn read(value: Option<Value>) -> Result<BTreeSet<String>> {
    let Some(value) = value else { return Ok(BTreeSet::new()) };
    let tags: Vec<String> = serde_json::from_value(value)
        .map_err(|_| Fault::invalid("Invalid input for field 'tags': it must be a list of strings."))?;
    let count = tags.len();
    let set: BTreeSet<String> = tags.into_iter().collect();
    if set.len() != count {
        return Err(Fault::invalid("Invalid input for field 'tags': it has non-unique elements."));
    }
    set.iter().try_for_each(|tag| good(tag))?;
    enough(set.len())?;
    Ok(set)
}

fn good(tag: &str) -> Result<()> {
    base::limits::text("tags", tag, TAG_CHARS)?;
    if tag.is_empty() || tag.contains(['/', ',']) {
        return Err(Fault::invalid(format!("Invalid input for field 'tags': '{tag}' is empty or holds a '/' or ','.")));
    }
    Ok(())
}

fn enough(count: usize) -> Result<()> {
    if count > TAGS {
        return Err(Fault::invalid(format!("Invalid input for field 'tags': a project may have at most {TAGS}.")));
    }
    Ok(())
}

/// `tags` (all of them), `tags-any`, `not-tags`, `not-tags-any`.
pub(super) fn fit(call: &Call, project: &Project) -> bool {
    let has = |tag: &str| project.tags.contains(tag);
    let test = |name: &str, test: &dyn Fn(&str) -> bool| call.query.get(name).is_none_or(test);
    test("tags", &|tags| tags.split(',').all(has))
        && test("tags-any", &|tags| tags.split(',').any(has))
        && test("not-tags", &|tags| !tags.split(',').all(has))
        && test("not-tags-any", &|tags| !tags.split(',').any(has))
}

fn project(identity: &Identity, call: &Call) -> Result<Arc<Project>> {
    allowed(call, find(identity, call.param("id")), "project", |p| target(p))
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let project = project(&identity, &call)?;
    answer(&call, &project.tags)
}

fn answer(call: &Call, tags: &BTreeSet<String>) -> Result<Reply> {
    let links = json!({"next": null, "previous": null, "self": format!("{}{}", call.base_url, call.path)});
    call.reply(200, &json!({"links": links, "tags": tags}))
}

/// Changes the tags of the path's project, whose id has been checked.
fn change<'a, F>(
    identity: &'a Identity,
    call: &Call,
    id: String,
    change: F,
) -> impl Future<Output = Result<BTreeSet<String>>> + use<'a, F>
where
    F: Fn(&mut BTreeSet<String>) -> Result<()> + Send + 'static,
{
    let work = move |tx: &mut store::Tx| {
        let mut project = tx.need::<Project>(&id)?.doc;
        change(&mut project.tags)?;
        enough(project.tags.len())?;
        tx.update(&project)?;
        Ok(project.tags)
    };
    identity.write(call, work)
}

async fn replace(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let id = project(&identity, &call)?.id.to_string();
    let mut body: Map<String, Value> = call.json().await?;
    let given = body.remove("tags");
    if given.is_none() {
        return Err(Fault::invalid("Invalid input for field 'tags': it is a required property."));
    }
    let tags = read(given)?;
    let tags = change(&identity, &call, id, move |known| {
        known.clone_from(&tags);
        Ok(())
    });
    let tags = tags.await?;
    answer(&call, &tags)
}

async fn clear(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let id = project(&identity, &call)?.id.to_string();
    change(&identity, &call, id, |known| {
        known.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn check(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let project = project(&identity, &call)?;
    let tag = call.param("tag");
    if project.tags.contains(tag) { Ok(Reply::empty(204)) } else { Err(missing("project tag", tag)) }
}

async fn add(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    good(&tag)?;
    let (id, name) = (project(&identity, &call)?.id.to_string(), tag.clone());
    change(&identity, &call, id.clone(), move |known| {
        known.insert(tag.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::empty(201).header(header::LOCATION, call.link(&format!("/v3/projects/{id}/tags/{name}"))))
}

async fn remove(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    let id = project(&identity, &call)?.id.to_string();
    change(
        &identity,
        &call,
        id,
        move |known| if known.remove(&tag) { Ok(()) } else { Err(missing("project tag", &tag)) },
    )
    .await?;
    Ok(Reply::empty(204))
}
