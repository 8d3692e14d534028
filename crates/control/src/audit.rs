//! Proving the store right, and mending it: what fsck asks of control, or of the store itself when control is down.
//!
//! Every check here is written against documents, entries, history and ledger, not against the operations that write
//! them. Mending happens in transactions of its own; nothing is mended that was not asked for by kind and id, and
//! nothing that is not found wrong again inside the transaction.

use crate::claims::{self, Loose};
use crate::references::{self, Dangling, Documents, Remedy, World};
use agent_api::ViewObject;
use base::{Env, HostName, Result};
use contract::{Projector, Recount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Cause, Kind, Reader, Store, Tx};

/// The kinds whose names and documents the comparison with a machine needs, beside those that refer to each other.
const NAMED: &[&str] = &["image", "server", "network", "router", "port", "host", "floatingip", "volume"];
/// The most objects that one repair may name.
pub const MOST: usize = 100_000;

/// Something that is wrong in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    pub kind: String,
    pub id: String,
    pub name: Option<String>,
    pub what: String,
    /// What mending does; none where nothing can be done.
    pub cure: Option<String>,
    /// Why nothing can be done.
    pub stuck: Option<String>,
}

/// An object by kind and id, as [`Finding`] names it.
pub type Object = (String, String);

/// Knows all kinds, and who answers for what.
pub struct Audit {
    pub kinds: Vec<Kind>,
    pub projectors: Vec<Arc<dyn Projector>>,
    pub recounts: Vec<Arc<dyn Recount>>,
}

impl Audit {
    /// All that fsck compares a machine with: each host's view, images with their files, names, what is wrong.
    pub fn answer(&self, reader: &mut Reader) -> Result<Value> {
        let world = self.world(reader)?;
        let views = self.views(reader, &world);
        let (views, unreadable) = match views {
            Ok(views) => (views, Value::Null),
            Err(fault) => (Value::Null, fault.chain().into()),
        };
        Ok(json!({
            "views": views,
            "unreadable": unreadable,
            "images": images(&world, &resting_images(reader)?),
            "names": names(&world),
            "findings": self.findings(reader)?,
        }))
    }

    /// What each host shall hold, by kind and id, and the images that files belong to. Whatever else keeps things on a
    /// host adds a key of its own, with ids by host where it knows the host.
    pub fn owners(&self, reader: &mut Reader) -> Result<Value> {
        // The hosts of the store: after a start of control one may not have polled yet, and owns all the same.
        let hosts = reader.list::<compute::Host>(store::Query::all())?;
        let mut by_host = serde_json::Map::new();
        for host in hosts {
            let mut objects = Vec::new();
            for projector in &self.projectors {
                for object in projector.whole(reader, &host.doc.name)? {
                    let (kind, id) = object.key();
                    objects.push(json!({"kind": kind, "id": id}));
                    // A router's ports are part of its specification and have links of their own.
                    if let ViewObject::Router(router) = &object {
                        let ports = router.gateway.iter().map(|gateway| &gateway.port);
                        let ports = ports.chain(router.interfaces.iter().map(|interface| &interface.port));
                        objects.extend(ports.map(|port| json!({"kind": "port", "id": port})));
                    }
                }
            }
            by_host.insert(host.doc.name.to_string(), objects.into());
        }
        Ok(json!({"hosts": by_host, "images": image::Service::ids(reader)?}))
    }

    fn views(&self, reader: &mut Reader, world: &World) -> Result<Value> {
        let mut views = serde_json::Map::new();
        for host in world.get("host").into_iter().flat_map(|hosts| hosts.keys()) {
            let mut objects: Vec<ViewObject> = Vec::new();
            for projector in &self.projectors {
                objects.extend(projector.whole(reader, &HostName::new(host.clone()))?);
            }
            views.insert(host.clone(), json!(objects));
        }
        Ok(views.into())
    }

    /// The documents that this module looks into. One that cannot be read is left out here; the tables' check names it.
    fn world(&self, reader: &mut Reader) -> Result<World> {
        let wanted: BTreeSet<&str> =
            references::kinds().into_iter().chain(NAMED.iter().chain(claims::KINDS).copied()).collect();
        let mut world = World::new();
        for kind in self.kinds.iter().filter(|kind| wanted.contains(kind.name())) {
            let bodies = reader.bodies(kind)?.into_iter();
            let parsed = bodies.filter_map(|(id, body)| Some((id, serde_json::from_str(&body).ok()?)));
            world.insert(kind.name(), parsed.collect());
        }
        Ok(world)
    }

