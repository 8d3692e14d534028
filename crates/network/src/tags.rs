//! `…/{id}/tags` and `…/{id}/tags/{tag}`: small words on any object.

use crate::resource::{Resource, find, rule};
use crate::standard::Ctx;
use crate::{Network, attr, error};
use base::Result;
use rest::{Call, Reply};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

/// Neutron's own limit.
const TAGS: usize = 50;

pub async fn list<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    let (ctx, id) = (net.ctx(&call), call.param("id").to_owned());
    let tags = net.read(move |reader| Ok(find::<R>(reader, &ctx, &id)?.0.standard().tags.clone())).await?;
    Reply::json(200, &json!({"tags": tags}))
}

pub async fn has<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    let (ctx, id, tag) = (net.ctx(&call), call.param("id").to_owned(), call.param("tag").to_owned());
    net.read(move |reader| {
        let (doc, _) = find::<R>(reader, &ctx, &id)?;
        if doc.standard().tags.contains(&tag) { Ok(()) } else { Err(error::tag_not_found(&tag)) }
    }).await?;
    Ok(Reply::empty(204))
}

/// Replaces all tags.
pub async fn replace<R: Resource>(net: Arc<Network>, mut call: Call) -> Result<Reply> {
    let new = body_tags(call.json().await?)?;
    let tags = change::<R, _>(&net, &call, "update", move |tags| {
        *tags = new.clone();
        Ok(())
    }).await?;
    Reply::json(200, &json!({"tags": tags}))
}

/// Adds several tags.
pub async fn add_many<R: Resource>(net: Arc<Network>, mut call: Call) -> Result<Reply> {
    let new = body_tags(call.json().await?)?;
    let tags = change::<R, _>(&net, &call, "update", move |tags| {
        tags.extend(new.iter().cloned());
        Ok(())
    }).await?;
    Reply::json(201, &json!({"tags": tags}))
}

pub async fn add<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    attr::tag(&tag)?;
    change::<R, _>(&net, &call, "update", move |tags| {
        tags.push(tag.clone());
        Ok(())
    }).await?;
    Ok(Reply::empty(201))
}

pub async fn remove<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    change::<R, _>(&net, &call, "delete", move |tags| {
        let before = tags.len();
        tags.retain(|known| *known != tag);
        if tags.len() == before { Err(error::tag_not_found(&tag)) } else { Ok(()) }
    }).await?;
    Ok(Reply::empty(204))
}

pub async fn clear<R: Resource>(net: Arc<Network>, call: Call) -> Result<Reply> {
    change::<R, _>(&net, &call, "delete", |tags| {
        tags.clear();
        Ok(())
    }).await?;
    Ok(Reply::empty(204))
}

fn body_tags(mut body: Value) -> Result<Vec<String>> {
    let Some(list) = body.get_mut("tags").map(Value::take) else {
        return Err(error::bad_request("Invalid tags body"));
    };
    let list = attr::tag_list(list).map_err(|reason| error::invalid_attribute("tags", reason))?;
    Ok(list.as_array().into_iter().flatten().filter_map(|tag| tag.as_str().map(str::to_owned)).collect())
}

/// Not async itself: a call cannot be held by reference while something is awaited.
fn change<R: Resource, F>(
    net: &Arc<Network>,
    call: &Call,
    verb: &'static str,
    edit: F,
) -> impl Future<Output = Result<Vec<String>>> + Send + use<R, F>
where
    F: Fn(&mut Vec<String>) -> Result<()> + Send + Sync + 'static,
{
    let (ctx, id, net, cause) = (net.ctx(call), call.param("id").to_owned(), net.clone(), call.cause());
    async move { net.write(cause, move |tx| apply::<R>(tx, &ctx, &id, verb, &edit)).await }
}

fn apply<R: Resource>(tx: &mut Tx, ctx: &Ctx, id: &str, verb: &str, edit: &dyn Fn(&mut Vec<String>) -> Result<()>) -> Result<Vec<String>> {
    let (mut doc, target) = find::<R>(tx, ctx, id)?;
    ctx.require(&format!("{}:tags", rule::<R>(verb)), &target)?;
    let old = doc.clone();
    let mut tags = doc.standard().tags.clone();
    edit(&mut tags)?;
    tags.sort();
    tags.dedup();
    if tags.len() > TAGS {
        return Err(error::bad_request(format!("The number of tags exceed the per-resource limit of {TAGS}")));
    }
    doc.standard_mut().tags = tags.clone();
    crate::resource::save(tx, &old, &mut doc)?;
    Ok(tags)
}

#[macro_export]
macro_rules! tag_routes {
    ($net:expr, $resource:ty, $path:literal, $one:literal) => {{
        use rest::{Access::Rule, Method, Route};
        use $crate::tags as t;
        const ALL: &str = concat!("/v2.0/", $path, "/{id}/tags");
        const ONE: &str = concat!("/v2.0/", $path, "/{id}/tags/{tag}");
        let (get, put, del) = (concat!("get_", $one, ":tags"), concat!("update_", $one, ":tags"), concat!("delete_", $one, ":tags"));
        [
            Route::new($net, Method::GET, ALL, concat!($one, ":tags"), Rule(get), 200, t::list::<$resource>),
            Route::new($net, Method::PUT, ALL, concat!($one, ":tags_replace"), Rule(put), 200, t::replace::<$resource>),
            Route::new($net, Method::POST, ALL, concat!($one, ":tags_add"), Rule(put), 201, t::add_many::<$resource>),
            Route::new($net, Method::DELETE, ALL, concat!($one, ":tags_clear"), Rule(del), 204, t::clear::<$resource>),
            Route::new($net, Method::GET, ONE, concat!($one, ":tag"), Rule(get), 204, t::has::<$resource>),
            Route::new($net, Method::PUT, ONE, concat!($one, ":tag_add"), Rule(put), 201, t::add::<$resource>),
            Route::new($net, Method::DELETE, ONE, concat!($one, ":tag_remove"), Rule(del), 204, t::remove::<$resource>),
        ]
    }};
}
