"""Part `create`: every way to spoil an object, sent as a create that is not carried out."""

from objects import variants

NAME = "create"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def run(pair, differences, catalogue, sample):
    """Creates each object as it is, as a table, and with each field spoilt."""
    for thing in catalogue.objects:
        kind = f"{thing['kind']}.{thing['apiVersion']}"
        path = catalogue.url(thing) + "?dryRun=All&fieldManager=f"

        def send(field, change, body, accept="application/json"):
            answers = pair.ask("POST", path, body, accept=accept)
            differences.answers(NAME, kind, field, answers, (field, change))

        send("as it is", "", thing)
        send("as a table", "", thing, TABLE)
        for field, change, body in sample.take(variants(catalogue, thing)):
            send(field, change, body)
