"""A real Keystone 30 of PyPI (`requirements-keystone.txt`): its configuration, its keys, its database, and its API on
loopback."""

import os
import pathlib
import shutil
import subprocess
import sys
import threading
import wsgiref.simple_server

ADMIN = "keystone-admin"
ACCOUNT = "root" if os.geteuid() == 0 else os.environ.get("USER", "")


def configure(folder, connection=None, more=""):
    """Writes keystone.conf. Hashes are cheap; nobody is to be protected by them."""
    (folder / "keystone.conf").write_text(f"""[database]
connection = {connection or f"sqlite:///{folder}/keystone.db"}
[fernet_tokens]
key_repository = {folder}/fernet-keys
[credential]
key_repository = {folder}/credential-keys
[identity]
password_hash_rounds = 4
[security_compliance]
unique_last_password_count = 3
lockout_failure_attempts = 3
[oauth1]
access_token_duration = 2000000000
{more}""")


def prepare(folder, connection=None):
    """Makes the database, the keys, and the administrator."""
    configure(folder, connection)
    manage = [str(pathlib.Path(sys.executable).parent / "keystone-manage"), "--config-file", str(folder / "keystone.conf")]
    owner = ["--keystone-user", ACCOUNT, "--keystone-group", ACCOUNT]
    for words in (["db_sync"], ["fernet_setup", *owner], ["credential_setup", *owner],
                  ["bootstrap", "--bootstrap-password", ADMIN, "--bootstrap-public-url", "http://keystone/v3"]):
        done = subprocess.run(manage + words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"keystone-manage {words[0]}: {done.stderr}")


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


def application(folder=None):
    """The API, of the folder here or in the environment."""
    folder = folder or pathlib.Path(os.environ["NUBO_KEYSTONE"])
    # It reads the options of whatever program it runs in.
    sys.argv = ["keystone", "--config-file", str(folder / "keystone.conf")]
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(folder / "keystone.conf")
    from keystone.server import wsgi

    return wsgi.initialize_public_application()


def serve(folder):
    """The API on a thread of this process, one request after the other: (its server, its address)."""
    http = wsgiref.simple_server.make_server("127.0.0.1", 0, application(folder), handler_class=Quiet)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    return http, f"http://127.0.0.1:{http.server_port}/v3"


def serve_workers(folder, workers):
    """Becomes a gunicorn with so many processes, each with its own cache; its address goes to the output first. Keystone
    loads its rules at the first request, and with threads another one may be refused meanwhile."""
    import socket

    configure(folder, more="[cache]\nbackend = dogpile.cache.memory\n")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.set_inheritable(True)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    os.environ["NUBO_KEYSTONE"] = str(folder)
    program = shutil.which("gunicorn", path=str(pathlib.Path(sys.executable).parent))
    os.execv(program, [program, "--bind", f"fd://{listener.fileno()}", "--workers", str(workers), "--worker-class",
                       "gthread", "--threads", "1", "--keep-alive", "75", "--graceful-timeout", "1", "--log-level", "error",
                       "--pythonpath", str(pathlib.Path(__file__).parent), "keystone_real:application()"])
