//! Metadata and tags.

use super::document::Server;
use super::{find, ops};
use crate::input::{self, Fields};
use crate::{Ask, Compute, ask, quota};
use base::{Fault, Result};
use rest::{Access, Call, Method, Reply, Route, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;

/// The most tags of a server, and the most characters of one: Nova's.
const TAGS: usize = 50;
const TAG_CHARS: usize = 60;

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let meta = |name: &'static str| Access::Rule(name);
    let (all, one) = ("/servers/{server_id}/metadata", "/servers/{server_id}/metadata/{key}");
    let (tags, tag) = ("/servers/{server_id}/tags", "/servers/{server_id}/tags/{tag}");
    vec![
        Route::new(
            state,
            Method::GET,
            all,
            "metadata:list",
            meta("os_compute_api:server-metadata:index"),
            200,
            metadata,
        ),
        Route::new(
            state,
            Method::POST,
            all,
            "metadata:create",
            meta("os_compute_api:server-metadata:create"),
            200,
            metadata_add,
        ),
        Route::new(
            state,
            Method::PUT,
            all,
            "metadata:replace",
            meta("os_compute_api:server-metadata:update_all"),
            200,
            metadata_replace,
        ),
        Route::new(
            state,
            Method::GET,
            one,
            "metadata:show",
            meta("os_compute_api:server-metadata:show"),
            200,
            metadata_show,
        ),
        Route::new(
            state,
            Method::PUT,
            one,
            "metadata:update",
            meta("os_compute_api:server-metadata:update"),
            200,
            metadata_put,
        ),
        Route::new(
            state,
            Method::DELETE,
            one,
            "metadata:delete",
            meta("os_compute_api:server-metadata:delete"),
            204,
            metadata_delete,
        ),
        Route::new(state, Method::GET, tags, "tags:list", meta("os_compute_api:os-server-tags:index"), 200, tags_list)
            .since(2, 26),
        Route::new(
            state,
            Method::PUT,
            tags,
            "tags:replace",
            meta("os_compute_api:os-server-tags:update_all"),
            200,
            tags_replace,
        )
        .since(2, 26),
        Route::new(
            state,
            Method::DELETE,
            tags,
            "tags:clear",
            meta("os_compute_api:os-server-tags:delete_all"),
            204,
            tags_clear,
        )
        .since(2, 26),
        Route::new(state, Method::GET, tag, "tags:show", meta("os_compute_api:os-server-tags:show"), 204, tag_show)
            .since(2, 26),
        Route::new(state, Method::PUT, tag, "tags:add", meta("os_compute_api:os-server-tags:update"), 201, tag_add)
            .since(2, 26),
        Route::new(
            state,
            Method::DELETE,
            tag,
            "tags:delete",
            meta("os_compute_api:os-server-tags:delete"),
            204,
            tag_delete,
        )
        .since(2, 26),
    ]
}

/// Changes the server of the path; its guest reads what changed.
async fn change<R: Send + 'static>(
    state: &Compute,
    ask: &Ask,
    mut change: impl FnMut(&mut Tx, &Ask, &mut Server) -> Result<R> + Send + 'static,
) -> Result<R> {
    state
        .write(ask, move |tx, ask| {
            let full = find(tx, ask)?;
            ops::refuse_locked(ask, &full.server)?;
            let mut server = full.server.doc.clone();
            let answer = change(tx, ask, &mut server)?;
            if server.metadata != full.server.metadata {
                quota::check_metadata(tx, &server.project_id, server.metadata.len())?;
                server.touch();
            }
            tx.update(&server)?;
            Ok(answer)
        })
        .await
}

async fn load(state: &Compute, ask: &Ask) -> Result<Server> {
    state.read(ask, |reader, ask| Ok(find(reader, ask)?.server.doc)).await
}

async fn metadata(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let server = load(&state, &Ask::of(&call)).await?;
    Reply::json(200, &json!({"metadata": server.metadata}))
}

fn parse_metadata(body: &Value) -> Result<BTreeMap<String, String>> {
    let mut fields = Fields::body(body)?;
    let metadata = input::metadata("metadata", fields.need("metadata")?)?;
    fields.finish()?;
    Ok(metadata)
}

async fn metadata_add(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    let items = parse_metadata(&body)?;
    let metadata = change(&state, &ask, move |_, _, server| {
        server.metadata.extend(items.clone());
        Ok(server.metadata.clone())
    });
    Reply::json(200, &json!({"metadata": metadata.await?}))
}

