//! How the seats of the server are divided among levels: nominal shares, and what is lent and
//! borrowed by demand (KEP-1040, "Dispatching").

use super::demand::Wanted;

/// Targets are at least this, so that fractions of them mean something.
const TARGET_LEAST: f64 = 0.001;
const EPSILON: f64 = 1e-7;

/// What a level is given by its configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Its share.
    pub(super) nominal: u32,
    /// What it keeps when others want more,
    pub(super) least: u32,
    /// and what it gets when others want less.
    pub(super) most: u32,
}

/// How a level asks for its part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Config {
    /// `nominalConcurrencyShares`.
    pub(super) shares: u32,
    /// `lendablePercent`.
    pub(super) lendable: u32,
    /// `borrowingLimitPercent`; `None`: no limit.
    pub(super) borrowing: Option<u32>,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seats are small and not negative; a cast of a float stops at the ends"
)]
fn seats(value: f64) -> u32 {
    value as u32
}

/// The limits of a level among levels that have `sum` shares of `total` seats.
pub(super) fn limits(config: Config, sum: f64, total: u32) -> Limits {
    let nominal = if sum > 0.0 {
        seats((f64::from(total) * f64::from(config.shares) / sum).ceil())
    } else {
        0
    };
    let part = |percent: u32| seats((f64::from(nominal) * f64::from(percent) / 100.0).round());
    Limits {
        nominal,
        least: nominal.saturating_sub(part(config.lendable)),
        most: nominal.saturating_add(config.borrowing.map_or(total, part)),
    }
}

/// The seats with which a level begins: half of what it can lend is lent.
pub(super) fn first(limits: Limits) -> u32 {
    limits.nominal - (limits.nominal - limits.least) / 2
}

/// A level among others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Party {
    pub(super) exempt: bool,
    pub(super) limits: Limits,
    pub(super) wanted: Wanted,
    /// The limit that holds now.
    pub(super) current: u32,
}

impl Party {
    /// What it can't be pushed below now: what it has wanted at most, up to its nominal share.
    fn floor(&self) -> u32 {
        let wanted = if self.exempt {
            self.wanted.peak
        } else {
            self.wanted.peak.min(self.limits.nominal)
        };
        self.limits.least.max(wanted)
    }

    /// What it would have if there were enough for all.
    pub(super) fn target(&self) -> f64 {
        f64::from(self.floor()).max(self.wanted.smoothed)
    }
}

/// The limits that are to hold from now on, in the order of the levels, and the fraction of its
/// target that each gets (0: there is not enough for that).
pub(super) fn divide(parties: &[Party]) -> (Vec<u32>, f64) {
    let total: i64 = parties
        .iter()
        .map(|one| i64::from(one.limits.nominal))
        .sum();
    let limited = || parties.iter().filter(|one| !one.exempt);
    let taken: i64 = parties
        .iter()
        .filter(|one| one.exempt)
        .map(|one| i64::from(one.floor()))
        .sum();
    let rest = total - taken;
    let least: i64 = limited().map(|one| i64::from(one.limits.least)).sum();
    let floors: i64 = limited().map(|one| i64::from(one.floor())).sum();
    let each = |of: &dyn Fn(usize, &Party) -> u32| -> Vec<u32> {
        let mut place = 0;
        parties
            .iter()
            .map(|one| {
                if one.exempt {
                    return one.floor();
                }
                place += 1;
                of(place - 1, one)
            })
            .collect()
    };
    if rest <= least {
        return (each(&|_, one| one.limits.least), 0.0);
    }
    if rest <= floors {
        #[expect(clippy::cast_precision_loss, reason = "seats are few")]
        let part = (rest - least) as f64 / (floors - least) as f64;
        let shrunk = |_: usize, one: &Party| {
            let above = f64::from(one.floor() - one.limits.least);
            one.limits.least + seats((above * part).round())
        };
        return (each(&shrunk), 0.0);
    }
    let classes: Vec<Class> = limited()
        .map(|one| Class {
            target: one.target(),
            least: f64::from(one.floor()),
            most: f64::from(one.limits.most),
        })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "seats are few")]
    match fair(total as f64, &classes) {
        Some((given, fraction)) => (each(&|place, _| seats(given[place].round())), fraction),
        None => (each(&|_, one| one.current), 0.0),
    }
}

