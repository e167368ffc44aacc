//! The specification's questions and answers, then real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::service::{Protocol, Service, ServiceKey, ServicePort};
use crate::world::{endpoint, service, slice};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, last)
}

fn resolver(upstreams: Vec<SocketAddr>) -> Resolver {
    let resolver = Resolver::new(ResolverConfig {
        domain: "cluster.local".into(),
        address: Ipv4Addr::new(10, 96, 0, 10),
        networks: vec![
            "10.96.0.0/12".parse().unwrap(),
            "10.244.0.0/16".parse().unwrap(),
        ],
        upstreams: Upstreams::Fixed(upstreams),
    });
    let mut index = resolver.index.write();
    let tcp = Protocol::Tcp;

    let web = service("web", [10, 96, 1, 1], tcp, 80);
    let mut endpoints = slice("web", tcp, 8080, [v4(2)]);
    endpoints.endpoints[0].hostname = Some("first".into());
    index.update(&web.key, Some(&web), &[&endpoints]);

    let mut db = service("db", [0; 4], tcp, 5432);
    db.cluster_ips.clear();
    db.headless = true;
    let mut endpoints = slice("db", tcp, 15432, [v4(5), v4(6), v4(7)]);
    endpoints.endpoints[0].hostname = Some("db-0".into());
    endpoints.endpoints[2].ready = false;
    index.update(&db.key, Some(&db), &[&endpoints]);

    let mut early = db.clone();
    early.key.name = "early".into();
    early.publish_not_ready = true;
    endpoints.service.name = "early".into();
    index.update(&early.key, Some(&early), &[&endpoints]);

    let mut idle = db.clone();
    idle.key.name = "idle".into();
    index.update(&idle.key, Some(&idle), &[]);

    for (name, target) in [
        ("outside", "www.example.com"),
        ("inside", "web.default.svc.cluster.local"),
        ("circle", "circle.default.svc.cluster.local"),
    ] {
        let mut alias = Service::new(ServiceKey::new("default", name));
        alias.external_name = Some(target.into());
        index.update(&alias.key, Some(&alias), &[]);
    }

    let mut unnamed = service("plain", [10, 96, 1, 2], Protocol::Udp, 53);
    unnamed.ports[0].name = String::new();
    unnamed.cluster_ips.push(ip("fd00::1"));
    index.update(&unnamed.key, Some(&unnamed), &[]);
    drop(index);
    resolver
}

fn question(name: &str, kind: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let kind = kind.parse().unwrap();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(resolver: &Resolver, name: &str, kind: &str) -> Message {
    let request = question(name, kind);
    let answer = resolver
        .answer_now(&request.to_vec().unwrap(), true)
        .unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, request.metadata.id);
    assert_eq!(answer.queries, request.queries);
    answer
}

/// Sorted, as `type data`.
fn data(records: &[Record]) -> Vec<String> {
    let mut out: Vec<_> = records
        .iter()
        .map(|record| format!("{} {}", record.record_type(), record.data))
        .collect();
    out.sort();
    out
}

