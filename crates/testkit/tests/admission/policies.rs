//! Admission policies: who is refused, warned or changed, and in which words.

use evenkeel_server::Identity;
use evenkeel_testkit::Caller;
use serde_json::{Value, json};

use super::{MERGE_PATCH, make_namespace, open};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ruled/deployments";
const MAPS: &str = "/api/v1/namespaces/ruled/configmaps";

fn rules(groups: &[&str], resources: &[&str]) -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": groups,
        "apiVersions": ["v1"], "resources": resources}]})
}

async fn policy(admin: &Caller, name: &str, spec: Value) {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    admin
        .post(&format!("{GROUP}/validatingadmissionpolicies"), &body)
        .await
        .expect(201);
}

async fn bind(admin: &Caller, name: &str, policy: &str, mut spec: Value) {
    spec["policyName"] = policy.into();
    if spec.get("validationActions").is_none() {
        spec["validationActions"] = json!(["Deny"]);
    }
    let body = json!({"metadata": {"name": name}, "spec": spec});
    admin
        .post(&format!("{GROUP}/validatingadmissionpolicybindings"), &body)
        .await
        .expect(201);
}

async fn mutating(admin: &Caller, name: &str, spec: Value) {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    admin
        .post(&format!("{GROUP}/mutatingadmissionpolicies"), &body)
        .await
        .expect(201);
    let body = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    admin
        .post(&format!("{GROUP}/mutatingadmissionpolicybindings"), &body)
        .await
        .expect(201);
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    }})
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_bound_policy_refuses_in_the_words_of_the_reference() {
    let (_cluster, admin) = open("ruled", &json!({})).await;
    let spec = json!({
        "matchConstraints": rules(&["apps"], &["deployments"]),
        "validations": [{"expression": "object.spec.replicas <= 5"}],
    });
    policy(&admin, "replicas", spec).await;
    // What is not bound does nothing.
    admin
        .post(DEPLOYMENTS, &deployment("free", 9))
        .await
        .expect(201);
    bind(&admin, "replicas-everywhere", "replicas", json!({})).await;
    let refused = admin
        .post(DEPLOYMENTS, &deployment("many", 9))
        .await
        .expect(422);
    assert_eq!(
        refused.message(),
        "deployments.apps \"many\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding \
         'replicas-everywhere' denied request: failed expression: object.spec.replicas <= 5"
    );
    assert_eq!(refused.reason(), "Invalid");
    admin
        .post(DEPLOYMENTS, &deployment("few", 5))
        .await
        .expect(201);
    let more = json!({"spec": {"replicas": 6}});
    let path = format!("{DEPLOYMENTS}/few");
    admin.patch(&path, MERGE_PATCH, &more).await.expect(422);
    // The scale is another resource, and no rule speaks of it.
    let path = format!("{DEPLOYMENTS}/few/scale");
    admin.patch(&path, MERGE_PATCH, &more).await.expect(200);
    counted(
        &admin,
        "apiserver_validating_admission_policy_check_total{enforcement_action=\"deny\",\
         error_type=\"no_error\",policy=\"replicas\",policy_binding=\"replicas-everywhere\"} 2\n",
    )
    .await;
    let events =
        "apiserver_storage_events_received_total{group=\"apps\",resource=\"deployments\"} ";
    counted(&admin, events).await;
}

/// The beginning of a line of the metrics.
async fn counted(admin: &Caller, line: &str) {
    let text = admin.get("/metrics").await.expect(200).body;
    let text = text.as_str().unwrap();
    let name = line.split('{').next().unwrap();
    let found: Vec<&str> = text.lines().filter(|it| it.starts_with(name)).collect();
    assert!(text.contains(line), "{line} is not in {found:#?}");
}

