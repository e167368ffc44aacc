//! A machine on the link reaches services by the addresses of load balancers, in namespaces of the
//! tests' own.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;

use crate::node::{Change, NodeNetwork};
use crate::service::{Announced, Protocol, Service};
use crate::world::{Answer, Netns, World, ask, node, outside, service, slice};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const BOUND: Duration = Duration::from_secs(30);

fn announced_by(node: &str) -> Service {
    let mut web = service("web", [10, 96, 1, 1], Protocol::Tcp, 80);
    web.load_balancer_ips = vec![ADDRESS.into()];
    web.announced = vec![Announced {
        address: ADDRESS.into(),
        node: node.to_owned(),
        interfaces: ["lan0".to_owned()].into(),
    }];
    web
}

/// Asks until the answer is as wanted.
async fn until(client: &Netns, wanted: impl Fn(&Result<Answer, ErrorKind>) -> bool) {
    let begun = Instant::now();
    loop {
        let answer = client.run(|| ask((ADDRESS, 80)));
        if wanted(&answer) {
            return;
        }
        assert!(begun.elapsed() < BOUND, "the last answer was {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn serve(network: &Arc<NodeNetwork>) -> tokio::task::JoinHandle<()> {
    let network = Arc::clone(network);
    tokio::spawn(async move { network.serve_balancers().await })
}

fn runtime() -> tokio::runtime::Runtime {
    // One thread: it stays in the namespace of the node.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_machine_on_the_link_reaches_a_service_by_its_address() {
    node(|| {
        let world = World::new();
        let client = outside();
        let a = world.pod("a");
        let _a = a.serve(8080);
        runtime().block_on(async {
            let serving = serve(&world.network);
            world.apply([
                Change::Slice(slice("web", Protocol::Tcp, 8080, [a.ip])),
                Change::Service(announced_by("node-1")),
            ]);
            // The client is of the same network, so that only ARP can lead it here.
            until(&client, |answer| {
                answer.as_ref().is_ok_and(|found| found.server == "a")
            })
            .await;

            // What is no service at that address is refused, not sent in circles.
            let other = client.run(|| ask((ADDRESS, 81))).unwrap_err();
            assert_eq!(other, ErrorKind::ConnectionRefused);

            // Local policy: the server sees who asks.
            let mut local = announced_by("node-1");
            local.external_local = true;
            world.apply([Change::Service(local.clone())]);
            let who: IpAddr = Ipv4Addr::new(192, 0, 2, 2).into();
            until(&client, |answer| {
                answer.as_ref().is_ok_and(|found| found.client == who)
            })
            .await;

            // Only whom the service admits.
            local.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
            world.apply([Change::Service(local.clone())]);
            until(&client, |answer| *answer == Err(ErrorKind::TimedOut)).await;
            local.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
            world.apply([Change::Service(local)]);
            until(&client, Result::is_ok).await;
            serving.abort();
        });
    });
}

#[test]
fn an_address_moves_to_another_node_and_clients_follow() {
    node(|| {
        let world = World::new();
        let client = outside();
        let a = world.pod("a");
        let _a = a.serve(8080);
        // The switch between the machines is a bridge of this one: it is to switch, not to route.
        let netfilter = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::path::Path::new(netfilter).exists() {
            std::fs::write(netfilter, "0").unwrap();
        }
        // A second machine on the same link, with a node's network of its own.
        let other = crate::world::neighbour(3);
        let state = tempfile::tempdir().unwrap();
        let path = state.path().to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel::<Change>();
        std::thread::scope(|scope| {
            let (other, path) = (&other, &path);
            scope.spawn(move || {
                other.run(move || {
                    let mut config = crate::world::config(path);
                    config.node_name = "node-2".into();
                    let network = NodeNetwork::start(config).unwrap();
                    let b = crate::world::Pod::new(&network, "b");
                    let _b = b.serve(8080);
                    let mut here = slice("web", Protocol::Tcp, 8080, [b.ip]);
                    here.endpoints[0].node = Some("node-2".into());
                    network.note([Change::Slice(here)]);
                    runtime().block_on(async {
                        let serving = serve(&network);
                        let mut stopped = stopped;
                        // It ends with the test, also with one that fails.
                        while stopped.try_recv() == Err(TryRecvError::Empty) {
                            while let Ok(change) = told.try_recv() {
                                network.note([change]);
                                network.sync().unwrap();
                            }
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        serving.abort();
                    });
                });
            });
            runtime().block_on(async {
                let serving = serve(&world.network);
                let by = |node: &str| {
                    world.apply([Change::Service(announced_by(node))]);
                    tell.send(Change::Service(announced_by(node))).unwrap();
                };
                world.apply([Change::Slice(slice("web", Protocol::Tcp, 8080, [a.ip]))]);
                for (node, server) in [("node-1", "a"), ("node-2", "b"), ("node-1", "a")] {
                    by(node);
                    until(&client, |answer| {
                        answer.as_ref().is_ok_and(|it| it.server == server)
                    })
                    .await;
                }
                // The node is gone without a word: the other one takes over.
                serving.abort();
                by("node-2");
                until(&client, |answer| {
                    answer.as_ref().is_ok_and(|it| it.server == "b")
                })
                .await;
                stop.send(()).unwrap();
            });
        });
    });
}

mod six;