#[derive(Debug, Clone, Copy)]
struct Class {
    target: f64,
    least: f64,
    most: f64,
}

/// The one fraction of all targets that, held within each class's bounds, makes up `total`; with
/// what each class gets. `None`: the bounds do not let it.
fn fair(total: f64, classes: &[Class]) -> Option<(Vec<f64>, f64)> {
    let given = |fraction: f64| -> Vec<f64> {
        let of = |class: &Class| {
            let aimed = fraction * class.target.max(TARGET_LEAST);
            aimed.max(class.least).min(class.most)
        };
        classes.iter().map(of).collect()
    };
    let sum = |fraction: f64| -> f64 { given(fraction).iter().sum() };
    // The sum rises with the fraction, and is straight between these.
    let mut turns: Vec<f64> = classes
        .iter()
        .flat_map(|class| {
            let target = class.target.max(TARGET_LEAST);
            [class.least / target, class.most / target]
        })
        .collect();
    turns.sort_by(f64::total_cmp);
    let mut before = (0.0, sum(0.0));
    if before.1 > total + EPSILON {
        return None;
    }
    for turn in turns {
        let here = (turn, sum(turn));
        if here.1 + EPSILON >= total {
            let rise = here.1 - before.1;
            let way = if rise > EPSILON {
                ((total - before.1) / rise).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let fraction = before.0 + (here.0 - before.0) * way;
            return Some((given(fraction), fraction));
        }
        before = here;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(nominal: u32, lendable: u32, peak: u32, smoothed: f64) -> Party {
        let limits = Limits {
            nominal,
            least: nominal - lendable,
            most: nominal + 600,
        };
        Party {
            exempt: false,
            limits,
            wanted: Wanted {
                peak,
                smoothed,
                ..Wanted::default()
            },
            current: first(limits),
        }
    }

    #[test]
    fn shares_become_seats_as_in_the_reference() {
        // The default levels' 245 shares of 600 seats.
        let of = |shares, lendable| {
            let config = Config {
                shares,
                lendable,
                borrowing: None,
            };
            let limits = limits(config, 245.0, 600);
            (limits.nominal, limits.least, limits.most, first(limits))
        };
        assert_eq!(of(100, 90), (245, 24, 845, 135));
        assert_eq!(of(30, 33), (74, 50, 674, 62));
        assert_eq!(of(5, 0), (13, 13, 613, 13));
        assert_eq!(of(0, 0), (0, 0, 600, 0));
    }

    #[test]
    fn who_wants_more_borrows_from_who_wants_less() {
        let (given, fraction) = divide(&[party(100, 50, 300, 300.0), party(100, 50, 10, 10.0)]);
        assert_eq!(given, [150, 50]);
        assert!((fraction - 0.5).abs() < 1e-9);
        let (given, _) = divide(&[party(100, 50, 300, 300.0), party(100, 50, 300, 300.0)]);
        assert_eq!(given, [100, 100]);
        let (given, _) = divide(&[party(100, 50, 0, 0.0), party(100, 50, 0, 0.0)]);
        assert_eq!(given.iter().sum::<u32>(), 200);
    }

    #[test]
    fn exempt_traffic_takes_from_the_others_down_to_what_they_keep() {
        let exempt = |peak| Party {
            exempt: true,
            ..party(0, 0, peak, f64::from(peak))
        };
        let (given, _) = divide(&[exempt(60), party(100, 50, 100, 100.0)]);
        assert_eq!(given, [60, 50]);
        let (given, _) = divide(&[exempt(20), party(100, 50, 100, 100.0)]);
        assert_eq!(given, [20, 80]);
        let (given, _) = divide(&[exempt(500), party(100, 50, 100, 100.0)]);
        assert_eq!(given, [500, 50]);
    }
}
