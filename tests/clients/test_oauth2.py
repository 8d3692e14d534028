"""Client credentials of OAuth 2.0, by the real plugin and by what any OAuth client sends."""

import uuid

import pytest
import requests

GRANT = {"grant_type": "client_credentials"}


@pytest.fixture()
def credential(sim):
    name = f"oauth2-{uuid.uuid4().hex[:8]}"
    made = sim.json("application", "credential", "create", name, cloud="demo")
    yield made.get("id") or made["ID"], made.get("secret") or made["Secret"]
    sim.run("application", "credential", "delete", name, cloud="demo")


def test_the_real_plugin_works_with_a_token_of_an_oauth_client(sim, credential):
    from keystoneauth1 import exceptions, loading, session

    loader = loading.get_plugin_loader("v3oauth2clientcredential")
    keystone = sim.url + "/identity/v3"

    def client(secret):
        auth = loader.load_from_options(
            auth_url=keystone, oauth2_endpoint=keystone + "/OS-OAUTH2/token",
            oauth2_client_id=credential[0], oauth2_client_secret=secret,
        )
        return session.Session(auth=auth)

    worker = client(credential[1])
    assert "servers" in worker.get(sim.url + "/compute/v2.1/servers").json()
    scheme, token = worker.get_auth_headers()["Authorization"].split()
    assert scheme == "Bearer"
    listed = requests.get(sim.url + "/compute/v2.1/servers", headers={"X-Auth-Token": token}, timeout=10)
    assert listed.status_code == 200, listed.text
    with pytest.raises(exceptions.Unauthorized):
        client("wrong").get_token()


def test_an_oauth_client_reads_the_errors_that_keystone_says(sim, credential):
    url = sim.url + "/identity/v3/OS-OAUTH2/token"
    done = requests.post(url, data=GRANT, auth=credential, timeout=10)
    assert done.status_code == 200 and set(done.json()) == {"access_token", "token_type", "expires_in"}
    assert done.json()["expires_in"] == 3600
    # As a real Keystone 30 answers.
    for data, auth, status, error, description in [
        ({}, credential, 400, "invalid_request", "The parameter grant_type is required."),
        ({"grant_type": "password"}, credential, 400, "unsupported_grant_type",
         "The parameter grant_type password is not supported."),
        (GRANT, None, 401, "invalid_client", "Client authentication failed."),
        (GRANT, (credential[0], "wrong"), 401, "invalid_client",
         "The request you have made requires authentication."),
    ]:
        said = requests.post(url, data=data, auth=auth, timeout=10)
        assert (said.status_code, said.json()) == (status, {"error": error, "error_description": description})
        if status == 401:
            assert said.headers["WWW-Authenticate"].startswith('Keystone uri="')
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        said = requests.request(method, url, timeout=10)
        assert (said.status_code, said.json()["error"]) == (405, "other_error")
