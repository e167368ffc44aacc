//! The part of our table that no service changes: base chains, named maps, and the rules that
//! lead from a packet to a service and decide what is masqueraded.
//!
//! No packet marks are used: they are the machine's, not ours. Whether to masquerade follows from
//! what conntrack remembers of the original destination.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::nft::{
    Batch, CmpOp, CtDirection, CtKey, Expr, Hook, Kind, MapData, MetaKey, PayloadBase, RejectKind,
    Set, Verdict,
};

/// Address, protocol and port lead to a service's chain.
pub(super) const SERVICE_IPS: &str = "service-ips";
/// Protocol and port of the node's own addresses lead to a service's chain.
pub(super) const SERVICE_NODEPORTS: &str = "service-nodeports";
/// Service addresses without a usable endpoint lead to a refusal.
pub(super) const NO_ENDPOINT_IPS: &str = "no-endpoint-ips";
/// Node ports without a usable endpoint lead to a refusal.
pub(super) const NO_ENDPOINT_NODEPORTS: &str = "no-endpoint-nodeports";
/// Load balancer addresses lead to a chain that checks the client's address.
pub(super) const FIREWALL_IPS: &str = "firewall-ips";
/// Pairs of one address twice: a pod that reaches itself through a service.
pub(super) const HAIRPIN: &str = "hairpin";
/// External addresses whose clients' addresses are kept (externalTrafficPolicy: Local).
pub(super) const PRESERVE_IPS: &str = "preserve-source-ips";
/// Node ports and host ports whose clients' addresses are kept.
pub(super) const PRESERVE_NODEPORTS: &str = "preserve-source-nodeports";
/// A host address, protocol and port lead to a pod.
pub(super) const HOSTPORT_IPS: &str = "hostport-ips";
/// Protocol and port of any host address lead to a pod.
pub(super) const HOSTPORTS: &str = "hostports";
/// Addresses of load balancers: what is no service there is refused, and never sent back to the
/// link it came from.
pub(super) const BALANCER_IPS: &str = "load-balancer-ips";
/// Refuses at once.
pub(super) const REJECT: &str = "reject";

/// Address, protocol, port.
const IP_PORT: &[Kind] = &[Kind::Ipv4, Kind::Protocol, Kind::Port];
/// Protocol, port.
const PORT: &[Kind] = &[Kind::Protocol, Kind::Port];
/// Endpoint: address, port.
pub(super) const TARGET: &[Kind] = &[Kind::Ipv4, Kind::Port];

const IPS_DST_NAT: u32 = 0x20;
const CT_NEW: u32 = 8;
const RTN_LOCAL: u32 = 2;
const PORT_UNREACHABLE: u8 = 3;

/// What the rules have to know of the node.
#[derive(Debug, Clone)]
pub struct TableConfig {
    /// Name of the table, family `ip`.
    pub table: String,
    /// The pods' bridge.
    pub bridge: String,
    /// This node's pods.
    pub pod_cidr: Ipv4Net,
    /// All pods of the cluster.
    pub cluster_cidr: Ipv4Net,
    /// Service addresses.
    pub service_cidr: Ipv4Net,
    /// Answered on this node itself, never translated.
    pub dns_address: Option<Ipv4Addr>,
    /// Name of this node, for traffic policies `Local`.
    pub node_name: String,
    /// Its zone, for hints of endpoints.
    pub zone: Option<String>,
}

/// Source address into a register.
pub(super) fn saddr(to: u32) -> Expr {
    Expr::Payload {
        base: PayloadBase::Network,
        offset: 12,
        length: 4,
        to,
    }
}

/// Destination address into a register.
pub(super) fn daddr(to: u32) -> Expr {
    Expr::Payload {
        base: PayloadBase::Network,
        offset: 16,
        length: 4,
        to,
    }
}

fn protocol_and_port(to: u32) -> [Expr; 2] {
    let port = Expr::Payload {
        base: PayloadBase::Transport,
        offset: 2,
        length: 2,
        to: to + 1,
    };
    [Expr::Meta(MetaKey::L4Proto, to), port]
}

