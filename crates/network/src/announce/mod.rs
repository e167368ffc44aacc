//! Announcing addresses of load balancers on the link: this node answers who asks for those that the
//! cluster gave to it (ARP for IPv4, neighbour discovery for IPv6), and says so unasked when it gets
//! one.
//!
//! The addresses are on no interface: nothing of the host's own becomes reachable at them, and the
//! answers end with this process, so that a node that is gone does not argue with the one that
//! took over. nftables leads the packets on; see `service`.

mod arp;
mod ndp;
mod socket;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;

use crate::netlink::route::{self, Link};
use crate::netlink::{NetlinkError, Socket};
use crate::nft::Family;
use socket::{Groups, Hearing, LinkNews};
use wire::{Mac, Question, announcements, repeats};

/// Addresses, each with the interfaces on which it is announced; none means all.
pub(crate) type Wanted = BTreeMap<IpAddr, BTreeSet<String>>;

/// Between two announcements of a new address (RetransTimer of RFC 4861, section 10).
const PERIOD: Duration = Duration::from_secs(1);
/// Before a socket that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Answers for addresses.
#[derive(Debug)]
pub(crate) struct Announcer {
    wanted: watch::Sender<Wanted>,
    /// The pods' bridge, on which nothing is announced: pods go by the gateway.
    bridge: String,
}

/// What it takes to speak for addresses of one family.
struct Wire {
    family: Family,
    hearing: Hearing,
    route: Socket,
    /// IPv6 asks in groups, which are joined on each link; IPv4 asks everybody.
    groups: Option<(Groups, LinkNews)>,
}

impl Wire {
    fn open(family: Family) -> Result<Self, NetlinkError> {
        let groups = match family {
            Family::V4 => None,
            Family::V6 => Some((Groups::open()?, LinkNews::open()?)),
        };
        Ok(Self {
            family,
            hearing: Hearing::open(family)?,
            route: Socket::route()?,
            groups,
        })
    }

    /// Returns when links changed in a way that matters.
    async fn links_change(&self) -> io::Result<()> {
        match &self.groups {
            Some((_, news)) => news.next().await,
            None => std::future::pending().await,
        }
    }
}

fn of_family(family: Family, wanted: &Wanted) -> Wanted {
    let all = wanted.iter();
    let own = all.filter(|(address, _)| Family::of(**address) == family);
    own.map(|(address, interfaces)| (*address, interfaces.clone()))
        .collect()
}

impl Announcer {
    pub(crate) fn new(bridge: &str) -> Self {
        Self {
            wanted: watch::Sender::new(Wanted::new()),
            bridge: bridge.to_owned(),
        }
    }

    /// These addresses are this node's to announce from now on, and no others.
    pub(crate) fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            if differs {
                *current = wanted;
            }
            differs
        });
    }

    /// The hardware address with which a link speaks of an address, if it does.
    fn speaks(&self, link: &Link, interfaces: &BTreeSet<String>) -> Option<Mac> {
        let named = interfaces.is_empty() || interfaces.contains(&link.name);
        let ours = link.name == self.bridge || link.master.is_some();
        link.mac.filter(|_| named && !ours)
    }

    /// Answers for as long as it is polled. Costs nothing while there is nothing to announce.
    pub(crate) async fn run(&self) {
        // Each by itself: a machine without IPv6 announces IPv4.
        futures::future::join(self.run_family(Family::V4), self.run_family(Family::V6)).await;
    }

    async fn run_family(&self, family: Family) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let some = |wanted: &Wanted| wanted.keys().any(|it| Family::of(*it) == family);
            // The sender is this very object, so that waiting ends only with a change.
            if wanted.wait_for(some).await.is_err() {
                return;
            }
            let ended = match Wire::open(family) {
                Ok(wire) => self.serve(wire).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::error!(
                    %family, %error,
                    "addresses can't be announced on the link; trying again"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Returns when nothing is wanted any more.
    async fn serve(&self, mut wire: Wire) -> Result<(), NetlinkError> {
        let mut changed = self.wanted.subscribe();
        let mut known = BTreeSet::new();
        let mut left: BTreeMap<IpAddr, u8> = BTreeMap::new();
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wanted = of_family(wire.family, &changed.borrow_and_update());
            if wanted.is_empty() {
                return Ok(());
            }
            let fresh: Vec<IpAddr> = wanted
                .keys()
                .filter(|address| !known.contains(*address))
                .copied()
                .collect();
            // Before it is announced, so that nobody asks in vain.
            self.listen(&mut wire, &wanted)?;
            if !fresh.is_empty() {
                tracing::info!(addresses = ?fresh, "announcing on the link");
                let times = repeats(wire.family);
                left.extend(fresh.into_iter().map(|address| (address, times)));
                tick.reset_immediately();
            }
            left.retain(|address, _| wanted.contains_key(address));
            known = wanted.keys().copied().collect();
            let mut same = true;
            while same {
                tokio::select! {
                    ended = changed.changed() => {
                        if ended.is_err() {
                            return Ok(());
                        }
                        same = false;
                    }
                    received = wire.hearing.next() => {
                        let (question, interface) = received?;
                        if let Some(interfaces) = wanted.get(&question.target()) {
                            self.answer(&mut wire, &question, interface, interfaces)?;
                        }
                    }
                    news = wire.links_change() => {
                        news?;
                        self.listen(&mut wire, &wanted)?;
                    }
                    _ = tick.tick(), if !left.is_empty() => {
                        self.announce(&mut wire, &wanted, &mut left)?;
                    }
                }
            }
        }
    }

    /// Joins the groups in which somebody would ask for these addresses, and leaves all others.
    fn listen(&self, wire: &mut Wire, wanted: &Wanted) -> Result<(), NetlinkError> {
        let Some((groups, _)) = &mut wire.groups else {
            return Ok(());
        };
        let links = route::links(&mut wire.route)?;
        let mut needed = BTreeSet::new();
        for (address, interfaces) in wanted {
            let IpAddr::V6(address) = address else {
                continue;
            };
            let speaking = links
                .iter()
                .filter(|link| self.speaks(link, interfaces).is_some());
            needed.extend(speaking.map(|link| (ndp::solicited_node(*address), link.index)));
        }
        groups.keep(&needed);
        Ok(())
    }

    fn answer(
        &self,
        wire: &mut Wire,
        question: &Question,
        interface: u32,
        interfaces: &BTreeSet<String>,
    ) -> Result<(), NetlinkError> {
        let links = route::links(&mut wire.route)?;
        let found = links.iter().find(|found| found.index == interface);
        let mac = found.and_then(|found| self.speaks(found, interfaces));
        if let Some(answer) = mac.and_then(|mac| question.answer(mac)) {
            wire.hearing.send(interface, &answer);
        }
        Ok(())
    }

    fn announce(
        &self,
        wire: &mut Wire,
        wanted: &Wanted,
        left: &mut BTreeMap<IpAddr, u8>,
    ) -> Result<(), NetlinkError> {
        let links = route::links(&mut wire.route)?;
        for (address, times) in left.iter_mut() {
            let Some(interfaces) = wanted.get(address) else {
                continue;
            };
            for found in &links {
                let Some(mac) = self.speaks(found, interfaces) else {
                    continue;
                };
                for packet in announcements(mac, *address) {
                    wire.hearing.send(found.index, &packet);
                }
            }
            *times -= 1;
        }
        left.retain(|_, times| *times > 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
