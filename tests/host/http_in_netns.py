"""A plain HTTP client whose sockets are made inside a network namespace: quick enough to kill something meanwhile."""

import ctypes
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse

import yaml

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_home = threading.local()


def socket_in(netns, address, timeout):
    """Connects from within the namespace; the calling thread comes back to its own."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{netns}") as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            return socket.create_connection(address, timeout)
        finally:
            if _libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                os.abort()


class Fault(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body[:300]}")
        self.status = status


class Api:
    """Calls of one user; logs in again when the token is not taken."""

    def __init__(self, cloud, name="demo"):
        self.netns = cloud.netns
        # When the first byte of the latest request went out.
        self.sent = None
        self.auth = yaml.safe_load(cloud.api.clouds.read_text())["clouds"][name]["auth"]
        self.login()

    def send(self, method, url, body=None, headers=None, timeout=15):
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.sock = socket_in(self.netns, (parts.hostname, parts.port), timeout)
        try:
            data = None if body is None else json.dumps(body)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            self.sent = time.monotonic()
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def login(self):
        user = {"name": self.auth["username"], "password": self.auth["password"], "domain": {"id": "default"}}
        scope = {"project": {"name": self.auth["project_name"], "domain": {"id": "default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        status, headers, text = self.send("POST", self.auth["auth_url"] + "/v3/auth/tokens", body)
        assert status == 201, text
        self.token = headers["X-Subject-Token"]
        self.urls = {s["type"]: next(e["url"] for e in s["endpoints"] if e["interface"] == "public")
                     for s in json.loads(text)["token"]["catalog"]}

    def call(self, method, service, path, body=None):
        headers = {"X-Auth-Token": self.token, "OpenStack-API-Version": "compute 2.60, volume 3.60"}
        status, _, text = self.send(method, self.urls[service] + path, body, headers)
        if status >= 400:
            raise Fault(status, text)
        return json.loads(text) if text else None

    def get(self, service, path):
        return self.call("GET", service, path)

    def post(self, service, path, body):
        return self.call("POST", service, path, body)

    def delete(self, service, path):
        try:
            return self.call("DELETE", service, path)
        except Fault as fault:
            if fault.status != 404:
                raise
