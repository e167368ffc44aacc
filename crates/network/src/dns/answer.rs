//! From a question to an answer: the cluster's own names here, all others by the forwarder.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use ipnet::Ipv4Net;
use parking_lot::RwLock;

use super::forward::{Forwarder, Upstreams};
use super::index::{Found, Index, ServiceTarget};

/// Seconds that an answer about the cluster may be kept.
const TTL: u32 = 5;
/// Largest datagram that passes without fragments nearly everywhere (DNS flag day 2020).
const MAX_DATAGRAM: u16 = 1232;
/// Smallest that every client takes (RFC 1035).
const MIN_DATAGRAM: u16 = 512;
/// An alias that leads to an alias: followed this often.
const MAX_ALIASES: usize = 8;

/// What the resolver has to know.
#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// `cluster.local`, without dots at the ends.
    pub domain: String,
    /// Where this server answers; the address of `ns.dns.ZONE`.
    pub address: Ipv4Addr,
    /// Networks whose reverse names are ours to deny: pods and services.
    pub networks: Vec<Ipv4Net>,
    /// Who is asked about the rest.
    pub upstreams: Upstreams,
}

/// Answers questions.
#[derive(Debug)]
pub struct Resolver {
    /// What is known of the cluster.
    pub index: RwLock<Index>,
    config: ResolverConfig,
    zone: Vec<String>,
    forwarder: Forwarder,
    /// Turns the order of addresses, so that clients which take the first spread out.
    turn: AtomicUsize,
}

/// Records of an answer.
#[derive(Debug, Default)]
struct Records {
    code: Option<ResponseCode>,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

/// How far a question can be answered from here.
enum Local {
    Done(Records),
    /// The records so far, and the outside name that they lead to.
    Outside(Records, Name),
}

impl Resolver {
    /// A resolver that knows no service yet.
    pub fn new(config: ResolverConfig) -> Self {
        let zone = config
            .domain
            .to_ascii_lowercase()
            .split('.')
            .map(str::to_owned)
            .collect();
        let forwarder = Forwarder::new(config.upstreams.clone());
        Self {
            index: RwLock::default(),
            config,
            zone,
            forwarder,
            turn: AtomicUsize::new(0),
        }
    }

    /// Answers at once what needs no other server; `None` means that `answer` is to be used.
    pub fn answer_now(&self, request: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let request = match parse(request)? {
            Ok(request) => request,
            Err(refusal) => return Some(refusal),
        };
        match self.local(&request.queries[0]) {
            Local::Done(records) => encode(&request, records, datagram),
            Local::Outside(..) => None,
        }
    }

    /// Answers a message; `None` when it deserves no answer.
    pub async fn answer(&self, request: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let request = match parse(request)? {
            Ok(request) => request,
            Err(refusal) => return Some(refusal),
        };
        let query = &request.queries[0];
        let records = match self.local(query) {
            Local::Done(records) => records,
            Local::Outside(mut records, name) => {
                let question = Query::query(name, query.query_type());
                match self.forwarder.ask(&question).await {
                    Some(reply) => {
                        records.code = Some(reply.code);
                        records.answers.extend(reply.answers);
                        records.authorities.extend(reply.authorities);
                    }
                    None => records.code = Some(ResponseCode::ServFail),
                }
                records
            }
        };
        encode(&request, records, datagram)
    }

    fn local(&self, query: &Query) -> Local {
        let mut records = Records::default();
        let mut name = query.name().clone();
        let kind = query.query_type();
        if query.query_class() != DNSClass::IN {
            records.code = Some(ResponseCode::NotImp);
            return Local::Done(records);
        }
        for _ in 0..MAX_ALIASES {
            let labels = lower(&name);
            if let Some(inside) = strip_zone(&labels, &self.zone) {
                records.authoritative = true;
                match self.inside(&name, &inside, kind, &mut records) {
                    Some(next) => name = next,
                    None => return Local::Done(records),
                }
            } else if self.reverse(&name, &labels, kind, &mut records) {
                return Local::Done(records);
            } else {
                return Local::Outside(records, name);
            }
        }
        records.code = Some(ResponseCode::ServFail);
        Local::Done(records)
    }

