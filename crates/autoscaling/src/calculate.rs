//! From use to replicas: `replica_calculator.go` of the reference, pure.
//!
//! All values are in thousandths: millicores, and thousandths of bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::sample::PodSample;

/// A pod's CPU figures count for nothing while it starts
/// (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_secs(300);
/// A pod that was not ready within this time after its start never was
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// How far from the target use may be before anything is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// Below one.
    pub down: f64,
    /// Above one.
    pub up: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { down: 0.1, up: 0.1 }
    }
}

impl Tolerances {
    fn within(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What to hold use against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Percent of what is requested.
    Utilization(i32),
    /// Thousandths per pod.
    Average(i64),
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Replicas that would bring use to the target.
    pub replicas: i32,
    /// Use in percent of requests, where the target is a utilization.
    pub utilization: Option<i32>,
    /// Use per pod, in thousandths.
    pub average: i64,
    /// When the newest sample was taken.
    pub at: Option<Timestamp>,
}

#[derive(Debug)]
struct Groups {
    ready: usize,
    unready: Vec<String>,
    missing: Vec<String>,
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// Values by pod: of all containers, or of one.
fn values(samples: &[PodSample], resource: &str, container: Option<&str>) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for sample in samples {
        let mut containers = sample
            .containers
            .iter()
            .filter(|item| container.is_none_or(|wanted| wanted == item.name))
            .peekable();
        if containers.peek().is_none() {
            continue;
        }
        let value: i64 = containers
            .map(|item| match resource {
                "cpu" => item.cpu_millicores,
                _ => item.memory_bytes.saturating_mul(1000),
            })
            .sum();
        found.insert(sample.pod.clone(), value);
    }
    found
}

/// Sorts pods, and takes the figures of those that do not count out of `values`.
fn group(
    pods: &[Arc<Pod>],
    samples: &[PodSample],
    values: &mut BTreeMap<String, i64>,
    resource: &str,
    now: Timestamp,
) -> Groups {
    let mut groups = Groups {
        ready: 0,
        unready: Vec::new(),
        missing: Vec::new(),
    };
    let mut counted = Vec::new();
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        let phase = status.phase.as_deref().unwrap_or("Pending");
        if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            continue;
        }
        let name = name(pod);
        if phase == "Pending" {
            groups.unready.push(name);
            continue;
        }
        let sample = samples.iter().find(|sample| sample.pod == name);
        let Some(sample) = sample.filter(|_| values.contains_key(&name)) else {
            groups.missing.push(name);
            continue;
        };
        if resource == "cpu" {
            let all = status.conditions.iter().flatten();
            let ready = all.into_iter().find(|item| item.type_ == "Ready");
            let unready = match (ready, &status.start_time) {
                (Some(ready), Some(start)) => {
                    let changed = ready.last_transition_time.as_ref();
                    let changed = changed.map_or(Timestamp::MIN, |time| time.0);
                    let is_false = ready.status == "False";
                    if start.0 + CPU_INITIALIZATION > now {
                        let whole = changed.checked_add(sample.window);
                        is_false || whole.is_ok_and(|whole| sample.at < whole)
                    } else {
                        is_false && start.0 + INITIAL_READINESS > changed
                    }
                }
                _ => true,
            };
            if unready {
                groups.unready.push(name);
                continue;
            }
        }
        groups.ready += 1;
        counted.push(name);
    }
    values.retain(|pod, _| counted.contains(pod));
    groups
}

