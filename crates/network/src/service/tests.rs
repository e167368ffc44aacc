//! Real connections between real namespaces: what a client sees is what is tested.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::nft::Family;
use crate::node::{Change, NodeNetwork, cleanup};
use crate::world::{World, ask, ask_udp, config, endpoint, node, outside, service, slice};

use super::*;

const WEB: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 1, 1), 80);
const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;

fn web() -> Service {
    service("web", [10, 96, 1, 1], TCP, 80)
}

/// The names of the servers that answer within many tries.
fn servers(mut ask: impl FnMut() -> String) -> BTreeSet<String> {
    (0..60).map(|_| ask()).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn bridge_netfilter(on: bool) {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if std::path::Path::new(path).exists() {
        std::fs::write(path, if on { "1" } else { "0" }).unwrap();
    }
}

#[test]
fn pods_reach_each_other_services_and_themselves_with_and_without_bridge_netfilter() {
    for bridge_nf in [true, false] {
        node(|| {
            bridge_netfilter(bridge_nf);
            let world = World::new();
            let (a, b) = (world.pod("a"), world.pod("b"));
            let (_a, _b) = (a.serve(8080), b.serve(8080));
            let direct = a.ask((b.ip, 8080)).unwrap();
            assert_eq!(
                (direct.server.as_str(), direct.client),
                ("b", IpAddr::V4(a.ip))
            );

            world.apply([
                Change::Service(web()),
                Change::Slice(slice("web", TCP, 8080, [a.ip, b.ip])),
            ]);
            // From a pod, itself included (hairpin), and from the host.
            assert_eq!(servers(|| a.ask(WEB).unwrap().server), names(["a", "b"]));
            assert_eq!(servers(|| ask(WEB).unwrap().server), names(["a", "b"]));
            // Another pod sees the real client; the pod itself sees the gateway.
            for _ in 0..20 {
                let answer = a.ask(WEB).unwrap();
                let expected = if answer.server == "a" {
                    world.network.gateway()
                } else {
                    a.ip
                };
                assert_eq!(answer.client, IpAddr::V4(expected));
            }
        });
    }
}

#[test]
fn without_endpoints_a_connection_is_refused_at_once() {
    node(|| {
        let world = World::new();
        let a = world.pod("a");
        world.apply([Change::Service(web())]);
        let start = Instant::now();
        assert_eq!(a.ask(WEB).unwrap_err(), ErrorKind::ConnectionRefused);
        assert_eq!(ask(WEB).unwrap_err(), ErrorKind::ConnectionRefused);
        // A port that the service does not have, and an address that no service has.
        let _server = a.serve(8080);
        world.apply([Change::Slice(slice("web", TCP, 8080, [a.ip]))]);
        assert_eq!(
            a.ask((WEB.0, 81)).unwrap_err(),
            ErrorKind::ConnectionRefused
        );
        let nobody = Ipv4Addr::new(10, 96, 7, 7);
        assert_eq!(
            a.ask((nobody, 80)).unwrap_err(),
            ErrorKind::ConnectionRefused
        );
        assert_eq!(ask((nobody, 80)).unwrap_err(), ErrorKind::ConnectionRefused);
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?}",
            start.elapsed()
        );
        // Datagrams too.
        world.apply([Change::Service(service("dns", [10, 96, 1, 2], UDP, 53))]);
        let refused = a.netns.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect("10.96.1.2:53").unwrap();
            ask_udp_connected(&socket)
        });
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
    });
}

fn ask_udp_connected(socket: &UdpSocket) -> Result<usize, ErrorKind> {
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    socket.send(b"?").map_err(|error| error.kind())?;
    socket.recv(&mut [0; 100]).map_err(|error| error.kind())
}

