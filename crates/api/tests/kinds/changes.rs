//! What may change, what is kept, and what pods do on binding and deletion.

use evenkeel_api::kinds::{namespace, pod as pods};
use serde_json::{Value, json};

use super::{deployment, pod, prepared, row_of, service, texts, update_errors, with};

#[test]
fn pods_change_little() {
    let allowed = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";
    let container = |patch: Value| {
        let mut container = prepared(pod())["spec"]["containers"][0].clone();
        json_patch::merge(&mut container, &patch);
        json!({"spec": {"containers": [container]}})
    };
    assert_eq!(
        update_errors(pod(), &container(json!({"image": "nginx:1.25"}))),
        Vec::<String>::new()
    );
    assert_eq!(
        update_errors(pod(), &json!({"spec": {"activeDeadlineSeconds": 5}})),
        Vec::<String>::new()
    );
    assert_eq!(
        update_errors(
            pod(),
            &json!({"spec": {"tolerations": [{"operator": "Exists"}]}})
        ),
        Vec::<String>::new()
    );
    for patch in [
        container(json!({"command": ["sh"]})),
        json!({"spec": {"nodeName": "n"}}),
        json!({"spec": {"restartPolicy": "Never"}}),
        json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "b"}]}}),
    ] {
        let found = update_errors(pod(), &patch);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(allowed), "{}", found[0]);
    }
    let found = update_errors(pod(), &json!({"spec": {"nodeName": "n"}}));
    assert!(
        found[0].ends_with("\n+ \tnodeName: \"n\",\n  }\n"),
        "{}",
        found[0]
    );
    assert_eq!(
        update_errors(
            pod(),
            &json!({"spec": {"initContainers": [{"name": "i", "image": "b"}]}})
        ),
        ["spec.initContainers: Forbidden: pod updates may not add or remove containers"]
    );
    let mut deadline = pod();
    deadline["spec"]["activeDeadlineSeconds"] = json!(5);
    assert_eq!(
        update_errors(
            deadline.clone(),
            &json!({"spec": {"activeDeadlineSeconds": 6}})
        ),
        [
            "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"
        ]
    );
    assert_eq!(
        update_errors(deadline, &json!({"spec": {"activeDeadlineSeconds": null}})),
        [
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"
        ]
    );
    let mut tolerant = pod();
    tolerant["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    assert_eq!(
        update_errors(tolerant, &json!({"spec": {"tolerations": []}})),
        [
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
        ]
    );
    let mut gated = pod();
    gated["spec"]["schedulingGates"] = json!([{"name": "a"}]);
    assert_eq!(
        update_errors(
            gated.clone(),
            &json!({"spec": {"schedulingGates": [], "nodeSelector": {"a": "b"}}})
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        update_errors(
            gated,
            &json!({"spec": {"schedulingGates": [{"name": "b"}]}})
        ),
        [
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'b'"
        ]
    );
}

#[test]
fn what_is_set_once_stays() {
    assert_eq!(
        update_errors(
            deployment(),
            &json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}})
        ),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"]
    );
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "data": {"a": "YQ=="}, "immutable": true});
    assert_eq!(
        update_errors(secret.clone(), &json!({"type": "x", "data": {"a": "Yg=="}})),
        [
            "type: Invalid value: \"x\": field is immutable",
            "data: Forbidden: field is immutable when `immutable` is set",
        ]
    );
    assert_eq!(
        update_errors(secret, &json!({"immutable": false})),
        ["immutable: Forbidden: field is immutable when `immutable` is set"]
    );
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"},
        "data": {"a": "b"}, "immutable": true});
    assert_eq!(
        update_errors(map, &json!({"data": {"a": "c"}})),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "a"}});
    assert_eq!(
        update_errors(binding, &json!({"roleRef": {"name": "c"}})),
        [
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"c\"}: field is immutable"
        ]
    );
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.0.0.0/24", "providerID": "a"}});
    assert_eq!(
        update_errors(
            node,
            &json!({"spec": {"podCIDR": "10.0.1.0/24", "providerID": "b", "externalID": "x"}})
        ),
        [
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
            "spec.externalID: Forbidden: may not be updated",
            "spec.providerID: Invalid value: null: field cannot be modified once set",
        ]
    );
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": []});
    assert_eq!(
        update_errors(slice, &json!({"addressType": "IPv6"})),
        ["addressType: Invalid value: null: field is immutable"]
    );
}