fn requests(
    pods: &[Arc<Pod>],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, i64>, String> {
    let mut found = BTreeMap::new();
    for pod in pods {
        let Some(spec) = &pod.spec else {
            continue;
        };
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|item| item.restart_policy.as_deref() == Some("Always"));
        let mut sum = 0i64;
        let mut any = false;
        let counts = |item: &&Container| container.is_none_or(|wanted| wanted == item.name);
        for item in spec.containers.iter().chain(sidecars).filter(counts) {
            let text = item
                .resources
                .as_ref()
                .and_then(|all| all.requests.as_ref()?.get(resource));
            let Some(value) = text.and_then(|text| text.0.parse::<Quantity>().ok()) else {
                return Err(format!(
                    "missing request for {resource} in container {} of Pod {}",
                    item.name,
                    name(pod)
                ));
            };
            sum = sum.saturating_add(value.milli());
            any = true;
        }
        if let (Some(wanted), false) = (container, any) {
            return Err(format!(
                "container {wanted} not present in pod {}",
                name(pod)
            ));
        }
        found.insert(name(pod), sum);
    }
    Ok(found)
}

/// Use over target, and the utilization where the target is one.
fn ratio(
    values: &BTreeMap<String, i64>,
    requests: &BTreeMap<String, i64>,
    target: Target,
) -> Result<(f64, Option<i32>, i64), String> {
    match target {
        Target::Utilization(percent) => {
            let (mut used, mut requested, mut count) = (0i64, 0i64, 0i64);
            for (pod, value) in values {
                if let Some(request) = requests.get(pod) {
                    used += value;
                    requested += request;
                    count += 1;
                }
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            let ratio = f64::from(utilization) / f64::from(percent.max(1));
            Ok((ratio, Some(utilization), used / count.max(1)))
        }
        Target::Average(average) => {
            let count = i64::try_from(values.len()).unwrap_or(i64::MAX).max(1);
            let found = values.values().sum::<i64>() / count;
            Ok((found as f64 / average.max(1) as f64, None, found))
        }
    }
}

fn up(replicas: f64) -> i32 {
    let clamped = replicas.ceil().clamp(0.0, f64::from(i32::MAX));
    #[allow(
        clippy::cast_possible_truncation,
        reason = "clamped to the range of i32 above"
    )]
    let whole = clamped as i32;
    whole
}

/// One resource metric to be calculated.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Replicas now.
    pub current: i32,
    /// What to hold use against.
    pub target: Target,
    /// `cpu` or `memory`.
    pub resource: &'a str,
    /// Only this container.
    pub container: Option<&'a str>,
    /// How far off is near enough.
    pub tolerances: Tolerances,
    /// Now.
    pub now: Timestamp,
}

/// Replicas that would bring the use of `pods` to the target.
///
/// Pods that start count as using nothing when scaling up and are left out otherwise; pods
/// without figures count as using nothing when scaling up and their whole request (or target)
/// when scaling down: doubt always speaks for fewer changes.
///
/// # Errors
/// With the reference's texts, when nothing can be said.
pub fn replicas(
    question: &Question<'_>,
    pods: &[Arc<Pod>],
    samples: &[PodSample],
) -> Result<Outcome, String> {
    let Question {
        resource,
        container,
        ..
    } = *question;
    if pods.is_empty() {
        let text = "no pods returned by selector while calculating replica count";
        return Err(text.to_owned());
    }
    let values = values(samples, resource, container);
    from_values(question, pods, samples, values)
}

/// The replicas for a metric that each pod has a value of, against an average per pod.
///
/// # Errors
/// As [`replicas`].
pub fn of_pods(
    question: &Question<'_>,
    pods: &[Arc<Pod>],
    values: BTreeMap<String, i64>,
) -> Result<Outcome, String> {
    if pods.is_empty() {
        let text = "no pods returned by selector while calculating replica count";
        return Err(text.to_owned());
    }
    // Windows of samples count for CPU alone.
    let sample = |pod: &String| PodSample {
        pod: pod.clone(),
        at: question.now,
        window: SignedDuration::ZERO,
        containers: Vec::new(),
    };
    let samples: Vec<PodSample> = values.keys().map(sample).collect();
    from_values(question, pods, &samples, values)
}