async fn metadata_replace(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    let items = parse_metadata(&body)?;
    let metadata = change(&state, &ask, move |_, _, server| {
        server.metadata.clone_from(&items);
        Ok(items.clone())
    });
    Reply::json(200, &json!({"metadata": metadata.await?}))
}

async fn metadata_show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let server = load(&state, &ask).await?;
    let key = ask.param("key");
    let value = server.metadata.get(key).ok_or_else(no_item)?;
    Reply::json(200, &json!({"meta": {key: value}}))
}

fn no_item() -> Fault {
    Fault::not_found("Metadata item was not found")
}

async fn metadata_put(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    let mut fields = Fields::body(&body)?;
    let item = input::metadata("meta", fields.need("meta")?)?;
    fields.finish()?;
    if item.len() != 1 {
        return Err(Fault::invalid("Request body contains too many items"));
    }
    if !item.contains_key(ask.param("key")) {
        return Err(Fault::invalid("Request body and URI mismatch"));
    }
    let answer = json!({"meta": item});
    change(&state, &ask, move |_, _, server| {
        server.metadata.extend(item.clone());
        Ok(())
    })
    .await?;
    Reply::json(200, &answer)
}

async fn metadata_delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    change(&state, &ask, |_, ask, server| server.metadata.remove(ask.param("key")).map(|_| ()).ok_or_else(no_item))
        .await?;
    Ok(Reply::empty(204))
}

/// The tag of a device.
pub fn device_tag(fields: &mut Fields<'_>) -> Result<Option<String>> {
    fields.opt("tag").map(|value| check_tag("tag", value)).transpose()
}

fn check_tag(key: &str, value: &Value) -> Result<String> {
    let tag = input::text(key, value, 1, TAG_CHARS)?;
    if tag.contains(['/', ',']) {
        return Err(input::refuse(key, value, format!("{} does not match '^[^,/]*$'", input::repr(value))));
    }
    Ok(tag)
}

/// Tags of a body, each once, in their order.
pub fn parse_tags(value: Option<&Value>) -> Result<Vec<String>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value
        .as_array()
        .ok_or_else(|| input::refuse("tags", value, format!("{} is not of type 'array'", input::repr(value))))?;
    if list.len() > TAGS {
        return Err(input::refuse("tags", value, format!("{} is too long", input::repr(value))));
    }
    let mut tags: Vec<String> = Vec::new();
    for tag in list {
        let tag = check_tag("tags", tag)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

async fn tags_list(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let server = load(&state, &Ask::of(&call)).await?;
    Reply::json(200, &json!({"tags": server.tags}))
}

async fn tags_replace(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    let mut fields = Fields::body(&body)?;
    let tags = parse_tags(Some(fields.need("tags")?))?;
    fields.finish()?;
    let answer = json!({"tags": tags});
    change(&state, &ask, move |_, _, server| {
        server.tags.clone_from(&tags);
        Ok(())
    })
    .await?;
    Reply::json(200, &answer)
}

async fn tags_clear(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    change(&state, &ask, |_, _, server| {
        server.tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn no_tag(ask: &Ask) -> Fault {
    Fault::not_found(format!("Server {} has no tag '{}'", ask.param("server_id"), ask.param("tag")))
}

async fn tag_show(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let server = load(&state, &ask).await?;
    if server.tags.iter().any(|tag| tag == ask.param("tag")) { Ok(Reply::empty(204)) } else { Err(no_tag(&ask)) }
}

async fn tag_add(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    let tag = check_tag("tags", &json!(ask.param("tag")))?;
    let created = change(&state, &ask, move |_, _, server| {
        if server.tags.contains(&tag) {
            return Ok(false);
        }
        if server.tags.len() >= TAGS {
            return Err(Fault::invalid(format!("The number of tags exceeded the per-server limit {TAGS}")));
        }
        server.tags.push(tag.clone());
        Ok(true)
    })
    .await?;
    if !created {
        return Ok(Reply::empty(204));
    }
    let location = ask.link(&format!("/servers/{}/tags/{}", ask.param("server_id"), ask.param("tag")));
    Ok(Reply::empty(201).header(header::LOCATION, location))
}

async fn tag_delete(state: Arc<Compute>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call);
    change(&state, &ask, |_, ask, server| {
        let at = server.tags.iter().position(|tag| tag == ask.param("tag")).ok_or_else(|| no_tag(ask))?;
        server.tags.remove(at);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
