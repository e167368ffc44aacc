//! Every verb of every row.

use evenkeel_api::row::Verb;
use serde_json::{Value, json};

use super::examples::status;
use super::{APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, kinds, open, over_every_row};

#[tokio::test]
async fn create_get_and_list() {
    over_every_row(|kind, admin| async move {
        let made = admin.post(&kind.path, &kind.object("a")).await.expect(201);
        let metadata = &made.body["metadata"];
        assert!(
            metadata["uid"].as_str().is_some_and(|uid| uid.len() == 36),
            "{metadata:#}"
        );
        assert!(metadata["creationTimestamp"].is_string());
        assert!(made.revision() > 0);
        let managed = &metadata["managedFields"][0];
        assert_eq!(managed["operation"], "Update", "{metadata:#}");
        assert_eq!(managed["fieldsType"], "FieldsV1");
        assert_eq!(
            managed["fieldsV1"]["f:metadata"]["f:labels"]["f:suite"],
            json!({})
        );

        let got = admin.get(&kind.named("a")).await.expect(200);
        assert_eq!(got.body, made.body, "get answers what create answered");
        assert_eq!(got.content_type, "application/json");

        admin.post(&kind.path, &kind.object("b")).await.expect(201);
        admin.post(&kind.path, &kind.object("c")).await.expect(201);
        let all = admin
            .get(&format!("{}?labelSelector=suite%3Drows", kind.path))
            .await
            .expect(200);
        assert_eq!(all.body["kind"], format!("{}List", kind.row.gvk.kind));
        assert_eq!(all.body["apiVersion"], kind.row.gvk.api_version());
        assert_eq!(names(&all.body), ["a", "b", "c"]);
        assert!(all.revision() >= made.revision() + 2);
        let mut item = got.body.clone();
        if kind.row.custom.is_none() {
            // The list says what they are, as in the reference.
            let fields = item.as_object_mut().unwrap();
            fields.retain(|name, _| name != "apiVersion" && name != "kind");
        }
        assert_eq!(all.body["items"][0], item);

        let none = admin
            .get(&format!(
                "{}?labelSelector=suite%21%3Drows,suite",
                kind.path
            ))
            .await;
        assert_eq!(names(&none.expect(200).body), [""; 0]);
        let one = admin
            .get(&format!("{}?fieldSelector=metadata.name%3Db", kind.path))
            .await;
        assert_eq!(names(&one.expect(200).body), ["b"]);
        let wrong = admin
            .get(&format!("{}?fieldSelector=spec.nonsense%3Db", kind.path))
            .await;
        assert_eq!(wrong.code, 400, "{:#}", wrong.body);
        for field in &kind.row.selectable {
            let path = format!("{}?fieldSelector={}%3Dnever", kind.path, field.path);
            assert_eq!(
                names(&admin.get(&path).await.expect(200).body),
                [""; 0],
                "{}",
                field.path
            );
        }
    })
    .await;
}

#[tokio::test]
async fn list_goes_on_where_the_page_ended_and_shows_one_revision() {
    over_every_row(|kind, admin| async move {
        for name in ["p1", "p2", "p3", "p4", "p5"] {
            admin.post(&kind.path, &kind.object(name)).await.expect(201);
        }
        let select = format!("{}?labelSelector=suite&limit=2", kind.path);
        let first = admin.get(&select).await.expect(200);
        assert_eq!(names(&first.body), ["p1", "p2"]);
        let token = first.body["metadata"]["continue"]
            .as_str()
            .unwrap()
            .to_owned();
        // What changes between pages is not seen in them.
        kind.remove(&admin, "p3").await;
        admin
            .post(&kind.path, &kind.object("p35"))
            .await
            .expect(201);
        let second = admin
            .get(&format!("{select}&continue={token}"))
            .await
            .expect(200);
        assert_eq!(names(&second.body), ["p3", "p4"]);
        assert_eq!(second.revision(), first.revision());
        let token = second.body["metadata"]["continue"].as_str().unwrap();
        let third = admin
            .get(&format!("{select}&continue={token}"))
            .await
            .expect(200);
        assert_eq!(names(&third.body), ["p5"]);
        assert!(third.body["metadata"].get("continue").is_none());
        let plain = admin
            .get(&format!("{}?limit=1", kind.path))
            .await
            .expect(200);
        assert!(
            plain.body["metadata"]["remainingItemCount"]
                .as_u64()
                .unwrap()
                >= 4
        );
        let wrong = admin.get(&format!("{select}&continue=nonsense")).await;
        assert_eq!(wrong.code, 400, "{:#}", wrong.body);
        // The collection as it was.
        let exact = format!(
            "{}?labelSelector=suite&resourceVersion={}&resourceVersionMatch=Exact",
            kind.path,
            first.revision()
        );
        let then = admin.get(&exact).await.expect(200);
        assert_eq!(names(&then.body), ["p1", "p2", "p3", "p4", "p5"]);
        assert_eq!(then.revision(), first.revision());
    })
    .await;
}

