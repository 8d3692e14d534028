"""Bad input gets a clear fault in the words of its service, and nothing is lost.

Every test of this file runs between two listings of the whole cloud and of its image folder: whatever is refused
leaves no trace. Every answer is checked for its request id and every refusal for its service's envelope.
"""

import http.client
import json
import select
import socket
import time
import urllib.parse

import pytest

import hostile
import lib
from hostile import MIB, PATHS, refusal

SERVICES = list(PATHS)
NOWHERE = "11111111-2222-3333-4444-555555555555"
LONG = "x" * 256
# One list and one create of each service.
LIST = {"identity": "/projects", "compute": "/servers", "network": "/networks", "image": "/images"}
CREATE = {"identity": ("/projects", "project"), "compute": ("/servers", "server"), "network": ("/networks", "network"),
          "image": ("/images", None)}
STREAM = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def world(sim):
    made = hostile.Populated(hostile.Api(sim))
    yield made
    made.remove()


@pytest.fixture
def api(world):
    return world.api


@pytest.fixture(autouse=True)
def nothing_is_lost(world):
    """The whole cloud is the same before and after, and answers."""
    before = world.api.all()
    yield
    after = world.api.all()
    for path in before[0]:
        assert after[0][path] == before[0][path], f"{path} changed"
    assert after[1] == before[1], "the image folder changed"


# Who asks

def tokens_that_are_none(world):
    good = world.tokens["mine"]
    at = len(good) // 2
    other = "A" if good[at] != "A" else "B"
    gone = world.api.token(f"mine-{world.tag}", "secret", world.ids["mine_project"])
    world.api.good("DELETE", "identity", "/auth/tokens", headers={"X-Subject-Token": gone})
    return {
        "none": "", "a word": "nonsense", "too long": "x" * 5000, "shaped like one": "gAAAAA" + "x" * 200,
        "tampered": good[:at] + other + good[at + 1:], "cut": good[:-5], "revoked": gone,
        "expired": hostile.with_expiry(world.api.state, good, time.time() - 5),
    }


@pytest.mark.parametrize("case", ["none", "a word", "too long", "shaped like one", "tampered", "cut", "revoked", "expired"])
def test_a_token_that_does_not_hold_opens_nothing(world, api, case):
    token = tokens_that_are_none(world)[case]
    for service in SERVICES:
        for method, path in [("GET", LIST[service]), ("POST", CREATE[service][0]), ("GET", "/no/such/thing")]:
            answer = api.ask(method, service, path, token, json={} if method == "POST" else None)
            assert "requires authentication" in refusal(answer, service, 401), path
            assert answer.headers["WWW-Authenticate"].startswith("Keystone uri=")
    if token:
        subject = {"X-Subject-Token": token}
        assert refusal(api.ask("GET", "identity", "/auth/tokens", headers=subject), "identity", 404)


