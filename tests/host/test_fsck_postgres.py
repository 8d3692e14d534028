"""`nubo fsck` of a cloud whose store is PostgreSQL: the audit, a repair through control, and one of the store itself.

The kinds of damage to a store are in crates/control/tests/beyond/fsck.rs, those to a machine in test_fsck.py.
"""

import json
import subprocess

import http_in_netns
import lib
import real


def test_a_cloud_on_postgresql_is_looked_at_and_repaired():
    real.require_all()
    with lib.postgres() as store, real.made_and_purged("p", NUBO_STORE=store.url) as cloud:
        fsck = lambda *words: cloud.nubo("fsck", *words, check=False)
        clean = fsck()
        assert clean.returncode == 0, clean.stdout + clean.stderr
        guests = cloud.guests()
        api = http_in_netns.Api(cloud)
        demo = api.get("compute", "/servers?name=^demo$")["servers"][0]["id"]
        network = api.get("network", "/v2.0/networks?name=demo-net")["networks"][0]
        scope, stray = network["project_id"], f"nubo-{cloud.cloud_id()}-n-000000000bad"

        def hurt():
            """Three in the store, one in the kernel; what the listing must say of each."""
            store.sql("UPDATE document SET body = replace(body, '\"demo\"', '\"edited\"') WHERE kind = 'server'")
            store.sql(f"DELETE FROM index_entry WHERE kind = 'port' AND id IN "
                      f"(SELECT id FROM document WHERE kind = 'port' AND body LIKE '%{demo}%')")
            store.sql(f"UPDATE ledger SET used = used + 5 WHERE scope = '{scope}' AND resource = 'network'")
            subprocess.run(["ip", "netns", "add", stray], check=True)
            return [(demo, "not what its history says"), ("port", "is missing"), (f"{scope}/network", "the ledger says"),
                    (stray, "no owner")]

        def repaired(*words):
            expected = hurt()
            found = fsck(*words)
            assert found.returncode == 1, found.stdout + found.stderr
            for part in expected:
                assert any(all(word in line for word in part) for line in found.stdout.splitlines()), (part, found.stdout)
            done = fsck(*words, "--repair", "--yes")
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads(fsck(*words, "--json").stdout) == {"findings": []}

        repaired()
        assert api.get("compute", f"/servers/{demo}")["server"]["name"] == "demo"
        refused = fsck("--offline")
        assert refused.returncode == 2 and "the cloud is up" in refused.stderr
        cloud.make("down")
        repaired("--offline")
        cloud.make("up")
        assert fsck().returncode == 0
        assert cloud.guests() == guests, "the guest was touched"
        assert http_in_netns.Api(cloud).get("compute", f"/servers/{demo}")["server"]["name"] == "demo"
