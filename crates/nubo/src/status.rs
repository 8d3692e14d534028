//! `nubo status`: every part, its version, healthy or why not.

use crate::client::{Client, Login};
use crate::netns;
use crate::process;
use crate::settings::Settings;
use crate::setup::Setup;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Exit 0: all healthy; 1: some part is not; 2: there is no cloud.
pub fn main(settings: &Settings, as_json: bool) -> Result<ExitCode> {
    let Some(setup) = Setup::load(&settings.state)? else {
        eprintln!("no cloud in {}: run `make up`", settings.state.display());
        return Ok(ExitCode::from(2));
    };
    if let Some(name) = settings.netns.as_deref().filter(|name| netns::exists(name)) {
        netns::enter(name)?;
    }
    let mut parts: Vec<Value> =
        ["supervisor", "control", "agent"].iter().map(|name| process_part(settings, name)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut warnings = Vec::new();
    match runtime.block_on(remote(settings, &setup)) {
        Ok(remote) => {
            warnings = remote["warnings"].as_array().cloned().unwrap_or_default();
            let more = remote["parts"].as_array().into_iter().flatten();
            parts.extend(more.filter(|part| part["name"] != "control").cloned());
        }
        Err(error) => {
            parts.push(json!({"name": "api", "version": "", "healthy": false, "detail": format!("{error:#}")}));
        }
    }
    let healthy = parts.iter().all(|part| part["healthy"] == true);
    if as_json {
        println!("{}", json!({"cloud": setup.cloud_id, "healthy": healthy, "parts": parts, "warnings": warnings}));
    } else {
        println!("cloud {} in {}", setup.cloud_id, settings.state.display());
        for part in &parts {
            let text = |key: &str| part[key].as_str().unwrap_or_default().to_owned();
            let word = if part["healthy"] == true { "healthy" } else { "UNHEALTHY" };
            println!("  {:<28} {:<10} {:<10} {}", text("name"), text("version"), word, text("detail"));
        }
        warnings.iter().for_each(|warning| println!("  {}", warning_line(warning)));
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What does not settle, in one line.
fn warning_line(warning: &Value) -> String {
    let text = |key: &str| warning[key].as_str().unwrap_or_default();
    let since = warning["since"].as_i64().map_or(String::new(), |at| base::Timestamp(at).iso_seconds());
    format!(
        "WARNING {} {}: {} fruitless attempts since {since}: {}",
        text("reconciler"),
        text("object"),
        warning["attempts"],
        text("last_error")
    )
}

fn process_part(settings: &Settings, name: &str) -> Value {
    let subcommand = if name == "supervisor" { "supervise" } else { name };
    let found = process::find(&settings.run().join(format!("{name}.pid")), subcommand, &settings.state);
    let detail = found.map_or("does not run".to_owned(), |found| format!("pid {}", found.pid));
    json!({"name": name, "version": env!("CARGO_PKG_VERSION"), "healthy": found.is_some(), "detail": detail})
}

/// Asks control itself.
async fn remote(settings: &Settings, setup: &Setup) -> Result<Value> {
    let (client, url) = admin(settings, setup).await?;
    client.get_url(&format!("{url}/nubo/v1/status")).await
}

/// A client of the admin, and where the API is.
pub async fn admin(settings: &Settings, setup: &Setup) -> Result<(Client, String)> {
    let url = url(settings)?;
    let login = Login {
        auth_url: format!("{url}/identity"),
        user: "admin".into(),
        password: setup.admin_password.clone(),
        project: "admin".into(),
        ca: Some(settings.state.join("ca.pem")).filter(|path| path.exists()),
    };
    Ok((Client::login(&login).await?, url))
}

/// Where the API is: as control wrote it down, else as the settings say.
pub fn url(settings: &Settings) -> Result<String> {
    match std::fs::read_to_string(settings.run().join("url")) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(_) if settings.listen.port() != 0 => {
            let secure = !settings.listen.ip().is_loopback();
            Ok(format!("{}://{}", if secure { "https" } else { "http" }, settings.listen))
        }
        Err(error) => Err(error).context("control has not started yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_says_what_since_when_and_why() {
        let warning = json!({
            "reconciler": "place", "object": "a-server", "attempts": 8, "since": 1_000_000, "last_error": "no room"
        });
        assert_eq!(
            warning_line(&warning),
            "WARNING place a-server: 8 fruitless attempts since 1970-01-01T00:00:01Z: no room"
        );
    }
}
