//! nubo's own service: health, metrics, status, and who owns what on a host.

use crate::audit::{Audit, Finding, MOST};
use crate::{Sessions, keys, policies, trash};
use crate::watch::{self, Watching};
use base::{Fault, Result};
use contract::Explain;
use policy::{Policy, Rule, Scope, Target};
use rest::{Access, Call, Envelope, Method, Reply, Route, Service};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use store::Store;

const RULES: &[Rule] = &[
    Rule::new("nubo:status", "role:admin", &[Scope::System, Scope::Project], "See every part of the cloud."),
    Rule::new("nubo:owners", "role:admin", &[Scope::System, Scope::Project], "See what each host shall hold."),
    Rule::new("nubo:audit", "role:admin", &[Scope::System, Scope::Project], "See what is wrong in the store."),
    Rule::new("nubo:repair", "role:admin", &[Scope::System, Scope::Project], "Mend what is wrong in the store."),
    Rule::new("nubo:explain", "role:reader", &[Scope::System, Scope::Project], "Read why an object is as it is."),
    Rule::new(
        crate::explain::ADMIN_RULE,
        "role:admin",
        &[Scope::System, Scope::Project],
        "Read why any object is as it is, with names of hosts.",
    ),
    Rule::new(
        watch::RULE,
        "role:reader",
        &[Scope::System, Scope::Project],
        "Watch what changes in the own project.",
    ),
    Rule::new(watch::ALL_RULE, "role:admin", &[Scope::System, Scope::Project], "Watch what changes in every project."),
    Rule::new(
        rest::PLAN_RULE,
        "role:admin",
        &[Scope::System, Scope::Project],
        "Read a dry run whole: names of hosts, other projects, who loses traffic.",
    ),
];

/// The most warnings that the status shows.
const WARNINGS: usize = 100;
const OF_NOW: &str = "it shows this process as it is now";

/// What the status needs of the rest of the process; set once the cloud stands.
pub(crate) struct Own {
    pub store: Store,
    pub sessions: Sessions,
    pub audit: Arc<Audit>,
    /// Knows what lies outside of the cloud.
    pub image: Arc<image::Service>,
    pub explains: Vec<Arc<dyn Explain>>,
    pub loops: OnceLock<engine::Handle>,
    pub services: OnceLock<Vec<&'static str>>,
    /// Its routes hold this.
    pub gateway: OnceLock<rest::WeakGateway>,
}

impl Own {
    /// None: the process is starting or ending.
    pub fn gateway(&self) -> Option<rest::Gateway> {
        self.gateway.get()?.upgrade()
    }
}

/// One part of the cloud, as `nubo status` shows it.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    version: String,
    healthy: bool,
    /// Why it is not healthy, or what is worth knowing.
    detail: String,
}

pub(crate) fn service(
    own: &Arc<Own>,
    tokens: Arc<dyn rest::Tokens>,
    bin: &Arc<trash::Bin>,
    services: &Arc<Policy>,
) -> Result<Service> {
    let rules = [RULES, trash::RULES, keys::RULES, crate::keystone::RULES, policies::RULES];
    let policy = Arc::new(Policy::joined(&rules, None)?);
    let asking = Arc::new(policies::Asking::new(&bin.identity, [services, &policy]));
    let watching = Watching::new(own.store.clone(), tokens, policy.clone(), watch::Patience::default());
    let admin = |rule| Access::Rule(rule);
    Ok(Service {
        name: "nubo",
        prefix: "",
        envelope: Envelope::Nubo,
        microversions: None,
        policy,
        routes: [vec![
            watch::route(&watching),
            Route::new(own, Method::GET, "/healthcheck", "nubo:health", Access::Open, 200, health).no_past(OF_NOW),
            Route::new(own, Method::GET, "/metrics", "nubo:metrics", Access::Open, 200, metrics).no_past(OF_NOW),
            Route::new(own, Method::GET, "/nubo/v1/status", "nubo:status", admin("nubo:status"), 200, status)
                .no_past(OF_NOW),
            Route::new(
                own,
                Method::GET,
                "/nubo/v1/explain/{kind}/{id}",
                "nubo:explain",
                admin("nubo:explain"),
                200,
                crate::explain::explain,
            )
            .no_past("it says what is being waited for now"),
            Route::new(own, Method::GET, "/nubo/v1/owners", "nubo:owners", admin("nubo:owners"), 200, owners)
                .no_past("it says what hosts shall hold now"),
            Route::new(own, Method::GET, "/nubo/v1/audit", "nubo:audit", admin("nubo:audit"), 200, audit)
                .no_past("it checks what is there now"),
            Route::new(own, Method::POST, "/nubo/v1/repair", "nubo:repair", admin("nubo:repair"), 200, repair)
                .no_dry_run("the audit names beforehand what a repair mends, and how")
                .no_undo("a repair brings back what history has, and writes none"),
        ], trash::routes(bin), keys::routes(&bin.identity), crate::keystone::routes(&bin.identity), policies::routes(&asking)]
        .concat(),
    })
}

/// Answers once the store does.
async fn health(own: Arc<Own>, _call: Call) -> Result<Reply> {
    own.store.read_few(|reader| reader.meta("bootstrap").map_err(Fault::from)).await?;
    Ok(Reply::text(200, "OK"))
}

