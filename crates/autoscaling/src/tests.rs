//! The documentation's examples as tables, and a whole loop against the fake.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_client::testing::{FakeApi, FakeClock};
use evenkeel_client::{CancellationToken, LoopContext, LoopRegistry, Recorder, Views};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::{Event, Pod};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;

use crate::behavior::{self, Bounds, Memory};
use crate::calculate::{self, Question, Target, Tolerances};
use crate::plan::{self, Seen};
use crate::sample::{ContainerSample, Figure, PodMetrics, PodSample, SampleError};

fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn pod(name: &str, request: &str, phase: &str, ready: &str, age: i64) -> Arc<Pod> {
    let at = |seconds: i64| {
        (now() - SignedDuration::from_secs(seconds))
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    };
    let pod = json!({
        "metadata": {"name": name, "namespace": "a", "labels": {"app": "web"}},
        "spec": {"containers": [
            {"name": "main", "resources": {"requests": {"cpu": request, "memory": "64Mi"}}},
        ]},
        "status": {
            "phase": phase, "startTime": at(age),
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(age - 1)}],
        },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn sample(name: &str, millicores: i64) -> PodSample {
    PodSample {
        pod: name.to_owned(),
        at: now(),
        window: SignedDuration::from_secs(15),
        containers: vec![ContainerSample {
            name: "main".to_owned(),
            cpu_millicores: millicores,
            memory_bytes: millicores * 1_000_000,
        }],
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("p{number}")).collect()
}

fn ask(
    current: i32,
    target: Target,
    pods: &[Arc<Pod>],
    samples: &[PodSample],
) -> Result<i32, String> {
    let question = Question {
        current,
        target,
        resource: "cpu",
        container: None,
        tolerances: Tolerances::default(),
        now: now(),
    };
    calculate::replicas(&question, pods, samples).map(|found| found.replicas)
}

fn all_ready(count: usize) -> Vec<Arc<Pod>> {
    let pods = names(count).into_iter();
    pods.map(|name| pod(&name, "1", "Running", "True", 3600))
        .collect()
}

fn using(each: &[i64]) -> Vec<PodSample> {
    let pairs = names(each.len()).into_iter().zip(each);
    pairs.map(|(name, value)| sample(&name, *value)).collect()
}

#[test]
fn the_documented_ratios() {
    // desired = ceil(current * use / target): 200m against 100m doubles, 50m halves.
    let pods = all_ready(4);
    assert_eq!(
        ask(4, Target::Average(100), &pods, &using(&[200; 4])),
        Ok(8)
    );
    assert_eq!(ask(4, Target::Average(100), &pods, &using(&[50; 4])), Ok(2));
    assert_eq!(
        ask(4, Target::Average(100), &pods, &using(&[109; 4])),
        Ok(4),
        "within a tenth"
    );
    assert_eq!(
        ask(4, Target::Utilization(50), &pods, &using(&[900; 4])),
        Ok(8)
    );
    let three = all_ready(3);
    assert_eq!(
        ask(3, Target::Utilization(30), &three, &using(&[300, 500, 700])),
        Ok(5)
    );
}

#[test]
fn doubt_speaks_for_fewer_changes() {
    let pods = all_ready(3);
    // Scaling up, a pod without figures uses nothing: 2 pods at 600m, the third at 0.
    assert_eq!(
        ask(3, Target::Utilization(30), &pods, &using(&[600, 600])),
        Ok(4)
    );
    // Scaling down, it uses all of its request: 100+100+1000 of 3000 against 50 is 0.8.
    assert_eq!(
        ask(3, Target::Utilization(50), &pods, &using(&[100, 100])),
        Ok(3)
    );
    // A pod that starts is left out while others are over the target.
    let mut pods = all_ready(2);
    pods.push(pod("p2", "1", "Running", "False", 10));
    assert_eq!(
        ask(3, Target::Utilization(50), &pods, &using(&[300, 300, 1000])),
        Ok(2)
    );
    assert_eq!(
        ask(
            3,
            Target::Utilization(50),
            &pods,
            &using(&[1000, 1000, 1000])
        ),
        Ok(4)
    );
    let pending = [pod("p0", "1", "Pending", "False", 10)];
    let text = ask(1, Target::Utilization(50), &pending, &using(&[500])).unwrap_err();
    assert_eq!(
        text,
        "did not receive metrics for targeted pods (pods might be unready)"
    );
    let text = ask(1, Target::Utilization(50), &[], &[]).unwrap_err();
    assert_eq!(
        text,
        "no pods returned by selector while calculating replica count"
    );
    let mut bare = all_ready(1)[0].as_ref().clone();
    bare.spec.as_mut().unwrap().containers[0].resources = None;
    let text = ask(1, Target::Utilization(50), &[Arc::new(bare)], &using(&[5])).unwrap_err();
    assert_eq!(text, "missing request for cpu in container main of Pod p0");
}

fn rules(value: serde_json::Value) -> HorizontalPodAutoscalerBehavior {
    serde_json::from_value(value).unwrap()
}

fn bounded(
    memory: &Memory,
    rules: &HorizontalPodAutoscalerBehavior,
    current: i32,
    to: i32,
) -> (i32, &'static str) {
    let bounds = Bounds {
        min: 1,
        max: 1000,
        current,
    };
    let found = behavior::limit(memory, Some(rules), bounds, to, now());
    (found.replicas, found.reason)
}

#[test]
fn the_documented_policies() {
    let none = Memory::default();
    // "4 pods or 10 percent a minute": 80 goes to 72, then 10 down by 4.
    let down = rules(json!({"scaleDown": {"policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 60},
        {"type": "Percent", "value": 10, "periodSeconds": 60},
    ]}}));
    assert_eq!(bounded(&none, &down, 80, 10), (72, "ScaleDownLimit"));
    assert_eq!(bounded(&none, &down, 10, 1), (6, "ScaleDownLimit"));
    let mut gentle = down.clone();
    gentle.scale_down.as_mut().unwrap().select_policy = Some("Min".to_owned());
    assert_eq!(bounded(&none, &gentle, 80, 10), (76, "ScaleDownLimit"));
    gentle.scale_down.as_mut().unwrap().select_policy = Some("Disabled".to_owned());
    assert_eq!(bounded(&none, &gentle, 80, 10), (80, "ScaleDownLimit"));
    // The defaults: double or four more in 15 seconds.
    let usual = rules(json!({}));
    assert_eq!(bounded(&none, &usual, 1, 100), (5, "ScaleUpLimit"));
    assert_eq!(bounded(&none, &usual, 10, 100), (20, "ScaleUpLimit"));
    assert_eq!(bounded(&none, &usual, 10, 15), (15, "DesiredWithinRange"));
    assert_eq!(bounded(&none, &usual, 900, 1500), (1000, "TooManyReplicas"));
    // What was added within the period counts.
    let mut grown = Memory::default();
    grown.changed(10, 20, now() - SignedDuration::from_secs(5));
    assert_eq!(bounded(&grown, &usual, 20, 100), (20, "ScaleUpLimit"));
}

