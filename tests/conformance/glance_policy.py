"""Who may do what with images: nubo's defaults against those of an installed Glance, rule by rule, over every persona.

    nubo policy sample >sample && python glance_policy.py sample

The Python that runs it has `glance` (see README.md). Prints what differs; exits 1 where it is not in `KNOWN`.
"""

import itertools
import re
import sys

from glance import policies
from oslo_policy import _parser

PERSONAS = {
    "admin": ["admin", "manager", "member", "reader"],
    "manager": ["manager", "member", "reader"],
    "member": ["member", "reader"],
    "reader": ["reader"],
    "service": ["service"],
    "nobody": [],
}
VISIBILITY = ["public", "community", "shared", "private"]

# Rules that differ, and why (docs/compat/image.md says it at more length).
KNOWN = {
    "default": "oslo.policy's fallback for rules that are not there; here a name that is no rule is an error",
    "service_api": "one rule for all services, of a service alone; what asks it in the image service asks for the "
                   "administrator besides",
    "download_from_store": "a download does not choose a store here: any whole copy serves",
    "get_image_location": "the calls before locations of their own; the lists of the new ones hold",
    "set_image_location": "the same",
    "manage_image_cache": "the rule before cache_list and the like, which have their own",
}


class Rules:
    """What a check asks for another rule."""

    def __init__(self, checks):
        self.rules = {name: _parser.parse_rule(check) for name, check in checks.items()}

    def allows(self, name, credentials, target):
        return bool(self.rules[name](target, credentials, self))


def cases():
    """Credentials and targets: every persona in the owner's project, in one it is shared with, and in another."""
    for (persona, roles), project, visibility in itertools.product(PERSONAS.items(), "oms", VISIBILITY):
        credentials = {"roles": roles, "project_id": project, "user_id": "u", "system_scope": None}
        for member in ["m", None]:
            target = {"project_id": "o", "owner": "o", "visibility": visibility, "member_id": member}
            yield persona, credentials, target
    for persona, roles in PERSONAS.items():
        # Somebody names another owner than the own project.
        target = {"project_id": "o", "owner": "x", "visibility": "private", "member_id": None}
        yield persona, {"roles": roles, "project_id": "o", "user_id": "u", "system_scope": None}, target


def main(sample):
    text = open(sample).read()
    found = re.findall(r'(?:# Scope: ([a-z, ]*)\n)?#"([^"]+)": "(.*)"', text)
    own = {name: check for _, name, check in found}
    scopes = {name: scope.split(", ") if scope else None for scope, name, _ in found}
    rules = list(policies.list_rules())
    theirs, ours = Rules({rule.name: rule.check_str for rule in rules}), Rules(own)
    differing, compared = {}, 0
    for rule in rules:
        if rule.name not in own:
            differing[rule.name] = "is not there"
            continue
        wrong = []
        for persona, credentials, target in cases():
            compared += 1
            here, there = (of.allows(rule.name, credentials, target) for of in (ours, theirs))
            if here != there:
                where = {"o": "of the owner", "m": "of a member", "s": "of another"}[credentials["project_id"]]
                wrong.append(f"{persona} {where}, {target['visibility']}: {here}, in Glance {there}")
        if rule.scope_types and scopes[rule.name] != rule.scope_types:
            wrong.append(f"scopes {scopes[rule.name]}, in Glance {rule.scope_types}")
        if wrong:
            differing[rule.name] = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
    for name, what in differing.items():
        print(f"{'known' if name in KNOWN else 'DIFFERS'}: {name}: {what}")
    unknown = differing.keys() - KNOWN.keys()
    stale = KNOWN.keys() - differing.keys()
    print(f"{len(rules)} rules, {compared} questions, {len(differing)} rules differ, {len(unknown)} of them unexpectedly")
    for name in stale:
        print(f"no longer differs: {name}")
    return 1 if unknown or stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
