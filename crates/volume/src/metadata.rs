//! The metadata of volumes and of snapshots: the same calls for both.

use crate::document::{Snapshot, Volume};
use crate::sight::Sight;
use crate::{Ask, Volumes, snapshots, table, volumes};
use base::{Fault, FaultKind, Result};
use rest::{Call, Reply, Route, input};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document, Reader, Stored};

/// The most items.
const MOST: usize = 128;
const OF_VOLUMES: &str = "-_:. /";

/// The metadata of something that is made.
pub fn read(key: &str, value: &Value) -> Result<BTreeMap<String, String>> {
    input::keyed(key, value, OF_VOLUMES, 255)
}

pub trait Described: Document {
    fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Self>>;
    fn metadata(&mut self) -> &mut BTreeMap<String, String>;
    /// What a key may have beside letters and digits.
    const LEGAL: &'static str;
    /// Whether lists are tagged, and taken back where the tag has changed.
    const TAGGED: bool = false;
    /// What is read: for a volume more than what is written.
    fn shown(reader: &mut Reader, doc: &Self) -> Result<Map<String, Value>>;
    fn routes(state: &Arc<Volumes>) -> Vec<Route>;
}

impl Described for Volume {
    const LEGAL: &'static str = OF_VOLUMES;
    const TAGGED: bool = true;
    fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Self>> {
        volumes::find(reader, ask)
    }
    fn metadata(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }
    fn shown(reader: &mut Reader, doc: &Self) -> Result<Map<String, Value>> {
        let sight = Sight::of(reader, doc)?;
        Ok(volumes::wire::metadata(doc, &sight))
    }
    fn routes(state: &Arc<Volumes>) -> Vec<Route> {
        table! { state;
            GET "/v3/{project_id}/volumes/{volume_id}/metadata" "volume_metadata:list" "volume:get_volume_metadata" 200 list::<Self>;
            POST "/v3/{project_id}/volumes/{volume_id}/metadata" "volume_metadata:create" "volume:create_volume_metadata" 200 create::<Self>;
            PUT "/v3/{project_id}/volumes/{volume_id}/metadata" "volume_metadata:replace" "volume:update_volume_metadata" 200 replace::<Self>;
            GET "/v3/{project_id}/volumes/{volume_id}/metadata/{key}" "volume_metadata:show" "volume:get_volume_metadata" 200 show::<Self>;
            PUT "/v3/{project_id}/volumes/{volume_id}/metadata/{key}" "volume_metadata:update" "volume:update_volume_metadata" 200 update::<Self>;
            DELETE "/v3/{project_id}/volumes/{volume_id}/metadata/{key}" "volume_metadata:delete" "volume:delete_volume_metadata" 200 delete::<Self>;
        }
    }
}