#[test]
fn recent_recommendations_stabilize() {
    let mut memory = Memory::default();
    let ago = |seconds: i64| now() - SignedDuration::from_secs(seconds);
    for (replicas, seconds) in [(9, 400), (7, 200), (5, 100)] {
        let at = ago(seconds);
        memory.recommendations.push(behavior::Mark { replicas, at });
    }
    let down = behavior::stabilize(&mut memory.clone(), None, 8, 3, now());
    assert_eq!((down.replicas, down.reason), (7, "ScaleDownStabilized"));
    let window = rules(json!({"scaleUp": {"stabilizationWindowSeconds": 300}}));
    let up = behavior::stabilize(&mut memory, Some(&window), 4, 20, now());
    assert_eq!((up.replicas, up.reason), (5, "ScaleUpStabilized"));
}

fn scaler(metrics: serde_json::Value) -> HorizontalPodAutoscaler {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "minReplicas": 2, "maxReplicas": 6,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": metrics,
        },
    }))
    .unwrap()
}

/// Another name, where a value hides the function.
fn two_metrics(metrics: serde_json::Value) -> HorizontalPodAutoscaler {
    scaler(metrics)
}

fn cpu(percent: i32) -> serde_json::Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
    }})
}

fn condition(status: &HorizontalPodAutoscalerStatus, kind: &str) -> (String, String, String) {
    let all = status.conditions.clone().unwrap_or_default();
    let found = all.into_iter().find(|item| item.type_ == kind).unwrap();
    (found.status, found.reason.unwrap(), found.message.unwrap())
}

/// What came out of one look: replicas, and the status.
fn look(
    scaler: &HorizontalPodAutoscaler,
    replicas: i32,
    pods: &[Arc<Pod>],
    figures: &[Figure],
) -> (i32, plan::Plan) {
    let samples = Ok(Vec::new());
    // Going down is not to wait here.
    let mut scaler = scaler.clone();
    scaler.spec.behavior = Some(rules(
        json!({"scaleDown": {"stabilizationWindowSeconds": 0}}),
    ));
    let seen = Seen {
        scaler: &scaler,
        replicas,
        running: replicas,
        selector: "app=web",
        pods,
        samples: &samples,
        figures,
        now: now(),
    };
    let plan = plan::plan(&seen, &mut Memory::default());
    let to = plan.rescale.as_ref().map_or(replicas, |rescale| rescale.0);
    (to, plan)
}

