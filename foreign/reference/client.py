"""Sends the same request to both servers, and takes from the answers what two servers never share.

What is dropped or masked here cannot be found as a difference: times, uids, resource versions,
allocated addresses and ports, the random ends of names.
"""

import base64
import http.client
import json
import os
import re
import ssl
import tempfile
import threading
from urllib.parse import urlsplit

import yaml

JSON = "application/json"
MERGE = "application/merge-patch+json"

# Fields of metadata and conditions that tell of one server's own doings.
OWN = {
    "uid", "creationTimestamp", "resourceVersion", "selfLink", "deletionTimestamp", "time",
    "lastTransitionTime", "lastUpdateTime", "lastProbeTime",
}
MASKS = [
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"\b10\.200\.\d+\.\d+"), "<ip>"),
    (re.compile(r"kube-api-access-\w{5}"), "kube-api-access-<x>"),
    (re.compile(r"\b3[0-2]\d{3}\b"), "<port>"),
    (re.compile(r"\bcompare-[0-9a-f]{6}\b"), "<space>"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]{20,}"), "<token>"),
    (re.compile(r"\bBad_[a-z0-9]{5}\b"), "Bad_<x>"),
    (re.compile(r"object meta: \d+"), "object meta: <version>"),
    (re.compile(r"in record \(\d+\)"), "in record (<version>)"),
    (re.compile(r'"resourceVersion":"\d+"'), '"resourceVersion":"<version>"'),
    (re.compile(r"X509SHA256=[0-9a-f]+"), "X509SHA256=<hash>"),
    (re.compile(r"^\d+s$"), "<age>"),
    # Where the reference's store keeps an object is nobody's interface.
    (re.compile(r"StorageError: invalid object, Code: 4, Key: \S+, ResourceVersion: 0, "
                r"AdditionalErrorMsg: "), ""),
    # How Go prints its structures, and its library the difference of two, is nobody's interface.
    (re.compile(r"\s*(core\.\w+\{|@@ -).*", re.DOTALL), ""),
    (re.compile(r"( value|entry): (\{.*\}|\[.*\]|\w+\.\w+\{.*\})(?=: |$)"), r"\1: <object>"),
]


class Answer:
    """Status, body (decoded where it is JSON) and warnings of one request."""

    def __init__(self, status, body, warnings):
        self.status = status
        self.body = body
        self.warnings = warnings

    def field(self, *path):
        """The value at the path, or None."""
        value = self.body
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


class Server:
    """One API server, over one connection that is kept open."""

    def __init__(self, url, context):
        self.address = urlsplit(url).netloc
        self.context = context
        self.connection = None

    def ask(self, method, path, body=None, kind=JSON, accept=JSON, headers=None):
        """Sends a request; one that finds its connection gone is sent once more."""
        headers = {"Accept": accept, **(headers or {})}
        if body is not None:
            headers["Content-Type"] = kind
            body = body if isinstance(body, str) else json.dumps(body)
        for last in (False, True):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPSConnection(
                        self.address, context=self.context)
                    self.connection.connect()
                # A watch that nobody ends is as good an answer as any.
                self.connection.sock.settimeout(3 if "watch=" in path else 20)
                self.connection.request(method, path, body and body.encode(), headers)
                response = self.connection.getresponse()
                data = response.read()
                break
            except TimeoutError:
                self.connection = None
                return Answer(0, "no end of the answer", [])
            except (OSError, http.client.HTTPException) as error:
                self.connection = None
                if last:
                    return Answer(0, f"connection ended: {type(error).__name__}", [])
        text = data.decode("utf-8", "replace")
        try:
            text = json.loads(text)
        except ValueError:
            pass
        return Answer(response.status, text, response.headers.get_all("Warning") or [])


class Pair:
    """Evenkeel and the reference, reached with the same credentials."""

    def __init__(self, evenkeel, reference, kubeconfig):
        context = credentials(kubeconfig)
        self.evenkeel = Server(evenkeel, context)
        self.reference = Server(reference, context)
        # A name of this run, so that what an earlier one left behind cannot be met.
        self.space = "compare-" + os.urandom(3).hex()

    def ask(self, method, path, body=None, kind=JSON, accept=JSON, headers=None, other=None):
        """Both answers. `other` is what the reference is sent where it must differ."""
        second = body if other is None else other
        answers = [None, None]

        def send(index, server, content):
            answers[index] = server.ask(method, path, content, kind, accept, headers)

        thread = threading.Thread(target=send, args=(1, self.reference, second))
        thread.start()
        send(0, self.evenkeel, body)
        thread.join()
        return answers


def credentials(kubeconfig):
    """A TLS context with the client certificate of a kubeconfig; it trusts any server."""
    with open(kubeconfig, encoding="utf-8") as file:
        user = yaml.safe_load(file)["users"][0]["user"]
    # The servers are this program's own, on loopback, and only one has a certificate of the CA.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with tempfile.TemporaryDirectory() as folder:
        for name in ("certificate", "key"):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(base64.b64decode(user[f"client-{name}-data"]))
        context.load_cert_chain(os.path.join(folder, "certificate"), os.path.join(folder, "key"))
    return context


def masked(text):
    """The text without what each server makes up for itself."""
    for pattern, name in MASKS:
        text = pattern.sub(name, text)
    return text


def normal(value, depth=0):
    """The answer without what each server makes up for itself."""
    if isinstance(value, dict):
        return {masked(key): settled(key, normal(part, depth + 1)) for key, part in value.items()
                if not (key in OWN and depth < 5)}
    if isinstance(value, list):
        return [normal(part, depth + 1) for part in value]
    if isinstance(value, str):
        return masked(value)
    return value


def settled(key, value):
    """Node ports are allocated at random: any port of their range is as good as another.

    What a table says of its columns is prose. Some lists have whatever order a map of Go had.
    """
    if key in ("causes", "resourceRules", "nonResourceRules") and isinstance(value, list):
        return sorted(value, key=lambda each: json.dumps(each, sort_keys=True))
    if key == "columnDefinitions" and isinstance(value, list):
        return [{name: part for name, part in each.items() if name != "description"}
                for each in value]
    if key in ("nodePort", "healthCheckNodePort") and isinstance(value, int):
        return "<port>" if 30000 <= value <= 32767 else value
    return value
