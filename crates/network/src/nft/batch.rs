//! One atomic transaction: everything in it happens, or nothing does.

use crate::netlink::socket::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, nfgenmsg};
use crate::netlink::{NetlinkError, Writer};

use super::expr::{AnonymousMap, Expr};
use super::types::{Data, Family, Hook, Kind, MapData, Set};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

const NFTA_LIST_ELEM: u16 = 1;
const NFT_SET_ANONYMOUS: u32 = 1;
const NFT_SET_CONSTANT: u32 = 2;
const NFT_SET_MAP: u32 = 8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;

/// Elements in one message; an attribute holds 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Why a transaction was refused. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The kernel refused at least one object; the first is named.
    #[error("nftables refused {object}: {code}{detail}")]
    Refused {
        /// Kind and name.
        object: String,
        /// The errno.
        code: nix::errno::Errno,
        /// The kernel's text, if any.
        detail: String,
    },
    /// The socket failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// A transaction on one table.
#[derive(Debug)]
pub struct Batch {
    writer: Writer,
    family: Family,
    table: String,
    labels: Vec<String>,
    anonymous: u32,
}

impl Batch {
    /// Begins a transaction on this table.
    pub fn new(family: Family, table: &str) -> Self {
        let mut batch = Self {
            writer: Writer::default(),
            family,
            table: table.to_owned(),
            labels: Vec::new(),
            anonymous: 0,
        };
        batch.mark(NFNL_MSG_BATCH_BEGIN);
        batch.labels.push("the transaction".into());
        batch
    }

    /// Whether nothing was asked for yet.
    pub fn is_empty(&self) -> bool {
        self.labels.len() == 1
    }

    /// Bytes of the encoded transaction.
    pub fn size(&self) -> usize {
        self.writer.bytes().len()
    }

    fn mark(&mut self, kind: u16) {
        let sequence = self.sequence();
        self.writer.begin(kind, NLM_F_REQUEST, sequence);
        // Resource id: the subsystem, in network order.
        self.writer.raw(&[0, 0]);
        self.writer.raw(&NFNL_SUBSYS_NFTABLES.to_be_bytes());
        self.writer.finish();
    }

    /// Sequence numbers count the messages of the batch from 1.
    fn sequence(&self) -> u32 {
        u32::try_from(self.labels.len() + 1).expect("fewer than 2^32 messages")
    }

    fn message(&mut self, kind: u16, flags: u16, label: String, fill: impl FnOnce(&mut Writer)) {
        let sequence = self.sequence();
        self.writer.begin(
            (NFNL_SUBSYS_NFTABLES << 8) | kind,
            NLM_F_REQUEST | flags,
            sequence,
        );
        self.writer.raw(&nfgenmsg(self.family.number()));
        fill(&mut self.writer);
        self.writer.finish();
        self.labels.push(label);
    }

    /// Makes the table if it is not there.
    pub fn add_table(&mut self) {
        let table = self.table.clone();
        self.message(NEWTABLE, NLM_F_CREATE, format!("table {table}"), |w| {
            w.string(1, &table)
        });
    }

    /// Removes the table with all it holds; it must be there.
    pub fn delete_table(&mut self) {
        let table = self.table.clone();
        self.message(DELTABLE, 0, format!("table {table}"), |w| {
            w.string(1, &table)
        });
    }

