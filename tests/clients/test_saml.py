"""Keystone to Keystone with the real client: nubo vouches for a user, and a service provider that the test serves itself
holds the assertion's signature with the real xmlsec1."""

import http.server
import json
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ElementTree

import lib
import pytest
import requests

NS = {
    "ds": "http://www.w3.org/2000/09/xmldsig#",
    "ecp": "urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp",
    "md": "urn:oasis:names:tc:SAML:2.0:metadata",
    "saml": "urn:oasis:names:tc:SAML:2.0:assertion",
    "samlp": "urn:oasis:names:tc:SAML:2.0:protocol",
    "soap": "http://schemas.xmlsoap.org/soap/envelope/",
}


def holds(document, folder):
    """Whether xmlsec1 holds the assertion in a document for signed by the certificate that is in `folder`."""
    file = folder / "assertion.xml"
    file.write_bytes(document)
    words = ["xmlsec1", "--verify", "--enabled-key-data", "rsa", "--pubkey-cert-pem", folder / "cert.pem",
             "--id-attr:ID", "Assertion", file]
    return subprocess.run(list(map(str, words)), capture_output=True).returncode == 0


def said(document):
    """The attributes of the assertion in a document."""
    found = ElementTree.fromstring(document).iterfind(".//saml:Attribute", NS)
    return {one.get("Name"): [value.text for value in one] for one in found}


class ServiceProvider:
    """Takes assertions and answers with a token of its own, as a Keystone behind Shibboleth does."""

    def __init__(self, folder):
        provider = self
        self.taken = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if not self.path.startswith("/ECP") or not holds(body, folder):
                    return self.answer(403, {})
                provider.taken.append(body)
                self.answer(302, {"location": provider.auth_url})

            def do_GET(self):
                token = {"methods": ["saml2"], "user": {"id": "far", "name": said(provider.taken[-1])["openstack_user"][0],
                         "domain": {"id": "far", "name": "far"}}, "expires_at": "2100-01-01T00:00:00.000000Z",
                         "issued_at": "2026-01-01T00:00:00.000000Z", "audit_ids": ["x"]}
                self.answer(201, {"x-subject-token": "far-token"}, {"token": token})

            def answer(self, status, headers, body=None):
                body = json.dumps(body).encode() if body else b""
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.auth_url = self.url + "/v3/OS-FEDERATION/identity_providers/nubo/protocols/saml2/auth"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    lib.require("xmlsec1", shutil.which("xmlsec1"), "no xmlsec1")
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    folder, key = tmp_path_factory.mktemp("saml"), rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nubo")])
    begin = datetime.datetime(2020, 1, 1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(begin).not_valid_after(begin.replace(year=2120))
    made = made.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    (folder / "nubo.toml").write_text(
        f'[saml]\ncertfile = "{folder}/cert.pem"\nkeyfile = "{folder}/key.pem"\n'
        'idp_entity_id = "https://nubo.example/idp"\nidp_sso_endpoint = "https://nubo.example/sso"\n'
        'idp_organization_name = "Söhne & Co"\nidp_organization_display_name = "Söhne"\n'
        'idp_organization_url = "https://nubo.example"\nidp_contact_email = "root@nubo.example"\n'
    )
    return folder


@pytest.fixture(scope="module")
def far(folder):
    made = ServiceProvider(folder)
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def cloud(folder, far):
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(folder))
    cloud = simulated.cloud
    cloud.run("service", "provider", "create", "--auth-url", far.auth_url, "--service-provider-url", far.url + "/ECP?a=1&b=2", "far")
    yield cloud
    assert simulated.stop() == 0


def session(cloud, user="demo"):
    return cloud.sdk(user).session


def test_the_real_client_goes_to_another_cloud(cloud, far, folder):
    from keystoneauth1 import session as sessions
    from keystoneauth1.identity.v3 import k2k

    cloud.run("group", "create", 'crew <ä> "1"')
    cloud.run("group", "add", "user", 'crew <ä> "1"', "demo")
    home = session(cloud)
    there = sessions.Session(auth=k2k.Keystone2Keystone(home.auth, "far"))
    access = there.auth.get_unscoped_auth_ref(there)
    assert (access.auth_token, access.username) == ("far-token", "demo")
    [body] = far.taken
    found = said(body)
    assert sorted(found.pop("openstack_roles")) == ["member", "reader"]
    assert json.loads(found.pop("openstack_groups")[0].removeprefix("JSON:")) == {
        "name": 'crew <ä> "1"', "domain": {"name": "Default"}}
    assert found == {"openstack_user": ["demo"], "openstack_user_domain": ["Default"],
                     "openstack_project": ["demo"], "openstack_project_domain": ["Default"]}
    envelope = ElementTree.fromstring(body)
    assert envelope.find("soap:Header/ecp:RelayState", NS).text.startswith("ss:mem:")
    data = envelope.find("soap:Body/samlp:Response/saml:Assertion//saml:SubjectConfirmationData", NS)
    assert data.get("Recipient") == far.url + "/ECP?a=1&b=2"


def test_what_was_changed_is_not_signed(cloud, folder):
    home = session(cloud)
    body = {"auth": {"identity": {"methods": ["token"], "token": {"id": home.get_token()}},
                     "scope": {"service_provider": {"id": "far"}}}}
    answer = requests.post(cloud.url + "/identity/v3/auth/OS-FEDERATION/saml2", json=body, timeout=10)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/xml"
    assert holds(answer.content, folder)
    for old, new in ((b">demo<", b">root<"), (b"NotOnOrAfter=\"2", b"NotOnOrAfter=\"3"), (b"<ds:DigestValue>", b"<ds:DigestValue>A")):
        assert old in answer.content and not holds(answer.content.replace(old, new), folder), old
    refused = requests.post(cloud.url + "/identity/v3/auth/OS-FEDERATION/saml2/ecp", timeout=10, json={
        "auth": {**body["auth"], "identity": {"methods": ["token"], "token": {"id": "nothing"}}}})
    assert refused.status_code == 404


def test_metadata_name_the_certificate(cloud, folder):
    answer = requests.get(cloud.url + "/identity/v3/OS-FEDERATION/saml2/metadata", timeout=10)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/xml"
    entity = ElementTree.fromstring(answer.content)
    assert entity.get("entityID") == "https://nubo.example/idp"
    role = entity.find("md:IDPSSODescriptor", NS)
    names = ["KeyDescriptor", "Organization", "ContactPerson", "NameIDFormat", "SingleSignOnService"]
    assert [child.tag.split("}")[1] for child in role] == names
    written = (folder / "cert.pem").read_text().split("-----")[2].replace("\n", "")
    assert role.find("md:KeyDescriptor//ds:X509Certificate", NS).text == written
    assert role.find("md:Organization/md:OrganizationName", NS).text == "Söhne & Co"
    assert role.find("md:SingleSignOnService", NS).get("Location") == "https://nubo.example/sso"
