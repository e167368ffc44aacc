//! Estimated costs of calls, function by function.

use super::estimate::{CostEstimate, Operand, Size};
use super::{REGEX, TRAVERSAL};
use crate::types::Type;
use crate::value::Value;

/// An estimate of a call: its own cost and the size of what it gives.
pub(super) struct CallEstimate {
    pub(super) cost: CostEstimate,
    pub(super) result: Option<Size>,
}

const fn fixed(cost: u64) -> Option<CallEstimate> {
    only(CostEstimate {
        min: cost,
        max: cost,
    })
}

const fn only(cost: CostEstimate) -> Option<CallEstimate> {
    Some(CallEstimate { cost, result: None })
}

const fn sized(cost: CostEstimate, result: Size) -> Option<CallEstimate> {
    Some(CallEstimate {
        cost,
        result: Some(result),
    })
}

fn address_comparison() -> CostEstimate {
    // Four octets or sixteen, on both sides.
    Size { min: 4, max: 16 }
        .add(Size { min: 4, max: 16 })
        .scaled(TRAVERSAL)
}

/// Kubernetes' functions; `None` leaves the call to the language's own table.
pub(super) fn call(
    function: &str,
    overload: &str,
    target: Option<&Operand>,
    args: &[Operand],
) -> Option<CallEstimate> {
    let first = args.first();
    match function {
        "check" => fixed(350_000),
        "serviceAccount"
        | "path"
        | "group"
        | "resource"
        | "subresource"
        | "namespace"
        | "name"
        | "allowed"
        | "reason"
        | "error"
        | "errored"
        | "masked"
        | "prefixLength"
        | "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast"
        | "format.named"
        | "sign"
        | "asInteger"
        | "isInteger"
        | "asApproximateFloat"
        | "isGreaterThan"
        | "isLessThan"
        | "compareTo"
        | "add"
        | "sub"
        | "major"
        | "minor"
        | "patch"
        | "getScheme"
        | "getHostname"
        | "getHost"
        | "getPort"
        | "getEscapedPath"
        | "getQuery" => fixed(1),
        "fieldSelector" | "labelSelector" => {
            let length = first?.size();
            let requirements = length.scaled(0.5).scaled(50.0);
            only(
                CostEstimate { min: 10, max: 10 }
                    .add(length.scaled(TRAVERSAL))
                    .add(requirements),
            )
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            let target = target?;
            let Some(item) = target.item() else {
                return only(target.size().scaled(TRAVERSAL));
            };
            let mut each = CostEstimate { min: 1, max: 1 };
            if matches!(item.t, Type::String | Type::Bytes) {
                each = each.add(item.size().scaled(TRAVERSAL));
            }
            only(target.size().times_cost(each))
        }
        "url" | "jsonpatch.escapeKey" => {
            let [one] = args else { return None };
            sized(one.size().scaled(TRAVERSAL), one.size())
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => {
            let size = target?.size();
            sized(size.scaled(TRAVERSAL), size)
        }
        "replace" => {
            let (size, [from, to, ..]) = (target?.size(), args) else {
                return None;
            };
            sized(
                size.scaled(2.0 * TRAVERSAL),
                replaced(size, from.size(), to.size()),
            )
        }
        "split" => {
            let size = target?.size();
            let mut max = size.max;
            if let Some(Value::Int(limit)) = args.get(1).and_then(|a| a.literal.as_ref()) {
                max = limit.cast_unsigned();
            }
            sized(size.scaled(2.0 * TRAVERSAL), Size { min: 0, max })
        }
        "join" => {
            let target = target?;
            let list = target.size();
            let mut size = target
                .item()
                .map_or(Size { min: 0, max: 0 }, |item| list.times(item.size()));
            if let Some(separator) = first {
                let gaps = Size {
                    min: list.min.saturating_sub(1),
                    max: list.max.saturating_sub(1),
                };
                size = size.add(separator.size().times(gaps));
            }
            sized(size.scaled(TRAVERSAL), size)
        }
        "find" | "findAll" => {
            let (size, pattern) = (target?.size(), first?.size());
            let subject = size.add(Size { min: 1, max: 1 }).scaled(TRAVERSAL);
            sized(
                subject.times(pattern.scaled(REGEX)),
                Size {
                    min: 0,
                    max: size.max,
                },
            )
        }
        "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            only(first?.size().scaled(TRAVERSAL))
        }
        "ip" => match first {
            Some(text) if overload != "cidr_ip" => only(text.size().scaled(TRAVERSAL)),
            _ => fixed(1),
        },
        "ip.isCanonical" => only(first?.size().scaled(2.0 * TRAVERSAL)),
        "sets.contains" | "sets.intersects" | "sets.equivalent" => {
            let [a, b] = args else { return None };
            let factor = if function == "sets.equivalent" {
                2.0
            } else {
                1.0
            };
            only(
                a.size()
                    .times(b.size())
                    .scaled(factor)
                    .add(CostEstimate { min: 1, max: 1 }),
            )
        }
        "containsIP" | "containsCIDR" => {
            target?;
            let mut cost = address_comparison();
            if function == "containsCIDR" {
                cost = cost
                    .add(Size { min: 4, max: 16 }.scaled(TRAVERSAL))
                    .add(CostEstimate { min: 1, max: 1 });
            }
            if overload.ends_with("_string") {
                cost = cost.add(first?.size().scaled(TRAVERSAL));
            }
            only(cost)
        }
        "validate" => {
            target?;
            let subject = first?.size().add(Size { min: 1, max: 1 }).scaled(TRAVERSAL);
            only(subject.times(Size { min: 0, max: 128 }.scaled(REGEX)))
        }
        "_==_" if args.len() == 2 => {
            let opaque = |t: &Type| matches!(t, Type::Opaque(..)) && t.unwrap_optional().is_none();
            if args.iter().any(|a| opaque(&a.t)) {
                fixed(1)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The size of a text after each `from` has become a `to`.
fn replaced(size: Size, from: Size, to: Size) -> Size {
    let div = |a: u64, b: u64| {
        if a == u64::MAX {
            u64::MAX
        } else {
            a.div_ceil(b)
        }
    };
    let (mut count, mut kept) = (Size { min: 0, max: 0 }, Size { min: 0, max: 0 });
    if from.min == 0 {
        // Replacing nothing puts the replacement around every character.
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = div(size.max, from.min);
    }
    if from.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = div(size.min, from.max);
    }
    count.times(to).add(kept)
}