#[test]
fn an_endpoint_that_is_not_ready_is_out_of_the_service_with_the_change() {
    node(|| {
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        let (_a, _b) = (a.serve(8080), b.serve(8080));
        let mut endpoints = slice("web", TCP, 8080, [a.ip, b.ip]);
        world.apply([Change::Service(web()), Change::Slice(endpoints.clone())]);
        assert_eq!(servers(|| ask(WEB).unwrap().server), names(["a", "b"]));

        endpoints.endpoints[0].ready = false;
        endpoints.endpoints[0].serving = false;
        world.apply([Change::Slice(endpoints.clone())]);
        assert_eq!(servers(|| ask(WEB).unwrap().server), names(["b"]));

        // Terminating ones serve on only while nothing is ready.
        endpoints.endpoints[1].ready = false;
        endpoints.endpoints[1].terminating = true;
        world.apply([Change::Slice(endpoints.clone())]);
        assert_eq!(servers(|| ask(WEB).unwrap().server), names(["b"]));

        endpoints.endpoints[1].serving = false;
        world.apply([Change::Slice(endpoints.clone())]);
        assert_eq!(ask(WEB).unwrap_err(), ErrorKind::ConnectionRefused);

        endpoints.endpoints[0].ready = true;
        world.apply([Change::Slice(endpoints)]);
        assert_eq!(servers(|| ask(WEB).unwrap().server), names(["a"]));

        world.apply([Change::ServiceGone(web().key)]);
        assert_eq!(ask(WEB).unwrap_err(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn node_ports_are_reached_from_outside_from_the_host_and_from_its_loopback() {
    node(|| {
        let world = World::new();
        let outside = outside();
        let a = world.pod("a");
        let _a = a.serve(8080);
        let mut web = web();
        web.ports[0].node_port = Some(30080);
        web.external_ips = vec!["198.51.100.7".parse().unwrap()];
        world.apply([
            Change::Service(web.clone()),
            Change::Slice(slice("web", TCP, 8080, [a.ip])),
        ]);
        let lan = Ipv4Addr::new(192, 0, 2, 1);
        let gateway = IpAddr::V4(world.network.gateway());
        assert_eq!(outside.run(|| ask((lan, 30080))).unwrap().client, gateway);
        assert_eq!(ask((lan, 30080)).unwrap().server, "a");
        assert_eq!(ask((Ipv4Addr::LOCALHOST, 30080)).unwrap().server, "a");
        assert_eq!(a.ask((lan, 30080)).unwrap().server, "a");
        let external = (Ipv4Addr::new(198, 51, 100, 7), 80);
        assert_eq!(outside.run(|| ask(external)).unwrap().server, "a");
        assert_eq!(outside.run(|| ask(WEB)).unwrap().client, gateway);

        // Policy Local keeps the client's address, and drops where no endpoint is here.
        web.external_local = true;
        world.apply([Change::Service(web.clone())]);
        let client: IpAddr = "192.0.2.2".parse().unwrap();
        assert_eq!(outside.run(|| ask((lan, 30080))).unwrap().client, client);
        let mut elsewhere = slice("web", TCP, 8080, [a.ip]);
        elsewhere.endpoints[0].node = Some("node-2".into());
        world.apply([Change::Slice(elsewhere)]);
        assert_eq!(
            outside.run(|| ask((lan, 30080))).unwrap_err(),
            ErrorKind::TimedOut
        );
        assert_eq!(a.ask((lan, 30080)).unwrap().server, "a");

        // No endpoint at all: refused.
        world.apply([Change::Slices(vec![])]);
        let refused = outside.run(|| ask((lan, 30080))).unwrap_err();
        assert_eq!(refused, ErrorKind::ConnectionRefused);
        assert_eq!(
            outside.run(|| ask(external)).unwrap_err(),
            ErrorKind::ConnectionRefused
        );
    });
}

/// What is translated here must come back here, wherever the endpoint is.
#[test]
fn a_pod_of_another_node_is_masqueraded_at_a_node_port() {
    use crate::netlink::{Socket, route};

    node(|| {
        let world = World::new();
        let other = outside();
        let a = world.pod("a");
        let _a = a.serve(8080);
        let mut web = web();
        web.ports[0].node_port = Some(30080);
        world.apply([
            Change::Service(web),
            Change::Slice(slice("web", TCP, 8080, [a.ip])),
        ]);
        let (lan, pod) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 244, 7, 5));
        let index = |socket: &mut Socket, name| route::link(socket, name).unwrap().unwrap().index;
        let mut socket = Socket::route().unwrap();
        let there = route::Route {
            to: "10.244.7.0/24".parse().unwrap(),
            via: Some(Ipv4Addr::new(192, 0, 2, 2)),
            device: index(&mut socket, "lan0"),
            source: None,
        };
        route::configure(&mut socket, &[], &[], &[there]).unwrap();
        let answer = other.run(|| {
            let mut socket = Socket::route().unwrap();
            let device = index(&mut socket, "eth0");
            let here = (device, ipnet::Ipv4Net::new(pod, 32).unwrap());
            let from_pod = route::Route {
                to: ipnet::Ipv4Net::new(lan, 32).unwrap(),
                via: None,
                device,
                source: Some(pod),
            };
            route::configure(&mut socket, &[], &[here], &[from_pod]).unwrap();
            ask((lan, 30080)).unwrap()
        });
        assert_eq!(answer.client, IpAddr::V4(world.network.gateway()));
    });
}

#[test]
fn pods_do_not_reach_what_listens_on_the_hosts_loopback() {
    node(|| {
        let world = World::new();
        let a = world.pod("a");
        let _host = crate::world::Server::start("host", 9000);
        let gateway = world.network.gateway();
        assert_eq!(a.ask((gateway, 9000)).unwrap().server, "host");
        // A pod with CAP_NET_ADMIN could send to 127.0.0.1 by way of the gateway.
        let reached = a.netns.run(|| {
            for name in ["all", "eth0"] {
                let path = format!("/proc/sys/net/ipv4/conf/{name}/route_localnet");
                std::fs::write(path, "1").unwrap();
            }
            let mut socket = crate::netlink::Socket::route().unwrap();
            let link = crate::netlink::route::link(&mut socket, "eth0")
                .unwrap()
                .unwrap()
                .index;
            let to = crate::netlink::route::Route {
                to: "127.9.0.0/16".parse().unwrap(),
                via: Some(gateway),
                device: link,
                source: Some(a.ip),
            };
            crate::netlink::route::configure(&mut socket, &[], &[], &[to]).unwrap();
            ask((Ipv4Addr::new(127, 9, 0, 1), 9000))
        });
        assert!(reached.is_err(), "{reached:?}");
    });
}

#[test]
fn session_affinity_keeps_a_client_until_its_endpoint_goes() {
    node(|| {
        let world = World::new();
        let pods: Vec<_> = ["a", "b", "c", "d"].map(|name| world.pod(name)).into();
        let _servers: Vec<_> = pods.iter().map(|pod| pod.serve(8080)).collect();
        let client = world.pod("client");
        let mut web = web();
        web.affinity = Some(Duration::from_secs(60));
        let mut endpoints = slice("web", TCP, 8080, pods.iter().map(|pod| pod.ip));
        world.apply([Change::Service(web), Change::Slice(endpoints.clone())]);
        let chosen = servers(|| client.ask(WEB).unwrap().server);
        assert_eq!(chosen.len(), 1, "{chosen:?}");
        let chosen = chosen.first().unwrap().clone();

        // Another endpoint going does not matter; its own does.
        let other = pods.iter().position(|pod| pod.name != chosen).unwrap();
        endpoints.endpoints.remove(other);
        world.apply([Change::Slice(endpoints.clone())]);
        assert_eq!(
            servers(|| client.ask(WEB).unwrap().server),
            names([&chosen])
        );
        let own = pods.iter().find(|pod| pod.name == chosen).unwrap().ip;
        endpoints
            .endpoints
            .retain(|endpoint| endpoint.address != own);
        world.apply([Change::Slice(endpoints)]);
        let next = servers(|| client.ask(WEB).unwrap().server);
        assert_eq!(next.len(), 1, "{next:?}");
        assert!(!next.contains(&chosen));
    });
}

#[test]
fn pods_leave_with_the_nodes_address() {
    node(|| {
        let world = World::new();
        let outside = outside();
        let a = world.pod("a");
        let _server = outside.run(|| crate::world::Server::start("outside", 7000));
        let answer = a.ask((Ipv4Addr::new(192, 0, 2, 2), 7000)).unwrap();
        assert_eq!(answer.client, "192.0.2.1".parse::<IpAddr>().unwrap());
    });
}

#[test]
fn host_ports_lead_to_their_pod_and_survive_a_restart() {
    node(|| {
        let world = World::new();
        let outside = outside();
        let lan = Ipv4Addr::new(192, 0, 2, 1);
        let netns = crate::world::Netns::new();
        let port = |host_port, host_ip| HostPort {
            protocol: TCP,
            host_port,
            host_ip,
            container_port: 8080,
        };
        let ports = [port(8081, None), port(8082, Some(lan))];
        world.network.attach("a", &netns.path(), &ports).unwrap();
        let _server = netns.run(|| crate::world::Server::start("a", 8080));
        let check = || {
            let client: IpAddr = "192.0.2.2".parse().unwrap();
            assert_eq!(outside.run(|| ask((lan, 8081))).unwrap().client, client);
            assert_eq!(outside.run(|| ask((lan, 8082))).unwrap().client, client);
            assert_eq!(ask((Ipv4Addr::LOCALHOST, 8081)).unwrap().server, "a");
            let elsewhere = ask((Ipv4Addr::LOCALHOST, 8082)).unwrap_err();
            assert_eq!(elsewhere, ErrorKind::ConnectionRefused);
        };
        check();
        let state = world.stop();
        let again = NodeNetwork::start(config(state.path())).unwrap();
        again.note([Change::Services(vec![]), Change::Slices(vec![])]);
        again.sync().unwrap();
        check();
        again.detach("a").unwrap();
        let gone = outside.run(|| ask((lan, 8081))).unwrap_err();
        assert_eq!(gone, ErrorKind::ConnectionRefused);
    });
}

#[test]
fn udp_clients_are_led_away_from_an_endpoint_that_is_gone() {
    node(|| {
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        let (_a, _b) = (a.serve(5353), b.serve(5353));
        let to = (Ipv4Addr::new(10, 96, 1, 2), 53);
        let dns = service("dns", [10, 96, 1, 2], UDP, 53);
        world.apply([
            Change::Service(dns),
            Change::Slice(slice("dns", UDP, 5353, [a.ip])),
        ]);
        let client = world.pod("client");
        let socket = client.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        assert_eq!(ask_udp(&socket, to).unwrap().server, "a");
        // The same socket, so the same connection to conntrack.
        world
            .network
            .note([Change::Slice(slice("dns", UDP, 5353, [b.ip]))]);
        assert_eq!(world.network.sync().unwrap().forgotten, 1);
        assert_eq!(ask_udp(&socket, to).unwrap().server, "b");
        // From nothing to something as well.
        world.apply([Change::Slices(vec![])]);
        assert!(ask_udp(&socket, to).is_err());
        world.apply([Change::Slice(slice("dns", UDP, 5353, [a.ip]))]);
        assert_eq!(ask_udp(&socket, to).unwrap().server, "a");
    });
}

#[test]
fn udp_connections_of_services_that_went_while_nobody_watched_are_forgotten() {
    node(|| {
        let world = World::new();
        let a = world.pod("a");
        let _a = a.serve(5353);
        let to = (Ipv4Addr::new(10, 96, 1, 2), 53);
        let dns = service("dns", [10, 96, 1, 2], UDP, 53);
        world.apply([
            Change::Service(dns),
            Change::Slice(slice("dns", UDP, 5353, [a.ip])),
        ]);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        assert_eq!(ask_udp(&socket, to).unwrap().server, "a");
        let state = world.stop();
        let next = NodeNetwork::start(config(state.path())).unwrap();
        next.note([Change::Services(vec![]), Change::Slices(vec![])]);
        assert_eq!(next.sync().unwrap().forgotten, 1);
        assert!(ask_udp(&socket, to).is_err());
    });
}

#[test]
fn a_bridge_of_another_instance_is_refused_and_a_changed_cidr_moves_the_gateway() {
    node(|| {
        let world = World::new();
        let mut other = config(world.state.path());
        other.instance = "other".into();
        let error = NodeNetwork::start(other).unwrap_err().to_string();
        assert_eq!(
            error,
            "bridge ek0 belongs to \"evenkeel test\"; choose another bridge name"
        );

        let state = world.stop();
        let mut moved = config(state.path());
        moved.pod_cidr = "10.244.7.0/24".parse().unwrap();
        let network = NodeNetwork::start(moved).unwrap();
        let a = crate::world::Pod::new(&network, "a");
        assert_eq!(a.ip, Ipv4Addr::new(10, 244, 7, 2));
        let _a = a.serve(8080);
        assert_eq!(
            ask((a.ip, 8080)).unwrap().client,
            "10.244.7.1".parse::<IpAddr>().unwrap()
        );
        // The old gateway address is gone.
        assert!(UdpSocket::bind("10.244.0.1:0").is_err());
    });
}

#[test]
fn a_restart_takes_over_and_removes_what_went_meanwhile() {
    node(|| {
        let world = World::new();
        let (a, b) = (world.pod("a"), world.pod("b"));
        let (_a, _b) = (a.serve(8080), b.serve(8080));
        let old = service("old", [10, 96, 1, 9], TCP, 80);
        world.apply([
            Change::Service(web()),
            Change::Slice(slice("web", TCP, 8080, [a.ip])),
            Change::Service(old),
            Change::Slice(slice("old", TCP, 8080, [a.ip])),
        ]);
        let leases = world.network.leases();
        let state = world.stop();
        let next = NodeNetwork::start(config(state.path())).unwrap();
        assert_eq!(next.leases(), leases);
        // Until the services are known the old table serves.
        assert_eq!(ask(WEB).unwrap().server, "a");
        next.note([
            Change::Services(vec![web()]),
            Change::Slices(vec![slice("web", TCP, 8080, [b.ip])]),
        ]);
        next.sync().unwrap();
        assert_eq!(servers(|| ask(WEB).unwrap().server), names(["b"]));
        let gone = ask((Ipv4Addr::new(10, 96, 1, 9), 80)).unwrap_err();
        assert_eq!(gone, ErrorKind::ConnectionRefused);
        // Attaching again answers the same and keeps the link working.
        assert_eq!(next.attach("a", &a.netns.path(), &[]).unwrap(), a.ip);
        assert_eq!(b.ask((a.ip, 8080)).unwrap().server, "a");
    });
}

#[test]
fn cleanup_leaves_nothing() {
    node(|| {
        let world = World::new();
        let _a = world.pod("a");
        world.apply([Change::Service(web())]);
        let config = config(world.state.path());
        cleanup(&config).unwrap();
        cleanup(&config).unwrap();
        let mut socket = crate::netlink::Socket::route().unwrap();
        let links = crate::netlink::route::links(&mut socket).unwrap();
        let left: Vec<_> = links.into_iter().map(|link| link.name).collect();
        assert_eq!(left, ["lo"]);
        let mut socket = crate::Nfnetlink::open().unwrap();
        for family in [Family::V4, Family::V6] {
            let exists = crate::nft::table_exists(&mut socket, family, "evenkeel-test");
            assert!(!exists.unwrap(), "{family}");
        }
        assert_eq!(std::fs::read_dir(world.state.path()).unwrap().count(), 0);
    });
}

/// 1,000 services with 5 endpoints each; prints what it takes. The bounds are generous because
/// other work shares the machine.
#[test]
fn a_thousand_services_are_fast() {
    node(|| {
        let world = World::new();
        let make = |n: u32| {
            let [_, _, high, low] = n.to_be_bytes();
            let name = format!("s{n}");
            let ips = (2..7).map(|last| Ipv4Addr::new(10, 244, 0, last));
            (
                service(&name, [10, 97, high, low], TCP, 80),
                slice(&name, TCP, 8080, ips),
            )
        };
        let (services, slices): (Vec<_>, Vec<_>) = (1..=1000).map(make).unzip();
        let start = Instant::now();
        world
            .network
            .note([Change::Services(services), Change::Slices(slices)]);
        let full = world.network.sync().unwrap();
        let full_time = start.elapsed();
        let mut times = Vec::new();
        for n in 1..=20 {
            let (_, mut slice) = make(n);
            slice
                .endpoints
                .push(endpoint(Ipv4Addr::new(10, 244, 0, 99)));
            let start = Instant::now();
            world.network.note([Change::Slice(slice)]);
            let one = world.network.sync().unwrap();
            times.push(start.elapsed());
            assert_eq!(one.changed, 1);
            assert!(one.bytes < 3000, "{one:?}");
        }
        times.sort();
        let sizes = full.bytes / 1024;
        eprintln!(
            "full {full_time:?} ({sizes} KiB), one: {:?} median {:?}",
            times[0], times[10]
        );
        assert!(full_time < Duration::from_secs(2));
        assert!(times[0] < Duration::from_millis(20));
    });
}

#[test]
fn pods_resolve_names_at_the_cluster_address() {
    use hickory_proto::op::{Message, Query};
    use hickory_proto::rr::{Name, RecordType};
    node(|| {
        let world = World::new();
        let a = world.pod("a");
        world.apply([Change::Service(web())]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut request = Message::query();
        let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
        request.add_query(Query::query(name, RecordType::A));
        let bytes = request.to_vec().unwrap();
        let from_pod = || {
            a.netns.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect("10.96.0.10:53").unwrap();
                socket
            })
        };
        let from_host = UdpSocket::bind("0.0.0.0:0").unwrap();
        from_host.connect("10.96.0.10:53").unwrap();
        let both = [from_pod(), from_host];
        runtime.block_on(async {
            let ask = async {
                for socket in both {
                    socket.set_nonblocking(true).unwrap();
                    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
                    socket.send(&bytes).await.unwrap();
                    let mut buffer = [0; 512];
                    let length = socket.recv(&mut buffer).await.unwrap();
                    let answer = Message::from_vec(&buffer[..length]).unwrap();
                    assert_eq!(answer.answers[0].data.ip_addr(), Some(IpAddr::V4(WEB.0)));
                }
            };
            tokio::select! {
                ended = world.network.serve_dns() => panic!("DNS ended: {ended:?}"),
                asked = tokio::time::timeout(Duration::from_secs(5), ask) => asked.unwrap(),
            }
        });
    });
}

/// The whole loop: a change that arrives is in force without anybody asking for it, and not
/// before both lists are known.
#[test]
fn the_loop_follows_a_stream_of_changes() {
    node(|| {
        let world = World::new();
        let a = world.pod("a");
        let _a = a.serve(8080);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sender, receiver) = tokio::sync::mpsc::channel(10);
            let changes = futures::stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|change| (change, receiver))
            });
            let network = std::sync::Arc::clone(&world.network);
            let follow = tokio::spawn(async move { network.follow(changes).await });
            sender.send(Change::Services(vec![web()])).await.unwrap();
            sender
                .send(Change::Slices(vec![slice("web", TCP, 8080, [a.ip])]))
                .await
                .unwrap();
            let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
            // New threads inherit the node's namespace from this one.
            let ask = || async { tokio::task::spawn_blocking(|| ask(WEB)).await.unwrap() };
            while ask().await.is_err() {
                assert!(tokio::time::Instant::now() < deadline);
            }
            let mut gone = slice("web", TCP, 8080, [a.ip]);
            gone.endpoints[0].ready = false;
            gone.endpoints[0].serving = false;
            sender.send(Change::Slice(gone)).await.unwrap();
            while ask().await.is_ok() {
                assert!(tokio::time::Instant::now() < deadline);
            }
            drop(sender);
            follow.await.unwrap();
        });
    });
}

#[test]
fn attaching_takes_little_time() {
    node(|| {
        let world = World::new();
        let all: Vec<_> = (0..30).map(|_| crate::world::Netns::new()).collect();
        let mut times: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(n, netns)| {
                let start = Instant::now();
                world
                    .network
                    .attach(&format!("p{n}"), &netns.path(), &[])
                    .unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("attach: least {:?}, median {:?}", times[0], times[15]);
        assert!(times[0] < Duration::from_millis(20));
    });
}