    /// Everything that is wrong, in order.
    pub fn findings(&self, reader: &mut Reader) -> Result<Vec<Finding>> {
        let mut all: Vec<Finding> = store::check(reader, &self.kinds)?.into_iter().map(flaw).collect();
        // What hangs in the air because a document is damaged hangs no longer once that is mended.
        let damaged: BTreeSet<(String, String)> = all.iter().map(|it| (it.kind.clone(), it.id.clone())).collect();
        let world = self.world(reader)?;
        let is_damaged = |target: &str| {
            target.split_once(' ').is_some_and(|(kind, id)| damaged.contains(&(kind.to_owned(), id.to_owned())))
        };
        let loose = references::dangling(&world);
        let loose = loose.into_iter().filter(|it| !is_damaged(&it.target));
        all.extend(loose.map(|it| dangling(&world, &it)));
        let claims = claims::loose(&world, reader.clock()).into_iter().filter(|it| {
            // What a damaged document says of itself is nothing to go by.
            let itself = (it.kind.to_owned(), it.id.clone());
            !damaged.contains(&itself)
                && it.misses.as_ref().is_none_or(|(kind, id)| !is_damaged(&format!("{kind} {id}")))
        });
        all.extend(claims.map(|it| claim(&world, it)));
        if !damaged.iter().any(|(kind, _)| kind == "port") {
            for (subnet, held) in references::addresses(&world) {
                let count = held.len();
                all.push(Finding {
                    name: name_of(&world, "subnet", &subnet),
                    kind: "subnet_addresses".into(),
                    id: subnet,
                    what: format!("its taken addresses are not the {count} that its ports hold"),
                    cure: Some("write down the addresses that ports hold".into()),
                    stuck: None,
                });
            }
        }
        // An unreadable document cannot be counted either: it comes first.
        if let Ok(wrong) = contract::recount::miscounts(&self.recounts, reader) {
            all.extend(wrong.iter().map(|row| Finding {
                kind: "quota".into(),
                id: format!("{}/{}", row.scope, row.resource),
                name: None,
                what: row.to_string(),
                cure: Some("set the ledger to what was counted".into()),
                stuck: None,
            }));
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Mends what is wrong with the named objects. Safe to repeat. Returns what was done, as sentences.
    pub async fn repair(self: &Arc<Self>, store: &Store, actor: &str, wanted: BTreeSet<Object>) -> Result<Vec<String>> {
        let wanted = Arc::new(wanted);
        let request = format!("req-{}", Env::uuid(store.env()));
        let mut done = Vec::new();
        type Stage = fn(&Audit, &mut Tx, &BTreeSet<Object>) -> Result<Vec<String>>;
        let stages: [Stage; 4] = [Audit::mend_rows, Audit::mend_references, Audit::mend_claims, Audit::mend_ledger];
        for stage in stages {
            let (audit, wanted) = (self.clone(), wanted.clone());
            let cause = Cause::new(actor, request.clone(), "fsck.repair");
            done.extend(store.write(cause, move |tx| stage(&audit, tx, &wanted)).await?.value);
            // Rows may have changed without a word in the watch.
            store.unsettle();
        }
        Ok(done)
    }

    fn mend_rows(&self, tx: &mut Tx, wanted: &BTreeSet<Object>) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for flaw in store::check(tx, &self.kinds)? {
            let object = (flaw.kind.clone(), flaw.id.clone());
            if flaw.stuck.is_none() && wanted.contains(&object) && tx.mend(&self.kinds, &flaw.kind, &flaw.id)? {
                done.push(format!("{} {}: {}", flaw.kind, flaw.id, flaw.what.cure()));
            }
        }
        Ok(done)
    }

    fn mend_references(&self, tx: &mut Tx, wanted: &BTreeSet<Object>) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let world = self.world(tx)?;
        let mut bodies: BTreeMap<(&str, String), Option<Value>> = BTreeMap::new();
        for loose in references::dangling(&world) {
            if !wanted.contains(&(loose.kind.to_owned(), loose.id.clone())) {
                continue;
            }
            let known = world.get(loose.kind).and_then(|kind| kind.get(&loose.id)).cloned();
            let body = bodies.entry((loose.kind, loose.id.clone())).or_insert(known);
            *body = body.as_ref().and_then(|body| references::mended(body, &loose));
            done.push(format!("{} {}: {}", loose.kind, loose.id, cure(&loose)));
        }
        for ((kind, id), body) in bodies {
            let Some(kind) = self.kinds.iter().find(|known| known.name() == kind) else { continue };
            match body {
                Some(body) => tx.put_body(kind, &body.to_string())?,
                None => tx.delete_body(kind, &id)?,
            }
        }
        let world = self.world(tx)?;
        let Some(kind) = self.kinds.iter().find(|kind| kind.name() == "subnet_addresses") else { return Ok(done) };
        for (subnet, held) in references::addresses(&world) {
            if !done.is_empty() || wanted.contains(&("subnet_addresses".to_owned(), subnet.clone())) {
                tx.put_body(kind, &json!({"id": subnet, "used": references::ranges(&held)}).to_string())?;
                done.push(format!("subnet {subnet}: {} addresses are taken", held.len()));
            }
        }
        Ok(done)
    }