#[test]
fn services_keep_what_was_given_out() {
    let mut old = prepared(with(service(), &json!({"spec": {"type": "NodePort"}})));
    old["spec"]["clusterIP"] = json!("10.96.0.7");
    old["spec"]["clusterIPs"] = json!(["10.96.0.7"]);
    old["spec"]["ports"][0]["nodePort"] = json!(30080);
    old["metadata"]["resourceVersion"] = json!("7");
    let row = row_of(&old);
    let mut new = service();
    new["spec"]["type"] = json!("NodePort");
    new["metadata"] = old["metadata"].clone();
    row.strategy.defaults(&mut new);
    row.strategy.prepare_update(&mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    assert!(row.strategy.validate_update(&new, &old).is_empty());

    let mut moved = old.clone();
    moved["spec"]["clusterIP"] = json!("10.96.0.8");
    row.strategy.prepare_update(&mut moved, &old);
    assert_eq!(
        texts(&row.strategy.validate_update(&moved, &old)),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]
    );

    let mut named = old.clone();
    named["spec"]["type"] = json!("ExternalName");
    named["spec"]["externalName"] = json!("a.b");
    row.strategy.prepare_update(&mut named, &old);
    assert!(named["spec"].get("clusterIP").is_none());
    assert!(named["spec"]["ports"][0].get("nodePort").is_none());
    assert!(row.strategy.validate(&named).is_empty());
}

#[test]
fn a_gated_pod_says_so_from_the_start() {
    let gated = prepared(with(
        pod(),
        &json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedulingGates": [{"name": "example.com/a"}]},
        }),
    ));
    assert_eq!(
        gated["status"]["conditions"],
        json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }])
    );
    assert_eq!(prepared(pod())["status"].get("conditions"), None);
}

#[test]
fn binding_assigns_once() {
    let now = "2026-01-01T00:00:00Z";
    let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n1"}});
    let mut object = prepared(pod());
    object["status"]["nominatedNodeName"] = json!("n2");
    pods::bind(&mut object, &binding, now).expect("free");
    assert_eq!(object["spec"]["nodeName"], "n1");
    assert_eq!(object["metadata"]["annotations"]["a"], "b");
    assert!(object["status"].get("nominatedNodeName").is_none());
    assert_eq!(
        object["status"]["conditions"],
        json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": now}])
    );
    assert_eq!(
        pods::bind(&mut object, &binding, now),
        Err("pod web is already assigned to node \"n1\"".to_owned())
    );
    let mut going = prepared(pod());
    going["metadata"]["deletionTimestamp"] = json!(now);
    assert_eq!(
        pods::bind(&mut going, &binding, now),
        Err("pod web is being deleted, cannot be assigned to a host".to_owned())
    );
}

#[test]
fn ephemeral_containers_are_only_added() {
    let old = prepared(pod());
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox"}]);
    new["spec"]["nodeName"] = json!("elsewhere");
    new["metadata"]["resourceVersion"] = json!("8");
    pods::prepare_ephemeral_containers(&mut new, &old);
    assert!(new["spec"].get("nodeName").is_none());
    assert_eq!(
        new["spec"]["ephemeralContainers"][0]["imagePullPolicy"],
        "Always"
    );
    assert!(pods::validate_ephemeral_containers(&new, &old).is_empty());
    let mut removed = old.clone();
    removed["metadata"]["resourceVersion"] = json!("9");
    assert_eq!(
        texts(&pods::validate_ephemeral_containers(&removed, &new)),
        [
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be removed\n"
        ]
    );
    let mut with_port = new.clone();
    with_port["spec"]["ephemeralContainers"][0]["ports"] =
        json!([{"containerPort": 80, "protocol": "TCP"}]);
    assert!(
        texts(&pods::validate_ephemeral_containers(&with_port, &old)).contains(
            &"spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"
                .to_owned()
        )
    );
}

