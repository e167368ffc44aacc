//! From rules to classic BPF.
//!
//! System calls are laid out as intervals of equal treatment and found by binary search; only
//! calls with argument conditions get code of their own.

use std::collections::BTreeMap;

use super::table;
use crate::sys::BpfInstruction;

/// Return values of a filter (linux/seccomp.h).
pub(crate) mod action {
    pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
    pub(crate) const KILL_THREAD: u32 = 0;
    pub(crate) const TRAP: u32 = 0x0003_0000;
    pub(crate) const ERRNO: u32 = 0x0005_0000;
    pub(crate) const TRACE: u32 = 0x7ff0_0000;
    pub(crate) const LOG: u32 = 0x7ffc_0000;
    pub(crate) const ALLOW: u32 = 0x7fff_0000;

    /// Fail the call with this error number.
    pub(crate) fn errno(number: i32) -> u32 {
        ERRNO | (number.unsigned_abs() & 0xffff)
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & mask == value`.
    MaskedEqual(u64),
}

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) argument: u8,
    pub(crate) operator: Operator,
    pub(crate) value: u64,
}

/// An action under conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) action: u32,
}

/// A whole profile.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    /// For calls without a rule that holds.
    pub(crate) default: u32,
    /// By call number; the first rule that holds decides.
    pub(crate) rules: BTreeMap<u32, Vec<Rule>>,
}

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Where a comparison leads, while a rule is being laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Next,
    /// The condition holds: past its code.
    Holds,
    /// The rule does not apply: past the whole rule.
    Fails,
}

type Draft = (u16, u32, Target, Target);

fn plain(code: u16, k: u32) -> BpfInstruction {
    BpfInstruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

impl Filter {
    /// A filter with one answer for everything that has no rule.
    pub(crate) fn new(default: u32) -> Self {
        Self {
            default,
            rules: BTreeMap::new(),
        }
    }

    /// Adds a rule; a call that this machine lacks is none of its business.
    pub(crate) fn rule(&mut self, name: &str, conditions: Vec<Condition>, action: u32) {
        if let Some(number) = table::number(name) {
            self.rules
                .entry(number)
                .or_default()
                .push(Rule { conditions, action });
        }
    }

    /// The program.
    pub(crate) fn compile(&self) -> Vec<BpfInstruction> {
        let missing = action::errno(libc::ENOSYS);
        let mut out = vec![
            plain(LOAD, ARCHITECTURE),
            // Calls by another architecture's table are not offered at all.
            BpfInstruction {
                code: JUMP_EQ,
                jt: 1,
                jf: 0,
                k: NATIVE,
            },
            plain(RETURN, missing),
            plain(LOAD, NUMBER),
        ];
        // Numbers past the table (and x32's, which lie far above) are calls that did not exist
        // when the profile was written; ENOSYS lets programs fall back to older ones.
        let beyond = if self.default == action::errno(libc::EPERM) {
            missing
        } else {
            self.default
        };
        let mut intervals: Vec<(u32, Treatment<'_>)> = Vec::new();
        let last = self
            .rules
            .keys()
            .next_back()
            .copied()
            .unwrap_or(0)
            .max(table::LAST);
        for number in 0..=last {
            let treatment = match self.rules.get(&number) {
                None => Treatment::Return(self.default),
                Some(rules) => match rules.first() {
                    Some(rule) if rule.conditions.is_empty() => Treatment::Return(rule.action),
                    _ => Treatment::Rules(rules),
                },
            };
            if intervals
                .last()
                .is_none_or(|(_, before)| *before != treatment)
            {
                intervals.push((number, treatment));
            }
        }
        intervals.push((last + 1, Treatment::Return(beyond)));
        self.search(&intervals, &mut out);
        out
    }

    /// Code that finds the interval of the loaded number. `intervals` is never empty.
    fn search(&self, intervals: &[(u32, Treatment<'_>)], out: &mut Vec<BpfInstruction>) {
        if let [(_, treatment)] = intervals {
            match treatment {
                Treatment::Return(action) => out.push(plain(RETURN, *action)),
                Treatment::Rules(rules) => self.rules(rules, out),
            }
            return;
        }
        let (left, right) = intervals.split_at(intervals.len() / 2);
        let bound = right.first().map_or(0, |(number, _)| *number);
        out.push(BpfInstruction {
            code: JUMP_GE,
            jt: 0,
            jf: 1,
            k: bound,
        });
        let jump = out.len();
        out.push(plain(JUMP, 0));
        self.search(left, out);
        out[jump].k = u32::try_from(out.len() - jump - 1).unwrap_or(u32::MAX);
        self.search(right, out);
    }

    /// Code that tries one call's rules in order.
    fn rules(&self, rules: &[Rule], out: &mut Vec<BpfInstruction>) {
        for rule in rules {
            let blocks: Vec<Vec<Draft>> = rule.conditions.iter().map(draft).collect();
            let total: usize = blocks.iter().map(Vec::len).sum::<usize>() + 1;
            let mut position = 0;
            for block in blocks {
                let end = position + block.len();
                for (code, k, yes, no) in block {
                    let distance = |target| {
                        let to = match target {
                            Target::Next => position + 1,
                            Target::Holds => end,
                            Target::Fails => total,
                        };
                        // At most six conditions of five instructions each.
                        u8::try_from(to - position - 1).unwrap_or(u8::MAX)
                    };
                    out.push(BpfInstruction {
                        code,
                        jt: distance(yes),
                        jf: distance(no),
                        k,
                    });
                    position += 1;
                }
            }
            out.push(plain(RETURN, rule.action));
        }
        out.push(plain(RETURN, self.default));
    }
}

/// What happens to an interval of calls.
#[derive(PartialEq, Eq)]
enum Treatment<'a> {
    Return(u32),
    Rules(&'a [Rule]),
}

fn draft(condition: &Condition) -> Vec<Draft> {
    use Target::{Fails, Holds, Next};
    let low_at = ARGUMENTS + 8 * u32::from(condition.argument);
    let load_low = (LOAD, low_at, Next, Next);
    let load_high = (LOAD, low_at + 4, Next, Next);
    let low = (condition.value & 0xffff_ffff) as u32;
    let high = (condition.value >> 32) as u32;
    match condition.operator {
        Operator::Equal => vec![
            load_high,
            (JUMP_EQ, high, Next, Fails),
            load_low,
            (JUMP_EQ, low, Next, Fails),
        ],
        Operator::NotEqual => vec![
            load_high,
            (JUMP_EQ, high, Next, Holds),
            load_low,
            (JUMP_EQ, low, Fails, Next),
        ],
        Operator::MaskedEqual(mask) => vec![
            load_high,
            (AND, (mask >> 32) as u32, Next, Next),
            (JUMP_EQ, high, Next, Fails),
            load_low,
            (AND, (mask & 0xffff_ffff) as u32, Next, Next),
            (JUMP_EQ, low, Next, Fails),
        ],
        Operator::Greater | Operator::GreaterOrEqual => vec![
            load_high,
            (JUMP_GT, high, Holds, Next),
            (JUMP_EQ, high, Next, Fails),
            load_low,
            match condition.operator {
                Operator::Greater => (JUMP_GT, low, Next, Fails),
                _ => (JUMP_GE, low, Next, Fails),
            },
        ],
        Operator::Less | Operator::LessOrEqual => vec![
            load_high,
            (JUMP_GT, high, Fails, Next),
            (JUMP_EQ, high, Next, Holds),
            load_low,
            match condition.operator {
                Operator::Less => (JUMP_GE, low, Fails, Next),
                _ => (JUMP_GT, low, Fails, Next),
            },
        ],
    }
}
