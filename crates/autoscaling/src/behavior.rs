//! How fast the number of replicas may move: stabilization and policies, pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior,
};

use crate::calculate::Tolerances;

/// Scaling down looks back so long where nothing is said.
const DOWN_WINDOW: i32 = 300;

/// A number once recommended, or a change once made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Replicas recommended, or replicas added or removed.
    pub replicas: i32,
    /// When.
    pub at: Timestamp,
}

/// What is remembered of one autoscaler between looks.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Numbers recommended before limits.
    pub recommendations: Vec<Mark>,
    /// Replicas added.
    pub ups: Vec<Mark>,
    /// Replicas removed.
    pub downs: Vec<Mark>,
}

impl Memory {
    /// Notes a change that was made.
    pub fn changed(&mut self, from: i32, to: i32, at: Timestamp) {
        let mark = |replicas| Mark { replicas, at };
        if to > from {
            self.ups.push(mark(to - from));
        } else if to < from {
            self.downs.push(mark(from - to));
        }
    }

    /// Forgets what no window or period (an hour and half an hour at most) can reach.
    pub fn forget(&mut self, now: Timestamp) {
        let oldest = now - SignedDuration::from_secs(3600);
        for marks in [&mut self.recommendations, &mut self.ups, &mut self.downs] {
            marks.retain(|mark| mark.at >= oldest);
        }
    }
}

/// A number and why it is that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Replicas.
    pub replicas: i32,
    /// Reason of a condition.
    pub reason: &'static str,
    /// Its message.
    pub message: &'static str,
}

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// `minReplicas`.
    pub min: i32,
    /// `maxReplicas`.
    pub max: i32,
    /// Replicas now.
    pub current: i32,
}

const WITHIN: (&str, &str) = (
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const TOO_FEW: (&str, &str) = (
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const TOO_MANY: (&str, &str) = (
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const UP_LIMIT: (&str, &str) = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: (&str, &str) = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

fn limited(replicas: i32, (reason, message): (&'static str, &'static str)) -> Limited {
    Limited {
        replicas,
        reason,
        message,
    }
}

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy {
        type_: kind.to_owned(),
        value,
        period_seconds: 15,
    }
}

/// The rules for going up, with the defaults of the v2 API filled in.
#[must_use]
pub fn up_rules(behavior: &HorizontalPodAutoscalerBehavior) -> HPAScalingRules {
    let mut rules = behavior.scale_up.clone().unwrap_or_default();
    rules.stabilization_window_seconds.get_or_insert(0);
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        rules.policies = Some(vec![policy("Pods", 4), policy("Percent", 100)]);
    }
    rules
}

/// The rules for going down, with the defaults of the v2 API filled in.
#[must_use]
pub fn down_rules(behavior: &HorizontalPodAutoscalerBehavior) -> HPAScalingRules {
    let mut rules = behavior.scale_down.clone().unwrap_or_default();
    rules
        .stabilization_window_seconds
        .get_or_insert(DOWN_WINDOW);
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        rules.policies = Some(vec![policy("Percent", 100)]);
    }
    rules
}