#[test]
fn what_was_there_before_is_forgiven() {
    let none: [&str; 0] = [];
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}},
    });
    assert_eq!(
        update_errors(scaler, &json!({"spec": {"maxReplicas": 4}})),
        none
    );
    let device = json!({"name": "a", "capacity": {"m": {"value": "1Gi",
        "requestPolicy": {"default": "1Gi", "validValues": ["1Gi"]}}}});
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
        "spec": {"driver": "d.example.com", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 0, "resourceSliceCount": 1},
            "devices": [with(device.clone(), &json!({"allowMultipleAllocations": true}))]},
    });
    assert_eq!(
        update_errors(slice, &json!({"spec": {"devices": [device]}})),
        none
    );
    let exactly = json!({"deviceClassName": "c"});
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly.clone()}]}},
    });
    let derived = with(
        exactly,
        &json!({"derivedAttributes": [{"name": "x", "expression": "x"}]}),
    );
    assert_eq!(
        update_errors(
            claim,
            &json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": derived}]}}})
        ),
        none,
        "what belongs to a closed gate is taken off first"
    );
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
        "spec": {"ingress": [{"from": [{"podSelector": {}}]}]},
    });
    let block = json!({"cidr": "10.0.0.0/8", "except": [""]});
    assert_eq!(
        update_errors(
            policy,
            &json!({"spec": {"ingress": [{"from": [{"ipBlock": block}]}]}})
        ),
        [
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        ]
    );
}

#[test]
fn what_raises_the_generation() {
    let old = prepared(deployment());
    let raised = |new: &Value| row_of(&old).strategy.bumps_generation(new, &old);
    let annotated = with(
        old.clone(),
        &json!({"metadata": {"annotations": {"a": "b"}}}),
    );
    assert!(raised(&annotated), "they are copied to replica sets");
    let labelled = with(old.clone(), &json!({"metadata": {"labels": {"a": "b"}}}));
    assert!(!raised(&labelled));
    let scaled = with(old.clone(), &json!({"spec": {"replicas": 7}}));
    assert!(raised(&scaled));
    for version in ["v1", "v2"] {
        let scaler = json!({"apiVersion": format!("autoscaling/{version}"),
            "kind": "HorizontalPodAutoscaler"});
        assert!(row_of(&scaler).generation, "{version}");
    }
}

#[test]
fn grace_of_pods() {
    let row = row_of(&pod());
    let mut object = prepared(pod());
    assert_eq!(row.strategy.grace_period(&object, None), Some(0));
    object["spec"]["nodeName"] = json!("n");
    assert_eq!(row.strategy.grace_period(&object, None), Some(30));
    assert_eq!(row.strategy.grace_period(&object, Some(5)), Some(5));
    assert_eq!(row.strategy.grace_period(&object, Some(0)), Some(0));
    object["status"]["phase"] = json!("Succeeded");
    assert_eq!(row.strategy.grace_period(&object, None), Some(0));
    let other = deployment();
    assert_eq!(row_of(&other).strategy.grace_period(&other, Some(5)), None);
}

