//! The trash and undo, as clients see them: what rests, purging it, and taking a request back.
//!
//! Whoever made a request may take it back, in the project in which it was made; who manages the project may take back
//! those of others there that they could have made themselves; administrators may take back any. A request of another
//! project is as good as none. What each kind makes of an undo is the store's and the services' own.

use crate::own_api::Own;
use base::{Fault, RequestId, Result};
use compute::Compute;
use identity::Identity;
use policy::{Rule, Scope, Target};
use rest::{Access, Call, Caller, Method, Reply, Route, Undo};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Held, PastRequest, Query, Reader, Stored, Trash, Tx, UndoPlan, UndoServices};

pub(crate) const RULES: &[Rule] = &[
    Rule::new("nubo:trash", "rule:project_reader_or_admin", &[Scope::Project], "See what rests in the trash."),
    Rule::new("nubo:purge", "rule:project_member_or_admin", &[Scope::Project], "Empty a part of the trash."),
    Rule::new("nubo:undo", "rule:project_member_or_admin", &[Scope::Project], "Take one's own request back."),
    Rule::new(
        "nubo:undo:project",
        "rule:project_manager_or_admin",
        &[Scope::Project],
        "Take back another's request in the project, where its operation is allowed too.",
    ),
    Rule::new("nubo:undo:any", "role:admin", &[Scope::System, Scope::Project], "Take back any request, see all trash."),
];

/// The most entries of one page.
const PAGE: usize = 1000;
/// The most collisions that a refusal names.
const NAMED: usize = 10;

/// Whose limits hold where an undo charges again.
pub(crate) struct Bin {
    pub own: Arc<Own>,
    pub identity: Arc<Identity>,
    pub image: Arc<image::Service>,
    pub compute: Arc<Compute>,
    pub volume: Arc<volume::Volumes>,
}

/// What the services do for one undo.
struct ForUndo<'a> {
    bin: &'a Bin,
    user: &'a str,
    request: &'a str,
}

pub(crate) fn routes(bin: &Arc<Bin>) -> Vec<Route> {
    let rule = |name| Access::Rule(name);
    let (one, undo) = ("/nubo/v1/trash/{id}", "/nubo/v1/undo/{request_id}");
    vec![
        Route::new(bin, Method::GET, "/nubo/v1/trash", "nubo:trash", rule("nubo:trash"), 200, list)
            .no_past("what rested then may be gone for good"),
        Route::new(bin, Method::DELETE, one, "nubo:purge", rule("nubo:purge"), 204, purge)
            .no_undo("what is purged is gone for good"),
        Route::new(bin, Method::GET, undo, "nubo:undo:plan", rule("nubo:undo"), 200, plan)
            .no_past("a plan is made of what is there now"),
        Route::new(bin, Method::POST, undo, "nubo:undo", rule("nubo:undo"), 200, take_back)
            .no_undo("an undo is not undone: repeat the call that it took back"),
    ]
}

fn is_admin(call: &Call) -> bool {
    call.may("nubo:undo:any", &Target::default())
}

fn own_target(call: &Call) -> Result<Target<'static>> {
    Ok(Target::project(call.project()?.to_string()))
}

async fn list(bin: Arc<Bin>, call: Call) -> Result<Reply> {
    let scope = if is_admin(&call) && call.query.boolean("all_projects")?.unwrap_or(false) {
        Query::all()
    } else {
        call.enforce(&own_target(&call)?)?;
        Query::project(call.project()?.as_str())
    };
    let limit = call.query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(PAGE).clamp(1, PAGE);
    let mut query = scope.limit(limit);
    if let Some(marker) = call.query.get("marker") {
        query = query.after(marker);
    }
    let trash = bin.own.store.list::<Trash>(query).await?;
    call.reply(200, &json!({"trash": trash.iter().map(view).collect::<Vec<_>>()}))
}

fn view(trash: &Stored<Trash>) -> Value {
    let documents = trash.documents.iter().map(|document| {
        let body: Value = serde_json::from_str(&document.body).unwrap_or_default();
        json!({"kind": document.kind, "id": document.id, "name": body.get("name"), "project_id": document.project_id})
    });
    json!({
        "id": trash.id,
        "request_id": trash.request_id.as_str(),
        "operation": trash.what,
        "project_id": trash.project_id,
        "user_id": trash.actor,
        "deleted_at": trash.deleted.iso_seconds(),
        "purged_at": trash.until.iso_seconds(),
        "documents": documents.collect::<Vec<_>>(),
    })
}

