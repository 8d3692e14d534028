//! Flavors, key pairs, quotas, hosts: what they keep and show.

use crate::cloud::*;
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn private_flavors_belong_to_those_on_their_list() {
    let cloud = Cloud::new(0).await;
    let body = json!({"flavor": {"name": "vip", "ram": 64, "vcpus": 1, "disk": 0, "id": "vip", "os-flavor-access:is_public": false}});
    cloud.post(ADMIN, "/flavors", body).await.ok(200);
    assert_eq!(cloud.get(ALICE, "/flavors/vip").await.status, 404);
    cloud.post(ADMIN, "/flavors/vip/action", json!({"addTenantAccess": {"tenant": "demo"}})).await.ok(200);
    assert_eq!(cloud.get(ALICE, "/flavors/vip").await.status, 200);
    assert_eq!(cloud.get(MALLORY, "/flavors/vip").await.status, 404);
    assert_eq!(cloud.get(ALICE, "/flavors").await.ok(200)["flavors"].as_array().unwrap().len(), 2);
    let access = cloud.get(ADMIN, "/flavors/vip/os-flavor-access").await.ok(200);
    assert_eq!(access, json!({"flavor_access": [{"flavor_id": "vip", "tenant_id": "demo"}]}));
    cloud.post(ADMIN, "/flavors/vip/action", json!({"removeTenantAccess": {"tenant": "demo"}})).await.ok(200);
    assert_eq!(cloud.get(ALICE, "/flavors/vip").await.status, 404);
    let page = cloud.get(ADMIN, "/flavors?limit=1&is_public=None").await.ok(200);
    let next = page["flavors_links"][0]["href"].as_str().unwrap();
    assert!(next.contains("marker=1") && next.contains("is_public=None"), "{next}");
    cloud.delete(ADMIN, "/flavors/vip").await.ok(202);
    assert_eq!(cloud.delete(ADMIN, "/flavors/vip").await.status, 404);
}

#[tokio::test]
async fn extra_specs_are_kept_and_shown() {
    let cloud = Cloud::new(0).await;
    let path = "/flavors/1/os-extra_specs";
    cloud.post(ADMIN, path, json!({"extra_specs": {"hw:cpu_policy": "shared", "n": 1}})).await.ok(200);
    cloud.put(ADMIN, &format!("{path}/n"), json!({"n": "2"})).await.ok(200);
    assert_eq!(cloud.get(ALICE, path).await.ok(200), json!({"extra_specs": {"hw:cpu_policy": "shared", "n": "2"}}));
    assert_eq!(cloud.get(ALICE, "/flavors/1").await.ok(200)["flavor"]["extra_specs"]["n"], "2");
    cloud.delete(ADMIN, &format!("{path}/n")).await.ok(200);
    assert_eq!(cloud.get(ALICE, &format!("{path}/n")).await.status, 404);
}