#[tokio::test]
async fn update_needs_the_current_revision() {
    over_every_row(|kind, admin| async move {
        let first = admin
            .post(&kind.path, &kind.object("a"))
            .await
            .expect(201)
            .body;
        let mut second = first.clone();
        second["metadata"]["labels"]["turn"] = "2".into();
        let stored = admin.put(&kind.named("a"), &second).await.expect(200);
        assert!(stored.revision() > evenkeel_testkit::revision(&first));
        assert_eq!(stored.body["metadata"]["uid"], first["metadata"]["uid"]);
        assert_eq!(stored.body["metadata"]["labels"]["turn"], "2");

        let late = admin.put(&kind.named("a"), &second).await;
        assert_eq!((late.code, late.reason()), (409, "Conflict"));
        let resource = evenkeel_api::status::group_resource(&kind.row.gvk.group, &kind.row.plural);
        let expected = format!(
            "Operation cannot be fulfilled on {resource} \"a\": the object has been modified; \
             please apply your changes to the latest version and try again"
        );
        assert_eq!(late.message(), expected);
        assert_eq!(admin.get(&kind.named("a")).await.body, stored.body);

        // Writing what is there changes nothing, the revision included.
        let same = admin.put(&kind.named("a"), &stored.body).await.expect(200);
        assert_eq!(same.revision(), stored.revision());

        let mut missing = kind.object("missing");
        missing["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
        let path = kind.named("missing");
        if kind.row.made_by_updates {
            assert_eq!(admin.put(&path, &missing).await.code, 409);
            let dry = admin
                .put(&format!("{path}?dryRun=All"), &kind.object("missing"))
                .await;
            assert_eq!(dry.code, 201, "{:#}", dry.body);
            assert_eq!(admin.get(&path).await.code, 404);
            let made = admin.put(&path, &kind.object("missing")).await;
            assert_eq!(made.code, 201, "{:#}", made.body);
            assert_eq!(admin.get(&path).await.body, made.body);
        } else {
            let absent = admin.put(&path, &kind.object("missing")).await;
            assert_eq!((absent.code, absent.reason()), (404, "NotFound"));
        }
        // Without a revision it overwrites, or is refused, as the kind has it.
        for revision in [None, Some("0")] {
            let mut blind = stored.body.clone();
            let metadata = blind["metadata"].as_object_mut().unwrap();
            metadata.remove("resourceVersion");
            metadata.extend(revision.map(|it| ("resourceVersion".to_owned(), it.into())));
            let answer = admin.put(&kind.named("a"), &blind).await;
            if kind.row.versioned_updates {
                assert_eq!(answer.code, 422, "{:#}", answer.body);
                assert_eq!(
                    answer.message(),
                    format!(
                        "{resource} \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: \
                         must be specified for an update"
                    )
                );
            } else {
                assert_eq!(answer.code, 200, "{:#}", answer.body);
            }
        }
        let other = admin.put(&kind.named("b"), &kind.object("a")).await;
        assert_eq!(other.code, 400, "{:#}", other.body);
        let mut stranger = stored.body.clone();
        stranger["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
        let refused = admin.put(&kind.named("a"), &stranger).await;
        assert_eq!((refused.code, refused.reason()), (409, "Conflict"));
    })
    .await;
}

#[tokio::test]
async fn four_kinds_of_patch() {
    over_every_row(|kind, admin| async move {
        let path = kind.named("a");
        admin.post(&kind.path, &kind.object("a")).await.expect(201);
        let label = |name: &str| json!({"metadata": {"labels": {name: "1"}}});
        let merged = admin
            .patch(&path, MERGE_PATCH, &label("merge"))
            .await
            .expect(200);
        let strategic = admin
            .patch(&path, STRATEGIC_PATCH, &label("strategic"))
            .await
            .expect(200);
        assert!(strategic.revision() > merged.revision());
        let operations = json!([
            {"op": "test", "path": "/metadata/labels/merge", "value": "1"},
            {"op": "add", "path": "/metadata/labels/json", "value": "1"},
        ]);
        let json = admin
            .patch(&path, JSON_PATCH, &operations)
            .await
            .expect(200);
        assert_eq!(
            labels(&json.body),
            json!({"suite": "rows", "merge": "1", "strategic": "1", "json": "1"})
        );
        let gone = json!({"metadata": {"labels": {"merge": null}}});
        let gone = admin.patch(&path, MERGE_PATCH, &gone).await.expect(200);
        assert_eq!(gone.body["metadata"]["labels"].get("merge"), None);

        let operations =
            json!([{"op": "test", "path": "/metadata/labels/suite", "value": "other"}]);
        let refused = admin.patch(&path, JSON_PATCH, &operations).await;
        assert_eq!(
            (refused.code, refused.reason()),
            (422, "Invalid"),
            "{:#}",
            refused.body
        );
        let late = json!({"metadata": {"resourceVersion": "1", "labels": {"late": "1"}}});
        assert_eq!(admin.patch(&path, MERGE_PATCH, &late).await.code, 409);
        assert_eq!(
            admin
                .patch(&kind.named("missing"), MERGE_PATCH, &late)
                .await
                .code,
            404
        );
        assert_eq!(
            admin.patch(&path, "application/nonsense", &late).await.code,
            415
        );
    })
    .await;
}

#[tokio::test]
async fn apply_creates_owns_conflicts_and_forgets() {
    over_every_row(|kind, admin| async move {
        let path = kind.named("a");
        let apply = |manager: &str, force: &str, value: Value| {
            let path = format!("{path}?fieldManager={manager}{force}");
            let admin = admin.clone();
            async move { admin.patch(&path, APPLY_PATCH, &value).await }
        };
        let mut value = kind.object("a");
        value["metadata"]["labels"]["owner"] = "one".into();
        let made = apply("one", "", value.clone()).await.expect(201);
        let managed = &made.body["metadata"]["managedFields"][0];
        assert_eq!(
            (&managed["manager"], &managed["operation"]),
            (&json!("one"), &json!("Apply"))
        );
        let again = apply("one", "", value.clone()).await.expect(200);
        assert_eq!(
            again.revision(),
            made.revision(),
            "applying the same changes nothing"
        );

        let mut other = json!({
            "apiVersion": value["apiVersion"], "kind": value["kind"],
            "metadata": {"name": "a", "labels": {"owner": "two"}},
        });
        // What a kind requires belongs into every configuration of it.
        for (name, part) in value.as_object().unwrap() {
            if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                other[name] = part.clone();
            }
        }
        let conflict = apply("two", "", other.clone()).await;
        assert_eq!(
            (conflict.code, conflict.reason()),
            (409, "Conflict"),
            "{:#}",
            conflict.body
        );
        assert!(
            conflict.message().contains("conflict with \"one\""),
            "{}",
            conflict.message()
        );
        let forced = apply("two", "&force=true", other).await.expect(200);
        assert_eq!(
            labels(&forced.body),
            json!({"owner": "two", "suite": "rows"})
        );

        // A field that its only owner no longer names goes.
        value["metadata"]["labels"].as_object_mut().unwrap().clear();
        let less = apply("one", "", value.clone()).await.expect(200);
        assert_eq!(labels(&less.body), json!({"owner": "two"}));
        let nobody = admin.patch(&path, APPLY_PATCH, &value).await;
        assert_eq!(nobody.code, 422, "{:#}", nobody.body);
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    over_every_row(|kind, admin| async move {
        let dry = format!("{}?dryRun=All", kind.path);
        let made = admin.post(&dry, &kind.object("a")).await.expect(201);
        assert!(made.body["metadata"]["uid"].is_string());
        assert_eq!(
            made.body["metadata"].get("resourceVersion"),
            None,
            "{:#}",
            made.body
        );
        assert_eq!(admin.get(&kind.named("a")).await.code, 404);
        let stored = admin
            .post(&kind.path, &kind.object("a"))
            .await
            .expect(201)
            .body;
        let on = format!("{}?dryRun=All", kind.named("a"));
        let patched = admin
            .patch(
                &on,
                MERGE_PATCH,
                &json!({"metadata": {"labels": {"x": "1"}}}),
            )
            .await;
        assert_eq!(patched.expect(200).body["metadata"]["labels"]["x"], "1");
        let mut changed = stored.clone();
        changed["metadata"]["labels"]["x"] = "2".into();
        assert_eq!(
            admin.put(&on, &changed).await.expect(200).body["metadata"]["labels"]["x"],
            "2"
        );
        admin.delete(&on, None).await.expect(200);
        admin
            .delete(&kind.named("a"), Some(&json!({"dryRun": ["All"]})))
            .await
            .expect(200);
        if kind.can(Verb::DeleteCollection) {
            admin
                .delete(&format!("{dry}&labelSelector=suite"), None)
                .await
                .expect(200);
        }
        assert_eq!(admin.get(&kind.named("a")).await.body, stored);
        let wrong = admin
            .post(&format!("{}?dryRun=Some", kind.path), &kind.object("b"))
            .await;
        assert_eq!(wrong.code, 422, "{:#}", wrong.body);
    })
    .await;
}

#[tokio::test]
async fn tables_and_partial_metadata() {
    over_every_row(|kind, admin| async move {
        let made = admin
            .post(&kind.path, &kind.object("a"))
            .await
            .expect(201)
            .body;
        let select = format!("{}?labelSelector=suite", kind.path);
        for path in [select.clone(), kind.named("a")] {
            let table = admin
                .get_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io")
                .await;
            let table = table.expect(200).body;
            assert_eq!(table["kind"], "Table");
            let columns = table["columnDefinitions"].as_array().unwrap();
            let rows = table["rows"].as_array().unwrap();
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0]["cells"].as_array().unwrap().len(), columns.len());
            let place = columns.iter().position(|column| column["format"] == "name");
            if let Some(place) = place {
                assert_eq!(rows[0]["cells"][place], "a");
            } else {
                assert_eq!(
                    kind.row.gvk.kind, "Event",
                    "only events have no name column"
                );
            }
            assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
            assert_eq!(rows[0]["object"]["metadata"], made["metadata"]);
        }
        let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        let partial = admin
            .get_as(&kind.named("a"), accept)
            .await
            .expect(200)
            .body;
        assert_eq!(partial["kind"], "PartialObjectMetadata");
        assert_eq!(partial["metadata"], made["metadata"]);
        assert_eq!(partial.as_object().unwrap().len(), 3);
        let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
        let list = admin.get_as(&select, accept).await.expect(200).body;
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!(list["items"][0]["metadata"], made["metadata"]);
    })
    .await;
}

#[tokio::test]
async fn deletion_and_its_preconditions() {
    over_every_row(|kind, admin| async move {
        let made = admin.post(&kind.path, &kind.object("a")).await.expect(201);
        let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
        let refused = admin.delete(&kind.named("a"), Some(&wrong)).await;
        assert_eq!((refused.code, refused.reason()), (409, "Conflict"));
        let said = refused.message();
        assert!(
            said.contains(
                "the UID in the precondition (00000000-0000-0000-0000-000000000000) does"
            ) && said.ends_with("The object might have been deleted and then recreated"),
            "{said}"
        );
        let wrong = json!({"preconditions": {"resourceVersion": "1"}});
        let refused = admin
            .delete(&kind.named("a"), Some(&wrong))
            .await
            .expect(409);
        let said = refused.message();
        let revision = format!(
            "does not match the ResourceVersion in record ({})",
            made.revision()
        );
        assert!(said.contains(&revision), "{said}");
        assert_eq!(
            admin.get(&kind.named("a")).await.revision(),
            made.revision()
        );
        kind.release(&admin, "a").await;
        if kind.row.gvk.kind != "Namespace" {
            let right = json!({"preconditions": {"uid": made.body["metadata"]["uid"]},
                "propagationPolicy": "Background"});
            let gone = admin
                .delete(&kind.named("a"), Some(&right))
                .await
                .expect(200);
            if gone.body["kind"] == "Status" {
                assert_eq!(gone.body["status"], "Success");
                assert_eq!(gone.body["details"]["name"], "a");
                assert_eq!(gone.body["details"]["uid"], made.body["metadata"]["uid"]);
            }
            assert_eq!(admin.get(&kind.named("a")).await.code, 404);
        }

        // A finalizer holds it; nothing else does.
        let mut held = kind.object("held");
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        admin.post(&kind.path, &held).await.expect(201);
        let held = kind.gone(&kind.named("held"));
        admin.delete(&held, None).await.expect(200);
        let marked = admin.get(&kind.named("held")).await.expect(200).body;
        assert!(marked["metadata"]["deletionTimestamp"].is_string());
        let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
        let refused = admin.patch(&kind.named("held"), MERGE_PATCH, &more).await;
        assert_eq!(refused.code, 422, "{:#}", refused.body);
        let free = json!({"metadata": {"finalizers": null, "labels": {"last": "1"}}});
        let freed = admin.patch(&kind.named("held"), MERGE_PATCH, &free).await;
        assert_eq!(freed.expect(200).body["metadata"]["labels"]["last"], "1");
        if kind.row.gvk.kind != "Namespace" {
            assert_eq!(admin.get(&kind.named("held")).await.code, 404);
        }

        if kind.can(Verb::DeleteCollection) {
            for name in ["c1", "c2"] {
                admin.post(&kind.path, &kind.object(name)).await.expect(201);
                kind.release(&admin, name).await;
            }
            let mut other = kind.object("stays");
            other["metadata"]["labels"] = json!({"suite": "other"});
            admin.post(&kind.path, &other).await.expect(201);
            let path = kind.gone(&format!("{}?labelSelector=suite%3Drows", kind.path));
            let gone = admin.delete(&path, None).await.expect(200);
            assert_eq!(names(&gone.body), ["c1", "c2"]);
            assert_eq!(admin.get(&kind.named("c1")).await.code, 404);
            admin.get(&kind.named("stays")).await.expect(200);
        }
    })
    .await;
}

/// The one kind whose names are no names: addresses.
#[tokio::test]
async fn addresses_are_named_by_themselves() {
    let (_cluster, admin) = open().await;
    let path = "/apis/networking.k8s.io/v1/ipaddresses";
    let address = |name: &str| {
        let mut value = super::examples::example("IPAddress").unwrap();
        value["metadata"] = json!({"name": name});
        value
    };
    for name in ["10.99.0.7", "2001:db8::7"] {
        admin.post(path, &address(name)).await.expect(201);
        let got = admin.get(&format!("{path}/{name}")).await.expect(200);
        assert_eq!(got.body["metadata"]["name"], name);
    }
    for name in ["10.99.0.07", "2001:DB8::8", "a"] {
        let refused = admin.post(path, &address(name)).await;
        assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{name}");
    }
    let all = admin.get(path).await.expect(200).body;
    // The first is the door's own, as a service.
    assert_eq!(names(&all), ["10.96.0.1", "10.99.0.7", "2001:db8::7"]);
    let moved = json!({"spec": {"parentRef": {"name": "other"}}});
    let path = format!("{path}/10.99.0.7");
    let refused = admin.patch(&path, MERGE_PATCH, &moved).await;
    assert_eq!(refused.code, 422, "{:#}", refused.body);
    admin.delete(&path, None).await.expect(200);
    assert_eq!(admin.get(&path).await.code, 404);
}

/// A request for a certificate says who made it, and is approved through a path of its own.
#[tokio::test]
async fn signing_requests_are_approved() {
    let (cluster, admin) = open().await;
    let kind = kinds(&cluster)
        .into_iter()
        .find(|kind| kind.row.gvk.kind == "CertificateSigningRequest")
        .unwrap();
    let mut asked = kind.object("a");
    asked["spec"]["username"] = "somebody-else".into();
    let made = admin.post(&kind.path, &asked).await.expect(201).body;
    assert_eq!(made["spec"]["username"], "admin");
    let approved = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Tested", "message": "by the suite"}]}});
    let path = kind.named("a");
    let status = format!("{path}/status");
    let refused = admin.patch(&status, MERGE_PATCH, &approved).await;
    assert_eq!(refused.code, 422, "{:#}", refused.body);
    let approval = format!("{path}/approval");
    let done = admin
        .patch(&approval, MERGE_PATCH, &approved)
        .await
        .expect(200)
        .body;
    let condition = &done["status"]["conditions"][0];
    assert_eq!(condition["type"], "Approved");
    assert!(condition["lastUpdateTime"].is_string(), "{condition}");
    assert_eq!(admin.get(&approval).await.expect(200).body, done);
    let back = json!({"status": {"conditions": null}});
    let refused = admin.patch(&approval, MERGE_PATCH, &back).await;
    assert_eq!(refused.code, 422, "{:#}", refused.body);
}

/// The oldest kinds leave what they own behind when a delete says nothing of it.
#[tokio::test]
async fn old_kinds_orphan_what_they_own() {
    let (cluster, admin) = open().await;
    let mut orphaning = Vec::new();
    for kind in kinds(&cluster) {
        if !kind.row.orphans {
            continue;
        }
        admin.post(&kind.path, &kind.object("a")).await.expect(201);
        admin.delete(&kind.named("a"), None).await.expect(200);
        let left = admin.get(&kind.named("a")).await.expect(200).body;
        assert_eq!(left["metadata"]["finalizers"], json!(["orphan"]));
        orphaning.push(kind.row.gvk.kind.to_string());
    }
    orphaning.sort();
    assert_eq!(orphaning, ["Job", "ReplicationController"]);
}

#[tokio::test]
async fn refusals_are_worded_as_by_the_reference() {
    over_every_row(|kind, admin| async move {
        let gvk = &kind.row.gvk;
        let resource = evenkeel_api::status::group_resource(&gvk.group, &kind.row.plural);
        let missing = admin.get(&kind.named("nobody")).await;
        assert_eq!((missing.code, missing.reason()), (404, "NotFound"));
        assert_eq!(
            missing.message(),
            format!("{resource} \"nobody\" not found")
        );
        assert_eq!(missing.body["details"]["kind"], kind.row.plural.to_string());
        assert_eq!(missing.body["kind"], "Status");
        assert_eq!(
            admin.delete(&kind.named("nobody"), None).await.message(),
            missing.message()
        );

        admin.post(&kind.path, &kind.object("a")).await.expect(201);
        let dry = format!("{}?dryRun=All", kind.path);
        assert_eq!(admin.post(&dry, &kind.object("a")).await.code, 409);
        let taken = admin.post(&kind.path, &kind.object("a")).await;
        assert_eq!((taken.code, taken.reason()), (409, "AlreadyExists"));
        assert_eq!(taken.message(), format!("{resource} \"a\" already exists"));

        for (method, path) in [
            ("PUT", kind.path.clone()),
            ("PATCH", kind.path.clone()),
            ("POST", kind.named("a")),
        ] {
            let headers = [(
                "content-type",
                if method == "PATCH" {
                    MERGE_PATCH
                } else {
                    "application/json"
                },
            )];
            let refused = admin
                .send(method, &path, &headers, Some(&kind.object("a")))
                .await;
            assert_eq!(
                (refused.code, refused.reason()),
                (405, "MethodNotAllowed"),
                "{method}"
            );
            assert_eq!(
                refused.message(),
                "the server does not allow this method on the requested resource"
            );
        }
        let unknown = admin.get(&format!("{}/nonsense", kind.named("a"))).await;
        assert_eq!(unknown.code, 404);
        assert_eq!(
            unknown.message(),
            "the server could not find the requested resource"
        );

        let mut wrong = kind.object("a");
        wrong["metadata"]["name"] = "with/slash".into();
        let refused = admin.post(&kind.path, &wrong).await;
        assert_eq!(
            (refused.code, refused.reason()),
            (422, "Invalid"),
            "{:#}",
            refused.body
        );
        assert_eq!(
            refused.body["details"]["causes"][0]["field"],
            "metadata.name"
        );
        let mut nameless = kind.object("a");
        nameless["metadata"].as_object_mut().unwrap().remove("name");
        let refused = admin.post(&kind.path, &nameless).await;
        assert_eq!(refused.code, 422, "{:#}", refused.body);
        let mut generated = nameless.clone();
        generated["metadata"]["generateName"] = "made-".into();
        let made = admin.post(&kind.path, &generated).await.expect(201).body;
        let name = made["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("made-") && name.len() == 10, "{name}");
        let mut stranger = kind.object("a");
        stranger["kind"] = "Nonsense".into();
        assert_eq!(admin.post(&kind.path, &stranger).await.code, 400);

        let mut odd = kind.object("odd");
        odd["nonsense"] = json!(1);
        let strict = admin
            .post(&format!("{}?fieldValidation=Strict", kind.path), &odd)
            .await;
        assert_eq!(strict.code, 400, "{:#}", strict.body);
        assert!(
            strict.message().contains("unknown field \"nonsense\""),
            "{}",
            strict.message()
        );
        assert_eq!(admin.get(&kind.named("odd")).await.code, 404);
        let warned = admin
            .post(&format!("{}?fieldValidation=Warn", kind.path), &odd)
            .await;
        let warned = warned.expect(201);
        assert!(
            warned.warnings.join("").contains("unknown field"),
            "{:?}",
            warned.warnings
        );
        assert_eq!(warned.body.get("nonsense"), None);

        if kind.row.namespaced() {
            let path = kind.path.replace("/rows/", "/nowhere/");
            let refused = admin.post(&path, &kind.object("a")).await;
            assert_eq!((refused.code, refused.reason()), (404, "NotFound"));
            assert_eq!(refused.message(), "namespaces \"nowhere\" not found");
            let mut elsewhere = kind.object("z");
            elsewhere["metadata"]["namespace"] = "default".into();
            assert_eq!(admin.post(&kind.path, &elsewhere).await.code, 400);
            // Lists of a namespace that is not there are empty, as by the reference.
            assert_eq!(names(&admin.get(&path).await.expect(200).body), [""; 0]);
            let everywhere = kind.path.replace("/namespaces/rows", "");
            let all = admin
                .get(&format!("{everywhere}?fieldSelector=metadata.name%3Da"))
                .await;
            assert_eq!(names(&all.expect(200).body), ["a"]);
        }
    })
    .await;
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    over_every_row(|kind, admin| async move {
        if !kind.row.has_status() {
            return;
        }
        let made = admin
            .post(&kind.path, &kind.object("a"))
            .await
            .expect(201)
            .body;
        let path = format!("{}/status", kind.named("a"));
        let mut sent = made.clone();
        sent["metadata"]["labels"]["by"] = "status".into();
        let shown = admin.put(&path, &sent).await.expect(200).body;
        // Labels go with the status too, but for kinds whose strategy keeps them.
        let keep = [
            "CSINode",
            "Deployment",
            "DeviceTaintRule",
            "PodCertificateRequest",
            "ResourceClaim",
            "ServiceCIDR",
            "VolumeAttachment",
        ];
        assert_eq!(
            shown["metadata"]["labels"]["by"] == "status",
            !keep.contains(&kind.row.gvk.kind.as_ref()),
            "labels of {} written with its status",
            kind.row.gvk.kind
        );
        assert_eq!(admin.get(&path).await.expect(200).body, shown);
        let wanted = status(&kind.row.gvk.kind);
        let patch = json!({"status": wanted.clone()});
        let through_main = admin.patch(&kind.named("a"), MERGE_PATCH, &patch).await;
        assert_eq!(
            through_main.expect(200).body["status"],
            made["status"],
            "the status is not written with the object"
        );
        let through_status = admin
            .patch(&path, MERGE_PATCH, &patch)
            .await
            .expect(200)
            .body;
        for (name, value) in wanted.as_object().unwrap() {
            let found = &through_status["status"][name];
            assert!(holds(found, value), "{name}: {found:#}");
        }
        assert_eq!(
            through_status["metadata"]["generation"],
            made["metadata"]["generation"]
        );
    })
    .await;
}

/// The labels that clients gave; namespaces get one of their own.
fn labels(object: &Value) -> Value {
    let mut labels = object["metadata"]["labels"].clone();
    if let Some(labels) = labels.as_object_mut() {
        labels.remove("kubernetes.io/metadata.name");
    }
    labels
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"]
        .as_array()
        .unwrap_or_else(|| panic!("no items: {list:#}"));
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

/// Whether all that is wanted is there; what is filled in may be there too.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| found.get(name).is_some_and(|found| holds(found, value))),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found
                    .iter()
                    .zip(wanted)
                    .all(|(found, wanted)| holds(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}