async fn purge(bin: Arc<Bin>, call: Call) -> Result<Reply> {
    let cause = call.cause();
    let purge = move |tx: &mut store::Tx| {
        let id = call.param("id");
        let missing = || Fault::not_found(format!("Nothing of this name rests in the trash: {id}."));
        let named = tx.get::<Trash>(id)?;
        let found = match named {
            Some(trash) => Some(trash),
            None => tx.list::<Trash>(Query::index("request", id).limit(1))?.pop(),
        };
        let trash = found.ok_or_else(missing)?;
        if !is_admin(&call) {
            let own = call.project()?.as_str() == trash.project_id;
            if !own || trash.project_id.is_empty() {
                return Err(missing());
            }
            call.enforce(&own_target(&call)?)?;
        }
        compute::purge_trash(tx, &trash)
    };
    bin.own.store.write(cause, purge).await?;
    Ok(Reply::empty(204))
}

/// What an undo would do, what it would leave, and why.
async fn plan(bin: Arc<Bin>, call: Call) -> Result<Reply> {
    let (inner, asked) = (bin.clone(), Asked::of(&call)?);
    let planned = bin.own.store.read(move |reader| inner.plan(reader, &asked)).await?;
    call.reply(200, &shown(&planned))
}

async fn take_back(bin: Arc<Bin>, call: Call) -> Result<Reply> {
    let partial = call.query.boolean("partial")?.unwrap_or(false);
    let (inner, asked, cause) = (bin.clone(), Asked::of(&call)?, call.cause());
    let (by, user) = (cause.request_id.clone(), cause.actor.clone());
    let undone = bin.own.store.write(cause, move |tx| {
        let plan = inner.plan(tx, &asked)?;
        if !plan.short.is_empty() || (!partial && !plan.collisions.is_empty()) || plan.steps.is_empty() {
            return Err(refusal(&plan, partial));
        }
        tx.undo(&plan, &by, &mut ForUndo { bin: &inner, user: &user, request: by.as_str() })?;
        Ok(plan)
    });
    let undone = undone.await?.value;
    // Who hears that a credential is gone finds it gone.
    bin.identity.sync().await?;
    call.reply(200, &shown(&undone))
}

/// Which request, and who asks.
struct Asked {
    request_id: String,
    admin: bool,
    project: Option<String>,
    user: String,
    member: bool,
    manager: bool,
    caller: Arc<Caller>,
}

impl Asked {
    fn of(call: &Call) -> Result<Asked> {
        let project = call.caller.project_id().map(|project| project.to_string());
        let target = project.clone().map_or_else(Target::default, Target::project);
        Ok(Asked {
            request_id: call.param("request_id").to_owned(),
            admin: is_admin(call),
            member: call.may("nubo:undo", &target),
            manager: call.may("nubo:undo:project", &target),
            caller: call.caller.clone(),
            project,
            user: call.caller.credentials.user_id.to_string(),
        })
    }

    /// Refuses who may not take the request back, or not know of it.
    fn check(&self, request: &PastRequest, bin: &Bin) -> Result<()> {
        if self.admin {
            return Ok(());
        }
        let own = match request.projects.as_slice() {
            [] => request.actor == self.user,
            projects => projects.iter().all(|project| Some(project) == self.project.as_ref()),
        };
        if !own && request.actor == self.user && request.projects.iter().any(|it| Some(it) == self.project.as_ref()) {
            return Err(Fault::forbidden(format!(
                "Request {} changed things of other projects, too: only an administrator can take it back.",
                self.request_id
            )));
        }
        if !own {
            return Err(self.missing());
        }
        if self.member && request.actor == self.user || self.manager && bin.could_make(self, request) {
            return Ok(());
        }
        Err(Fault::forbidden(format!(
            "Request {} was made by another user: only that user, who manages the project or an administrator can take it back.",
            self.request_id
        )))
    }

    fn missing(&self) -> Fault {
        Fault::not_found(format!("Request {} could not be found, or it changed nothing.", self.request_id))
    }
}

impl Bin {
    fn plan(&self, reader: &mut Reader, asked: &Asked) -> Result<UndoPlan> {
        let request = reader.past_request(&asked.request_id)?.ok_or_else(|| asked.missing())?;
        asked.check(&request, self)?;
        self.can_be_undone(reader, &request)?;
        let mut services = ForUndo { bin: self, user: "", request: "" };
        let plan = reader.plan_undo(&asked.request_id, &mut services)?.ok_or_else(|| asked.missing())?;
        for step in plan.steps.iter().filter(|step| step.kind == "server" && !asked.admin) {
            if self.compute.is_locked_by_admin(reader, &step.id)? {
                return Err(Fault::forbidden(format!("Server {} was locked by an administrator.", step.id)));
            }
        }
        Ok(plan)
    }

