//! Create, list, show, update, delete and tags, the same for every resource.
//!
//! A resource says what is its own ([`Resource`]); this module reads and checks bodies, asks the policy, keeps foreign
//! objects unseen (404) and forbidden ones refused (403), counts revisions and honours `If-Match`.

use crate::attr::{self, Attr, Input};
use crate::query::ListRequest;
use crate::standard::{Ctx, Look, Standard};
use crate::{Network, error};
use base::{Fault, Result};
use policy::Target;
use rest::{Access, Call, Method, Reply, Route};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use store::{Document, Query, Reader, Tx};

/// The names and attributes of a resource.
pub struct Info {
    /// As in `{"network": …}` and in the rules `create_network` and so on.
    pub one: &'static str,
    pub many: &'static str,
    pub attrs: &'static [Attr],
    /// Filters beyond the attributes.
    pub filters: &'static [&'static str],
}

/// What a resource adds to the common way.
pub trait Resource: Document + PartialEq {
    const INFO: Info;

    fn standard(&self) -> &Standard;
    fn standard_mut(&mut self) -> &mut Standard;
    fn not_found(id: &str) -> Fault;

    /// The object as an administrator sees it, without the standard attributes.
    fn show(&self, reader: &mut Reader, net: &Network) -> Result<Map<String, Value>>;

    /// What policies look at.
    fn target(&self, _reader: &mut Reader) -> Result<Target<'static>> {
        Ok(Target::project(self.project_id().to_owned()))
    }

    /// The same for what shall be made. May refuse what names an object that the caller may not know of.
    fn create_target(_reader: &mut Reader, _ctx: &Ctx, project: &str, _input: &Input) -> Result<Target<'static>> {
        Ok(Target::project(project.to_owned()))
    }

    /// What the object would be after an update, as far as policies look at it.
    fn update_target(target: Target<'static>, _input: &Input) -> Target<'static> {
        target
    }

    /// Guarded attributes that only a look inside their value finds, such as `fixed_ips:ip_address`.
    fn inner_rules(_input: &Input) -> Vec<&'static str> {
        Vec::new()
    }

    /// More documents than the caller's own that it may see. Each is checked against the policy afterwards.
    fn foreign(_reader: &mut Reader, _ctx: &Ctx) -> Result<Vec<Self>> {
        Ok(Vec::new())
    }

    /// An index that answers a filter, so that a list need not look at everything.
    fn index(_request: &ListRequest) -> Option<(&'static str, String)> {
        None
    }

    /// Makes and stores it.
    fn create(tx: &mut Tx, ctx: &Ctx, project: &str, input: &Input) -> Result<Self>;
    /// Changes it; the caller stores it and counts the revision.
    fn update(&mut self, tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<()>;
    /// Removes it with what belongs to it.
    fn delete(self, tx: &mut Tx, ctx: &Ctx) -> Result<()>;
}

pub fn rule<R: Resource>(verb: &str) -> String {
    format!("{verb}_{}", R::INFO.one)
}

/// The document, if the caller may know of it.
pub fn find<R: Resource>(reader: &mut Reader, ctx: &Ctx, id: &str) -> Result<(R, Target<'static>)> {
    let Some(doc) = reader.doc::<R>(id)? else { return Err(R::not_found(id)) };
    let target = doc.target(reader)?;
    if !ctx.may(&rule::<R>("get"), &target) {
        return Err(R::not_found(id));
    }
    Ok((doc, target))
}

/// The document, if the caller may do `verb` to it.
pub fn find_for<R: Resource>(reader: &mut Reader, ctx: &Ctx, id: &str, verb: &str) -> Result<(R, Target<'static>)> {
    let (doc, target) = find::<R>(reader, ctx, id)?;
    ctx.require(&rule::<R>(verb), &target)?;
    Ok((doc, target))
}

/// Stores a changed document, one revision further. Nothing happens where nothing changed.
pub fn save<R: Resource>(tx: &mut Tx, old: &R, doc: &mut R) -> Result<()> {
    if old != doc {
        doc.standard_mut().touch(tx.now());
        tx.update(doc)?;
    }
    Ok(())
}

