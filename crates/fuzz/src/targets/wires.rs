//! What comes in packets and frames: DNS, neighbours on the link, gRPC, and the shim's own.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use evenkeel_network::dns::{Resolver, ResolverConfig, Upstreams};
use evenkeel_network::service::{
    Endpoint, Protocol, Service, ServiceKey, ServicePort, Slice, SlicePort,
};

use super::text;
use crate::Shape;

/// No answer in a datagram is longer, whatever a client says that it takes.
const MOST_DATAGRAM: usize = 1232;

/// A resolver that knows a service, a headless one with many endpoints, and an alias.
static RESOLVER: LazyLock<Resolver> = LazyLock::new(|| {
    let resolver = Resolver::new(ResolverConfig {
        domain: "cluster.local".to_owned(),
        address: Ipv4Addr::new(10, 96, 0, 10),
        networks: ["10.244.0.0/16", "10.96.0.0/16"]
            .map(|net| net.parse().expect("a network"))
            .to_vec(),
        upstreams: Upstreams::Fixed(Vec::new()),
    });
    let key = |name: &str| ServiceKey {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    };
    let port = || ServicePort {
        name: "http".to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    };
    let mut web = Service::new(key("web"));
    web.cluster_ips = vec![
        IpAddr::from([10, 96, 0, 7]),
        "fd00::7".parse().expect("an address"),
    ];
    web.ports = vec![port()];
    let mut many = Service::new(key("many"));
    many.headless = true;
    many.ports = vec![port()];
    let endpoints = (1..=60).map(|last| Endpoint {
        address: IpAddr::from([10, 244, 0, last]),
        ready: true,
        serving: true,
        terminating: false,
        hostname: Some(format!("pod-{last}")),
        node: None,
        for_nodes: Vec::new(),
        for_zones: Vec::new(),
    });
    let slice = Slice {
        name: "many-1".to_owned(),
        service: key("many"),
        ports: vec![SlicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
        }],
        endpoints: endpoints.collect(),
    };
    let mut alias = Service::new(key("alias"));
    alias.external_name = Some("web.default.svc.cluster.local".to_owned());
    let mut circle = Service::new(key("circle"));
    circle.external_name = Some("circle.default.svc.cluster.local".to_owned());
    {
        let mut index = resolver.index.write();
        for service in [&web, &alias, &circle] {
            index.update(&service.key, Some(service), &[]);
        }
        index.update(&many.key, Some(&many), &[&slice]);
    }
    resolver
});

/// A question, in a datagram and over a connection.
pub(super) fn dns(input: &[u8]) -> Shape {
    let short = RESOLVER.answer_now(input, true);
    let whole = RESOLVER.answer_now(input, false);
    assert_eq!(
        short.is_some(),
        whole.is_some(),
        "an answer is one either way"
    );
    let Some((short, whole)) = short.zip(whole) else {
        return Shape(0);
    };
    assert!(short.len() <= MOST_DATAGRAM, "{} bytes", short.len());
    for answer in [&short, &whole] {
        assert!(answer.len() >= 12, "a header at least");
        assert_eq!(answer[..2], input[..2], "to this question");
        assert_eq!(answer[2] & 0x80, 0x80, "and an answer");
    }
    let cut = short[2] & 2 != 0;
    assert!(cut || short.len() <= whole.len());
    // An answer is never answered.
    assert_eq!(RESOLVER.answer_now(&whole, true), None);
    Shape::of((
        whole[3],
        cut,
        whole.len().ilog2(),
        whole[7].min(4),
        whole[9].min(4),
    ))
}

/// ARP, or neighbour discovery after a byte that is odd.
pub(super) fn link(input: &[u8]) -> Shape {
    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const FROM: [u8; 6] = [2, 0, 0, 0, 0, 2];
    let Some((first, packet)) = input.split_first() else {
        return Shape(0);
    };
    let six = first & 1 == 1;
    let Some((target, answer)) = evenkeel_network::fuzzing::question(packet, six, FROM, OWN) else {
        return Shape(1);
    };
    assert_eq!(target.is_ipv6(), six);
    if let Some(answer) = &answer {
        let asked = evenkeel_network::fuzzing::question(answer, six, OWN, FROM);
        let again = asked.and_then(|(_, answer)| answer);
        assert_eq!(again, None, "an answer is never answered");
    }
    let place = match target {
        IpAddr::V4(target) => target.octets()[0] >> 4,
        IpAddr::V6(target) => target.octets()[0] >> 4,
    };
    Shape::of((2, six, place, answer.map(|answer| answer.len())))
}

/// Messages come out whole, however they arrive; and words of a status.
pub(super) fn grpc(input: &[u8]) -> Shape {
    use evenkeel_grpc::fuzzing;
    let cut = fuzzing::messages(input, 3);
    let whole = fuzzing::messages(input, usize::MAX);
    assert_eq!(cut, whole, "however they arrive");
    if let Some(text) = text(input) {
        let (sent, read) = fuzzing::status_message(text);
        assert_eq!(read, text, "what is said is heard");
        assert!(sent.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        let heard = fuzzing::read_status_message(text);
        assert!(heard.len() <= 3 * text.len());
    }
    let (messages, error) = whole;
    let count = messages.len().min(8);
    match error {
        None => Shape::of((0, count)),
        Some(error) => Shape::of((count, Shape::of_message(&error))),
    }
}

/// Frames between agent and shim.
pub(super) fn frame(input: &[u8]) -> Shape {
    let mut rest = input;
    let mut kinds = Vec::new();
    while let Ok(Some((kind, payload, after))) = evenkeel_runtime::fuzzing::frame(rest) {
        assert_eq!(
            rest.len(),
            5 + payload.len() + after.len(),
            "nothing is lost"
        );
        kinds.push(kind);
        rest = after;
    }
    kinds.truncate(6);
    Shape::of((kinds, rest.len().min(6)))
}
