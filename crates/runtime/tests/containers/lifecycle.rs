//! Containers from start to end: exit codes, logs, start errors, stop, removal.

use std::time::Duration;

use crate::common::{Fixture, shell, text};
use evenkeel_runtime::{ContainerConfig, ContainerState, Runtime, RuntimeError, SandboxState};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_its_end_is_told() {
    let fixture = Fixture::new().await;
    let mut events = fixture.runtime().events();
    let (status, lines) = fixture.run(&shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let mut said: Vec<_> = lines
        .iter()
        .map(|(stream, tag, text)| format!("{stream} {tag} {text}"))
        .collect();
    said.sort();
    assert_eq!(said, ["stderr F err", "stdout F out"]);
    let mut states = Vec::new();
    while let Ok(event) = events.try_recv() {
        assert_eq!(event.container_id, status.id);
        states.push(event.state);
    }
    assert_eq!(states, [ContainerState::Running, ContainerState::Exited]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_zero_is_completed_and_a_signal_is_128_more() {
    let fixture = Fixture::new().await;
    let (status, _) = fixture.run(&shell("true")).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    let (status, _) = fixture.run(&shell("sh -c 'kill -9 $$'; exit $?")).await;
    assert_eq!(status.exit_code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lines_are_logged_in_pieces() {
    let fixture = Fixture::new().await;
    let (_, lines) = fixture
        .run(&shell(
            "head -c 40000 /dev/zero | tr '\\0' x; echo; printf rest",
        ))
        .await;
    let shape: Vec<_> = lines
        .iter()
        .map(|(_, tag, text)| (tag.as_str(), text.len()))
        .collect();
    assert_eq!(shape, [("P", 16384), ("P", 16384), ("F", 7232), ("P", 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_a_start_error() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let config = ContainerConfig {
        command: vec!["no-such-program".into()],
        ..shell("")
    };
    let id = fixture
        .runtime()
        .create_container(&sandbox, &config)
        .await
        .expect("creates");
    let error = fixture
        .runtime()
        .start_container(&id)
        .await
        .expect_err("can't start");
    assert!(matches!(error, RuntimeError::CannotRun(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "exec: \"no-such-program\": executable file not found in $PATH"
    );
    let status = fixture
        .runtime()
        .container_status(&id)
        .await
        .expect("a status");
    assert_eq!(status.state, ContainerState::Exited);
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (128, "StartError")
    );
    assert_eq!(status.message, error.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_asks_first_and_kills_after_the_grace() {
    let fixture = Fixture::new().await;
    let runtime = fixture.runtime();
    let id = fixture
        .start(&shell(
            "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done",
        ))
        .await;
    crate::common::until("the trap is set", async || {
        let status = runtime.container_status(&id).await.expect("a status");
        text(&crate::common::log(&status.log_path))
            .contains("up")
            .then_some(())
    })
    .await;
    runtime
        .stop_container(&id, Duration::from_secs(10))
        .await
        .expect("stops");
    let status = runtime.container_status(&id).await.expect("a status");
    assert_eq!(status.exit_code, 3);
    assert_eq!(text(&crate::common::log(&status.log_path)), "up\nbye\n");

    let id = fixture.start(&shell("trap '' TERM; sleep 1000")).await;
    runtime
        .stop_container(&id, Duration::from_millis(50))
        .await
        .expect("stops");
    let status = runtime.container_status(&id).await.expect("a status");
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, 137)
    );
    runtime
        .stop_container(&id, Duration::ZERO)
        .await
        .expect("again");
    runtime.remove_container(&id).await.expect("removes");
    runtime.remove_container(&id).await.expect("again");
    assert!(matches!(
        runtime.container_status(&id).await,
        Err(RuntimeError::NotFound {
            kind: "container",
            ..
        })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_takes_its_containers_along() {
    let fixture = Fixture::new().await;
    let runtime = fixture.runtime();
    let sandbox = fixture.sandbox().await;
    let id = fixture.start_in(&sandbox, &shell("sleep 1000")).await;
    let listed = runtime.list_sandboxes().await.expect("lists");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, SandboxState::Ready);
    assert!(listed[0].netns.as_ref().is_some_and(|path| path.exists()));
    runtime.stop_sandbox(&sandbox).await.expect("stops");
    let status = runtime.container_status(&id).await.expect("a status");
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, 137)
    );
    assert_eq!(
        runtime.list_sandboxes().await.expect("lists")[0].state,
        SandboxState::NotReady
    );
    assert!(
        runtime
            .create_container(&sandbox, &shell("true"))
            .await
            .is_err()
    );
    runtime.remove_sandbox(&sandbox).await.expect("removes");
    runtime.remove_sandbox(&sandbox).await.expect("again");
    assert!(runtime.list_sandboxes().await.expect("lists").is_empty());
    assert!(runtime.list_containers().await.expect("lists").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_leaves_no_process() {
    let fixture = Fixture::new().await;
    let id = fixture
        .start(&shell("sleep 1000 & sleep 1000 & wait"))
        .await;
    let pid = fixture
        .runtime()
        .container_status(&id)
        .await
        .expect("a status")
        .pid;
    fixture
        .runtime()
        .stop_container(&id, Duration::ZERO)
        .await
        .expect("stops");
    let pid = pid.expect("a running pid");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
