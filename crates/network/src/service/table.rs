//! The part of our table that no service changes: base chains, named maps, and the rules that
//! lead from a packet to a service and decide what is masqueraded.
//!
//! No packet marks are used: they are the machine's, not ours. Whether to masquerade follows from
//! what conntrack remembers of the original destination.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::nft::{
    Batch, CmpOp, CtDirection, CtKey, Expr, Family, Hook, Kind, MapData, MetaKey, PayloadBase,
    RejectKind, Set, Verdict,
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

/// Protocol, port.
const PORT: &[Kind] = &[Kind::Protocol, Kind::Port];

/// Address, protocol, port.
fn ip_port_kinds(family: Family) -> &'static [Kind] {
    match family {
        Family::V4 => &[Kind::Ipv4, Kind::Protocol, Kind::Port],
        Family::V6 => &[Kind::Ipv6, Kind::Protocol, Kind::Port],
    }
}

/// Endpoint: address, port.
pub(super) fn target_kinds(family: Family) -> &'static [Kind] {
    match family {
        Family::V4 => &[Kind::Ipv4, Kind::Port],
        Family::V6 => &[Kind::Ipv6, Kind::Port],
    }
}

/// Address.
pub(super) fn ip_kinds(family: Family) -> &'static [Kind] {
    match family {
        Family::V4 => &[Kind::Ipv4],
        Family::V6 => &[Kind::Ipv6],
    }
}

/// Address, address.
fn pair_kinds(family: Family) -> &'static [Kind] {
    match family {
        Family::V4 => &[Kind::Ipv4, Kind::Ipv4],
        Family::V6 => &[Kind::Ipv6, Kind::Ipv6],
    }
}

const IPS_DST_NAT: u32 = 0x20;
const CT_NEW: u32 = 8;
const RTN_LOCAL: u32 = 2;
/// Code of ICMP (RFC 792).
const PORT_UNREACHABLE: u8 = 3;
/// Code of ICMPv6 (RFC 4443, section 3.1).
const PORT_UNREACHABLE_6: u8 = 4;
const ICMP6: u8 = 58;
/// Type of ICMPv6 (RFC 4861, section 4.3).
const NEIGHBOR_SOLICITATION: u8 = 135;
/// Where an endpoint's address is loaded to; its port comes after it.
pub(super) const TARGET_REGISTER: u32 = 4;

/// What the rules have to know of the node.
#[derive(Debug, Clone)]
pub struct TableConfig {
    /// Whose addresses it is for. The networks below are of the same family; each of them is
    /// absent where the cluster has none.
    pub family: Family,
    /// Name of the table.
    pub table: String,
    /// The pods' bridge.
    pub bridge: String,
    /// This node's pods.
    pub pod_cidr: Option<IpNet>,
    /// All pods of the cluster.
    pub cluster_cidr: Option<IpNet>,
    /// Service addresses.
    pub service_cidr: Option<IpNet>,
    /// Answered on this node itself, never translated.
    pub dns_address: Option<IpAddr>,
    /// Name of this node, for traffic policies `Local`.
    pub node_name: String,
    /// Its zone, for hints of endpoints.
    pub zone: Option<String>,
}

/// A field of the network header that is an address.
fn address(family: Family, four: u32, six: u32, to: u32) -> Expr {
    Expr::Payload {
        base: PayloadBase::Network,
        offset: match family {
            Family::V4 => four,
            Family::V6 => six,
        },
        length: family.registers() * 4,
        to,
    }
}

/// Source address into a register, and for IPv6 the three after it.
pub(super) fn saddr(family: Family, to: u32) -> Expr {
    address(family, 12, 8, to)
}

/// Destination address into a register, and for IPv6 the three after it.
pub(super) fn daddr(family: Family, to: u32) -> Expr {
    address(family, 16, 24, to)
}

/// Changes the destination to the endpoint that was loaded.
pub(super) fn to_endpoint(family: Family) -> Expr {
    let port = TARGET_REGISTER + family.registers();
    Expr::Dnat(family, TARGET_REGISTER, Some(port))
}