impl Described for Snapshot {
    const LEGAL: &'static str = "-_:. ";
    fn find(reader: &mut Reader, ask: &Ask) -> Result<Stored<Self>> {
        snapshots::find(reader, ask)
    }
    fn metadata(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }
    fn shown(_: &mut Reader, doc: &Self) -> Result<Map<String, Value>> {
        Ok(doc.metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
    }
    fn routes(state: &Arc<Volumes>) -> Vec<Route> {
        table! { state;
            GET "/v3/{project_id}/snapshots/{snapshot_id}/metadata" "snapshot_metadata:list" "volume:get_snapshot_metadata" 200 list::<Self>;
            POST "/v3/{project_id}/snapshots/{snapshot_id}/metadata" "snapshot_metadata:create" "volume:update_snapshot_metadata" 200 create::<Self>;
            PUT "/v3/{project_id}/snapshots/{snapshot_id}/metadata" "snapshot_metadata:replace" "volume:update_snapshot_metadata" 200 replace::<Self>;
            GET "/v3/{project_id}/snapshots/{snapshot_id}/metadata/{key}" "snapshot_metadata:show" "volume:get_snapshot_metadata" 200 show::<Self>;
            PUT "/v3/{project_id}/snapshots/{snapshot_id}/metadata/{key}" "snapshot_metadata:update" "volume:update_snapshot_metadata" 200 update::<Self>;
            DELETE "/v3/{project_id}/snapshots/{snapshot_id}/metadata/{key}" "snapshot_metadata:delete" "volume:delete_snapshot_metadata" 200 delete::<Self>;
        }
    }
}

pub fn routes<T: Described>(state: &Arc<Volumes>) -> Vec<Route> {
    T::routes(state)
}

async fn all<T: Described>(state: &Volumes, ask: &Ask) -> Result<Map<String, Value>> {
    state
        .read(ask, |reader, ask| {
            let found = T::find(reader, ask)?;
            T::shown(reader, &found.doc)
        })
        .await
}

async fn list<T: Described>(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let metadata = all::<T>(&state, &ask).await?;
    let reply = ask.reply(200, &json!({"metadata": metadata}))?;
    match T::TAGGED && ask.since(15) {
        true => Ok(reply.header(rest::header::ETAG, tag(&metadata))),
        false => Ok(reply),
    }
}

/// What `If-Match` is held against.
fn tag(shown: &Map<String, Value>) -> String {
    let digest = Sha256::digest(json!(shown).to_string());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The tags of which one must be that of what is there; none: whatever is there.
fn tags<T: Described>(ask: &Ask, call: &Call) -> Option<Vec<String>> {
    let sent = call.header("if-match").filter(|sent| T::TAGGED && ask.since(15) && sent.trim() != "*")?;
    Some(sent.split(',').map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned()).collect())
}

fn missing(key: &str) -> Fault {
    Fault::not_found(format!("Metadata with key {key:.255} could not be found."))
}

async fn show<T: Described>(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let metadata = all::<T>(&state, &ask).await?;
    let value = metadata.get(ask.param("key")).ok_or_else(|| missing(ask.param("key")))?;
    ask.reply(200, &json!({"meta": {ask.param("key"): value}}))
}

async fn write<T: Described>(
    state: &Volumes,
    ask: &Ask,
    tags: Option<Vec<String>>,
    change: impl Fn(&mut BTreeMap<String, String>, &Ask) -> Result<()> + Send + 'static,
) -> Result<Map<String, Value>> {
    state
        .write(ask, move |tx, ask| {
            let mut doc = T::find(tx, ask)?.doc;
            if let Some(tags) = &tags {
                let now = tag(&T::shown(tx, &doc)?);
                if !tags.contains(&now) {
                    let message = format!("The metadata is another one than If-Match says: its tag is {now}.");
                    return Err(Fault::new(FaultKind::Precondition, message));
                }
            }
            change(doc.metadata(), ask)?;
            if doc.metadata().len() > MOST {
                return Err(Fault::invalid(format!("There may be at most {MOST} items of metadata.")));
            }
            tx.update(&doc)?;
            T::shown(tx, &doc)
        })
        .await
}

/// The items below the only key of a body.
fn items<T: Described>(body: &Value, key: &'static str) -> Result<BTreeMap<String, String>> {
    let mut fields = input::Fields::body(body)?;
    let items = input::keyed(key, fields.need(key)?, T::LEGAL, 255)?;
    fields.finish()?;
    Ok(items)
}

async fn create<T: Described>(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let metadata = items::<T>(&body, "metadata")?;
    let shown = write::<T>(&state, &ask, None, move |known, _| {
        known.extend(metadata.clone());
        Ok(())
    });
    ask.reply(200, &json!({"metadata": shown.await?}))
}

async fn replace<T: Described>(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let (metadata, tags) = (items::<T>(&body, "metadata")?, tags::<T>(&ask, &call));
    let shown = write::<T>(&state, &ask, tags, move |known, _| {
        *known = metadata.clone();
        Ok(())
    });
    ask.reply(200, &json!({"metadata": shown.await?}))
}

async fn update<T: Described>(state: Arc<Volumes>, mut call: Call) -> Result<Reply> {
    let (ask, body) = Ask::read(&mut call).await?;
    let (meta, tags) = (items::<T>(&body, "meta")?, tags::<T>(&ask, &call));
    if meta.len() != 1 || !meta.contains_key(ask.param("key")) {
        return Err(Fault::invalid("Request body and URI mismatch: name exactly the key of the URI."));
    }
    let given = meta.clone();
    write::<T>(&state, &ask, tags, move |known, _| {
        known.extend(meta.clone());
        Ok(())
    })
    .await?;
    ask.reply(200, &json!({"meta": given}))
}

async fn delete<T: Described>(state: Arc<Volumes>, call: Call) -> Result<Reply> {
    let ask = Ask::of(&call)?;
    let removed = |known: &mut BTreeMap<String, String>, ask: &Ask| {
        known.remove(ask.param("key")).map(drop).ok_or_else(|| missing(ask.param("key")))
    };
    write::<T>(&state, &ask, None, removed).await?;
    Ok(Reply::empty(200))
}
