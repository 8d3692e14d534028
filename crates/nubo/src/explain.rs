//! `nubo explain KIND ID`: why something is as it is.

use crate::netns;
use crate::settings::Settings;
use crate::setup::Setup;
use crate::status;
use anyhow::{Result, bail};
use serde_json::Value;
use std::fmt::Write;

pub fn main(settings: &Settings, kind: &str, id: &str, as_json: bool) -> Result<()> {
    let Some(setup) = Setup::load(&settings.state)? else { bail!("no cloud in {}", settings.state.display()) };
    if let Some(name) = settings.netns.as_deref().filter(|name| netns::exists(name)) {
        netns::enter(name)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let (client, url) = status::admin(settings, &setup).await?;
        client.get_url(&format!("{url}/nubo/v1/explain/{kind}/{id}")).await
    })?;
    match as_json {
        true => println!("{answer}"),
        false => print!("{}", text(&answer["explanation"])),
    }
    Ok(())
}

/// As people read it.
fn text(explanation: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of = |key: &str| word(&explanation[key]);
    let mut text = format!("{} {} is {}.\n{}\n", of("kind"), of("id"), of("state"), of("why"));
    for (key, name) in [
        ("waiting_on", "waiting on"),
        ("since", "since"),
        ("deadline", "deadline"),
        ("attempts", "attempts"),
        ("last_error", "last error"),
    ] {
        if !explanation[key].is_null() {
            let _ = writeln!(text, "  {name:<12} {}", of(key));
        }
    }
    for (key, value) in explanation["details"].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        if key == "table" {
            table(&mut text, value);
        } else {
            let _ = writeln!(text, "  {:<12} {}", key.replace('_', " "), word(value));
        }
    }
    text
}

/// Host × constraint.
fn table(text: &mut String, rows: &Value) {
    for row in rows.as_array().into_iter().flatten() {
        let _ = write!(text, "  {:<12}", row["host"].as_str().unwrap_or_default());
        for check in row["checks"].as_array().into_iter().flatten() {
            let pass = if check["pass"] == true { "ok" } else { "FAIL" };
            let _ = write!(text, " {} {pass}", check["constraint"].as_str().unwrap_or_default());
            if !check["amount"].is_null() {
                let _ = write!(text, " ({} needed, {} free)", check["amount"]["needed"], check["amount"]["free"]);
            }
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_explanation_is_read_from_top_to_bottom() {
        let check = json!({"constraint": "memory", "pass": false, "amount": {"needed": 9, "free": 1, "capacity": 2}});
        let explanation = json!({
            "kind": "server", "id": "a", "state": "BUILD (scheduling)", "why": "It waits.", "waiting_on": "a host",
            "attempts": 2, "last_error": null,
            "details": {"would_fit": "with less", "table": [{"host": "h", "checks": [check]}]},
        });
        assert_eq!(
            text(&explanation),
            "server a is BUILD (scheduling).\nIt waits.\n  waiting on   a host\n  attempts     2\n  h            memory \
             FAIL (9 needed, 1 free)\n  would fit    with less\n"
        );
    }
}
