"""Objects to send: one good object of each kind, and what can be wrong with it.

The good objects stand in objects.yaml. Each field of one is left out, or given an odd value of its
type; each field of the OpenAPI schema that it lacks is added, with values made from the schema.
"""

import copy
import os
import random

import yaml

STRINGS = ["", "x", "Bad_Name!", "a" * 300, "-a", "a.b/c", "10.0.0.1", "a/b/c"]
# Subtrees that the server fills in: odd values of theirs tell nothing of the kind.
SKIPPED = (("status",), ("metadata", "managedFields"))


class Catalogue:
    """The good objects, with the addresses and the schemas of their kinds."""

    def __init__(self, server, space):
        path = os.path.join(os.path.dirname(__file__), "objects.yaml")
        with open(path, encoding="utf-8") as file:
            self.objects = [each for each in yaml.safe_load_all(file) if each]
        self.server = server
        self.space = space
        self.resources = {}
        self.documents = {}
        for version in {each["apiVersion"] for each in self.objects}:
            for resource in server.ask("GET", prefix(version)).field("resources") or []:
                if "/" not in resource["name"]:
                    self.resources[(version, resource["kind"])] = resource
        for each in self.objects:
            namespaced = self.resources[(each["apiVersion"], each["kind"])]["namespaced"]
            if namespaced and "namespace" in each.get("metadata", {}):
                each["metadata"]["namespace"] = space

    def url(self, thing, named=False):
        """The address of the kind's collection, or of the object."""
        resource = self.resources[(thing["apiVersion"], thing["kind"])]
        space = f"/namespaces/{self.space}" if resource["namespaced"] else ""
        name = f"/{thing['metadata']['name']}" if named else ""
        return f"{prefix(thing['apiVersion'])}{space}/{resource['name']}{name}"

    def updatable(self, thing):
        """Whether the kind is stored and updated: reviews are not."""
        return "update" in self.resources[(thing["apiVersion"], thing["kind"])]["verbs"]

    def schemas(self, version):
        """The OpenAPI schemas of a group's version, by name."""
        if version not in self.documents:
            document = self.server.ask("GET", "/openapi/v3" + prefix(version))
            self.documents[version] = document.field("components", "schemas") or {}
        return self.documents[version]

    def schema(self, thing):
        """The schema of the object's kind."""
        group, _, version = thing["apiVersion"].rpartition("/")
        wanted = {"group": group, "version": version, "kind": thing["kind"]}
        for schema in self.schemas(thing["apiVersion"]).values():
            if wanted in schema.get("x-kubernetes-group-version-kind", []):
                return Schema(self.schemas(thing["apiVersion"]), schema)
        raise LookupError(f"no schema of {wanted}")


class Schema:
    """A part of an OpenAPI document, with its references followed."""

    def __init__(self, schemas, schema):
        while True:
            if "$ref" in schema:
                schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
            elif len(schema.get("allOf", [])) == 1:
                schema = schema["allOf"][0]
            else:
                break
        self.schemas = schemas
        self.schema = schema
        self.type = schema.get("type")

    def properties(self):
        return {name: Schema(self.schemas, each)
                for name, each in self.schema.get("properties", {}).items()}

    def items(self):
        return Schema(self.schemas, self.schema["items"])

    def missing(self, value, path=()):
        """Yields (path, schema) of each field that the value could have and has not."""
        properties = self.properties()
        if isinstance(value, dict) and properties:
            for name, schema in properties.items():
                if name in value:
                    yield from schema.missing(value[name], path + (name,))
                else:
                    yield path + (name,), schema
        elif isinstance(value, list) and "items" in self.schema:
            for index, each in enumerate(value):
                yield from self.items().missing(each, path + (index,))
        elif isinstance(value, dict) and isinstance(self.schema.get("additionalProperties"), dict):
            inner = Schema(self.schemas, self.schema["additionalProperties"])
            for name, each in value.items():
                yield from inner.missing(each, path + (name,))

    def minimal(self, depth=0):
        """The smallest value: what is required, and no more."""
        if self.type == "array":
            return [self.items().minimal(depth)]
        if self.type == "object":
            properties = self.properties()
            if not properties:
                return {"k": "v"}
            # Schemas that contain themselves end somewhere.
            required = self.schema.get("required", []) if depth < 6 else []
            return {name: properties[name].minimal(depth + 1) for name in required}
        return {"integer": 1, "number": 1, "boolean": True}.get(self.type, "x")

    def full(self, depth=0):
        """A value with every field, three levels deep."""
        properties = self.properties()
        if self.type == "object" and properties and depth < 3:
            return {name: each.full(depth + 1) for name, each in properties.items()}
        if self.type == "array":
            return [self.items().full(depth)]
        return self.minimal(depth)

    def values(self):
        """Values worth trying in a field that was not there."""
        if self.type == "string":
            return ["x", "", "Bad_Name!"]
        if self.type in ("integer", "number"):
            return [0, -1, 1, 70000]
        if self.type == "boolean":
            return [True, False]
        if self.type == "array":
            return [[], [self.items().minimal()], [self.items().full()]]
        if self.type == "object":
            properties = self.properties()
            if not properties:
                return [{}, {"k": "v"}]
            least = self.minimal()
            single = [{**least, name: each.minimal()} for name, each in properties.items()]
            return [{}] + ([least] if least else []) + single + [self.full()]
        return ["x", 1, -1, "10%", ""]


def prefix(version):
    """Where a group's version is served."""
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def odd(value):
    """Values of the same type that a server may well treat otherwise, and some of other types."""
    if isinstance(value, bool):
        return [not value, None, "x"]
    if isinstance(value, int):
        return [0, -1, 1, 70000, 2**40, None, "x", 1.5]
    if isinstance(value, str):
        return STRINGS + [None, 5, True]
    if isinstance(value, list):
        more = {} if value and isinstance(value[0], dict) else ""
        return [[], None, "x", value + value, value + [more], [None]]
    if isinstance(value, dict):
        return [{}, None, "x", []]
    return []


def paths(value, path=()):
    """Yields the path of every field and item within a value."""
    if isinstance(value, (dict, list)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield path + (key,)
            yield from paths(each, path + (key,))


def get(value, path):
    for key in path:
        value = value[key]
    return value


def with_value(thing, path, value):
    """A copy with the value at the path."""
    thing = copy.deepcopy(thing)
    get(thing, path[:-1])[path[-1]] = value
    return thing


def without(thing, path):
    """A copy without what stands at the path."""
    thing = copy.deepcopy(thing)
    del get(thing, path[:-1])[path[-1]]
    return thing


def variants(catalogue, thing, odds=None, additions=slice(None)):
    """Yields (field, what was done, object) for each way to spoil an object.

    `odds` is how many odd values each field is given, `additions` which values are added.
    """
    for path in list(paths(thing)):
        if path[0] in ("kind", "apiVersion"):
            continue
        yield name(path), "left out", without(thing, path)
        for value in odd(get(thing, path))[:odds]:
            yield name(path), value, with_value(thing, path, value)
    for path, schema in list(catalogue.schema(thing).missing(thing)):
        if not any(path[:len(each)] == each for each in SKIPPED):
            for value in schema.values()[additions]:
                yield name(path), value, with_value(thing, path, value)


def name(path):
    """A path as a field's name, without indices."""
    return "".join("[]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


class Sample:
    """Takes a share of the cases: the same ones whenever the seed is the same."""

    def __init__(self, share, seed):
        self.share = share
        self.random = random.Random(seed)

    def take(self, cases):
        for case in cases:
            if self.share >= 1 or self.random.random() < self.share:
                yield case