#[test]
fn the_specifications_questions() {
    let resolver = resolver(vec![]);
    let table: &[(&str, &str, &[&str])] = &[
        // 2.2
        ("dns-version.cluster.local.", "TXT", &["TXT 1.1.0"]),
        // 2.3.1, in any case of letters
        ("web.default.svc.cluster.local.", "A", &["A 10.96.1.1"]),
        ("WEB.Default.svc.Cluster.LOCAL.", "A", &["A 10.96.1.1"]),
        (
            "plain.default.svc.cluster.local.",
            "AAAA",
            &["AAAA fd00::1"],
        ),
        // 2.3.2
        (
            "_main._tcp.web.default.svc.cluster.local.",
            "SRV",
            &["SRV 0 100 80 web.default.svc.cluster.local."],
        ),
        // 2.3.3
        (
            "1.1.96.10.in-addr.arpa.",
            "PTR",
            &["PTR web.default.svc.cluster.local."],
        ),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            "PTR",
            &["PTR plain.default.svc.cluster.local."],
        ),
        // 2.4.1
        (
            "db.default.svc.cluster.local.",
            "A",
            &["A 10.244.0.5", "A 10.244.0.6"],
        ),
        ("db-0.db.default.svc.cluster.local.", "A", &["A 10.244.0.5"]),
        (
            "10-244-0-6.db.default.svc.cluster.local.",
            "A",
            &["A 10.244.0.6"],
        ),
        (
            "early.default.svc.cluster.local.",
            "A",
            &["A 10.244.0.5", "A 10.244.0.6", "A 10.244.0.7"],
        ),
        // Endpoints with a hostname have a name under services with an address, too.
        (
            "first.web.default.svc.cluster.local.",
            "A",
            &["A 10.244.0.2"],
        ),
        // 2.4.2
        (
            "_main._tcp.db.default.svc.cluster.local.",
            "SRV",
            &[
                "SRV 0 50 15432 10-244-0-6.db.default.svc.cluster.local.",
                "SRV 0 50 15432 db-0.db.default.svc.cluster.local.",
            ],
        ),
        // 2.4.3
        (
            "6.0.244.10.in-addr.arpa.",
            "PTR",
            &[
                "PTR 10-244-0-6.db.default.svc.cluster.local.",
                "PTR 10-244-0-6.early.default.svc.cluster.local.",
            ],
        ),
        (
            "2.0.244.10.in-addr.arpa.",
            "PTR",
            &["PTR first.web.default.svc.cluster.local."],
        ),
        // 2.5
        (
            "outside.default.svc.cluster.local.",
            "CNAME",
            &["CNAME www.example.com."],
        ),
        (
            "inside.default.svc.cluster.local.",
            "A",
            &["A 10.96.1.1", "CNAME web.default.svc.cluster.local."],
        ),
        // 2.6
        (
            "10-244-0-9.default.pod.cluster.local.",
            "A",
            &["A 10.244.0.9"],
        ),
        // The zone itself.
        ("cluster.local.", "NS", &["NS ns.dns.cluster.local."]),
        ("ns.dns.cluster.local.", "A", &["A 10.96.0.10"]),
    ];
    for (name, kind, expected) in table {
        let answer = ask(&resolver, name, kind);
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{name} {kind}"
        );
        assert_eq!(data(&answer.answers), *expected, "{name} {kind}");
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert!(answer.answers.iter().all(|record| record.ttl == 5));
        assert_eq!(answer.answers[0].name, Name::from_ascii(name).unwrap());
    }
    let srv = ask(&resolver, "_main._tcp.db.default.svc.cluster.local.", "SRV");
    assert_eq!(data(&srv.additionals), ["A 10.244.0.5", "A 10.244.0.6"]);
}

