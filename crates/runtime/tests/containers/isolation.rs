//! What a container sees and may do.

use std::path::PathBuf;

use evenkeel_runtime::testing::{Entry, ImageBuilder};
use evenkeel_runtime::{
    ContainerConfig, ContainerUser, ImageMount, Images as _, Mount, Propagation, Runtime,
    RuntimeError, Seccomp, Security,
};

use crate::common::{Fixture, IMAGE, log, shell, text};

fn with(script: &str, security: Security) -> ContainerConfig {
    ContainerConfig {
        security,
        ..shell(script)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_directory_and_names() {
    let fixture = Fixture::new().await;
    let config = ContainerConfig {
        env: vec![("GREETING".into(), "hello world".into())],
        working_dir: "/made/for/it".into(),
        ..shell(
            "echo $GREETING; pwd; echo $HOME; hostname; echo $HOSTNAME; cat /etc/hostname; echo $$; echo $PATH",
        )
    };
    let (status, lines) = fixture.run(&config).await;
    assert_eq!(status.exit_code, 0);
    let text = text(&lines);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["hello world", "/made/for/it", "/root"]);
    assert!(lines[3].starts_with("pod-") && lines[3] == lines[4] && lines[3] == lines[5]);
    assert_eq!(lines[6], "1");
    assert_eq!(
        lines[7],
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn users_by_number_and_by_the_images_name() {
    let fixture = Fixture::new().await;
    let as_user = Security {
        run_as_user: Some(1234),
        run_as_group: Some(2345),
        supplemental_groups: vec![3456],
        ..Security::default()
    };
    let (_, lines) = fixture
        .run(&with("id -u; id -g; id -G; echo hi > /dev/stderr", as_user))
        .await;
    assert_eq!(
        text(&lines).lines().collect::<Vec<_>>()[..3],
        ["1234", "2345", "2345 3456"]
    );
    assert_eq!(lines.last().map(|line| line.2.as_str()), Some("hi"));
    let mut image = ImageBuilder::busybox().expect("busybox-static");
    image.config["User"] = "user".into();
    fixture.import(&image, "named:1").await;
    let named = ContainerConfig {
        image: "named:1".into(),
        ..shell("id -u; id -g; id -G; pwd; echo $HOME")
    };
    let (status, lines) = fixture.run(&named).await;
    assert_eq!(text(&lines), "1000\n1001\n1001 29\n/\n/home\n");
    // Whom it was started as is told too.
    let user = ContainerUser {
        uid: 1000,
        gid: 1001,
        groups: vec![29, 1001],
    };
    assert_eq!(status.user, Some(user));
    let sandbox = fixture.sandbox().await;
    let root = with(
        "true",
        Security {
            run_as_non_root: true,
            ..Security::default()
        },
    );
    let id = fixture
        .runtime()
        .create_container(&sandbox, &root)
        .await
        .expect("creates");
    let error = fixture
        .runtime()
        .start_container(&id)
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("runAsNonRoot"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_the_default_ones_or_as_asked() {
    let fixture = Fixture::new().await;
    let script = "grep -E 'CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp:' /proc/self/status | tr -s '\\t' ' '";
    let plain = fixture.sh(script).await;
    let set = "00000000a80425fb";
    assert_eq!(
        plain,
        format!(
            "CapInh: 0000000000000000\nCapPrm: {set}\nCapEff: {set}\nCapBnd: {set}\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2\n"
        )
    );
    let narrow = Security {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        no_new_privs: true,
        ..Security::default()
    };
    let (_, lines) = fixture.run(&with(script, narrow)).await;
    let narrowed = text(&lines);
    assert!(
        narrowed.contains("CapBnd: 0000000000000400\n"),
        "{narrowed}"
    );
    assert!(narrowed.contains("NoNewPrivs: 1\n"), "{narrowed}");
    let user = Security {
        run_as_user: Some(1000),
        ..Security::default()
    };
    let (_, lines) = fixture.run(&with(script, user)).await;
    let dropped = text(&lines);
    assert!(
        dropped.contains("CapPrm: 0000000000000000\nCapEff: 0000000000000000\n"),
        "{dropped}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_filter_refuses_what_the_capability_would_allow() {
    let fixture = Fixture::new().await;
    let refused = "unshare -m true 2>&1; mount -t tmpfs x /tmp 2>&1; true";
    let filtered = fixture.sh(refused).await;
    assert_eq!(
        filtered.matches("Operation not permitted").count()
            + filtered.matches("ermission denied").count(),
        2,
        "{filtered}"
    );
    // Mounting works with the capability and without a filter, so it is the filter that decides
    // when unshare is asked with a capability that the profile does not tie to it.
    let free = Security {
        add_capabilities: vec!["SYS_ADMIN".into()],
        seccomp: Seccomp::Unconfined,
        ..Security::default()
    };
    let (_, lines) = fixture
        .run(&with(
            "mount -t tmpfs x /tmp && unshare -m true && echo free",
            free,
        ))
        .await;
    assert_eq!(text(&lines), "free\n");
    // A profile of the user's: mkdir fails with the error number that it names.
    let profile = fixture.dir.join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#,
    )
    .expect("writes");
    let local = Security {
        seccomp: Seccomp::Localhost(profile),
        ..Security::default()
    };
    let (status, lines) = fixture.run(&with("mkdir /x", local)).await;
    assert_eq!(status.exit_code, 1);
    assert!(
        text(&lines).contains("No space left on device"),
        "{}",
        text(&lines)
    );
    let missing = Security {
        seccomp: Seccomp::Localhost(PathBuf::from("/no/such/profile")),
        ..Security::default()
    };
    let sandbox = fixture.sandbox().await;
    assert!(
        fixture
            .runtime()
            .create_container(&sandbox, &with("true", missing))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_doors_are_masked_and_read_only() {
    let fixture = Fixture::new().await;
    let seen = fixture
        .sh("wc -c < /proc/interrupts; ls /sys/firmware | wc -l; \
             (echo 1 > /proc/sys/kernel/panic) 2>&1 | grep -c 'Read-only'; \
             (echo x > /proc/irq/default_smp_affinity) 2>&1 | grep -c 'Read-only'; \
             mkdir /sys/fs/cgroup/x 2>&1 | grep -c 'Read-only'; \
             ls /dev | tr '\\n' ' '; echo; ls -d /proc/[0-9]* | wc -l; cat /dev/kmsg 2>&1 | head -1")
        .await;
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..5], ["0", "0", "1", "1", "1"], "{seen}");
    assert_eq!(
        lines[5].trim().trim_start_matches("core "),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    assert!(
        lines[6].parse::<u32>().is_ok_and(|count| count <= 4),
        "{seen}"
    );
    let unmasked = Security {
        unmasked_proc: true,
        ..Security::default()
    };
    let (_, lines) = fixture
        .run(&with(
            "test -w /proc/sys/kernel/panic && echo open",
            unmasked,
        ))
        .await;
    assert_eq!(text(&lines), "open\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_other_than_the_usual_are_refused() {
    let fixture = Fixture::new().await;
    let seen = fixture
        .sh("echo x > /dev/null && head -c 4 /dev/zero | wc -c; \
             mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk 2>&1 | head -1")
        .await;
    assert!(
        seen.starts_with("4\n") && seen.contains("not permitted"),
        "{seen}"
    );
    let granted = ContainerConfig {
        devices: vec![("/dev/fuse".into(), "/dev/given/fuse".into(), "rw".into())],
        ..shell("test -c /dev/given/fuse && exec 3</dev/given/fuse && echo granted")
    };
    let (_, lines) = fixture.run(&granted).await;
    assert_eq!(text(&lines), "granted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_and_read_only_mounts() {
    let fixture = Fixture::new().await;
    let volume = fixture.dir.join("volume");
    std::fs::create_dir_all(volume.join("inner")).expect("a directory");
    let file = fixture.dir.join("hosts");
    std::fs::write(&file, "10.0.0.1 me\n").expect("writes");
    // What is mounted below a read-only mount must be read-only too.
    let inner = volume.join("inner");
    nix::mount::mount(
        Some("x"),
        &inner,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .expect("mounts");
    let mount = |host: &PathBuf, inside: &str, readonly| Mount {
        container_path: inside.into(),
        host_path: host.clone(),
        readonly,
        ..Mount::default()
    };
    let config = ContainerConfig {
        mounts: vec![
            mount(&volume, "/deep/er/ro", true),
            mount(&volume, "/rw", false),
            mount(&file, "/etc/hosts", true),
        ],
        security: Security {
            readonly_rootfs: true,
            ..Security::default()
        },
        ..shell(
            "touch /x 2>&1; touch /deep/er/ro/x 2>&1; touch /deep/er/ro/inner/x 2>&1; \
             touch /rw/made && echo made; cat /etc/hosts; touch /etc/hosts 2>&1; touch /dev/shm/x && echo shm",
        )
    };
    let (_, lines) = fixture.run(&config).await;
    nix::mount::umount(&inner).expect("unmounts");
    let seen = text(&lines);
    assert_eq!(seen.matches("Read-only file system").count(), 4, "{seen}");
    assert!(
        seen.contains("made\n10.0.0.1 me\n") && seen.ends_with("shm\n"),
        "{seen}"
    );
    assert!(volume.join("made").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_show_as_their_propagation_says() {
    let fixture = Fixture::new().await;
    let shared = fixture.dir.join("shared");
    std::fs::create_dir_all(shared.join("in")).expect("a directory");
    std::fs::create_dir_all(shared.join("out")).expect("a directory");
    let bind = |propagation| Mount {
        container_path: "/m".into(),
        host_path: shared.clone(),
        propagation,
        ..Mount::default()
    };
    let config = |propagation| ContainerConfig {
        mounts: vec![bind(propagation)],
        security: Security {
            privileged: true,
            ..Security::default()
        },
        ..shell("mount -t tmpfs x /m/out && echo up && sleep 1000")
    };
    let sandbox = fixture.sandbox().await;
    let refused = fixture
        .runtime()
        .create_container(&sandbox, &config(Propagation::Bidirectional))
        .await
        .expect_err("not shared");
    assert!(
        refused.to_string().contains("is not a shared mount"),
        "{refused}"
    );
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none = None::<&str>;
    mount(Some(&shared), &shared, none, MsFlags::MS_BIND, none).expect("binds");
    mount(none, &shared, none, MsFlags::MS_SHARED, none).expect("shares");
    let mut seen = Vec::new();
    for propagation in [
        Propagation::Bidirectional,
        Propagation::HostToContainer,
        Propagation::None,
    ] {
        let id = fixture.start_in(&sandbox, &config(propagation)).await;
        crate::common::until("the mount inside", async || {
            let status = fixture
                .runtime()
                .container_status(&id)
                .await
                .expect("a status");
            (!crate::common::log(&status.log_path).is_empty()).then_some(())
        })
        .await;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let outside = mounts.contains(&shared.join("out").display().to_string());
        mount(
            Some("x"),
            &shared.join("in"),
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .expect("mounts");
        std::fs::write(shared.join("in/file"), "").expect("writes");
        let inside = fixture
            .exec(&id, &["test", "-e", "/m/in/file"])
            .await
            .exit_code
            == 0;
        seen.push((outside, inside));
        fixture
            .runtime()
            .remove_container(&id)
            .await
            .expect("removes");
        umount2(&shared.join("in"), MntFlags::MNT_DETACH).expect("unmounts");
        umount2(&shared.join("out"), MntFlags::MNT_DETACH).ok();
    }
    umount2(&shared, MntFlags::MNT_DETACH).expect("unmounts");
    assert_eq!(seen, [(true, true), (false, true), (false, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_sees_the_hosts_devices_and_all_rights() {
    let fixture = Fixture::new().await;
    let all = Security {
        privileged: true,
        ..Security::default()
    };
    let (_, lines) = fixture
        .run(&with("grep Seccomp: /proc/self/status | tr -s '\\t' ' '; test -c /dev/kmsg && echo kmsg; mount -t tmpfs x /tmp && echo mounted; test -w /proc/sys/kernel/panic && echo open", all))
        .await;
    assert_eq!(text(&lines), "Seccomp: 0\nkmsg\nmounted\nopen\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn mount_points_stay_inside_whatever_links_the_image_has() {
    let fixture = Fixture::new().await;
    let outside = fixture.dir.join("outside");
    std::fs::create_dir(&outside).expect("a directory");
    let mut image = ImageBuilder::busybox().expect("busybox-static");
    image.layers[0].push(Entry::Link("trap".into(), outside.display().to_string()));
    fixture.import(&image, "trap:1").await;
    let volume = fixture.dir.join("volume");
    std::fs::create_dir(&volume).expect("a directory");
    let config = ContainerConfig {
        image: "trap:1".into(),
        mounts: vec![Mount {
            container_path: "/trap/sub".into(),
            host_path: volume.clone(),
            ..Mount::default()
        }],
        ..shell("echo x > /trap/sub/file && echo ok")
    };
    let (_, lines) = fixture.run(&config).await;
    assert_eq!(text(&lines), "ok\n");
    assert!(volume.join("file").exists());
    assert!(std::fs::read_dir(&outside).expect("lists").next().is_none());
    let missing = ContainerConfig {
        mounts: vec![Mount {
            container_path: "/m".into(),
            host_path: "/no/such/source".into(),
            ..Mount::default()
        }],
        image: IMAGE.into(),
        ..shell("true")
    };
    let sandbox = fixture.sandbox().await;
    let id = fixture
        .runtime()
        .create_container(&sandbox, &missing)
        .await
        .expect("creates");
    let error = fixture
        .runtime()
        .start_container(&id)
        .await
        .expect_err("no source");
    assert!(
        error.to_string().contains("no such file or directory"),
        "{error}"
    );
}

/// Of two layers the upper one hides what it takes away of the lower one.
fn data_image() -> ImageBuilder {
    let file =
        |name: &str, mode, text: &str| Entry::File(name.to_owned(), mode, text.as_bytes().to_vec());
    let dir = |name: &str| Entry::Dir(name.to_owned(), 0o755);
    ImageBuilder {
        layers: vec![
            vec![
                dir("model"),
                file("model/weights", 0o644, "1 2 3\n"),
                file("model/old", 0o644, "gone\n"),
                file("run", 0o755, "#!/bin/sh\necho ran\n"),
                Entry::Link("out".to_owned(), "/etc".to_owned()),
            ],
            vec![dir("model"), file("model/.wh.old", 0o644, "")],
        ],
        ..ImageBuilder::busybox().expect("busybox-static")
    }
}

fn image_at(inside: &str, image: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: inside.into(),
        image: Some(ImageMount {
            image: image.to_owned(),
            sub_path: sub_path.to_owned(),
        }),
        ..Mount::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_image_are_read_and_neither_written_nor_executed() {
    let fixture = Fixture::new().await;
    fixture.import(&data_image(), "data:1").await;
    let mut one = data_image();
    one.layers.truncate(1);
    fixture.import(&one, "data:0").await;
    let config = ContainerConfig {
        mounts: vec![
            image_at("/data", "data:1", ""),
            image_at("/model", "data:1", "model"),
            image_at("/one", "data:0", "model/weights"),
        ],
        ..shell(
            "cat /data/model/weights; ls /model; cat /one; touch /data/x 2>&1; touch /model/x 2>&1; \
             /data/run 2>&1; sleep 1",
        )
    };
    let id = fixture.start(&config).await;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let ours = format!("{}/", fixture.dir.display());
    assert!(
        !mounts
            .lines()
            .any(|it| it.contains(&ours) && it.contains("overlay")),
        "nothing shows on the host"
    );
    let refused = fixture.images.remove("data:1").await;
    refused.expect("only the name goes");
    fixture.ended(&id).await;
    let seen = text(&log(&fixture
        .runtime()
        .container_status(&id)
        .await
        .expect("it")
        .log_path));
    assert!(seen.starts_with("1 2 3\nweights\n1 2 3\n"), "{seen}");
    assert_eq!(seen.matches("Read-only file system").count(), 2, "{seen}");
    assert!(seen.contains("/data/run: Permission denied"), "{seen}");
    // It went by name; the layers go with the last container that stands on them.
    assert_eq!(fixture.images.list().await.expect("lists").len(), 3);
    fixture
        .runtime()
        .remove_container(&id)
        .await
        .expect("removes");
    assert_eq!(fixture.images.list().await.expect("lists").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_image_is_there_and_within_it() {
    let fixture = Fixture::new().await;
    fixture.import(&data_image(), "data:1").await;
    let sandbox = fixture.sandbox().await;
    // A link is followed inside the image, where there is no /etc.
    for part in ["nowhere", "../../etc", "out/passwd"] {
        let config = ContainerConfig {
            mounts: vec![image_at("/m", "data:1", part)],
            ..shell("true")
        };
        let runtime = fixture.runtime();
        let id = runtime.create_container(&sandbox, &config).await;
        let error = runtime.start_container(&id.expect("creates")).await;
        let error = error.expect_err("it is not there").to_string();
        assert!(
            error.contains(&format!("error mounting \"{part}\" to rootfs at \"/m\""))
                && error.contains("no such file or directory"),
            "{error}"
        );
    }
    let config = ContainerConfig {
        mounts: vec![image_at("/m", "missing:1", "")],
        ..shell("true")
    };
    let error = fixture.runtime().create_container(&sandbox, &config).await;
    assert!(matches!(
        error,
        Err(RuntimeError::NotFound { kind: "image", .. })
    ));
}
