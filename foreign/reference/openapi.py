"""Part `openapi`: the documents of OpenAPI v3: schemas field by field, and paths by name."""

from differences import ABSENT, changes, text

NAME = "openapi"


def run(pair, differences, _catalogue, _sample):
    """Compares every document that the reference has."""
    own, expected = (each.field("paths") or {} for each in pair.ask("GET", "/openapi/v3"))
    differences.asked(NAME)
    for path in sorted(set(own) | set(expected)):
        if path not in own or path not in expected:
            there = ["there" if path in each else ABSENT for each in (own, expected)]
            differences.add(NAME, path, "document", *there, "")
            continue
        document(pair, differences, path)


def document(pair, differences, path):
    """Compares one document; what it says in prose is not compared."""
    own, expected = pair.ask("GET", f"/openapi/v3/{path}")
    differences.asked(NAME)
    if own.status != expected.status:
        differences.add(NAME, path, "status", str(own.status), str(expected.status), "")
        return
    for kind, keys in (("schema", ("components", "schemas")), ("path", ("paths",))):
        ours, theirs = (each.field(*keys) or {} for each in (own, expected))
        for name in sorted(set(ours) | set(theirs)):
            if name not in ours or name not in theirs:
                there = ["there" if name in each else ABSENT for each in (ours, theirs)]
                differences.add(NAME, kind, name, *there, path)
            elif kind == "schema":
                for place, said, wanted in changes(terse(ours[name]), terse(theirs[name])):
                    differences.add(NAME, name.rsplit(".", 1)[-1], place, text(said),
                                    text(wanted), path)
            else:
                methods = [sorted(key for key in each[name] if key != "parameters")
                           for each in (ours, theirs)]
                if methods[0] != methods[1]:
                    differences.add(NAME, kind, name, *map(text, methods), path)


def terse(value):
    """A schema without descriptions, and with what can be said in two ways said in one."""
    if isinstance(value, dict):
        value = dict(value)
        if len(value.get("allOf", [])) == 1 and "$ref" in value["allOf"][0]:
            value.update(value.pop("allOf")[0])
        if isinstance(value.get("required"), list):
            value["required"] = sorted(value["required"])
        return {key: terse(each) for key, each in value.items()
                if key != "description" or not isinstance(each, str)}
    if isinstance(value, list):
        return [terse(each) for each in value]
    return value
