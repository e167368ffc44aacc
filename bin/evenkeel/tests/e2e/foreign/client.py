"""The Python client against a live cluster: typed, dynamic, streams, watches.

Usage: client.py KUBECONFIG. Every check says its name before it runs; the first that fails ends
the program with a traceback. Waits poll a condition with a bound.
"""

import json
import sys
import threading
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

SPACE = "python"
BOUND = 90

config.load_kube_config(config_file=sys.argv[1])
api = client.ApiClient()
core = client.CoreV1Api(api)
apps = client.AppsV1Api(api)


def until(what, question):
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"never happened: {what}")


def refused(code, reason, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code, error
        assert f'"reason":"{reason}"' in error.body, error.body
        return error
    raise AssertionError(f"{call} was not refused")


def discovery():
    version = client.VersionApi(api).get_code()
    assert version.major == "1" and int(version.minor) >= 37, version
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups
    names = {resource.name for resource in core.get_api_resources().resources}
    assert {"pods", "pods/exec", "configmaps"} <= names, names


def typed():
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE)))
    until("the account", lambda: [
        each for each in core.list_namespaced_service_account(SPACE).items
        if each.metadata.name == "default"])
    made = core.create_namespaced_config_map(SPACE, client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name="a", labels={"k": "v"}), data={"x": "1"}))
    assert made.metadata.uid and made.metadata.creation_timestamp
    refused(409, "AlreadyExists", core.create_namespaced_config_map, SPACE, made_of("a"))
    made.data["x"] = "2"
    replaced = core.replace_namespaced_config_map("a", SPACE, made)
    assert replaced.data == {"x": "2"}
    refused(409, "Conflict", core.replace_namespaced_config_map, "a", SPACE, made)
    # The client sends a dict as a strategic merge patch, and a list as a JSON patch.
    patched = core.patch_namespaced_config_map("a", SPACE, {"data": {"x": None, "y": "3"}})
    assert patched.data == {"y": "3"}, patched.data
    patched = core.patch_namespaced_config_map(
        "a", SPACE, [{"op": "add", "path": "/data/z", "value": "4"}])
    assert patched.data == {"y": "3", "z": "4"}, patched.data
    refused(404, "NotFound", core.read_namespaced_config_map, "nobody", SPACE)
    error = refused(422, "Invalid", core.create_namespaced_config_map, SPACE, made_of("A_"))
    assert "metadata.name" in error.body
    dry = core.create_namespaced_config_map(SPACE, made_of("dry"), dry_run="All")
    assert dry.metadata.uid
    refused(404, "NotFound", core.read_namespaced_config_map, "dry", SPACE)


def made_of(name, **kwargs):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, **kwargs))


def pages():
    for number in range(7):
        core.create_namespaced_config_map(SPACE, made_of(f"page-{number}", labels={"page": "y"}))
    found, token, rounds = [], None, 0
    while True:
        page = core.list_namespaced_config_map(
            SPACE, label_selector="page=y", limit=3, _continue=token)
        found += [each.metadata.name for each in page.items]
        token, rounds = page.metadata._continue, rounds + 1
        if not token:
            break
    assert found == [f"page-{number}" for number in range(7)] and rounds == 3, (found, rounds)
    one = core.list_namespaced_config_map(SPACE, field_selector="metadata.name=page-2")
    assert [each.metadata.name for each in one.items] == ["page-2"]
    core.delete_collection_namespaced_config_map(SPACE, label_selector="page in (y)")
    assert not core.list_namespaced_config_map(SPACE, label_selector="page").items


def watched():
    start = core.list_namespaced_config_map(SPACE).metadata.resource_version
    core.create_namespaced_config_map(SPACE, made_of("w", labels={"w": "1"}))
    core.patch_namespaced_config_map("w", SPACE, {"data": {"a": "b"}})
    core.patch_namespaced_config_map("w", SPACE, {"metadata": {"labels": {"w": "2"}}})
    core.delete_namespaced_config_map("w", SPACE)
    seen, watcher = [], watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, SPACE, label_selector="w=1",
                                resource_version=start, timeout_seconds=BOUND):
        assert isinstance(event["object"], client.V1ConfigMap)
        seen.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == ["ADDED", "MODIFIED", "DELETED"], seen
    try:
        for _ in watch.Watch().stream(core.list_namespaced_config_map, SPACE,
                                      resource_version="99999999999", timeout_seconds=5):
            raise AssertionError("a watch from the future began")
    except ApiException as error:
        assert error.status in (410, 504), error


