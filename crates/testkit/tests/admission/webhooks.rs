//! Webhooks: who is asked about what, what their answers do, and what happens when there is none.

use serde_json::{Value, json};

use super::hook::{Hook, patch};
use super::{MERGE_PATCH, open, pod};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/hooked/configmaps";

fn mutating(name: &str, hooks: &[Value]) -> (String, Value) {
    let path = format!("{GROUP}/mutatingwebhookconfigurations");
    (path, json!({"metadata": {"name": name}, "webhooks": hooks}))
}

fn validating(name: &str, hooks: &[Value]) -> (String, Value) {
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    (path, json!({"metadata": {"name": name}, "webhooks": hooks}))
}

fn rule(operations: &[&str], resources: &[&str]) -> Value {
    json!({"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": resources})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

fn allow(_: &Value) -> Value {
    json!({"allowed": true})
}

#[tokio::test]
async fn a_webhook_changes_and_another_refuses_in_the_words_of_the_reference() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    let changer = Hook::start(&["localhost"], |_| {
        let mut answer = patch(&json!([
            {"op": "add", "path": "/metadata/labels", "value": {"touched": "yes"}},
            {"op": "add", "path": "/data/c", "value": "d"},
        ]));
        answer["warnings"] = json!(["labels were added"]);
        answer
    })
    .await;
    let judge = Hook::start(&["localhost"], |request| {
        if request["object"]["data"]["forbidden"].is_null() {
            return json!({"allowed": true});
        }
        json!({"allowed": false, "warnings": ["do not try again"],
            "status": {"code": 403, "message": "not today"}})
    })
    .await;
    let rule = rule(&["CREATE"], &["configmaps"]);
    let (path, body) = mutating("change", &[changer.entry("change.hooks.test", &rule)]);
    admin.post(&path, &body).await.expect(201);
    let (path, body) = validating("judge", &[judge.entry("judge.hooks.test", &rule)]);
    admin.post(&path, &body).await.expect(201);

    let made = admin.post(MAPS, &map("good")).await.expect(201);
    assert_eq!(made.body["metadata"]["labels"]["touched"], "yes");
    assert_eq!(made.body["data"], json!({"a": "b", "c": "d"}));
    assert_eq!(made.warnings, ["299 - \"labels were added\""]);
    let asked = judge.asked.lock()[0].clone();
    assert_eq!(
        asked["object"]["data"]["c"], "d",
        "judges see what was made of it"
    );
    let mut bad = map("bad");
    bad["data"]["forbidden"] = "1".into();
    let refused = admin.post(MAPS, &bad).await.expect(403);
    assert_eq!(
        refused.message(),
        "admission webhook \"judge.hooks.test\" denied the request: not today"
    );
    assert_eq!(
        refused.warnings,
        ["299 - \"labels were added\"", "299 - \"do not try again\""]
    );
    admin.get(&format!("{MAPS}/bad")).await.expect(404);

    let text = admin.get("/metrics").await.expect(200).body;
    let text = text.as_str().unwrap();
    let (webhook, of) = ("apiserver_admission_webhook", "operation=\"CREATE\"");
    for expected in [
        format!("{webhook}_admission_duration_seconds_count{{name=\"change.hooks.test\",{of},rejected=\"false\",type=\"admit\"}} 2\n"),
        format!("{webhook}_request_total{{code=\"403\",name=\"judge.hooks.test\",{of},rejected=\"true\",type=\"validating\"}} 1\n"),
        format!("{webhook}_rejection_count{{error_type=\"no_error\",name=\"judge.hooks.test\",{of},rejection_code=\"403\",type=\"validating\"}} 1\n"),
        format!("apiserver_admission_step_admission_duration_seconds_count{{{of},rejected=\"true\",type=\"validate\"}} 1\n"),
        format!("apiserver_admission_controller_admission_duration_seconds_count{{name=\"LimitRanger\",{of},rejected=\"false\",type=\"admit\"}} "),
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"configmaps\"} ".to_owned(),
        "apiserver_request_sli_duration_seconds_bucket{verb=\"POST\",".to_owned(),
        "apiserver_request_filter_duration_seconds_count{filter=\"authorization\"} ".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected} in\n{text}");
    }
}

