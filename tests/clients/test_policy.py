"""The rules by which services decide: written out, overridden, and why one decides as it does."""

import json
import subprocess

import lib


def test_the_sample_is_a_policy_that_changes_nothing_and_an_override_is_explained(tmp_path):
    lib.require("clients", (lib.BIN / "openstack").exists(), "no openstack command in the virtual environment")
    sample = subprocess.run([str(lib.NUBO), "policy", "sample"], capture_output=True, text=True, check=True).stdout
    defaults = [line[1:] for line in sample.splitlines() if line.startswith('#"')]
    assert len(defaults) > 500 and any('"identity:list_projects"' in line for line in defaults), len(defaults)
    state = tmp_path / "state"
    state.mkdir()
    # Every default as it is, but for one.
    override = '"os_compute_api:os-hypervisors:list": "role:reader"'
    kept = [line for line in defaults if not line.startswith('"os_compute_api:os-hypervisors:list"')]
    (state / "policy.yaml").write_text("\n".join(kept + [override]) + "\n")
    simulated = lib.Simulated(hosts=1, NUBO_STATE=str(state))
    try:
        cloud = simulated.cloud
        project = cloud.json("project", "create", "ship")["id"]
        user = cloud.json("user", "create", "ada", "--password", "Pa55word-of-ada")["id"]
        explain = lambda *words: cloud.nubo("policy", "explain", *words)

        nobody = explain("ada", "identity:list_projects", "ship")
        assert nobody.returncode == 1 and "ada without a scope (no role): denied" in nobody.stdout, nobody.stdout
        cloud.run("role", "add", "--user", "ada", "--project", "ship", "reader")
        may = explain("ada", "os_compute_api:os-hypervisors:list", "ship")
        assert may.returncode == 0 and "ada in the project ship (reader): allowed" in may.stdout, may.stdout + may.stderr
        assert "  role:reader\n" in may.stdout, "the rule in force"
        may_not = explain(user, "os_compute_api:servers:create", project, "--json")
        assert may_not.returncode == 1, may_not.stdout
        told = json.loads(may_not.stdout)["policy"]
        (token,) = told["tokens"]
        assert (told["user"]["id"], token["roles"], token["decision"]) == (user, ["reader"], "denied")
        assert {"depth": 4, "check": "role:member", "holds": False} in token["checks"], token["checks"]
        assert {"depth": 4, "check": "project_id:%(project_id)s", "holds": True} in token["checks"], token["checks"]
        # What belongs to each token's own project; what belongs to somebody else by its values.
        cloud.run("role", "add", "--user", "ada", "--project", "ship", "member")
        assert explain("ada", "os_compute_api:servers:create").returncode == 0
        assert explain("ada", "os_compute_api:servers:create", "project_id=another").returncode == 1
        wrong = explain("ada", "identity:create_project", "domain_id=default")
        assert wrong.returncode == 1 and "denied" in wrong.stdout, wrong.stdout
        for words, said in (
            (("nobody", "identity:list_projects"), "nobody"),
            (("ada", "identity:fly"), "There is no rule called identity:fly"),
            (("ada", "identity:list_projects", "moon"), "moon"),
            (("ada", "identity:list_projects", "a=b,c"), "name=value"),
        ):
            refused = explain(*words)
            assert refused.returncode not in (0, 1) or said in refused.stderr, (words, refused)
            assert said in refused.stderr, (words, refused.stderr)
        cloud.run("user", "set", "ada", "--disable")
        assert "disabled" in explain("ada", "identity:list_projects").stderr
        # Only an administrator asks.
        asked = simulated.cloud.sdk("demo").session.get(f"{cloud.url}/nubo/v1/policy?user=ada&rule=x", raise_exc=False)
        assert asked.status_code == 403, asked.text
    finally:
        assert simulated.stop() == 0
