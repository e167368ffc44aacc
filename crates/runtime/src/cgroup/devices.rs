//! Which devices a container may open: the rules, and the eBPF program that enforces them on v2.
//!
//! The default list is the one of the OCI runtime specification, "default devices", plus the
//! pseudo terminals.

use serde::{Deserialize, Serialize};

/// An allowed device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRule {
    /// `c` or `b`.
    pub(crate) kind: char,
    /// Major number; `None` for all.
    pub(crate) major: Option<u32>,
    /// Minor number; `None` for all.
    pub(crate) minor: Option<u32>,
    /// Letters of `rwm`.
    pub(crate) access: String,
}

impl DeviceRule {
    /// A rule in the form of the v1 control files: `c 1:3 rwm`.
    pub(super) fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        format!(
            "{} {}:{} {}",
            self.kind,
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

/// What every unprivileged container may use.
pub(crate) fn default_rules() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, access: &str| DeviceRule {
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    let character = |major, minor| rule('c', Some(major), minor, "rwm");
    vec![
        // Making a node is allowed, using it is another matter.
        rule('c', None, None, "m"),
        rule('b', None, None, "m"),
        character(1, Some(3)),
        character(1, Some(5)),
        character(1, Some(7)),
        character(1, Some(8)),
        character(1, Some(9)),
        character(5, Some(0)),
        character(5, Some(1)),
        character(5, Some(2)),
        character(136, None),
    ]
}

const BPF_DEVCG_ACC_MKNOD: u32 = 1;
const BPF_DEVCG_ACC_READ: u32 = 2;
const BPF_DEVCG_ACC_WRITE: u32 = 4;
const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// One eBPF instruction in its 64-bit form.
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(dst | (src << 4)) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

/// The program for `BPF_PROG_TYPE_CGROUP_DEVICE`: answers 1 when a rule allows the access.
///
/// The context is `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, the
/// access type holding the access in its upper half and the device type in its lower.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE_32: u8 = 0xbc;
    const MOVE_IMM: u8 = 0xb7;
    const AND_IMM_32: u8 = 0x54;
    const SHIFT_RIGHT_32: u8 = 0x74;
    const JUMP_NE_IMM: u8 = 0x55;
    const JUMP_NE: u8 = 0x5d;
    const EXIT: u8 = 0x95;
    // r2 = device type, r3 = access, r4 = major, r5 = minor.
    let mut out = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(AND_IMM_32, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 3, 1, 0, 0),
        instruction(SHIFT_RIGHT_32, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let kind = if rule.kind == 'b' {
            BPF_DEVCG_DEV_BLOCK
        } else {
            BPF_DEVCG_DEV_CHAR
        };
        let mut access = 0;
        for letter in rule.access.chars() {
            access |= match letter {
                'r' => BPF_DEVCG_ACC_READ,
                'w' => BPF_DEVCG_ACC_WRITE,
                'm' => BPF_DEVCG_ACC_MKNOD,
                _ => 0,
            };
        }
        // Each check jumps past the rest of its rule when it does not hold; the distances are
        // filled in once the rule's length is known.
        let mut checks = vec![(JUMP_NE_IMM, 2, 0, kind)];
        let mut body = Vec::new();
        if access != BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE {
            // All asked-for bits must be among the allowed ones: (access & allowed) == access.
            checks.push((MOVE_32, 1, 3, 0));
            checks.push((AND_IMM_32, 1, 0, access.cast_signed()));
            checks.push((JUMP_NE, 1, 3, 0));
        }
        if let Some(major) = rule.major {
            checks.push((JUMP_NE_IMM, 4, 0, major.cast_signed()));
        }
        if let Some(minor) = rule.minor {
            checks.push((JUMP_NE_IMM, 5, 0, minor.cast_signed()));
        }
        let length = checks.len() + 2;
        for (index, (code, dst, src, immediate)) in checks.into_iter().enumerate() {
            let jump = code == JUMP_NE_IMM || code == JUMP_NE;
            let distance = if jump {
                i16::try_from(length - index - 1).unwrap_or(i16::MAX)
            } else {
                0
            };
            body.push(instruction(code, dst, src, distance, immediate));
        }
        body.push(instruction(MOVE_IMM, 0, 0, 0, 1));
        body.push(instruction(EXIT, 0, 0, 0, 0));
        out.extend(body);
    }
    out.push(instruction(MOVE_IMM, 0, 0, 0, 0));
    out.push(instruction(EXIT, 0, 0, 0, 0));
    out
}
