//! What we encode is what `nft` reads back; and errors name what was refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::Nfnetlink;
use crate::node::Change;
use crate::service::Protocol;
use crate::world::{World, node, service, slice};

use super::*;

/// The kernel's tables as `nft` prints them, protocols as numbers: a bare Debian has no
/// `/etc/protocols`. `None`, said aloud, where there is no `nft`.
fn list() -> Option<String> {
    list_of(&["ruleset"])
}

fn list_of(what: &[&str]) -> Option<String> {
    match std::process::Command::new("nft")
        .args(["--numeric-protocol", "list"])
        .args(what)
        .output()
    {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            use std::io::Write;
            let line = format!("SKIPPED comparison with nft: {error}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

#[test]
fn nft_reads_back_what_we_wrote() {
    node(|| {
        let world = World::new();
        let mut web = service("web", [10, 96, 1, 1], Protocol::Tcp, 80);
        web.ports[0].node_port = Some(30080);
        web.load_balancer_ips = vec!["198.51.100.7".parse().unwrap()];
        web.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
        web.external_local = true;
        let ips = [[10, 244, 0, 2], [10, 244, 0, 3]].map(std::net::Ipv4Addr::from);
        let mut dns = service("dns", [10, 96, 1, 2], Protocol::Udp, 53);
        dns.affinity = Some(Duration::from_secs(10_800));
        world.apply([
            Change::Service(web),
            Change::Slice(slice("web", Protocol::Tcp, 8080, ips)),
            Change::Service(dns),
            Change::Slice(slice("dns", Protocol::Udp, 5353, [ips[0]])),
            Change::Service(service("none", [10, 96, 1, 3], Protocol::Tcp, 80)),
        ]);
        let Some(printed) = list() else { return };
        assert_eq!(
            sorted(&printed),
            sorted(include_str!("tests/table.nft")),
            "\n{printed}"
        );
    });
}

#[test]
fn nft_reads_back_what_we_wrote_for_ipv6() {
    node(|| {
        let world = World::new();
        let mut web = service("web", [10, 96, 1, 1], Protocol::Tcp, 80);
        web.load_balancer_ips = vec!["2001:db8::7".parse().unwrap()];
        web.source_ranges = vec!["2001:db8:1::/48".parse().unwrap()];
        web.external_local = true;
        let ips = ["2001:db8::2", "2001:db8::3"].map(|ip| ip.parse::<Ipv6Addr>().unwrap());
        // With an address in the cluster, it has node ports as well.
        let mut dns = service("dns", [10, 96, 1, 2], Protocol::Udp, 53);
        dns.cluster_ips.push("2001:db8:96::2".parse().unwrap());
        dns.ports[0].node_port = Some(30053);
        dns.affinity = Some(Duration::from_secs(10_800));
        let mut none = service("none", [10, 96, 1, 3], Protocol::Tcp, 80);
        none.external_ips = vec!["2001:db8::8".parse().unwrap()];
        world.apply([
            Change::Service(web),
            Change::Slice(slice("web", Protocol::Tcp, 8080, ips)),
            Change::Service(dns),
            Change::Slice(slice("dns", Protocol::Udp, 5353, [ips[0]])),
            Change::Service(none),
        ]);
        let Some(printed) = list_of(&["table", "ip6", "evenkeel-test"]) else {
            return;
        };
        assert_eq!(
            sorted(&printed),
            sorted(include_str!("tests/table6.nft")),
            "\n{printed}"
        );
    });
}

#[test]
fn a_refusal_names_the_object_and_changes_nothing() {
    node(|| {
        let mut socket = Nfnetlink::open().unwrap();
        let mut batch = Batch::new(Family::V4, "evenkeel-test");
        batch.add_table();
        batch.add_chain("good", None);
        batch.add_rule("missing", &[Expr::Verdict(Verdict::Drop)]);
        let error = commit(&mut socket, batch).unwrap_err().to_string();
        assert!(error.contains("rule of chain missing"), "{error}");
        assert!(!table_exists(&mut socket, Family::V4, "evenkeel-test").unwrap());
        // The socket goes on working after a refusal.
        let mut batch = Batch::new(Family::V4, "evenkeel-test");
        batch.add_table();
        commit(&mut socket, batch).unwrap();
        assert!(table_exists(&mut socket, Family::V4, "evenkeel-test").unwrap());
        remove_table(&mut socket, Family::V4, "evenkeel-test").unwrap();
        remove_table(&mut socket, Family::V4, "evenkeel-test").unwrap();
        assert!(!table_exists(&mut socket, Family::V4, "evenkeel-test").unwrap());
    });
}

#[test]
fn step_by_step_and_at_once_come_to_the_same_table() {
    let changes = || {
        let ips: Vec<_> = (2..6)
            .map(|n| std::net::Ipv4Addr::new(10, 244, 0, n))
            .collect();
        let web = |n: usize| slice("web", Protocol::Tcp, 8080, ips[..n].to_vec());
        let mut sticky = service("web", [10, 96, 1, 1], Protocol::Tcp, 80);
        sticky.affinity = Some(Duration::from_secs(100));
        let mut longer = sticky.clone();
        longer.affinity = Some(Duration::from_secs(200));
        let mut moved = longer.clone();
        moved.ports[0].port = 81;
        moved.ports[0].node_port = Some(30081);
        let mut plain = moved.clone();
        plain.affinity = None;
        plain.external_local = true;
        vec![
            Change::Slice(web(1)),
            Change::Service(service("web", [10, 96, 1, 1], Protocol::Tcp, 80)),
            Change::Slice(web(4)),
            Change::Service(sticky),
            Change::Slice(web(2)),
            Change::Service(longer),
            Change::Slice(web(0)),
            Change::Service(moved),
            Change::Slice(web(3)),
            // Two services with one external address: the first by name has it.
            Change::Service({
                let mut other = service("alpha", [10, 96, 1, 2], Protocol::Tcp, 81);
                other.external_ips = vec!["10.96.1.1".parse().unwrap()];
                other
            }),
            Change::Service(plain),
            Change::Slice(slice("alpha", Protocol::Tcp, 8080, ips.clone())),
            Change::ServiceGone(crate::service::ServiceKey::new("default", "alpha")),
        ]
    };
    for steps in 1..=changes().len() {
        node(|| {
            let (one, all) = (World::new(), changes());
            for change in all.into_iter().take(steps) {
                one.apply([change]);
            }
            let Some(stepwise) = list() else { return };
            crate::node::cleanup(&crate::world::config(one.state.path())).unwrap();
            drop(one);
            let whole = World::new();
            whole.apply(changes().into_iter().take(steps));
            assert_eq!(
                sorted(&stepwise),
                sorted(&list().unwrap()),
                "after {steps} steps"
            );
        });
    }
}

/// Blocks of the listing in order of their names; elements in order.
fn sorted(listing: &str) -> Vec<String> {
    let mut blocks: Vec<_> = listing
        .split("\n\t}\n")
        .map(|block| {
            let Some((head, elements)) = block.split_once("elements = {") else {
                return block.trim().to_owned();
            };
            let elements = elements.replace(['\n', '\t', '}'], " ");
            let mut elements: Vec<_> = elements.split(',').map(str::trim).collect();
            elements.sort_unstable();
            format!("{} {elements:?}", head.trim())
        })
        .collect();
    blocks.sort();
    blocks
}
