//! Levels, schemas and seats together, and what they cost.

use evenkeel_api::Rows;
use serde_json::json;

use super::*;
use crate::http::Query;

fn asks(url: &str) -> (Attributes, Query) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let query = Query::parse(query);
    (Attributes::of(&http::Method::GET, path, &query), query)
}

fn named(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-of-{name}")}, "spec": spec})
}

fn configured(total: u32) -> (FlowControl, Vec<Value>, Vec<Value>) {
    let flow = FlowControl::new(total);
    let objects = |wanted: Vec<defaults::Default>| -> Vec<Value> {
        wanted
            .into_iter()
            .map(|one| named(one.name, one.spec))
            .collect()
    };
    let (schemas, levels) = (objects(defaults::schemas()), objects(defaults::levels()));
    flow.digest(&schemas, &levels);
    (flow, schemas, levels)
}

fn goes_to(flow: &FlowControl, identity: &Identity, url: &str) -> (String, String) {
    let schema = flow.classify(identity, &asks(url).0).unwrap();
    (schema.name.clone(), schema.level.name.clone())
}

#[test]
fn everybody_goes_where_the_defaults_send_him() {
    let (flow, ..) = configured(600);
    let node = Identity::user("system:node:n", &["system:nodes"]);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
    for (identity, url, schema, level) in [
        (
            Identity::user("admin", &["system:masters"]),
            "/api/v1/pods",
            "exempt",
            "exempt",
        ),
        (Identity::anonymous(), "/healthz", "probes", "exempt"),
        (
            Identity::anonymous(),
            "/version",
            "global-default",
            "global-default",
        ),
        (
            node.clone(),
            "/api/v1/nodes/n",
            "system-node-high",
            "node-high",
        ),
        (node.clone(), lease, "system-node-high", "node-high"),
        (node, "/api/v1/pods", "system-nodes", "system"),
        (
            Identity::user("system:kube-scheduler", &[]),
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler",
            "system-leader-election",
            "leader-election",
        ),
        (
            Identity::user("system:kube-scheduler", &[]),
            "/api/v1/pods",
            "kube-scheduler",
            "workload-high",
        ),
        (
            Identity::service_account("kube-system", "job-controller"),
            "/api/v1/pods",
            "kube-system-service-accounts",
            "workload-high",
        ),
        (
            Identity::service_account("shop", "default"),
            "/api/v1/pods",
            "service-accounts",
            "workload-low",
        ),
        (
            Identity::user("ann", &[]),
            "/api/v1/pods",
            "global-default",
            "global-default",
        ),
    ] {
        let found = goes_to(&flow, &identity, url);
        assert_eq!(found, (schema.to_owned(), level.to_owned()), "{url}");
    }
    // In neither of the groups of everybody.
    let nobody = Identity::default();
    assert_eq!(goes_to(&flow, &nobody, "/api/v1/pods").0, "catch-all");
}

#[test]
fn a_schema_without_its_level_is_told_so_and_leads_nowhere() {
    let (flow, mut schemas, mut levels) = configured(600);
    schemas.push(named(
        "mine",
        json!({"priorityLevelConfiguration": {"name": "mine"}, "matchingPrecedence": 50,
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                    "namespaces": ["*"], "clusterScope": true}]}]}),
    ));
    let dangling = |references: Vec<Reference>| -> Vec<String> {
        let dangling = references.into_iter().filter(|one| one.dangling);
        dangling.map(|one| one.schema).collect()
    };
    assert_eq!(dangling(flow.digest(&schemas, &levels)), ["mine"]);
    let ann = Identity::user("ann", &[]);
    assert_eq!(goes_to(&flow, &ann, "/api/v1/pods").0, "global-default");
    levels.push(named(
        "mine",
        json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
            "limitResponse": {"type": "Reject"}}}),
    ));
    assert!(dangling(flow.digest(&schemas, &levels)).is_empty());
    assert_eq!(goes_to(&flow, &ann, "/api/v1/pods").1, "mine");
    // Gone with all others: what is mandatory stays.
    flow.digest(&[], &[]);
    assert_eq!(goes_to(&flow, &ann, "/api/v1/pods").1, "catch-all");
    assert_eq!(flow.levels().len(), 2);
}

