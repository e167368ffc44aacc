"""Part `discovery`: which groups, versions, resources and first objects the servers have."""

import copy

from client import normal
from differences import ABSENT, changes, text

NAME = "discovery"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
# Objects that a server makes for itself when it starts.
FIRST = [
    "/api/v1/namespaces",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
    "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/apiregistration.k8s.io/v1/apiservices",
    "/apis/networking.k8s.io/v1/servicecidrs",
]


def run(pair, differences, _catalogue, _sample):
    """Compares what is served, then what is there at the start."""
    parts = Parts(pair, differences)
    groups = parts.lists("/apis", "groups", "name")
    versions = ["/api/v1"] + [f"/apis/{version['groupVersion']}"
                              for group in groups for version in group["versions"]]
    for path in versions:
        parts.lists(path, "resources", "name")
    for path in ("/api", "/apis"):
        parts.lists(path, "items", "metadata.name", AGGREGATED)
    for path in FIRST:
        parts.lists(path, "items", "metadata.name")


class Parts:
    """Lists of both servers, compared item by item."""

    def __init__(self, pair, differences):
        self.pair = pair
        self.differences = differences

    def lists(self, path, field, key, accept="application/json"):
        """Compares the lists at a path by their items' names, and yields the reference's."""
        answers = self.pair.ask("GET", path, accept=accept)
        self.differences.asked(NAME)
        kind = path if accept == "application/json" else f"{path} (aggregated)"
        if any(not isinstance(each.field(field), list) for each in answers):
            self.note(kind, "status", str(answers[0].status), str(answers[1].status))
            return answers[1].field(field) or []
        own, expected = ({named(item, key): item for item in each.field(field)
                          if not named(item, key).startswith("compare-")} for each in answers)
        for name in sorted(set(own) | set(expected)):
            if name not in own or name not in expected:
                there = ["there" if name in each else ABSENT for each in (own, expected)]
                self.note(kind, name, *there)
                continue
            ours, theirs = clean(own[name]), clean(expected[name])
            # Rules are a set, split or joined as each server likes: what they grant is compared.
            granted = [rights(each.pop("rules", None) or []) for each in (ours, theirs)]
            if granted[0] != granted[1]:
                more = [", ".join(sorted(granted[at] - granted[1 - at])) for at in (0, 1)]
                self.note(kind, f"{name}: rights of it alone", *(each or "none" for each in more))
            for place, said, wanted in changes(ours, theirs):
                self.note(kind, f"{name}: {place}", text(said), text(wanted))
        if list(own) != [name for name in expected if name in own] and field != "items":
            self.note(kind, "order", text(list(own)), text(list(expected)))
        return answers[1].field(field)

    def note(self, kind, field, said, expected):
        self.differences.add(NAME, kind, field, said, expected, "")


def named(item, key):
    for part in key.split("."):
        item = item.get(part, "")
    return item


def clean(item):
    """An item without what is a server's own, and without the order of what has none."""
    item = normal(copy.deepcopy(item))
    if isinstance(item.get("metadata"), dict):
        for field in ("managedFields", "generation"):
            item["metadata"].pop(field, None)
        # Items of the reference's lists do not say what they are; part `sequences` reads lists.
        for field in ("status", "kind", "apiVersion"):
            item.pop(field, None)
    for version in item.get("versions", []):
        for resource in version.get("resources", []) if isinstance(version, dict) else []:
            resource.get("subresources", []).sort(key=lambda each: each["subresource"])
    return item


def rights(rules):
    """What rules grant, each right by itself."""
    found = set()
    for rule in rules:
        for verb in rule.get("verbs", []) if "subjects" not in rule else []:
            found.update(f"{verb} {url}" for url in rule.get("nonResourceURLs", []))
            found.update(f"{verb} {group}/{resource} {name}".rstrip()
                         for group in rule.get("apiGroups", [])
                         for resource in rule.get("resources", [])
                         for name in rule.get("resourceNames", [""]))
        if "subjects" in rule:
            found.add(text(rule))
    return found