    /// True where the caller may do what the request did: nobody takes back what is above them.
    fn could_make(&self, asked: &Asked, request: &PastRequest) -> bool {
        let gateway = self.own.gateway();
        let services = gateway.as_ref().map(|gateway| gateway.services()).unwrap_or_default();
        let Some(project) = &asked.project else { return false };
        let routes = services.iter().flat_map(|service| service.routes.iter().map(move |route| (service, route)));
        let found = routes.into_iter().find(|(_, route)| route.operation == request.what);
        found.is_some_and(|(service, route)| match route.access {
            Access::Open => false,
            Access::Rule(rule) => {
                let target = Target::project(project.as_str()).with("user_id", request.actor.as_str());
                service.policy.allows(rule, &asked.caller.credentials, &target)
            }
        })
    }

    /// The route table says which operations cannot, and why.
    fn can_be_undone(&self, reader: &mut Reader, request: &PastRequest) -> Result<()> {
        let gateway = self.own.gateway();
        let services = gateway.as_ref().map(|gateway| gateway.services()).unwrap_or_default();
        let route = services.iter().flat_map(|service| &service.routes).find(|route| route.operation == request.what);
        match route.map(|route| route.undo) {
            // What an undo itself removed rests like anything else.
            Some(Undo::Not(_)) if request.what == "nubo:undo" && rests(reader, &request.request_id)? => Ok(()),
            Some(Undo::Not(why)) => {
                let (id, what) = (&request.request_id, &request.what);
                Err(Fault::conflict(format!("Request {id} ({what}) cannot be undone: {why}.")))
            }
            _ => Ok(()),
        }
    }

    fn limit(&self, reader: &mut Reader, scope: &str, resource: &str) -> Result<Option<i64>> {
        if let Some(limit) = self.volume.undo_limit(reader, scope, resource)? {
            return Ok(limit);
        }
        if ["host:", "project:", "user:"].iter().any(|prefix| scope.starts_with(prefix)) {
            return self.compute.undo_limit(reader, scope, resource);
        }
        match network::quotas::default_limit(resource) {
            Some(limit) => Ok(Some(limit)),
            None => self.image.undo_limit(reader, scope, resource),
        }
    }
}

fn rests(reader: &mut Reader, request: &RequestId) -> Result<bool> {
    Ok(!reader.list::<Trash>(Query::index("request", request.as_str()).limit(1))?.is_empty())
}

impl UndoServices for ForUndo<'_> {
    fn limit(&mut self, reader: &mut Reader, scope: &str, resource: &str) -> Result<Option<i64>> {
        self.bin.limit(reader, scope, resource)
    }

    fn held(
        &mut self,
        reader: &mut Reader,
        kind: &str,
        id: &str,
        same: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Option<Held>> {
        let own = if kind == "server" { self.bin.compute.held_from_undo(reader, id)? } else { None };
        match own {
            Some(why) => Ok(Some((why, None))),
            None if kind == "access_rule" => identity::held_from_undo(reader, id, same),
            None if self.bin.volume.removes(kind) => self.bin.volume.held_from_undo(reader, kind, id, same),
            None => network::held_from_undo(reader, kind, id, same),
        }
    }

    fn remove(&mut self, tx: &mut Tx, kind: &str, id: &str) -> Result<()> {
        match kind {
            "server" => self.bin.compute.remove_by_undo(tx, id, self.user, self.request),
            _ if self.bin.volume.removes(kind) => self.bin.volume.remove_by_undo(tx, kind, id),
            _ => network::remove_by_undo(tx, kind, id),
        }
    }
}

fn shown(plan: &UndoPlan) -> Value {
    json!({"undo": {
        "request_id": plan.request.request_id.as_str(),
        "operation": plan.request.what,
        "user_id": plan.request.actor,
        "at": plan.request.at.iso_seconds(),
        "changes": plan.steps,
        "collisions": plan.collisions,
        "over_quota": plan.short,
        "never_kept": plan.left.iter().map(|(kind, id)| json!({"kind": kind, "id": id})).collect::<Vec<_>>(),
    }})
}

/// Why nothing was done, with what it collides, and what can be done nevertheless.
fn refusal(plan: &UndoPlan, partial: bool) -> Fault {
    let id = &plan.request.request_id;
    let named = plan.short.iter().chain(&plan.collisions).take(NAMED);
    let named: Vec<String> =
        named.map(|it| format!("{} {}: {}", it.kind.replace('_', " "), it.id, it.reason)).collect();
    if named.is_empty() {
        return Fault::conflict(format!("Request {id} has nothing left to undo."));
    }
    let rest = match plan.steps.len() {
        _ if !plan.short.is_empty() => "Nothing of it can be undone before there is room.".to_owned(),
        0 => "Nothing else is left to undo.".to_owned(),
        count if !partial => format!("The other {count} can be undone with partial=true."),
        _ => String::new(),
    };
    let more = (plan.short.len() + plan.collisions.len()).saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let text = format!("Request {id} was not undone. {}{more}. {rest}", named.join("; "));
    Fault::conflict(text.trim_end().to_owned())
}