def dynamically():
    every = dynamic.DynamicClient(api)
    maps = every.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"},
            "data": {"a": "1"}}
    def apply(manager):
        # This version sends a body of that type as it is given.
        return every.patch(maps, body=json.dumps(body), name="applied", namespace=SPACE,
                           content_type="application/apply-patch+yaml", field_manager=manager)

    one = apply("one")
    assert one.metadata.managedFields[0].operation == "Apply"
    body["data"]["a"] = "2"
    try:
        apply("two")
        raise AssertionError("a conflict was not told")
    except dynamic.exceptions.ConflictError as error:
        assert b'conflict with \\"one\\"' in error.body, error.body
    # The dynamic client of this version knows nothing of force.
    forced = api.call_api(
        f"/api/v1/namespaces/{SPACE}/configmaps/applied", "PATCH", body=json.dumps(body),
        query_params=[("fieldManager", "two"), ("force", "true")],
        header_params={"Content-Type": "application/apply-patch+yaml"},
        response_type="V1ConfigMap", _return_http_data_only=True)
    assert forced.data["a"] == "2"

    crds = every.resources.get(api_version="apiextensions.k8s.io/v1",
                               kind="CustomResourceDefinition")
    crds.create(body={
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.python.example.com"},
        "spec": {"group": "python.example.com", "scope": "Namespaced",
                 "names": {"plural": "boats", "kind": "Boat"},
                 "versions": [{"name": "v1", "served": True, "storage": True,
                               "subresources": {"status": {}, "scale": {
                                   "specReplicasPath": ".spec.oars",
                                   "statusReplicasPath": ".status.oars"}},
                               "schema": {"openAPIV3Schema": {
                                   "type": "object", "properties": {
                                       "spec": {"type": "object", "properties": {
                                           "oars": {"type": "integer", "minimum": 0}}},
                                       "status": {"type": "object", "properties": {
                                           "oars": {"type": "integer"}}}}}}}]}})
    def established():
        conditions = crds.get(name="boats.python.example.com").to_dict() \
            .get("status", {}).get("conditions") or []
        return [each for each in conditions
                if each["type"] == "Established" and each["status"] == "True"]
    until("the definition is established", established)
    every.resources.invalidate_cache()
    boats = every.resources.get(api_version="python.example.com/v1", kind="Boat")
    boat = {"apiVersion": "python.example.com/v1", "kind": "Boat",
            "metadata": {"name": "b"}, "spec": {"oars": 2}}
    assert boats.create(body=boat, namespace=SPACE).spec.oars == 2
    custom = client.CustomObjectsApi(api)
    where = ("python.example.com", "v1", SPACE, "boats", "b")
    scale = custom.get_namespaced_custom_object_scale(*where)
    assert scale["spec"]["replicas"] == 2, scale
    try:
        custom.patch_namespaced_custom_object(*where, {"spec": {"oars": -1}})
        raise AssertionError("what the schema forbids was taken")
    except ApiException as error:
        assert error.status == 422 and "should be greater than or equal to 0" in error.body
    names = [event["object"].metadata.name for event in
             boats.watch(namespace=SPACE, timeout=2)]
    assert names == ["b"], names
    boats.delete(name="b", namespace=SPACE)
    crds.delete(name="boats.python.example.com")


def from_yaml():
    utils.create_from_yaml(api, yaml_objects=[
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
         "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
         "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
             "metadata": {"labels": {"app": "web"}},
             "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                 "name": "web", "image": "busybox:test",
                 "command": ["sh", "-c", "echo started; mkdir -p /www; echo hello > /www/index.html;"
                             " exec httpd -f -p 8080 -h /www"],
                 "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1}}]}}}},
    ], namespace=SPACE)
    until("the deployment is ready", lambda: apps.read_namespaced_deployment_status(
        "web", SPACE).status.ready_replicas == 1)
    scale = apps.read_namespaced_deployment_scale("web", SPACE)
    assert scale.status.selector == "app=web" and scale.spec.replicas == 1


def pod():
    return core.list_namespaced_pod(SPACE, label_selector="app=web").items[0].metadata.name


def streams():
    name = pod()
    assert core.read_namespaced_pod_log(name, SPACE) == "started\n"
    out = stream(core.connect_get_namespaced_pod_exec, name, SPACE,
                 command=["sh", "-c", "echo out; echo err >&2"],
                 stderr=True, stdin=False, stdout=True, tty=False)
    assert sorted(out.split()) == ["err", "out"], out
    shell = stream(core.connect_get_namespaced_pod_exec, name, SPACE, command=["sh"],
                   stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False)
    shell.write_stdin("echo $((6 * 7)); exit 3\n")
    shell.run_forever(timeout=BOUND)
    assert shell.read_stdout() == "42\n"
    assert shell.returncode == 3, shell.returncode
    forward = portforward(core.connect_get_namespaced_pod_portforward, name, SPACE, ports="8080")
    socket = forward.socket(8080)
    socket.settimeout(BOUND)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while not answer.endswith(b"hello\n"):
        piece = socket.recv(4096)
        assert piece, answer
        answer += piece
    socket.close()
    assert forward.error(8080) is None
    assert core.connect_get_namespaced_service_proxy("web:80", SPACE) == "hello\n"


def followed():
    lines = watch.Watch().stream(core.read_namespaced_pod_log, name=pod(), namespace=SPACE)
    assert next(lines) == "started"


def evicted():
    policy = client.PolicyV1Api(api)
    policy.create_namespaced_pod_disruption_budget(SPACE, client.V1PodDisruptionBudget(
        metadata=client.V1ObjectMeta(name="web"), spec=client.V1PodDisruptionBudgetSpec(
            min_available=1, selector=client.V1LabelSelector(match_labels={"app": "web"}))))
    until("the budget is counted", lambda: policy.read_namespaced_pod_disruption_budget(
        "web", SPACE).status.current_healthy == 1)
    name = pod()
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name=name, namespace=SPACE))
    refused(429, "TooManyRequests", core.create_namespaced_pod_eviction, name, SPACE, eviction)


def elected():
    led = threading.Event()
    lock = ConfigMapLock("leader", SPACE, "me")
    setup = electionconfig.Config(lock, lease_duration=17, renew_deadline=15, retry_period=5,
                                  onstarted_leading=led.set, onstopped_leading=None)
    threading.Thread(target=leaderelection.LeaderElection(setup).run, daemon=True).start()
    assert led.wait(BOUND), "nobody leads"


def gone():
    core.delete_namespace(SPACE)
    def absent():
        try:
            core.read_namespace(SPACE)
        except ApiException as error:
            return error.status == 404
    until("the namespace is gone", absent)


for check in (discovery, typed, pages, watched, dynamically, from_yaml, streams, followed,
              evicted, elected, gone):
    print(check.__name__, flush=True)
    check()
print("all good", flush=True)
