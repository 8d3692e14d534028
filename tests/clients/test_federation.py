"""Logging in by OpenID Connect with the real client, against an identity provider that the test serves itself."""

import base64
import http.server
import json
import threading
import time

import lib
import pytest
import requests


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Provider:
    """A discovery document and a set of keys on loopback, and tokens that the keys have signed."""

    def __init__(self):
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        self.keys = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1())}
        answers = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = answers.get(self.path)
                self.send_response(200 if body else 404)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}/realm"
        answers["/realm/.well-known/openid-configuration"] = json.dumps(
            {"issuer": self.issuer, "jwks_uri": self.issuer + "/keys"}
        ).encode()
        answers["/realm/keys"] = json.dumps({"keys": self.public()}).encode()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def public(self):
        rsa, ec = (self.keys[name].public_key().public_numbers() for name in ("RS256", "ES256"))
        point = {"x": b64(ec.x.to_bytes(32, "big")), "y": b64(ec.y.to_bytes(32, "big"))}
        return [
            {"kty": "RSA", "kid": "RS256", "use": "sig", "n": number(rsa.n), "e": number(rsa.e)},
            {"kty": "EC", "kid": "ES256", "crv": "P-256", **point},
        ]

    def token(self, algorithm="RS256", **claims):
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

        now = int(time.time())
        usual = {"iss": self.issuer, "aud": "nubo", "sub": "f00", "iat": now, "exp": now + 600, "name": "Ada"}
        parts = [{"alg": algorithm, "kid": algorithm, "typ": "at+jwt"}, {**usual, **claims}]
        signed = ".".join(b64(json.dumps(part).encode()) for part in parts).encode()
        if algorithm == "RS256":
            signature = self.keys[algorithm].sign(signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = utils.decode_dss_signature(self.keys[algorithm].sign(signed, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return signed.decode() + "." + b64(signature)


@pytest.fixture(scope="module")
def provider():
    made = Provider()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def cloud(provider, tmp_path_factory):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    state = tmp_path_factory.mktemp("federation")
    (state / "nubo.toml").write_text(
        f'[[federation.issuers]]\nissuer = "{provider.issuer}"\naudience = ["nubo"]\n\n[token]\nprovider = "jws"\n'
    )
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(state))
    yield simulated.cloud
    assert simulated.stop() == 0


RULES = [
    {"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "HTTP_OIDC_NAME"}]},
    {"local": [{"groups": "{0}", "domain": {"name": "Default"}}], "remote": [{"type": "HTTP_OIDC_GROUPS", "whitelist": ["crew"]}]},
]


def test_the_real_client_logs_in_with_an_access_token_and_works(provider, cloud, tmp_path):
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(RULES))
    cloud.run("identity", "provider", "create", "--remote-id", provider.issuer, "--domain", "default", "corp")
    cloud.run("mapping", "create", "--rules", rules, "people")
    cloud.run("federation", "protocol", "create", "--identity-provider", "corp", "--mapping", "people", "openid")
    assert cloud.json("identity", "provider", "show", "corp")["remote_ids"] == [provider.issuer]
    assert [row["ID"] for row in cloud.json("mapping", "list")] == ["people"]
    cloud.run("service", "provider", "create", "--auth-url", "https://far/auth", "--service-provider-url", "https://far/sp", "far")
    assert cloud.json("service", "provider", "show", "far")["sp_url"] == "https://far/sp"
    cloud.run("service", "provider", "delete", "far")
    for words in (["group", "create", "crew"], ["project", "create", "ship"]):
        cloud.run(*words)
    cloud.run("role", "add", "--group", "crew", "--project", "ship", "member")

    def login(token):
        from keystoneauth1 import session
        from keystoneauth1.identity.v3 import oidc

        auth = oidc.OidcAccessToken(
            auth_url=cloud.url + "/identity/v3", identity_provider="corp", protocol="openid", access_token=token,
            project_name="ship", project_domain_name="Default",
        )
        return session.Session(auth=auth)

    for algorithm in ("RS256", "ES256"):
        worker = login(provider.token(algorithm, groups=["crew", "other"]))
        servers = worker.get(cloud.url + "/compute/v2.1/servers").json()
        assert servers == {"servers": []}
        access = worker.auth.get_access(worker)
        assert access.username == "Ada" and access.is_federated and "member" in access.role_names
    flags = ["--os-auth-type", "v3oidcaccesstoken", "--os-identity-provider", "corp", "--os-protocol", "openid",
             "--os-access-token", provider.token(groups=["crew"]), "--os-auth-url", cloud.url + "/identity/v3",
             "--os-project-name", "ship", "--os-project-domain-name", "Default"]
    bare = lib.Cloud(cloud.url, tmp_path / "none.yaml")
    bare.env = lambda cloud="nubo": {k: v for k, v in lib.Cloud.env(bare).items() if not k.startswith("OS_")}
    assert json.loads(bare.run(*flags, "token", "issue", "-f", "json").stdout)["id"].count(".") == 2
    assert [row["Name"] for row in json.loads(bare.run(*flags, "federation", "project", "list", "-f", "json").stdout)] == ["ship"]
    from keystoneauth1 import exceptions

    for token in (provider.token(groups=[]), provider.token(aud="other"), provider.token(exp=1)):
        with pytest.raises(exceptions.Unauthorized):
            login(token).get_token()
    wrong = requests.post(
        cloud.url + "/identity/v3/OS-FEDERATION/identity_providers/corp/protocols/openid/auth",
        headers={"authorization": "Bearer " + provider.token()[:-8] + "AAAAAAAA"},
    )
    assert wrong.status_code == 401
    cloud.run("identity", "provider", "delete", "corp")
