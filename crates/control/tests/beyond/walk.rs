//! A walk over the route table: each operation that changes something has a dry run and an undo, or says why not.

use crate::cloud::TestCloud;
use rest::{DryRun, Route, Undo};
use serde_json::json;
use std::fmt::Write;

const PATH: &str = "../../docs/compat/dry-run-and-undo.md";

fn clause(why: &str) -> bool {
    why.len() > 10 && !why.ends_with('.') && why.chars().next().is_some_and(char::is_lowercase)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutating_operation_has_a_dry_run_and_an_undo_or_says_why_not() {
    let cloud = TestCloud::start(1).await;
    cloud.settle().await;
    let (mut asked, mut refused) = (0, 0);
    for service in cloud.cloud.gateway().services() {
        for route in service.routes.iter().filter(|route| route.mutates()) {
            if let Undo::Not(why) = route.undo {
                assert!(clause(why), "{}: {why}", route.operation);
            }
            for except in route.except {
                assert!(route.actions.contains(&except.action), "{} has no {}", route.operation, except.action);
            }
            let bodies = match route.actions {
                [] => vec![(route.operation, route.dry, json!({}))],
                actions => {
                    actions.iter().map(|action| (*action, dry_of(route, action), json!({*action: null}))).collect()
                }
            };
            for (what, dry, body) in bodies {
                let rev = cloud.cloud.store().rev();
                let path = format!("{}{}?dry_run=true", service.prefix, route.path).replace(['{', '}', '*'], "");
                let version = route.until.map(|until| format!("compute {until}")).unwrap_or_default();
                let version = if what == "os-getVNCConsole" { "compute 2.1".to_owned() } else { version };
                let headers = [("openstack-api-version", version.as_str())];
                let headers = if version.is_empty() { &headers[..0] } else { &headers[..] };
                let answer = cloud.call(&cloud.admin, route.method.as_str(), &path, &body, headers).await;
                assert_eq!(cloud.cloud.store().rev(), rev, "{what}: a dry run has written");
                let text = answer.body.to_string();
                match dry {
                    DryRun::Yes => assert!(!text.contains("has no dry run"), "{what}: {text}"),
                    // The actions of other versions are not found before that.
                    DryRun::Not(_) if answer.status == 404 && !route.actions.is_empty() => {}
                    DryRun::Not(why) => {
                        assert!(clause(why), "{what}: {why}");
                        assert_eq!(answer.status, 400, "{what}: {text}");
                        assert!(text.contains(why), "{what}: {text}");
                        refused += 1;
                    }
                }
                if answer.status < 400 {
                    assert!(answer.body["dry_run"]["status"].is_u64(), "{what}: {text}");
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 150 && refused > 3, "only {asked} asked and {refused} refused");
}

fn dry_of(route: &Route, action: &str) -> DryRun {
    route.except.iter().find(|except| except.action == action).map_or(route.dry, |except| except.dry)
}

fn document(cloud: &TestCloud) -> String {
    let mut text = String::from(
        "# Without a dry run, without an undo\n\nEvery operation that changes something can be asked what it would do \
         (`?dry_run=true`) and be taken back (`nubo undo`), but for these.\nWritten by the test that walks the route \
         tables.\n\n| operation | no dry run, because | no undo, because |\n|---|---|---|\n",
    );
    for service in cloud.cloud.gateway().services() {
        for route in service.routes.iter().filter(|route| route.mutates()) {
            let mut row = |what: String, dry: DryRun, undo: Undo| {
                let dry = if let DryRun::Not(why) = dry { why } else { "" };
                let undo = if let Undo::Not(why) = undo { why } else { "" };
                if !dry.is_empty() || !undo.is_empty() {
                    let _ = writeln!(text, "| {what} | {dry} | {undo} |");
                }
            };
            row(route.operation.to_owned(), route.dry, route.undo);
            for except in route.except {
                row(format!("{}: {}", route.operation, except.action), except.dry, except.undo);
            }
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_exceptions_is_what_the_tables_say() {
    let cloud = TestCloud::start(1).await;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PATH);
    let served = document(&cloud);
    if std::env::var_os("NUBO_BLESS").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == served, "{PATH} is not what the tables say: run this test with NUBO_BLESS=1");
}
