"""Part `update`: every way to spoil a stored object, sent as an update that is not carried out."""

import copy
import time

from objects import get, name, odd, paths, variants, with_value

NAME = "update"
# Names of these mean something, so none can be made up.
NAMED = {
    "IPAddress", "APIService", "CSIDriver", "ClusterTrustBundle", "CustomResourceDefinition",
}
FILLED_IN = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation")


def run(pair, differences, catalogue, sample):
    """Stores each object, then updates it, its status, and one that is not there."""
    for thing in catalogue.objects:
        # A namespace once deleted stays for want of the reference's controllers.
        if catalogue.updatable(thing) and thing["kind"] != "Namespace":
            Update(pair, differences, catalogue, sample, thing).run()


class Update:
    """The updates of one object."""

    def __init__(self, pair, differences, catalogue, sample, thing):
        self.pair = pair
        self.differences = differences
        self.catalogue = catalogue
        self.sample = sample
        self.thing = thing
        self.kind = f"{thing['kind']}.{thing['apiVersion']}"
        self.path = catalogue.url(thing, named=True)

    def run(self):
        self.absent()
        self.remove()
        created = self.pair.ask("POST", self.catalogue.url(self.thing), self.thing)
        if any(each.status != 201 for each in created):
            self.differences.answers(NAME, self.kind, "create to update", created, "as it is")
            return
        own, base = (stripped(each.body) for each in created)
        adapt = Adapter(own, base)
        if self.put("as it is", "", base, adapt)[1].status == 422:
            # Some kinds are updated with a resource version alone. Their first status is written
            # meanwhile, by loops that the reference too runs in its own process.
            time.sleep(1)
            stored = self.pair.ask("GET", self.path)
            own, base = (versioned(each.body) for each in stored)
            adapt = Adapter(own, base)
            self.put("as it is, with its resource version", "", base, adapt)
        # Four odd values and two additions a field: `create` tries them all.
        spoilt = variants(self.catalogue, base, 4, slice(1, 3))
        for field, change, body in self.sample.take(spoilt):
            self.put(field, change, body, adapt)
        self.status(base, adapt)
        self.remove()

    def put(self, field, change, body, adapt, subresource=""):
        answers = self.pair.ask("PUT", f"{self.path}{subresource}?dryRun=All&fieldManager=f",
                                adapt(body), other=body)
        # Evenkeel's loops write the status meanwhile; the reference runs none.
        ignore = () if subresource else ("status",)
        for each in answers:
            drop_status_manager(each)
        self.differences.answers(NAME, self.kind + subresource, field, answers, (field, change),
                                 ignore)
        return answers

    def status(self, base, adapt):
        """Updates the status with what its schema allows and what it does not."""
        schema = self.catalogue.schema(self.thing).properties().get("status")
        if schema is None:
            return
        whole = schema.full()
        cases = [("status", value, value) for value in schema.values()]
        for path in paths(whole) if isinstance(whole, (dict, list)) else ():
            for value in odd(get(whole, path))[:5]:
                cases.append((f"status.{name(path)}", value, with_value(whole, path, value)))
        for field, change, value in self.sample.take(cases):
            self.put(field, change, {**base, "status": value}, adapt, "/status")

    def absent(self):
        """Updates what is not there, with and without a resource version."""
        for version in (None, "1"):
            thing = copy.deepcopy(self.thing)
            if thing["kind"] in NAMED:
                self.remove()
            else:
                thing["metadata"]["name"] += "zz"
            if version:
                thing["metadata"]["resourceVersion"] = version
            path = self.catalogue.url(thing, named=True) + "?dryRun=All"
            field = f"absent, {'with' if version else 'without'} a resource version"
            self.differences.answers(NAME, self.kind, field, self.pair.ask("PUT", path, thing), "")

    def remove(self):
        options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        self.pair.ask("DELETE", self.path, options)
        # Protection's finalizers: nothing removes them where no loops run.
        self.pair.ask("PATCH", self.path, {"metadata": {"finalizers": None}},
                      "application/merge-patch+json")


class Adapter:
    """Puts Evenkeel's own values where the reference's stand, such as allocated addresses."""

    def __init__(self, own, base):
        self.own = []
        for path in paths(base):
            try:
                value = get(own, path)
            except (KeyError, IndexError, TypeError):
                continue
            theirs = get(base, path)
            if isinstance(value, (str, int)) and type(value) is type(theirs) and value != theirs:
                self.own.append((path, theirs, value))

    def __call__(self, body):
        for path, theirs, value in self.own:
            try:
                if get(body, path) == theirs:
                    body = with_value(body, path, value)
            except (KeyError, IndexError, TypeError):
                continue
        return body


def stripped(body):
    """An object as created, without what the server filled in."""
    body = copy.deepcopy(body)
    body.pop("status", None)
    for field in FILLED_IN:
        body["metadata"].pop(field, None)
    return body


def versioned(body):
    """An object as stored, without what the server filled in but with its resource version."""
    return with_value(stripped(body), ("metadata", "resourceVersion"),
                      body["metadata"]["resourceVersion"])


def drop_status_manager(answer):
    """Leaves out what Evenkeel's loops own: the reference runs none."""
    metadata = answer.field("metadata")
    if isinstance(metadata, dict) and "managedFields" in metadata:
        metadata["managedFields"] = [each for each in metadata["managedFields"]
                                     if each.get("manager") == "f"]
