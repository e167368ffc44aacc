//! Volumes on a directory of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use evenkeel_node::volume::atomic::{FileEntry, write};
use serde_json::json;

use crate::cluster::{Node, container};

fn entry(path: &str, text: &str) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        data: text.as_bytes().to_vec(),
        mode: 0o640,
        user: None,
    }
}

#[test]
fn files_change_all_at_once_and_old_ones_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    write(at, &[entry("a", "1"), entry("sub/b", "2")], None).expect("written");
    assert_eq!(fs::read_to_string(at.join("sub/b")).expect("there"), "2");
    assert_eq!(
        fs::read_link(at.join("a")).expect("a link").to_str(),
        Some("..data/a")
    );
    let mode = fs::metadata(at.join("a"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let first = fs::read_link(at.join("..data")).expect("a link");
    write(at, &[entry("a", "1"), entry("sub/b", "2")], None).expect("nothing to do");
    assert_eq!(fs::read_link(at.join("..data")).expect("a link"), first);
    write(at, &[entry("a", "3")], None).expect("written");
    assert_eq!(fs::read_to_string(at.join("a")).expect("there"), "3");
    assert!(fs::symlink_metadata(at.join("sub")).is_err());
    assert!(fs::symlink_metadata(at.join(first)).is_err());
    for bad in ["../x", "/x", "a/../b", ""] {
        assert!(write(at, &[entry(bad, "")], None).is_err(), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn config_maps_are_mounted_and_follow_changes() {
    let node = Node::start();
    node.api.put(
        "configmaps",
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "settings", "namespace": "default" }, "data": { "a": "1" } }),
    );
    let mut app = container("app");
    app["volumeMounts"] = json!([
        { "name": "settings", "mountPath": "/etc/app" },
        { "name": "scratch", "mountPath": "/tmp" },
        { "name": "about", "mountPath": "/about" },
    ]);
    node.pod(
        "web",
        json!({ "containers": [app], "volumes": [
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "scratch", "emptyDir": {} },
            { "name": "about", "downwardAPI": { "items": [
                { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } } ] } },
        ] }),
    );
    node.until_ready("web").await;
    let mounts = node.runtime.config("app").expect("made").mounts;
    let host = |inside: &str| {
        let mount = mounts
            .iter()
            .find(|mount| mount.container_path.to_str() == Some(inside));
        mount.expect(inside).host_path.clone()
    };
    let file = host("/etc/app").join("a");
    assert_eq!(fs::read_to_string(&file).expect("there"), "1");
    assert_eq!(
        fs::read_to_string(host("/about").join("name")).expect("there"),
        "web"
    );
    let mode = fs::metadata(host("/tmp"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o777);
    let hosts = fs::read_to_string(host("/etc/hosts")).expect("there");
    let ip = node.api.get("pods", "default", "web").expect("there")["status"]["podIP"].clone();
    assert!(
        hosts.ends_with(&format!("{}\tweb\n", ip.as_str().expect("an address"))),
        "{hosts}"
    );
    node.api.change("configmaps", "default", "settings", |map| {
        map["data"]["a"] = json!("2")
    });
    tokio::time::sleep(Duration::from_secs(125)).await;
    assert_eq!(fs::read_to_string(&file).expect("there"), "2");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_replaced_when_four_fifths_of_its_life_are_over() {
    let node = Node::start();
    let mut app = container("app");
    app["volumeMounts"] = json!([{ "name": "token", "mountPath": "/token" }]);
    node.pod(
        "web",
        json!({ "containers": [app], "volumes": [{ "name": "token", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "expirationSeconds": 600 } } ] } }] }),
    );
    node.until_ready("web").await;
    let mounts = node.runtime.config("app").expect("made").mounts;
    let mount = mounts
        .iter()
        .find(|mount| mount.container_path.to_str() == Some("/token"));
    let file = mount.expect("mounted").host_path.join("token");
    let token = || fs::read_to_string(&file).expect("there");
    let first = token();
    tokio::time::sleep(Duration::from_secs(475)).await;
    assert_eq!(token(), first);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let second = token();
    assert_ne!(second, first);
    tokio::time::sleep(Duration::from_secs(485)).await;
    assert_ne!(token(), second);
}

#[tokio::test(start_paused = true)]
async fn what_this_node_does_not_have_is_refused_by_name() {
    let node = Node::start();
    node.pod(
        "web",
        json!({ "containers": [container("app")],
                "volumes": [{ "name": "data", "nfs": { "server": "a", "path": "/" } }] }),
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let wanted = "MountVolume.SetUp failed for volume \"data\" : volume source nfs is not \
                  supported by this node";
    let events = node.events();
    assert!(
        events.contains(&("FailedMount".to_owned(), wanted.to_owned())),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn images_are_volumes_of_the_containers_that_mount_them() {
    let node = Node::start();
    node.images.refuse("model:1");
    let mut app = container("app");
    app["volumeMounts"] = json!([
        { "name": "model", "mountPath": "/model" },
        { "name": "model", "mountPath": "/part", "subPath": "weights" },
    ]);
    node.pod(
        "reader",
        json!({ "containers": [app, container("side")],
            "volumes": [{ "name": "model",
                "image": { "reference": "model:1", "pullPolicy": "IfNotPresent" } }] }),
    );
    // Who does not mount it does not wait for it.
    let pod = node
        .until("reader", |pod| {
            let statuses = &pod["status"]["containerStatuses"];
            statuses[0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
                && statuses[1]["ready"] == true
        })
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "Back-off pulling image \"model:1\": ErrImagePull: model:1: not found"
    );
    node.images.allow("model:1");
    node.until_ready("reader").await;
    let config = node.runtime.config("app").expect("it was made");
    let mounted: Vec<_> = config
        .mounts
        .iter()
        .filter_map(|mount| {
            let image = mount.image.as_ref()?;
            let at = mount.container_path.display().to_string();
            Some((at, image.sub_path.clone(), mount.readonly))
        })
        .collect();
    let expected = [
        ("/model".to_owned(), String::new(), true),
        ("/part".to_owned(), "weights".to_owned(), true),
    ];
    assert_eq!(mounted, expected);
    let other = node.runtime.config("side").expect("it was made");
    assert!(other.mounts.iter().all(|mount| mount.image.is_none()));
}