#[tokio::test]
async fn a_review_says_who_wants_what() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    let hook = Hook::start(&["localhost"], allow).await;
    let rule = rule(
        &["*"],
        &["configmaps", "deployments/scale", "pods/eviction"],
    );
    let (path, body) = validating("see", &[hook.entry("see.hooks.test", &rule)]);
    admin.post(&path, &body).await.expect(201);
    admin
        .post(&format!("{MAPS}?fieldManager=me&dryRun=All"), &map("m"))
        .await
        .expect(201);
    let asked = hook.asked.lock().pop().unwrap();
    assert_eq!(
        asked["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(
        asked["resource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(asked["requestKind"], asked["kind"]);
    assert_eq!(
        (&asked["operation"], &asked["name"], &asked["namespace"]),
        (&json!("CREATE"), &json!("m"), &json!("hooked"))
    );
    assert_eq!(asked["userInfo"]["username"], "admin");
    assert_eq!(asked["dryRun"], true);
    assert_eq!(asked["oldObject"], Value::Null);
    assert_eq!(
        asked["options"],
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions",
            "fieldManager": "me", "dryRun": ["All"]})
    );
    admin.post(MAPS, &map("m")).await.expect(201);
    admin
        .patch(
            &format!("{MAPS}/m"),
            MERGE_PATCH,
            &json!({"data": {"a": "2"}}),
        )
        .await
        .expect(200);
    let asked = hook.asked.lock().pop().unwrap();
    assert_eq!(asked["operation"], "UPDATE");
    assert_eq!(asked["options"]["kind"], "PatchOptions");
    assert_eq!(asked["object"]["data"]["a"], "2");
    assert_eq!(asked["oldObject"]["data"]["a"], "b");
    admin.delete(&format!("{MAPS}/m"), None).await.expect(200);
    let asked = hook.asked.lock().pop().unwrap();
    assert_eq!(asked["operation"], "DELETE");
    assert_eq!(asked["object"], Value::Null);
    assert_eq!(asked["oldObject"]["data"]["a"], "2");
    assert_eq!(asked["options"]["kind"], "DeleteOptions");

    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/hooked/deployments";
    admin.post(deployments, &deployment).await.expect(201);
    assert!(hook.asked.lock().len() == 1, "only the create of m is left");
    admin
        .patch(
            &format!("{deployments}/web/scale"),
            MERGE_PATCH,
            &json!({"spec": {"replicas": 3}}),
        )
        .await
        .expect(200);
    let asked = hook.asked.lock().pop().unwrap();
    assert_eq!(
        (&asked["subResource"], &asked["object"]["kind"]),
        (&json!("scale"), &json!("Scale"))
    );
    assert_eq!(asked["object"]["spec"]["replicas"], 3);
    assert_eq!(asked["kind"]["group"], "autoscaling");
    assert_eq!(asked["resource"]["resource"], "deployments");

    let pods = "/api/v1/namespaces/hooked/pods";
    admin.post(pods, &pod("p")).await.expect(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": "p", "namespace": "hooked"}});
    admin
        .post(&format!("{pods}/p/eviction"), &eviction)
        .await
        .expect(201);
    let asked = hook.asked.lock().pop().unwrap();
    assert_eq!(
        (&asked["operation"], &asked["object"]["kind"]),
        (&json!("CREATE"), &json!("Eviction"))
    );
}

#[tokio::test]
async fn selectors_and_scope_decide_whether_a_webhook_is_asked() {
    let (_cluster, admin) = open("hooked", &json!({"env": "prod"})).await;
    super::make_namespace(&admin, "other", &json!({})).await;
    let hook = Hook::start(&["localhost"], allow).await;
    let everything = rule(&["CREATE"], &["*"]);
    let mut entry = hook.entry("some.hooks.test", &everything);
    entry["namespaceSelector"] = json!({"matchLabels": {"env": "prod"}});
    entry["objectSelector"] = json!({"matchExpressions": [
        {"key": "seen", "operator": "In", "values": ["yes"]}]});
    entry["rules"][0]["scope"] = "Namespaced".into();
    let (path, body) = validating("some", &[entry]);
    admin.post(&path, &body).await.expect(201);
    admin.post(MAPS, &map("unlabelled")).await.expect(201);
    let mut labelled = map("labelled");
    labelled["metadata"]["labels"] = json!({"seen": "yes"});
    admin
        .post("/api/v1/namespaces/other/configmaps", &labelled)
        .await
        .expect(201);
    let cluster_wide = json!({"metadata": {"name": "r", "labels": {"seen": "yes"}}, "rules": []});
    admin
        .post(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            &cluster_wide,
        )
        .await
        .expect(201);
    assert_eq!(hook.count(), 0);
    admin.post(MAPS, &labelled).await.expect(201);
    assert_eq!(hook.count(), 1);
}

#[tokio::test]
async fn who_wants_to_see_later_changes_is_asked_once_more() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    let count = |request: &Value| {
        let seen = request["object"]["data"]["count"].as_str().unwrap_or("0");
        let next = seen.parse::<u32>().unwrap() + 1;
        patch(&json!([{"op": "add", "path": "/data/count", "value": next.to_string()}]))
    };
    let (wanting, content) = (
        Hook::start(&["localhost"], count).await,
        Hook::start(&["localhost"], count).await,
    );
    let rule = rule(&["CREATE"], &["configmaps"]);
    let mut first = wanting.entry("first.hooks.test", &rule);
    first["reinvocationPolicy"] = "IfNeeded".into();
    let second = content.entry("second.hooks.test", &rule);
    let (path, body) = mutating("both", &[first, second]);
    let made = admin.post(&path, &body).await.expect(201);
    assert_eq!(made.body["webhooks"][1]["reinvocationPolicy"], "Never");
    let made = admin.post(MAPS, &map("counted")).await.expect(201);
    assert_eq!(made.body["data"]["count"], "3");
    assert_eq!((wanting.count(), content.count()), (2, 1));
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_fails_closed_or_open() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    // Taken and not listened on: nobody else gets the port while this test refuses there.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = taken.local_addr().unwrap().port();
    let rule = rule(&["CREATE"], &["configmaps"]);
    let mut gone = json!({
        "name": "gone.hooks.test", "rules": [rule], "sideEffects": "None",
        "clientConfig": {"url": format!("https://127.0.0.1:{port}")},
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
    });
    // Any certificate will do: nobody is there to show one.
    let other = Hook::start(&["localhost"], allow).await;
    gone["clientConfig"]["caBundle"] = other.bundle.clone().into();
    let (path, body) = validating("gone", &[gone.clone()]);
    let made = admin.post(&path, &body).await.expect(201);
    let failed = admin.post(MAPS, &map("m")).await.expect(500);
    assert_eq!(
        failed.message(),
        format!(
            "Internal error occurred: failed calling webhook \"gone.hooks.test\": failed to call \
             webhook: Post \"https://127.0.0.1:{port}/?timeout=5s\": dial tcp 127.0.0.1:{port}: \
             connect: connection refused"
        )
    );
    assert_eq!(failed.reason(), "InternalError");
    let mut open = made.body;
    open["webhooks"][0]["failurePolicy"] = "Ignore".into();
    admin.put(&format!("{path}/gone"), &open).await.expect(200);
    admin.post(MAPS, &map("m")).await.expect(201);
}

