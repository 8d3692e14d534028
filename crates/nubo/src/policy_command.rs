//! `nubo policy`: the rules by which services decide, and why one decides as it does.

use crate::settings::Settings;
use crate::trash;
use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Print every default as a policy.yaml, commented out. What is kept of it goes into policy.yaml of the state folder
    Sample,
    /// Whether and why a user may do something. Exit 0: some token of the user may, 1: none may
    Explain {
        /// Id or name
        user: String,
        /// Such as `identity:list_projects` or `os_compute_api:servers:create`
        rule: String,
        /// A project by id or name, or `name=value,…`; without it, what belongs to the project of each token
        target: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

pub fn main(settings: &Settings, command: PolicyCommand) -> Result<ExitCode> {
    let PolicyCommand::Explain { user, rule, target, json } = command else {
        let text = control::policy_sample().map_err(|fault| anyhow::anyhow!(fault.chain()))?;
        return match std::io::stdout().write_all(text.as_bytes()) {
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            written => Ok(written.map(|()| ExitCode::SUCCESS)?),
        };
    };
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("user", &user).append_pair("rule", &rule);
    query.append_pair("target", target.as_deref().unwrap_or_default());
    let query = query.finish();
    trash::run(settings, async |client, url| {
        let answer = client.get_url(&format!("{url}/nubo/v1/policy?{query}")).await?;
        match json {
            true => println!("{answer}"),
            false => print!("{}", text(&answer["policy"])),
        }
        Ok(if answer["policy"]["allowed"] == true { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}

/// As people read it.
fn text(policy: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut text = format!("{}: {}\n", word(&policy["rule"]), word(&policy["description"]));
    let _ = writeln!(text, "  {}", word(&policy["check"]));
    let name = word(&policy["user"]["name"]);
    for token in policy["tokens"].as_array().into_iter().flatten() {
        let scope = match &token["scope"] {
            scope if scope["project"].is_object() => format!("in the project {}", word(&scope["project"]["name"])),
            scope if scope["domain"].is_object() => format!("in the domain {}", word(&scope["domain"]["id"])),
            scope if scope["system"].is_object() => "on the system".to_owned(),
            _ => "without a scope".to_owned(),
        };
        let all = |key: &str| {
            let words = token[key].as_array().into_iter().flatten();
            words.map(word).collect::<Vec<_>>().join(", ")
        };
        let roles = if all("roles").is_empty() { "no role".to_owned() } else { all("roles") };
        let _ = writeln!(text, "{name} {scope} ({roles}): {}", word(&token["decision"]));
        if token["decision"] == "wrong scope" {
            let _ = writeln!(text, "  the rule takes tokens of: {}", all("takes"));
            continue;
        }
        for check in token["checks"].as_array().into_iter().flatten() {
            let holds = if check["holds"] == true { "yes" } else { "no" };
            let depth = check["depth"].as_u64().unwrap_or(0) as usize;
            let _ = writeln!(text, "  {holds:<3} {:depth$}{}", "", word(&check["check"]), depth = 2 * depth);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_is_read_from_top_to_bottom() {
        let check = |depth: u64, check: &str, holds: bool| json!({"depth": depth, "check": check, "holds": holds});
        let policy = json!({
            "rule": "things:list", "check": "role:reader or role:admin", "description": "List things.",
            "user": {"id": "1", "name": "ada"}, "allowed": true,
            "tokens": [
                {"scope": {"system": {"all": true}}, "roles": ["admin"], "decision": "wrong scope", "takes": ["project"],
                 "checks": []},
                {"scope": {"project": {"id": "p", "name": "demo"}}, "roles": ["member", "reader"], "decision": "allowed",
                 "takes": ["project"],
                 "checks": [check(0, "any of", true), check(1, "role:reader", true), check(1, "role:admin", false)]},
            ],
        });
        assert_eq!(
            text(&policy),
            "things:list: List things.\n  role:reader or role:admin\nada on the system (admin): wrong scope\n  the rule \
             takes tokens of: project\nada in the project demo (member, reader): allowed\n  yes any of\n  yes   \
             role:reader\n  no    role:admin\n"
        );
    }
}