    /// Makes a chain; a base chain accepts what its rules do not decide.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        let table = self.table.clone();
        self.message(NEWCHAIN, NLM_F_CREATE, format!("chain {name}"), |w| {
            w.string(1, &table);
            w.string(3, name);
            if let Some(hook) = hook {
                w.nest(4, |w| {
                    w.be32(1, hook.number);
                    w.be32(2, hook.priority.cast_unsigned());
                });
                w.be32(5, 1);
                w.string(7, hook.kind);
            }
        });
    }

    /// Removes a chain that has no rules and is not referred to.
    pub fn delete_chain(&mut self, name: &str) {
        let table = self.table.clone();
        self.message(DELCHAIN, 0, format!("chain {name}"), |w| {
            w.string(1, &table);
            w.string(3, name);
        });
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let table = self.table.clone();
        self.message(DELRULE, 0, format!("rules of chain {name}"), |w| {
            w.string(1, &table);
            w.string(2, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, rule: &[Expr]) {
        let mut maps = Vec::new();
        for expr in rule {
            if let Expr::LookupIn(map, ..) = expr {
                maps.push(self.add_anonymous(chain, map));
            }
        }
        let table = self.table.clone();
        self.message(
            NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            format!("rule of chain {chain}"),
            |w| {
                w.string(1, &table);
                w.string(2, chain);
                let mut maps = maps.iter();
                w.nest(4, |w| {
                    for expr in rule {
                        let map = match expr {
                            Expr::LookupIn(..) => maps.next().map(|id| (*id, ANONYMOUS_NAME)),
                            _ => None,
                        };
                        expr.write(w, map);
                    }
                });
            },
        );
    }

    fn add_anonymous(&mut self, chain: &str, map: &AnonymousMap) -> u32 {
        self.anonymous += 1;
        let id = self.anonymous;
        let table = self.table.clone();
        let (key_type, key_length) = Kind::of(map.key);
        let label = format!("map of chain {chain}");
        self.message(NEWSET, NLM_F_CREATE, label.clone(), |w| {
            w.string(1, &table);
            w.string(2, ANONYMOUS_NAME);
            w.be32(3, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_MAP);
            w.be32(4, key_type);
            w.be32(5, key_length);
            map_data(w, map.data);
            // A known size lets the kernel choose a small fixed table.
            let size = u32::try_from(map.elements.len()).expect("fewer than 2^32 elements");
            w.nest(9, |w| w.be32(1, size));
            w.be32(10, id);
            if map.key == [Kind::Integer] {
                w.attribute(13, &HOST_ORDER_KEY);
            }
        });
        for chunk in map.elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.message(NEWSETELEM, NLM_F_CREATE, label.clone(), |w| {
                w.string(1, &table);
                w.string(2, ANONYMOUS_NAME);
                w.be32(4, id);
                w.nest(3, |w| {
                    for (key, value) in chunk {
                        element(w, key, Some(value));
                    }
                });
            });
        }
        id
    }

    /// Makes a named set or map.
    pub fn add_set(&mut self, set: &Set) {
        let table = self.table.clone();
        // Set ids only have to differ within the batch.
        self.anonymous += 1;
        let id = self.anonymous;
        let (key_type, key_length) = Kind::of(set.key);
        self.message(NEWSET, NLM_F_CREATE, format!("set {}", set.name), |w| {
            let mut flags = 0;
            if set.data != MapData::None {
                flags |= NFT_SET_MAP;
            }
            if set.dynamic.is_some() {
                flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
            }
            w.string(1, &table);
            w.string(2, &set.name);
            w.be32(3, flags);
            w.be32(4, key_type);
            w.be32(5, key_length);
            map_data(w, set.data);
            w.be32(10, id);
            if let Some(timeout) = set.dynamic {
                let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                w.attribute(11, &ms.to_be_bytes());
            }
        });
    }

    /// Removes a set that no rule uses.
    pub fn delete_set(&mut self, name: &str) {
        let table = self.table.clone();
        self.message(DELSET, 0, format!("set {name}"), |w| {
            w.string(1, &table);
            w.string(2, name);
        });
    }

    /// Adds elements to a named set or map.
    pub fn add_elements<'a>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = (&'a [u8], Option<&'a Data>)>,
    ) {
        self.elements(NEWSETELEM, NLM_F_CREATE, set, elements);
    }

    /// Removes elements; they must be there.
    pub fn delete_elements<'a>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = (&'a [u8], Option<&'a Data>)>,
    ) {
        self.elements(DELSETELEM, 0, set, elements);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl IntoIterator<Item = (&'a [u8], Option<&'a Data>)>,
    ) {
        let table = self.table.clone();
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.message(kind, flags, format!("element of {set}"), |w| {
                w.string(1, &table);
                w.string(2, set);
                w.nest(3, |w| {
                    for (key, data) in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                        element(w, key, data);
                    }
                });
            });
        }
    }
}

/// The kernel replaces `%d` by a number.
const ANONYMOUS_NAME: &str = "__map%d";

/// nft's own note on a set: its key is in host order, so that it prints 1 and not 16777216.
const HOST_ORDER_KEY: [u8; 6] = [0, 4, 1, 0, 0, 0];

fn map_data(w: &mut Writer, data: MapData) {
    match data {
        MapData::None => {}
        MapData::Verdict => {
            w.be32(6, NFT_DATA_VERDICT);
            w.be32(7, 16);
        }
        MapData::Value(parts) => {
            let (data_type, data_length) = Kind::of(parts);
            w.be32(6, data_type);
            w.be32(7, data_length);
        }
    }
}

fn element(w: &mut Writer, key: &[u8], data: Option<&Data>) {
    w.nest(NFTA_LIST_ELEM, |w| {
        w.nest(1, |w| w.attribute(1, key));
        if let Some(data) = data {
            data.write(w, 2);
        }
    });
}

/// Carries the transaction out.
///
/// # Errors
/// When the kernel refuses any part; nothing is done then.
pub fn commit(socket: &mut crate::Nfnetlink, mut batch: Batch) -> Result<(), NftError> {
    if batch.is_empty() {
        return Ok(());
    }
    // Only the last message asks for an answer; it comes when the whole batch was judged.
    batch.writer.add_flags(NLM_F_ACK);
    let last = batch.sequence() - 1;
    batch.mark(NFNL_MSG_BATCH_END);
    let refusals = socket.0.commit(&batch.writer, 1, last)?;
    match refusals.into_iter().next() {
        None => Ok(()),
        Some(refusal) => {
            let at = usize::try_from(refusal.sequence)
                .unwrap_or(0)
                .wrapping_sub(1);
            let object = batch
                .labels
                .get(at)
                .cloned()
                .unwrap_or_else(|| "the transaction".into());
            Err(NftError::Refused {
                object,
                code: refusal.code,
                detail: refusal.detail,
            })
        }
    }
}

/// Removes a table with all it holds. Succeeds when it is not there.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_table(
    socket: &mut crate::Nfnetlink,
    family: Family,
    table: &str,
) -> Result<(), NftError> {
    let mut batch = Batch::new(family, table);
    batch.add_table();
    batch.delete_table();
    commit(socket, batch)
}

/// Whether a table is there.
///
/// # Errors
/// When the kernel refuses to say.
pub fn table_exists(
    socket: &mut crate::Nfnetlink,
    family: Family,
    table: &str,
) -> Result<bool, NftError> {
    let sequence = socket.0.next_sequence();
    let mut writer = Writer::default();
    let kind = (NFNL_SUBSYS_NFTABLES << 8) | GETTABLE;
    writer.begin(kind, NLM_F_REQUEST | NLM_F_ACK, sequence);
    writer.raw(&nfgenmsg(family.number()));
    writer.string(1, table);
    writer.finish();
    match socket
        .0
        .query(&format!("table {table}"), &writer, sequence, |_, _| {})
    {
        Ok(()) => Ok(true),
        Err(error) if error.is(nix::errno::Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