#[tokio::test]
async fn key_pairs_are_a_users_own() {
    let cloud = Cloud::new(0).await;
    let made = cloud.post(ALICE, "/os-keypairs", json!({"keypair": {"name": "demo"}})).await.ok(201)["keypair"].clone();
    assert!(made["private_key"].as_str().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    let body = json!({"keypair": {"name": "copy", "public_key": made["public_key"], "type": "ssh"}});
    let copy = cloud.post(ALICE, "/os-keypairs", body).await.ok(201)["keypair"].clone();
    assert_eq!((&copy["fingerprint"], copy.get("private_key")), (&made["fingerprint"], None));
    let again = cloud.post(ALICE, "/os-keypairs", json!({"keypair": {"name": "demo"}})).await;
    assert_eq!((again.status, again.message()), (409, "Key pair 'demo' already exists."));
    assert_eq!(cloud.get(READER, "/os-keypairs/demo").await.status, 404, "another user of the same project");
    assert_eq!(cloud.get(ALICE, "/os-keypairs?user_id=root").await.status, 403);
    assert_eq!(cloud.get(ADMIN, "/os-keypairs?user_id=alice").await.ok(200)["keypairs"].as_array().unwrap().len(), 2);
    let page = cloud.get(ALICE, "/os-keypairs?limit=1").await.ok(200);
    assert_eq!(page["keypairs"][0]["keypair"]["name"], "copy");
    assert!(page["keypairs_links"][0]["href"].as_str().unwrap().ends_with("limit=1&marker=copy"));
    cloud.delete(ALICE, "/os-keypairs/copy").await.ok(204);
    assert_eq!(cloud.send("DELETE", ALICE, "/os-keypairs/demo", "2.1", None).await.status, 202);
    assert_eq!(cloud.delete(ALICE, "/os-keypairs/demo").await.status, 404);
}

#[tokio::test]
async fn two_hundred_parallel_creates_make_exactly_the_quota() {
    let cloud = Arc::new(Cloud::new(1).await);
    let quota = json!({"quota_set": {"instances": 50, "cores": -1, "ram": -1}});
    cloud.put(ADMIN, "/os-quota-sets/demo", quota).await.ok(200);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let cloud = cloud.clone();
        tasks.spawn(async move {
            let body =
                json!({"server": {"name": format!("s{n}"), "flavorRef": "1", "imageRef": IMAGE, "networks": "auto"}});
            let answer = cloud.post(ALICE, "/servers", body).await;
            let message = answer.message().to_owned();
            (answer.status, message)
        });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.0 == 202).count(), 50);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.0 == 403).collect();
    assert_eq!(refused.len(), 150);
    assert_eq!(refused[0].1, "Quota exceeded for instances: Requested 1, but already used 50 of 50 instances");
    cloud.settle().await;
    let list = cloud.get(ALICE, "/servers/detail?status=ACTIVE").await.ok(200);
    assert_eq!(list["servers"].as_array().unwrap().len(), 50);
    assert_eq!(cloud.store.list::<FakePort>(store::Query::all()).await.unwrap().len(), 50);
}

#[tokio::test]
async fn quotas_are_set_shown_and_put_back() {
    let cloud = Cloud::new(1).await;
    let path = "/os-quota-sets/demo";
    assert_eq!(cloud.get(ALICE, path).await.ok(200)["quota_set"]["cores"], 20);
    cloud.put(ADMIN, path, json!({"quota_set": {"cores": 3}})).await.ok(200);
    cloud.boot("a").await;
    let detail = cloud.get(ALICE, &format!("{path}/detail")).await.ok(200);
    assert_eq!(detail["quota_set"]["cores"], json!({"in_use": 1, "limit": 3, "reserved": 0}));
    let low = cloud.put(ADMIN, path, json!({"quota_set": {"cores": 0}})).await;
    assert_eq!(
        (low.status, low.message()),
        (400, "Quota limit 0 for cores must be greater than or equal to already used and reserved 1.")
    );
    cloud.put(ADMIN, path, json!({"quota_set": {"cores": 0, "force": true}})).await.ok(200);
    let body = json!({"server": {"name": "b", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}});
    assert_eq!(cloud.post(ALICE, "/servers", body.clone()).await.status, 403);
    cloud.delete(ADMIN, path).await.ok(202);
    cloud.post(ALICE, "/servers", body).await.ok(202);
    cloud.put(ADMIN, "/os-quota-class-sets/default", json!({"quota_class_set": {"instances": 2}})).await.ok(200);
    assert_eq!(cloud.get(ALICE, &format!("{path}/defaults")).await.ok(200)["quota_set"]["instances"], 2);
    let many = json!({"server": {"name": "c", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}});
    assert_eq!(
        cloud.post(ALICE, "/servers", many).await.message(),
        "Quota exceeded for instances: Requested 1, but already used 2 of 2 instances"
    );
}

#[tokio::test]
async fn a_user_may_have_less_than_the_project() {
    let cloud = Cloud::new(1).await;
    let path = "/os-quota-sets/demo?user_id=alice";
    cloud.put(ADMIN, path, json!({"quota_set": {"instances": 1}})).await.ok(200);
    assert_eq!(cloud.get(ADMIN, path).await.ok(200)["quota_set"]["instances"], 1);
    assert_eq!(cloud.get(ADMIN, "/os-quota-sets/demo").await.ok(200)["quota_set"]["instances"], 10);
    let id = cloud.active("a").await;
    let body = json!({"server": {"name": "b", "flavorRef": "1", "imageRef": IMAGE, "networks": "none"}});
    let refused = cloud.post(ALICE, "/servers", body.clone()).await;
    assert_eq!(refused.message(), "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances");
    let bob = "bob@demo:member,reader";
    cloud.post(bob, "/servers", body.clone()).await.ok(202);
    cloud.delete(ALICE, &format!("/servers/{id}")).await.ok(204);
    cloud.settle().await;
    cloud.post(ALICE, "/servers", body).await.ok(202);
}

