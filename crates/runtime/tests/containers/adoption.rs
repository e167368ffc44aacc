//! Containers outlive the runtime. The controlling process here is this test program itself,
//! executed again for the one test that plays its part, and killed.

use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel_runtime::{ContainerState, Images, Runtime, SandboxState};

use crate::common::{Fixture, shell, text, until};

/// Where the played part finds its root; set only by the test that plays the other.
const PART: &str = "EVENKEEL_TEST_CONTROLLER";
/// The same for the part that makes and removes pods.
const BUSY_PART: &str = "EVENKEEL_TEST_BUSY_CONTROLLER";

#[tokio::test(flavor = "multi_thread")]
async fn part_of_the_controller() {
    let Ok(dir) = std::env::var(PART) else { return };
    let fixture = Fixture::at(dir.into());
    let sandbox = fixture.sandbox().await;
    let lasting = fixture
        .start_in(
            &sandbox,
            &shell("echo first; sleep 3; echo second; sleep 1000"),
        )
        .await;
    let ending = fixture.start_in(&sandbox, &shell("sleep 1; exit 42")).await;
    let created = fixture
        .runtime()
        .create_container(&sandbox, &shell("echo late"))
        .await
        .expect("creates");
    std::fs::write(
        fixture.dir.join("ready.tmp"),
        format!("{sandbox} {lasting} {ending} {created}"),
    )
    .expect("writes");
    std::fs::rename(fixture.dir.join("ready.tmp"), fixture.dir.join("ready")).expect("renames");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_found_again_after_a_kill() {
    let mut fixture = Fixture::new().await;
    fixture.close();
    let mut controller = Command::new(std::env::current_exe().expect("own path"))
        .args(["adoption::part_of_the_controller", "--exact"])
        .env(PART, &fixture.dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("spawns");
    let ready = until("the controller is ready", async || {
        std::fs::read_to_string(fixture.dir.join("ready")).ok()
    })
    .await;
    controller.kill().expect("kills");
    controller.wait().expect("reaps");
    let ids: Vec<&str> = ready.split(' ').collect();
    let (sandbox, lasting, ending, created) = (ids[0], ids[1], ids[2], ids[3]);
    // One container ends while nobody looks.
    let record = fixture
        .root()
        .join("containers")
        .join(ending)
        .join("exit.json");
    until("it ends alone", async || record.exists().then_some(())).await;

    fixture.open();
    let runtime = fixture.runtime();
    let sandboxes = runtime.list_sandboxes().await.expect("lists");
    assert_eq!(
        (sandboxes[0].id.as_str(), sandboxes[0].state),
        (sandbox, SandboxState::Ready)
    );
    let status = runtime.container_status(ending).await.expect("a status");
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, 42)
    );
    assert!(status.finished_at > status.started_at);
    let status = runtime.container_status(lasting).await.expect("a status");
    assert_eq!(status.state, ContainerState::Running);
    assert!(std::path::Path::new(&format!("/proc/{}", status.pid.expect("a pid"))).exists());
    assert_eq!(
        fixture.exec(lasting, &["echo", "alive"]).await.stdout,
        b"alive\n"
    );
    until("its output is still logged", async || {
        (text(&crate::common::log(&status.log_path)) == "first\nsecond\n").then_some(())
    })
    .await;
    runtime
        .start_container(created)
        .await
        .expect("starts what was only created");
    assert_eq!(fixture.ended(created).await.exit_code, 0);
    let mut events = runtime.events();
    runtime
        .stop_container(lasting, Duration::ZERO)
        .await
        .expect("stops");
    let event = crate::common::bounded("the event", events.recv())
        .await
        .expect("an event");
    assert_eq!(
        (event.container_id.as_str(), event.state),
        (lasting, ContainerState::Exited)
    );
    runtime.remove_sandbox(sandbox).await.expect("removes");
}

/// Makes and removes pods without end, until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn part_of_the_busy_controller() {
    let Ok(dir) = std::env::var(BUSY_PART) else {
        return;
    };
    let fixture = Fixture::at(dir.into());
    std::fs::write(fixture.dir.join("busy"), "").expect("writes");
    loop {
        let sandbox = fixture.sandbox().await;
        let id = fixture.start_in(&sandbox, &shell("sleep 1000")).await;
        fixture.exec(&id, &["true"]).await;
        fixture
            .runtime()
            .remove_sandbox(&sandbox)
            .await
            .expect("removes");
    }
}

