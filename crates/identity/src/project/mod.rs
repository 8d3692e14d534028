//! Projects: a tree below each domain, with tags.
//!
//! Names are unique within a domain. A project with children is not deleted, one with enabled children is not disabled;
//! what belonged to a deleted project (assignments, application credentials, limits) goes with it in one commit.

mod tags;

use crate::documents::*;
use crate::fields::{Fields, merge_options};
use crate::listing::{allowed, filtered, forbid, linked, missing, single};
use crate::{Identity, duplicate};
use base::{DomainId, Fault, FaultKind, ProjectId, Result, Timestamp};
use policy::Target;
use rest::{Call, Reply, Route};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Document, Query, Tx};

/// How many projects may stand on top of each other, not counting the domain. Keystone's default.
pub const DEPTH: usize = 5;
pub(crate) const NAME_CHARS: usize = 64;

pub(crate) fn routes(identity: &Arc<Identity>) -> Vec<Route> {
    let mut routes = routes![identity;
        GET "/v3/projects", "projects:list", "identity:list_projects", 200, list;
        POST "/v3/projects", "projects:create", "identity:create_project", 201, create;
        GET "/v3/projects/{id}", "projects:show", "identity:get_project", 200, show;
        PATCH "/v3/projects/{id}", "projects:update", "identity:update_project", 200, update;
        DELETE "/v3/projects/{id}", "projects:delete", "identity:delete_project", 204, delete;
    ];
    routes.extend(tags::routes(identity));
    routes
}

pub(crate) fn shown(call: &Call, project: &Project) -> Value {
    let mut object = project.extra.clone();
    object.extend(pairs([
        ("id", json!(project.id)),
        ("name", json!(project.name)),
        ("domain_id", json!(project.domain_id)),
        ("description", project.description.clone()),
        ("enabled", json!(project.enabled)),
        ("parent_id", json!(project.parent_id)),
        ("is_domain", json!(project.is_domain)),
        ("tags", json!(project.tags)),
        ("options", json!(project.options)),
    ]));
    linked(call, "projects", object)
}

pub(crate) fn pairs<const N: usize>(pairs: [(&str, Value); N]) -> impl Iterator<Item = (String, Value)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value))
}

/// As policies see it.
fn target(project: &Project) -> Target<'static> {
    let id = project.id.to_string();
    Target::new()
        .with("target.project.id", id)
        .with("target.project.domain_id", project.domain_id.as_ref().map(|id| id.to_string()))
}

fn find(identity: &Identity, id: &str) -> Option<Arc<Project>> {
    identity.model().projects.get(id).cloned()
}

async fn list(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let scope = call.caller.domain_id();
    forbid(&call, &Target::new().with("target.domain_id", scope.as_ref().map(|id| id.to_string())))?;
    let domains = call.query.has("is_domain") && crate::listing::set(&call, "is_domain");
    let mut items = Vec::new();
    {
        let model = identity.model();
        let mine = |p: &Project| scope.as_ref().is_none_or(|id| p.domain() == id.as_str());
        let found = model.projects.all().filter(|p| p.is_domain == domains && mine(p));
        items.extend(found.filter(|p| tags::fit(&call, p)).map(|project| shown(&call, project)));
    }
    filtered(&call, "projects", items, &["name", "domain_id", "enabled", "parent_id", "is_domain"])
}

async fn show(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let project = allowed(&call, find(&identity, call.param("id")), "project", |p| target(p))?;
    let mut object = shown(&call, &project);
    relatives(&identity, &call, &project, &mut object)?;
    single(&call, 200, "project", object)
}

/// `parents_as_list`, `subtree_as_list` (only what the caller may work in) and their `_as_ids`.
fn relatives(identity: &Identity, call: &Call, project: &Project, object: &mut Value) -> Result<()> {
    let has = |name| call.query.has(name);
    if has("parents_as_list") && has("parents_as_ids") || has("subtree_as_list") && has("subtree_as_ids") {
        return Err(Fault::invalid("Cannot use _as_list and _as_ids at the same time."));
    }
    let model = identity.model();
    let user = call.caller.user_id();
    let wrapped = |p: &Arc<Project>| json!({"project": shown(call, p)});
    let mine = |p: &&Arc<Project>| !model.roles_of(&user, &Place::Project(p.id.clone())).is_empty();
    if has("parents_as_list") {
        object["parents"] = model.ancestors(project).filter(mine).map(wrapped).collect();
    }
    if has("subtree_as_list") {
        object["subtree"] = model.descendants(&project.id).iter().filter(mine).map(wrapped).collect();
    }
    if has("parents_as_ids") {
        let above: Vec<_> = model.ancestors(project).map(|p| p.id.to_string()).collect();
        object["parents"] = above.into_iter().rev().fold(Value::Null, |below, id| json!({ id: below }));
    }
    if has("subtree_as_ids") {
        object["subtree"] = subtree(&model, &project.id);
    }
    Ok(())
}