/// An address as it stands in registers.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
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
pub(super) fn in_net(register: u32, net: IpNet, op: CmpOp) -> Vec<Expr> {
    let mut out = Vec::new();
    if net.prefix_len() < net.max_prefix_len() {
        out.push(Expr::And(register, octets(net.netmask())));
    }
    out.push(Expr::Cmp(register, op, octets(net.network())));
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
fn sets(family: Family) -> Vec<Set> {
    let ip_port = ip_port_kinds(family);
    let target = target_kinds(family);
    let set = |name: &str, key, data| Set {
        name: name.to_owned(),
        key,
        data,
        dynamic: None,
    };
    vec![
        set(SERVICE_IPS, ip_port, MapData::Verdict),
        set(SERVICE_NODEPORTS, PORT, MapData::Verdict),
        set(NO_ENDPOINT_IPS, ip_port, MapData::Verdict),
        set(NO_ENDPOINT_NODEPORTS, PORT, MapData::Verdict),
        set(FIREWALL_IPS, ip_port, MapData::Verdict),
        set(HAIRPIN, pair_kinds(family), MapData::None),
        set(PRESERVE_IPS, ip_port, MapData::None),
        set(PRESERVE_NODEPORTS, PORT, MapData::None),
        set(HOSTPORT_IPS, ip_port, MapData::Value(target)),
        set(HOSTPORTS, PORT, MapData::Value(target)),
        set(BALANCER_IPS, ip_kinds(family), MapData::None),
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
    let family = config.family;
    let eq = CmpOp::Eq;
    let bridge = interface(&config.bridge);
    let saddr = |to| saddr(family, to);
    let daddr = |to| daddr(family, to);
    let ip_port = || {
        let rest = protocol_and_port(family.registers());
        rule([vec![daddr(0)], rest.into()])
    };
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
    let destination = match family {
        Family::V4 => CtKey::DstIp,
        Family::V6 => CtKey::DstIp6,
    };
    let original_daddr = Expr::Ct(destination, Some(CtDirection::Original), 0);
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
            to: Some(TARGET_REGISTER),
            verdict: false,
        };
        vec![find, to_endpoint(family)]
    };
    // A rule for addresses of a network, where there is that network.
    let within = |field: Expr, net: Option<IpNet>, then: Expr| {
        net.map(|net| rule([vec![field], in_net(0, net, eq), vec![then]]))
    };
    let loopback = Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).expect("8 is a prefix length");
    let mut out: Vec<(&str, Vec<Expr>)> = Vec::new();
    match family {
        // route_localnet is on for the bridge, so pods must be kept off the host's loopback.
        Family::V4 => out.push((
            "raw-prerouting",
            rule([
                vec![
                    Expr::Meta(MetaKey::IifName, 0),
                    Expr::Cmp(0, eq, bridge.clone()),
                ],
                vec![daddr(0)],
                in_net(0, loopback.into(), eq),
                vec![go(Verdict::Drop)],
            ]),
        )),
        // A neighbour asks the address itself whether it is still there. The announcer has seen
        // that by now; to the kernel it would be a packet to pass on to the link it came from.
        Family::V6 => out.push((
            "raw-prerouting",
            vec![
                Expr::Meta(MetaKey::L4Proto, 0),
                Expr::Cmp(0, eq, vec![ICMP6]),
                Expr::Payload {
                    base: PayloadBase::Transport,
                    offset: 0,
                    length: 1,
                    to: 0,
                },
                Expr::Cmp(0, eq, vec![NEIGHBOR_SOLICITATION]),
                daddr(0),
                contains(BALANCER_IPS),
                go(Verdict::Drop),
            ],
        )),
    }
    out.extend([
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
    ]);
    let services = within(daddr(0), config.service_cidr, go(Verdict::Return));
    out.extend(services.map(|rule| (SERVICES, rule)));
    out.extend([
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
    ]);
    if family == Family::V4 {
        let local = within(saddr(0), Some(loopback.into()), Expr::Masquerade);
        out.extend(local.map(|rule| (MASQUERADE_TRANSLATED, rule)));
    }
    out.push((
        MASQUERADE_TRANSLATED,
        vec![
            saddr(0),
            daddr(family.registers()),
            contains(HAIRPIN),
            Expr::Masquerade,
        ],
    ));
    let outbound = go(Verdict::Goto(MASQUERADE_OUTBOUND.into()));
    out.extend(
        [
            // Pods of this node alone. Those of others come here by a node port or an outside address, and
            // the endpoint may be on their own node: it would answer them past this one.
            within(saddr(0), config.pod_cidr, outbound),
            within(
                original_daddr.clone(),
                config.service_cidr,
                Expr::Masquerade,
            ),
        ]
        .into_iter()
        .flatten()
        .map(|rule| (MASQUERADE_TRANSLATED, rule)),
    );
    out.extend([
        (
            MASQUERADE_TRANSLATED,
            rule([
                vec![original_daddr],
                original(family.registers()).into(),
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
    ]);
    if let (Some(pods), Some(cluster)) = (config.pod_cidr, config.cluster_cidr) {
        let leaving = rule([
            vec![saddr(0)],
            in_net(0, pods, eq),
            vec![daddr(0)],
            in_net(0, cluster, CmpOp::Neq),
            vec![Expr::Masquerade],
        ]);
        out.push((MASQUERADE_OUTBOUND, leaving));
    }
    out.extend([
        ("filter-input", rule([new(), vec![jump(ENDPOINT_CHECK)]])),
        ("filter-forward", rule([new(), vec![jump(ENDPOINT_CHECK)]])),
        ("filter-output", rule([new(), vec![jump(ENDPOINT_CHECK)]])),
        (
            ENDPOINT_CHECK,
            rule([ip_port(), vec![verdict_map(NO_ENDPOINT_IPS)]]),
        ),
    ]);
    let own = within(
        daddr(0),
        config.dns_address.map(IpNet::from),
        go(Verdict::Return),
    );
    // No such service, or no such port of it.
    let unknown = within(
        daddr(0),
        config.service_cidr,
        go(Verdict::Goto(REJECT.into())),
    );
    let both = [own, unknown].into_iter().flatten();
    out.extend(both.map(|rule| (ENDPOINT_CHECK, rule)));
    let unreachable = match family {
        Family::V4 => PORT_UNREACHABLE,
        Family::V6 => PORT_UNREACHABLE_6,
    };
    out.extend([
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
        (REJECT, vec![Expr::Reject(RejectKind::Icmp(unreachable))]),
    ]);
    out
}

/// Starts a transaction that replaces the whole table by one without services. Established
/// connections stay translated: that is conntrack's, not the table's.
pub(super) fn rebuild(config: &TableConfig) -> Batch {
    let mut batch = Batch::new(config.family, &config.table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for set in sets(config.family) {
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