@pytest.mark.parametrize("method,path,status", [("POST", "/networks", 401), ("POST", "/no/such/thing", 401), ("DELETE", "/networks", 401)])
def test_a_refusal_leaves_the_connection_to_the_next_request(api, method, path, status):
    """Also where the body comes after the head: nothing that is left unread may close the connection behind it."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(api.url).netloc, timeout=30)
    connection.putrequest(method, PATHS["network"] + path)
    connection.putheader("X-Auth-Token", "nonsense")
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    socket_of_both = connection.sock
    assert not select.select([socket_of_both], [], [], 0.2)[0], "answered before the body was there"
    connection.send(b"{}")
    answer = connection.getresponse()
    assert answer.status == status and answer.headers["Connection"] is None and answer.read()
    connection.request("GET", PATHS["network"] + "/networks", headers={"X-Auth-Token": api.admin})
    assert connection.getresponse().status == 200 and connection.sock is socket_of_both
    connection.close()


def test_only_the_end_makes_a_token_expire(world, api):
    for seconds, status in [(600, 200), (-1, 401)]:
        token = hostile.with_expiry(api.state, world.tokens["mine"], time.time() + seconds)
        assert api.ask("GET", "network", "/networks", token).status_code == status


LOGINS = {
    "wrong password": ({"password": {"user": {"name": "demo", "domain": {"id": "default"}, "password": "x"}}}, 401),
    "no such user": ({"password": {"user": {"name": "nobody", "domain": {"id": "default"}, "password": "x"}}}, 401),
    "no user": ({"password": {}}, 400),
    "password is a number": ({"password": {"user": {"name": "demo", "domain": {"id": "default"}, "password": 7}}}, 400),
    "no identity": ({}, 400), "unknown method": ({"magic": {}}, 401), "user is a number": ({"password": {"user": 7}}, 400),
    # As Keystone answers here alone.
    "wrong token": ({"token": {"id": "nonsense"}}, 404),
}


@pytest.mark.parametrize("case", LOGINS)
def test_a_wrong_proof_gives_no_token(api, case):
    proof, status = LOGINS[case]
    body = {"auth": {"identity": {"methods": list(proof), **proof}}}
    answer = api.ask("POST", "identity", "/auth/tokens", "", json=body)
    assert "X-Subject-Token" not in answer.headers
    refusal(answer, "identity", status)


@pytest.mark.parametrize("scope", ["x", 7, {}, {"project": 7}, {"project": {"id": "x"}, "domain": {"id": "y"}}], ids=json.dumps)
def test_a_scope_that_is_none_gives_no_token(api, scope):
    body = {"auth": {"identity": {"methods": ["token"], "token": {"id": api.admin}}, "scope": scope}}
    answer = api.ask("POST", "identity", "/auth/tokens", "", json=body)
    assert "scope" in refusal(answer, "identity", 400)


# What belongs to others does not exist

FOREIGN = [
    ("compute", "GET", "/servers/$other_server", None), ("compute", "DELETE", "/servers/$other_server", None),
    ("compute", "PUT", "/servers/$other_server", {"server": {"name": "taken"}}),
    ("compute", "POST", "/servers/$other_server/action", {"os-stop": None}),
    ("compute", "POST", "/servers/$other_server/metadata", {"metadata": {"a": "b"}}),
    ("compute", "GET", "/servers/$other_server/os-interface", None),
    ("compute", "GET", "/servers/$other_server/os-instance-actions", None),
    ("compute", "GET", "/os-keypairs/key-other", None), ("compute", "DELETE", "/os-keypairs/key-other", None),
    ("network", "GET", "/networks/$other_net", None), ("network", "DELETE", "/networks/$other_net", None),
    ("network", "PUT", "/networks/$other_net", {"network": {"name": "taken"}}),
    ("network", "GET", "/subnets/$other_subnet", None), ("network", "DELETE", "/subnets/$other_subnet", None),
    ("network", "PUT", "/subnets/$other_subnet", {"subnet": {"name": "taken"}}),
    ("network", "GET", "/ports/$other_port", None), ("network", "DELETE", "/ports/$other_port", None),
    ("network", "PUT", "/ports/$other_port", {"port": {"name": "taken"}}),
    ("network", "GET", "/routers/$other_router", None), ("network", "DELETE", "/routers/$other_router", None),
    ("network", "PUT", "/routers/$other_router/add_router_interface", {"subnet_id": "$mine_subnet"}),
    ("network", "PUT", "/routers/$mine_router/add_router_interface", {"subnet_id": "$other_subnet"}),
    ("network", "GET", "/security-groups/$other_group", None), ("network", "DELETE", "/security-groups/$other_group", None),
    ("network", "DELETE", "/security-group-rules/$other_rule", None),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "$other_group", "direction": "ingress"}}),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "$other_net", "ip_version": 4, "cidr": "10.78.0.0/24"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "$other_net"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "$mine_net", "security_groups": ["$other_group"]}}),
    ("image", "GET", "/images/$other_image", None), ("image", "GET", "/images/$other_image/file", None),
    ("image", "DELETE", "/images/$other_image", None), ("image", "PUT", "/images/$other_image/tags/taken", None),
    ("image", "GET", "/images/$other_image/members", None),
    ("image", "PATCH", "/images/$other_image", [{"op": "replace", "path": "/name", "value": "taken"}]),
]


def send(world, method, service, path, body, token, **more):
    """A request in which `$name` stands for an id."""
    if body is not None:
        patch = service == "image" and method == "PATCH"
        kind = "application/openstack-images-v2.1-json-patch" if patch else "application/json"
        text = body if isinstance(body, str) else json.dumps(body)
        more = {"data": world.fill(text), "headers": {"Content-Type": kind, **more.pop("headers", {})}, **more}
    return world.api.ask(method, service, world.fill(path), token, **more)


@pytest.mark.parametrize("service,method,path,body", FOREIGN, ids=[f"{m} {p}" for _, m, p, _ in FOREIGN])
def test_what_belongs_to_others_does_not_exist(world, service, method, path, body):
    said = refusal(send(world, method, service, path, body, world.tokens["mine"]), service, 404)
    asked_for = world.fill((path if "other" in path else json.dumps(body))).split("/")
    wanted = [world.ids[name] for name in world.ids if name.startswith("other_") and world.ids[name] in str(asked_for)]
    assert any(id in said for id in wanted or ["key-other"]), said


FORBIDDEN = [
    ("identity", "GET", "/projects/$other_project", None), ("identity", "GET", "/users/$other_user", None),
    ("identity", "PATCH", "/users/$other_user", {"user": {"name": "taken"}}), ("identity", "DELETE", "/users/$other_user", None),
    ("identity", "DELETE", "/projects/$other_project", None), ("identity", "GET", "/projects", None),
    ("identity", "POST", "/projects", {"project": {"name": "taken"}}),
    ("identity", "PUT", "/projects/$other_project/users/$mine_user/roles/$member", None),
    ("compute", "POST", "/flavors", {"flavor": {"name": "taken", "ram": 1, "vcpus": 1, "disk": 1}}),
    ("compute", "GET", "/os-hypervisors", None), ("compute", "GET", "/servers?all_tenants=1", None),
    ("compute", "PUT", "/os-quota-sets/$mine_project", {"quota_set": {"cores": 1000}}),
    ("network", "POST", "/networks", {"network": {"router:external": True}}),
    ("network", "PUT", "/quotas/$mine_project", {"quota": {"port": 1000}}),
    ("image", "POST", "/images", {"visibility": "public"}), ("image", "DELETE", "/images/$image", None),
    ("image", "POST", "/images", {"owner": "$other_project"}),
]


@pytest.mark.parametrize("service,method,path,body", FORBIDDEN, ids=[f"{m} {p}" for _, m, p, _ in FORBIDDEN])
def test_what_a_member_may_not_do_is_forbidden(world, service, method, path, body):
    refusal(send(world, method, service, path, body, world.tokens["mine"]), service, 403)


# What is no request at all

MALFORMED = {
    "cut": ('{"project": {"name": ', "Malformed request body"), "not JSON": ("name=x", "Malformed request body"), "two values": ('{} {}', "Malformed request body"),
    "nothing": ("", ""), "null": ("null", ""), "a list": ("[]", ""), "a number": ("7", ""),
    "not UTF-8": (b'{"name": "\xff\xfe"}', "Malformed request body"), "raw U+0000": (b'{"name": "a\x00b"}', "Malformed request body"),
    "deep lists": ("[" * 100_000 + "]" * 100_000, "nested more than"), "deep and open": ("[" * 100_000, "nested more than"),
    "deep objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than"),
}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_json_is_refused(world, api, service, case):
    body, words = MALFORMED[case]
    answer = api.ask("POST", service, CREATE[service][0], headers={"Content-Type": "application/json"}, data=body)
    assert words in refusal(answer, service, 400)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_ten_mebibytes_of_json_are_too_large(api, service, chunked):
    text = b'{"name": "' + b"x" * (10 * MIB) + b'"}'
    body = (text[at:at + 65536] for at in range(0, len(text), 65536)) if chunked else text
    answer = api.ask("POST", service, CREATE[service][0], headers={"Content-Type": "application/json"}, data=body)
    assert "1048576" in refusal(answer, service, 413)
    api.good("GET", service, LIST[service])


@pytest.mark.parametrize("service", SERVICES)
def test_u0000_is_refused_wherever_it_stands(api, service):
    path, key = CREATE[service]
    for fields in [{"name": "a\0b"}, {"description": "\0"}, {"a\0b": "c"}]:
        answer = api.ask("POST", service, path, json={key: fields} if key else fields)
        assert "U+0000" in refusal(answer, service, 400), fields
    refusal(api.ask("GET", service, f"{LIST[service]}?name=a%00b"), service, 400)
    refusal(api.ask("GET", service, f"{LIST[service]}/a%00b"), service, 400)


@pytest.mark.parametrize("service", SERVICES)
def test_paths_methods_and_queries_that_are_none_are_refused(api, service):
    path = LIST[service]
    for method, odd, status, words in [
        ("DELETE", path, 405, "DELETE is not allowed"), ("BREW", path, 405, "BREW is not allowed"),
        ("GET", "/no/such/thing", 404, "could not be found"), ("GET", path + "/" + "x" * 5000, 414, "too long"),
        ("GET", path + "/%ff", 400, "not UTF-8"), ("GET", path + "/..%2f..%2fetc%2fpasswd", 404, ""),
        ("GET", path + "?" + "&".join(f"name={n}" for n in range(500)), 400, "more than 256 parameters"),
        ("GET", path + "?limit=x", 400, "limit"), ("GET", path + "?limit=99999999999999999999", 400, "limit"),
    ]:
        answer = api.ask(method, service, odd)
        assert words in refusal(answer, service, status), odd
        assert status != 405 or {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("header", ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"])
@pytest.mark.parametrize("version,status,words", [
    ("2.999", 406, "Version 2.999 is not supported by the API. Minimum is 2.1 and maximum is"), ("3.0", 406, "3.0"),
    ("1.0", 406, "1.0"), ("banana", 400, "banana is of invalid format"), ("2", 400, "2 is of invalid format"),
    ("2.-1", 400, "invalid format"), ("2.01", 400, "invalid format"), ("2.1.1", 400, "invalid format"),
])
def test_an_unknown_microversion_is_refused(api, header, version, status, words):
    said = f"compute {version}" if header.startswith("O") else version
    assert words in refusal(api.ask("GET", "compute", "/servers", headers={header: said}), "compute", status)


# Fields

def server(**fields):
    return {"server": {"name": "x", "imageRef": "$image", "flavorRef": "$flavor", "networks": [{"uuid": "$mine_net"}], **fields}}


def subnet(**fields):
    return {"subnet": {"network_id": "$mine_net", "ip_version": 4, "cidr": "10.80.0.0/24", **fields}}


def port(**fields):
    return {"port": {"network_id": "$mine_net", **fields}}


def rule(**fields):
    return {"security_group_rule": {"security_group_id": "$mine_group", "direction": "ingress", **fields}}


def flavor(**fields):
    return {"flavor": {"name": "x", "ram": 1, "vcpus": 1, "disk": 1, **fields}}


IMPOSSIBLE = [  # (service, method, path, body, status, words); by the admin where the path says so
    ("identity", "POST", "/projects", {}, 400, "project"), ("identity", "POST", "/projects", {"project": 7}, 400, "project"),
    ("identity", "POST", "/projects", {"project": {}}, 400, "name"),
    ("identity", "POST", "/projects", {"project": {"name": 7}}, 400, "name"),
    ("identity", "POST", "/projects", {"project": {"name": ""}}, 400, "name"),
    ("identity", "POST", "/projects", {"project": {"name": LONG}}, 400, "name"),
    ("identity", "POST", "/projects", {"project": {"name": "x", "enabled": "yes"}}, 400, "enabled"),
    ("identity", "POST", "/projects", {"project": {"name": "x", "description": 7}}, 400, "description"),
    ("identity", "POST", "/projects", {"project": {"name": "x", "domain_id": NOWHERE}}, 404, NOWHERE),
    ("identity", "POST", "/projects", {"project": {"name": "demo"}}, 409, "demo"),
    ("identity", "POST", "/users", {"user": {"name": 7}}, 400, "name"),
    ("identity", "POST", "/users", {"user": {"name": LONG}}, 400, "name"),
    ("identity", "POST", "/users", {"user": {"name": "x", "password": 7}}, 400, "password"),
    ("identity", "POST", "/users", {"user": {"name": "x", "enabled": "no"}}, 400, "enabled"),
    ("identity", "POST", "/users", {"user": {"name": "demo"}}, 409, "demo"),
    ("identity", "POST", "/roles", {"role": {"name": LONG}}, 400, "name"),
    ("identity", "POST", "/roles", {"role": {"name": "member"}}, 409, "member"),
    ("identity", "POST", "/domains", {"domain": {"name": ["x"]}}, 400, "name"),
    ("identity", "POST", "/groups", {"group": {"name": LONG}}, 400, "name"),
    ("identity", "GET", f"/projects/{NOWHERE}", None, 404, NOWHERE),
    ("identity", "PUT", f"/projects/$mine_project/users/$mine_user/roles/{NOWHERE}", None, 404, NOWHERE),
    ("identity", "PATCH", "/projects/$mine_project", {"project": {"name": 7}}, 400, "name"),

    ("network", "POST", "/networks", {"network": {"nmae": "x"}}, 400, "HTTPBadRequest Unrecognized attribute(s) 'nmae'"),
    ("network", "POST", "/networks", {"net": {}}, 400, "network"),
    ("network", "POST", "/networks", {"network": {"project_id": "$other_project"}}, 400, "Specifying 'project_id'"),
    ("network", "POST", "/networks", {"network": {"name": LONG}}, 400, "exceeds maximum length of 255"),
    ("network", "POST", "/networks", {"network": {"name": 7}}, 400, "'7' is not a valid string"),
    ("network", "POST", "/networks", {"network": {"admin_state_up": "maybe"}}, 400, "'maybe' cannot be converted to boolean"),
    ("network", "POST", "/networks", {"network": {"mtu": "wide"}}, 400, "wide"),
    ("network", "PUT", "/networks/$mine_net", {"network": {"color": "red"}}, 400, "Unrecognized attribute(s) 'color'"),
    ("network", "PUT", "/networks/$mine_net", {"network": {"status": "DOWN"}}, 400, "read-only attribute status"),
    ("network", "POST", "/subnets", subnet(cidr="10.80.0.0/33"), 400, "'10.80.0.0/33' is not a valid IP subnet"),
    ("network", "POST", "/subnets", subnet(cidr="10.80.0"), 400, "10.80.0"),
    ("network", "POST", "/subnets", subnet(cidr="everything"), 400, "'everything' is not a valid IP subnet"),
    ("network", "POST", "/subnets", subnet(cidr=80), 400, "80"),
    ("network", "POST", "/subnets", subnet(ip_version=5), 400, "'5' is not in [4, 6]"),
    ("network", "POST", "/subnets", subnet(ip_version=6), 400, "does not match the ip_version"),
    ("network", "POST", "/subnets", subnet(cidr="10.77.0.128/25"), 400, "overlaps with another subnet"),
    ("network", "POST", "/subnets", subnet(cidr="10.77.0.0/16"), 400, "overlaps with another subnet"),
    ("network", "POST", "/subnets", subnet(gateway_ip="10.81.0.1x"), 400, "10.81.0.1x"),
    ("network", "POST", "/subnets", subnet(gateway_ip="10.80.0.0"), 400, "Gateway is not valid on subnet"),
    ("network", "POST", "/subnets", subnet(allocation_pools=[{"start": "10.80.0.9", "end": "10.80.0.3"}]), 400, "InvalidAllocationPool"),
    ("network", "POST", "/subnets", subnet(allocation_pools=[{"start": "10.81.0.3", "end": "10.81.0.9"}]), 400, "OutOfBoundsAllocationPool"),
    ("network", "POST", "/subnets", subnet(dns_nameservers=["one"]), 400, "'one' is not a valid nameserver"),
    ("network", "POST", "/subnets", subnet(dns_nameservers=["1.1.1.1", "1.1.1.1"]), 400, "Duplicate nameserver"),
    ("network", "POST", "/subnets", subnet(enable_dhcp="often"), 400, "often"),
    ("network", "POST", "/subnets", subnet(network_id="x"), 400, "'x' is not a valid UUID"),
    ("network", "POST", "/ports", port(mac_address="zz"), 400, "'zz' is not a valid MAC address"),
    ("network", "POST", "/ports", port(fixed_ips="10.77.0.9"), 400, "'10.77.0.9' is not a list"),
    ("network", "POST", "/ports", port(fixed_ips=[{"ip_address": "10.99.0.1"}]), 400, "InvalidIpForNetwork IP address 10.99.0.1"),
    ("network", "POST", "/ports", port(fixed_ips=[{"subnet_id": "$mine_subnet", "ip_address": "10.77.0.255"}]), 400, "InvalidIpForSubnet"),
    ("network", "POST", "/ports", port(fixed_ips=[{"ip_address": "10.77.0.50"}]), 409, "IpAddressInUse Unable to complete operation"),
    ("network", "POST", "/ports", port(fixed_ips=[{"ip_address": "10.77.0.60"}, {"ip_address": "10.77.0.60"}]), 400, "10.77.0.60"),
    ("network", "PUT", "/ports/$mine_port", port(), 400, "read-only attribute network_id"),
    ("network", "POST", "/ports", port(security_groups=[NOWHERE]), 404, f"SecurityGroupNotFound Security group {NOWHERE}"),
    ("network", "POST", "/ports", port(security_groups=["x"]), 400, "'x' is not a valid UUID"),
    ("network", "POST", "/routers", {"router": {"external_gateway_info": "public"}}, 400, "'public' is not a dictionary"),
    ("network", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": "$mine_net"}}}, 400, "is not an external network"),
    ("network", "POST", "/routers", {"router": {"name": {"a": 1}}}, 400, "is not a valid string"),
    ("network", "PUT", "/routers/$mine_router/add_router_interface", {"subnet_id": "$mine_subnet"}, 400, "Router already has a port on subnet"),
    ("network", "PUT", "/routers/$mine_router/add_router_interface", {}, 400, "subnet_id or port_id"),
    ("network", "PUT", "/routers/$mine_router/add_router_interface", {"subnet_id": NOWHERE}, 404, f"SubnetNotFound Subnet {NOWHERE}"),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "$mine_net"}}, 400, "is not a valid external network"),
    ("network", "POST", "/security-groups", {"security_group": {"name": LONG}}, 400, "exceeds maximum length of 255"),
    ("network", "POST", "/security-groups", {"security_group": {"name": "default"}}, 409, "SecurityGroupDefaultAlreadyExists"),
    ("network", "POST", "/security-group-rules", rule(protocol="tcp"), 409, "SecurityGroupRuleExists"),
    ("network", "POST", "/security-group-rules", rule(direction="sideways"), 400, "'sideways' is not in"),
    ("network", "POST", "/security-group-rules", rule(protocol="bogus"), 400, "SecurityGroupRuleInvalidProtocol"),
    ("network", "POST", "/security-group-rules", rule(protocol="tcp", port_range_min=9, port_range_max=2), 400, "SecurityGroupInvalidPortRange"),
    ("network", "POST", "/security-group-rules", rule(protocol="tcp", port_range_min=1, port_range_max=65536), 400, "Invalid value for port"),
    ("network", "POST", "/security-group-rules", rule(remote_ip_prefix="10.0.0.0/99"), 400, "'10.0.0.0/99' is not a valid IP subnet"),

    ("compute", "POST", "/servers", {}, 400, "'server' is a required property"),
    ("compute", "POST", "/servers", {"server": 7}, 400, "7 is not of type 'object'"),
    ("compute", "POST", "/servers", server(surprise=1), 400, "Additional properties are not allowed ('surprise' was unexpected)"),
    ("compute", "POST", "/servers", {**server(), "more": 1}, 400, "Additional properties are not allowed ('more' was unexpected)"),
    ("compute", "POST", "/servers", server(name=7), 400, "7 is not of type 'string'"),
    ("compute", "POST", "/servers", server(name=LONG), 400, "is too long"),
    ("compute", "POST", "/servers", server(name=""), 400, "name"),
    ("compute", "POST", "/servers", server(flavorRef="nope"), 400, "Flavor nope could not be found."),
    ("compute", "POST", "/servers", server(flavorRef=[1]), 400, "flavorRef"),
    ("compute", "POST", "/servers", server(imageRef="nope"), 400, "is not a 'uuid'"),
    ("compute", "POST", "/servers", server(imageRef=NOWHERE), 400, "Can not find requested image"),
    ("compute", "POST", "/servers", server(imageRef="$other_image"), 400, "Can not find requested image"),
    ("compute", "POST", "/servers", server(networks=[{"uuid": NOWHERE}]), 400, f"Network {NOWHERE} could not be found"),
    ("compute", "POST", "/servers", server(networks=[{"uuid": "$other_net"}]), 400, "could not be found"),
    ("compute", "POST", "/servers", server(networks=[{"port": "$other_port"}]), 400, "could not be found"),
    ("compute", "POST", "/servers", server(networks=[{"uuid": "$mine_net", "fixed_ip": "10.77.0.50"}]), 400, "10.77.0.50"),
    ("compute", "POST", "/servers", server(networks=[{"uuid": "$mine_net", "fixed_ip": "10.77.0.999"}]), 400, "is not a 'ipv4'"),
    ("compute", "POST", "/servers", server(networks=7), 400, "networks"),
    ("compute", "POST", "/servers", server(security_groups=[{"name": "nope"}]), 400, "nope"),
    ("compute", "POST", "/servers", server(key_name="key-other"), 400, "Invalid key_name provided."),
    ("compute", "POST", "/servers", server(min_count=0), 400, "less than the minimum of 1"),
    ("compute", "POST", "/servers", server(min_count=3, max_count=2), 400, "min_count must be <= max_count"),
    ("compute", "POST", "/servers", server(user_data="not base64!"), 400, "is not a 'base64'"),
    ("compute", "POST", "/servers", server(user_data="A" * 70_000), 400, "is too long"),
    ("compute", "POST", "/servers", server(metadata={"a": 1}), 400, "1 is not of type 'string'"),
    ("compute", "POST", "/servers", server(metadata={"k": LONG}), 400, "is too long"),
    ("compute", "POST", "/servers", server(availability_zone="mars"), 400, "The requested availability zone is not available"),
    ("compute", "PUT", "/servers/$mine_server", {"server": {"name": "x", "status": "y"}}, 400, "('status' was unexpected)"),
    ("compute", "POST", "/servers/$mine_server/action", {"dance": None}, 400, "dance"),
    ("compute", "POST", "/servers/$mine_server/action", {"reboot": {"type": "MEDIUM"}}, 400, "MEDIUM"),
    ("compute", "POST", "/servers/$mine_server/action", {"os-start": None}, 409, "Cannot 'start' instance"),
    ("compute", "GET", "/servers/x", None, 404, "Instance x could not be found."),
    ("compute", "GET", "/servers?limit=-1", None, 400, "limit"), ("compute", "GET", f"/servers?marker={NOWHERE}", None, 400, NOWHERE),
    ("compute", "POST", "/os-keypairs", {"keypair": {"name": LONG}}, 400, "is too long"),
    ("compute", "POST", "/os-keypairs", {"keypair": {"name": "k", "public_key": "bogus"}}, 400, "Keypair data is invalid"),
    ("compute", "POST", "/os-keypairs", {"keypair": {"name": "key-mine"}}, 409, "Key pair 'key-mine' already exists."),
    ("compute", "POST", "/flavors?admin", flavor(ram=0), 400, "0 is less than the minimum of 1"),
    ("compute", "POST", "/flavors?admin", flavor(vcpus="many"), 400, "many"),
    ("compute", "POST", "/flavors?admin", flavor(extra=1), 400, "Additional properties are not allowed ('extra' was unexpected)"),
    ("compute", "POST", "/flavors?admin", flavor(name=LONG), 400, "is too long"),
    ("compute", "POST", "/flavors?admin", flavor(id="$flavor"), 409, "already exists"),
    ("compute", "PUT", "/os-quota-sets/$mine_project?admin", {"quota_set": {"shoes": 1}}, 400, "'shoes' was unexpected"),

    ("image", "POST", "/images", {"name": 7}, 400, "7 is not of type"), ("image", "POST", "/images", {"name": LONG}, 400, "is too long"),
    ("image", "POST", "/images", {"disk_format": "floppy"}, 400, "floppy"), ("image", "POST", "/images", {"id": "x"}, 400, "id"),
    ("image", "POST", "/images", {"visibility": "secret"}, 400, "secret"), ("image", "POST", "/images", {"min_disk": "big"}, 400, "big"),
    ("image", "POST", "/images", {"min_ram": -1}, 400, "min_ram"), ("image", "POST", "/images", {"tags": "one"}, 400, "one"),
    ("image", "POST", "/images", {"tags": [LONG]}, 400, "tags"), ("image", "POST", "/images", {"protected": "yes"}, 400, "yes"),
    ("image", "POST", "/images", {"color": 7}, 400, "7 is not of type 'string'"), ("image", "POST", "/images", {LONG: "x"}, 400, "255"),
    ("image", "POST", "/images", {"status": "active"}, 403, "status"), ("image", "POST", "/images", {"id": "$image"}, 409, "$image"),
    ("image", "PATCH", "/images/$mine_image", [{"op": "replace", "path": "/status", "value": "x"}], 403, "status"),
    ("image", "PATCH", "/images/$mine_image", [{"op": "replace", "path": "/disk_format", "value": "qcow2"}], 403, "disk_format"),
    ("image", "PATCH", "/images/$mine_image", [{"op": "dance", "path": "/name", "value": "x"}], 400, "dance"),
    ("image", "PATCH", "/images/$mine_image", {"name": "x"}, 400, ""),
    ("image", "PUT", "/images/$mine_image/file", "bytes", 415, ""),
    ("image", "GET", "/images?limit=-1", None, 400, "limit"), ("image", "GET", "/images?sort_key=shoes", None, 400, "shoes"),
]


@pytest.mark.parametrize("service,method,path,body,status,words", IMPOSSIBLE,
                         ids=[f"{m} {p} {json.dumps(b)[:70]}" for _, m, p, b, _, _ in IMPOSSIBLE])
def test_impossible_fields_are_refused_by_name(world, api, service, method, path, body, status, words):
    admin = service == "identity" or path.endswith("?admin")
    token = api.admin if admin else world.tokens["mine"]
    said = refusal(send(world, method, service, path.removesuffix("?admin"), body, token), service, status)
    assert world.fill(words) in said


def test_keystone_keeps_extra_attributes_and_glance_makes_custom_properties(api):
    project = api.make("identity", "/projects", "project", name="bad-extra", color="blue", deep={"a": [1]})
    shown = api.good("GET", "identity", f"/projects/{project['id']}")["project"]
    assert (shown["color"], shown["deep"]) == ("blue", {"a": [1]})
    api.good("DELETE", "identity", f"/projects/{project['id']}")
    image = api.make("image", "/images", None, color="blue")
    assert api.good("GET", "image", f"/images/{image['id']}")["color"] == "blue"
    api.good("DELETE", "image", f"/images/{image['id']}")


def test_overlapping_subnets_do_not_meet_on_a_router(world, api):
    mine = world.tokens["mine"]
    net = api.make("network", "/networks", "network", mine, name="overlap")["id"]
    for cidr in ["10.77.0.0/24", "10.77.0.0/16", "10.77.0.64/26"]:
        other = api.make("network", "/subnets", "subnet", mine, network_id=net, ip_version=4, cidr=cidr)["id"]
        path = f"/routers/{world.ids['mine_router']}/add_router_interface"
        said = refusal(api.ask("PUT", "network", path, mine, json={"subnet_id": other}), "network", 400)
        assert f"Cidr {cidr} of subnet {other} overlaps with cidr 10.77.0.0/24 of subnet {world.ids['mine_subnet']}" in said
        api.good("DELETE", "network", f"/subnets/{other}", mine)
    api.good("DELETE", "network", f"/networks/{net}", mine)


# What is in use stays

IN_USE = [
    ("network", "/networks/$mine_net", 409, "NetworkInUse Unable to complete operation on network $mine_net"),
    ("network", "/subnets/$mine_subnet", 409, "SubnetInUse Unable to complete operation on subnet $mine_subnet"),
    ("network", "/routers/$mine_router", 409, "RouterInUse Router $mine_router still has ports"),
    ("network", "/security-groups/$mine_group", 409, "SecurityGroupInUse Security Group $mine_group in use"),
    ("network", "/ports/$interface", 409, "ServicePortInUse Port $interface cannot be deleted directly via the port API"),
    ("network", "/security-groups/$default", 409, "SecurityGroupCannotRemoveDefault"),
    ("identity", "/domains/default", 403, "please disable it first"),
]


@pytest.mark.parametrize("service,path,status,words", IN_USE, ids=[row[1] for row in IN_USE])
def test_what_is_in_use_stays(world, api, service, path, status, words):
    token = api.admin if service == "identity" else world.tokens["mine"]
    ports = api.good("GET", "network", f"/ports?device_id={world.ids['mine_router']}", token)["ports"] if token != api.admin else []
    groups = api.good("GET", "network", "/security-groups?name=default", world.tokens["mine"])["security_groups"]
    world.ids.update(interface=next((port["id"] for port in ports), ""), default=groups[0]["id"])
    said = refusal(api.ask("DELETE", service, world.fill(path), token), service, status)
    assert world.fill(words) in said


def test_an_enabled_domain_and_a_protected_image_stay(world, api):
    domain = api.make("identity", "/domains", "domain", name="bad-domain")["id"]
    assert "disable" in refusal(api.ask("DELETE", "identity", f"/domains/{domain}"), "identity", 403)
    api.good("PATCH", "identity", f"/domains/{domain}", json={"domain": {"enabled": False}})
    api.good("DELETE", "identity", f"/domains/{domain}")
    image = api.make("image", "/images", None, world.tokens["mine"], protected=True)["id"]
    said = refusal(api.ask("DELETE", "image", f"/images/{image}", world.tokens["mine"]), "image", 403)
    assert f"Image {image} is protected" in said
    send(world, "PATCH", "image", f"/images/{image}", [{"op": "replace", "path": "/protected", "value": False}], world.tokens["mine"])
    api.good("DELETE", "image", f"/images/{image}", world.tokens["mine"])


def test_a_flavor_and_an_image_of_a_server_may_go(world, api):
    """As in Nova and Glance: the server keeps what it needs of both."""
    image = world.image(world.tokens["mine"])
    kind = api.make("compute", "/flavors", "flavor", name=f"gone-{world.tag}", ram=64, vcpus=1, disk=1)["id"]
    body = world.fill(json.dumps(server(imageRef=image, flavorRef=kind, networks=[])["server"]))
    made = api.make("compute", "/servers", "server", world.tokens["mine"], **json.loads(body))["id"]
    world.settled(made, "ACTIVE")
    api.good("DELETE", "compute", f"/flavors/{kind}")
    api.good("DELETE", "image", f"/images/{image}", world.tokens["mine"])
    assert api.good("GET", "compute", f"/servers/{made}", world.tokens["mine"])["server"]["status"] == "ACTIVE"
    remove_server(world, made)


def remove_server(world, id):
    world.api.good("DELETE", "compute", f"/servers/{id}")
    lib.wait_for("the server is gone", lambda: world.api.ask("GET", "compute", f"/servers/{id}").status_code == 404)


# Quota

def test_quota_of_compute_is_403(world, api):
    path, mine = f"/os-quota-sets/{world.ids['mine_project']}", world.tokens["mine"]
    for resource in ["instances", "cores", "ram"]:
        was = api.good("GET", "compute", path)["quota_set"][resource]
        used = api.good("GET", "compute", path + "/detail")["quota_set"][resource]["in_use"]
        api.good("PUT", "compute", path, json={"quota_set": {resource: used}})
        said = refusal(send(world, "POST", "compute", "/servers", server(), mine), "compute", 403)
        assert f"Quota exceeded for {resource}" in said
        api.good("PUT", "compute", path, json={"quota_set": {resource: was}})


QUOTA_OF_NETWORK = {
    "network": {"network": {}}, "subnet": subnet(), "port": port(), "router": {"router": {}},
    "security_group": {"security_group": {"name": "x"}}, "security_group_rule": rule(protocol="udp"),
}


@pytest.mark.parametrize("resource", QUOTA_OF_NETWORK)
def test_quota_of_network_is_409(world, api, resource):
    path, mine = f"/quotas/{world.ids['mine_project']}", world.tokens["mine"]
    used = api.good("GET", "network", path + "/details")["quota"][resource]["used"]
    api.good("PUT", "network", path, json={"quota": {resource: used}})
    collection = f"/{resource.replace('_', '-')}s"
    said = refusal(send(world, "POST", "network", collection, QUOTA_OF_NETWORK[resource], mine), "network", 409)
    assert f"OverQuota Quota exceeded for resources: ['{resource}']" in said
    api.good("DELETE", "network", path)


def test_quota_of_image_is_413(world, api):
    services = api.good("GET", "identity", "/services")["services"]
    glance = next(row["id"] for row in services if row["type"] == "image")
    known = {row["resource_name"] for row in api.good("GET", "identity", "/registered_limits")["registered_limits"]}
    for name in {"image_count_total", "image_size_total"} - known:
        row = {"service_id": glance, "resource_name": name, "default_limit": 1000}
        api.good("POST", "identity", "/registered_limits", json={"registered_limits": [row]})
    empty = api.make("image", "/images", None, world.tokens["mine"], disk_format="raw", container_format="bare")["id"]
    limit = {"service_id": glance, "project_id": world.ids["mine_project"]}
    rows = [{**limit, "resource_name": "image_count_total", "resource_limit": 2},
            {**limit, "resource_name": "image_size_total", "resource_limit": 1}]
    made = api.good("POST", "identity", "/limits", json={"limits": rows})["limits"]
    said = refusal(api.ask("POST", "image", "/images", world.tokens["mine"], json={"name": "x"}), "image", 413)
    assert "image_count_total is over limit of 2" in said
    before = api.files()
    answer = api.ask("PUT", "image", f"/images/{empty}/file", world.tokens["mine"], headers=STREAM, data=b"\1" * (3 * MIB))
    assert "image_size_total is over limit of 1" in refusal(answer, "image", 413)
    assert api.good("GET", "image", f"/images/{empty}")["status"] == "queued" and api.files() == before
    for row in made:
        api.good("DELETE", "identity", f"/limits/{row['id']}")
    api.good("DELETE", "image", f"/images/{empty}", world.tokens["mine"])


def test_a_server_that_fits_no_host_is_an_error_with_the_reason(world, api):
    mine, quota = world.tokens["mine"], f"/os-quota-sets/{world.ids['mine_project']}"
    api.good("PUT", "compute", quota, json={"quota_set": {"ram": -1, "cores": -1}})
    for name, size in {"ram": {"ram": 1 << 30, "vcpus": 1}, "cores": {"ram": 1, "vcpus": 100_000}}.items():
        kind = api.make("compute", "/flavors", "flavor", name=f"huge-{name}-{world.tag}", disk=0, **size)["id"]
        answer = send(world, "POST", "compute", "/servers", server(flavorRef=kind), mine)
        assert answer.status_code == 202, answer.text
        made = answer.json()["server"]["id"]
        shown = world.settled(made, "ERROR")
        fault = api.good("GET", "compute", f"/servers/{made}", mine)["server"]["fault"]
        assert fault["message"].startswith("No valid host was found.") and fault["code"] == 500, fault
        assert len(fault["message"]) > len("No valid host was found. "), fault
        assert shown["OS-EXT-SRV-ATTR:host"] is None
        remove_server(world, made)
        api.good("DELETE", "compute", f"/flavors/{kind}")
    api.good("DELETE", "compute", quota)


# Images

@pytest.fixture
def queued(world, api):
    """A queued image of the format that a test wants, gone afterwards."""
    made = []

    def make(disk_format):
        image = api.make("image", "/images", None, world.tokens["mine"], disk_format=disk_format, container_format="bare")
        made.append(image["id"])
        return image["id"]

    yield make
    for id in made:
        api.good("DELETE", "image", f"/images/{id}", world.tokens["mine"])


def is_as_before(api, id, files):
    image = api.good("GET", "image", f"/images/{id}")
    return (image["status"], image["size"], image["checksum"]) == ("queued", None, None) and api.files() == files


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize("case", hostile.NOT_WHAT_THEY_SAY)
def test_what_is_not_what_it_says_is_refused_and_no_bytes_stay(world, api, queued, case, chunked):
    disk_format, data, because = hostile.NOT_WHAT_THEY_SAY[case]
    id, files, data = queued(disk_format), api.files(), bytes(data())
    body = (data[at:at + 10_000] for at in range(0, len(data), 10_000)) if chunked else data
    answer = api.ask("PUT", "image", f"/images/{id}/file", world.tokens["mine"], headers=STREAM, data=body)
    assert because in refusal(answer, "image", 415)
    assert is_as_before(api, id, files)
    # The image can still be filled with what it should hold.
    good = bytes(hostile.qcow2()) if disk_format == "qcow2" else bytes(4096)
    api.good("PUT", "image", f"/images/{id}/file", world.tokens["mine"], headers=STREAM, data=good)
    assert api.good("GET", "image", f"/images/{id}")["status"] == "active"


@pytest.mark.parametrize("header,value,because", [
    ("Content-MD5", "00" * 16, "The MD5 of the uploaded data is"),
    ("Content-Digest", "sha-512=:" + "A" * 86 + "==:", "The SHA-512 of the uploaded data is"),
    ("Content-MD5", "short", "Content-MD5"), ("x-openstack-image-size", "5", "5"), ("x-openstack-image-size", "many", "image size"),
])
def test_a_wrong_checksum_or_length_is_refused_and_no_bytes_stay(world, api, queued, header, value, because):
    id, files = queued("raw"), api.files()
    body = iter([bytes(MIB)]) if header == "x-openstack-image-size" else bytes(MIB)
    answer = api.ask("PUT", "image", f"/images/{id}/file", world.tokens["mine"], headers={**STREAM, header: value}, data=body)
    assert because in refusal(answer, "image", 400)
    assert is_as_before(api, id, files)


@pytest.mark.parametrize("framing", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_breaks_off_leaves_no_bytes(world, api, queued, framing):
    id, files = queued("raw"), api.files()
    where = urllib.parse.urlsplit(api.url)
    head = (f"PUT {PATHS['image']}/images/{id}/file HTTP/1.1\r\nHost: {where.netloc}\r\n{framing}\r\n"
            f"X-Auth-Token: {world.tokens['mine']}\r\nContent-Type: application/octet-stream\r\n\r\n")
    data = bytes(2 * MIB)
    if "chunked" in framing:
        data = f"{len(data):x}\r\n".encode() + data + b"\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(head.encode() + data)
        lib.wait_for("the upload runs", lambda: api.good("GET", "image", f"/images/{id}")["status"] == "saving", 10, 0.02)
    lib.wait_for("the image waits again and its bytes are gone", lambda: is_as_before(api, id, files), 10, 0.05)


def test_without_enforcement_such_bytes_are_quarantined_and_never_run(tmp_path):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    (tmp_path / "nubo.toml").write_text("image_format_enforcement = false\n")
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(tmp_path))
    try:
        made = hostile.Populated(hostile.Api(simulated.cloud))
        api, mine = made.api, made.tokens["mine"]
        for case in ["raw called qcow2", "backing file", "external data file"]:
            disk_format, data, because = hostile.NOT_WHAT_THEY_SAY[case]
            id = api.make("image", "/images", None, mine, disk_format=disk_format, container_format="bare")["id"]
            data = bytes(data())
            api.good("PUT", "image", f"/images/{id}/file", mine, headers=STREAM, data=data)
            image = api.good("GET", "image", f"/images/{id}", mine)
            assert (image["status"], image["virtual_size"]) == ("active", None) and because in image["nubo:quarantined"]
            assert api.ask("GET", "image", f"/images/{id}/file", mine).content == data
            answer = send(made, "POST", "compute", "/servers", server(imageRef=id), mine)
            assert answer.status_code == 202, answer.text
            vm = answer.json()["server"]["id"]
            made.settled(vm, "ERROR")
            fault = api.good("GET", "compute", f"/servers/{vm}", mine)["server"]["fault"]
            assert because in fault["message"], fault
            remove_server(made, vm)
            api.good("DELETE", "image", f"/images/{id}", mine)
        made.remove()
        assert api.files() == []
    finally:
        assert simulated.stop() == 0
