"""Dry runs and requests that are sent again, as a client over HTTP sees them."""

import concurrent.futures
import json
import urllib.error
import urllib.request
import uuid

import pytest


@pytest.fixture
def api(sim):
    """Calls with a token of the demo project: method, service, path, body, key."""
    token = sim.json("token", "issue", cloud="demo")["id"]
    catalog = sim.json("catalog", "list", cloud="demo")
    urls = {entry["Type"]: entry["Endpoints"][0]["url"] for entry in catalog}

    def call(method, service, path, body=None, key=None):
        request = urllib.request.Request(urls[service].rstrip("/") + path, method=method)
        request.add_header("X-Auth-Token", token)
        if key:
            request.add_header("Idempotency-Key", key)
        data = None
        if body is not None:
            request.add_header("Content-Type", "application/json")
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                return answer.status, dict(answer.headers), json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), json.loads(error.read() or b"null")

    return call


def networks(api, name):
    return api("GET", "network", f"/v2.0/networks?name={name}")[2]["networks"]


def test_a_dry_run_tells_what_would_be_and_does_nothing(api):
    name = f"dry-{uuid.uuid4().hex[:8]}"
    status, _, body = api("POST", "network", "/v2.0/networks?dry_run=true", {"network": {"name": name}})
    plan = body["dry_run"]
    assert (status, plan["operation"], plan["status"]) == (200, "network:create", 201)
    assert ("create", "network") in [(change["change"], change["kind"]) for change in plan["changes"]]
    assert [row["to"] - row["from"] for row in plan["quota"] if row["resource"] == "network"] == [1]
    assert networks(api, name) == []
    status, _, body = api("GET", "network", "/v2.0/networks?dry_run=true")
    assert status == 400 and "dry_run" in json.dumps(body)


def test_a_network_is_made_once_however_often_it_is_asked_for(api):
    name, key = f"once-{uuid.uuid4().hex[:8]}", str(uuid.uuid4())
    body = {"network": {"name": name}}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api("POST", "network", "/v2.0/networks", body, key), range(8)))
    assert {status for status, _, _ in answers} <= {201, 409}
    made = networks(api, name)
    assert len(made) == 1
    status, headers, again = api("POST", "network", "/v2.0/networks", body, key)
    headers = {name.lower(): value for name, value in headers.items()}
    assert (status, again["network"]["id"], headers["idempotency-replayed"]) == (201, made[0]["id"], "true")
    status, _, refused = api("POST", "network", "/v2.0/networks", {"network": {"name": name + "x"}}, key)
    assert status == 409 and "new key" in json.dumps(refused)
    assert api("DELETE", "network", f"/v2.0/networks/{made[0]['id']}")[0] == 204
