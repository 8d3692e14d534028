//! The joined route tables: what `docs/compat/operations.md` says is what the program serves, and no route is without a
//! rule that the policy knows. `NUBO_BLESS=1` writes the document anew.

#[path = "beyond/cloud.rs"]
mod cloud;
#[path = "beyond/deadlines.rs"]
mod deadlines;
#[path = "beyond/dry_run.rs"]
mod dry_run;
#[path = "beyond/ends.rs"]
mod ends;
#[path = "beyond/fsck.rs"]
mod fsck;
#[path = "beyond/idempotency.rs"]
mod idempotency;
#[path = "beyond/imaging.rs"]
mod imaging;
#[path = "beyond/past.rs"]
mod past;
#[path = "beyond/random.rs"]
mod random;
#[path = "beyond/trash.rs"]
mod trash;
#[path = "beyond/volumes.rs"]
mod volumes;
#[path = "beyond/walk.rs"]
mod walk;
#[path = "beyond/watch.rs"]
mod watch;

use base::Env;
use control::{Bootstrap, Cloud, CloudOptions};
use rest::Access;
use std::collections::BTreeSet;
use std::fmt::Write;

async fn cloud(images: &std::path::Path) -> Cloud {
    let bootstrap = Bootstrap {
        cloud_id: "0a1b2c3d".into(),
        admin_password: "admin".into(),
        demo_password: "demo".into(),
        secret_keys: vec!["YSBrZXkgZm9yIHRlc3RzLCBvZiAzMiBieXRlcyAuLi4=".into()],
    };
    let options = CloudOptions {
        store_url: "sqlite::memory:".into(),
        public_url: "http://cloud".into(),
        images: images.to_owned(),
        image_stores: Default::default(),
        image_cache: None,
        image_default_store: None,
        policy: None,
        bcrypt_rounds: 4,
        image_format_enforcement: true,
        image_import: Default::default(),
        image_protections: None,
        compliance: Default::default(),
        limit_model: Default::default(),
        federation: Default::default(),
        token_provider: Default::default(),
        auth_methods: Default::default(),
        login_limit: Default::default(),
        directories: None,
        bootstrap,
        masquerade: None,
        history_retention_s: control::HISTORY_RETENTION_S,
        trash_retention_s: control::TRASH_RETENTION_S,
        reclaim_instance_interval_s: 0,
        deadlines: Default::default(),
    };
    Cloud::open(options, Env::system()).await.unwrap()
}

fn document(cloud: &Cloud) -> String {
    let mut text = String::from("# Operations\n\nWritten by the test that compares it with the program's own route tables.\n");
    for service in cloud.gateway().services() {
        let _ = write!(text, "\n## {}", service.name);
        if let Some(range) = &service.microversions {
            let _ = write!(text, " (microversions {} to {})", range.min, range.max);
        }
        text.push_str("\n\n| method | path | operation | rule | success |\n|---|---|---|---|---|\n");
        for route in &service.routes {
            let rule = match route.access {
                Access::Open => "open".to_owned(),
                Access::Rule(rule) => format!("`{rule}`"),
            };
            let mut path = format!("{}{}", service.prefix, route.path);
            if path.is_empty() {
                path.push('/');
            }
            let mut operation = route.operation.to_owned();
            for (word, version) in [("since", route.since), ("until", route.until)] {
                if let Some(version) = version {
                    let _ = write!(operation, ", {word} {version}");
                }
            }
            if !route.actions.is_empty() {
                let _ = write!(operation, ": {}", route.actions.join(", "));
            }
            let _ = writeln!(text, "| {} | `{path}` | {operation} | {rule} | {} |", route.method, route.success);
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_operations_is_what_is_served() {
    let images = tempfile::tempdir().unwrap();
    let cloud = cloud(images.path()).await;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compat/operations.md");
    let served = document(&cloud);
    if std::env::var_os("NUBO_BLESS").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == served, "docs/compat/operations.md is not what is served: run this test with NUBO_BLESS=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_guarded_route_has_a_rule_that_its_policy_knows_and_a_name_of_its_own() {
    let images = tempfile::tempdir().unwrap();
    let cloud = cloud(images.path()).await;
    for service in cloud.gateway().services() {
        let mut seen = BTreeSet::new();
        for route in &service.routes {
            let key = (route.operation, route.method.clone().to_string(), route.path, route.since, route.until);
            assert!(seen.insert(key), "{} {} stands twice", service.name, route.operation);
            if let Access::Rule(rule) = route.access {
                assert!(service.policy.contains(rule), "{}: no default for {rule}", route.operation);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_guarded_route_answers_without_a_token() {
    let images = tempfile::tempdir().unwrap();
    let cloud = cloud(images.path()).await;
    let mut asked = 0;
    for service in cloud.gateway().services() {
        for route in service.routes.iter().filter(|route| route.access != Access::Open) {
            let path = format!("{}{}", service.prefix, route.path).replace(['{', '}', '*'], "");
            let request = http::Request::builder().method(route.method.clone()).uri(&path);
            let answer = cloud.answer(request.body(axum::body::Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), 401, "{} {path}", route.method);
            assert!(answer.headers().contains_key("x-openstack-request-id"));
            asked += 1;
        }
    }
    assert!(asked > 300, "only {asked} routes");
}
