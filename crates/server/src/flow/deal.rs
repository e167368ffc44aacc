//! Shuffle sharding: which few of many queues a flow may use.
//!
//! Two flows share all their queues only if they share their whole hand, which is as likely as to
//! be dealt the same cards: a heavy flow fills its own hand and leaves others some of theirs.

use std::hash::{BuildHasher as _, RandomState};

/// The largest hand that a hash of 60 bits can deal (`maxHashBits` of the reference).
pub(super) const HAND_MOST: usize = 16;

/// Hashes flows with a key of this process's own, so that nobody can choose a name that shares its
/// hand with somebody else.
#[derive(Debug, Default)]
pub(super) struct FlowHash(RandomState);

impl FlowHash {
    /// The hash of a flow: its schema, and who or where it is by the schema's distinguisher.
    pub(super) fn of(&self, schema: &str, distinguisher: &str) -> u64 {
        self.0.hash_one((schema, distinguisher))
    }
}

/// Deals `size` different cards of a deck of `deck` into `hand`, by a hash.
pub(super) fn deal(deck: usize, size: usize, hash: u64, hand: &mut [u32; HAND_MOST]) -> &[u32] {
    let size = size.min(deck).min(HAND_MOST);
    let mut rest = hash;
    for dealt in 0..size {
        let left = (deck - dealt) as u64;
        // The place of the card among those that are still in the deck …
        let mut card = u32::try_from(rest % left).unwrap_or(0);
        rest /= left;
        // … becomes its number by counting those that are gone, lowest first.
        let mut gone = [0; HAND_MOST];
        let gone = &mut gone[..dealt];
        gone.copy_from_slice(&hand[..dealt]);
        gone.sort_unstable();
        for &other in gone.iter() {
            card += u32::from(card >= other);
        }
        hand[dealt] = card;
    }
    &hand[..size]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_different_cards_and_every_card_comes_up() {
        let flows = FlowHash::default();
        let mut seen = [0; 64];
        for flow in 0..4000 {
            let mut cards = [0; HAND_MOST];
            let hand = deal(64, 6, flows.of("schema", &flow.to_string()), &mut cards);
            assert_eq!(hand.len(), 6);
            for (place, card) in hand.iter().enumerate() {
                assert!(!hand[..place].contains(card), "{hand:?}");
                seen[*card as usize] += 1;
            }
        }
        // 375 each are expected; a card that comes up half as often would be no accident.
        assert!(
            seen.iter().all(|times| (188..750).contains(times)),
            "{seen:?}"
        );
    }

    #[test]
    fn a_whole_deck_can_be_dealt() {
        let mut cards = [0; HAND_MOST];
        let mut hand = deal(15, 15, u64::MAX / 3, &mut cards).to_vec();
        hand.sort_unstable();
        assert_eq!(hand, (0..15).collect::<Vec<_>>());
        assert_eq!(deal(1, 1, 77, &mut cards), [0]);
        assert_eq!(deal(0, 1, 77, &mut cards), [0; 0]);
    }
}