fn of_pods(values: &[i64]) -> Figure {
    Figure::Pods(Ok(names(values.len())
        .into_iter()
        .zip(values.iter().copied())
        .collect()))
}

/// Tables of `replica_calculator_test.go` and of the documentation's "Autoscaling on multiple
/// metrics and custom metrics".
#[test]
fn other_metrics_are_held_against_their_targets() {
    let pods_metric = |target: &str| {
        json!({"type": "Pods", "pods": {"metric": {"name": "qps"},
            "target": {"type": "AverageValue", "averageValue": target}}})
    };
    let object = |target: serde_json::Value| {
        json!({"type": "Object", "object": {"metric": {"name": "requests-per-second"},
            "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"},
            "target": target}})
    };
    let external = |target: serde_json::Value| {
        json!({"type": "External", "external": {
            "metric": {"name": "queue", "selector": {"matchLabels": {"queue": "tasks"}}},
            "target": target}})
    };
    let value = |text: &str| json!({"type": "Value", "value": text});
    let average = |text: &str| json!({"type": "AverageValue", "averageValue": text});
    let three = all_ready(3);
    let mut starting = all_ready(3);
    starting[2] = pod("p2", "1", "Pending", "False", 5);
    let mut silent = all_ready(3);
    silent[0] = pod("p0", "1", "Running", "False", 3600);
    let outside = |values: &[i64]| Figure::External(Ok(values.to_vec()));
    let cases = [
        // Pods: 20, 10 and 30 qps against 15 is a third more.
        (
            pods_metric("15"),
            &three,
            of_pods(&[20_000, 10_000, 30_000]),
            3,
            4,
        ),
        (
            pods_metric("20"),
            &three,
            of_pods(&[20_000, 10_000, 30_000]),
            3,
            3,
        ),
        (
            pods_metric("40"),
            &three,
            of_pods(&[20_000, 10_000, 30_000]),
            3,
            2,
        ),
        // Going up, a pod without a value has none; going down, one has just the target.
        (pods_metric("15"), &three, of_pods(&[50_000, 40_000]), 3, 6),
        (pods_metric("40"), &three, of_pods(&[10_000, 10_000]), 3, 2),
        // Readiness counts for CPU alone, but who is pending is not there yet.
        (
            pods_metric("15"),
            &silent,
            of_pods(&[20_000, 10_000, 30_000]),
            3,
            4,
        ),
        (
            pods_metric("15"),
            &starting,
            of_pods(&[50_000, 10_000, 30_000]),
            3,
            4,
        ),
        // An object's value: replicas times the ratio, of those that are ready.
        (
            object(value("10k")),
            &three,
            Figure::Object(Ok(20_000_000)),
            3,
            6,
        ),
        (
            object(value("10k")),
            &three,
            Figure::Object(Ok(10_900_000)),
            3,
            3,
        ),
        (
            object(value("10k")),
            &silent,
            Figure::Object(Ok(20_000_000)),
            3,
            4,
        ),
        (
            object(average("2k")),
            &three,
            Figure::Object(Ok(10_000_000)),
            3,
            5,
        ),
        (
            object(average("2k")),
            &three,
            Figure::Object(Ok(6_100_000)),
            3,
            3,
        ),
        // External: the sum of all series.
        (
            external(value("4400m")),
            &three,
            outside(&[5200, 3400]),
            3,
            6,
        ),
        (
            external(average("30")),
            &three,
            outside(&[100_000, 50_000]),
            3,
            5,
        ),
        (
            external(average("30")),
            &three,
            outside(&[i64::MAX, i64::MAX]),
            3,
            6,
        ),
        (external(average("3")), &three, outside(&[0]), 3, 2),
    ];
    for (number, (metric, pods, figure, current, expected)) in cases.into_iter().enumerate() {
        let scaler = scaler(json!([metric]));
        let (to, plan) = look(&scaler, current, pods, std::slice::from_ref(&figure));
        assert_eq!(
            to, expected,
            "case {number}: {figure:?} {:?}",
            plan.warnings
        );
        let metrics = plan.status.current_metrics.unwrap();
        assert_eq!(metrics[0].type_, metric["type"].as_str().unwrap());
    }
    let scaler = scaler(json!([external(average("30"))]));
    let (_, plan) = look(&scaler, 3, &three, &[outside(&[100_000, 50_000])]);
    let current = plan.status.current_metrics.clone().unwrap()[0]
        .external
        .clone()
        .unwrap();
    assert_eq!(current.current.average_value.unwrap().0, "50");
    let (_, reason, text) = condition(&plan.status, "ScalingActive");
    assert_eq!(reason, "ValidMetricFound");
    assert_eq!(
        text,
        "the HPA was able to successfully calculate a replica count from external metric \
         queue(&LabelSelector{MatchLabels:map[string]string{queue: tasks,},\
         MatchExpressions:[]LabelSelectorRequirement{},})"
    );
}