#[tokio::test]
async fn answers_that_are_none_are_told_as_the_reference_tells_them() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    let rule = rule(&["CREATE"], &["configmaps"]);
    let odd = Hook::start(
        &["localhost"],
        |request| match request["object"]["metadata"]["name"].as_str().unwrap() {
            "broken" => json!({"http": 500, "text": "out of order\n"}),
            "missing" => json!({"http": 404}),
            "foreign" => json!({"allowed": true, "uid": "1"}),
            "patching" => json!({"allowed": true, "patch": "W10="}),
            "silent" => json!({"allowed": false}),
            "reasoned" => json!({"allowed": false, "status": {"reason": "Because"}}),
            _ => json!({"hang": true}),
        },
    )
    .await;
    let mut entry = odd.entry("odd.hooks.test", &rule);
    entry["timeoutSeconds"] = 1.into();
    let (path, body) = validating("odd", &[entry]);
    admin.post(&path, &body).await.expect(201);
    let calling = "Internal error occurred: failed calling webhook \"odd.hooks.test\": ";
    let url = format!("https://localhost:{}/review?timeout=1s", odd.port);
    let denied = "admission webhook \"odd.hooks.test\" denied the request";
    let cases = [
        (
            "broken",
            500,
            format!(
                "{calling}failed to call webhook: an error on the server (\"out of order\") has \
                 prevented the request from succeeding"
            ),
        ),
        (
            "missing",
            500,
            format!(
                "{calling}failed to call webhook: the server could not find the requested \
                     resource"
            ),
        ),
        (
            "patching",
            500,
            format!(
                "{calling}received invalid webhook response: validating webhook may not return \
                 response.patch"
            ),
        ),
        ("silent", 400, format!("{denied} without explanation")),
        ("reasoned", 400, format!("{denied}: Because")),
        (
            "hanging",
            500,
            format!("{calling}failed to call webhook: Post \"{url}\": context deadline exceeded"),
        ),
    ];
    for (name, code, message) in cases {
        let refused = admin.post(MAPS, &map(name)).await.expect(code);
        assert_eq!(refused.message(), message, "{name}");
    }
    let foreign = admin.post(MAPS, &map("foreign")).await.expect(500);
    let wanted = format!("{calling}received invalid webhook response: expected response.uid=");
    assert!(
        foreign.message().starts_with(&wanted),
        "{}",
        foreign.message()
    );
}