#[tokio::test]
async fn several_servers_of_one_request_share_a_reservation() {
    let cloud = Cloud::new(1).await;
    cloud.put(ADMIN, "/os-quota-sets/demo", json!({"quota_set": {"instances": 3}})).await.ok(200);
    let body = json!({"server": {"name": "n", "flavorRef": "1", "imageRef": IMAGE, "networks": "auto", "min_count": 2, "max_count": 5, "return_reservation_id": true}});
    let answer = cloud.post(ALICE, "/servers", body).await.ok(202);
    let list = cloud
        .get(
            ALICE,
            &format!(
                "/servers?reservation_id={}&sort_key=display_name&sort_dir=asc",
                answer["reservation_id"].as_str().unwrap()
            ),
        )
        .await
        .ok(200);
    let names: Vec<_> = list["servers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["n-1", "n-2", "n-3"]);
}

/// Those that wait get their hosts in one commit, as many as there is room for; each of the others says why not.
#[tokio::test]
async fn many_of_one_request_get_their_hosts_together() {
    let cloud = Cloud::new(0).await;
    for n in 1..=2 {
        let roomy = simhost::Options::new(format!("sim-{n}"));
        cloud.add_host(simhost::Options { memory_mib: 512 + 4 * 512, ..roomy }).await;
    }
    let mut watch = cloud.store.watch();
    let body = json!({"server": {"name": "n", "flavorRef": "1", "imageRef": IMAGE, "networks": "none", "min_count": 10, "max_count": 10}});
    cloud.post(ALICE, "/servers", body).await.ok(202);
    cloud.settle().await;
    let mut commits = Vec::new();
    while let Some(event) = watch.try_next() {
        let store::Event::Revision(revision) = event else { panic!("the watch was lost") };
        let placed = revision.changes.iter().filter(|change| change.kind == "allocation" && !change.existed).count();
        commits.extend(Some(placed).filter(|placed| *placed > 0));
    }
    assert_eq!(commits, [8]);
    let list = cloud.get(ADMIN, "/servers/detail?all_tenants=1").await.ok(200);
    let servers = list["servers"].as_array().unwrap();
    let (here, nowhere): (Vec<_>, Vec<_>) = servers.iter().partition(|it| it["OS-EXT-SRV-ATTR:host"].is_string());
    assert_eq!((here.len(), nowhere.len()), (8, 2));
    assert!(here.iter().all(|it| it["status"] == "ACTIVE"));
    for server in nowhere {
        let message = server["fault"]["message"].as_str().unwrap();
        assert!(server["status"] == "ERROR" && message.starts_with("No valid host was found."), "{server}");
    }
}

#[tokio::test]
async fn hosts_are_hypervisors_services_and_zones() {
    let cloud = Cloud::new(2).await;
    cloud.active("a").await;
    let list = cloud.get(ADMIN, "/os-hypervisors/detail?with_servers=true").await.ok(200);
    let hypervisors = list["hypervisors"].as_array().unwrap();
    assert_eq!(hypervisors.len(), 2);
    let used: u64 = hypervisors.iter().map(|it| it["vcpus_used"].as_u64().unwrap()).sum();
    assert_eq!(used, 1);
    assert_eq!(hypervisors[0]["state"], "up");
    let id = hypervisors[0]["id"].as_str().unwrap();
    assert_eq!(
        cloud.get(ADMIN, &format!("/os-hypervisors/{id}")).await.ok(200)["hypervisor"]["hypervisor_hostname"],
        "sim-1"
    );
    assert_eq!(cloud.get(ADMIN, "/os-hypervisors/statistics").await.ok(200)["hypervisor_statistics"]["count"], 2);
    assert_eq!(
        cloud.get(ADMIN, "/os-hypervisors?hypervisor_hostname_pattern=sim-2").await.ok(200)["hypervisors"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(cloud.get(ADMIN, "/os-hypervisors?hypervisor_hostname_pattern=x").await.status, 404);
    let first = cloud.get(ADMIN, "/os-hypervisors?limit=1").await.ok(200);
    assert_eq!(first["hypervisors"].as_array().unwrap().len(), 1);
    let marker = first["hypervisors"][0]["id"].as_str().unwrap();
    let second = cloud.get(ADMIN, &format!("/os-hypervisors?limit=1&marker={marker}")).await.ok(200);
    for (n, page) in [&first, &second].into_iter().enumerate() {
        assert_eq!(page["hypervisors"][0]["id"], list["hypervisors"][n]["id"]);
    }
    assert!(first["hypervisors_links"].is_array() && second["hypervisors_links"].is_null());
    assert_eq!(cloud.get(ADMIN, "/os-hypervisors?marker=nobody").await.status, 400);
    let old = cloud.send("GET", ADMIN, "/os-hypervisors/1", "2.1", None).await.ok(200);
    assert!(old["hypervisor"]["cpu_info"].is_string());
    let zones = cloud.get(ALICE, "/os-availability-zone").await.ok(200);
    assert_eq!(
        zones,
        json!({"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": true}, "hosts": null}]})
    );
    cloud.hardware.set_alive("sim-2", false);
    let detail = cloud.get(ADMIN, "/os-availability-zone/detail").await.ok(200);
    assert_eq!(detail["availabilityZoneInfo"][0]["hosts"]["sim-2"]["nova-compute"]["available"], false);
    let services = cloud.get(ADMIN, "/os-services?host=sim-2").await.ok(200);
    assert_eq!(services["services"][0]["state"], "down");
    let path = format!("/os-services/{}", services["services"][0]["id"].as_str().unwrap());
    cloud.delete(ADMIN, &path).await.ok(204);
    assert_eq!(cloud.get(ADMIN, "/os-hypervisors").await.ok(200)["hypervisors"].as_array().unwrap().len(), 1);
    let disable = json!({"host": "sim-1", "binary": "nova-compute"});
    let answer = cloud.send("PUT", ADMIN, "/os-services/disable", "2.1", Some(disable)).await.ok(200);
    assert_eq!(answer["service"]["status"], "disabled");
}

