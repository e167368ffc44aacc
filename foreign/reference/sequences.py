"""Part `sequences`: requests in an order that somebody thought of, kept in sequences/*.yaml.

A file is a list of steps, carried out in order on both servers. `{space}` stands for the run's
namespace. A step has
- `do`: method and address, or `GET` with a list of addresses in `paths`;
- `body`, or `bodies`: one request is sent for each;
- `base` and `variants` instead: for each variant the base with the variant merged into it, as a
  merge patch would be;
- `type`, `accept`, `headers`: of the request; the types have short names;
- `repeat`: how often the items of the body are repeated;
- `first`: method and address of a request to be sent before each, such as the removal of what the
  last one made;
- `quiet`: the answers are not compared: the step only prepares what follows;
- `wait`: seconds to wait, for what either server learns by a watch.
"""

import glob
import json
import os
import time

import yaml

from client import JSON

NAME = "sequences"
TYPES = {
    "json-patch": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "table": "application/json;as=Table;v=v1;g=meta.k8s.io",
}
# Kinds whose status loops write; of a namespace and a pod, the conditions alone.
LOOPED = {
    "CronJob", "DaemonSet", "Deployment", "HorizontalPodAutoscaler", "Job", "Namespace",
    "PartialObjectMetadata", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget",
    "ReplicaSet", "ResourceQuota", "StatefulSet",
}


def run(pair, differences, _catalogue, _sample):
    """Carries out the steps of every file."""
    folder = os.path.join(os.path.dirname(__file__), "sequences")
    for path in sorted(glob.glob(os.path.join(folder, "*.yaml"))):
        with open(path, encoding="utf-8") as file:
            steps = yaml.safe_load(file)
        title = os.path.splitext(os.path.basename(path))[0]
        for step in steps:
            carry_out(pair, differences, title, step)


def carry_out(pair, differences, title, step):
    """Sends the requests of one step."""
    if "wait" in step:
        time.sleep(step["wait"])
        return
    method, _, address = step["do"].partition(" ")
    for path in step.get("paths", [address]):
        path = path.replace("{space}", pair.space)
        if "variants" in step:
            bodies = [merged(step["base"], variant) for variant in step["variants"]]
        else:
            bodies = step["bodies"] if "bodies" in step else [step.get("body")]
        for body in bodies:
            if "first" in step:
                before, _, where = step["first"].partition(" ")
                pair.ask(before, where.replace("{space}", pair.space))
            body = filled(body, pair.space)
            sent = body * step["repeat"] if "repeat" in step else body
            if sent is None and "bodies" in step:
                sent = "null"
            kind = TYPES.get(step.get("type"), step.get("type", JSON))
            accept = TYPES.get(step.get("accept"), step.get("accept", JSON))
            answers = pair.ask(method, path, sent, kind, accept, step.get("headers"))
            if not step.get("quiet"):
                for each in answers:
                    without_loops(each.body)
                differences.answers(NAME, title, described(step, method, path, body, pair.space),
                                    answers, "")


def merged(base, patch):
    """The base after a merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    out = dict(base) if isinstance(base, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merged(out.get(name), value)
    return out


def without_loops(thing, kind=None):
    """Leaves out what Evenkeel's loops write meanwhile: the reference runs none."""
    if not isinstance(thing, dict):
        return
    kind = thing.get("kind", kind)
    if kind == "EventList":
        thing["items"] = []
    elif isinstance(thing.get("items"), list):
        for each in thing["items"]:
            without_loops(each, (kind or "").removesuffix("List"))
    elif kind == "Table":
        for row in thing.get("rows") or []:
            without_loops(row.get("object"), "Pod")
    elif kind in LOOPED and isinstance(thing.get("metadata"), dict):
        if kind in ("Namespace", "Pod", "PartialObjectMetadata"):
            thing.get("status", {}).pop("conditions", None)
        else:
            thing.pop("status", None)
        managers = thing["metadata"].get("managedFields") or []
        thing["metadata"]["managedFields"] = [each for each in managers
                                              if each.get("subresource") != "status"]


def filled(body, space):
    """The body with the run's namespace where `{space}` stands."""
    if isinstance(body, dict):
        return {key: filled(value, space) for key, value in body.items()}
    if isinstance(body, list):
        return [filled(value, space) for value in body]
    return body.replace("{space}", space) if isinstance(body, str) else body


def described(step, method, path, body, space):
    """The request in a few words, the same in every run."""
    words = [method, path.replace(space, "{space}")]
    words += [f"{key}={step[key]}" for key in ("type", "accept", "headers") if key in step]
    if body is not None:
        body = (body if isinstance(body, str) else json.dumps(body)).replace(space, "{space}")
        body = body.replace("\n", "\\n")
        words.append(body if len(body) <= 120 else body[:119] + "…")
    return " ".join(words)