#[tokio::test]
async fn messages_reasons_variables_and_conditions() {
    let (_cluster, admin) = open("ruled", &json!({"tier": "gold"})).await;
    let spec = json!({
        "matchConstraints": rules(&[""], &["configmaps"]),
        "matchConditions": [
            {"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"},
            {"name": "in-gold", "expression": "namespaceObject.metadata.labels.tier == 'gold'"},
        ],
        "variables": [
            {"name": "data", "expression": "has(object.data) ? object.data : {}"},
            {"name": "keys", "expression": "variables.data.map(k, k)"},
        ],
        "validations": [
            {"expression": "variables.keys.all(k, k.size() < 5)", "reason": "Forbidden",
             "messageExpression": "'long keys: ' + variables.keys.filter(k, k.size() >= 5).join(', ')"},
            {"expression": "variables.data.size() < 3", "message": "too much data"},
            {"expression": "request.userInfo.username != 'mallory'", "message": "not you"},
        ],
    });
    policy(&admin, "data", spec).await;
    bind(&admin, "data", "data", json!({})).await;
    let long = map("long", json!({"a": "", "abcdef": "", "ghijkl": ""}));
    let refused = admin.post(MAPS, &long).await.expect(403);
    assert_eq!(
        refused.message(),
        "configmaps \"long\" is forbidden: ValidatingAdmissionPolicy 'data' with binding 'data' denied \
         request: long keys: abcdef, ghijkl"
    );
    assert_eq!(refused.reason(), "Forbidden");
    let many = map("many", json!({"a": "", "b": "", "c": ""}));
    let refused = admin.post(MAPS, &many).await.expect(422);
    assert!(
        refused.message().ends_with("denied request: too much data"),
        "{}",
        refused.message()
    );
    let exempt = map("exempt-many", json!({"a": "", "b": "", "c": ""}));
    admin.post(MAPS, &exempt).await.expect(201);
    make_namespace(&admin, "silver", &json!({"tier": "silver"})).await;
    admin
        .post("/api/v1/namespaces/silver/configmaps", &many)
        .await
        .expect(201);
}

#[tokio::test]
async fn warnings_audit_and_failures() {
    let (_cluster, admin) = open("ruled", &json!({})).await;
    let spec = json!({
        "matchConstraints": rules(&[""], &["configmaps"]),
        "validations": [{"expression": "object.data.must == 'be'", "message": "must be"}],
    });
    policy(&admin, "must", spec.clone()).await;
    bind(
        &admin,
        "warn",
        "must",
        json!({"validationActions": ["Warn", "Audit"]}),
    )
    .await;
    let made = admin
        .post(MAPS, &map("a", json!({"must": "not"})))
        .await
        .expect(201);
    let wanted = "299 - \"Validation failed for ValidatingAdmissionPolicy 'must' with binding \
                  'warn': must be\"";
    assert_eq!(made.warnings, [wanted]);
    // A rule that can't be evaluated refuses, unless failures are to be ignored.
    policy(&admin, "strict", spec.clone()).await;
    bind(&admin, "strict", "strict", json!({})).await;
    let refused = admin
        .post(MAPS, &map("b", json!({"other": ""})))
        .await
        .expect(422);
    assert_eq!(
        refused.message(),
        "configmaps \"b\" is forbidden: ValidatingAdmissionPolicy 'strict' with binding 'strict' denied \
         request: expression 'object.data.must == 'be'' resulted in error: no such key: must"
    );
    let path = format!("{GROUP}/validatingadmissionpolicies/strict");
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    admin.patch(&path, MERGE_PATCH, &ignore).await.expect(200);
    admin
        .post(MAPS, &map("b", json!({"other": ""})))
        .await
        .expect(201);
    admin
        .post(MAPS, &map("c", json!({"must": "not"})))
        .await
        .expect(422);
}

