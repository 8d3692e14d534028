//! `nubo trash` and `nubo undo`: what was deleted and can still come back.
//!
//! As OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME say; without them as the administrator of the cloud in
//! the state.

use crate::client::{Client, Login};
use crate::netns;
use crate::settings::Settings;
use crate::setup::Setup;
use crate::status;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use hyper::Method;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum TrashCommand {
    /// What rests, whose request it was, and until when
    List {
        /// Of all projects (administrators)
        #[arg(long)]
        all_projects: bool,
        #[arg(long)]
        json: bool,
    },
    /// Empty a part of the trash for good, by its id or its request's
    Purge { id: String },
}

/// How to undo.
pub struct Undo {
    pub requests: Vec<String>,
    pub partial: bool,
    pub dry_run: bool,
    pub json: bool,
}

pub fn trash(settings: &Settings, command: TrashCommand) -> Result<ExitCode> {
    run(settings, async |client, url| match command {
        TrashCommand::List { all_projects, json } => list(client, url, all_projects, json).await,
        TrashCommand::Purge { id } => {
            client.call_url(Method::DELETE, &format!("{url}/nubo/v1/trash/{}", plain(&id)?)).await?;
            Ok(ExitCode::SUCCESS)
        }
    })
}

/// Takes requests back, the last one first.
pub fn undo(settings: &Settings, undo: Undo) -> Result<ExitCode> {
    run(settings, async |client, url| {
        let (method, query) = match (undo.dry_run, undo.partial) {
            (true, _) => (Method::GET, ""),
            (false, true) => (Method::POST, "?partial=true"),
            (false, false) => (Method::POST, ""),
        };
        for request in undo.requests.iter().rev() {
            let url = format!("{url}/nubo/v1/undo/{}{query}", plain(request)?);
            let answer = client.call_url(method.clone(), &url).await?;
            if undo.json {
                println!("{answer}");
            } else {
                show(&answer["undo"], undo.dry_run);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub fn run(settings: &Settings, act: impl AsyncFnOnce(&Client, &str) -> Result<ExitCode>) -> Result<ExitCode> {
    if let Some(name) = settings.netns.as_deref().filter(|name| netns::exists(name)) {
        netns::enter(name)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, url) = login(settings).await?;
        act(&client, &url).await
    })
}

async fn login(settings: &Settings) -> Result<(Client, String)> {
    let Ok(auth_url) = std::env::var("OS_AUTH_URL") else {
        let setup = Setup::load(&settings.state)?;
        let setup = setup.with_context(|| format!("no cloud in {}, and no OS_AUTH_URL", settings.state.display()))?;
        return status::admin(settings, &setup).await;
    };
    let of = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let login = Login {
        user: of("OS_USERNAME")?,
        password: of("OS_PASSWORD")?,
        project: of("OS_PROJECT_NAME")?,
        ca: std::env::var_os("OS_CACERT").map(Into::into),
        auth_url: auth_url.clone(),
    };
    let url = auth_url.trim_end_matches('/').trim_end_matches("/v3").trim_end_matches("/identity").to_owned();
    Ok((Client::login(&login).await?, url))
}

/// What may stand in a path as it is.
pub fn plain(id: &str) -> Result<&str> {
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        bail!("'{id}' is no id");
    }
    Ok(id)
}

async fn list(client: &Client, url: &str, all_projects: bool, as_json: bool) -> Result<ExitCode> {
    let all = client.get_url(&format!("{url}/nubo/v1/trash?all_projects={all_projects}")).await?;
    if as_json {
        println!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    for entry in all["trash"].as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        println!("{}  {}  until {}  ({})", text("request_id"), text("operation"), text("purged_at"), text("id"));
        for document in entry["documents"].as_array().into_iter().flatten() {
            let of = |key: &str| document[key].as_str().unwrap_or_default();
            println!("    {:<20} {:<36} {}", of("kind").replace('_', " "), of("id"), of("name"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(undo: &Value, would: bool) {
    let lines = |key: &str| undo[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (request, operation) = (text(undo, "request_id"), text(undo, "operation"));
    println!("{request} ({operation}) {}", if would { "would be undone:" } else { "is undone:" });
    for step in lines("changes") {
        let fields: Vec<String> =
            step["fields"].as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect();
        println!("    {} {} {} {}", text(&step, "what"), text(&step, "kind"), text(&step, "id"), fields.join(" "));
    }
    for left in lines("collisions").into_iter().chain(lines("over_quota")) {
        println!("    NOT {} {}: {}", text(&left, "kind"), text(&left, "id"), text(&left, "reason"));
    }
    for left in lines("never_kept") {
        println!("    never kept: {} {}", text(&left, "kind"), text(&left, "id"));
    }
}
