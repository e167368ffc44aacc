//! Jobs: rules by table, accounts under crashes by property, and whole lives against the fake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::testing::{FakeApi, FakeClock};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::accounts::{close, draw_up};
use super::backoff::{Record, blocked_until};
use super::facts::{self, FINALIZER, INDEX, INDEX_FAILURES};
use super::plan::{Act, Plan, plan};
use super::{policy, template};
use crate::{pods, testing};

fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

fn job(spec: Value) -> Job {
    let mut whole = json!({
        "metadata": {"name": "sum", "namespace": "a", "generation": 1},
        "spec": {
            "parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
            "selector": {"matchLabels": {"job": "sum"}},
            "template": {
                "metadata": {"labels": {"job": "sum"}},
                "spec": {
                    "restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}],
                },
            },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn indexed(spec: Value) -> Job {
    let mut job = job(spec);
    job.spec.as_mut().unwrap().completion_mode = Some("Indexed".into());
    job
}

/// A job's world in memory. Every write is one step, and any of them may be the last before a
/// crash.
struct Cluster {
    job: Job,
    pods: BTreeMap<String, Pod>,
    backoff: Record,
    now: Timestamp,
    counter: u32,
    /// How each pod that ended did: the truth to compare the accounts with.
    ended: BTreeMap<String, &'static str>,
}

impl Cluster {
    fn new(job: Job) -> Self {
        Self {
            job,
            pods: BTreeMap::new(),
            backoff: Record::default(),
            now: now(),
            counter: 0,
            ended: BTreeMap::new(),
        }
    }

    fn mine(&self) -> Vec<Arc<Pod>> {
        self.pods.values().cloned().map(Arc::new).collect()
    }

    /// One round, of which only so many writes happen. True: it ended.
    fn reconcile(&mut self, mut writes: usize) -> bool {
        self.now += SignedDuration::from_secs(1);
        if facts::ended(&self.job).is_some() {
            return true;
        }
        let plan = plan(&self.job, &self.mine(), self.backoff, self.now);
        let mut write = || {
            let left = writes > 0;
            writes = writes.saturating_sub(1);
            left
        };
        match &plan.act {
            Act::Nothing => {}
            Act::End(pods) => {
                for pod in pods {
                    if !write() {
                        return false;
                    }
                    self.delete(pod.metadata.name.as_ref().unwrap());
                }
            }
            Act::Remove(pods) => {
                for pod in pods {
                    let name = pod.metadata.name.as_ref().unwrap();
                    if !write() {
                        return false;
                    }
                    self.release(name);
                    if !write() {
                        return false;
                    }
                    self.delete(name);
                }
            }
            Act::Create(pods) => {
                for pod in pods {
                    if !write() {
                        return false;
                    }
                    self.create(pod.clone());
                }
            }
        }
        let account = draw_up(&self.job, &plan, &self.mine(), true, self.now);
        if !write() {
            return false;
        }
        self.job.status = Some(account.status);
        self.backoff = plan.backoff;
        for pod in &account.release {
            if !write() {
                return false;
            }
            self.release(pod.metadata.name.as_ref().unwrap());
        }
        let status = facts::status(&self.job);
        let (status, ended) = close(status, account.end.as_ref(), &self.mine());
        if !write() {
            return false;
        }
        self.job.status = Some(status);
        ended
    }

    fn create(&mut self, mut pod: Pod) {
        self.counter += 1;
        let name = format!("sum-{:04}", self.counter);
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.name = Some(name.clone());
        pod.metadata.creation_timestamp = Some(Time(self.now));
        pod.status = Some(serde_json::from_value(json!({"phase": "Pending"})).unwrap());
        assert!(facts::is_tracked(&pod));
        self.pods.insert(name, pod);
    }

    fn delete(&mut self, name: &str) {
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        pod.metadata.deletion_timestamp = Some(Time(self.now));
        self.collect();
    }

    fn release(&mut self, name: &str) {
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        let finalizers = pod.metadata.finalizers.as_mut().unwrap();
        finalizers.retain(|item| item != FINALIZER);
        self.collect();
    }

    /// What is deleted, has ended and is held by nothing is gone.
    fn collect(&mut self) {
        self.pods.retain(|_, pod| {
            pod.metadata.deletion_timestamp.is_none()
                || facts::is_tracked(pod)
                || !pods::is_terminal(pod)
        });
    }

    fn end(&mut self, at: usize, phase: &'static str) {
        let running = self.pods.values_mut().filter(|pod| !pods::is_terminal(pod));
        let running: Vec<&mut Pod> = running.collect();
        let count = running.len();
        if count == 0 {
            return;
        }
        let pod = running.into_iter().nth(at % count).unwrap();
        let status = json!({"phase": phase, "containerStatuses": [{
            "name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {
                "exitCode": i32::from(phase == "Failed"), "finishedAt": Time(self.now),
            }},
        }]});
        pod.status = Some(serde_json::from_value(status).unwrap());
        if facts::is_tracked(pod) {
            self.ended.insert(pod.metadata.uid.clone().unwrap(), phase);
        }
        self.collect();
    }

    fn names(&self, filter: impl Fn(&Pod) -> bool) -> Vec<String> {
        let found = self.pods.iter().filter(|(_, pod)| filter(pod));
        found.map(|(name, _)| name.clone()).collect()
    }

    fn active(&self) -> usize {
        self.names(pods::is_active).len()
    }

    fn indexes(&self) -> Vec<i32> {
        let active = self.pods.values().filter(|pod| pods::is_active(pod));
        let mut found: Vec<i32> = active.filter_map(facts::index_of).collect();
        found.sort_unstable();
        found
    }

    fn status(&self) -> JobStatus {
        facts::status(&self.job)
    }

    fn run(&mut self) {
        for _ in 0..6 {
            self.reconcile(usize::MAX);
        }
    }

    fn reason(&self) -> String {
        let end = facts::ended(&self.job).expect("an end");
        format!("{} {}", end.type_, end.reason.clone().unwrap_or_default())
    }
}

#[test]
fn a_job_completes_with_its_completions() {
    let mut cluster = Cluster::new(job(json!({"parallelism": 2, "completions": 3})));
    cluster.run();
    assert_eq!(cluster.active(), 2);
    cluster.end(0, "Succeeded");
    cluster.run();
    assert_eq!(cluster.active(), 2);
    cluster.end(0, "Succeeded");
    cluster.run();
    assert_eq!(cluster.active(), 1, "no more than are still needed");
    cluster.end(0, "Succeeded");
    cluster.run();
    assert_eq!(cluster.reason(), "Complete CompletionsReached");
    let status = cluster.status();
    assert_eq!((status.succeeded, status.active), (Some(3), Some(0)));
    assert!(status.completion_time.is_some());
    let kinds: Vec<_> = status
        .conditions
        .unwrap()
        .into_iter()
        .map(|condition| condition.type_)
        .collect();
    assert_eq!(kinds, ["SuccessCriteriaMet", "Complete"]);
}

#[test]
fn without_completions_one_success_is_enough_and_the_rest_may_end() {
    let mut cluster = Cluster::new(job(json!({"parallelism": 3, "completions": null})));
    cluster.run();
    cluster.end(0, "Succeeded");
    cluster.run();
    assert_eq!(cluster.active(), 2, "none is started, none is stopped");
    cluster.end(0, "Failed");
    cluster.end(0, "Succeeded");
    cluster.run();
    assert_eq!(cluster.reason(), "Complete CompletionsReached");
}

#[test]
fn failures_beyond_the_limit_end_the_job_and_its_other_pods() {
    let mut cluster = Cluster::new(job(
        json!({"parallelism": 3, "completions": 9, "backoffLimit": 1}),
    ));
    cluster.run();
    cluster.end(0, "Failed");
    cluster.end(0, "Failed");
    cluster.run();
    assert!(facts::condition(&cluster.job, "FailureTarget").is_some());
    assert!(
        facts::ended(&cluster.job).is_none(),
        "one is still on its way out"
    );
    cluster.end(0, "Failed");
    cluster.run();
    assert_eq!(cluster.reason(), "Failed BackoffLimitExceeded");
    assert_eq!(cluster.status().failed, Some(3));
}

#[test]
fn waits_grow_with_failures_and_end_with_a_success() {
    let at = |seconds: i64| now() + SignedDuration::from_secs(seconds);
    for (failures, wait) in [(1, 10), (2, 20), (3, 40), (7, 600), (60, 600)] {
        let until = blocked_until(failures, now(), now()).unwrap();
        assert_eq!(until, at(wait), "{failures}");
        assert_eq!(blocked_until(failures, now(), at(wait)), None);
    }
    let mut cluster = Cluster::new(job(json!({"completions": 5})));
    cluster.run();
    cluster.end(0, "Failed");
    let before = cluster.now;
    cluster.reconcile(usize::MAX);
    let plan = plan(&cluster.job, &cluster.mine(), cluster.backoff, cluster.now);
    let wait = plan.look_again.unwrap().duration_since(before);
    assert_eq!(wait, SignedDuration::from_secs(10));
    assert!(matches!(plan.act, Act::Nothing));
    cluster.now += SignedDuration::from_secs(30);
    cluster.run();
    cluster.end(0, "Succeeded");
    cluster.run();
    assert_eq!(cluster.active(), 1, "at once after a success");
}

#[test]
fn indexes_are_each_done_once() {
    let mut cluster = Cluster::new(indexed(json!({"parallelism": 3, "completions": 4})));
    cluster.run();
    assert_eq!(cluster.indexes(), [0, 1, 2]);
    let pod = cluster.pods.values().next().unwrap().clone();
    let spec = pod.spec.unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("sum-0"));
    let variable = &spec.containers[0].env.as_ref().unwrap()[0];
    assert_eq!(variable.name, "JOB_COMPLETION_INDEX");
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("sum-0-"));
    assert_eq!(pod.metadata.labels.unwrap()[INDEX], "0");
    for _ in 0..2 {
        cluster.end(1, "Succeeded");
        cluster.run();
    }
    assert_eq!(cluster.status().completed_indexes.as_deref(), Some("1,2"));
    assert_eq!(cluster.indexes(), [0, 3]);
    // A second pod of an index goes.
    cluster.create(template::new_pod(&cluster.job, Some(3), None));
    cluster.run();
    assert_eq!(cluster.indexes(), [0, 3]);
    cluster.end(0, "Succeeded");
    cluster.end(0, "Succeeded");
    while cluster.active() > 0 {
        cluster.end(0, "Succeeded");
    }
    for _ in 0..9 {
        cluster.end(0, "Failed");
        cluster.run();
    }
    assert_eq!(cluster.reason(), "Complete CompletionsReached");
    assert_eq!(cluster.status().completed_indexes.as_deref(), Some("0-3"));
}