#[tokio::test]
async fn a_service_is_reached_at_its_endpoints_and_must_prove_its_name() {
    let (cluster, admin) = open("hooked", &json!({})).await;
    let hook = Hook::start(&["judge.hooked.svc"], allow).await;
    let stranger = Hook::start(&["judge.hooked.svc"], allow).await;
    let mut entry = hook.entry("svc.hooks.test", &rule(&["CREATE"], &["configmaps"]));
    entry["clientConfig"] = json!({"caBundle": hook.bundle,
        "service": {"namespace": "hooked", "name": "judge", "path": "/judge"}});
    let (path, body) = validating("svc", &[entry]);
    let made = admin.post(&path, &body).await.expect(201);
    assert_eq!(
        made.body["webhooks"][0]["clientConfig"]["service"]["port"],
        443
    );
    let failing = |why: &str| {
        format!(
            "Internal error occurred: failed calling webhook \"svc.hooks.test\": failed to call \
             webhook: Post \"https://judge.hooked.svc:443/judge?timeout=10s\": {why}"
        )
    };
    let refused = admin.post(MAPS, &map("m")).await.expect(500);
    assert_eq!(refused.message(), failing("service \"judge\" not found"));
    let service = json!({"metadata": {"name": "judge"},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}});
    admin
        .post("/api/v1/namespaces/hooked/services", &service)
        .await
        .expect(201);
    let refused = admin.post(MAPS, &map("m")).await.expect(500);
    assert_eq!(
        refused.message(),
        failing("no endpoints available for service \"judge\"")
    );
    // The API refuses endpoints on loopback, where the test's server is.
    let slice = |port: u16| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "judge-1", "namespace": "hooked",
                "labels": {"kubernetes.io/service-name": "judge"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
    };
    let door = cluster.the_door();
    let rows = door.rows();
    let row = rows
        .by_kind("discovery.k8s.io", "v1", "EndpointSlice")
        .unwrap();
    let registry = door.registry();
    let written = registry
        .create(row, slice(stranger.port))
        .await
        .unwrap()
        .unwrap();
    let refused = admin.post(MAPS, &map("m")).await.expect(500);
    assert_eq!(
        refused.message(),
        failing("tls: failed to verify certificate: x509: certificate signed by unknown authority")
    );
    registry
        .replace(row, &written, slice(hook.port))
        .await
        .unwrap();
    admin.post(MAPS, &map("m")).await.expect(201);
    assert_eq!((hook.count(), stranger.count()), (1, 0));
}

