//! Limits and figures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_runtime::{ContainerConfig, Resources, Runtime};

use crate::common::{Fixture, shell, text, until};

fn limited(script: &str, resources: Resources) -> ContainerConfig {
    ContainerConfig {
        resources,
        ..shell(script)
    }
}

/// The first of these control files of the container's group that there is.
fn control(fixture: &Fixture, id: &str, files: &[(&str, &str)]) -> String {
    fn find(dir: &Path, id: &str) -> Option<PathBuf> {
        std::fs::read_dir(dir)
            .ok()?
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .find_map(|entry| {
                if entry.file_name() == id {
                    Some(entry.path())
                } else {
                    find(&entry.path(), id)
                }
            })
    }
    for (hierarchy, file) in files {
        let base = Path::new("/sys/fs/cgroup")
            .join(hierarchy)
            .join(format!("evenkeel-{}", fixture.instance));
        if let Some(text) =
            find(&base, id).and_then(|dir| std::fs::read_to_string(dir.join(file)).ok())
        {
            return text.trim().to_owned();
        }
    }
    panic!("no control file for {id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_is_oom_killed() {
    let fixture = Fixture::new().await;
    let limits = Resources {
        memory_limit: Some(16 << 20),
        ..Resources::default()
    };
    let (status, _) = fixture.run(&limited("exec tail /dev/zero", limits)).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_processes_are_refused() {
    let fixture = Fixture::new().await;
    let limits = Resources {
        pids_limit: Some(5),
        ..Resources::default()
    };
    let (_, lines) = fixture
        .run(&limited(
            "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo never",
            limits,
        ))
        .await;
    let text = text(&lines);
    assert!(
        text.contains("can't fork") && !text.contains("never"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_changed_and_figures_read() {
    let fixture = Fixture::new().await;
    let limits = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(20_000),
        cpu_period: Some(100_000),
        memory_limit: Some(64 << 20),
        ..Resources::default()
    };
    let id = fixture
        .start(&limited(
            "dd if=/dev/zero of=/file bs=1024 count=512 2>/dev/null; while :; do :; done",
            limits,
        ))
        .await;
    let quota = || {
        control(
            &fixture,
            &id,
            &[("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")],
        )
    };
    let memory = || {
        control(
            &fixture,
            &id,
            &[("memory", "memory.limit_in_bytes"), ("", "memory.max")],
        )
    };
    assert!(matches!(quota().as_str(), "20000" | "20000 100000"));
    assert_eq!(memory(), (64 << 20).to_string());
    let shares = control(&fixture, &id, &[("cpu", "cpu.shares"), ("", "cpu.weight")]);
    assert!(matches!(shares.as_str(), "512" | "20"), "{shares}");
    let stats = until("it uses the processor", async || {
        let stats = fixture
            .runtime()
            .container_stats(&id)
            .await
            .expect("figures");
        (stats.cpu_usage_ns > 10_000_000 && stats.rootfs_used_bytes >= 512 << 10).then_some(stats)
    })
    .await;
    assert!(stats.memory_usage > 0 && stats.memory_working_set <= stats.memory_usage);
    assert!(stats.pids >= 1 && stats.pids < 10);
    let more = Resources {
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory_limit: Some(96 << 20),
        ..Resources::default()
    };
    fixture
        .runtime()
        .update_resources(&id, &more)
        .await
        .expect("updates");
    assert!(quota().starts_with("50000"));
    assert_eq!(memory(), (96 << 20).to_string());
    let less = Resources {
        memory_limit: Some(48 << 20),
        ..Resources::default()
    };
    fixture
        .runtime()
        .update_resources(&id, &less)
        .await
        .expect("updates");
    assert_eq!(memory(), (48 << 20).to_string());
    fixture
        .runtime()
        .stop_container(&id, Duration::ZERO)
        .await
        .expect("stops");
    assert!(fixture.runtime().container_stats(&id).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oom_score_that_can_not_be_had_does_not_fail_the_container() {
    let fixture = Fixture::new().await;
    let wish = |score| Resources {
        oom_score_adj: Some(score),
        ..Resources::default()
    };
    let (status, _) = fixture.run(&limited("true", wish(-997))).await;
    assert_eq!(status.exit_code, 0);
    let (_, lines) = fixture
        .run(&limited("cat /proc/self/oom_score_adj", wish(850)))
        .await;
    assert_eq!(text(&lines), "850\n");
}