fn subtree(model: &crate::model::Model, id: &str) -> Value {
    let children: Map<String, Value> =
        model.projects.find("parent", id).map(|child| (child.id.to_string(), subtree(model, &child.id))).collect();
    if children.is_empty() { Value::Null } else { Value::Object(children) }
}

async fn create(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let mut fields = Fields::read(&mut call, "project").await?;
    let is_domain = fields.flag("is_domain")?.unwrap_or(false);
    let parent = fields.id("parent_id")?.flatten();
    let given = fields.id("domain_id")?.flatten();
    let domain = if is_domain { None } else { Some(domain_of(&identity, &call, given, parent.as_deref())) };
    forbid(&call, &Target::new().with("target.project.domain_id", domain.clone()))?;
    if is_domain && parent.is_some() {
        return Err(Fault::invalid("A project acting as a domain cannot have a parent."));
    }
    let project = Project {
        id: identity.env.uuid_hex().into(),
        name: fields.need_name("name", NAME_CHARS)?,
        parent_id: if is_domain { None } else { parent.or_else(|| domain.clone()).map(ProjectId::new) },
        domain_id: domain.map(DomainId::new),
        is_domain,
        enabled: fields.flag("enabled")?.unwrap_or(true),
        description: fields.description()?.unwrap_or_else(|| "".into()),
        tags: tags::read(fields.take("tags"))?,
        options: fields.object("options")?.unwrap_or_default(),
        extra: fields.rest()?,
    };
    let shown = shown(&call, &project);
    let limits = identity.options.limit_model;
    identity.write(&call, move |tx| insert(tx, &project, limits)).await?;
    single(&call, 201, "project", shown)
}

/// The domain of a new project: as given, else the parent's, else the token's.
fn domain_of(identity: &Identity, call: &Call, given: Option<String>, parent: Option<&str>) -> String {
    let of_parent = || parent.and_then(|id| Some(identity.model().projects.get(id)?.domain().to_owned()));
    given.or_else(of_parent).unwrap_or_else(|| usual_domain(call))
}

/// The domain that a caller means who names none.
pub(crate) fn usual_domain(call: &Call) -> String {
    let credentials = &call.caller.credentials;
    let id = credentials.domain_id.clone().or_else(|| credentials.project_domain_id.clone());
    id.map_or_else(|| "default".to_owned(), |id| id.to_string())
}

pub(crate) fn taken<T>(result: Result<T, store::Error>, what: &str, name: &str) -> Result<T> {
    match result {
        Err(store::Error::Taken { .. }) => Err(duplicate(what, name)),
        other => Ok(other?),
    }
}

fn insert(tx: &mut Tx, project: &Project, limits: crate::limit::Model) -> Result<()> {
    if let Some(parent) = &project.parent_id {
        let above = tx.get::<Project>(parent)?.ok_or_else(|| missing("project", parent))?.doc;
        if Some(above.domain()) != project.domain_id.as_deref() {
            return Err(Fault::invalid("The domain of a project must be that of its parent."));
        }
        limits.check_depth(&above)?;
        let chain = enabled_chain(tx, above)?;
        if chain > DEPTH {
            return Err(Fault::forbidden(format!("Max hierarchy depth reached for this branch: {DEPTH}.")));
        }
    }
    taken(tx.create(project).map(drop), "project", &project.name)
}

/// The number of projects from here up to the domain, which all must be enabled.
fn enabled_chain(tx: &mut Tx, mut above: Project) -> Result<usize> {
    let mut depth = 1;
    loop {
        if !above.enabled {
            let id = &above.id;
            return Err(Fault::forbidden(format!("Cannot use a branch where {id} is disabled.")));
        }
        let Some(parent) = &above.parent_id else { return Ok(depth) };
        above = tx.need::<Project>(parent)?.doc;
        depth += 1;
    }
}

async fn update(identity: Arc<Identity>, mut call: Call) -> Result<Reply> {
    let known = allowed(&call, find(&identity, call.param("id")), "project", |p| target(p))?;
    let mut fields = Fields::read(&mut call, "project").await?;
    fields.fixed("id", &json!(known.id))?;
    fields.fixed("domain_id", &json!(known.domain_id))?;
    let forbidden = |fault: Fault| Fault { kind: FaultKind::Forbidden, ..fault };
    fields.fixed("parent_id", &json!(known.parent_id)).map_err(forbidden)?;
    fields.fixed("is_domain", &json!(known.is_domain)).map_err(forbidden)?;
    let change = Changes::read(fields)?;
    let id = known.id.to_string();
    let project = identity.write(&call, move |tx| change.apply(tx, &id, "project")).await?;
    single(&call, 200, "project", shown(&call, &project))
}

/// What may change about a project or a domain.
#[derive(Clone)]
pub(crate) struct Changes {
    name: Option<String>,
    enabled: Option<bool>,
    description: Option<Value>,
    tags: Option<std::collections::BTreeSet<String>>,
    options: Option<Extra>,
    extra: Extra,
}