/// Goes on when the register's address is (not) in the network.
pub(super) fn in_net(register: u32, net: Ipv4Net, op: CmpOp) -> Vec<Expr> {
    let mut out = Vec::new();
    if net.prefix_len() < 32 {
        out.push(Expr::And(register, net.netmask().octets().to_vec()));
    }
    out.push(Expr::Cmp(register, op, net.network().octets().to_vec()));
    out
}

fn interface(name: &str) -> Vec<u8> {
    let mut out = name.as_bytes().to_vec();
    out.resize(16, 0);
    out
}

fn go(verdict: Verdict) -> Expr {
    Expr::Verdict(verdict)
}

fn jump(chain: &str) -> Expr {
    go(Verdict::Jump(chain.to_owned()))
}

/// Goes on when the destination is one of the host's addresses.
pub(super) fn local_daddr() -> [Expr; 2] {
    [
        Expr::FibDaddrType(0),
        Expr::Cmp(0, CmpOp::Eq, RTN_LOCAL.to_ne_bytes().to_vec()),
    ]
}

fn verdict_map(set: &str) -> Expr {
    Expr::Lookup {
        set: set.to_owned(),
        from: 0,
        to: None,
        verdict: true,
    }
}

fn rule(parts: impl IntoIterator<Item = Vec<Expr>>) -> Vec<Expr> {
    parts.into_iter().flatten().collect()
}

/// The named maps.
fn sets() -> Vec<Set> {
    let set = |name: &str, key, data| Set {
        name: name.to_owned(),
        key,
        data,
        dynamic: None,
    };
    vec![
        set(SERVICE_IPS, IP_PORT, MapData::Verdict),
        set(SERVICE_NODEPORTS, PORT, MapData::Verdict),
        set(NO_ENDPOINT_IPS, IP_PORT, MapData::Verdict),
        set(NO_ENDPOINT_NODEPORTS, PORT, MapData::Verdict),
        set(FIREWALL_IPS, IP_PORT, MapData::Verdict),
        set(HAIRPIN, &[Kind::Ipv4, Kind::Ipv4], MapData::None),
        set(PRESERVE_IPS, IP_PORT, MapData::None),
        set(PRESERVE_NODEPORTS, PORT, MapData::None),
        set(HOSTPORT_IPS, IP_PORT, MapData::Value(TARGET)),
        set(HOSTPORTS, PORT, MapData::Value(TARGET)),
        set(BALANCER_IPS, &[Kind::Ipv4], MapData::None),
    ]
}

const SERVICES: &str = "services";
const ENDPOINT_CHECK: &str = "endpoint-check";
const MASQUERADE_TRANSLATED: &str = "masquerade-translated";
const MASQUERADE_OUTBOUND: &str = "masquerade-outbound";

/// Base chains, with the priorities kube-proxy has.
const BASE_CHAINS: &[(&str, Hook)] = &[
    (
        "raw-prerouting",
        Hook {
            kind: "filter",
            number: 0,
            priority: -300,
        },
    ),
    (
        "firewall-prerouting",
        Hook {
            kind: "filter",
            number: 0,
            priority: -110,
        },
    ),
    (
        "nat-prerouting",
        Hook {
            kind: "nat",
            number: 0,
            priority: -100,
        },
    ),
    (
        "nat-output",
        Hook {
            kind: "nat",
            number: 3,
            priority: -100,
        },
    ),
    (
        "nat-postrouting",
        Hook {
            kind: "nat",
            number: 4,
            priority: 100,
        },
    ),
    (
        "filter-input",
        Hook {
            kind: "filter",
            number: 1,
            priority: 0,
        },
    ),
    (
        "filter-forward",
        Hook {
            kind: "filter",
            number: 2,
            priority: 0,
        },
    ),
    (
        "filter-output",
        Hook {
            kind: "filter",
            number: 3,
            priority: 0,
        },
    ),
];