#[tokio::test]
async fn parameters_come_from_objects() {
    let (_cluster, admin) = open("ruled", &json!({})).await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": rules(&["apps"], &["deployments"]),
        "validations": [{"expression": "object.spec.replicas <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most"}],
    });
    policy(&admin, "most", spec).await;
    let by_name = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    bind(&admin, "by-name", "most", by_name).await;
    let refused = admin
        .post(DEPLOYMENTS, &deployment("d", 3))
        .await
        .expect(422);
    assert!(
        refused.message().ends_with(
            "failed to configure binding: no params found for policy binding with `Deny` \
             parameterNotFoundAction"
        ),
        "{}",
        refused.message()
    );
    admin
        .post(MAPS, &map("limits", json!({"most": "2"})))
        .await
        .expect(201);
    let refused = admin
        .post(DEPLOYMENTS, &deployment("d", 3))
        .await
        .expect(422);
    assert!(
        refused.message().ends_with("denied request: at most 2"),
        "{}",
        refused.message()
    );
    admin
        .post(DEPLOYMENTS, &deployment("d", 2))
        .await
        .expect(201);
    // All that a selector finds must agree.
    let by_label = json!({"paramRef": {"selector": {"matchLabels": {"limit": "yes"}},
        "parameterNotFoundAction": "Allow"}});
    bind(&admin, "by-label", "most", by_label).await;
    admin
        .post(DEPLOYMENTS, &deployment("e", 2))
        .await
        .expect(201);
    let mut other = map("other", json!({"most": "1"}));
    other["metadata"]["labels"] = json!({"limit": "yes"});
    admin.post(MAPS, &other).await.expect(201);
    let refused = admin
        .post(DEPLOYMENTS, &deployment("f", 2))
        .await
        .expect(422);
    assert!(
        refused.message().ends_with("denied request: at most 1"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn deletions_selectors_and_the_authorizer() {
    let (cluster, admin) = open("ruled", &json!({})).await;
    let mut constraints = rules(&[""], &["configmaps"]);
    constraints["resourceRules"][0]["operations"] = json!(["DELETE"]);
    constraints["objectSelector"] = json!({"matchLabels": {"kept": "yes"}});
    let expression = "authorizer.group('').resource('secrets').namespace(request.namespace)\
                      .check('delete').allowed() && object == null && oldObject != null";
    let spec = json!({
        "matchConstraints": constraints,
        "validations": [{"expression": expression, "message": "kept"}],
    });
    policy(&admin, "keep", spec).await;
    bind(&admin, "keep", "keep", json!({})).await;
    let role = json!({"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""],
        "resources": ["configmaps"], "verbs": ["*"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/ruled";
    admin
        .post(&format!("{rbac}/roles"), &role)
        .await
        .expect(201);
    let binding = json!({"metadata": {"name": "maps"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"},
        "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin
        .post(&format!("{rbac}/rolebindings"), &binding)
        .await
        .expect(201);
    let bob = cluster.caller(Identity::user("bob", &[]));
    let mut kept = map("kept", json!({}));
    kept["metadata"]["labels"] = json!({"kept": "yes"});
    for body in [kept, map("loose", json!({}))] {
        admin.post(MAPS, &body).await.expect(201);
    }
    bob.delete(&format!("{MAPS}/loose"), None).await.expect(200);
    let refused = bob.delete(&format!("{MAPS}/kept"), None).await.expect(422);
    assert!(
        refused.message().ends_with("denied request: kept"),
        "{}",
        refused.message()
    );
    admin
        .delete(&format!("{MAPS}/kept"), None)
        .await
        .expect(200);
}

#[tokio::test]
async fn policies_that_cannot_work_are_refused() {
    let (_cluster, admin) = open("ruled", &json!({})).await;
    let path = format!("{GROUP}/validatingadmissionpolicies");
    let body = json!({"metadata": {"name": "bad"}, "spec": {
        "matchConstraints": rules(&["apps"], &["deployments"]),
        "variables": [{"name": "a b", "expression": "1"}, {"name": "x", "expression": "foo"}],
        "validations": [
            {"expression": "object.spec.replicas <"},
            {"expression": "object.spec.replicas"},
            {"expression": "params.x == 1", "messageExpression": "authorizer.path('/x')", "reason": "No"},
        ],
    }});
    let refused = admin.post(&path, &body).await.expect(422);
    let causes: Vec<&str> = refused.body["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|cause| cause["field"].as_str())
        .collect();
    assert_eq!(
        causes,
        [
            "spec.variables[0].name",
            "spec.variables[1].expression",
            "spec.validations[0].expression",
            "spec.validations[1].expression",
            "spec.validations[2].expression",
            "spec.validations[2].messageExpression",
            "spec.validations[2].reason",
        ]
    );
    let message = refused.message();
    for words in [
        "compilation failed: ERROR: <input>:1:23: Syntax error: mismatched input '<EOF>' expecting",
        "must evaluate to bool but got dyn",
        "undeclared reference to 'params' (in container '')",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let path = format!("{GROUP}/validatingadmissionpolicybindings");
    let body =
        json!({"metadata": {"name": "bad"}, "spec": {"validationActions": ["Deny", "Warn"]}});
    let refused = admin.post(&path, &body).await.expect(422);
    assert!(
        refused
            .message()
            .contains("spec.policyName: Required value"),
        "{}",
        refused.message()
    );
    assert!(
        refused
            .message()
            .contains("must not contain both Deny and Warn")
    );
}

#[tokio::test]
async fn objects_are_changed_by_configurations_and_by_patches() {
    let (_cluster, admin) = open("ruled", &json!({})).await;
    let spec = json!({
        "matchConstraints": rules(&["apps"], &["deployments"]),
        "reinvocationPolicy": "IfNeeded",
        "variables": [{"name": "tier", "expression": "'tier-' + request.namespace"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'tier': variables.tier}}, \
                 spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{\
                 containers: [Object.spec.template.spec.containers{name: 'side', image: 's:1'}]}}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/metadata/labels/tier', value: variables.tier}, \
                 JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y'), value: 'z'}]"}},
        ],
    });
    mutating(&admin, "labels", spec).await;
    let made = admin
        .post(DEPLOYMENTS, &deployment("d", 1))
        .await
        .expect(201)
        .body;
    assert_eq!(
        made["metadata"]["labels"],
        json!({"tier": "tier-ruled", "x/y": "z"})
    );
    let containers = made["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap();
    assert_eq!(containers.len(), 2, "{containers:?}");
    // What was added has its defaults.
    let side = containers.iter().find(|c| c["name"] == "side").unwrap();
    assert_eq!(side["terminationMessagePath"], "/dev/termination-log");
    counted(
        &admin,
        "apiserver_mutating_admission_policy_check_duration_seconds_count{error_type=\"no_error\",\
         policy=\"labels\",policy_binding=\"labels\"} ",
    )
    .await;
}

/// A policy about one version of a kind is about all of them, and sees the one that it names.
#[tokio::test]
async fn a_request_in_another_version_is_shown_in_that_of_the_policy() {
    let (_cluster, admin) = open("ruled", &json!({})).await;
    let version = |name: &str, stored: bool| {
        json!({"name": name, "served": true, "storage": stored,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "object", "properties": {
                    "size": {"type": "integer"}, "color": {"type": "string"}}}}}}})
    };
    let definition = json!({"metadata": {"name": "things.rules.test"}, "spec": {
        "group": "rules.test", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [version("v1", false), version("v2", true)]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    admin.post(definitions, &definition).await.expect(201);
    let things = "/apis/rules.test/v2/namespaces/ruled/things";
    let served = async {
        while admin.get(things).await.code != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let bound = std::time::Duration::from_secs(60);
    tokio::time::timeout(bound, served).await.unwrap();

    let spec = json!({
        "matchConstraints": rules(&["rules.test"], &["things"]),
        "validations": [{"expression": "object.spec.size <= 5 && object.apiVersion == 'rules.test/v1' \
            && request.kind.version == 'v1' && request.requestKind.version == 'v2'"}],
    });
    policy(&admin, "sizes", spec).await;
    bind(&admin, "sizes-everywhere", "sizes", json!({})).await;
    mutating(
        &admin,
        "colors",
        json!({"matchConstraints": rules(&["rules.test"], &["things"]),
            "reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
                "expression": "object.apiVersion == 'rules.test/v1' ? [JSONPatch{op: 'add', path: \
                    '/spec/color', value: 'red'}] : []"}}]}),
    )
    .await;
    let thing = |name: &str, size: i64| {
        json!({"apiVersion": "rules.test/v2", "kind": "Thing",
        "metadata": {"name": name}, "spec": {"size": size}})
    };
    let made = admin
        .post(things, &thing("small", 5))
        .await
        .expect(201)
        .body;
    assert_eq!(made["apiVersion"], "rules.test/v2");
    assert_eq!(made["spec"], json!({"size": 5, "color": "red"}));
    let refused = admin.post(things, &thing("large", 6)).await.expect(422);
    assert!(
        refused.message().contains("'sizes'"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn what_would_replace_a_whole_is_refused() {
    let (_cluster, admin) = open("ruled", &json!({})).await;
    let spec = json!({
        "matchConstraints": rules(&["apps"], &["deployments"]),
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}"}}],
    });
    mutating(&admin, "atomic", spec).await;
    let refused = admin
        .post(DEPLOYMENTS, &deployment("d", 1))
        .await
        .expect(403);
    assert_eq!(
        refused.message(),
        "policy 'atomic' with binding 'atomic' denied request: error applying patch: invalid \
         ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector"
    );
    let path = format!("{GROUP}/mutatingadmissionpolicies/atomic");
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    admin.patch(&path, MERGE_PATCH, &ignore).await.expect(200);
    admin
        .post(DEPLOYMENTS, &deployment("d", 1))
        .await
        .expect(201);
    let bad = json!({"metadata": {"name": "bad"}, "spec": {
        "matchConstraints": rules(&["apps"], &["deployments"]), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}}],
    }});
    let path = format!("{GROUP}/mutatingadmissionpolicies");
    let refused = admin.post(&path, &bad).await.expect(422);
    assert!(
        refused
            .message()
            .contains("must evaluate to list(JSONPatch) but got Object"),
        "{}",
        refused.message()
    );
}