/// The replicas for a value of something as a whole: it grows and shrinks with the pods that are
/// ready; without replicas it says itself how many there should be.
///
/// # Errors
/// There are no pods where there should be.
pub fn of_value(
    current: i32,
    usage: i64,
    target: i64,
    tolerances: Tolerances,
    pods: &[Arc<Pod>],
) -> Result<i32, String> {
    let ratio = usage as f64 / target.max(1) as f64;
    if current == 0 {
        return Ok(up(ratio));
    }
    if tolerances.within(ratio) {
        return Ok(current);
    }
    if pods.is_empty() {
        let text = "unable to calculate ready pods: no pods returned by selector while calculating \
                    replica count";
        return Err(text.to_owned());
    }
    let is_ready = |pod: &&Arc<Pod>| {
        pod.status.as_ref().is_some_and(|status| {
            let mut conditions = status.conditions.iter().flatten();
            status.phase.as_deref() == Some("Running")
                && conditions.any(|found| found.type_ == "Ready" && found.status == "True")
        })
    };
    let ready = pods.iter().filter(is_ready).count();
    Ok(up(ratio * ready as f64))
}

/// The replicas for a value that is to be divided among pods, and the value of each.
#[must_use]
pub fn per_pod(running: i32, usage: i64, target: i64, tolerances: Tolerances) -> (i32, i64) {
    let target = target.max(1) as f64;
    let ratio = usage as f64 / (target * f64::from(running));
    let replicas = if tolerances.within(ratio) {
        running
    } else {
        up(usage as f64 / target)
    };
    let pods = i64::from(running.max(1));
    let each = usage
        .checked_add(pods - 1)
        .map_or(i64::MAX, |sum| sum.div_euclid(pods));
    (replicas, each)
}

fn from_values(
    question: &Question<'_>,
    pods: &[Arc<Pod>],
    samples: &[PodSample],
    mut values: BTreeMap<String, i64>,
) -> Result<Outcome, String> {
    let Question {
        current,
        target,
        resource,
        container,
        tolerances,
        now,
    } = *question;
    let groups = group(pods, samples, &mut values, resource, now);
    if values.is_empty() {
        let text = "did not receive metrics for targeted pods (pods might be unready)";
        return Err(text.to_owned());
    }
    let requests = match target {
        Target::Utilization(_) => requests(pods, resource, container)?,
        Target::Average(_) => BTreeMap::new(),
    };
    let (usage, utilization, average) = ratio(&values, &requests, target)?;
    let outcome = |replicas: i32| Outcome {
        replicas,
        utilization,
        average,
        at: samples.iter().map(|sample| sample.at).max(),
    };
    let with_unready = !groups.unready.is_empty() && usage > 1.0;
    if !with_unready && groups.missing.is_empty() {
        if tolerances.within(usage) {
            return Ok(outcome(current));
        }
        return Ok(outcome(up(usage * groups.ready as f64)));
    }
    // Exactly on target, a missing pod changes nothing.
    let missing = groups
        .missing
        .iter()
        .filter(|_| (usage - 1.0).abs() > f64::EPSILON);
    for pod in missing {
        let assumed = match target {
            _ if usage > 1.0 => 0,
            Target::Utilization(percent) => {
                let request = requests.get(pod).copied().unwrap_or(0);
                request * i64::from(percent.max(100)) / 100
            }
            Target::Average(average) => average,
        };
        values.insert(pod.clone(), assumed);
    }
    if with_unready {
        for pod in &groups.unready {
            values.insert(pod.clone(), 0);
        }
    }
    let (again, _, _) = ratio(&values, &requests, target)?;
    let turned = (usage < 1.0 && again > 1.0) || (usage > 1.0 && again < 1.0);
    if tolerances.within(again) || turned {
        return Ok(outcome(current));
    }
    let new = up(again * values.len() as f64);
    if (again < 1.0 && new > current) || (again > 1.0 && new < current) {
        return Ok(outcome(current));
    }
    Ok(outcome(new))
}
