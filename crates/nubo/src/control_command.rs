//! `nubo control`: the APIs, as an unprivileged account.

use crate::settings::Settings;
use crate::setup;
use crate::tls;
use anyhow::{Context, Result};
use base::Env;
use control::{Bootstrap, Cloud, CloudOptions};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub fn main(settings: &Settings) -> Result<()> {
    crate::supervise::own_session();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: &Settings) -> Result<()> {
    let directory = settings.state.join("control");
    let listener = bind(settings).await?;
    let bound = listener.local_addr()?;
    let secure = !bound.ip().is_loopback();
    let url = format!("{}://{bound}", if secure { "https" } else { "http" });
    let bootstrap = std::fs::read(directory.join("bootstrap.json")).context("cannot read bootstrap.json")?;
    let bootstrap: Bootstrap = serde_json::from_slice(&bootstrap)?;
    let options = options(settings, settings.public_url.clone().unwrap_or_else(|| url.clone()), bootstrap)?;
    let cloud = Cloud::open(options, Env::system()).await.map_err(|fault| anyhow::anyhow!(fault.chain()))?;
    let tls = if secure { Some(Arc::new(tls::server_config(&directory)?)) } else { None };
    let run = settings.run();
    let hosts = control::serve_hosts(cloud.link(), &run);
    let public = control::serve(cloud.clone(), listener, tls);
    write(settings, "url", &format!("{url}\n"))?;
    write(settings, "control.pid", &std::process::id().to_string())?;
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        result = hosts => result.context("the hosts' socket")?,
        () = public => {}
        _ = term.recv() => {}
    }
    Ok(())
}

pub fn options(settings: &Settings, public_url: String, bootstrap: Bootstrap) -> Result<CloudOptions> {
    let policy = std::fs::read_to_string(settings.state.join("policy.yaml")).ok();
    let federation = settings.federation.clone().options(settings.saml.clone());
    let federation = federation.map_err(|fault| anyhow::anyhow!(fault.chain()))?;
    let options = CloudOptions {
        store_url: settings.store_url(),
        public_url,
        images: settings.state.join("control/images"),
        image_stores: settings.image_stores.clone(),
        image_cache: settings.image_cache.clone(),
        image_default_store: settings.image_default_store.clone(),
        policy,
        bcrypt_rounds: settings.bcrypt_rounds,
        compliance: settings.compliance.clone(),
        limit_model: settings.limit_model,
        federation,
        directories: Some(Arc::new(control::Directories)),
        token_provider: settings.token_provider,
        auth_methods: settings.auth_methods,
        login_limit: settings.login_limit.clone(),
        image_format_enforcement: settings.image_format_enforcement,
        image_import: control::ImageImport {
            rules: settings.image_import.clone(),
            web: None,
            convert_to: settings.image_conversion,
        },
        image_protections: settings.image_property_protections.as_ref().map(|it| it.read()).transpose()?,
        bootstrap,
        masquerade: settings.uplink.clone(),
        trash_retention_s: settings.trash_retention_s.into(),
        history_retention_s: settings.history_retention_s.into(),
        reclaim_instance_interval_s: settings.reclaim_instance_interval_s.into(),
        deadlines: settings.deadlines,
    };
    Ok(options)
}

/// With port 0 the port of the last time comes first, so that a restart changes nothing for clients.
async fn bind(settings: &Settings) -> Result<TcpListener> {
    if settings.listen.port() == 0
        && let Ok(last) = std::fs::read_to_string(settings.run().join("url"))
        && let Some(address) = last.trim().split("://").nth(1).and_then(|text| text.parse::<SocketAddr>().ok())
        && let Ok(listener) = TcpListener::bind(address).await
    {
        return Ok(listener);
    }
    TcpListener::bind(settings.listen).await.with_context(|| format!("cannot listen at {}", settings.listen))
}

fn write(settings: &Settings, name: &str, text: &str) -> Result<()> {
    setup::write_public(&settings.run().join(name), text.as_bytes())
}
