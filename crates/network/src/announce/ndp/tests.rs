//! Solicitations as they are on the wire, and what is answered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

const HERE: Mac = [2, 0, 0, 0, 0, 1];
const THERE: Mac = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A solicitation with these options.
fn asked(source: &str, to: &str, target: &str, options: &[u8]) -> Vec<u8> {
    let mut payload = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(ip(target).octets());
    payload.extend(options);
    packet(ip(source), ip(to), payload)
}

const OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 2];

fn usual() -> Vec<u8> {
    asked("2001:db8::2", "ff02::1:ff00:100", "2001:db8::100", &OPTION)
}

#[test]
fn a_solicitation_as_it_is_on_the_wire() {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
    bytes.extend(ip("2001:db8::2").octets());
    bytes.extend(ip("ff02::1:ff00:100").octets());
    // The checksum was reckoned elsewhere.
    bytes.extend([135, 0, 0x1a, 0x29, 0, 0, 0, 0]);
    bytes.extend(ip("2001:db8::100").octets());
    bytes.extend(OPTION);
    assert_eq!(usual(), bytes);
    // Padding of the frame does not belong to it.
    bytes.extend([7; 18]);
    let found = Solicitation::parse(&bytes, [9; 6]).unwrap();
    let expected = Solicitation {
        target: ip("2001:db8::100"),
        source: ip("2001:db8::2"),
        mac: THERE,
    };
    assert_eq!(found, expected);
}

#[test]
fn the_answer_goes_to_the_asker_and_overrides() {
    let found = Solicitation::parse(&usual(), [9; 6]).unwrap();
    let answer = found.answer(HERE).unwrap();
    assert_eq!(answer.to, THERE);
    let (header, body) = answer.bytes.split_at(IP);
    assert_eq!(header[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
    assert_eq!(header[8..24], ip("2001:db8::100").octets());
    assert_eq!(header[24..], ip("2001:db8::2").octets());
    assert_eq!(body[..2], [136, 0]);
    assert_eq!(body[4..8], [0x60, 0, 0, 0]);
    assert_eq!(body[8..24], ip("2001:db8::100").octets());
    assert_eq!(body[24..], [2, 1, 2, 0, 0, 0, 0, 1]);
    let checked = sum(ip("2001:db8::100"), ip("2001:db8::2"), body);
    assert_eq!(checked, u16::MAX);
    assert_eq!(found.answer(THERE), None, "one's own question");
    assert_eq!(Solicitation::parse(&answer.bytes, HERE), None);
}

#[test]
fn who_does_not_say_where_he_is_is_answered_where_he_sent_from() {
    let bytes = asked("fe80::2", "2001:db8::100", "2001:db8::100", &[]);
    let found = Solicitation::parse(&bytes, [9; 6]).unwrap();
    assert_eq!(found.answer(HERE).unwrap().to, [9; 6]);
}

#[test]
fn who_wants_the_address_himself_learns_with_all_others_that_it_is_taken() {
    let bytes = asked("::", "ff02::1:ff00:100", "2001:db8::100", &[]);
    let found = Solicitation::parse(&bytes, THERE).unwrap();
    let answer = found.answer(HERE).unwrap();
    assert_eq!(answer.to, [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(answer.bytes[24..IP], ip("ff02::1").octets());
    assert_eq!(answer.bytes[IP + 4], OVERRIDE, "it is not solicited");
    // Nonces of whoever asks more than once (RFC 7527) are options like any other.
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let bytes = asked("::", "ff02::1:ff00:100", "2001:db8::100", &nonce);
    assert!(Solicitation::parse(&bytes, THERE).is_some());
}

#[test]
fn an_announcement_is_for_all_and_overrides() {
    let announcement = announcement(HERE, ip("2001:db8::100"));
    assert_eq!(announcement.to, [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(announcement.bytes[24..IP], ip("ff02::1").octets());
    assert_eq!(announcement.bytes[IP + 4], OVERRIDE);
    let body = &announcement.bytes[IP..];
    assert_eq!(sum(ip("2001:db8::100"), ip("ff02::1"), body), u16::MAX);
}

#[test]
fn groups_are_those_of_the_standards() {
    // The example of RFC 4291, section 2.7.1.
    let group = solicited_node(ip("4037::1:800:200e:8c6c"));
    assert_eq!(group, ip("ff02::1:ff0e:8c6c"));
    assert_eq!(group_mac(group), [0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]);
}

#[test]
fn what_is_no_valid_solicitation_is_nothing() {
    let group = "ff02::1:ff00:100";
    let target = "2001:db8::100";
    let good = usual();
    let cases = [
        ("none", vec![]),
        ("cut", good[..good.len() - 1].to_vec()),
        (
            "multicast target",
            asked("fe80::2", group, "ff02::1", &OPTION),
        ),
        ("multicast source", asked("ff02::2", group, target, &OPTION)),
        (
            "empty option",
            asked("fe80::2", group, target, &[1, 0, 2, 0, 0, 0, 0, 2]),
        ),
        (
            "cut option",
            asked("fe80::2", group, target, &[1, 2, 2, 0, 0, 0, 0, 2]),
        ),
        ("half an option", asked("fe80::2", group, target, &[1])),
        ("no address, but where", asked("::", group, target, &OPTION)),
        (
            "no address, not in the group",
            asked("::", target, target, &[]),
        ),
    ];
    for (name, bytes) in cases {
        assert_eq!(Solicitation::parse(&bytes, THERE), None, "{name}");
    }
    // Each byte counts: of the header, or of what the checksum is over. Class and flow label
    // (1 to 3) are free.
    for at in (0..good.len()).filter(|at| !(1..4).contains(at)) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        assert_eq!(Solicitation::parse(&bytes, THERE), None, "byte {at}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_from_the_link_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        prop_assert!(Solicitation::parse(&bytes, THERE).is_none() || bytes.len() >= IP + BODY);
    }

    /// Behind a right header and checksum, too.
    #[test]
    fn options_of_all_sorts_are_survived(
        source in any::<[u8; 16]>(),
        target in any::<[u8; 16]>(),
        options in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (source, target) = (Ipv6Addr::from(source), Ipv6Addr::from(target));
        let mut payload = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        payload.extend(target.octets());
        payload.extend(&options);
        let bytes = packet(source, solicited_node(target), payload);
        let found = Solicitation::parse(&bytes, THERE);
        if let Some(answer) = found.and_then(|found| found.answer(HERE)) {
            let to = address(&answer.bytes[24..IP]).unwrap();
            prop_assert_eq!(sum(target, to, &answer.bytes[IP..]), u16::MAX);
        } else if options.is_empty() {
            prop_assert!(source.is_multicast() || target.is_multicast());
        }
    }
}
