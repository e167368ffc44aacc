//! Watches of every row: in order, without a gap, and honest about what is too old.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_store::Store as _;
use evenkeel_testkit::Cluster;
use serde_json::{Value, json};

use super::{Kind, MERGE_PATCH, NAMESPACE, kinds, open, over_every_row};

fn config_maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn config_map(cluster: &Cluster) -> Kind {
    let mut kinds = kinds(cluster).into_iter();
    kinds
        .find(|kind| kind.row.gvk.kind == "ConfigMap")
        .expect("a row")
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list").iter();
    items
        .map(|item| item["metadata"]["name"].as_str().expect("a name"))
        .collect()
}

#[tokio::test]
async fn added_modified_deleted_with_growing_revisions() {
    over_every_row(|kind, admin| async move {
        let start = admin.get(&kind.path).await.expect(200).revision();
        let select = format!("{}?watch=true&labelSelector=suite", kind.path);
        let mut lines = admin
            .watch(&format!("{select}&resourceVersion={start}"))
            .await;
        assert_eq!(lines.code, 200);
        let made = admin.post(&kind.path, &kind.object("a")).await.expect(201);
        let label = json!({"metadata": {"labels": {"turn": "2"}}});
        let changed = admin
            .patch(&kind.named("a"), MERGE_PATCH, &label)
            .await
            .expect(200);
        kind.remove(&admin, "a").await;
        let mut seen = Vec::new();
        loop {
            let event = lines.next().await.unwrap();
            let (what, object) = (event["type"].as_str().unwrap().to_owned(), &event["object"]);
            assert_eq!(object["metadata"]["name"], "a", "{event:#}");
            assert_eq!(object["kind"], kind.row.gvk.kind.to_string());
            match seen.len() {
                0 => assert_eq!(*object, made.body),
                1 => assert_eq!(*object, changed.body),
                _ => {}
            }
            seen.push((what.clone(), evenkeel_testkit::revision(object)));
            if what == "DELETED" {
                break;
            }
        }
        assert_eq!(
            (seen[0].0.as_str(), seen[1].0.as_str()),
            ("ADDED", "MODIFIED")
        );
        assert!(
            seen.windows(2).all(|pair| pair[0].1 < pair[1].1),
            "{seen:?}"
        );
        // The same again from history.
        let mut again = admin
            .watch(&format!("{select}&resourceVersion={start}"))
            .await;
        for (what, revision) in &seen {
            assert_eq!(
                again.event().await,
                (what.clone(), "a".to_owned(), *revision)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    over_every_row(|kind, admin| async move {
        for name in ["a", "b", "c"] {
            admin.post(&kind.path, &kind.object(name)).await.expect(201);
        }
        let path = format!(
            "{}?watch=true&labelSelector=suite&allowWatchBookmarks=true&sendInitialEvents=true\
             &resourceVersionMatch=NotOlderThan",
            kind.path
        );
        let mut lines = admin.watch(&path).await;
        for name in ["a", "b", "c"] {
            let (what, seen, _) = lines.event().await;
            assert_eq!((what.as_str(), seen.as_str()), ("ADDED", name));
        }
        let bookmark = lines.next().await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(bookmark["object"]["kind"], kind.row.gvk.kind.to_string());
        let notes = &bookmark["object"]["metadata"]["annotations"];
        assert_eq!(notes["k8s.io/initial-events-end"], "true");
        let now = admin.get(&kind.path).await.revision();
        assert!(evenkeel_testkit::revision(&bookmark["object"]) <= now);
        // As tables: the bookmark is a table too, of one object that says the same.
        let mut tables = admin
            .watch_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io")
            .await;
        for _ in 0..3 {
            assert_eq!(tables.next().await.unwrap()["type"], "ADDED");
        }
        let end = tables.next().await.unwrap();
        assert_eq!(end["type"], "BOOKMARK");
        let rows = end["object"]["rows"].as_array().unwrap();
        assert_eq!((&end["object"]["kind"], rows.len()), (&json!("Table"), 1));
        let notes = &rows[0]["object"]["metadata"]["annotations"];
        assert_eq!(notes["k8s.io/initial-events-end"], "true");
        let text = admin.get("/metrics").await.expect(200).body;
        let listed = format!(
            "apiserver_watch_list_duration_seconds_count{{group=\"{}\",resource=\"{}\",scope=",
            kind.row.gvk.group, kind.row.plural
        );
        assert!(text.as_str().unwrap().contains(&listed), "{listed}");
        // It goes on after that without repeating anything.
        admin.post(&kind.path, &kind.object("d")).await.expect(201);
        let (what, name, _) = lines.event().await;
        assert_eq!((what.as_str(), name.as_str()), ("ADDED", "d"));
    })
    .await;
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    over_every_row(|kind, admin| async move {
        let start = admin.get(&kind.path).await.expect(200).revision();
        let path = format!(
            "{}?watch=true&labelSelector=in%3Dyes&resourceVersion={start}",
            kind.path
        );
        let mut lines = admin.watch(&path).await;
        let label = |value: Value| json!({"metadata": {"labels": {"in": value}}});
        admin
            .post(&kind.path, &kind.object("never"))
            .await
            .expect(201);
        admin.post(&kind.path, &kind.object("a")).await.expect(201);
        let entered = admin
            .patch(&kind.named("a"), MERGE_PATCH, &label("yes".into()))
            .await;
        let turn = json!({"metadata": {"labels": {"turn": "1"}}});
        let changed = admin.patch(&kind.named("a"), MERGE_PATCH, &turn).await;
        let left = admin
            .patch(&kind.named("a"), MERGE_PATCH, &label(Value::Null))
            .await;
        // What never matched goes without a word.
        kind.remove(&admin, "never").await;
        let back = admin
            .patch(&kind.named("a"), MERGE_PATCH, &label("yes".into()))
            .await;
        for (what, reply) in [
            ("ADDED", &entered),
            ("MODIFIED", &changed),
            ("DELETED", &left),
            ("ADDED", &back),
        ] {
            let event = lines.next().await.unwrap();
            assert_eq!(event["type"], what);
            assert_eq!(
                evenkeel_testkit::revision(&event["object"]),
                reply.revision()
            );
            let inside = event["object"]["metadata"]["labels"]["in"] == "yes";
            assert!(
                inside,
                "an object that leaves is shown as it last was inside: {event:#}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn metadata_and_table_watches() {
    over_every_row(|kind, admin| async move {
        let path = format!(
            "{}?watch=true&labelSelector=suite&timeoutSeconds=1",
            kind.path
        );
        let made = admin.post(&kind.path, &kind.object("a")).await.expect(201);
        let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        let reply = admin.get_as(&path, accept).await.expect(200);
        assert_eq!(reply.body["type"], "ADDED");
        assert_eq!(reply.body["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(reply.body["object"]["metadata"], made.body["metadata"]);
    })
    .await;
}

/// A page whose revision is gone says how to go on with what is there now.
#[tokio::test]
async fn a_list_goes_on_when_its_revision_is_gone() {
    let (cluster, admin) = open().await;
    let (path, kind) = (config_maps(), config_map(&cluster));
    for number in 0..5 {
        let map = kind.object(&format!("n{number}"));
        admin.post(&path, &map).await.expect(201);
    }
    let token = |answer: &Value| answer["metadata"]["continue"].as_str().unwrap().to_owned();
    let first = admin.get(&format!("{path}?limit=2")).await.expect(200);
    admin.post(&path, &kind.object("n15")).await.expect(201);
    let now = cluster.store().revision().await.unwrap();
    cluster.store().compact(now).await.unwrap();
    let page = |token: String| format!("{path}?limit=2&continue={token}");

    let gone = admin.get(&page(token(&first.body))).await.expect(410);
    assert_eq!(gone.reason(), "Expired");
    let ending = "and now may show up in the list.";
    assert!(gone.message().ends_with(ending), "{}", gone.message());
    let mut at = token(&gone.body);
    let mut revisions = Vec::new();
    for (shown, left) in [(["n15", "n2"], Some(2)), (["n3", "n4"], None)] {
        let next = admin.get(&page(at.clone())).await.expect(200);
        assert_eq!(names(&next.body), shown);
        assert_eq!(next.body["metadata"]["remainingItemCount"].as_u64(), left);
        revisions.push(next.revision());
        if left.is_some() {
            at = token(&next.body);
        }
    }
    assert!(revisions[0] > first.revision());
    assert_eq!(
        revisions[0], revisions[1],
        "from then on it is one revision"
    );

    // Asked for by revision alone, it is gone.
    let exact = format!("{path}?resourceVersion={}&limit=2", first.revision());
    let gone = admin.get(&exact).await.expect(410);
    let words = "The resourceVersion for the provided list is too old.";
    assert_eq!(gone.message(), words);
    // A token leads nowhere else.
    let elsewhere = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a/b"}"#);
    let refused = admin.get(&page(elsewhere)).await.expect(400);
    assert_eq!(
        refused.message(),
        "invalid continue token: continue key is not valid: a/b"
    );
}

#[tokio::test]
async fn a_compacted_revision_is_410_and_a_future_one_is_refused() {
    let (cluster, admin) = open().await;
    let path = config_maps();
    let old = admin.get(&path).await.expect(200).revision();
    let kind = config_map(&cluster);
    // More than the log of the kind keeps, so that the watch must go to the store.
    for number in 0..5 {
        admin
            .post(&path, &kind.object(&format!("n{number}")))
            .await
            .expect(201);
    }
    let now = cluster.store().revision().await.unwrap();
    cluster.store().compact(now).await.unwrap();
    let cluster = cluster.restarted().await;
    let admin = cluster.caller(evenkeel_server::Identity::user(
        "admin",
        &["system:masters"],
    ));
    let mut lines = admin
        .watch(&format!("{path}?watch=true&resourceVersion={old}"))
        .await;
    assert_eq!(lines.code, 200);
    let event = lines.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    let text = event["object"]["message"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("too old resource version: {old} (")),
        "{text}"
    );
    assert!(
        lines.next().await.is_none(),
        "the watch ends after an error"
    );
    let exact = format!("{path}?resourceVersion={old}&resourceVersionMatch=Exact");
    assert_eq!(admin.get(&exact).await.code, 410);

    let future = admin
        .get(&format!("{path}?resourceVersion=999999999"))
        .await;
    assert_eq!(
        (future.code, future.reason()),
        (504, "Timeout"),
        "{:#}",
        future.body
    );
    assert_eq!(
        future.body["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

#[tokio::test]
async fn a_watch_goes_on_over_a_restart() {
    let (cluster, admin) = open().await;
    let path = config_maps();
    let kind = config_map(&cluster);
    let start = admin.get(&path).await.expect(200).revision();
    let mut revisions = Vec::new();
    for number in 0..20 {
        let made = admin
            .post(&path, &kind.object(&format!("n{number:02}")))
            .await
            .expect(201);
        revisions.push(made.revision());
    }
    kind.remove(&admin, "n00").await;
    let cluster = cluster.restarted().await;
    let admin = cluster.caller(evenkeel_server::Identity::user(
        "admin",
        &["system:masters"],
    ));
    let middle = revisions[9];
    let made = admin.post(&path, &kind.object("later")).await.expect(201);
    assert!(
        made.revision() > *revisions.last().unwrap(),
        "revisions never go back"
    );
    for (from, first) in [(start, 0), (middle, 10)] {
        let mut lines = admin
            .watch(&format!("{path}?watch=true&resourceVersion={from}"))
            .await;
        for (number, revision) in revisions.iter().enumerate().skip(first) {
            let expected = ("ADDED".to_owned(), format!("n{number:02}"), *revision);
            assert_eq!(lines.event().await, expected);
        }
        let (what, name, _) = lines.event().await;
        assert_eq!((what.as_str(), name.as_str()), ("DELETED", "n00"));
        assert_eq!(lines.event().await.1, "later");
    }
}

/// A reader that does not read for 5,000 changes then gets every one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_misses_nothing() {
    const CHANGES: usize = 5_000;
    let (cluster, admin) = open().await;
    let path = config_maps();
    let start = admin.get(&path).await.expect(200).revision();
    let mut lines = admin
        .watch(&format!("{path}?watch=true&resourceVersion={start}"))
        .await;
    let filler = "x".repeat(1024);
    let writers = (0..50).map(|writer| {
        let (admin, path, filler) = (admin.clone(), path.clone(), filler.clone());
        tokio::spawn(async move {
            for number in 0..CHANGES / 50 {
                let name = format!("w{writer}-{number}");
                let map = json!({"metadata": {"name": name}, "data": {"filler": filler}});
                admin.post(&path, &map).await.expect(201);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut last = start;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..CHANGES {
        let (what, name, revision) = lines.event().await;
        assert_eq!(what, "ADDED");
        assert!(revision > last, "{revision} after {last}");
        last = revision;
        assert!(names.insert(name));
    }
    assert_eq!(names.len(), CHANGES);
    assert_eq!(admin.get(&path).await.revision(), last);
    drop(cluster);
}
