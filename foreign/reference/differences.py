"""Finds where two answers differ, and gathers what is the same difference into one line.

A difference has a kind, a field and what either server said. Fields are named without indices, so
that one fault met in ten places of an object, or by ten odd values, is one group.
"""

import json
import re

from client import normal

ABSENT = "<absent>"
WIDTH = 160
# A value that a message quotes.
QUOTED = re.compile(r"(value|entry|limit|found): "
                    r'("(\\.|[^"\\])*"|-?[\d.]+|\{.*?\}|\[.*?\])(?=:|$|;)')


def changes(left, right, path=""):
    """Yields (path, left, right) for each place in which two JSON values differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(set(left) | set(right)):
            yield from changes(left.get(key, ABSENT), right.get(key, ABSENT), f"{path}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for one, other in zip(left, right):
            yield from changes(one, other, path + "[]")
    # `1 == True` in Python, not in JSON.
    elif left != right or isinstance(left, bool) != isinstance(right, bool):
        yield path.lstrip("."), left, right


def compare(evenkeel, reference, field, ignore=()):
    """Yields (field, E says, K says) for two answers to the same request.

    `field` names what was asked about: it is used where the answers as wholes differ. `ignore`
    lists fields at the top of the answers that are not compared.
    """
    left, right = normal(evenkeel.body), normal(reference.body)
    if evenkeel.status != reference.status:
        yield field, says(evenkeel.status, left), says(reference.status, right)
        return
    if is_status(left) and is_status(right):
        yield from compare_status(evenkeel.status, left, right, field)
    else:
        for body in (left, right):
            if isinstance(body, dict):
                for name in ignore:
                    body.pop(name, None)
        for path, one, other in changes(left, right):
            yield path or field, text(one), text(other)
    said, expected = (sorted(normal(each.warnings)) for each in (evenkeel, reference))
    if said != expected:
        common = set(said) & set(expected)
        yield f"warning: {field}", *(text([each for each in warnings if each not in common])
                                     for warnings in (said, expected))


def compare_status(code, left, right, field):
    """The same refusal in other words: cause by cause where both name causes."""
    one, other = left.get("message") or "", right.get("message") or ""
    if both_undecodable(one, other):
        return
    causes = [cause_texts(body) for body in (left, right)]
    if all(causes) and causes[0] != causes[1]:
        for name in sorted(set(causes[0]) | set(causes[1])):
            said, expected = (each.get(name, []) for each in causes)
            if said != expected:
                yield name, f"{code} {joined(said)}", f"{code} {joined(expected)}"
        return
    if "is invalid: [" in other and not other.endswith("]"):
        # The reference's list was cut where a difference of two structures of Go began.
        one = one[:len(other)]
    if one != other:
        same = sorted(re.split(r", |[][]", one)) == sorted(re.split(r", |[][]", other))
        yield f"{'order of ' if same else ''}message: {field}", f"{code} {one}", f"{code} {other}"
        return
    for path, first, second in changes(left, right):
        yield f"{path}: {field}", text(first), text(second)


def both_undecodable(one, other):
    """Whether both could not decode the object: Go's words for that name its types and offsets."""
    signs = ("cannot unmarshal", "cannot be handled as")
    return any(sign in one for sign in signs) and any(sign in other for sign in signs)


def cause_texts(status):
    """What a Status says of each field, by the field's name without indices."""
    found = {}
    for cause in (status.get("details") or {}).get("causes") or []:
        name = plain(cause.get("field") or "")
        found.setdefault(name, []).append(f"{cause.get('reason')}: {cause.get('message')}")
    return {name: sorted(messages) for name, messages in found.items()}


def joined(messages):
    return "; ".join(messages) if messages else "says nothing of it"


def is_status(body):
    return isinstance(body, dict) and body.get("kind") == "Status" and "status" in body


def says(code, body):
    """What an answer comes to: its code, and its message where it has one."""
    if isinstance(body, dict):
        message = body.get("message") if is_status(body) else None
        return f"{code} {message}" if message else f"{code}"
    return f"{code} {text(body)}"


def text(value):
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def plain(field):
    """A field's name without indices."""
    return re.sub(r"\[[^\]]*\]", "[]", field)


def squeezed(words):
    """Words without the values they quote, on one line."""
    words = "".join(each if each.isprintable() else " " for each in words)
    words = re.sub(r" +", " ", words)
    words = QUOTED.sub(r"\1: …", words)
    return re.sub(r"\[\d+\]", "[]", words)


def cut(words):
    return words if len(words) <= WIDTH else words[:WIDTH - 1] + "…"


class Differences:
    """All that was found, by group, in the order in which it was met."""

    def __init__(self):
        self.groups = {}
        self.requests = {}

    def asked(self, part):
        """Counts a pair of requests."""
        self.requests[part] = self.requests.get(part, 0) + 1

    def add(self, part, kind, field, evenkeel, reference, case):
        """Notes one difference; `case` says how it was met, for the report."""
        said, expected = squeezed(evenkeel), squeezed(reference)
        if said == expected:
            said, expected = json.dumps(evenkeel), json.dumps(reference)
        if cut(said) == cut(expected):
            said, expected = apart(said, expected)
        line = f"{part} {kind} {plain(field)} | E {cut(said)} | K {cut(expected)}"
        group = self.groups.setdefault(line, {"part": part, "count": 0, "first": None})
        group["count"] += 1
        group["first"] = group["first"] or (case, evenkeel, reference)

    def answers(self, part, kind, field, pair, case, ignore=()):
        """Compares two answers and notes what differs."""
        self.asked(part)
        if pair[1].status == 0 and pair[0].status != 0:
            # The reference panics at some requests; that is no rule for anybody.
            return
        for place, said, expected in compare(*pair, field, ignore):
            self.add(part, kind, place, said, expected, case)


def apart(one, other):
    """Two long texts from shortly before the place in which they part."""
    start = next((at for at, pair in enumerate(zip(one, other)) if pair[0] != pair[1]),
                 min(len(one), len(other)))
    start = max(0, start - 40)
    return "…" + one[start:], "…" + other[start:]


def known(path):
    """The lines of a list of known differences, without comments and counts."""
    with open(path, encoding="utf-8") as file:
        lines = (re.sub(r"^\s*(\d+x\s+)?", "", line.rstrip("\n")) for line in file)
        return {line for line in lines if line and not line.startswith("#")}