#[test]
fn absent_names_and_absent_types_are_told_apart_and_both_carry_the_soa() {
    let resolver = resolver(vec![]);
    let (no_name, no_data) = (ResponseCode::NXDomain, ResponseCode::NoError);
    for (name, kind, code) in [
        ("nobody.default.svc.cluster.local.", "A", no_name),
        ("web.elsewhere.svc.cluster.local.", "A", no_name),
        ("elsewhere.svc.cluster.local.", "A", no_name),
        ("x.cluster.local.", "A", no_name),
        (
            "web.default.svc.cluster.local.default.svc.cluster.local.",
            "A",
            no_name,
        ),
        // A headless service without ready endpoints (2.4.1).
        ("idle.default.svc.cluster.local.", "A", no_name),
        ("10-244-0-7.db.default.svc.cluster.local.", "A", no_name),
        ("_other._tcp.web.default.svc.cluster.local.", "SRV", no_name),
        ("_main._udp.web.default.svc.cluster.local.", "SRV", no_name),
        ("__udp.plain.default.svc.cluster.local.", "SRV", no_name),
        ("300-1-1-1.default.pod.cluster.local.", "A", no_name),
        ("9.9.96.10.in-addr.arpa.", "PTR", no_name),
        ("web.default.svc.cluster.local.", "AAAA", no_data),
        ("web.default.svc.cluster.local.", "MX", no_data),
        ("_tcp.web.default.svc.cluster.local.", "A", no_data),
        ("_main._tcp.web.default.svc.cluster.local.", "A", no_data),
        ("default.svc.cluster.local.", "A", no_data),
        ("svc.cluster.local.", "A", no_data),
        ("cluster.local.", "A", no_data),
        ("1.1.96.10.in-addr.arpa.", "A", no_data),
    ] {
        let answer = ask(&resolver, name, kind);
        assert_eq!(answer.metadata.response_code, code, "{name} {kind}");
        assert!(answer.answers.is_empty(), "{name} {kind}");
        assert_eq!(answer.authorities.len(), 1, "{name} {kind}");
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        assert_eq!(answer.authorities[0].ttl, 5);
    }
    let circle = ask(&resolver, "circle.default.svc.cluster.local.", "A");
    assert_eq!(circle.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn a_changed_service_changes_its_names_and_no_others() {
    let resolver = resolver(vec![]);
    let web = service("web", [10, 96, 1, 7], Protocol::Tcp, 80);
    resolver.index.write().update(&web.key, Some(&web), &[]);
    let answer = ask(&resolver, "web.default.svc.cluster.local.", "A");
    assert_eq!(data(&answer.answers), ["A 10.96.1.7"]);
    let old = ask(&resolver, "1.1.96.10.in-addr.arpa.", "PTR");
    assert_eq!(old.metadata.response_code, ResponseCode::NXDomain);
    let names: Vec<_> = [
        "db", "early", "idle", "outside", "inside", "circle", "plain", "web",
    ]
    .into();
    for name in names {
        let namespace = ask(&resolver, "default.svc.cluster.local.", "A");
        assert_eq!(namespace.metadata.response_code, ResponseCode::NoError);
        resolver
            .index
            .write()
            .update(&ServiceKey::new("default", name), None, &[]);
    }
    let namespace = ask(&resolver, "default.svc.cluster.local.", "A");
    assert_eq!(namespace.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn what_does_not_fit_is_cut_and_said_so() {
    let resolver = resolver(vec![]);
    let mut big = service("big", [0; 4], Protocol::Tcp, 80);
    big.cluster_ips.clear();
    big.headless = true;
    let endpoints = slice("big", Protocol::Tcp, 80, (1..=200).map(v4));
    resolver
        .index
        .write()
        .update(&big.key, Some(&big), &[&endpoints]);
    let mut request = question("big.default.svc.cluster.local.", "A");
    let wire = |request: &Message, datagram| {
        resolver
            .answer_now(&request.to_vec().unwrap(), datagram)
            .unwrap()
    };
    let plain = wire(&request, true);
    assert!(plain.len() <= 512, "{}", plain.len());
    let plain = Message::from_vec(&plain).unwrap();
    assert!(plain.metadata.truncation);
    assert!(!plain.answers.is_empty());

    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    request.set_edns(edns);
    let larger = wire(&request, true);
    assert!(
        larger.len() > 512 && larger.len() <= 1232,
        "{}",
        larger.len()
    );
    let larger = Message::from_vec(&larger).unwrap();
    assert!(larger.metadata.truncation && larger.edns.is_some());

    let whole = Message::from_vec(&wire(&request, false)).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
}

#[test]
fn damaged_and_odd_messages() {
    let resolver = resolver(vec![]);
    assert_eq!(resolver.answer_now(b"", true), None);
    assert_eq!(resolver.answer_now(&[0; 5], true), None);
    let mut response = question("web.default.svc.cluster.local.", "A")
        .to_vec()
        .unwrap();
    response[2] |= 0x80;
    assert_eq!(resolver.answer_now(&response, true), None);
    let code = |bytes: &[u8]| {
        let answer = resolver.answer_now(bytes, true).unwrap();
        Message::from_vec(&answer).unwrap().metadata.response_code
    };
    let whole = question("web.default.svc.cluster.local.", "A")
        .to_vec()
        .unwrap();
    assert_eq!(code(&whole[..whole.len() - 3]), ResponseCode::FormErr);
    let mut two = question("web.default.svc.cluster.local.", "A");
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two.to_vec().unwrap()), ResponseCode::FormErr);
    let mut notify = whole.clone();
    notify[2] = 4 << 3;
    assert_eq!(code(&notify), ResponseCode::NotImp);
}

/// A server that answers every A question with 192.0.2.53, after counting it.
async fn upstream(counter: Arc<AtomicUsize>) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, Ordering::Relaxed);
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
            answer.add_queries(request.queries.clone());
            let name = request.queries[0].name().clone();
            let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 53)));
            answer.add_answer(Record::from_rdata(name, 60, data));
            socket
                .send_to(&answer.to_vec().unwrap(), peer)
                .await
                .unwrap();
        }
    });
    address
}