/// Counts a revision because a child changed.
pub fn bump<R: Resource>(tx: &mut Tx, id: &str) -> Result<()> {
    if let Some(mut doc) = tx.doc::<R>(id)? {
        doc.standard_mut().touch(tx.now());
        tx.update(&doc)?;
    }
    Ok(())
}

/// The object as this caller sees it.
pub fn shown<R: Resource>(reader: &mut Reader, ctx: &Ctx, doc: &R) -> Result<Map<String, Value>> {
    let target = doc.target(reader)?;
    shown_to(reader, ctx, doc, &target)
}

fn shown_to<R: Resource>(reader: &mut Reader, ctx: &Ctx, doc: &R, target: &Target) -> Result<Map<String, Value>> {
    let mut object = doc.show(reader, &ctx.net)?;
    object.insert("id".into(), doc.id().into());
    object.insert("project_id".into(), doc.project_id().into());
    object.insert("tenant_id".into(), doc.project_id().into());
    doc.standard().show(&mut object);
    for attr in R::INFO.attrs.iter().filter(|attr| attr.hidden) {
        if !ctx.may(&format!("get_{}:{}", R::INFO.one, attr.name), target) {
            object.remove(attr.name);
        }
    }
    Ok(object)
}

fn guard<R: Resource>(ctx: &Ctx, verb: &str, input: &Input, target: &Target) -> Result<()> {
    let names = attr::guarded(R::INFO.attrs, verb == "create", input).chain(R::inner_rules(input));
    for name in names {
        ctx.require(&format!("{verb}_{}:{name}", R::INFO.one), target)?;
    }
    Ok(())
}

/// Makes one object of checked input.
pub fn create_one<R: Resource>(tx: &mut Tx, ctx: &Ctx, input: &Input) -> Result<R> {
    let project = ctx.owner(input)?;
    let target = R::create_target(tx, ctx, &project, input)?;
    ctx.require(&rule::<R>("create"), &target)?;
    guard::<R>(ctx, "create", input, &target)?;
    R::create(tx, ctx, &project, input)
}

pub async fn create<R: Resource>(net: Arc<Network>, mut call: Call) -> Result<Reply> {
    let body: Value = call.json().await?;
    let bulk = body.get(R::INFO.many).is_some();
    let maps = attr::objects(R::INFO.one, Some(R::INFO.many), body)?;
    let inputs = maps.into_iter().map(|map| attr::check(R::INFO.attrs, true, map)).collect::<Result<Vec<_>>>()?;
    let ctx = net.ctx(&call);
    let mut made = net.write(call.cause(), move |tx| {
        let mut made = Vec::new();
        for input in &inputs {
            let doc = create_one::<R>(tx, &ctx, input)?;
            // What was made may have been raised by its own children since.
            let doc = tx.doc::<R>(doc.id())?.unwrap_or(doc);
            made.push(shown(tx, &ctx, &doc)?);
        }
        Ok(made)
    }).await?;
    let answer = match made.pop() {
        Some(only) if !bulk => json!({R::INFO.one: only}),
        last => json!({R::INFO.many: made.into_iter().chain(last).collect::<Vec<_>>()}),
    };
    Reply::json(201, &answer)
}

pub async fn show<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    let request = fields_only(&call)?;
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let object = net.read(move |reader| {
        let (doc, target) = find::<R>(reader, &ctx, &id)?;
        let mut object = shown_to(reader, &ctx, &doc, &target)?;
        request.fields(&mut object);
        Ok(object)
    }).await?;
    Reply::json(200, &json!({R::INFO.one: object}))
}

fn fields_only(call: &Call) -> Result<ListRequest> {
    let fields: Vec<&str> = call.query.all("fields").collect();
    let text: String = fields.iter().map(|field| format!("fields={}&", field.replace(['&', '=', '%', '+'], ""))).collect();
    ListRequest::read(&rest::Query::parse(text.trim_end_matches('&'))?, &[], &[])
}

