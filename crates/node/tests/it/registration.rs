//! What other people write into the node's status, and what the agent makes of it.

use serde_json::{Value, json};

use crate::cluster::{LIMIT, Node};

async fn until(node: &Node, holds: impl Fn(&Value) -> bool) {
    let reached = async {
        loop {
            if node.api.get("nodes", "", "n1").is_some_and(|it| holds(&it)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    if tokio::time::timeout(LIMIT, reached).await.is_err() {
        panic!("{:#?}", node.api.get("nodes", "", "n1"));
    }
}

#[tokio::test(start_paused = true)]
async fn amounts_given_by_hand_can_be_allocated_until_they_are_taken_back() {
    let node = Node::start();
    until(&node, |it| it["status"]["allocatable"]["pods"] == "110").await;
    node.api.change("nodes", "", "n1", |node| {
        node["status"]["capacity"]["example.com/dongle"] = json!("4");
    });
    until(&node, |it| {
        it["status"]["allocatable"]["example.com/dongle"] == "4"
            && it["status"]["capacity"]["example.com/dongle"] == "4"
    })
    .await;
    node.api.change("nodes", "", "n1", |node| {
        let capacity = node["status"]["capacity"].as_object_mut().expect("a map");
        capacity.remove("example.com/dongle");
    });
    until(&node, |it| {
        it["status"]["allocatable"]["example.com/dongle"].is_null()
            && it["status"]["allocatable"]["pods"] == "110"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_written_off_says_that_it_is_there() {
    let node = Node::start();
    let ready = |it: &Value, status: &str| {
        let conditions = it["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter()
                .any(|one| one["type"] == "Ready" && one["status"] == status)
        })
    };
    until(&node, |it| ready(it, "True")).await;
    node.api.change("nodes", "", "n1", |node| {
        for condition in node["status"]["conditions"]
            .as_array_mut()
            .expect("conditions")
        {
            condition["status"] = json!("Unknown");
        }
    });
    until(&node, |it| ready(it, "True")).await;
}