/// Chains and their rules.
fn rules(config: &TableConfig) -> Vec<(&'static str, Vec<Expr>)> {
    let eq = CmpOp::Eq;
    let bridge = interface(&config.bridge);
    let loopback = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).expect("8 is a prefix length");
    let ip_port = || rule([vec![daddr(0)], protocol_and_port(1).into()]);
    let port = || protocol_and_port(0).to_vec();
    let new = || {
        let mask = CT_NEW.to_ne_bytes().to_vec();
        vec![
            Expr::Ct(CtKey::State, None, 0),
            Expr::And(0, mask),
            Expr::Cmp(0, CmpOp::Neq, vec![0; 4]),
        ]
    };
    let original = |to| {
        [
            Expr::Meta(MetaKey::L4Proto, to),
            Expr::Ct(CtKey::ProtoDst, Some(CtDirection::Original), to + 1),
        ]
    };
    let original_daddr = Expr::Ct(CtKey::DstIp, Some(CtDirection::Original), 0);
    let contains = |set: &str| Expr::Lookup {
        set: set.to_owned(),
        from: 0,
        to: None,
        verdict: false,
    };
    let to_target = |set: &str| {
        let find = Expr::Lookup {
            set: set.to_owned(),
            from: 0,
            to: Some(4),
            verdict: false,
        };
        vec![find, Expr::Dnat(4, Some(5))]
    };
    let mut out = vec![
        // route_localnet is on for the bridge, so pods must be kept off the host's loopback.
        (
            "raw-prerouting",
            rule([
                vec![
                    Expr::Meta(MetaKey::IifName, 0),
                    Expr::Cmp(0, eq, bridge.clone()),
                ],
                vec![daddr(0)],
                in_net(0, loopback, eq),
                vec![go(Verdict::Drop)],
            ]),
        ),
        (
            "firewall-prerouting",
            rule([new(), ip_port(), vec![verdict_map(FIREWALL_IPS)]]),
        ),
        // Here too, so that an external address is refused even where no route leads to it.
        (
            "firewall-prerouting",
            rule([new(), ip_port(), vec![verdict_map(NO_ENDPOINT_IPS)]]),
        ),
        ("nat-prerouting", vec![jump(SERVICES)]),
        ("nat-output", vec![jump(SERVICES)]),
        (SERVICES, rule([ip_port(), vec![verdict_map(SERVICE_IPS)]])),
        (
            SERVICES,
            rule([
                vec![daddr(0)],
                in_net(0, config.service_cidr, eq),
                vec![go(Verdict::Return)],
            ]),
        ),
        (
            SERVICES,
            vec![
                Expr::FibDaddrType(0),
                Expr::Cmp(0, CmpOp::Neq, RTN_LOCAL.to_ne_bytes().to_vec()),
                go(Verdict::Return),
            ],
        ),
        (
            SERVICES,
            rule([port(), vec![verdict_map(SERVICE_NODEPORTS)]]),
        ),
        (SERVICES, rule([ip_port(), to_target(HOSTPORT_IPS)])),
        (SERVICES, rule([port(), to_target(HOSTPORTS)])),
        (
            "nat-postrouting",
            vec![
                Expr::Ct(CtKey::Status, None, 0),
                Expr::And(0, IPS_DST_NAT.to_ne_bytes().to_vec()),
                Expr::Cmp(0, CmpOp::Neq, vec![0; 4]),
                go(Verdict::Goto(MASQUERADE_TRANSLATED.into())),
            ],
        ),
        ("nat-postrouting", vec![jump(MASQUERADE_OUTBOUND)]),
        (
            MASQUERADE_TRANSLATED,
            rule([
                vec![saddr(0)],
                in_net(0, loopback, eq),
                vec![Expr::Masquerade],
            ]),
        ),
        (
            MASQUERADE_TRANSLATED,
            vec![saddr(0), daddr(1), contains(HAIRPIN), Expr::Masquerade],
        ),
        (
            MASQUERADE_TRANSLATED,
            rule([
                vec![saddr(0)],
                in_net(0, config.cluster_cidr, eq),
                vec![go(Verdict::Goto(MASQUERADE_OUTBOUND.into()))],
            ]),
        ),
        (
            MASQUERADE_TRANSLATED,
            rule([
                vec![original_daddr.clone()],
                in_net(0, config.service_cidr, eq),
                vec![Expr::Masquerade],
            ]),
        ),
        (
            MASQUERADE_TRANSLATED,
            rule([
                vec![original_daddr],
                original(1).into(),
                vec![contains(PRESERVE_IPS), go(Verdict::Return)],
            ]),
        ),
        (
            MASQUERADE_TRANSLATED,
            rule([
                original(0).into(),
                vec![contains(PRESERVE_NODEPORTS), go(Verdict::Return)],
            ]),
        ),
        (MASQUERADE_TRANSLATED, vec![Expr::Masquerade]),
        (
            MASQUERADE_OUTBOUND,
            vec![
                Expr::Meta(MetaKey::OifName, 0),
                Expr::Cmp(0, eq, bridge),
                go(Verdict::Return),
            ],
        ),
        (
            MASQUERADE_OUTBOUND,
            rule([
                vec![saddr(0)],
                in_net(0, config.pod_cidr, eq),
                vec![daddr(0)],
                in_net(0, config.cluster_cidr, CmpOp::Neq),
                vec![Expr::Masquerade],
            ]),
        ),
        ("filter-input", rule([new(), vec![jump(ENDPOINT_CHECK)]])),
        ("filter-forward", rule([new(), vec![jump(ENDPOINT_CHECK)]])),
        ("filter-output", rule([new(), vec![jump(ENDPOINT_CHECK)]])),
        (
            ENDPOINT_CHECK,
            rule([ip_port(), vec![verdict_map(NO_ENDPOINT_IPS)]]),
        ),
    ];
    if let Some(dns) = config.dns_address {
        let own = rule([
            vec![daddr(0)],
            in_net(0, dns.into(), eq),
            vec![go(Verdict::Return)],
        ]);
        out.push((ENDPOINT_CHECK, own));
    }
    out.extend([
        // No such service, or no such port of it.
        (
            ENDPOINT_CHECK,
            rule([
                vec![daddr(0)],
                in_net(0, config.service_cidr, eq),
                vec![go(Verdict::Goto(REJECT.into()))],
            ]),
        ),
        (
            ENDPOINT_CHECK,
            vec![
                daddr(0),
                contains(BALANCER_IPS),
                go(Verdict::Goto(REJECT.into())),
            ],
        ),
        (
            ENDPOINT_CHECK,
            rule([
                local_daddr().into(),
                port(),
                vec![verdict_map(NO_ENDPOINT_NODEPORTS)],
            ]),
        ),
        (
            REJECT,
            vec![
                Expr::Meta(MetaKey::L4Proto, 0),
                Expr::Cmp(0, eq, vec![6]),
                Expr::Reject(RejectKind::TcpReset),
            ],
        ),
        (
            REJECT,
            vec![Expr::Reject(RejectKind::Icmp(PORT_UNREACHABLE))],
        ),
    ]);
    out
}

/// Starts a transaction that replaces the whole table by one without services. Established
/// connections stay translated: that is conntrack's, not the table's.
pub(super) fn rebuild(config: &TableConfig) -> Batch {
    let mut batch = Batch::new(&config.table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for set in sets() {
        batch.add_set(&set);
    }
    for (name, hook) in BASE_CHAINS {
        batch.add_chain(name, Some(*hook));
    }
    for chain in [
        SERVICES,
        ENDPOINT_CHECK,
        MASQUERADE_TRANSLATED,
        MASQUERADE_OUTBOUND,
        REJECT,
    ] {
        batch.add_chain(chain, None);
    }
    for (chain, rule) in rules(config) {
        batch.add_rule(chain, &rule);
    }
    batch
}
