//! Fairness in simulated time.

use super::*;

const MILLI: Nanos = 1_000_000;

fn level(limit: u32, queues: usize, hand: usize, length: usize) -> Queues<&'static str> {
    let mut level = Queues::new(0);
    let shape = Shape {
        queues,
        hand,
        length,
    };
    level.configure(0, Way::Queue(shape), limit);
    level
}

/// Lets a request arrive; answers its seats when it is served at once.
fn arrive(
    level: &mut Queues<&'static str>,
    now: Nanos,
    who: &'static str,
    width: Width,
) -> Result<Option<Seats>, Refusal> {
    // Few queues and one-card hands: the flow's first letter is its hash.
    let hash = u64::from(who.as_bytes()[0]);
    match level.arrive(now, width, hash) {
        Arrival::Served(seats) => Ok(Some(seats)),
        Arrival::Waits(index) => {
            level.enqueue(index, width, who);
            Ok(None)
        }
        Arrival::Refused(why) => Err(why),
    }
}

fn dispatched(level: &mut Queues<&'static str>) -> Vec<(&'static str, Seats)> {
    let mut served = Vec::new();
    level.dispatch(|who, seats| served.push((who, seats)), |_| {});
    served
}

#[test]
fn one_who_asks_for_little_is_served_among_the_first_of_those_who_wait() {
    let mut level = level(1, 8, 1, 1000);
    let mut running = arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap();
    for _ in 0..500 {
        assert!(arrive(&mut level, 0, "a", Width::ONE).unwrap().is_none());
    }
    let mut order = Vec::new();
    let mut now = 0;
    for step in 0..40 {
        now += 3 * MILLI;
        if step == 10 {
            for _ in 0..5 {
                assert!(arrive(&mut level, now, "b", Width::ONE).unwrap().is_none());
            }
        }
        level.finish(now, running);
        let served = dispatched(&mut level);
        assert_eq!(served.len(), 1, "one seat, one at a time");
        order.push(served[0].0);
        running = served[0].1;
    }
    let of_b: Vec<usize> = (0..order.len()).filter(|at| order[*at] == "b").collect();
    assert_eq!(of_b.len(), 5, "{order:?}");
    assert!(
        of_b[4] <= 10 + 2 * 5,
        "every second seat at least is b's while b waits: {order:?}"
    );
}

#[test]
fn who_takes_long_waits_longer() {
    // Flow a's requests take ten times as long as b's: b is served ten times as often.
    let mut level = level(1, 8, 1, 1000);
    let mut now = 0;
    let mut running = (
        "a",
        arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap(),
    );
    for _ in 0..300 {
        arrive(&mut level, 0, "a", Width::ONE).unwrap();
        arrive(&mut level, 0, "b", Width::ONE).unwrap();
    }
    let mut served = [0, 0];
    for _ in 0..220 {
        now += if running.0 == "a" { 30 } else { 3 } * MILLI;
        level.finish(now, running.1);
        running = dispatched(&mut level)[0];
        served[usize::from(running.0 == "b")] += 1;
    }
    assert!((15..=25).contains(&served[0]), "{served:?}");
}

#[test]
fn a_full_queue_refuses_and_others_do_not() {
    let mut level = level(1, 8, 1, 3);
    arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap();
    for _ in 0..3 {
        assert!(arrive(&mut level, 0, "a", Width::ONE).unwrap().is_none());
    }
    let refused = arrive(&mut level, 0, "a", Width::ONE).unwrap_err();
    assert_eq!(refused, Refusal::QueueFull);
    assert!(arrive(&mut level, 0, "b", Width::ONE).unwrap().is_none());
    assert_eq!(level.tally().rejected, 1);
}