#[test]
fn each_index_has_its_own_limit() {
    let mut cluster = Cluster::new(indexed(json!({
        "parallelism": 2, "completions": 2, "backoffLimit": 99, "backoffLimitPerIndex": 1,
    })));
    cluster.run();
    cluster.end(0, "Failed");
    cluster.run();
    assert_eq!(cluster.indexes(), [1], "index 0 waits");
    cluster.now += SignedDuration::from_secs(60);
    cluster.run();
    assert_eq!(cluster.indexes(), [0, 1]);
    let second = cluster
        .pods
        .values()
        .find(|pod| pods::is_active(pod) && facts::index_of(pod) == Some(0));
    assert_eq!(
        second.unwrap().metadata.annotations.as_ref().unwrap()[INDEX_FAILURES],
        "1"
    );
    let at = cluster
        .names(|pod| !pods::is_terminal(pod))
        .iter()
        .position(|name| facts::index_of(&cluster.pods[name]) == Some(0));
    cluster.end(at.unwrap(), "Failed");
    cluster.run();
    assert_eq!(cluster.status().failed_indexes.as_deref(), Some("0"));
    cluster.end(0, "Succeeded");
    cluster.run();
    assert_eq!(cluster.reason(), "Failed FailedIndexes");
    assert_eq!(cluster.status().failed, Some(2));
}