pub async fn list<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    let request = ListRequest::read(&call.query, R::INFO.attrs, R::INFO.filters)?;
    let (ctx, wanted) = (net.ctx(&call), request.clone());
    let mut page = net.read(move |reader| {
        let page = match (everything::<R>(&ctx, &wanted), wanted.first()) {
            (Some(query), Some(count)) => first::<R>(reader, &ctx, &wanted, &query, count)?,
            _ => {
                let mut objects = Vec::new();
                for doc in candidates::<R>(reader, &ctx, &wanted)? {
                    objects.extend(listed(reader, &ctx, &wanted, &doc)?);
                }
                wanted.page(objects)
            }
        };
        page.ok_or_else(|| R::not_found(wanted.marker.as_deref().unwrap_or("")))
    }).await?;
    let id = |object: Option<&Map<String, Value>>| object?.get("id")?.as_str().map(str::to_owned);
    let ids = (id(page.first()), id(page.last()));
    let links = request.links(&format!("{}{}", call.base_url, call.path), &call.query, ids, page.len());
    page.iter_mut().for_each(|object| request.fields(object));
    let mut answer = Map::from_iter([(R::INFO.many.to_owned(), json!(page))]);
    if let Some(links) = links {
        answer.insert(format!("{}_links", R::INFO.many), links);
    }
    Reply::json(200, &answer)
}

/// The object as a list shows it; none: not in this list.
fn listed<R: Resource>(reader: &mut Reader, ctx: &Ctx, request: &ListRequest, doc: &R) -> Result<Option<Map<String, Value>>> {
    let target = doc.target(reader)?;
    if !ctx.may(&rule::<R>("get"), &target) {
        return Ok(None);
    }
    Ok(Some(shown_to(reader, ctx, doc, &target)?).filter(|object| request.matches(object)))
}

/// The one query behind an administrator's list that no index narrows.
fn everything<R: Resource>(ctx: &Ctx, request: &ListRequest) -> Option<Query> {
    if !ctx.is_admin() || request.one("id").is_some() || R::index(request).is_some() {
        return None;
    }
    let asked = request.one("project_id").or_else(|| request.one("tenant_id"));
    Some(match asked {
        Some(project) if !project.is_empty() && project.len() <= 255 => Query::project(project),
        _ => Query::all(),
    })
}

/// A page in the order of creation: read in steps until it is full, so that it costs the same in a cloud of any size.
fn first<R: Resource>(
    reader: &mut Reader,
    ctx: &Ctx,
    request: &ListRequest,
    query: &Query,
    count: usize,
) -> Result<Option<Vec<Map<String, Value>>>> {
    let mut after = request.marker.clone();
    if let Some(marker) = &after {
        let Some(doc) = reader.doc::<R>(marker)? else { return Ok(None) };
        if listed(reader, ctx, request, &doc)?.is_none() {
            return Ok(None);
        }
    }
    let mut page = Vec::new();
    loop {
        let step = match &after {
            Some(after) => query.clone().after(after.as_str()).limit(count),
            None => query.clone().limit(count),
        };
        let docs: Vec<R> = reader.docs(step)?;
        let last = docs.len() < count;
        after = docs.last().map(|doc| doc.id().to_owned());
        for doc in docs {
            page.extend(listed(reader, ctx, request, &doc)?);
            if page.len() == count {
                return Ok(Some(page));
            }
        }
        if last {
            return Ok(Some(page));
        }
    }
}

/// The documents that a list looks at: by the narrowest index that the filters allow, never beyond the caller's sight.
fn candidates<R: Resource>(reader: &mut Reader, ctx: &Ctx, request: &ListRequest) -> Result<Vec<R>> {
    if let Some(id) = request.one("id") {
        return Ok(reader.doc::<R>(id)?.into_iter().collect());
    }
    if let Some((name, value)) = R::index(request) {
        return reader.docs(Query::index(name, value));
    }
    if let Some(query) = everything::<R>(ctx, request) {
        return reader.docs(query);
    }
    let mut docs: Vec<R> = reader.docs(Query::project(ctx.project()))?;
    for doc in R::foreign(reader, ctx)? {
        if !docs.iter().any(|known| known.id() == doc.id()) {
            docs.push(doc);
        }
    }
    Ok(docs)
}