#[test]
fn a_level_that_is_gone_serves_whom_it_has() {
    let (flow, schemas, levels) = configured(600);
    let schema = flow
        .classify(&Identity::user("ann", &[]), &asks("/api/v1/pods").0)
        .unwrap();
    let Entry::Seat(seat) = schema
        .level
        .enter(&schema, queues::Width::ONE, 7, "ann", false)
    else {
        panic!("there are seats");
    };
    let rest: Vec<Value> = levels
        .iter()
        .filter(|level| object::name(level) != "global-default")
        .cloned()
        .collect();
    flow.digest(&schemas, &rest);
    let names = || -> Vec<String> { flow.levels().iter().map(|it| it.name.clone()).collect() };
    assert!(names().contains(&"global-default".to_owned()));
    assert!(!flow.adjust());
    drop(seat);
    assert!(flow.adjust(), "it can go now");
    flow.digest(&schemas, &rest);
    assert!(!names().contains(&"global-default".to_owned()));
}

#[tokio::test]
async fn waiting_ends_with_a_seat_or_in_time() {
    let (flow, ..) = configured(12);
    let schema = flow
        .classify(&Identity::user("ann", &[]), &asks("/api/v1/pods").0)
        .unwrap();
    let enter = || {
        schema
            .level
            .enter(&schema, queues::Width::ONE, 7, "ann", false)
    };
    let mut seats = Vec::new();
    let place = loop {
        match enter() {
            Entry::Seat(seat) => seats.push(seat),
            Entry::Place(place) => break place,
            Entry::Refused => panic!("it can wait"),
        }
    };
    assert_eq!(seats.len(), 1, "half of what can be lent is lent");
    let Entry::Place(gone) = enter() else {
        panic!("it waits");
    };
    drop(gone);
    let Entry::Place(impatient) = enter() else {
        panic!("it waits");
    };
    assert!(impatient.wait(Duration::from_millis(20)).await.is_none());
    let served = tokio::spawn(place.wait(Duration::from_secs(60)));
    tokio::task::yield_now().await;
    drop(seats);
    assert!(served.await.unwrap().is_some());
    let text = flow.metrics();
    let labels = "priority_level=\"global-default\",flow_schema=\"global-default\"";
    for expected in [
        format!("apiserver_flowcontrol_dispatched_requests_total{{{labels}}} 2"),
        format!("apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"time-out\"}} 2"),
        format!("apiserver_flowcontrol_current_inqueue_requests{{{labels}}} 0"),
        format!("apiserver_flowcontrol_current_executing_seats{{{labels}}} 0"),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"global-default\"} 1".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected} in\n{text}");
    }
    let page = flow.page("dump_priority_levels", jiff::Timestamp::UNIX_EPOCH);
    assert!(page.unwrap().contains("global-default,"));
}

/// By hand: `cargo test --release -p evenkeel-server flow::tests::what -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_request_costs() {
    let (flow, ..) = configured(600);
    let rows = Arc::new(Rows::builtin());
    let kinds = Arc::new(crate::definitions::Kinds::new(&rows));
    let caches = Arc::new(crate::cache::Caches::new(&rows, kinds));
    let directory = tempfile::tempdir().unwrap();
    let store = evenkeel_store::embedded::EmbeddedStore::open(
        &directory.path().join("store"),
        evenkeel_store::embedded::EmbeddedOptions::default(),
    )
    .unwrap();
    let registry = Registry {
        rows,
        store: Arc::new(store),
        caches,
        seal: Arc::new(crate::seal::Seal::open(&directory.path().join("key")).unwrap()),
        clock: Arc::new(evenkeel_api::clock::SystemClock),
        converters: Arc::default(),
        counted: Arc::default(),
    };
    let query = Query::default();
    for (who, identity) in [
        (
            "an administrator",
            Identity::user("admin", &["system:masters"]),
        ),
        (
            "a service account",
            Identity::service_account("shop", "default"),
        ),
        ("a user", Identity::user("ann", &["dev"])),
    ] {
        let path = "/api/v1/namespaces/shop/configmaps";
        let attributes = Attributes::of(&http::Method::POST, path, &query);
        let rounds = 1_000_000;
        let began = std::time::Instant::now();
        for _ in 0..rounds {
            let seat = flow.admit(&registry, &identity, &attributes, &query).await;
            drop(std::hint::black_box(seat));
        }
        let nanos = began.elapsed().as_nanos() / rounds;
        println!("{who}: {nanos} ns a request");
    }
}
