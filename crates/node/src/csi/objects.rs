//! What the API says of this node's drivers: the CSINode object, and of the Node its annotation,
//! its labels of topology, and which volumes are in use.

use std::collections::BTreeMap;

use evenkeel_client::Api;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::driver::Driver;
use crate::volume::payload::api_text;

/// What drivers call this node, as JSON by driver.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// Tries while others write the same object.
const TRIES: u32 = 5;

/// Makes the CSINode when there is none, so that the node says that it has no drivers.
///
/// # Errors
/// The API's words.
pub async fn ensure(client: &Client, node: &str) -> Result<(), String> {
    let api: Api<CSINode> = Api::all(client.clone());
    let said = |error: kube::Error| api_text(&error);
    if api.get_opt(node).await.map_err(said)?.is_some() {
        return Ok(());
    }
    let fresh = fresh(client, node).await?;
    match api.create(&PostParams::default(), &fresh).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(api_text(&error)),
        Ok(_) => Ok(()),
    }
}

async fn fresh(client: &Client, node: &str) -> Result<CSINode, String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let owner = nodes.get(node).await.map_err(|error| api_text(&error))?;
    Ok(CSINode {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.to_owned(),
                uid: owner.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec::default(),
        status: None,
    })
}

/// A driver came: node first, as whoever reads the CSINode goes on to the node.
///
/// # Errors
/// The API's words, or labels that say another topology.
pub async fn install(client: &Client, node: &str, driver: &Driver) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let have = nodes.get(node).await.map_err(|error| api_text(&error))?;
    let labels = have.metadata.labels.as_ref();
    for (key, value) in &driver.topology {
        if let Some(other) = labels
            .and_then(|all| all.get(key))
            .filter(|it| *it != value)
        {
            return Err(format!(
                "detected topology value collision: driver reported \"{key}\":\"{value}\" but \
                 existing label is \"{key}\":\"{other}\""
            ));
        }
    }
    let mut ids = node_ids(&have);
    ids.insert(driver.name.clone(), driver.node_id.clone());
    let patch = json!({"metadata": {
        "annotations": {NODE_IDS: Value::from_iter(ids).to_string()},
        "labels": driver.topology,
    }});
    patch_node(&nodes, node, &patch).await?;
    change(client, node, |drivers| {
        drivers.retain(|it| it.name != driver.name);
        drivers.push(described(driver));
    })
    .await
}

/// A driver is gone.
///
/// # Errors
/// The API's words.
pub async fn uninstall(client: &Client, node: &str, driver: &str) -> Result<(), String> {
    change(client, node, |drivers| {
        drivers.retain(|it| it.name != driver);
    })
    .await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let have = nodes.get(node).await.map_err(|error| api_text(&error))?;
    let mut ids = node_ids(&have);
    if ids.remove(driver).is_none() {
        return Ok(());
    }
    let left = (!ids.is_empty()).then(|| Value::from_iter(ids).to_string());
    let patch = json!({"metadata": {"annotations": {NODE_IDS: left}}});
    patch_node(&nodes, node, &patch).await
}

async fn patch_node(nodes: &Api<Node>, node: &str, patch: &Value) -> Result<(), String> {
    let params = PatchParams::default();
    let patched = nodes.patch(node, &params, &Patch::Merge(patch)).await;
    patched.map(|_| ()).map_err(|error| api_text(&error))
}

fn node_ids(node: &Node) -> BTreeMap<String, String> {
    let annotations = node.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(NODE_IDS));
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// What the CSINode says of a driver.
fn described(driver: &Driver) -> CSINodeDriver {
    let limit = i32::try_from(driver.max_volumes).unwrap_or(i32::MAX);
    CSINodeDriver {
        name: driver.name.clone(),
        node_id: driver.node_id.clone(),
        topology_keys: Some(driver.topology.keys().cloned().collect()),
        allocatable: (driver.max_volumes > 0).then_some(VolumeNodeResources { count: Some(limit) }),
    }
}

async fn change(
    client: &Client,
    node: &str,
    edit: impl Fn(&mut Vec<CSINodeDriver>),
) -> Result<(), String> {
    let api: Api<CSINode> = Api::all(client.clone());
    let params = PostParams::default();
    let mut last = String::new();
    for _ in 0..TRIES {
        let found = api.get_opt(node).await.map_err(|error| api_text(&error))?;
        let written = match found {
            Some(mut object) => {
                let before = object.spec.drivers.clone();
                edit(&mut object.spec.drivers);
                if object.spec.drivers == before {
                    return Ok(());
                }
                api.replace(node, &params, &object).await
            }
            None => {
                let mut object = fresh(client, node).await?;
                edit(&mut object.spec.drivers);
                api.create(&params, &object).await
            }
        };
        match written {
            Ok(_) => return Ok(()),
            // Somebody else wrote, or made it, in between.
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                last.clone_from(&answer.message);
            }
            Err(error) => return Err(api_text(&error)),
        }
    }
    Err(format!("error updating CSINode: {last}"))
}

/// Says which volumes are in use.
///
/// # Errors
/// The API's words.
pub async fn report_in_use(client: &Client, node: &str, volumes: &[String]) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let volumes = (!volumes.is_empty()).then_some(volumes);
    let patch = json!({"status": {"volumesInUse": volumes}});
    let params = PatchParams::default();
    let patch = Patch::Merge(&patch);
    let patched = nodes.patch_status(node, &params, &patch).await;
    patched.map(|_| ()).map_err(|error| api_text(&error))
}