#[test]
fn some_successes_may_be_enough() {
    let policy = json!({"rules": [
        {"succeededIndexes": "7-9"}, {"succeededIndexes": "0-3", "succeededCount": 1},
    ]});
    let mut cluster = Cluster::new(indexed(json!({
        "parallelism": 3, "completions": 5, "successPolicy": policy,
    })));
    cluster.run();
    cluster.end(0, "Succeeded");
    cluster.run();
    let met = facts::condition(&cluster.job, "SuccessCriteriaMet").unwrap();
    assert_eq!(met.message.as_deref(), Some("Matched rules at index 1"));
    assert_eq!(cluster.active(), 0);
    while !cluster.names(pods::is_terminating).is_empty() {
        cluster.end(0, "Failed");
    }
    cluster.run();
    assert_eq!(cluster.reason(), "Complete SuccessPolicy");
    assert_eq!(
        cluster.status().failed.unwrap_or(0),
        0,
        "what was stopped did not fail"
    );
}

#[test]
fn a_failure_policy_judges_by_the_first_rule_that_matches() {
    let rules = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {
            "containerName": "main", "operator": "In", "values": [42],
        }},
        {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}},
    ]});
    let job = job(json!({"podFailurePolicy": rules}));
    let pod = |code: i32, disrupted: bool| {
        let mut pod = testing::pod("a", "sum-x", &[]);
        let conditions = if disrupted {
            json!([{"type": "DisruptionTarget", "status": "True"}])
        } else {
            json!([])
        };
        let status = json!({"phase": "Failed", "conditions": conditions, "containerStatuses": [{
            "name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code}},
        }]});
        pod.status = Some(serde_json::from_value(status).unwrap());
        pod
    };
    for (code, disrupted, wanted) in [
        (42, true, Some(policy::Action::Ignore)),
        (42, false, Some(policy::Action::FailJob)),
        (7, false, Some(policy::Action::Count)),
        (1, false, Some(policy::Action::FailIndex)),
        (0, false, None),
    ] {
        assert_eq!(
            policy::judge(&job, &pod(code, disrupted)).action,
            wanted,
            "{code}"
        );
    }
    let verdict = policy::judge(&job, &pod(42, false));
    let wanted = "Container main for pod a/sum-x failed with exit code 42 matching FailJob rule at \
                  index 1";
    assert_eq!(verdict.message.as_deref(), Some(wanted));
}

