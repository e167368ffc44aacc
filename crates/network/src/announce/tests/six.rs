//! IPv6: who asks for an address by neighbour discovery is answered, and led to its service.

use std::io::Write as _;
use std::net::{Ipv6Addr, UdpSocket};

use super::*;
use crate::netlink::route::Mac;
use crate::netlink::{Socket, route, six};
use crate::nft::Family;
use crate::service::Slice;
use crate::world::{Server, ask_udp, neighbour};

fn at(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x33, 0, 0, 0, 0, last)
}

const NODE: u16 = 1;
const CLIENT: u16 = 2;
const OTHER: u16 = 3;
const BALANCER: u16 = 0x100;
/// As `/proc/net/igmp6` writes the group in which that is asked for.
const GROUP: &str = "ff0200000000000000000001ff000100";

/// Like `node`, where the kernel has IPv6; says on the terminal when it has not.
fn node6(test: impl FnOnce() + Send) {
    node(|| {
        let off = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
        if !std::path::Path::new(off).exists() {
            let line = "SKIPPED a test of IPv6: the kernel has none\n";
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return;
        }
        std::fs::write(off, "0").unwrap();
        test();
    });
}

/// Gives the link of the calling thread's namespace an address.
fn give(link: &str, address: Ipv6Addr) {
    on(link, |socket, index| {
        six::add_address(socket, index, address, false).unwrap();
    });
}

/// Something with a link of the calling thread's namespace.
fn on<T>(link: &str, act: impl FnOnce(&mut Socket, u32) -> T) -> T {
    let mut socket = Socket::route().unwrap();
    let index = route::link(&mut socket, link).unwrap().unwrap().index;
    act(&mut socket, index)
}

/// A machine beside the node, on a bridge that switches and does not filter.
fn client() -> Arc<Netns> {
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = format!("/proc/sys/net/bridge/{name}");
        if std::path::Path::new(&path).exists() {
            std::fs::write(path, "0").unwrap();
        }
    }
    let client = Arc::new(outside());
    give("lan0", at(NODE));
    client.run(|| give("eth0", at(CLIENT)));
    client
}

/// Whom the machine takes for the one that has the address.
fn remembered(client: &Netns) -> Option<Mac> {
    let found = client.run(|| on("eth0", |s, n| six::neighbour(s, n, at(BALANCER)).unwrap()));
    found.map(|found| found.mac)
}

/// Whether the calling thread's namespace listens for who asks for the address.
fn listens() -> bool {
    let groups = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
    groups
        .lines()
        .any(|line| line.contains("lan0") && line.contains(GROUP))
}

fn web(node: &str) -> Service {
    let mut web = service("web", [10, 96, 1, 1], Protocol::Tcp, 80);
    web.load_balancer_ips = vec![at(BALANCER).into()];
    web.announced = vec![Announced {
        address: at(BALANCER).into(),
        node: node.to_owned(),
        interfaces: ["lan0".to_owned()].into(),
    }];
    web
}

fn endpoints(last: u16, node: &str) -> Slice {
    let mut slice = slice("web", Protocol::Tcp, 8080, [at(last)]);
    slice.endpoints[0].node = Some(node.to_owned());
    slice
}

