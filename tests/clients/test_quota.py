"""Quota is exact, however many ask at once."""

import concurrent.futures
import uuid

import lib


def tenant(sim):
    """A new project with a user, and how that user creates a server."""
    admin, tag = sim.sdk("nubo"), uuid.uuid4().hex[:8]
    project = admin.identity.create_project(name=f"quota-{tag}", domain_id="default")
    user = admin.identity.create_user(name=f"quota-{tag}", password="secret", domain_id="default",
                                      default_project_id=project.id)
    admin.identity.assign_project_role_to_user(project, user, admin.identity.find_role("member"))
    image = admin.image.create_image(name=f"quota-{tag}", disk_format="raw", container_format="bare",
                                     visibility="public", data=b"\0" * 65536)
    flavor = admin.compute.create_flavor(name=f"quota-{tag}", ram=1, vcpus=1, disk=0)
    mine = admin.connect_as(username=user.name, password="secret", project_id=project.id, user_domain_id="default")
    mine.authorize()

    def create(number):
        body = {"server": {"name": f"s{number}", "imageRef": image.id, "flavorRef": flavor.id, "networks": "none"}}
        return mine.compute.post("/servers", json=body, microversion="2.60", raise_exc=False)

    return admin, project, mine, create


def test_a_project_without_limits_of_its_own_has_the_default_ones(sim):
    admin, project, mine, create = tenant(sim)
    limit = admin.compute.get(f"/os-quota-sets/{project.id}/defaults").json()["quota_set"]["instances"]
    assert limit == 10
    assert [create(number).status_code for number in range(limit + 2)] == [202] * limit + [403] * 2
    for server in mine.compute.servers(details=False):
        mine.compute.delete_server(server)


def test_two_hundred_parallel_creates_against_a_quota_of_fifty(sim):
    admin, project, mine, create = tenant(sim)
    admin.compute.put(f"/os-quota-sets/{project.id}", json={"quota_set": {"instances": 50, "cores": -1, "ram": -1}})
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(create, range(200)))
    statuses = [answer.status_code for answer in answers]
    assert sorted(set(statuses)) == [202, 403] and statuses.count(202) == 50, {s: statuses.count(s) for s in statuses}
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert "Quota exceeded for instances" in refused.json()["forbidden"]["message"]
    assert len(list(mine.compute.servers(details=False))) == 50
    lib.wait_for("all fifty are ACTIVE", lambda: all(s.status == "ACTIVE" for s in mine.compute.servers()))
    for server in mine.compute.servers(details=False):
        mine.compute.delete_server(server)
    lib.wait_for("all are gone", lambda: not list(mine.compute.servers(details=False)))
    used = admin.compute.get(f"/os-quota-sets/{project.id}/detail").json()["quota_set"]["instances"]
    assert used["in_use"] == 0