#[test]
fn suspension_takes_pods_away_without_counting_them() {
    let mut cluster = Cluster::new(job(json!({"parallelism": 2, "completions": 2})));
    cluster.run();
    cluster.job.spec.as_mut().unwrap().suspend = Some(true);
    cluster.run();
    let status = cluster.status();
    assert_eq!((status.active, status.failed.unwrap_or(0)), (Some(0), 0));
    assert_eq!(status.start_time, None);
    assert!(facts::condition(&cluster.job, "Suspended").is_some());
    while !cluster.names(pods::is_terminating).is_empty() {
        cluster.end(0, "Failed");
    }
    cluster.job.spec.as_mut().unwrap().suspend = Some(false);
    cluster.run();
    assert_eq!(cluster.active(), 2);
    assert_eq!(cluster.status().failed.unwrap_or(0), 0);
    let status = cluster.status();
    assert!(status.start_time.is_some());
    let condition = &status.conditions.unwrap()[0];
    let said = (condition.status.as_str(), condition.reason.as_deref());
    assert_eq!(said, ("False", Some("JobResumed")));
}

#[test]
fn a_deadline_ends_what_runs_too_long() {
    let mut cluster = Cluster::new(job(json!({"activeDeadlineSeconds": 100})));
    cluster.run();
    let plan = plan(&cluster.job, &cluster.mine(), cluster.backoff, cluster.now);
    assert!(plan.look_again.is_some());
    cluster.now += SignedDuration::from_secs(101);
    cluster.run();
    cluster.end(0, "Failed");
    cluster.run();
    assert_eq!(cluster.reason(), "Failed DeadlineExceeded");
}