#[tokio::test]
async fn a_webhook_that_refuses_everything_can_be_removed() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    let wall = Hook::start(&["localhost"], |_| json!({"allowed": false})).await;
    let (path, body) = validating(
        "wall",
        &[wall.entry("wall.hooks.test", &rule(&["*"], &["*/*"]))],
    );
    admin.post(&path, &body).await.expect(201);
    admin.post(MAPS, &map("m")).await.expect(400);
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    admin
        .post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &review,
        )
        .await
        .expect(201);
    admin
        .delete(&format!("{path}/wall"), None)
        .await
        .expect(200);
    admin.post(MAPS, &map("m")).await.expect(201);
}

#[tokio::test]
async fn configurations_are_checked_in_the_words_of_the_reference() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    let wrong = json!({"name": "short", "rules": [
            {"operations": ["*", "CREATE", "READ"], "apiGroups": [], "apiVersions": [""],
                "resources": ["pods/*", "pods/log", "*", "pods"], "scope": "Here"}],
        "clientConfig": {"url": "http://u@h/p?q#f"}, "timeoutSeconds": 31,
        "admissionReviewVersions": ["v2", "v2"], "failurePolicy": "Maybe"});
    let (path, body) = validating("wrong", &[wrong]);
    let refused = admin.post(&path, &body).await.expect(422);
    let causes: Vec<String> = refused.body["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| {
            let text = |name: &str| cause[name].as_str().unwrap().to_owned();
            format!("{}: {}", text("field"), text("message"))
        })
        .collect();
    assert_eq!(
        causes,
        [
            "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three \
             segments separated by dots",
            "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\",\"READ\"]: if '*' \
             is present, must not specify other operations",
            "webhooks[0].rules[0].operations[2]: Unsupported value: \"READ\": supported values: \
             \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            "webhooks[0].rules[0].apiGroups: Required value",
            "webhooks[0].rules[0].apiVersions[0]: Required value",
            "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is \
             present, must not specify pods/log",
            "webhooks[0].rules[0].resources: Invalid value: [\"pods/*\",\"pods/log\",\"*\",\
             \"pods\"]: if '*' is present, must not specify other resources without subresources",
            "webhooks[0].rules[0].scope: Unsupported value: \"Here\": supported values: \"*\", \
             \"Cluster\", \"Namespaced\"",
            "webhooks[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \
             \"Ignore\"",
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 \
             and 30 seconds",
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed \
             URL scheme; desired format: https://host[/path]",
            "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not \
             permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in \
             the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not \
             permitted in the URL",
            "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
            "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at \
             least one of v1, v1beta1",
        ]
    );
}