    /// Adds what is known of a name within the zone; answers where an alias leads.
    fn inside(
        &self,
        name: &Name,
        labels: &[&str],
        kind: RecordType,
        records: &mut Records,
    ) -> Option<Name> {
        let wants = |one: RecordType| kind == one || kind == RecordType::ANY;
        let before = records.answers.len();
        let found = self.index.read().find(labels);
        let mut add = |data| {
            records
                .answers
                .push(Record::from_rdata(name.clone(), TTL, data))
        };
        match found {
            Found::Nothing => records.code = Some(ResponseCode::NXDomain),
            Found::Empty => {}
            Found::Addresses(addresses, targets) => {
                for data in self.address_data(&addresses) {
                    if wants(data.record_type()) {
                        add(data);
                    }
                }
                if kind == RecordType::SRV {
                    self.add_targets(name, &targets, records);
                }
            }
            Found::Targets(targets) => {
                if wants(RecordType::SRV) {
                    self.add_targets(name, &targets, records);
                }
            }
            Found::Text(text) => {
                if wants(RecordType::TXT) {
                    add(RData::TXT(TXT::new(vec![text.to_owned()])));
                }
            }
            Found::Alias(target) => {
                // A target that is no name at all was refused at the door.
                let target = Name::from_ascii(format!("{}.", target.trim_end_matches('.'))).ok()?;
                add(RData::CNAME(CNAME(target.clone())));
                return (kind != RecordType::CNAME).then_some(target);
            }
            Found::NameServer => {
                if wants(RecordType::A) {
                    add(RData::A(A(self.config.address)));
                }
            }
            Found::Apex => {
                if wants(RecordType::SOA) {
                    add(self.soa());
                }
                if wants(RecordType::NS) {
                    add(RData::NS(NS(self.in_zone(&["ns".into(), "dns".into()]))));
                }
            }
        }
        if records.answers.len() == before {
            let zone = self.in_zone(&[]);
            records
                .authorities
                .push(Record::from_rdata(zone, TTL, self.soa()));
        }
        None
    }

    /// Answers a reverse question if it is about the cluster.
    fn reverse(
        &self,
        name: &Name,
        labels: &[String],
        kind: RecordType,
        records: &mut Records,
    ) -> bool {
        let Some(address) = reverse_address(labels) else {
            return false;
        };
        let names = self.index.read().names(address);
        let ours = match address {
            IpAddr::V4(address) => self
                .config
                .networks
                .iter()
                .any(|net| net.contains(&address)),
            IpAddr::V6(_) => false,
        };
        if names.is_empty() && !ours {
            return false;
        }
        records.authoritative = true;
        if names.is_empty() {
            records.code = Some(ResponseCode::NXDomain);
        } else if kind == RecordType::PTR || kind == RecordType::ANY {
            for labels in names {
                let data = RData::PTR(PTR(self.in_zone(&labels)));
                records
                    .answers
                    .push(Record::from_rdata(name.clone(), TTL, data));
            }
        }
        if records.answers.is_empty() {
            let zone = self.in_zone(&[]);
            records
                .authorities
                .push(Record::from_rdata(zone, TTL, self.soa()));
        }
        true
    }

    fn add_targets(&self, name: &Name, targets: &[ServiceTarget], records: &mut Records) {
        let weight = u16::try_from(100 / targets.len().max(1))
            .unwrap_or(1)
            .max(1);
        for one in targets {
            let target = self.in_zone(&one.target);
            let data = RData::SRV(SRV::new(0, weight, one.port, target.clone()));
            records
                .answers
                .push(Record::from_rdata(name.clone(), TTL, data));
            for data in self.address_data(&one.addresses) {
                let extra = Record::from_rdata(target.clone(), TTL, data);
                if !records.additionals.contains(&extra) {
                    records.additionals.push(extra);
                }
            }
        }
    }

    fn address_data(&self, addresses: &[IpAddr]) -> Vec<RData> {
        let mut out: Vec<_> = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => RData::A(A(*address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
            })
            .collect();
        if out.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % out.len();
            out.rotate_left(turn);
        }
        out
    }

