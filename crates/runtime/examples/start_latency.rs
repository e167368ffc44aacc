//! How long containers take here, beside the floor of a bare clone, pivot and exec measured in the
//! same run. Needs root, busybox-static and the `runtime-helper` binary of this crate:
//! `cargo run -p evenkeel-runtime --example start_latency -- target/debug/runtime-helper [ROUNDS]`

#![allow(
    unsafe_code,
    reason = "the floor is measured with the bare system calls"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_runtime::testing::{NoNetwork, busybox_image};
use evenkeel_runtime::{
    ContainerConfig, EmbeddedOptions, EmbeddedRuntime, ImageOptions, ImageStore, Images, PodRef,
    Runtime, SandboxConfig, cleanup,
};

fn main() {
    let mut args = std::env::args().skip(1);
    let helper = PathBuf::from(args.next().expect("path of runtime-helper"));
    let rounds: usize = args
        .next()
        .map_or(100, |text| text.parse().expect("a number"));
    let dir = std::env::temp_dir().join(format!("evenkeel-latency-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    // Before any thread exists: the floor forks.
    let floor: Vec<Duration> = (0..rounds).map(|_| floor(&dir)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("tokio");
    runtime.block_on(measure(&dir, helper, rounds, floor));
    drop(runtime);
    cleanup(&dir.join("node"), &instance()).expect("cleans up");
    std::fs::remove_dir_all(&dir).expect("removes its directory");
}

fn instance() -> String {
    format!("latency{}", std::process::id())
}

/// clone3 into new namespaces, overlay, pivot_root, exec of a static binary; until its end.
fn floor(dir: &Path) -> Duration {
    let root = dir.join("floor");
    for part in ["lower/bin", "upper", "work", "root"] {
        std::fs::create_dir_all(root.join(part)).expect("a directory");
    }
    let program = root.join("lower/bin/true");
    if !program.exists() {
        std::fs::copy("/usr/bin/busybox", &program).expect("busybox-static");
    }
    let text = |path: &Path| std::ffi::CString::new(path.to_str().expect("text")).expect("no NUL");
    let target = text(&root.join("root"));
    let data = std::ffi::CString::new(format!(
        "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work,volatile",
        root.display()
    ))
    .expect("no NUL");
    std::fs::remove_dir_all(root.join("work/work")).ok();
    let begin = Instant::now();
    // SAFETY: this process has one thread; the child only makes system calls on what it copied.
    unsafe {
        let mut clone: libc::clone_args = std::mem::zeroed();
        clone.flags = (libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS) as u64;
        clone.exit_signal = libc::SIGCHLD as u64;
        let pid = libc::syscall(
            libc::SYS_clone3,
            &raw mut clone,
            std::mem::size_of::<libc::clone_args>(),
        );
        if pid == 0 {
            let none = std::ptr::null();
            libc::mount(
                none,
                c"/".as_ptr(),
                none,
                libc::MS_REC | libc::MS_PRIVATE,
                none.cast(),
            );
            libc::mount(
                c"overlay".as_ptr(),
                target.as_ptr(),
                c"overlay".as_ptr(),
                0,
                data.as_ptr().cast(),
            );
            libc::chdir(target.as_ptr());
            libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr());
            libc::umount2(c".".as_ptr(), libc::MNT_DETACH);
            let argv = [c"true".as_ptr(), std::ptr::null()];
            libc::execv(c"/bin/true".as_ptr(), argv.as_ptr());
            libc::_exit(1);
        }
        let mut status = 0;
        libc::waitpid(i32::try_from(pid).expect("a pid"), &raw mut status, 0);
        assert_eq!(status, 0, "the floor's program failed");
    }
    begin.elapsed()
}

async fn measure(dir: &Path, helper: PathBuf, rounds: usize, floor: Vec<Duration>) {
    let images = Arc::new(
        ImageStore::open(dir.join("images"), ImageOptions::default()).expect("an image store"),
    );
    let archive = busybox_image("bench/busybox:1").expect("busybox-static");
    let begin = Instant::now();
    images.import(&archive, None).await.expect("imports");
    println!("import                    {:>9.2?}", begin.elapsed());
    let begin = Instant::now();
    images.import(&archive, None).await.expect("imports");
    println!("import, layers present    {:>9.2?}", begin.elapsed());
    std::fs::remove_file(&archive).expect("removes the archive");
    let runtime = EmbeddedRuntime::new(EmbeddedOptions {
        root: dir.join("node"),
        instance: instance(),
        network: Arc::new(NoNetwork),
        images,
        helper,
        helper_args: Vec::new(),
    })
    .expect("a runtime");
    let config = |script: &str| ContainerConfig {
        name: "c".into(),
        image: "bench/busybox:1".into(),
        command: script.split(' ').map(str::to_owned).collect(),
        log_path: "c.log".into(),
        ..ContainerConfig::default()
    };
    let pod = |number: usize| SandboxConfig {
        pod: PodRef {
            uid: format!("u{number}"),
            name: format!("p{number}"),
            ..PodRef::default()
        },
        hostname: format!("p{number}"),
        log_directory: dir.join("logs").join(number.to_string()),
        ..SandboxConfig::default()
    };
    let mut columns: [Vec<Duration>; 7] = Default::default();
    let mut note = |column: usize, begin: Instant| columns[column].push(begin.elapsed());
    for number in 0..rounds {
        let whole = Instant::now();
        let sandbox = runtime.run_sandbox(&pod(number)).await.expect("a sandbox");
        note(0, whole);
        let begin = Instant::now();
        let id = runtime
            .create_container(&sandbox, &config("sleep 1000"))
            .await
            .expect("creates");
        note(1, begin);
        let begin = Instant::now();
        runtime.start_container(&id).await.expect("starts");
        note(2, begin);
        note(3, whole);
        let begin = Instant::now();
        let command = ["true".to_owned()];
        runtime
            .exec_sync(&id, &command, Duration::from_secs(5))
            .await
            .expect("execs");
        note(4, begin);
        let begin = Instant::now();
        runtime
            .stop_container(&id, Duration::ZERO)
            .await
            .expect("stops");
        note(5, begin);
        let begin = Instant::now();
        runtime.remove_sandbox(&sandbox).await.expect("removes");
        note(6, begin);
    }
    print_row("floor: clone, pivot, exec", floor);
    let names = [
        "run_sandbox",
        "create",
        "start",
        "sandbox+create+start",
        "exec_sync true",
        "kill",
        "remove_sandbox",
    ];
    for (name, column) in names.iter().zip(columns) {
        print_row(name, column);
    }
    let mut shims = Vec::new();
    for number in 0..20 {
        let sandbox = runtime
            .run_sandbox(&pod(1000 + number))
            .await
            .expect("a sandbox");
        let id = runtime
            .create_container(&sandbox, &config("sleep 1000"))
            .await
            .expect("creates");
        runtime.start_container(&id).await.expect("starts");
        let record = std::fs::read(dir.join("node/containers").join(&id).join("started.json"))
            .expect("reads");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        shims.push(record["shim"].as_i64().expect("a pid"));
    }
    for field in ["Pss", "Private_Dirty", "Private_Clean"] {
        let total: u64 = shims.iter().map(|pid| rollup(*pid, field)).sum();
        println!("shim {field:<20} {:>6} KiB (mean of 20)", total / 20);
    }
}

fn rollup(pid: i64, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps");
    text.lines()
        .find_map(|line| line.strip_prefix(&format!("{field}:")))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn print_row(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!(
        "{name:<25} min {:>9.2?}  p50 {:>9.2?}  p99 {:>9.2?}",
        times[0],
        at(50),
        at(99)
    );
}
