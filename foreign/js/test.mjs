// The JavaScript client against a live cluster. Usage: node test.mjs KUBECONFIG

import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import * as k8s from "@kubernetes/client-node";

const SPACE = "javascript";
const BOUND = 90_000;

const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const namespace = SPACE;

async function until(what, question) {
  const end = Date.now() + BOUND;
  while (Date.now() < end) {
    const answer = await question();
    if (answer) return answer;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`never happened: ${what}`);
}

function within(what, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`never happened: ${what}`)), BOUND);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function refused(code, promise) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.code, code);
    return error;
  }
  throw new Error("it was not refused");
}

const map = (name, value) => ({
  metadata: { name, labels: { js: "yes" } },
  data: { key: value },
});

async function typed() {
  await core.createNamespace({ body: { metadata: { name: SPACE } } });
  await until("the account", async () => {
    const { items } = await core.listNamespacedServiceAccount({ namespace });
    return items.some((each) => each.metadata.name === "default");
  });
  const made = await core.createNamespacedConfigMap({ namespace, body: map("a", "1") });
  assert.ok(made.metadata.creationTimestamp instanceof Date);
  await refused(409, core.createNamespacedConfigMap({ namespace, body: map("a", "1") }));
  await refused(422, core.createNamespacedConfigMap({ namespace, body: map("A_", "1") }));
  made.data.key = "2";
  const replaced = await core.replaceNamespacedConfigMap({ name: "a", namespace, body: made });
  assert.equal(replaced.data.key, "2");
  await refused(409, core.replaceNamespacedConfigMap({ name: "a", namespace, body: made }));
  const patched = await core.patchNamespacedConfigMap({
    name: "a", namespace, body: [{ op: "add", path: "/data/other", value: "3" }],
  });
  assert.deepEqual(patched.data, { key: "2", other: "3" });
  await refused(404, core.readNamespacedConfigMap({ name: "nobody", namespace }));
}

async function objects() {
  const client = k8s.KubernetesObjectApi.makeApiClient(config);
  const object = {
    apiVersion: "v1", kind: "ConfigMap", metadata: { name: "applied", namespace },
    data: { key: "1" },
  };
  const apply = (manager, force) =>
    client.patch(object, undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
  await apply("one");
  object.data.key = "2";
  const conflict = await refused(409, apply("two"));
  assert.match(JSON.stringify(conflict.body), /conflict with .*one/);
  assert.equal((await apply("two", true)).data.key, "2");
  await client.delete(object);
}

async function informed() {
  const list = () => core.listNamespacedConfigMap({ namespace });
  const path = `/api/v1/namespaces/${SPACE}/configmaps`;
  const informer = k8s.makeInformer(config, path, list);
  const seen = [];
  for (const event of ["add", "update", "delete"]) {
    informer.on(event, (object) => {
      if (object.metadata.name === "seen") seen.push(event);
    });
  }
  informer.on("error", (error) => seen.push(`error ${error}`));
  await informer.start();
  await core.createNamespacedConfigMap({ namespace, body: map("seen", "1") });
  await until("it is added", () => seen.includes("add"));
  await core.patchNamespacedConfigMap({
    name: "seen", namespace, body: [{ op: "replace", path: "/data/key", value: "2" }],
  });
  await until("it is updated", () => seen.includes("update"));
  await core.deleteNamespacedConfigMap({ name: "seen", namespace });
  await until("it is deleted", () => seen.includes("delete"));
  assert.deepEqual(seen, ["add", "update", "delete"]);
  await informer.stop();
}

async function pods() {
  const labels = { app: "web" };
  await apps.createNamespacedDeployment({
    namespace,
    body: {
      metadata: { name: "web" },
      spec: {
        replicas: 1, selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            terminationGracePeriodSeconds: 1,
            containers: [{
              name: "web", image: "busybox:test",
              command: ["sh", "-c", "echo started; mkdir /www; echo hello >/www/index.html;" +
                " exec httpd -f -p 8080 -h /www"],
              readinessProbe: { httpGet: { port: 8080 }, periodSeconds: 1 },
            }],
          },
        },
      },
    },
  });
  await until("it is ready", async () => {
    const now = await apps.readNamespacedDeployment({ name: "web", namespace });
    return now.status.readyReplicas === 1;
  });
  const { items } = await core.listNamespacedPod({ namespace, labelSelector: "app=web" });
  const name = items[0].metadata.name;
  assert.equal(await core.readNamespacedPodLog({ name, namespace }), "started\n");

  const followed = new PassThrough();
  const line = new Promise((done) => followed.once("data", (data) => done(String(data))));
  const stop = await new k8s.Log(config).log(SPACE, name, "web", followed, { follow: true });
  assert.equal(await within("a line", line), "started\n");
  stop.abort();

  const [out, err] = [new PassThrough(), new PassThrough()];
  const status = new Promise((done, fail) => {
    new k8s.Exec(config)
      .exec(SPACE, name, "web", ["sh", "-c", "echo out; echo err >&2; exit 3"], out, err, null,
        false, done)
      .catch(fail);
  });
  const told = await within("the program ends", status);
  assert.equal(told.reason, "NonZeroExitCode");
  assert.equal(String(out.read()), "out\n");
  assert.equal(String(err.read()), "err\n");

  const [input, output] = [new PassThrough(), new PassThrough()];
  const answer = new Promise((done) => {
    let text = "";
    output.on("data", (data) => {
      text += data;
      if (text.endsWith("hello\n")) done(text);
    });
  });
  const socket = await new k8s.PortForward(config).portForward(SPACE, name, [8080], output, null, input);
  input.write("GET / HTTP/1.0\r\n\r\n");
  assert.match(await within("an answer", answer), /200 OK/);
  (typeof socket === "function" ? socket() : socket)?.close();
}

async function gone() {
  await core.deleteNamespace({ name: SPACE });
  await until("the namespace is gone", () =>
    core.readNamespace({ name: SPACE }).then(() => false, (error) => error.code === 404));
}

for (const check of [typed, objects, informed, pods, gone]) {
  console.log(check.name);
  await check();
}
console.log("all good");
process.exit(0);
