//! Decoders of what the link says, for `crates/fuzz` alone.

use std::net::IpAddr;

use crate::announce::wire::Question;
use crate::nft::Family;

/// Who has which address is asked by a packet that came from a hardware address; and the answer of
/// somebody who has it, without the link's header.
#[must_use]
pub fn question(
    packet: &[u8],
    six: bool,
    from: [u8; 6],
    own: [u8; 6],
) -> Option<(IpAddr, Option<Vec<u8>>)> {
    let family = if six { Family::V6 } else { Family::V4 };
    let question = Question::parse(family, packet, from)?;
    let answer = question.answer(own).map(|packet| packet.bytes);
    Some((question.target(), answer))
}