#[tokio::test]
async fn metadata_and_tags_are_kept() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("web").await;
    let meta = format!("/servers/{id}/metadata");
    cloud.put(ALICE, &meta, json!({"metadata": {"a": "1", "b": "2"}})).await.ok(200);
    cloud.put(ALICE, &format!("{meta}/a"), json!({"meta": {"a": "9"}})).await.ok(200);
    assert_eq!(cloud.get(ALICE, &format!("{meta}/a")).await.ok(200), json!({"meta": {"a": "9"}}));
    cloud.delete(ALICE, &format!("{meta}/b")).await.ok(204);
    assert_eq!(cloud.delete(ALICE, &format!("{meta}/b")).await.status, 404);
    assert_eq!(cloud.get(ALICE, &meta).await.ok(200), json!({"metadata": {"a": "9"}}));
    let tags = format!("/servers/{id}/tags");
    cloud.put(ALICE, &tags, json!({"tags": ["x", "y", "x"]})).await.ok(200);
    assert_eq!(cloud.send("PUT", ALICE, &format!("{tags}/z"), "latest", None).await.status, 201);
    assert_eq!(cloud.send("PUT", ALICE, &format!("{tags}/z"), "latest", None).await.status, 204);
    assert_eq!(cloud.get(ALICE, &format!("{tags}/x")).await.status, 204);
    assert_eq!(cloud.get(ALICE, &format!("{tags}/q")).await.status, 404);
    assert_eq!(cloud.get(ALICE, &tags).await.ok(200), json!({"tags": ["x", "y", "z"]}));
    cloud.delete(ALICE, &tags).await.ok(204);
    assert_eq!(cloud.server(&id).await["tags"], json!([]));
}

#[tokio::test]
async fn usage_counts_hours_of_the_living_and_the_dead() {
    let cloud = Cloud::new(1).await;
    let id = cloud.active("a").await;
    cloud.clock.advance_ms(3_600_000);
    cloud.delete(ALICE, &format!("/servers/{id}")).await.ok(204);
    cloud.settle().await;
    cloud.active("b").await;
    cloud.clock.advance_ms(1_800_000);
    let usage: Value = cloud.get(ALICE, "/os-simple-tenant-usage/demo").await.ok(200)["tenant_usage"].clone();
    assert_eq!(usage["total_hours"], 1.5);
    assert_eq!(usage["total_memory_mb_usage"], 768.0);
    assert_eq!(usage["server_usages"].as_array().unwrap().len(), 2);
}