/// The tolerances, of the rules where they set one.
#[must_use]
pub fn tolerances(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Tolerances {
    let read = |rules: Option<&HPAScalingRules>| {
        let text = rules?.tolerance.as_ref()?;
        let value: evenkeel_api::quantity::Quantity = text.0.parse().ok()?;
        Some(value.milli() as f64 / 1000.0)
    };
    let usual = Tolerances::default();
    Tolerances {
        down: read(behavior.and_then(|it| it.scale_down.as_ref())).unwrap_or(usual.down),
        up: read(behavior.and_then(|it| it.scale_up.as_ref())).unwrap_or(usual.up),
    }
}

/// The recommendation that recent ones allow, and what AbleToScale says if it differs. Remembers
/// `desired`.
pub fn stabilize(
    memory: &mut Memory,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    current: i32,
    desired: i32,
    now: Timestamp,
) -> Limited {
    let window =
        |rules: &HPAScalingRules| i64::from(rules.stabilization_window_seconds.unwrap_or(0));
    let (up_window, down_window) = match behavior {
        Some(behavior) => (window(&up_rules(behavior)), window(&down_rules(behavior))),
        None => (0, i64::from(DOWN_WINDOW)),
    };
    let after = |seconds: i64| now - SignedDuration::from_secs(seconds);
    let (mut low, mut high) = (desired, desired);
    for mark in &memory.recommendations {
        if mark.at > after(up_window) {
            low = low.min(mark.replicas);
        }
        if mark.at > after(down_window) {
            high = high.max(mark.replicas);
        }
    }
    memory.recommendations.push(Mark {
        replicas: desired,
        at: now,
    });
    let down = (
        "ScaleDownStabilized",
        "recent recommendations were higher than current one, applying the highest recent \
         recommendation",
    );
    let Some(_) = behavior else {
        return limited(high, down);
    };
    let stable = current.max(low).min(high);
    if desired >= current {
        let up = (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent \
             recommendation",
        );
        return limited(stable, up);
    }
    limited(stable, down)
}

fn sum(marks: &[Mark], seconds: i32, now: Timestamp) -> i32 {
    let cut = now - SignedDuration::from_secs(seconds.into());
    marks
        .iter()
        .filter(|mark| mark.at > cut)
        .map(|mark| mark.replicas)
        .sum()
}

fn percent(of: i32, by: i32, round_up: bool) -> i32 {
    let product = i64::from(of) * i64::from(by);
    let value = if round_up {
        (product + 99).div_euclid(100)
    } else {
        product.div_euclid(100)
    };
    i32::try_from(value).unwrap_or(if value > 0 { i32::MAX } else { 0 })
}

/// Which way a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// How far the policies let the number move from `current`.
fn rate_limit(
    memory: &Memory,
    rules: &HPAScalingRules,
    way: Way,
    current: i32,
    now: Timestamp,
) -> i32 {
    let select = rules.select_policy.as_deref().unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let proposals = rules.policies.iter().flatten().map(|policy| {
        let added = sum(&memory.ups, policy.period_seconds, now);
        let removed = sum(&memory.downs, policy.period_seconds, now);
        let start = current - added + removed;
        match (policy.type_.as_str(), way) {
            ("Pods", Way::Up) => start.saturating_add(policy.value),
            ("Pods", Way::Down) => start.saturating_sub(policy.value),
            (_, Way::Up) => percent(start, policy.value.saturating_add(100), true),
            (_, Way::Down) => percent(start, 100 - policy.value, false),
        }
    });
    // The policy that changes least adds the fewest replicas, and leaves the most.
    let limit = match (select == "Min", way) {
        (true, Way::Up) | (false, Way::Down) => proposals.min(),
        (true, Way::Down) | (false, Way::Up) => proposals.max(),
    };
    let limit = limit.unwrap_or(current);
    match way {
        Way::Up => limit.max(current),
        Way::Down => limit.min(current),
    }
}

/// The number within bounds and policies, and what ScalingLimited says.
#[must_use]
pub fn limit(
    memory: &Memory,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    bounds: Bounds,
    desired: i32,
    now: Timestamp,
) -> Limited {
    let Bounds { min, max, current } = bounds;
    let Some(behavior) = behavior else {
        let rate = current.saturating_mul(2).max(4);
        let (most, why) = if max > rate {
            (rate, UP_LIMIT)
        } else {
            (max, TOO_MANY)
        };
        if desired < min {
            return limited(min, TOO_FEW);
        }
        if desired > most {
            return limited(most, why);
        }
        return limited(desired, WITHIN);
    };
    if desired > current {
        let rate = rate_limit(memory, &up_rules(behavior), Way::Up, current, now);
        let (most, why) = if max > rate {
            (rate, UP_LIMIT)
        } else {
            (max, TOO_MANY)
        };
        if desired > most {
            return limited(most, why);
        }
    } else if desired < current {
        let rate = rate_limit(memory, &down_rules(behavior), Way::Down, current, now);
        let (least, why) = if min < rate {
            (rate, DOWN_LIMIT)
        } else {
            (min, TOO_FEW)
        };
        if desired < least {
            return limited(least, why);
        }
    }
    limited(desired, WITHIN)
}