    fn mend_claims(&self, tx: &mut Tx, wanted: &BTreeSet<Object>) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let (world, now) = (self.world(tx)?, tx.now());
        for it in claims::loose(&world, now) {
            let kind = self.kinds.iter().find(|known| known.name() == it.kind);
            let Some(kind) = kind.filter(|_| wanted.contains(&(it.kind.to_owned(), it.id.clone()))) else { continue };
            match &it.mended {
                Some(body) => tx.put_body(kind, &body.to_string())?,
                None => tx.delete_body(kind, &it.id)?,
            }
            done.push(format!("{} {}: {}", it.kind, it.id, it.cure));
        }
        Ok(done)
    }

    fn mend_ledger(&self, tx: &mut Tx, wanted: &BTreeSet<Object>) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for row in contract::recount::miscounts(&self.recounts, tx)? {
            if wanted.contains(&("quota".to_owned(), format!("{}/{}", row.scope, row.resource))) {
                tx.set_used(&row.scope, &row.resource, row.counted)?;
                done.push(format!("quota {}/{}: {} are used", row.scope, row.resource, row.counted));
            }
        }
        Ok(done)
    }
}

fn flaw(flaw: store::Flaw) -> Finding {
    let cure = flaw.stuck.is_none().then(|| flaw.what.cure().to_owned());
    Finding { what: flaw.what.describe(), kind: flaw.kind, id: flaw.id, name: flaw.name, cure, stuck: flaw.stuck }
}

fn cure(loose: &Dangling) -> String {
    match loose.remedy {
        Remedy::Delete => "remove the document".into(),
        Remedy::Clear(fields) => format!("empty its {}", fields.join(", ")),
        Remedy::Drop => format!("take it out of its {}", loose.field),
    }
}

fn dangling(world: &World, loose: &Dangling) -> Finding {
    Finding {
        kind: loose.kind.into(),
        id: loose.id.clone(),
        name: name_of(world, loose.kind, &loose.id),
        what: format!("its {} names {}, which is not there", loose.field, loose.target),
        cure: Some(cure(loose)),
        stuck: None,
    }
}

fn claim(world: &World, loose: Loose) -> Finding {
    let name = name_of(world, loose.kind, &loose.id);
    let (kind, cure) = (loose.kind.to_owned(), Some(loose.cure.to_owned()));
    Finding { kind, id: loose.id, name, what: loose.what, cure, stuck: None }
}

fn name_of(world: &World, kind: &str, id: &str) -> Option<String> {
    let name = world.get(kind)?.get(id)?["name"].as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Id to kind and name, of what stands on hosts.
fn names(world: &World) -> Value {
    let mut names = serde_json::Map::new();
    for kind in NAMED {
        for (id, body) in world.get(kind).into_iter().flatten() {
            let name = body["name"].as_str().or(body["address"].as_str()).filter(|name| !name.is_empty());
            names.insert(id.clone(), format!("{kind} {}", name.unwrap_or(id)).into());
        }
    }
    names.into()
}

/// Images in the trash: their files are their own until it is emptied.
fn resting_images(reader: &mut Reader) -> Result<Documents> {
    let mut resting = Documents::new();
    for trash in reader.list::<store::Trash>(store::Query::all())? {
        for document in trash.doc.documents.into_iter().filter(|document| document.kind == "image") {
            resting.insert(document.id, serde_json::from_str(&document.body).unwrap_or_default());
        }
    }
    Ok(resting)
}

/// The files that images own in the folder of images.
fn images(world: &World, resting: &Documents) -> Value {
    let file = |contents: &Value| {
        let text = |name: &str| contents[name].clone();
        json!({"file": text("file"), "size_bytes": text("size_bytes"), "sha512": text("sha512")})
    };
    let image = |(id, body): (&String, &Value)| {
        let contents = [&body["contents"], &body["staged"]["contents"]];
        let here = |it: &&Value| it["stores"].as_array().is_none_or(|stores| stores.contains(&json!("local")));
        let files: Vec<Value> = contents.into_iter().filter(|it| it.is_object()).filter(here).map(file).collect();
        json!({"id": id, "files": files, "transfer": body["transfer"]})
    };
    world.get("image").into_iter().flatten().chain(resting).map(image).collect()
}