/// Waits until nothing half-made is left; names what stays.
async fn nothing_left(root: &std::path::Path) {
    let begun = std::time::Instant::now();
    loop {
        let left: Vec<_> = ["sandboxes", "containers", "trash"]
            .iter()
            .flat_map(|part| walk(&root.join(part)))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < crate::common::BOUND, "left: {left:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything below a directory, also while it is being deleted.
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .flat_map(|entry| [vec![entry.path()], walk(&entry.path())].concat())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_breaks_nothing() {
    let mut fixture = Fixture::new().await;
    for round in 0..12_u64 {
        fixture.close();
        let mut controller = Command::new(std::env::current_exe().expect("own path"))
            .args([
                "adoption::part_of_the_busy_controller",
                "--exact",
                "--nocapture",
            ])
            .env(BUSY_PART, &fixture.dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("spawns");
        let busy = fixture.dir.join("busy");
        until("it is busy", async || std::fs::remove_file(&busy).ok()).await;
        // Spread over several pods' lives; the exact moment is left to the machine.
        tokio::time::sleep(Duration::from_millis(7 + 13 * round)).await;
        controller.kill().expect("kills");
        controller.wait().expect("reaps");
        fixture.open();
        let runtime = fixture.runtime();
        for sandbox in runtime.list_sandboxes().await.expect("lists") {
            for container in runtime.list_containers().await.expect("lists") {
                let command = ["true".to_owned()];
                if container.state == ContainerState::Running
                    && runtime
                        .exec_sync(&container.id, &command, crate::common::BOUND)
                        .await
                        .is_err()
                {
                    // The controller had just sent the kill: then it is ending, and told so.
                    assert_eq!(fixture.ended(&container.id).await.exit_code, 137);
                }
            }
            runtime.remove_sandbox(&sandbox.id).await.expect("removes");
        }
        assert!(runtime.list_containers().await.expect("lists").is_empty());
        let root = fixture.root();
        nothing_left(&root).await;
        assert!(
            fixture
                .images
                .status(crate::common::IMAGE)
                .await
                .expect("reads")
                .is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_shim_was_killed_is_ended() {
    let fixture = Fixture::new().await;
    let id = fixture.start(&shell("sleep 1000")).await;
    let record = std::fs::read(
        fixture
            .root()
            .join("containers")
            .join(&id)
            .join("started.json"),
    )
    .expect("reads");
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    let shim = i32::try_from(record["shim"].as_i64().expect("a pid")).expect("fits");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::SIGKILL)
        .expect("kills");
    let status = fixture.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    assert!(status.message.contains("shim"), "{}", status.message);
    fixture
        .runtime()
        .remove_container(&id)
        .await
        .expect("removes");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_everything_is_over_and_half_made_things_are_gone() {
    let mut fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let id = fixture.start_in(&sandbox, &shell("sleep 1000")).await;
    fixture
        .runtime()
        .stop_container(&id, Duration::ZERO)
        .await
        .expect("stops");
    fixture.close();
    // As a power failure leaves it: another boot, no mounts, no groups, no end recorded, and
    // things half-made.
    let root = fixture.root();
    std::fs::remove_file(root.join("containers").join(&id).join("exit.json")).expect("removes");
    std::fs::write(root.join("boot"), "another boot").expect("writes");
    for name in ["ns/net", "ns/ipc", "ns/uts", "shm"] {
        nix::mount::umount(&root.join("sandboxes").join(&sandbox).join(name)).expect("unmounts");
    }
    std::fs::create_dir_all(root.join("sandboxes/half/ns")).expect("a directory");
    std::fs::create_dir_all(root.join("containers/half/upper")).expect("a directory");
    std::fs::create_dir_all(root.join("trash/old")).expect("a directory");
    fixture.open();
    let status = fixture
        .runtime()
        .container_status(&id)
        .await
        .expect("a status");
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, 255)
    );
    let sandboxes = fixture.runtime().list_sandboxes().await.expect("lists");
    assert_eq!(
        (sandboxes.len(), sandboxes[0].state),
        (1, SandboxState::NotReady)
    );
    assert_eq!(
        fixture
            .runtime()
            .list_containers()
            .await
            .expect("lists")
            .len(),
        1
    );
    until("the trash is empty", async || {
        std::fs::read_dir(root.join("trash"))
            .expect("lists")
            .next()
            .is_none()
            .then_some(())
    })
    .await;
    assert!(!root.join("sandboxes/half").exists() && !root.join("containers/half").exists());
    fixture
        .runtime()
        .remove_sandbox(&sandbox)
        .await
        .expect("removes");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_root_has_one_runtime() {
    let fixture = Fixture::new().await;
    let second = evenkeel_runtime::EmbeddedRuntime::new(fixture.options());
    let error = second.err().expect("refused");
    assert!(
        error.to_string().contains("another process uses"),
        "{error}"
    );
}
