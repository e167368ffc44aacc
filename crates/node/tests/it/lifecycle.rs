//! From binding to deletion.

use std::time::Duration;

use evenkeel_node::testing::Behaviour;
use evenkeel_runtime::ExecOutput;
use serde_json::{Value, json};

use crate::cluster::{Node, condition, container};

#[tokio::test(start_paused = true)]
async fn a_bound_pod_runs_gets_ready_and_is_deleted() {
    let node = Node::start();
    node.pod("web", json!({ "containers": [container("app")] }));
    let pod = node.until_ready("web").await;
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["podIPs"][0]["ip"], status["podIP"]);
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 1);
    let app = &status["containerStatuses"][0];
    assert_eq!(app["ready"], true);
    assert_eq!(app["started"], true);
    assert_eq!(app["restartCount"], 0);
    assert!(
        app["containerID"]
            .as_str()
            .is_some_and(|id| id.starts_with("evenkeel://"))
    );
    for type_ in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition(&pod, type_)["status"], "True", "{type_}");
    }
    node.delete("web", 30);
    node.until_gone("web").await;
    assert!(node.runtime.calls().contains(&"stop app 30".to_owned()));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(node.runtime.is_empty());
    assert!(!node.dir.path().join("node/pods/uid-web").exists());
    let reasons: Vec<_> = node
        .events()
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        assert!(
            reasons.iter().any(|have| have == reason),
            "{reason} in {reasons:?}"
        );
    }
}