async fn metrics(own: Arc<Own>, _call: Call) -> Result<Reply> {
    let mut text = own.gateway().map(|gateway| gateway.metrics().render()).unwrap_or_default();
    let unsettled = own.loops.get().map_or(0, |loops| loops.unsettled().len());
    text.push_str(&format!("# TYPE nubo_unsettled gauge\nnubo_unsettled {unsettled}\n"));
    let bugs = own.loops.get().map_or(0, engine::Handle::bugs);
    text.push_str(&format!("# TYPE nubo_bugs_total counter\nnubo_bugs_total {bugs}\n"));
    text.push_str("# TYPE nubo_leftovers_total counter\n");
    for left in engine::Leftover::ALL {
        let counted = own.store.read(move |reader| left.counted(reader)).await?;
        text.push_str(&format!("nubo_leftovers_total{{kind=\"{}\"}} {counted}\n", left.name()));
    }
    text.push_str(&format!("# TYPE nubo_store_revision counter\nnubo_store_revision {}\n", own.store.rev().0));
    Ok(Reply::text(200, text))
}

async fn status(own: Arc<Own>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut parts =
        vec![Part { name: "control".into(), version: version.clone(), healthy: true, detail: String::new() }];
    let info = own.store.info().await;
    parts.push(match info {
        Ok(info) => {
            Part { name: "store".into(), version: info.version, healthy: true, detail: info.engine.to_string() }
        }
        Err(fault) => Part { name: "store".into(), version: String::new(), healthy: false, detail: fault.message },
    });
    for service in own.services.get().into_iter().flatten() {
        parts.push(Part {
            name: (*service).to_owned(),
            version: version.clone(),
            healthy: true,
            detail: String::new(),
        });
    }
    let unsettled = own.loops.get().map(|loops| loops.unsettled()).unwrap_or_default();
    let worst = unsettled.iter().max_by_key(|item| item.attempts);
    parts.push(Part {
        name: "loops".into(),
        version: version.clone(),
        healthy: unsettled.is_empty(),
        detail: worst.map_or(String::new(), |item| {
            let (count, attempts) = (unsettled.len(), item.attempts);
            format!("{count} unsettled; {} {} after {attempts} attempts: {}", item.reconciler, item.id, item.last_error)
        }),
    });
    for host in own.sessions.inventories() {
        let alive = contract::Hosts::is_alive(&own.sessions, &host.name);
        let mut detail = vec![format!("{} {}", host.hypervisor_type, host.accel)];
        detail.extend((!alive).then(|| "does not poll".to_owned()));
        detail.extend(own.sessions.memory_sharing(&host.name).filter(|it| it.runs || it.pages_sharing > 0).map(|it| {
            format!("KSM saves {} MiB{}", it.saved_bytes >> 20, if it.runs { "" } else { ", and looks for no more" })
        }));
        detail.extend(host.warnings);
        parts.push(Part {
            name: format!("host {}", host.name),
            version: host.version,
            healthy: alive,
            detail: detail.join("; "),
        });
    }
    let warnings = own.store.read(|reader| engine::Trouble::warnings(reader, WARNINGS)).await?;
    call.reply(200, &json!({"parts": parts, "unsettled": unsettled, "warnings": warnings}))
}

/// Everything that each host shall hold, by kind and id, and the images that files belong to.
async fn owners(own: Arc<Own>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let audit = own.audit.clone();
    call.reply(200, &own.store.read(move |reader| audit.owners(reader)).await?)
}

/// Everything that fsck compares a machine with, and what is wrong in the store itself.
async fn audit(own: Arc<Own>, call: Call) -> Result<Reply> {
    call.enforce(&Target::default())?;
    let audit = own.audit.clone();
    let mut answer = own.store.read(move |reader| audit.answer(reader)).await?;
    let strays = own.image.strays().await?.into_iter().map(stray);
    if let Some(findings) = answer["findings"].as_array_mut() {
        findings.extend(strays.map(|finding| json!(finding)));
    }
    call.reply(200, &answer)
}

/// The kind of what lies in stores of images.
const STRAY: &str = "image_object";

fn stray(stray: image::Stray) -> Finding {
    let image::Stray { id, name, what, cure, stuck } = stray;
    Finding { kind: STRAY.to_owned(), id, name, what, cure, stuck }
}

/// `{"objects": [{"kind", "id"}]}`: mends what is wrong with these.
async fn repair(own: Arc<Own>, mut call: Call) -> Result<Reply> {
    #[derive(serde::Deserialize)]
    struct Object {
        kind: String,
        id: String,
    }
    #[derive(serde::Deserialize)]
    struct Wanted {
        objects: Vec<Object>,
    }
    call.enforce(&Target::default())?;
    let wanted: Wanted = call.json().await?;
    if wanted.objects.len() > MOST {
        return Err(Fault::invalid(format!("At most {MOST} objects can be mended at a time.")));
    }
    let objects: BTreeSet<(String, String)> =
        wanted.objects.into_iter().map(|object| (object.kind, object.id)).collect();
    let actor = call.caller.credentials.user_id.clone();
    let mut done = own.audit.repair(&own.store, &actor, objects.clone()).await?;
    for (kind, id) in objects.iter().filter(|(kind, _)| kind == STRAY) {
        if own.image.give_up(id).await? {
            done.push(format!("{kind} {id}: is removed from its store"));
        }
    }
    call.reply(200, &json!({"done": done}))
}
