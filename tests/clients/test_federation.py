"""Logging in by OpenID Connect with the real client, against an identity provider that the test serves itself."""

import base64
import hashlib
import html.parser
import http.server
import json
import secrets
import threading
import time
import urllib.parse

import lib
import pytest
import requests


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


CLIENT, SECRET = "nubo client", "ge:heim"


class Provider:
    """A discovery document and a set of keys on loopback, and tokens that the keys have signed. Whoever comes with a
    browser has logged in already: it is sent back with a code at once, which is good for one id token."""

    def __init__(self):
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        self.keys = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1())}
        answers, provider = {}, self
        # Codes that were not used yet, with what was asked for; and what the next id token says otherwise.
        self.codes, self.lies = {}, {}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, _, query = self.path.partition("?")
                if path == "/realm/login":
                    return self.answer(302, location=provider.lets_in(dict(urllib.parse.parse_qsl(query))))
                body = answers.get(self.path)
                self.answer(200 if body else 404, body or b"")

            def do_POST(self):
                form = self.rfile.read(int(self.headers["content-length"])).decode()
                said = provider.exchanges(self.headers["authorization"], dict(urllib.parse.parse_qsl(form)))
                self.answer(200 if "id_token" in said else 400, json.dumps(said).encode())

            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}/realm"
        answers["/realm/.well-known/openid-configuration"] = json.dumps(
            {"issuer": self.issuer, "jwks_uri": self.issuer + "/keys", "authorization_endpoint": self.issuer + "/login",
             "token_endpoint": self.issuer + "/token"}
        ).encode()
        answers["/realm/keys"] = json.dumps({"keys": self.public()}).encode()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def lets_in(self, asked):
        """Where a browser goes on to."""
        assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT, "openid groups"), asked
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        return asked["redirect_uri"] + "?" + urllib.parse.urlencode({"code": code, "state": asked["state"]})

    def exchanges(self, authorization, form):
        """What the token endpoint says."""
        pair = ":".join(urllib.parse.quote_plus(part) for part in (CLIENT, SECRET))
        if authorization != "Basic " + base64.b64encode(pair.encode()).decode():
            return {"error": "invalid_client"}
        asked = self.codes.pop(form["code"], None)
        challenge = b64(hashlib.sha256(form["code_verifier"].encode()).digest())
        if not asked or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return {"error": "invalid_grant"}
        claims = {"aud": CLIENT, "nonce": asked["nonce"], "groups": ["crew"], **self.lies}
        return {"access_token": "x", "token_type": "Bearer", "id_token": self.token(**claims)}

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


DASHBOARD = "https://dashboard.example/auth/websso/"


@pytest.fixture(scope="module")
def provider():
    made = Provider()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def cloud(provider, tmp_path_factory):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    state = tmp_path_factory.mktemp("federation")
    (state / "secret").write_text(SECRET + "\n")
    (state / "nubo.toml").write_text(
        f'[federation]\ntrusted_dashboards = ["{DASHBOARD}"]\n\n'
        f'[[federation.issuers]]\nissuer = "{provider.issuer}"\naudience = ["nubo"]\nclient_id = "{CLIENT}"\n'
        f'client_secret_file = "{state}/secret"\nscopes = ["openid", "groups"]\n\n[token]\nprovider = "jws"\n'
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


@pytest.fixture()
def web(provider, cloud, tmp_path):
    """A provider whose people come with browsers; where they begin."""
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(RULES[:1]))
    cloud.run("identity", "provider", "create", "--remote-id", provider.issuer, "--domain", "default", "web")
    cloud.run("mapping", "create", "--rules", rules, "browsers")
    cloud.run("federation", "protocol", "create", "--identity-provider", "web", "--mapping", "browsers", "openid")
    yield cloud.url + "/identity/v3/auth/OS-FEDERATION"
    provider.lies = {}
    cloud.run("identity", "provider", "delete", "web")
    cloud.run("mapping", "delete", "browsers")


class Form(html.parser.HTMLParser):
    """The form of a page, as a browser sends it."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            assert attributes["method"] == "post"
            self.action = attributes["action"]
        elif tag == "input" and "name" in attributes:
            self.fields[attributes["name"]] = attributes["value"]


def begin(browser, url):
    """Goes as far as the way back from the provider, which is not gone."""
    sent = browser.get(url, params={"origin": DASHBOARD}, allow_redirects=False, timeout=10)
    assert sent.status_code == 303, sent.text
    return browser.get(sent.headers["location"], allow_redirects=False, timeout=10).headers["location"]


def test_a_browser_goes_to_the_provider_and_comes_back_to_its_dashboard(provider, cloud, web):
    for path in ("/websso/openid", "/identity_providers/web/protocols/openid/websso"):
        browser = requests.Session()
        page = browser.get(web + path, params={"origin": DASHBOARD}, timeout=10)
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html"), page.text
        assert [answer.status_code for answer in page.history] == [303, 302]
        form = Form(page.text)
        assert form.action == DASHBOARD and not browser.cookies
        headers = {"X-Auth-Token": form.fields["token"], "X-Subject-Token": form.fields["token"]}
        token = requests.get(cloud.url + "/identity/v3/auth/tokens", headers=headers, timeout=10).json()["token"]
        assert token["user"]["name"] == "Ada" and token["user"]["OS-FEDERATION"]["identity_provider"] == {"id": "web"}


def test_a_browser_gets_nothing_by_what_it_did_not_begin_or_has_used_up(provider, web):
    mine, yours = requests.Session(), requests.Session()
    back, other = begin(mine, web + "/websso/openid"), begin(yours, web + "/websso/openid")
    assert mine.get(other, timeout=10).status_code == 401, "the state of another browser"
    assert requests.get(back, timeout=10).status_code == 401, "no cookie"
    cookies = mine.cookies.copy()
    assert mine.get(back, timeout=10).status_code == 200
    assert mine.get(back, timeout=10).status_code == 401, "the cookie is gone"
    replayed = requests.Session()
    replayed.cookies.update(cookies)
    assert replayed.get(back, timeout=10).status_code == 401, "the code is used up"
    for lies in ({"nonce": "another"}, {"aud": "nubo"}, {"iss": "https://evil"}, {"exp": 1}):
        provider.lies, browser = lies, requests.Session()
        assert browser.get(begin(browser, web + "/websso/openid"), timeout=10).status_code == 401, lies


def test_a_browser_is_sent_nowhere_for_a_dashboard_that_nobody_trusts(web):
    for origin, status in ((None, 400), ("https://evil.example/", 401), (DASHBOARD + "x", 401)):
        answer = requests.get(web + "/websso/openid", params={"origin": origin}, allow_redirects=False, timeout=10)
        assert answer.status_code == status and "location" not in answer.headers, answer.text


def test_a_provider_that_is_down_is_said_to_be(provider, web):
    """The last one: nobody starts the provider again."""
    browser = requests.Session()
    back = begin(browser, web + "/websso/openid")
    provider.server.shutdown()
    provider.server.server_close()
    answer = browser.get(back, timeout=30)
    assert answer.status_code == 503, answer.text