/// Where a container may start again is told by its rules, then by its own policy, then by the pod's.
#[test]
fn a_container_leaves_its_end_where_it_may_start_again() {
    let rules = |operator: &str, action: &str| {
        json!({"restartPolicy": "Never", "restartPolicyRules": [
            {"action": action, "exitCodes": {"operator": operator, "values": [42]}}]})
    };
    let cases = [
        ("Always", json!({}), 0, true),
        ("OnFailure", json!({}), 0, false),
        ("OnFailure", json!({}), 1, true),
        ("Never", json!({}), 1, false),
        ("Never", json!({"restartPolicy": "Always"}), 0, true),
        ("Never", json!({"restartPolicy": "OnFailure"}), 1, true),
        ("Always", json!({"restartPolicy": "Never"}), 1, false),
        ("Never", rules("In", "Restart"), 42, true),
        ("Never", rules("In", "Restart"), 1, false),
        ("Always", rules("NotIn", "Restart"), 42, false),
        ("Always", rules("NotIn", "Restart"), 1, true),
    ];
    let row = row_of(&pod());
    for (policy, container, code, may) in cases {
        let mut old = prepared(with(pod(), &json!({"spec": {"restartPolicy": policy}})));
        for (name, value) in container.as_object().into_iter().flatten() {
            old["spec"]["containers"][0][name] = value.clone();
        }
        let name = old["spec"]["containers"][0]["name"].clone();
        old["status"]["containerStatuses"] =
            json!([{"name": name, "state": {"terminated": {"exitCode": code}}}]);
        let mut new = old.clone();
        new["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
        let wrong = texts(&row.strategy.validate_status(&new, &old));
        assert_eq!(
            wrong.is_empty(),
            may,
            "{policy} {container} {code}: {wrong:?}"
        );
    }
}

#[test]
fn statuses_are_checked() {
    let row = row_of(&pod());
    let mut old = prepared(with(pod(), &json!({"spec": {"restartPolicy": "Never"}})));
    old["status"]["containerStatuses"] =
        json!([{"name": "web", "state": {"terminated": {"exitCode": 1}}}]);
    let mut new = old.clone();
    new["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    new["status"]["qosClass"] = json!("Guaranteed");
    assert_eq!(
        texts(&row.strategy.validate_status(&new, &old)),
        [
            "status.qosClass: Invalid value: \"Guaranteed\": field is immutable",
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
        ]
    );
    let old = prepared(with(
        pod(),
        &json!({"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]}}),
    ));
    let mut new = with(
        old.clone(),
        &json!({"status": {"podIP": "x", "podIPs": [{"ip": "10.0.0.1"}],
            "resourceClaimStatuses": [{"name": "gpu"}, {"name": "other"}],
            "extendedResourceClaimStatus": {"resourceClaimName": "c", "requestMappings": [
                {"containerName": "none", "resourceName": "r", "requestName": "q"}]}}}),
    );
    row.strategy.defaults(&mut new);
    assert_eq!(
        texts(&row.strategy.validate_status(&new, &old)),
        [
            "status.resourceClaimStatuses[1].name: Invalid value: \"other\": must match the name of an entry in `spec.resourceClaims`",
            "status.extendedResourceClaimStatus.requestMappings[0].containerName: Invalid value: \"none\": must match the name of an entry in spec.initContainers.name or spec.containers.name",
            "status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ]
    );
    let old = prepared(deployment());
    let new = with(
        old.clone(),
        &json!({"status": {"replicas": 1, "readyReplicas": 2, "collisionCount": -1}}),
    );
    assert_eq!(
        texts(&row_of(&old).strategy.validate_status(&new, &old)),
        [
            "status.collisionCount: Invalid value: -1: must be greater than or equal to 0",
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ]
    );
}

#[test]
fn namespaces_end_through_finalize() {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    let old = prepared(object);
    assert_eq!(old["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(old["status"]["phase"], "Active");
    let row = row_of(&old);
    let mut new = old.clone();
    new["spec"]["finalizers"] = json!([]);
    row.strategy.prepare_update(&mut new, &old);
    assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
    new["spec"]["finalizers"] = json!([]);
    namespace::prepare_finalize(&mut new, &old);
    assert_eq!(new["spec"]["finalizers"], json!([]));
    assert!(namespace::validate_finalize(&new).is_empty());
    new["status"]["phase"] = json!("Terminating");
    assert_eq!(
        texts(&row.strategy.validate_status(&new, &old)),
        [
            "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
        ]
    );
}