    fn in_zone(&self, labels: &[String]) -> Name {
        let text = labels
            .iter()
            .chain(&self.zone)
            .map(String::as_str)
            .collect::<Vec<_>>();
        Name::from_ascii(text.join(".") + ".").unwrap_or_else(|_| Name::root())
    }

    /// Start of authority: negative answers may be kept as long as positive ones.
    fn soa(&self) -> RData {
        let server = self.in_zone(&["ns".into(), "dns".into()]);
        let contact = self.in_zone(&["hostmaster".into()]);
        let minimum = TTL;
        RData::SOA(SOA::new(server, contact, 1, 7200, 1800, 86_400, minimum))
    }
}

fn lower(name: &Name) -> Vec<String> {
    name.iter()
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .collect()
}

/// The labels before the zone.
fn strip_zone<'a>(labels: &'a [String], zone: &[String]) -> Option<Vec<&'a str>> {
    let inside = labels.strip_suffix(zone)?;
    Some(inside.iter().map(String::as_str).collect())
}

/// The address of a full name under in-addr.arpa or ip6.arpa.
fn reverse_address(labels: &[String]) -> Option<IpAddr> {
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    match &labels[..] {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}").parse().ok().map(IpAddr::V4),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let mut bits = 0u128;
            for nibble in nibbles.iter().rev() {
                bits = (bits << 4) | u128::from_str_radix(nibble, 16).ok().filter(|n| *n < 16)?;
            }
            Some(IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

/// A request with one question; `Err` holds the refusal, `None` what deserves no answer.
fn parse(bytes: &[u8]) -> Option<Result<Message, Vec<u8>>> {
    let refuse = |id, op_code, code| {
        let message = Message::error_msg(id, op_code, code);
        message.to_vec().ok().map(Err)
    };
    let id = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    // An answer must never be answered: two servers could talk for ever.
    if bytes.len() < 12 || bytes[2] & 0x80 != 0 {
        return None;
    }
    match Message::from_vec(bytes) {
        Err(_) => refuse(id, OpCode::Query, ResponseCode::FormErr),
        Ok(message) if message.metadata.message_type != MessageType::Query => None,
        Ok(message) if message.metadata.op_code != OpCode::Query => {
            refuse(id, message.metadata.op_code, ResponseCode::NotImp)
        }
        Ok(message) if message.queries.len() != 1 => {
            refuse(id, OpCode::Query, ResponseCode::FormErr)
        }
        Ok(message) => Some(Ok(message)),
    }
}

/// The answer on the wire, cut to what the client takes.
fn encode(request: &Message, records: Records, datagram: bool) -> Option<Vec<u8>> {
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = records.authoritative;
    response.metadata.response_code = records.code.unwrap_or(ResponseCode::NoError);
    response.add_queries(request.queries.iter().cloned());
    response.answers = records.answers;
    response.authorities = records.authorities;
    response.additionals = records.additionals;
    let mut limit = u16::MAX;
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_DATAGRAM);
        if request.version() > 0 {
            // RFC 6891: only version 0 exists.
            response.metadata.response_code = ResponseCode::BADVERS;
            response.answers.clear();
        }
        response.set_edns(edns);
    }
    if datagram {
        limit = request.max_payload().clamp(MIN_DATAGRAM, MAX_DATAGRAM);
    }
    let whole = emit(&response, u16::MAX)?;
    if whole.len() <= usize::from(limit) {
        return Some(whole);
    }
    // Additional records are a courtesy; leaving them out is no truncation (RFC 2181, 9).
    response.additionals.clear();
    let spare = response.edns.as_ref().map_or(0, |_| 11);
    emit(&response, limit)
        .filter(|bytes| bytes.len() <= usize::from(limit))
        .or_else(|| {
            let mut short = response.truncate();
            short.metadata.truncation = true;
            emit(&short, limit.saturating_sub(spare))
        })
}

fn emit(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    match message.emit(&mut encoder) {
        Ok(()) => Some(bytes),
        Err(error) => {
            tracing::debug!(%error, "DNS answer can't be encoded");
            None
        }
    }
}