/// The calls that begin with one of the words, in order.
fn calls(node: &Node, words: &[&str]) -> Vec<String> {
    let mut calls = node.runtime.calls();
    calls.retain(|call| words.iter().any(|word| call.starts_with(word)));
    calls
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_and_sidecars_outlive_the_others() {
    let node = Node::start();
    let quick = Behaviour {
        exits: Some((Duration::from_secs(2), 0)),
        ..Behaviour::default()
    };
    node.runtime.behave("first", quick.clone());
    node.runtime.behave("second", quick);
    let mut proxy = container("proxy");
    proxy["restartPolicy"] = json!("Always");
    let mut log = container("log");
    log["restartPolicy"] = json!("Always");
    node.pod(
        "web",
        json!({
            "initContainers": [container("first"), proxy, log, container("second")],
            "containers": [container("app")],
        }),
    );
    let pod = node
        .until("web", |pod| {
            pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object()
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "PodInitializing");
    assert_eq!(
        condition(&pod, "Initialized")["reason"],
        "ContainersNotInitialized"
    );
    assert_eq!(
        condition(&pod, "Initialized")["message"],
        "containers with incomplete status: [first proxy log second]"
    );
    let pod = node.until_ready("web").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(
        calls(&node, &["start"]),
        [
            "start first#0",
            "start proxy#0",
            "start log#0",
            "start second#0",
            "start app#0"
        ]
    );
    node.delete("web", 30);
    node.until_gone("web").await;
    let stops: Vec<String> = calls(&node, &["stop "])
        .into_iter()
        .map(|call| call.split(' ').nth(1).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(stops, ["app", "log", "proxy"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_waits_longer_each_time() {
    let node = Node::start();
    let crash = Behaviour {
        exits: Some((Duration::from_secs(1), 3)),
        ..Behaviour::default()
    };
    node.runtime.behave("app", crash);
    let began = tokio::time::Instant::now();
    node.pod("web", json!({ "containers": [container("app")] }));
    let pod = node
        .until("web", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CrashLoopBackOff"
        })
        .await;
    let app = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        app["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=app pod=web_default(uid-web)"
    );
    assert_eq!(app["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(app["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(app["restartCount"], 1);
    assert_eq!(pod["status"]["phase"], "Running");
    let pod = node
        .until("web", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 5
        })
        .await;
    // At once, then after 10, 20, 40 and 80 seconds, each after a second of running.
    let passed = began.elapsed().as_secs();
    assert!((155..=157).contains(&passed), "{passed}: {pod:#}");
    let events = node.events();
    let text = "Back-off restarting failed container app in pod web_default(uid-web)";
    assert!(
        events.contains(&("BackOff".to_owned(), text.to_owned())),
        "{events:?}"
    );
    // Dead containers do not pile up: the running one and the one before it.
    assert!(node.runtime.running() <= 1);
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_to_their_end_say_how() {
    let node = Node::start();
    for (policy, code, phase) in [
        ("Never", 0, "Succeeded"),
        ("Never", 7, "Failed"),
        ("OnFailure", 0, "Succeeded"),
    ] {
        let name = format!("job-{}-{code}", policy.to_lowercase());
        let ends = Behaviour {
            exits: Some((Duration::from_secs(1), code)),
            ..Behaviour::default()
        };
        node.runtime.behave(&name, ends);
        node.pod(
            &name,
            json!({ "restartPolicy": policy, "containers": [container(&name)] }),
        );
        let pod = node
            .until(&name, |pod| pod["status"]["phase"] == phase)
            .await;
        let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(end["exitCode"], code);
        assert_eq!(end["reason"], if code == 0 { "Completed" } else { "Error" });
        let reason = if code == 0 {
            "PodCompleted"
        } else {
            "PodFailed"
        };
        assert_eq!(condition(&pod, "Ready")["reason"], reason);
        assert_eq!(condition(&pod, "Ready")["status"], "False");
        assert!(pod["status"]["podIP"].is_string(), "the address stays");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let starts = calls(&node, &["start "]);
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert_eq!(calls(&node, &["stop_sandbox"]).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_ends_or_holds_the_pod() {
    let node = Node::start();
    let fails = Behaviour {
        exits: Some((Duration::from_secs(1), 1)),
        ..Behaviour::default()
    };
    node.runtime.behave("init", fails);
    node.pod(
        "once",
        json!({ "restartPolicy": "Never", "initContainers": [container("init")],
                "containers": [container("app")] }),
    );
    let pod = node
        .until("once", |pod| pod["status"]["phase"] == "Failed")
        .await;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "PodInitializing");
    node.pod(
        "again",
        json!({ "initContainers": [container("init")], "containers": [container("app")] }),
    );
    let pod = node
        .until("again", |pod| {
            pod["status"]["initContainerStatuses"][0]["state"]["waiting"]["reason"]
                == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert!(
        !node
            .runtime
            .calls()
            .iter()
            .any(|call| call.starts_with("create app"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_pulled_again_and_found_when_imported() {
    let node = Node::start();
    node.images.refuse("gone:1");
    node.pod(
        "web",
        json!({ "containers": [{ "name": "app", "image": "gone:1" }] }),
    );
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = node
        .until("web", |pod| waiting(pod)["reason"] == "ErrImagePull")
        .await;
    assert_eq!(waiting(&pod)["message"], "gone:1: not found");
    let pod = node
        .until("web", |pod| waiting(pod)["reason"] == "ImagePullBackOff")
        .await;
    assert_eq!(
        waiting(&pod)["message"],
        "Back-off pulling image \"gone:1\": ErrImagePull: gone:1: not found"
    );
    assert_eq!(pod["status"]["phase"], "Pending");
    tokio::time::sleep(Duration::from_secs(100)).await;
    // At 0, 10, 30 and 70 seconds.
    assert_eq!(node.images.pulls().len(), 4);
    let imported = tokio::time::Instant::now();
    node.images.put("gone:1");
    node.until_ready("web").await;
    assert!(
        imported.elapsed() <= Duration::from_secs(11),
        "{:?}",
        imported.elapsed()
    );
    let events = node.events();
    for (reason, message) in [
        (
            "Failed",
            "Failed to pull image \"gone:1\": gone:1: not found",
        ),
        ("Failed", "Error: ErrImagePull"),
        ("BackOff", "Back-off pulling image \"gone:1\""),
        ("Failed", "Error: ImagePullBackOff"),
    ] {
        let wanted = (reason.to_owned(), message.to_owned());
        assert!(events.contains(&wanted), "{message} in {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pull_policies_hold() {
    let node = Node::start();
    node.pod(
        "never",
        json!({ "containers": [{ "name": "app", "image": "no:1", "imagePullPolicy": "Never" }] }),
    );
    let pod = node
        .until("never", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "ErrImageNeverPull"
        })
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "Container image \"no:1\" is not present with pull policy of Never"
    );
    assert!(node.images.pulls().is_empty());
    node.pod(
        "always",
        json!({ "containers": [{ "name": "app", "image": "app:1", "imagePullPolicy": "Always" }] }),
    );
    node.until_ready("always").await;
    assert_eq!(node.images.pulls(), ["app:1"]);
    node.pod(
        "bad",
        json!({ "containers": [{ "name": "app", "image": "a b" }] }),
    );
    node.until("bad", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "InvalidImageName"
    })
    .await;
    let before = node.events().len();
    node.pod(
        "worse",
        json!({ "containers": [{ "name": "app", "image": "Bad::x" }] }),
    );
    node.until("worse", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "InvalidImageName"
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = node.events().split_off(before);
    assert!(told.iter().any(|(reason, _)| reason == "InspectFailed"));
    assert!(
        !told.iter().any(|(reason, _)| reason == "Pulling"),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn hooks_that_fail_keep_what_they_were_told_to_themselves() {
    let node = Node::start();
    let wrong = Behaviour {
        exec: ExecOutput {
            exit_code: 3,
            ..ExecOutput::default()
        },
        ..Behaviour::default()
    };
    node.runtime.behave("app", wrong);
    let login = json!({ "exec": { "command": ["login", "--password=secret"] } });
    let mut app = container("app");
    app["lifecycle"] = json!({ "postStart": login, "preStop": login });
    node.pod("web", json!({ "containers": [app] }));
    node.until("web", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    let events = node.events();
    let wanted = (
        "FailedPostStartHook".to_owned(),
        "PostStartHook failed".to_owned(),
    );
    assert!(events.contains(&wanted), "{events:?}");
    assert!(
        !events.iter().any(|(_, text)| text.contains("secret")),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_a_volume_is_not_ready_to_start_containers() {
    let node = Node::start();
    let mut app = container("app");
    app["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    node.pod(
        "web",
        json!({ "containers": [app],
                "volumes": [{ "name": "v", "configMap": { "name": "late" } }] }),
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pod = node.api.get("pods", "default", "web").expect("there");
    let may_start = condition(&pod, "PodReadyToStartContainers");
    assert_eq!(may_start["status"], "False", "{pod:#}");
    assert!(pod["status"]["podIP"].is_null(), "{pod:#}");
    node.api.put(
        "configmaps",
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "late", "namespace": "default" }, "data": {} }),
    );
    let pod = node.until_ready("web").await;
    let may_start = condition(&pod, "PodReadyToStartContainers");
    assert_eq!(may_start["status"], "True");
    assert!(pod["status"]["podIP"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_holds_the_start_until_it_is_there() {
    let node = Node::start();
    node.pod(
        "web",
        json!({ "containers": [{ "name": "app", "image": "app:1", "env": [
            { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "a" } } },
        ] }] }),
    );
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = node
        .until("web", |pod| {
            waiting(pod)["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(waiting(&pod)["message"], "configmap \"settings\" not found");
    // It says so all the time, not between two tries alone.
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(77)).await;
        let pod = node.api.get("pods", "default", "web").expect("there");
        assert_eq!(waiting(&pod)["reason"], "CreateContainerConfigError");
    }
    node.api.put(
        "configmaps",
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "settings", "namespace": "default" }, "data": { "b": "x" } }),
    );
    let text = "couldn't find key a in ConfigMap default/settings";
    node.until("web", |pod| waiting(pod)["message"] == text)
        .await;
    node.api.change("configmaps", "default", "settings", |map| {
        map["data"]["a"] = json!("1")
    });
    node.until_ready("web").await;
    let env = node.runtime.config("app").expect("made").env;
    assert!(env.contains(&("A".to_owned(), "1".to_owned())));
    assert!(env.contains(&("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())));
    assert_eq!(calls(&node, &["start"]), ["start app#0"]);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_cannot_run_is_told_of() {
    let node = Node::start();
    let text = "exec: \"/nope\": no such file or directory";
    let broken = Behaviour {
        cannot_run: Some(text.to_owned()),
        ..Behaviour::default()
    };
    node.runtime.behave("app", broken);
    node.pod("web", json!({ "containers": [container("app")] }));
    let pod = node
        .until("web", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "RunContainerError"
        })
        .await;
    let app = &pod["status"]["containerStatuses"][0];
    assert_eq!(app["state"]["waiting"]["message"], text);
    assert_eq!(app["lastState"]["terminated"]["reason"], "StartError");
    assert_eq!(app["lastState"]["terminated"]["exitCode"], 128);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = calls(&node, &["create"]).len();
    assert!((2..=6).contains(&tries), "{tries} tries in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pod() {
    let node = Node::start();
    node.pod(
        "web",
        json!({ "activeDeadlineSeconds": 20, "containers": [container("app")] }),
    );
    let slow = Behaviour {
        stops_in: Duration::from_secs(10),
        ..Behaviour::default()
    };
    node.runtime.behave("app", slow);
    node.until_ready("web").await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    // While it still runs nothing may take its place.
    let pod = node.api.get("pods", "default", "web").expect("there");
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(pod["status"]["reason"].is_null(), "{pod:#}");
    assert_eq!(node.runtime.running(), 1);
    let pod = node
        .until("web", |pod| pod["status"]["phase"] == "Failed")
        .await;
    let text = "Pod was active on the node longer than the specified deadline";
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(pod["status"]["message"], text);
    let app = &pod["status"]["containerStatuses"][0];
    assert!(app["state"]["terminated"].is_object(), "{pod:#}");
    assert_eq!(node.runtime.running(), 0);
    let events = node.events();
    let wanted = ("DeadlineExceeded".to_owned(), text.to_owned());
    assert!(events.contains(&wanted), "{events:?}");
    node.delete("web", 30);
    node.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn grace_covers_the_hook_and_can_be_cut_short() {
    let node = Node::start();
    let stubborn = Behaviour {
        stops_in: Duration::from_secs(600),
        ..Behaviour::default()
    };
    node.runtime.behave("app", stubborn);
    let mut app = container("app");
    app["lifecycle"] = json!({ "preStop": { "sleep": { "seconds": 8 } } });
    node.pod(
        "web",
        json!({ "terminationGracePeriodSeconds": 20, "containers": [app.clone()] }),
    );
    node.until_ready("web").await;
    let began = tokio::time::Instant::now();
    node.delete("web", 20);
    node.until_gone("web").await;
    let passed = began.elapsed().as_secs();
    assert!((20..=21).contains(&passed), "{passed}");
    assert!(node.runtime.calls().contains(&"stop app 12".to_owned()));

    node.pod(
        "hasty",
        json!({ "terminationGracePeriodSeconds": 500, "containers": [app] }),
    );
    node.until_ready("hasty").await;
    node.delete("hasty", 500);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cut = tokio::time::Instant::now();
    node.delete("hasty", 1);
    node.until_gone("hasty").await;
    assert!(
        cut.elapsed() < Duration::from_secs(3),
        "{:?}",
        cut.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn pods_deleted_by_force_leave_nothing() {
    let node = Node::start();
    node.pod(
        "web",
        json!({ "terminationGracePeriodSeconds": 2, "containers": [container("app")] }),
    );
    node.until_ready("web").await;
    node.api.remove("pods", "default", "web");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if node.runtime.is_empty() {
            break;
        }
    }
    assert!(node.runtime.is_empty());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!node.dir.path().join("node/pods/uid-web").exists());
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_finds_its_containers_and_restarts_none() {
    let node = Node::start();
    node.pod(
        "web",
        json!({ "containers": [container("app"), container("other")] }),
    );
    node.pod("gone", json!({ "containers": [container("app")] }));
    node.until_ready("web").await;
    node.until_ready("gone").await;
    let before = calls(&node, &["start", "create", "run_sandbox"]);
    node.api.remove("pods", "default", "gone");
    let node = node.restarted();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(calls(&node, &["start", "create", "run_sandbox"]), before);
    assert_eq!(node.runtime.running(), 2, "the forgotten pod was ended");
    let pod = node.until_ready("web").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    node.runtime.crash("app", 1);
    node.until("web", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    node.until_ready("web").await;
}

/// How long the pod was told as not ready, while its container was replaced by one of this image.
async fn unready_while_replaced(node: &Node, image: &str) -> Duration {
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64();
    let before = node.until_ready("web").await;
    node.api.change("pods", "default", "web", |pod| {
        pod["spec"]["containers"][0]["image"] = json!(image);
        pod["metadata"]["generation"] = json!(restarts(&before).unwrap_or_default() + 2);
    });
    let step = Duration::from_millis(5);
    let mut unready = Duration::ZERO;
    loop {
        tokio::time::sleep(step).await;
        let pod = node.api.get("pods", "default", "web").expect("there");
        if condition(&pod, "Ready")["status"] != "True" {
            unready += step;
        } else if restarts(&pod) > restarts(&before) {
            return unready;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_replaced_quickly_is_not_missed() {
    let node = Node::start();
    node.pod("web", json!({ "containers": [container("app")] }));
    node.images.slow(Duration::from_millis(500));
    assert_eq!(unready_while_replaced(&node, "app:2").await, Duration::ZERO);
    // One that does not come is.
    node.images.slow(Duration::from_secs(10));
    let unready = unready_while_replaced(&node, "app:3").await;
    assert!((8..10).contains(&unready.as_secs()), "{unready:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_before_it_ran_is_gone_at_once() {
    let node = Node::start();
    node.images.refuse("gone:1");
    node.pod(
        "web",
        json!({ "containers": [{ "name": "app", "image": "gone:1" }] }),
    );
    node.until("web", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull"
    })
    .await;
    let began = tokio::time::Instant::now();
    node.delete("web", 30);
    node.until_gone("web").await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_node_asks_for_nothing_but_its_lease_and_itself() {
    let node = Node::start();
    node.pod("web", json!({ "containers": [container("app")] }));
    node.until_ready("web").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = node.api.requests().len();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let requests = node.api.requests().split_off(before);
    let count = |of: &str| requests.iter().filter(|one| one.contains(of)).count();
    let (leases, itself) = (count("/leases/"), count("GET /api/v1/nodes/n1"));
    assert!((9..=11).contains(&leases), "{requests:?}");
    assert!((9..=11).contains(&itself), "{requests:?}");
    assert!(requests.len() - leases - itself <= 2, "{requests:?}");
}

/// The agent's own share of a start, without a runtime's work. Run it by name; it prints.
#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn time_from_binding_to_ready() {
    let node = Node::start();
    node.pod("warm", json!({ "containers": [container("app")] }));
    node.until_ready("warm").await;
    let mut took = Vec::new();
    for index in 0..50 {
        let name = format!("p{index}");
        let began = std::time::Instant::now();
        node.pod(&name, json!({ "containers": [container("app")] }));
        node.until_ready(&name).await;
        took.push(began.elapsed());
    }
    took.sort();
    println!(
        "binding to Ready: p50 {:?}, p90 {:?}, max {:?}",
        took[25], took[45], took[49]
    );
}
