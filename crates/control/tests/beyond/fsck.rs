//! Damage that hands do to a store on PostgreSQL: the audit names it, and a repair mends it, both through control and in
//! the store itself. `tests/host/test_fsck.py` does the same and more to a machine on SQLite.

use crate::cloud::{TestCloud, options};
use base::Env;
use control::Offline;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DATABASE: &str = "cloud";
const STRAY: &str = "0f3d8a1c-0000-4000-8000-00000000dead";

/// The ids of what is damaged.
struct Things {
    server: String,
    port: String,
    network: String,
    subnet: String,
    group: String,
    rule: String,
}

/// What is done to the store, and what the audit must say: kind, id, and words.
struct Damage {
    sql: String,
    kind: &'static str,
    id: String,
    words: &'static str,
}

fn damage(sql: impl Into<String>, kind: &'static str, id: impl Into<String>, words: &'static str) -> Damage {
    Damage { sql: sql.into(), kind, id: id.into(), words }
}

async fn furnish(cloud: &TestCloud) -> Things {
    let make = async |path: &str, key: &str, body: Value| {
        let answer = cloud.call(&cloud.admin, "POST", path, &json!({ key: body }), &[]).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.body);
        answer.body[key]["id"].as_str().unwrap().to_owned()
    };
    let image = cloud.image().await;
    let network = make("/network/v2.0/networks", "network", json!({"name": "side"})).await;
    let subnet = json!({"name": "side-sub", "network_id": network, "ip_version": 4, "cidr": "10.77.1.0/24"});
    let subnet = make("/network/v2.0/subnets", "subnet", subnet).await;
    let group = make("/network/v2.0/security-groups", "security_group", json!({"name": "odd"})).await;
    let rule = json!({"security_group_id": group, "direction": "ingress", "ethertype": "IPv4"});
    let rule = make("/network/v2.0/security-group-rules", "security_group_rule", rule).await;
    let flavor = make("/compute/v2.1/flavors", "flavor", json!({"name": "f", "ram": 64, "vcpus": 1, "disk": 1})).await;
    let server = json!({"name": "victim", "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}]});
    let server = make("/compute/v2.1/servers", "server", server).await;
    cloud.settle().await;
    let ports = cloud.get(&format!("/network/v2.0/ports?device_id={server}")).await;
    let port = ports["ports"][0]["id"].as_str().unwrap().to_owned();
    Things { server, port, network, subnet, group, rule }
}

/// What tables and references are damaged by. Each of them can be told apart from the others.
fn to_documents(things: &Things) -> Vec<Damage> {
    let Things { server, port, network, subnet, group, rule } = things;
    let edit =
        |kind: &str, id: &str, what: &str| format!("UPDATE document SET {what} WHERE kind = '{kind}' AND id = '{id}'");
    let observed = format!(r#"{{"id":"{STRAY}","host":"h","up":true,"fault":null}}"#);
    vec![
        damage(
            edit("server", server, r#"body = replace(body, '"victim"', '"edited"')"#),
            "server",
            server,
            "not what its history says: hostname, name",
        ),
        damage(
            format!("DELETE FROM document WHERE kind = 'port' AND id = '{port}'"),
            "port",
            port,
            "nothing deleted it",
        ),
        damage(
            format!(
                "INSERT INTO document SELECT kind, '{STRAY}', project_id, rev, created + 1, updated,
                 replace(body, id, '{STRAY}') FROM document WHERE kind = 'security_group_rule' AND id = '{rule}'"
            ),
            "security_group_rule",
            STRAY,
            "came from nowhere",
        ),
        damage(edit("network", network, "project_id = 'nobody'"), "network", network, "its id or project"),
        damage(
            format!("DELETE FROM index_entry WHERE kind = 'subnet' AND id = '{subnet}'"),
            "subnet",
            subnet,
            "is missing",
        ),
        damage(
            format!(
                "INSERT INTO unique_entry(kind, name, value, id) VALUES('user', 'name', 'default/ghost', '{STRAY}')"
            ),
            "user",
            STRAY,
            "is too many",
        ),
        damage(edit("security_group", group, "body = '{'"), "security_group", group, "cannot be read"),
        damage(
            format!(
                "INSERT INTO document VALUES('port_observed', '{STRAY}', '', 1, 1, 1, '{observed}');
                 INSERT INTO history(seq, kind, id, project_id, created, actor, request_id, what, at, body)
                 SELECT min(seq) - 1, 'port_observed', '{STRAY}', '', 1, 'x', 'x', 'x', 1, '{observed}' FROM history"
            ),
            "port_observed",
            STRAY,
            "which is not there",
        ),
    ]
}

/// What is compared with a count, or with other documents: only where nothing else is damaged.
fn to_counts(things: &Things, scope: &str) -> Vec<Damage> {
    let Things { subnet, group, rule, .. } = things;
    let used = format!(r#"{{"id":"{subnet}","used":[{{"start":"10.77.1.200","end":"10.77.1.201"}}]}}"#);
    let ledger = |change: &str, resource: &str| format!("{change} WHERE scope = '{scope}' AND resource = '{resource}'");
    let quota = |resource: &str| format!("{scope}/{resource}");
    vec![
        damage(
            format!("UPDATE document SET body = '{used}' WHERE kind = 'subnet_addresses' AND id = '{subnet}'"),
            "subnet_addresses",
            subnet,
            "taken addresses",
        ),
        damage(ledger("UPDATE ledger SET used = used + 5", "network"), "quota", quota("network"), "the ledger says"),
        damage(ledger("DELETE FROM ledger", "port"), "quota", quota("port"), "the ledger says 0"),
        damage(
            ["document", "history"]
                .map(|table| {
                    format!(
                        "UPDATE {table} SET body = replace(body, '{group}', '{STRAY}')
                         WHERE kind = 'security_group_rule' AND id = '{rule}'"
                    )
                })
                .join(";"),
            "security_group_rule",
            rule,
            "which is not there",
        ),
    ]
}

fn named(findings: &Value, damage: &Damage) {
    let all = findings.as_array().into_iter().flatten();
    let fits = |it: &Value| {
        it["kind"] == damage.kind
            && it["id"] == damage.id
            && it["what"].as_str().is_some_and(|what| what.contains(damage.words))
    };
    assert!(all.into_iter().any(fits), "{} {}: {} is not in {findings:#}", damage.kind, damage.id, damage.words);
}

fn objects(findings: &Value) -> BTreeSet<(String, String)> {
    let text = |it: &Value, name: &str| it[name].as_str().unwrap_or_default().to_owned();
    findings.as_array().into_iter().flatten().map(|it| (text(it, "kind"), text(it, "id"))).collect()
}

/// Through control, round by round, until nothing is left.
async fn mend(cloud: &TestCloud) {
    for _ in 0..4 {
        let findings = cloud.get("/nubo/v1/audit").await["findings"].clone();
        let named: Vec<Value> = objects(&findings).iter().map(|(kind, id)| json!({"kind": kind, "id": id})).collect();
        if named.is_empty() {
            return;
        }
        let answer = cloud.call(&cloud.admin, "POST", "/nubo/v1/repair", &json!({ "objects": named }), &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    panic!("this is left: {:#}", cloud.get("/nubo/v1/audit").await["findings"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_a_store_on_postgresql_is_found_and_mended() {
    let Some(postgres) = testkit::Postgres::start() else { return };
    let (url, images) = (postgres.database(DATABASE), tempfile::tempdir().unwrap());
    let cloud = TestCloud::open_with(options(&url, images.path()), Env::system(), 1).await;
    let things = furnish(&cloud).await;
    let show = format!("/compute/v2.1/servers/{}", things.server);
    let server = cloud.get(&show).await;
    let scope = cloud.get(&format!("/network/v2.0/networks/{}", things.network)).await;
    let scope = scope["network"]["project_id"].as_str().unwrap().to_owned();
    assert_eq!(cloud.get("/nubo/v1/audit").await["findings"], json!([]), "a clean store has nothing to say");

    // One by one, while control runs.
    for damage in to_documents(&things).into_iter().chain(to_counts(&things, &scope)) {
        postgres.sql(DATABASE, &damage.sql);
        let audit = cloud.get("/nubo/v1/audit").await;
        named(&audit["findings"], &damage);
        mend(&cloud).await;
    }
    assert_eq!(cloud.get(&show).await["server"]["name"], server["server"]["name"]);
    drop(cloud);

    // All at once, while nobody runs: the first round mends documents, the next what depends on them.
    let offline = Offline::open(options(&url, images.path()), Env::system()).await.unwrap();
    let mut planted = to_documents(&things);
    // The rule itself went with the last of the damage above.
    planted.retain(|damage| damage.kind != "security_group_rule");
    planted.iter().for_each(|damage| drop(postgres.sql(DATABASE, &damage.sql)));
    postgres.sql(DATABASE, "INSERT INTO document VALUES('balloon', '', '', 1, 1, 1, '{}')");
    let findings = json!(offline.findings().await.unwrap());
    planted.iter().for_each(|damage| named(&findings, damage));
    for _ in 0..3 {
        offline.repair(objects(&json!(offline.findings().await.unwrap()))).await.unwrap();
    }
    let left = offline.findings().await.unwrap();
    assert!(matches!(&left[..], [one] if one.kind == "balloon" && one.cure.is_none()), "{left:?}");
    postgres.sql(DATABASE, "DELETE FROM document WHERE kind = 'balloon'");
    for (n, damage) in to_counts(&things, &scope).into_iter().filter(|it| it.kind != "security_group_rule").enumerate()
    {
        postgres.sql(DATABASE, &damage.sql);
        named(&json!(offline.findings().await.unwrap()), &damage);
        offline.repair([(damage.kind.to_owned(), damage.id)].into()).await.unwrap();
        assert_eq!(offline.findings().await.unwrap(), [], "{n}");
    }
    drop(offline);

    let cloud = TestCloud::open_with(options(&url, images.path()), Env::system(), 1).await;
    assert_eq!(cloud.get(&show).await["server"]["name"], "victim", "control goes on from there");
}