/// Asks beside the runtime, so that who is to answer is not held up, until the answer is as wanted.
async fn until6(
    client: &Arc<Netns>,
    port: u16,
    wanted: impl Fn(&Result<Answer, ErrorKind>) -> bool,
) {
    let begun = Instant::now();
    loop {
        let client = Arc::clone(client);
        let asked = move || client.run(|| ask((at(BALANCER), port)));
        let answer = tokio::task::spawn_blocking(asked).await.unwrap();
        if wanted(&answer) {
            return;
        }
        assert!(begun.elapsed() < BOUND, "the last answer was {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_true(what: &str, wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < BOUND, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_machine_on_the_link_reaches_a_service_by_its_ipv6_address() {
    node6(|| {
        let world = World::new();
        let client = client();
        let _a = Server::at("a", at(NODE).into(), 8080);
        runtime().block_on(async {
            let serving = serve(&world.network);
            world.apply([
                Change::Slice(endpoints(NODE, "node-1")),
                Change::Service(web("node-1")),
            ]);
            let from = |server: &'static str, last: u16| {
                let expected = Answer {
                    server: server.to_owned(),
                    client: at(last).into(),
                };
                move |answer: &Result<Answer, ErrorKind>| answer.as_ref() == Ok(&expected)
            };
            // The client is of the same network, so that only neighbour discovery leads it here.
            until6(&client, 80, from("a", CLIENT)).await;
            assert_eq!(remembered(&client), Some([2, 0, 0, 0, 0, 1]));
            assert!(listens());

            // What is no service at that address is refused, not sent in circles.
            until6(&client, 81, |it| *it == Err(ErrorKind::ConnectionRefused)).await;

            // An endpoint elsewhere sees the node, to which its answers have to go.
            let far = neighbour(OTHER.try_into().unwrap());
            far.run(|| give("lan0", at(OTHER)));
            let _b = far.run(|| Server::at("b", at(OTHER).into(), 8080));
            world.apply([Change::Slice(endpoints(OTHER, "node-2"))]);
            until6(&client, 80, from("b", NODE)).await;
            // The node itself goes by its own table.
            assert_eq!(ask((at(BALANCER), 80)).unwrap().server, "b");

            // Local policy: nobody is here, so that nobody answers.
            let mut local = web("node-1");
            local.external_local = true;
            world.apply([Change::Service(local.clone())]);
            until6(&client, 80, |it| *it == Err(ErrorKind::TimedOut)).await;
            world.apply([Change::Slice(endpoints(NODE, "node-1"))]);
            until6(&client, 80, from("a", CLIENT)).await;

            // Only whom the service admits, and nobody of a family that it does not name.
            for (range, admitted) in [
                ("2001:db8:34::/64", false),
                ("192.0.2.0/24", false),
                ("2001:db8:33::/64", true),
            ] {
                local.source_ranges = vec![range.parse().unwrap()];
                world.apply([Change::Service(local.clone())]);
                until6(&client, 80, |it| {
                    if admitted {
                        it.is_ok()
                    } else {
                        *it == Err(ErrorKind::TimedOut)
                    }
                })
                .await;
            }

            // Without endpoints of its family it refuses, whatever there is of the other.
            let other = slice("web", Protocol::Tcp, 8080, [Ipv4Addr::new(192, 0, 2, 1)]);
            world.apply([Change::Slice(other)]);
            until6(&client, 80, |it| *it == Err(ErrorKind::ConnectionRefused)).await;

            // Somebody else's now: this node is silent.
            world.apply([Change::Service(web("node-2"))]);
            until_true("the group is left", || !listens()).await;
            serving.abort();
        });
    });
}

#[test]
fn an_ipv6_address_moves_to_another_node_and_neighbours_are_told() {
    node6(|| {
        let world = World::new();
        let client = client();
        let _a = Server::at("a", at(NODE).into(), 8080);
        let other = neighbour(OTHER.try_into().unwrap());
        let state = tempfile::tempdir().unwrap();
        let path = state.path().to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel::<Change>();
        std::thread::scope(|scope| {
            let (other, path) = (&other, &path);
            scope.spawn(move || {
                other.run(move || {
                    give("lan0", at(OTHER));
                    let _b = Server::at("b", at(OTHER).into(), 8080);
                    let mut config = crate::world::config(path);
                    config.node_name = "node-2".into();
                    let network = NodeNetwork::start(config).unwrap();
                    network.note([Change::Slice(endpoints(OTHER, "node-2"))]);
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
                    world.apply([Change::Service(web(node))]);
                    tell.send(Change::Service(web(node))).unwrap();
                };
                let answers = |server: &'static str| {
                    move |it: &Result<Answer, ErrorKind>| {
                        it.as_ref().is_ok_and(|it| it.server == server)
                    }
                };
                world.apply([Change::Slice(endpoints(NODE, "node-1"))]);
                by("node-1");
                until6(&client, 80, answers("a")).await;
                for (node, server, mac) in [
                    ("node-2", "b", [2, 0, 0, 0, 0, 3]),
                    ("node-1", "a", [2, 0, 0, 0, 0, 1]),
                ] {
                    by(node);
                    // Told unasked: the client is silent meanwhile.
                    until_true("the neighbour is told", || remembered(&client) == Some(mac)).await;
                    until6(&client, 80, answers(server)).await;
                }
                // The node is gone without a word: the other one takes over.
                serving.abort();
                by("node-2");
                until6(&client, 80, answers("b")).await;
                stop.send(()).unwrap();
            });
        });
    });
}

#[test]
fn a_neighbour_that_asks_again_is_answered() {
    const HERE: Mac = [2, 0, 0, 0, 0, 1];
    node6(|| {
        let world = World::new();
        let client = client();
        let _a = Server::at("a", at(NODE).into(), 8080);
        runtime().block_on(async {
            let serving = serve(&world.network);
            world.apply([
                Change::Slice(endpoints(NODE, "node-1")),
                Change::Service(web("node-1")),
            ]);
            until6(&client, 80, Result::is_ok).await;
            // It asks the address itself now, and forgets it after three seconds.
            let probe = || {
                let probe = |s: &mut Socket, n| six::probe(s, n, at(BALANCER), HERE).unwrap();
                client.run(|| on("eth0", probe));
            };
            probe();
            let reachable = || {
                let look = |s: &mut Socket, n| six::neighbour(s, n, at(BALANCER)).unwrap();
                let found = client.run(|| on("eth0", look));
                if found.is_none() {
                    // On a machine that has no time for us.
                    probe();
                }
                found.is_some_and(|found| found.mac == HERE && found.reachable)
            };
            until_true("the probe is answered", reachable).await;
            serving.abort();
        });
    });
}

#[test]
fn who_takes_the_address_himself_finds_that_it_is_taken() {
    node6(|| {
        let world = World::new();
        let client = client();
        runtime().block_on(async {
            let serving = serve(&world.network);
            world.apply([Change::Service(web("node-1"))]);
            until_true("the group is joined", listens).await;
            let take = |s: &mut Socket, n| six::add_address(s, n, at(BALANCER), true).unwrap();
            client.run(|| {
                // So often, a second apart, on a machine that has no time for us.
                std::fs::write("/proc/sys/net/ipv6/conf/eth0/dad_transmits", "20").unwrap();
                on("eth0", take);
            });
            let taken = || {
                let look = |s: &mut Socket, n| six::is_taken(s, n, at(BALANCER)).unwrap();
                client.run(|| on("eth0", look))
            };
            until_true("the address is taken", taken).await;
            serving.abort();
        });
    });
}

#[test]
fn links_that_come_later_are_listened_to() {
    node6(|| {
        let world = World::new();
        runtime().block_on(async {
            let serving = serve(&world.network);
            world.apply([Change::Service(web("node-1"))]);
            let _client = client();
            until_true("the group is joined", listens).await;
            serving.abort();
        });
    });
}

#[test]
fn the_table_for_ipv6_is_there_while_a_service_has_such_an_address() {
    node6(|| {
        let world = World::new();
        let exists = || {
            let mut socket = crate::Nfnetlink::open().unwrap();
            crate::nft::table_exists(&mut socket, Family::V6, "evenkeel-test").unwrap()
        };
        let forwards = || {
            let path = "/proc/sys/net/ipv6/conf/all/forwarding";
            std::fs::read_to_string(path).unwrap().trim() == "1"
        };
        let plain = service("plain", [10, 96, 1, 2], Protocol::Tcp, 80);
        world.apply([Change::Service(plain)]);
        assert!(!exists() && !forwards());
        // A second one of the same owner's comes into what is there.
        let mut second = web("node-1");
        second.key.name = "web-2".into();
        second.ports[0].port = 81;
        for service in [web("node-1"), second.clone()] {
            world.apply([Change::Service(service)]);
            assert!(exists() && forwards());
        }
        world.apply([Change::ServiceGone(web("node-1").key)]);
        assert!(exists());
        world.apply([Change::ServiceGone(second.key)]);
        assert!(!exists());
        world.apply([Change::Service(web("node-1"))]);
        assert!(exists());
        // An agent that begins again with nothing of the kind removes it.
        let state = world.stop();
        let next = NodeNetwork::start(crate::world::config(state.path())).unwrap();
        assert!(exists());
        next.note([Change::Services(vec![]), Change::Slices(vec![])]);
        next.sync().unwrap();
        assert!(!exists());
    });
}

#[test]
fn links_that_learn_of_routers_go_on_doing_so() {
    node6(|| {
        let world = World::new();
        let _client = client();
        let setting = |link: &str| format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        let read = |link| std::fs::read_to_string(setting(link)).unwrap();
        std::fs::write(setting("lan0"), "1").unwrap();
        std::fs::write(setting("ek0"), "0").unwrap();
        world.apply([Change::Service(web("node-1"))]);
        assert_eq!(read("lan0").trim(), "2");
        assert_eq!(read("ek0").trim(), "0");
    });
}

#[test]
fn udp_clients_of_an_ipv6_address_are_led_away_from_an_endpoint_that_is_gone() {
    const SECOND: u16 = 0x11;
    node6(|| {
        let world = World::new();
        let client = client();
        give("lan0", at(SECOND));
        let _a = Server::at("a", at(NODE).into(), 5353);
        let _b = Server::at("b", at(SECOND).into(), 5353);
        runtime().block_on(async {
            let serving = serve(&world.network);
            let mut dns = web("node-1");
            dns.ports[0].protocol = Protocol::Udp;
            dns.affinity = Some(Duration::from_secs(60));
            let slice = |last: u16| slice("web", Protocol::Udp, 5353, [at(last)]);
            world.apply([Change::Service(dns), Change::Slice(slice(NODE))]);
            let socket = client.run(|| UdpSocket::bind("[::]:0").unwrap());
            let socket = Arc::new(socket);
            let until = async |server: &str| {
                let begun = Instant::now();
                loop {
                    let socket = Arc::clone(&socket);
                    let asked = move || ask_udp(&socket, (at(BALANCER), 80));
                    let answer = tokio::task::spawn_blocking(asked).await.unwrap();
                    if answer.as_ref().is_ok_and(|it| it.server == server) {
                        return;
                    }
                    assert!(begun.elapsed() < BOUND, "the last answer was {answer:?}");
                }
            };
            until("a").await;
            // The same socket, so the same connection to conntrack.
            world.network.note([Change::Slice(slice(SECOND))]);
            assert_eq!(world.network.sync().unwrap().forgotten, 1);
            until("b").await;
            serving.abort();
        });
    });
}

#[test]
fn both_families_are_announced_side_by_side() {
    node6(|| {
        let world = World::new();
        let client = client();
        let _a = Server::at("a", at(NODE).into(), 8080);
        let pod = world.pod("pod");
        let _pod = pod.serve(8080);
        runtime().block_on(async {
            let serving = serve(&world.network);
            let mut dual = web("node-1");
            let four = announced_by("node-1");
            dual.load_balancer_ips.extend(four.load_balancer_ips);
            dual.announced.extend(four.announced);
            let mut fours = slice("web", Protocol::Tcp, 8080, [pod.ip]);
            fours.name = "web-4".into();
            world.apply([
                Change::Service(dual),
                Change::Slice(fours),
                Change::Slice(endpoints(NODE, "node-1")),
            ]);
            until6(&client, 80, |it| {
                it.as_ref().is_ok_and(|it| it.server == "a")
            })
            .await;
            until(&client, |it| it.as_ref().is_ok_and(|it| it.server == "pod")).await;
            serving.abort();
        });
    });
}