#[test]
fn pods_on_their_way_out_are_replaced_when_asked() {
    for (replacement, active) in [("TerminatingOrFailed", 1), ("Failed", 0)] {
        let mut cluster = Cluster::new(job(json!({"podReplacementPolicy": replacement})));
        cluster.run();
        let name = cluster.names(|_| true)[0].clone();
        cluster.delete(&name);
        cluster.now += SignedDuration::from_secs(60);
        cluster.run();
        assert_eq!(cluster.active(), active, "{replacement}");
        cluster.end(0, "Failed");
        cluster.now += SignedDuration::from_secs(600);
        cluster.run();
        assert_eq!(cluster.active(), 1, "{replacement}");
        assert_eq!(cluster.status().failed, Some(1), "{replacement}");
    }
}

#[test]
fn one_that_another_manages_or_that_has_ended_is_left_alone() {
    let other = job(json!({"managedBy": "example.org/queue"}));
    assert_eq!(facts::other_manager(&other), Some("example.org/queue"));
    let ours = job(json!({"managedBy": facts::MANAGER}));
    assert_eq!(facts::other_manager(&ours), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever ends when, and wherever the loop is killed, every pod is counted once.
    #[test]
    fn nothing_is_counted_twice_or_forgotten(
        parallel in 1..5i32, completions in 1..8i32, is_indexed: bool, replace: bool,
        steps in prop::collection::vec((0..12usize, 0..6usize, 0..4u8), 1..60),
    ) {
        let policy = if replace { "TerminatingOrFailed" } else { "Failed" };
        let spec = json!({
            "parallelism": parallel, "completions": completions, "backoffLimit": 1000,
            "podReplacementPolicy": policy,
        });
        let mut cluster = Cluster::new(if is_indexed { indexed(spec) } else { job(spec) });
        for (writes, at, what) in steps {
            match what {
                0 => cluster.end(at, "Succeeded"),
                1 => cluster.end(at, "Failed"),
                2 => {
                    let names = cluster.names(|_| true);
                    if let Some(name) = names.get(at) {
                        cluster.delete(&name.clone());
                    }
                }
                _ => cluster.now += SignedDuration::from_secs(700),
            }
            // A crash after so many writes; what was remembered of failures goes with it.
            cluster.reconcile(writes);
            cluster.backoff = Record::default();
            prop_assert!(cluster.active() <= usize::try_from(parallel).unwrap());
        }
        for _ in 0..200 {
            cluster.now += SignedDuration::from_secs(700);
            cluster.end(0, "Succeeded");
            cluster.reconcile(usize::MAX);
        }
        prop_assert!(facts::ended(&cluster.job).is_some(), "{:?}", cluster.job.status);
        let status = cluster.status();
        prop_assert!(cluster.names(facts::is_tracked).is_empty());
        if is_indexed {
            prop_assert_eq!(status.succeeded, Some(completions));
        } else {
            let succeeded = cluster.ended.values().filter(|end| **end == "Succeeded").count();
            // One deleted while it ran is counted as failed then, and may still end well.
            let counted = status.succeeded.unwrap_or(0) + status.failed.unwrap_or(0);
            let all = cluster.counter;
            prop_assert!(status.succeeded.unwrap_or(0) <= i32::try_from(succeeded).unwrap());
            prop_assert!(counted <= i32::try_from(all).unwrap(), "{counted} of {all}");
            prop_assert!(status.succeeded.unwrap_or(0) >= completions);
        }
    }
}

fn finish(fake: &FakeApi, phase: &str) {
    for mut pod in fake.all::<Pod>() {
        if !pods::is_terminal(&pod) {
            pod.status = Some(serde_json::from_value(json!({"phase": phase})).unwrap());
            fake.put(&pod);
        }
    }
}

fn ended(fake: &FakeApi, kind: &str) -> Option<Job> {
    let job = fake.get::<Job>("a", "sum")?;
    facts::ended(&job)
        .is_some_and(|end| end.type_ == kind)
        .then_some(job)
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_to_completion_and_goes_after_its_time() {
    let fake = FakeApi::new(FakeClock::shared());
    let mut world = testing::World::new(&fake);
    world.spawn(|context| Box::pin(super::run(context)));
    world.spawn(|context| Box::pin(super::ttl::run(context)));
    let spec = json!({"parallelism": 3, "completions": 7, "ttlSecondsAfterFinished": 100});
    fake.put(&job(spec));
    let done = fake
        .wait_for("completion", |fake| {
            finish(fake, "Succeeded");
            ended(fake, "Complete")
        })
        .await;
    let status = done.status.unwrap();
    assert_eq!(status.succeeded, Some(7));
    assert_eq!(fake.count("create", "pods"), 7, "never more than asked for");
    assert!(fake.all::<Pod>().iter().all(|pod| !facts::is_tracked(pod)));
    fake.wait_for("the event", |fake| {
        let events = fake.all::<Event>();
        events
            .iter()
            .any(|it| it.message.as_deref() == Some("Job completed"))
            .then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert!(
        fake.get::<Job>("a", "sum")
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );
    fake.wait_for("its end", |fake| {
        let job = fake.get::<Job>("a", "sum");
        job.is_none_or(|job| job.metadata.deletion_timestamp.is_some())
            .then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_says_why() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.put(&job(json!({"backoffLimit": 2})));
    let failed = fake
        .wait_for("failure", |fake| {
            finish(fake, "Failed");
            ended(fake, "Failed")
        })
        .await;
    assert_eq!(failed.status.clone().unwrap().failed, Some(3));
    assert_eq!(
        facts::ended(&failed).unwrap().reason.as_deref(),
        Some("BackoffLimitExceeded")
    );
    fake.wait_for("the event", |fake| {
        let wanted = "Job has reached the specified backoff limit";
        let events = fake.all::<Event>();
        events
            .iter()
            .any(|it| it.message.as_deref() == Some(wanted))
            .then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_job_that_is_gone_are_let_go() {
    let fake = FakeApi::new(FakeClock::shared());
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.put(&job(json!({"parallelism": 2, "completions": 2})));
    fake.wait_for("two", |fake| (fake.all::<Pod>().len() == 2).then_some(()))
        .await;
    fake.remove::<Job>("a", "sum");
    fake.wait_for("no finalizers", |fake| {
        fake.all::<Pod>()
            .iter()
            .all(|pod| !facts::is_tracked(pod))
            .then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stray_pod_is_adopted_and_counted() {
    let fake = FakeApi::new(FakeClock::shared());
    fake.put(&testing::pod("a", "stray", &[("job", "sum")]));
    fake.put(&job(json!({})));
    let world = testing::start(&fake, |context| Box::pin(super::run(context)));
    fake.wait_for("adoption", |fake| {
        let pod = fake.get::<Pod>("a", "stray")?;
        (facts::is_tracked(&pod) && pod.metadata.owner_references.is_some()).then_some(())
    })
    .await;
    fake.wait_for("completion", |fake| {
        finish(fake, "Succeeded");
        ended(fake, "Complete")
    })
    .await;
    assert_eq!(fake.count("create", "pods"), 0);
    world.end().await;
}

/// Plans are judged by their act alone here.
#[test]
fn nothing_is_planned_for_a_job_on_its_way_out() {
    let mut going = job(json!({}));
    going.metadata.deletion_timestamp = Some(Time(now()));
    let plan: Plan = plan(&going, &[], Record::default(), now());
    assert!(matches!(plan.act, Act::Nothing));
}