async fn exchange(server: SocketAddr, request: &Message) -> Message {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket
        .send_to(&request.to_vec().unwrap(), server)
        .await
        .unwrap();
    let mut buffer = [0; 4096];
    let wait = tokio::time::timeout(Duration::from_secs(20), socket.recv_from(&mut buffer));
    let (length, _) = wait.await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn serve(resolver: Resolver) -> SocketAddr {
    let sockets = DnsSockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = sockets.addresses().unwrap()[0];
    tokio::spawn(sockets.serve(Arc::new(resolver)));
    address
}

#[tokio::test]
async fn other_names_are_asked_upstream_once_and_aliases_are_followed() {
    let counter = Arc::new(AtomicUsize::new(0));
    let server = serve(resolver(vec![upstream(Arc::clone(&counter)).await]));
    for _ in 0..3 {
        let answer = exchange(server, &question("www.example.com.", "A")).await;
        assert_eq!(data(&answer.answers), ["A 192.0.2.53"]);
        assert!(!answer.metadata.authoritative);
    }
    let alias = question("outside.default.svc.cluster.local.", "A");
    let answer = exchange(server, &alias).await;
    assert_eq!(
        data(&answer.answers),
        ["A 192.0.2.53", "CNAME www.example.com."]
    );
    assert_eq!(counter.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn without_a_resolver_or_with_one_that_leads_back_here_the_answer_is_servfail() {
    let server = serve(resolver(vec![]));
    let answer = exchange(server, &question("www.example.com.", "A")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);

    let sockets = DnsSockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let own = sockets.addresses().unwrap()[0];
    tokio::spawn(sockets.serve(Arc::new(resolver(vec![own]))));
    let answer = exchange(own, &question("www.example.com.", "A")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    // It still answers what it knows.
    let answer = exchange(own, &question("web.default.svc.cluster.local.", "A")).await;
    assert_eq!(data(&answer.answers), ["A 10.96.1.1"]);
}

#[tokio::test]
async fn streams_carry_several_questions() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = serve(resolver(vec![]));
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    for name in [
        "web.default.svc.cluster.local.",
        "db.default.svc.cluster.local.",
    ] {
        let request = question(name, "A").to_vec().unwrap();
        stream
            .write_u16(request.len().try_into().unwrap())
            .await
            .unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(!Message::from_vec(&answer).unwrap().answers.is_empty());
    }
}

#[test]
fn resolv_conf_without_ourselves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let text = "# made by hand\nsearch example.com\nnameserver 10.96.0.10\nnameserver 192.0.2.1 \
                # first\n  nameserver fd00::53\nnameserver nonsense\noptions ndots:5\n";
    std::fs::write(&path, text).unwrap();
    let forwarder = Forwarder::new(Upstreams::File {
        path,
        except: vec![ip("10.96.0.10")],
    });
    let servers: Vec<_> = forwarder
        .servers()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["192.0.2.1:53", "[fd00::53]:53"]);
}

#[test]
fn ports_and_endpoints_of_one_service_do_not_repeat() {
    let resolver = resolver(vec![]);
    let mut db = service("db", [0; 4], Protocol::Tcp, 5432);
    db.cluster_ips.clear();
    db.headless = true;
    db.ports.push(ServicePort {
        name: "x".into(),
        ..db.ports[0].clone()
    });
    let mut one = slice("db", Protocol::Tcp, 15432, [v4(5)]);
    // The same endpoint in two slices, as while they are being repacked.
    one.endpoints = vec![endpoint(v4(5))];
    let mut two = one.clone();
    two.name = "db-2".into();
    resolver
        .index
        .write()
        .update(&db.key, Some(&db), &[&one, &two]);
    let answer = ask(&resolver, "db.default.svc.cluster.local.", "A");
    assert_eq!(data(&answer.answers), ["A 10.244.0.5"]);
    let answer = ask(&resolver, "_main._tcp.db.default.svc.cluster.local.", "SRV");
    assert_eq!(answer.answers.len(), 1);
}
