//! A filter is judged by running it: a small interpreter of the BPF subset.

use super::compile::action;
use super::*;

fn run(program: &[BpfInstruction], number: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_le_bytes());
    #[cfg(target_arch = "x86_64")]
    data[4..8].copy_from_slice(&0xc000_003e_u32.to_le_bytes());
    #[cfg(target_arch = "aarch64")]
    data[4..8].copy_from_slice(&0xc000_00b7_u32.to_le_bytes());
    for (index, arg) in args.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let BpfInstruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |yes: bool| usize::from(if yes { jt } else { jf });
        match code {
            0x20 => {
                let offset = k as usize;
                accumulator =
                    u32::from_le_bytes(data[offset..offset + 4].try_into().expect("four bytes"));
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x06 => return k,
            other => panic!("unexpected instruction {other:#x}"),
        }
    }
}

fn number(name: &str) -> u32 {
    table::number(name).expect("known call")
}

#[test]
fn the_default_profile_treats_calls_as_docker_does() {
    let program = from_bytes(&runtime_default(caps_default()));
    let first = |value| [value, 0, 0, 0, 0, 0];
    let eperm = action::errno(libc::EPERM);
    for name in [
        "read",
        "openat",
        "execve",
        "ptrace",
        "chroot",
        "landlock_create_ruleset",
    ] {
        assert_eq!(run(&program, number(name), [0; 6]), action::ALLOW, "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "keyctl",
        "bpf",
        "setns",
        "kexec_load",
        "io_uring_setup",
    ] {
        assert_eq!(run(&program, number(name), [0; 6]), eperm, "{name}");
    }
    assert_eq!(
        run(&program, number("clone3"), [0; 6]),
        action::errno(libc::ENOSYS)
    );
    assert_eq!(run(&program, number("clone"), first(0x11)), action::ALLOW);
    assert_eq!(run(&program, number("clone"), first(0x1000_0011)), eperm);
    assert_eq!(
        run(&program, number("personality"), first(0x2_0008)),
        action::ALLOW
    );
    assert_eq!(run(&program, number("personality"), first(0x4_0000)), eperm);
    assert_eq!(run(&program, number("socket"), first(2)), action::ALLOW);
    assert_eq!(run(&program, number("socket"), first(40)), eperm);
    assert_eq!(run(&program, 9999, [0; 6]), action::errno(libc::ENOSYS));
    assert_eq!(
        run(&program, 0x4000_0000, [0; 6]),
        action::errno(libc::ENOSYS)
    );
}

fn caps_default() -> u64 {
    crate::caps::resolve(&[], &[]).expect("no names to fail")
}

#[test]
fn capabilities_open_what_they_guard() {
    let admin = from_bytes(&runtime_default(crate::caps::ALL));
    for name in ["mount", "unshare", "clone3", "bpf", "reboot"] {
        assert_eq!(
            run(&admin, number(name), [u64::MAX; 6]),
            action::ALLOW,
            "{name}"
        );
    }
    let none = from_bytes(&runtime_default(0));
    assert_eq!(
        run(&none, number("chroot"), [0; 6]),
        action::errno(libc::EPERM)
    );
}

#[test]
fn every_operator_compares_all_64_bits() {
    let value = 0x1_0000_0005;
    let cases = [
        (Operator::Equal, [false, true, false]),
        (Operator::NotEqual, [true, false, true]),
        (Operator::Less, [true, false, false]),
        (Operator::LessOrEqual, [true, true, false]),
        (Operator::Greater, [false, false, true]),
        (Operator::GreaterOrEqual, [false, true, true]),
        (Operator::MaskedEqual(u64::MAX), [false, true, false]),
    ];
    for (operator, expected) in cases {
        let mut filter = Filter::new(action::KILL_PROCESS);
        let condition = Condition {
            argument: 1,
            operator,
            value,
        };
        filter.rule("read", vec![condition], action::ALLOW);
        let program = filter.compile();
        for (argument, expected) in [0x0_ffff_ffff, value, 0x1_0000_0006]
            .into_iter()
            .zip(expected)
        {
            let allowed = run(&program, number("read"), [0, argument, 0, 0, 0, 0]);
            assert_eq!(
                allowed == action::ALLOW,
                expected,
                "{operator:?} {argument:#x}"
            );
        }
    }
}

#[test]
fn profiles_of_users_are_read_or_refused() {
    let text = br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"names":["mkdirat","not_a_call"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
        {"names":["read"],"action":"SCMP_ACT_ERRNO",
         "args":[{"index":0,"value":7,"op":"SCMP_CMP_EQ"}]}]}"#;
    let program = profile::from_oci(text).expect("reads").compile();
    assert_eq!(run(&program, number("mkdirat"), [0; 6]), action::errno(13));
    assert_eq!(
        run(&program, number("read"), [7, 0, 0, 0, 0, 0]),
        action::errno(libc::EPERM)
    );
    assert_eq!(
        run(&program, number("read"), [8, 0, 0, 0, 0, 0]),
        action::ALLOW
    );
    assert!(profile::from_oci(br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).is_err());
    assert!(profile::from_oci(b"nonsense").is_err());
}
