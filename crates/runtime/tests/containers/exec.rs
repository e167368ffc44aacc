//! exec and attach, with and without a terminal.

use std::time::Duration;

use evenkeel_runtime::{
    ContainerConfig, ExecRequest, Runtime, RuntimeError, Security, TerminalSize,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{BOUND, Fixture, bounded, shell, until};

fn request(command: &[&str]) -> ExecRequest {
    ExecRequest {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_sync_gives_both_streams_and_the_code() {
    let fixture = Fixture::new().await;
    let config = ContainerConfig {
        env: vec![("A".into(), "1".into())],
        working_dir: "/tmp".into(),
        ..shell("sleep 1000")
    };
    let id = fixture.start(&config).await;
    let output = fixture
        .exec(
            &id,
            &["sh", "-c", "echo out $A $(pwd) $HOME; echo err >&2; exit 9"],
        )
        .await;
    assert_eq!(output.exit_code, 9);
    assert_eq!(output.stdout, b"out 1 /tmp /root\n");
    assert_eq!(output.stderr, b"err\n");
    let leaves = fixture
        .exec(&id, &["sh", "-c", "sleep 1000 & echo left"])
        .await;
    assert_eq!(
        (leaves.exit_code, leaves.stdout.as_slice()),
        (0, b"left\n".as_slice())
    );
    let missing = vec!["foo".to_owned()];
    let error = fixture
        .runtime()
        .exec_sync(&id, &missing, BOUND)
        .await
        .expect_err("missing");
    assert!(matches!(error, RuntimeError::CannotRun(_)));
    assert_eq!(
        error.to_string(),
        "exec: \"foo\": executable file not found in $PATH"
    );
    let slow = vec!["sleep".to_owned(), "2345".to_owned()];
    let error = fixture
        .runtime()
        .exec_sync(&id, &slow, Duration::from_millis(100))
        .await
        .expect_err("too slow");
    assert!(matches!(error, RuntimeError::Timeout(_)), "{error}");
    until("the slow program is killed", async || {
        let listing = fixture.exec(&id, &["ps"]).await;
        let count = String::from_utf8_lossy(&listing.stdout)
            .matches("sleep 2345")
            .count();
        (count == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_the_containers_rights_and_groups() {
    let fixture = Fixture::new().await;
    let security = Security {
        run_as_user: Some(1000),
        drop_capabilities: vec!["ALL".into()],
        no_new_privs: true,
        ..Security::default()
    };
    let id = fixture
        .start(&ContainerConfig {
            security,
            ..shell("sleep 1000")
        })
        .await;
    let output = fixture
        .exec(&id, &["sh", "-c", "id -u; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | tr -s '\\t' ' '; cat /proc/self/cgroup | grep -c evenkeel; cat /proc/1/cgroup > /tmp/1; cat /proc/self/cgroup > /tmp/2; cmp /tmp/1 /tmp/2 && echo same"])
        .await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("1000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n0\n"),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_streams_end_one_by_one() {
    let fixture = Fixture::new().await;
    let id = fixture.start(&shell("sleep 1000")).await;
    let mut session = fixture
        .runtime()
        .exec(&id, &request(&["sh", "-c", "cat; echo done >&2; exit 4"]))
        .await
        .expect("execs");
    let mut stdin = session.stdin.take().expect("stdin");
    let big = vec![b'x'; 1 << 20];
    let writer = tokio::spawn(async move {
        stdin.write_all(&big).await.expect("writes");
        stdin.shutdown().await.expect("closes");
        // Kept: shutting down alone must end the program's stdin.
        stdin
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut stdout = session.stdout.take().expect("stdout");
    let mut stderr = session.stderr.take().expect("stderr");
    bounded("output", async {
        let (a, b) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        a.expect("reads");
        b.expect("reads");
    })
    .await;
    drop(writer.await.expect("joins"));
    assert_eq!((out.len(), err.as_slice()), (1 << 20, b"done\n".as_slice()));
    assert_eq!(bounded("exit", session.exit).await.expect("a code"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_an_exec_kills_it() {
    let fixture = Fixture::new().await;
    let id = fixture.start(&shell("sleep 1000")).await;
    let session = fixture
        .runtime()
        .exec(&id, &request(&["sleep", "2000"]))
        .await
        .expect("execs");
    let count = async || {
        let listing = fixture.exec(&id, &["ps"]).await;
        String::from_utf8_lossy(&listing.stdout)
            .matches("sleep 2000")
            .count()
    };
    assert_eq!(count().await, 1);
    drop(session);
    until("it is gone", async || (count().await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_on_a_terminal() {
    let fixture = Fixture::new().await;
    let id = fixture.start(&shell("sleep 1000")).await;
    let wish = ExecRequest {
        tty: true,
        ..request(&[
            "sh",
            "-c",
            "tty; read line; stty size; echo got $line; exit 5",
        ])
    };
    let mut session = fixture.runtime().exec(&id, &wish).await.expect("execs");
    assert!(session.stderr.is_none());
    session
        .resize
        .send(TerminalSize {
            width: 101,
            height: 37,
        })
        .await
        .expect("resizes");
    let mut stdin = session.stdin.take().expect("stdin");
    let mut stdout = session.stdout.take().expect("stdout");
    let mut seen = String::new();
    let mut buffer = [0; 256];
    // The size is applied by another task: type the line only after the shell shows life and the
    // size had its turn.
    while !seen.contains("\r\n") {
        let count = bounded("the first line", stdout.read(&mut buffer))
            .await
            .expect("reads");
        assert!(count > 0, "it ended after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    until("the size arrives", async || {
        session
            .resize
            .capacity()
            .eq(&session.resize.max_capacity())
            .then_some(())
    })
    .await;
    stdin.write_all(b"hi\n").await.expect("types");
    let mut rest = Vec::new();
    bounded("the rest", stdout.read_to_end(&mut rest))
        .await
        .expect("reads");
    seen.push_str(&String::from_utf8_lossy(&rest));
    assert!(
        seen.contains("/dev/pts/0\r\n")
            && seen.contains("37 101\r\n")
            && seen.contains("got hi\r\n"),
        "{seen}"
    );
    assert_eq!(bounded("exit", session.exit).await.expect("a code"), 5);
    let missing = ExecRequest {
        tty: true,
        ..request(&["foo"])
    };
    let error = fixture
        .runtime()
        .exec(&id, &missing)
        .await
        .expect_err("missing");
    assert!(error.to_string().contains("not found in $PATH"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_carries_streams_both_ways() {
    let fixture = Fixture::new().await;
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..shell("echo early; while read l; do echo out $l; echo err $l >&2; done; echo end; exit 6")
    };
    let id = fixture.start(&config).await;
    let mut session = fixture
        .runtime()
        .attach(&id, &request(&[]))
        .await
        .expect("attaches");
    let mut stdin = session.stdin.take().expect("stdin");
    stdin.write_all(b"one\ntwo\n").await.expect("writes");
    stdin.shutdown().await.expect("closes");
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (
        session.stdout.take().expect("out"),
        session.stderr.take().expect("err"),
    );
    bounded("output", async {
        let (a, b) = tokio::join!(
            stdout.read_to_string(&mut out),
            stderr.read_to_string(&mut err)
        );
        a.expect("reads");
        b.expect("reads");
    })
    .await;
    assert!(out.ends_with("out one\nout two\nend\n"), "{out}");
    assert_eq!(err, "err one\nerr two\n");
    assert_eq!(bounded("exit", session.exit).await.expect("a code"), 6);
    let status = fixture.ended(&id).await;
    assert_eq!(crate::common::log(&status.log_path).len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_to_a_terminal_detaches_without_harm() {
    let fixture = Fixture::new().await;
    let config = ContainerConfig {
        stdin: true,
        tty: true,
        ..shell("while read l; do stty size; echo got $l; done")
    };
    let id = fixture.start(&config).await;
    for round in 0..2 {
        let mut session = fixture
            .runtime()
            .attach(&id, &request(&[]))
            .await
            .expect("attaches");
        session
            .resize
            .send(TerminalSize {
                width: 90 + round,
                height: 30,
            })
            .await
            .expect("resizes");
        until("the size leaves", async || {
            session
                .resize
                .capacity()
                .eq(&session.resize.max_capacity())
                .then_some(())
        })
        .await;
        let mut stdin = session.stdin.take().expect("stdin");
        let mut stdout = session.stdout.take().expect("stdout");
        let mut seen = String::new();
        let mut typed = false;
        bounded("an answer", async {
            while !seen.contains("got x") {
                if !typed {
                    stdin.write_all(b"x\n").await.expect("types");
                    typed = true;
                }
                let mut buffer = [0; 256];
                let count = stdout.read(&mut buffer).await.expect("reads");
                assert!(count > 0, "closed: {seen}");
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        })
        .await;
        assert!(seen.contains(&format!("30 {}", 90 + round)), "{seen}");
    }
    let status = fixture
        .runtime()
        .container_status(&id)
        .await
        .expect("a status");
    assert!(status.pid.is_some());
}