#[tokio::test]
async fn match_conditions_decide_whether_a_webhook_is_asked() {
    let (cluster, admin) = open("hooked", &json!({})).await;
    let hook = Hook::start(&["localhost"], |_| json!({"allowed": false})).await;
    let conditioned = |expressions: &[&str]| {
        let mut entry = hook.entry("if.hooks.test", &rule(&["*"], &["configmaps"]));
        entry["matchConditions"] = expressions
            .iter()
            .enumerate()
            .map(|(index, text)| json!({"name": format!("c{index}"), "expression": text}))
            .collect();
        validating("if", &[entry])
    };
    let (path, body) = conditioned(&["request.nothing == 1", "1 + 1"]);
    let refused = admin.post(&path, &body).await.expect(422);
    let told = refused.message();
    assert!(
        told.contains("webhooks[0].matchConditions[0].expression: Invalid value")
            && told.contains("compilation failed: ERROR: <input>:1:8: undefined field 'nothing'")
            && told.contains("must evaluate to bool"),
        "{told}"
    );
    let (path, body) = conditioned(&[
        "object.metadata.name.startsWith('guarded')",
        "!authorizer.group('').resource('nodes').check('delete').allowed() || \
         request.userInfo.username == 'admin'",
    ]);
    let made = admin.post(&path, &body).await.expect(201);
    admin.post(MAPS, &map("open")).await.expect(201);
    admin.post(MAPS, &map("guarded")).await.expect(400);
    assert_eq!(hook.count(), 1);
    let other = cluster.caller(evenkeel_server::Identity::user(
        "other",
        &[evenkeel_testkit::ADMIN],
    ));
    other.post(MAPS, &map("guarded")).await.expect(201);
    let mut failing = made.body;
    failing["webhooks"][0]["matchConditions"] =
        json!([{"name": "c", "expression": "object.data.missing == 'x'"}]);
    let changed = admin.put(&format!("{path}/if"), &failing).await.expect(200);
    let refused = admin.post(MAPS, &map("m")).await.expect(403);
    assert_eq!(
        refused.message(),
        "configmaps \"m\" is forbidden: expression 'object.data.missing == 'x'' resulted in \
         error: no such key: missing"
    );
    let mut open = changed.body;
    open["webhooks"][0]["failurePolicy"] = "Ignore".into();
    admin.put(&format!("{path}/if"), &open).await.expect(200);
    admin.post(MAPS, &map("m")).await.expect(201);
    let text = admin.get("/metrics").await.expect(200).body;
    let of = "kind=\"webhook\",name=\"if.hooks.test\",operation=\"CREATE\",type=\"validate\"";
    let conditions = "apiserver_admission_match_condition";
    for expected in [
        format!("{conditions}_exclusions_total{{{of}}} 2\n"),
        format!("{conditions}_evaluation_errors_total{{{of}}} 2\n"),
        format!("{conditions}_evaluation_seconds_count{{{of}}} 5\n"),
    ] {
        assert!(text.as_str().unwrap().contains(&expected), "{expected}");
    }
}

#[tokio::test]
async fn certificates_without_names_are_counted() {
    let (_cluster, admin) = open("hooked", &json!({})).await;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "localhost");
    let hook = Hook::with(params, allow).await;
    let rule = rule(&["CREATE"], &["configmaps"]);
    let (path, body) = validating("old", &[hook.entry("old.hooks.test", &rule)]);
    admin.post(&path, &body).await.expect(201);
    let missing = |text: &Value, count: u32| {
        let wanted = format!("apiserver_webhooks_x509_missing_san_total{{}} {count}\n");
        assert!(text.as_str().unwrap().contains(&wanted), "{wanted}");
    };
    missing(&admin.get("/metrics").await.expect(200).body, 0);
    admin.post(MAPS, &map("m")).await.expect(500);
    assert_eq!(hook.count(), 0);
    let text = admin.get("/metrics").await.expect(200).body;
    missing(&text, 1);
    let sha1 = "apiserver_webhooks_x509_insecure_sha1_total{} 0\n";
    assert!(text.as_str().unwrap().contains(sha1));
}