impl Changes {
    pub fn read(mut fields: Fields) -> Result<Changes> {
        Ok(Changes {
            name: fields.name("name", NAME_CHARS)?,
            enabled: fields.flag("enabled")?,
            description: fields.description()?,
            tags: fields.take("tags").map(|value| tags::read(Some(value))).transpose()?,
            options: fields.object("options")?,
            extra: fields.rest()?,
        })
    }

    pub fn apply(&self, tx: &mut Tx, id: &str, what: &str) -> Result<Project> {
        let mut project = tx.get::<Project>(id)?.ok_or_else(|| missing(what, id))?.doc;
        let (was, fixed) = (project.enabled, immutable(&project));
        let change = self.clone();
        project.name = change.name.unwrap_or(project.name);
        project.enabled = change.enabled.unwrap_or(was);
        project.description = change.description.unwrap_or(project.description);
        project.tags = change.tags.unwrap_or(project.tags);
        merge_options(&mut project.options, change.options.unwrap_or_default());
        project.extra.extend(change.extra);
        // Who takes the option away may change the rest in the same request.
        if fixed && immutable(&project) {
            return Err(is_immutable(what, id));
        }
        match (was, project.enabled, project.is_domain) {
            (false, true, false) => {
                let parent = project.parent_id.clone().unwrap_or_default();
                let above = tx.need::<Project>(&parent)?.doc;
                enabled_chain(tx, above)?;
            }
            (true, false, false) => {
                let below = tx.list::<Project>(Query::index("parent", id))?;
                if below.iter().any(|child| child.enabled) {
                    return Err(Fault::forbidden(format!(
                        "Cannot disable project {id} since its subtree contains enabled projects."
                    )));
                }
                revoke(tx, Revocation { project_id: Some(project.id.clone()), ..Revocation::default() })?;
            }
            (true, false, true) => {
                revoke(tx, Revocation { domain_id: Some(id.into()), ..Revocation::default() })?;
            }
            _ => {}
        }
        taken(tx.update(&project), what, &project.name)?;
        Ok(project)
    }
}

pub(crate) fn immutable(project: &Project) -> bool {
    project.options.get("immutable") == Some(&Value::Bool(true))
}

pub(crate) fn is_immutable(what: &str, id: &str) -> Fault {
    Fault::forbidden(format!(
        "Unable to change immutable {what} resource: `{id}`. Set resource option 'immutable' to false first."
    ))
}

/// Writes a revocation of everything issued until now. Kept as long as a token may live, with a wide margin.
pub(crate) fn revoke(tx: &mut Tx, event: Revocation) -> Result<()> {
    let before: Timestamp = tx.now();
    let event = Revocation { id: tx.uuid_hex(), before, until: before.plus_s(14 * 86_400), ..event };
    tx.create(&event)?;
    Ok(())
}

async fn delete(identity: Arc<Identity>, call: Call) -> Result<Reply> {
    let project = allowed(&call, find(&identity, call.param("id")), "project", |p| target(p))?;
    if project.is_domain {
        return crate::domain::delete(identity, call).await;
    }
    let id = project.id.to_string();
    identity.write(&call, move |tx| remove(tx, &id, false)).await?;
    Ok(Reply::empty(204))
}

/// Deletes a project and what belongs to it; with `whole`, its subtree first.
pub(crate) fn remove(tx: &mut Tx, id: &str, whole: bool) -> Result<()> {
    let project = tx.get::<Project>(id)?.ok_or_else(|| missing("project", id))?.doc;
    if immutable(&project) {
        return Err(is_immutable("project", id));
    }
    let below = tx.list::<Project>(Query::index("parent", id))?;
    if !below.is_empty() && !whole {
        return Err(Fault::forbidden(format!(
            "Cannot delete the project {id} since it is not a leaf in the hierarchy."
        )));
    }
    for child in below {
        remove(tx, &child.id, true)?;
    }
    remove_where::<Assignment>(tx, "place", id)?;
    remove_where::<Limit>(tx, "owner", id)?;
    remove_where::<Credential>(tx, "project", id)?;
    remove_where::<RequestToken>(tx, "project", id)?;
    remove_where::<AccessToken>(tx, "project", id)?;
    for credential in tx.list::<ApplicationCredential>(Query::project(id))? {
        tx.delete::<ApplicationCredential>(&credential.id)?;
    }
    for filter in tx.list::<EndpointFilter>(Query::project(id))? {
        tx.delete::<EndpointFilter>(&filter.id)?;
    }
    for trust in tx.list::<Trust>(Query::project(id))? {
        if tx.get::<Trust>(&trust.id)?.is_some() {
            crate::trust::remove(tx, &trust.id)?;
        }
    }
    tx.delete::<Project>(&project.id)?;
    Ok(())
}

/// Deletes all documents with this index value.
pub(crate) fn remove_where<T: Document>(tx: &mut Tx, index: &'static str, value: &str) -> Result<()> {
    for found in tx.list::<T>(Query::index(index, value))? {
        tx.delete::<T>(found.id())?;
    }
    Ok(())
}
