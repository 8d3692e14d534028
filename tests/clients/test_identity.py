"""Identity beyond users and projects, with the commands that a user types."""

import importlib.util
import json
import uuid

import lib
import requests


def tag():
    return uuid.uuid4().hex[:8]


def test_an_application_credential_with_access_rules_opens_only_what_they_name(sim, tmp_path):
    name, rules = f"cred-{tag()}", tmp_path / "rules.json"
    rules.write_text(json.dumps([{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]))
    made = sim.json("application", "credential", "create", name, "--access-rules", rules, cloud="demo")
    body = {"auth": {"identity": {"methods": ["application_credential"], "application_credential": {
        "id": made.get("id") or made["ID"], "secret": made.get("secret") or made["Secret"]}}}}
    token = requests.post(f"{sim.url}/identity/v3/auth/tokens", json=body, timeout=10)
    assert token.status_code == 201, token.text
    headers = {"X-Auth-Token": token.headers["X-Subject-Token"]}
    get = lambda path: requests.get(sim.url + path, headers=headers, timeout=10).status_code
    assert get("/compute/v2.1/servers") == 200
    assert get("/compute/v2.1/flavors") == 401
    assert get("/network/v2.0/networks") == 401
    assert get("/identity/v3/auth/projects") == 401
    assert requests.post(f"{sim.url}/compute/v2.1/servers", headers=headers, json={}, timeout=10).status_code == 401
    rule = next(row["ID"] for row in sim.json("access", "rule", "list", cloud="demo") if row["Path"] == "/v2.1/servers")
    shown = {name.lower(): value for name, value in sim.json("access", "rule", "show", rule, cloud="demo").items()}
    assert shown["method"] == "GET"
    assert sim.run("access", "rule", "delete", rule, cloud="demo", check=False).returncode != 0
    sim.run("application", "credential", "delete", name, cloud="demo")
    sim.run("access", "rule", "delete", rule, cloud="demo")
    assert rule not in [row["ID"] for row in sim.json("access", "rule", "list", cloud="demo")]


def test_policies_are_made_changed_and_deleted(sim, tmp_path):
    text = tmp_path / "policy.json"
    text.write_text('{"a": "b"}')
    policy = sim.json("policy", "create", text)["id"]
    text.write_text("other")
    sim.run("policy", "set", policy, "--rules", text)
    assert sim.json("policy", "show", policy)["rules"] == "other"
    assert policy in [row["ID"] for row in sim.json("policy", "list")]
    sim.run("policy", "delete", policy)
    assert sim.run("policy", "show", policy, check=False).returncode != 0


def test_a_project_sees_the_endpoints_of_its_group(sim, tmp_path):
    name, filters = f"group-{tag()}", tmp_path / "filters.json"
    project = sim.json("project", "create", f"project-{name}")["id"]
    filters.write_text(json.dumps({"interface": "public"}))
    group = sim.json("endpoint", "group", "create", name, filters)["id"]
    sim.run("endpoint", "group", "set", group, "--description", "d")
    assert sim.json("endpoint", "group", "show", group)["description"] == "d"
    sim.run("endpoint", "group", "add", "project", group, project)
    assert group in [row["ID"] for row in sim.json("endpoint", "group", "list", "--project", project)]
    seen = sim.json("endpoint", "list", "--project", project)
    assert seen and {row["Interface"] for row in seen} == {"public"}
    endpoint = next(row["ID"] for row in sim.json("endpoint", "list") if row["Interface"] == "internal")
    sim.run("endpoint", "add", "project", endpoint, project)
    assert len(sim.json("endpoint", "list", "--project", project)) == len(seen) + 1
    sim.run("endpoint", "remove", "project", endpoint, project)
    sim.run("endpoint", "group", "remove", "project", group, project)
    sim.run("endpoint", "group", "delete", group)
    sim.run("project", "delete", project)


def test_consumers_are_made_changed_and_deleted(sim):
    lib.require("clients", importlib.util.find_spec("oauthlib"), "no oauthlib, which the commands want")
    made = sim.json("consumer", "create", "--description", "one")
    assert len(made["secret"]) >= 32
    sim.run("consumer", "set", made["id"], "--description", "two")
    shown = sim.json("consumer", "show", made["id"])
    assert shown["description"] == "two" and "secret" not in shown
    assert made["id"] in [row["ID"] for row in sim.json("consumer", "list")]
    sim.run("consumer", "delete", made["id"])
    assert sim.run("consumer", "show", made["id"], check=False).returncode != 0


def test_a_domain_has_options(sim):
    identity = sim.sdk("nubo").identity
    domain = sim.json("domain", "create", f"domain-{tag()}")["id"]
    path, config = f"/domains/{domain}/config", {"ldap": {"url": "ldap://x", "password": "hush"}}
    assert identity.put(path, json={"config": config}).status_code == 201
    assert identity.get(path).json()["config"] == {"ldap": {"url": "ldap://x"}}
    assert identity.delete(path).status_code == 204
    assert identity.get(path).status_code == 404
    sim.run("domain", "set", domain, "--disable")
    sim.run("domain", "delete", domain)