/// `If-Match: revision_number=N`.
pub fn check_revision(header: Option<&str>, standard: &Standard) -> Result<()> {
    let Some(text) = header else { return Ok(()) };
    let wanted = text.trim().trim_matches('"').strip_prefix("revision_number=").and_then(|n| n.trim().parse::<u64>().ok());
    match wanted {
        None => Err(error::bad_request(format!("Invalid value for If-Match header: {}", attr::shown(&text.into())))),
        Some(wanted) if wanted != standard.revision => Err(error::revision_mismatch(wanted, standard.revision)),
        Some(_) => Ok(()),
    }
}

pub async fn update<R: Resource>(net: Arc<Network>, mut call: Call) -> Result<Reply> {
    let body: Value = call.json().await?;
    let map = attr::objects(R::INFO.one, None, body)?.pop().unwrap_or_default();
    let input = attr::check(R::INFO.attrs, false, map)?;
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let revision = call.header("if-match").map(str::to_owned);
    let object = net.write(call.cause(), move |tx| {
        let (mut doc, target) = find_for::<R>(tx, &ctx, &id, "update")?;
        check_revision(revision.as_deref(), doc.standard())?;
        guard::<R>(&ctx, "update", &input, &R::update_target(target, &input))?;
        let old = doc.clone();
        doc.standard_mut().update(&input);
        doc.update(tx, &ctx, &input)?;
        save(tx, &old, &mut doc)?;
        let doc = tx.doc::<R>(&id)?.unwrap_or(doc);
        shown(tx, &ctx, &doc)
    }).await?;
    Reply::json(200, &json!({R::INFO.one: object}))
}

pub async fn delete<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let revision = call.header("if-match").map(str::to_owned);
    net.write(call.cause(), move |tx| {
        let (doc, _) = find_for::<R>(tx, &ctx, &id, "delete")?;
        check_revision(revision.as_deref(), doc.standard())?;
        doc.delete(tx, &ctx)
    }).await?;
    Ok(Reply::empty(204))
}

/// The routes of a resource and of its tags.
#[macro_export]
macro_rules! crud_routes {
    ($net:expr, $resource:ty, $path:literal, $one:literal) => {{
        use $crate::resource as r;
        use rest::{Access::Rule, Method, Route};
        let net = $net;
        let mut routes = vec![
            Route::new(net, Method::GET, concat!("/v2.0/", $path), concat!($one, ":list"), Rule(concat!("get_", $one)), 200, r::list::<$resource>),
            Route::new(net, Method::POST, concat!("/v2.0/", $path), concat!($one, ":create"), Rule(concat!("create_", $one)), 201, r::create::<$resource>),
            Route::new(net, Method::GET, concat!("/v2.0/", $path, "/{id}"), concat!($one, ":show"), Rule(concat!("get_", $one)), 200, r::show::<$resource>),
            Route::new(net, Method::PUT, concat!("/v2.0/", $path, "/{id}"), concat!($one, ":update"), Rule(concat!("update_", $one)), 200, r::update::<$resource>),
            Route::new(net, Method::DELETE, concat!("/v2.0/", $path, "/{id}"), concat!($one, ":delete"), Rule(concat!("delete_", $one)), 204, r::delete::<$resource>),
        ];
        routes.extend($crate::tag_routes!(net, $resource, $path, $one));
        routes
    }};
}

/// Only the type of what [`Route::new`] takes; keeps imports in one place.
pub type Routes = Vec<Route>;

/// A route without a resource behind it.
pub fn plain<F, Fut>(net: &Arc<Network>, method: Method, path: &'static str, operation: &'static str, rule: &'static str, success: u16, handler: F) -> Route
where
    F: Fn(Arc<Network>, Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply>> + Send + 'static,
{
    Route::new(net, method, path, operation, Access::Rule(rule), success, handler)
}
