"""`nubo image pull` over HTTP, from servers with the layouts of repositories and of cloud-image sites."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import signal
import ssl
import subprocess
import threading

import pytest

import lib

FILES = {"debian-12": "debian-12-genericcloud-amd64.qcow2", "ubuntu-24.04": "ubuntu-24.04-server-cloudimg-amd64.img"}


def nubo(*words, cwd, code=0):
    run = subprocess.run([lib.NUBO, "image", *map(str, words)], cwd=cwd, text=True, capture_output=True)
    assert run.returncode == code, (words, run.returncode, run.stdout, run.stderr)
    return run.stdout if code == 0 else run.stderr


@contextlib.contextmanager
def site(folder, certificate=None, leads_to="file:///etc/passwd"):
    """A server of files; what lies below /moved leads to the same path without it, /away to another scheme. With
    certificate and key in a file, it speaks TLS."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def do_GET(self):
            if self.path.startswith("/moved/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/moved"))
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path.startswith("/away/"):
                self.send_response(302)
                self.send_header("Location", leads_to)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path.startswith("/short/"):
                body = pathlib.Path(folder, self.path.removeprefix("/short/")).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if len(body) < 4096 else body[: len(body) // 2])
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def work(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "here").mkdir()
    return tmp_path


def raw(path, seed=1):
    path.write_bytes(bytes([seed]) * (1 << 20) + bytes(3 << 20))


def test_a_repository_is_served_and_pulled_from(work):
    there, here = work / "site", work / "here"
    raw(there / "plain.raw")
    raw(there / "packed.raw", 2)
    subprocess.run(["xz", there / "packed.raw"], check=True)
    nubo("convert", there / "plain.raw", there / "cow.qcow2", cwd=here)
    listed = json.loads(nubo("repository", "index", there, "--json", cwd=here))
    assert listed == {"images": ["cow", "packed", "plain"], "changed": ["cow", "packed", "plain"], "signed": False}
    with site(there) as url:
        for source in (url, f"{url}/", f"{url}/moved", there, f"file://{there}"):
            pulled = json.loads(nubo("pull", "packed", "--from", source, "--json", "--force", cwd=here))
            assert pulled["output"] == "packed.raw" and pulled["virtual_size"] == 4 << 20
            assert (here / "packed.raw").read_bytes() == b"\2" * (1 << 20) + bytes(3 << 20)
        nubo("pull", "cow", "--from", url, cwd=here)
        assert nubo("diff", "cow.qcow2", there / "plain.raw", cwd=here) == "identical\n"
        assert "is there already" in nubo("pull", "cow", "--from", url, cwd=here, code=2)
        assert "may not be fetched: the scheme file" in nubo("pull", "cow", "--from", f"{url}/away", cwd=here, code=2)
        before = sorted(here.iterdir())
        assert "error reading a body" in nubo("pull", "plain", "--from", f"{url}/short", cwd=here, code=2)
        raw(there / "plain.raw", 3)
        assert "is not what the list says" in nubo("pull", "plain", "--from", url, cwd=here, code=2)
        assert sorted(here.iterdir()) == before
    assert "does not answer" in nubo("pull", "plain", "--from", "http://127.0.0.1:1", cwd=here, code=2)


def signed_by_own_authority(folder, name):
    """A file with a certificate for an address, and its key; the authority is `ca.pem` beside it."""

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    if not (folder / "ca.pem").exists():
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    (folder / "extensions").write_text(f"subjectAltName=IP:{name}\n")
    openssl("req", *key, "-keyout", f"{name}.key", "-out", "request", "-subj", "/CN=site")
    authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", "request", *authority, "-extfile", "extensions", "-out", f"{name}.crt", "-days", "2")
    (folder / f"{name}.pem").write_bytes((folder / f"{name}.crt").read_bytes() + (folder / f"{name}.key").read_bytes())
    return folder / f"{name}.pem"


def test_a_repository_with_a_private_authority(work):
    there, here = work / "site", work / "here"
    raw(there / "plain.raw")
    nubo("repository", "index", there, cwd=here)
    trust = ["--ca-file", work / "ca.pem"]
    with site(there, signed_by_own_authority(work, "127.0.0.1"), "http://127.0.0.1/index") as url:
        assert "is not trusted" in nubo("pull", "plain", "--from", url, cwd=here, code=2)
        assert "from https to http" in nubo("pull", "plain", "--from", f"{url}/away", *trust, cwd=here, code=2)
        assert list(here.iterdir()) == []
        nubo("pull", "plain", "--from", url, *trust, cwd=here)
        assert (here / "plain.raw").read_bytes() == (there / "plain.raw").read_bytes()
    with site(there, signed_by_own_authority(work, "127.0.0.2")) as url:
        said = nubo("pull", "plain", "--from", url, *trust, "--force", cwd=here, code=2)
        assert "is not trusted" in said and "not valid for name" in said


@pytest.mark.parametrize("list_name", ["SHA512SUMS", "SHA256SUMS"])
def test_the_layouts_of_cloud_image_sites(work, list_name):
    there, here = work / "site", work / "here"
    raw(work / "disk")
    lines = []
    for file in FILES.values():
        nubo("convert", work / "disk", there / file, cwd=here)
        digest = hashlib.new(list_name.removesuffix("SUMS").lower(), (there / file).read_bytes()).hexdigest()
        lines.append(f"{digest} *{file}\n" if list_name == "SHA256SUMS" else f"{digest}  {file}\n")
    (there / list_name).write_text("".join(lines))
    with site(there) as url:
        for name in FILES:
            pulled = json.loads(nubo("pull", name, "--from", url, "--json", cwd=here))
            assert (pulled["output"], pulled["format"]) == (f"{name}.qcow2", "qcow2")
            assert nubo("diff", pulled["output"], work / "disk", cwd=here) == "identical\n"
        assert "has no debian-11" in nubo("pull", "debian-11", "--from", url, cwd=here, code=2)


def test_a_conversion_that_is_killed_leaves_nothing(work):
    here = work / "here"
    with open(work / "disk", "wb") as disk:
        for n in range(64):
            disk.write(hashlib.shake_256(bytes([n])).digest(4 << 20))
    run = subprocess.Popen([lib.NUBO, "image", "convert", work / "disk", "out", "--compress"], cwd=here)
    lib.wait_for("the compression to begin", lambda: written(children(run.pid)) > 0)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    lib.wait_for("the children to be gone", lambda: not users_of(here))
    assert list(here.iterdir()) == []


def children(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def written(pids):
    """Bytes that these processes have written to files."""
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
            found += sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
    return found


def users_of(folder):
    """Processes that have a file of the folder open."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(place.readlink()).startswith(str(folder)):
                found.append(place)
    return found