#[test]
fn a_metric_that_cannot_be_read_is_told_as_the_reference_does() {
    let none = || SampleError("no metrics returned from external metrics API".to_owned());
    let queue = json!({"type": "External", "external": {
        "metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"},
    }});
    let scaler = scaler(json!([queue]));
    let (to, plan) = look(&scaler, 3, &all_ready(3), &[Figure::External(Err(none()))]);
    assert_eq!(to, 3);
    let (state, reason, text) = condition(&plan.status, "ScalingActive");
    assert_eq!(
        (state.as_str(), reason.as_str()),
        ("False", "FailedGetExternalMetric")
    );
    let why =
        "unable to get external metric a/queue/nil: no metrics returned from external metrics API";
    assert_eq!(
        text,
        format!("the HPA was unable to compute the replica count: {why}")
    );
    let whole = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get queue external metric \
         value: failed to get external metric queue: {why}"
    );
    assert_eq!(
        plan.warnings,
        [
            ("FailedGetExternalMetric", why.to_owned()),
            ("FailedComputeMetricsReplicas", whole)
        ]
    );
    // With another metric that says up, up it goes; with one that says down, it stays.
    let both = two_metrics(json!([queue, {"type": "Pods", "pods": {
        "metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "10"}}}]));
    for (each, expected) in [(20_000, 6), (1_000, 3)] {
        let figures = [Figure::External(Err(none())), of_pods(&[each; 3])];
        let (to, plan) = look(&both, 3, &all_ready(3), &figures);
        assert_eq!(to, expected);
        assert_eq!(
            condition(&plan.status, "ScalingActive").0,
            if expected > 3 { "True" } else { "False" }
        );
    }
}

/// KEP-2021: only what the autoscaler brought to zero it brings back.
#[test]
fn a_target_goes_to_zero_and_comes_back() {
    let queue = json!({"type": "External", "external": {
        "metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"},
    }});
    let mut scaler = scaler(json!([queue]));
    scaler.spec.min_replicas = Some(0);
    let work = |amount: i64| [Figure::External(Ok(vec![amount]))];
    let (to, plan) = look(&scaler, 1, &all_ready(1), &work(0));
    assert_eq!(to, 0);
    let mut status = plan.status;
    plan::set_scaled_to_zero(&mut status, &scaler, 1, 0, now());
    assert_eq!(condition(&status, "ScaledToZero").1, "ScaledToZero");
    scaler.status = Some(status.clone());
    assert_eq!(look(&scaler, 0, &[], &work(0)).0, 0);
    assert_eq!(look(&scaler, 0, &[], &work(25_000)).0, 3);
    // A higher minimum wakes it without work.
    scaler.spec.min_replicas = Some(2);
    assert_eq!(look(&scaler, 0, &[], &work(0)).0, 2);
    scaler.spec.min_replicas = Some(0);
    // A person brought it to zero: it stays there, and says so.
    plan::set_scaled_to_zero(&mut status, &scaler, 0, 3, now());
    assert_eq!(condition(&status, "ScaledToZero").0, "False");
    scaler.status = Some(status);
    let (to, plan) = look(&scaler, 0, &[], &work(25_000));
    assert_eq!(to, 0);
    assert_eq!(
        condition(&plan.status, "ScalingActive").1,
        "ScalingDisabled"
    );
    // Pods' own metrics have nothing to say at zero.
    scaler.spec.metrics = serde_json::from_value(json!([cpu(50)])).unwrap();
    assert!(!plan::has_figures_at_zero(&scaler));
}

proptest! {
    #[test]
    fn bounds_hold_whatever_is_measured(
        current in 1i32..40, each in 0i64..5000, up in 0i64..600, known in 1usize..10,
    ) {
        let scaler = scaler(json!([cpu(50)]));
        let pods = all_ready(10);
        let samples = Ok(using(&vec![each; known]));
        let mut memory = Memory::default();
        let at = now() - SignedDuration::from_secs(up);
        memory.recommendations.push(behavior::Mark { replicas: current, at });
        let seen = Seen {
            scaler: &scaler, replicas: current, running: current, selector: "app=web",
            pods: &pods, samples: &samples, figures: &[], now: now(),
        };
        let plan = plan::plan(&seen, &mut memory);
        let to = plan.rescale.map_or(current, |rescale| rescale.0);
        if to != current {
            prop_assert!((2..=6).contains(&to), "{to}");
        }
    }
}

/// Figures that a test sets.
#[derive(Default)]
struct Meter(Mutex<BTreeMap<String, i64>>);

impl PodMetrics for Meter {
    fn samples<'a>(
        &'a self,
        _: &'a str,
        _: &'a [Arc<Pod>],
    ) -> BoxFuture<'a, Result<Vec<PodSample>, SampleError>> {
        let all = self.0.lock().clone();
        let all: Vec<_> = all
            .into_iter()
            .map(|(name, value)| sample(&name, value))
            .collect();
        async move { Ok(all) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_deployment_grows_and_shrinks_after_its_window() {
    let clock = FakeClock::shared();
    let fake = FakeApi::new(Arc::clone(&clock));
    let client = fake.client();
    let context = LoopContext {
        views: Views::new(client.clone(), Arc::clone(&clock)),
        recorder: Recorder::new(
            client.clone(),
            Arc::clone(&clock),
            "horizontal-pod-autoscaler",
            "",
        ),
        client,
        clock: Arc::clone(&clock),
        shutdown: CancellationToken::new(),
        metrics: LoopRegistry::default(),
    };
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
        },
        "status": {"replicas": 2},
    }))
    .unwrap();
    fake.put(&deployment);
    fake.put(&scaler(json!([cpu(50)])));
    let meter = Arc::new(Meter::default());
    for name in names(2) {
        fake.put(pod(&name, "1", "Running", "True", 3600).as_ref());
        meter.0.lock().insert(name, 900);
    }
    let metrics: Arc<dyn PodMetrics> = meter.clone();
    let task = tokio::spawn(super::run(context.clone(), metrics));
    let replicas = |fake: &FakeApi| fake.get::<Deployment>("a", "web").unwrap().spec.replicas;
    fake.wait_for("growth", |fake| (replicas(fake) == Some(4)).then_some(()))
        .await;
    let grown = clock.now();
    let status = fake
        .wait_for("status", |fake| {
            let status = fake.get::<HorizontalPodAutoscaler>("a", "web")?.status?;
            (status.desired_replicas == 4).then_some(status)
        })
        .await;
    let (_, reason, text) = condition(&status, "AbleToScale");
    assert_eq!(reason, "SucceededRescale");
    assert_eq!(
        text,
        "the HPA controller was able to update the target scale to 4"
    );
    let metric = status.current_metrics.unwrap()[0].resource.clone().unwrap();
    assert_eq!(metric.current.average_utilization, Some(90));
    assert_eq!(metric.current.average_value.unwrap().0, "900m");
    fake.wait_for("event", |fake| {
        let wanted =
            "New size: 4; reason: cpu resource utilization (percentage of request) above target";
        let events = fake.all::<Event>();
        events
            .iter()
            .any(|event| event.message.as_deref() == Some(wanted))
            .then_some(())
    })
    .await;

    for value in meter.0.lock().values_mut() {
        *value = 10;
    }
    fake.wait_for("shrinking", |fake| {
        (replicas(fake) == Some(2)).then_some(())
    })
    .await;
    let waited = clock.now().duration_since(grown);
    assert!(waited >= SignedDuration::from_secs(285), "{waited:?}");
    let name = "horizontal_pod_autoscaler_controller";
    let counted = [
        format!("{name}_reconciliations_total{{action=\"scale_up\",error=\"none\"}} 1\n"),
        format!("{name}_num_horizontal_pod_autoscalers{{}} 1\n"),
        format!("{name}_desired_replicas{{namespace=\"a\",hpa_name=\"web\"}} "),
        format!(
            "{name}_metric_computation_total{{action=\"scale_up\",error=\"none\",\
             metric_type=\"Resource\"}} "
        ),
        format!(
            "{name}_reconciliation_duration_seconds_bucket{{action=\"scale_up\",error=\"none\",\
             le=\"16.384\"}} 1\n"
        ),
    ];
    let text = context.metrics.render();
    for wanted in counted {
        assert!(text.contains(&wanted), "{wanted} in\n{text}");
    }
    context.shutdown.cancel();
    task.await.unwrap();
    context.views.shutdown().await;
}