#[test]
fn a_level_without_queues_refuses_what_it_has_no_seats_for() {
    let mut level: Queues<&str> = Queues::new(0);
    level.configure(0, Way::Reject, 2);
    let first = arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap();
    arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap();
    let refused = arrive(&mut level, 0, "b", Width::ONE).unwrap_err();
    assert_eq!(refused, Refusal::ConcurrencyLimit);
    level.finish(MILLI, first);
    assert!(
        arrive(&mut level, MILLI, "b", Width::ONE)
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_wide_request_waits_for_room_and_is_not_overtaken_for_ever() {
    let mut level = level(4, 8, 1, 100);
    let mut running: Vec<Seats> = (0..4)
        .map(|_| arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap())
        .collect();
    assert!(arrive(&mut level, 0, "w", Width::of(4)).unwrap().is_none());
    for _ in 0..100 {
        arrive(&mut level, 0, "a", Width::ONE).unwrap();
    }
    let mut now = 0;
    let mut turns = 0;
    let wide = loop {
        now += 3 * MILLI;
        turns += 1;
        assert!(turns < 20, "the wide one starves");
        let done: Vec<Seats> = std::mem::take(&mut running);
        for seats in done {
            level.finish(now, seats);
        }
        let served = dispatched(&mut level);
        assert!(level.seats() <= 4);
        if let Some(found) = served.iter().find(|(who, _)| *who == "w") {
            break found.1;
        }
        running = served.into_iter().map(|(_, seats)| seats).collect();
    };
    assert_eq!(level.seats(), 4, "it has the level to itself");
    level.finish(now, wide);
    assert_eq!(dispatched(&mut level).len(), 4);
}

#[test]
fn one_wider_than_the_level_is_served_alone() {
    let mut level = level(2, 8, 1, 100);
    let first = arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap();
    assert!(arrive(&mut level, 0, "w", Width::of(10)).unwrap().is_none());
    assert!(dispatched(&mut level).is_empty());
    level.finish(MILLI, first);
    assert_eq!(dispatched(&mut level).len(), 1);
    assert!(
        arrive(&mut level, MILLI, "a", Width::ONE)
            .unwrap()
            .is_none()
    );
}

#[test]
fn seats_linger_for_the_watchers_of_a_write() {
    let mut level = level(3, 8, 1, 100);
    let wide = Width {
        initial: 1,
        last: 3,
        lingers: 5 * MILLI,
    };
    let first = arrive(&mut level, 0, "a", wide).unwrap().unwrap();
    assert_eq!(level.seats(), 3);
    level.finish(MILLI, first);
    assert!(level.is_idle());
    assert_eq!(level.seats(), 3, "held for the events");
    assert!(
        arrive(&mut level, 2 * MILLI, "b", Width::ONE)
            .unwrap()
            .is_none()
    );
    assert_eq!(level.wakes_at(), Some(6 * MILLI));
    level.sync(6 * MILLI);
    assert_eq!(dispatched(&mut level).len(), 1);
    assert_eq!(level.seats(), 1);
    assert_eq!(level.wakes_at(), None);
}

#[test]
fn who_gives_up_leaves_no_trace() {
    let mut level = level(1, 8, 1, 100);
    let first = arrive(&mut level, 0, "a", Width::ONE).unwrap().unwrap();
    let Arrival::Waits(index) = level.arrive(0, Width::ONE, 7) else {
        panic!("it must wait");
    };
    let number = level.enqueue(index, Width::ONE, "b");
    assert!(level.give_up(MILLI, index, number, false));
    assert!(!level.give_up(MILLI, index, number, false));
    assert_eq!((level.waiting(), level.executing()), (0, 1));
    level.finish(MILLI, first);
    assert!(level.is_idle() && dispatched(&mut level).is_empty());
    assert_eq!(level.seats(), 0);
    assert_eq!(level.tally().timed_out, 1);
}

#[test]
fn queues_that_are_too_many_are_emptied_first() {
    let mut level = level(1, 8, 1, 100);
    let first = arrive(&mut level, 0, "g", Width::ONE).unwrap().unwrap();
    assert!(arrive(&mut level, 0, "g", Width::ONE).unwrap().is_none());
    level.configure(0, Way::Reject, 1);
    assert!(!level.views().collect::<Vec<_>>().is_empty());
    level.finish(MILLI, first);
    let served = dispatched(&mut level);
    assert_eq!(served.len(), 1);
    level.finish(2 * MILLI, served[0].1);
    assert_eq!(level.views().count(), 0);
    assert!(level.is_idle());
}

/// Numbers that look random, by a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }
}

/// What must hold after every step, whatever came before.
fn check<T>(level: &Queues<T>, running: &[Seats], waiting: usize) {
    assert_eq!(level.executing() as usize, running.len());
    assert_eq!(level.waiting() as usize, waiting);
    let views: Vec<QueueView> = level.views().collect();
    let waits: usize = views.iter().map(|view| view.waiting).sum();
    assert_eq!(waits, waiting);
    let wanted: u64 = views.iter().map(|view| view.most_seats).sum();
    assert_eq!(u64::from(level.seats_waiting), wanted);
    let active = views
        .iter()
        .filter(|view| view.waiting > 0 || view.executing > 0)
        .count();
    assert_eq!(level.active as usize, active);
    for view in &views {
        assert_eq!(view.work == 0, view.waiting == 0);
    }
    let lingering: u32 = level.lingering.iter().map(|it| it.0.seats).sum();
    let held: u32 = running.iter().map(|seats| seats.width().most()).sum();
    assert_eq!(level.seats, held + lingering);
}

#[test]
fn whatever_happens_the_books_are_right_and_everybody_is_served() {
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let mut level: Queues<u64> = Queues::new(0);
        let limit = 1 + u32::try_from(dice.below(12)).unwrap();
        let shape = Shape {
            queues: 1 + usize::try_from(dice.below(10)).unwrap(),
            hand: 1,
            length: 1 + usize::try_from(dice.below(6)).unwrap(),
        };
        level.configure(0, Way::Queue(shape), limit);
        let (mut now, mut next) = (0, 0);
        let mut running: Vec<Seats> = Vec::new();
        let mut places: Vec<(u32, u64, u64)> = Vec::new();
        for _ in 0..600 {
            now += dice.below(4 * MILLI);
            match dice.below(10) {
                0..=4 => {
                    let most = u32::try_from(dice.below(u64::from(limit) + 3)).unwrap();
                    let last = if dice.below(3) == 0 { most } else { 0 };
                    let width = Width {
                        initial: 1 + most / 2,
                        last,
                        lingers: if last == 0 { 0 } else { 5 * MILLI },
                    };
                    match level.arrive(now, width, dice.below(1 << 40)) {
                        Arrival::Served(seats) => running.push(seats),
                        Arrival::Waits(index) => {
                            let number = level.enqueue(index, width, next);
                            places.push((index, number, next));
                            next += 1;
                        }
                        Arrival::Refused(_) => {}
                    }
                }
                5..=7 if !running.is_empty() => {
                    let which = usize::try_from(dice.below(running.len() as u64)).unwrap();
                    let seats = running.swap_remove(which);
                    level.finish(now, seats);
                }
                8 if !places.is_empty() => {
                    let which = usize::try_from(dice.below(places.len() as u64)).unwrap();
                    let (index, number, _) = places.swap_remove(which);
                    assert!(level.give_up(now, index, number, dice.below(2) == 0));
                }
                9 => {
                    let limit = 1 + u32::try_from(dice.below(12)).unwrap();
                    let mut shape = shape;
                    shape.queues = 1 + usize::try_from(dice.below(10)).unwrap();
                    level.configure(now, Way::Queue(shape), limit);
                }
                _ => level.sync(now),
            }
            let mut served = Vec::new();
            level.dispatch(|who, seats| served.push((who, seats)), |_| {});
            for (who, seats) in served {
                places.retain(|place| place.2 != who);
                running.push(seats);
            }
            check(&level, &running, places.len());
        }
        // Nobody comes any more: all who wait are served, and nothing is left.
        let mut steps = 0;
        while !(running.is_empty() && places.is_empty()) {
            steps += 1;
            assert!(steps < 10_000, "seed {seed}: somebody waits for ever");
            now += 6 * MILLI;
            for seats in std::mem::take(&mut running) {
                level.finish(now, seats);
            }
            level.sync(now);
            level.dispatch(
                |who, seats| {
                    places.retain(|place| place.2 != who);
                    running.push(seats);
                },
                |_| {},
            );
            check(&level, &running, places.len());
        }
        level.sync(now + 1000 * MILLI);
        assert_eq!((level.seats(), level.active), (0, 0), "seed {seed}");
    }
}
