//! What a device has that several can have parts of: capacities with the rules by which requests take
//! them (KEP-5075), counters (KEP-4815), and the conditions under which it is bound (KEP-5007).

use serde_json::Value;

use super::{at_most, distinct};
use crate::field::{ErrorList, FieldError, Path};
use crate::quantity::Quantity;
use crate::validation::{self, Cursor};

const VALUES_MAX: usize = 10;
const COUNTER_SETS_MAX: usize = 8;
const CONSUMPTIONS_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;
const CONDITIONS_MAX: usize = 4;

fn quantity(value: &Value) -> Quantity {
    let text = value.as_str().map(str::to_owned);
    let text = text.unwrap_or_else(|| value.to_string());
    text.parse().unwrap_or_default()
}

fn wrong(path: &Path, value: &Quantity, why: &str, out: &mut ErrorList) {
    out.push(FieldError::invalid(path, value.to_string(), why));
}

/// Checks how requests may take a capacity of a device; `shared`: several claims may have it.
pub(super) fn capacity(at: &Cursor<'_>, shared: bool, out: &mut ErrorList) {
    let Some(policy) = at.get("requestPolicy") else {
        return;
    };
    if !shared {
        let text = "allowMultipleAllocations must be true";
        out.push(FieldError::forbidden(&policy.path, text));
        return;
    }
    let most = quantity(at.raw("value"));
    let values = policy.list("validValues");
    let range = policy.get("validRange");
    let name = match (values.is_empty(), range.is_some()) {
        (false, true) => {
            out.push(FieldError::forbidden(
                &policy.path,
                "exactly one policy can be specified, cannot specify \"validValues\" and \
                 \"validRange\" at the same time",
            ));
            return;
        }
        (false, false) => "validValues",
        (true, true) => "validRange",
        (true, false) => return,
    };
    if !policy.has("default") {
        let text = format!("required when {name} is defined");
        out.push(FieldError::required(&policy.at("default"), &text));
        return;
    }
    let default = quantity(policy.raw("default"));
    match range {
        Some(range) => self::range(&range, &default, &most, out),
        None => self::values(&policy, &default, &most, out),
    }
}

fn values(policy: &Cursor<'_>, default: &Quantity, most: &Quantity, out: &mut ErrorList) {
    let all: Vec<Quantity> = policy.list("validValues").iter().map(quantity).collect();
    let path = policy.at("validValues");
    for (at, pair) in all.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let text = "values must be sorted in ascending order";
            wrong(&path.index(at + 1), &pair[1], text, out);
        }
    }
    if all.len() > VALUES_MAX {
        out.push(FieldError::too_many(&path, all.len(), VALUES_MAX));
    } else {
        for (at, option) in all.iter().enumerate() {
            if option > most {
                let text = format!("option is larger than capacity value: {most}");
                wrong(&path.index(at), option, &text, out);
            }
        }
        let units = |at: &Cursor<'_>| quantity(at.value).units().to_string();
        distinct(policy.items("validValues"), units, out);
    }
    if !all.contains(default) || all.len() > VALUES_MAX {
        let text = "default value is not valid according to the requestPolicy";
        wrong(&path, default, text, out);
    }
}

fn range(at: &Cursor<'_>, default: &Quantity, most: &Quantity, out: &mut ErrorList) {
    let read = |name: &str| at.get(name).map(|found| quantity(found.value));
    let Some(least) = read("min") else {
        let text = "required when validRange is defined";
        out.push(FieldError::required(&at.at("min"), text));
        return;
    };
    let (max, step) = (read("max"), read("step"));
    // With fractions all are reckoned with in thousandths.
    let bounds = [Some(&least), max.as_ref(), step.as_ref()];
    let fractions = bounds.into_iter().flatten().any(|it| !it.is_integer());
    if fractions {
        let all = ["default", "min", "max", "step"].into_iter();
        let known = [Some(default), Some(&least), max.as_ref(), step.as_ref()];
        let before = out.len();
        for (name, value) in all.zip(known) {
            if let Some(value) = value.filter(|value| value.exact_milli().is_none()) {
                let text = "value cannot be represented as a milli value";
                wrong(&at.at(name), value, text, out);
            }
        }
        if out.len() > before {
            return;
        }
    }
    if least > *most {
        let text = format!("min is larger than capacity value: {most}");
        wrong(&at.at("min"), &least, &text, out);
    }
    if *default < least {
        let text = format!("default is less than min: {least}");
        wrong(&at.at("min"), default, &text, out);
    }
    if let Some(max) = &max {
        if least > *max {
            let text = format!("min is larger than max: {max}");
            wrong(&at.at("max"), &least, &text, out);
        }
        if max > most {
            let text = format!("max is larger than capacity value: {most}");
            wrong(&at.at("max"), max, &text, out);
        }
        if default > max {
            let text = format!("default is more than max: {max}");
            wrong(&at.at("max"), default, &text, out);
        }
    }
    let Some(step) = step else { return };
    let path = at.at("step");
    let first = least.plus(&step);
    if first > *most {
        let text = format!("one step {first} is larger than capacity value: {most}");
        wrong(&path, &step, &text, out);
    }
    let number = |it: &Quantity| if fractions { it.milli() } else { it.units() };
    if number(&step) <= 0 {
        // The reference divides by it.
        wrong(&path, &step, "must be greater than zero", out);
        return;
    }
    for value in std::iter::once(default).chain(&max) {
        let over = i128::from(number(value)) - i128::from(number(&least));
        if over % i128::from(number(&step)) != 0 {
            let text = format!("value is not a multiple of a given step ({step}) from ({least})");
            wrong(&path, value, &text, out);
        }
    }
}

/// Checks a map of counters.
fn counters(at: &Cursor<'_>, out: &mut ErrorList) {
    let path = at.at("counters");
    let count = at.entries("counters").count();
    if count == 0 {
        out.push(FieldError::required(&path, ""));
    } else if count > COUNTERS_MAX {
        out.push(FieldError::too_many(&path, count, COUNTERS_MAX));
    } else {
        for (name, _) in at.entries("counters") {
            validation::dns_label(name, &path.key(name), out);
        }
    }
}

fn named(at: &Cursor<'_>, name: &str, out: &mut ErrorList) {
    if at.text(name).is_empty() {
        out.push(FieldError::required(&at.at(name), ""));
    } else {
        validation::dns_label(at.text(name), &at.at(name), out);
    }
}

/// Checks one of the lists of sets of counters, those of a slice or those that a device takes from.
fn sets(at: &Cursor<'_>, list: &str, name: &'static str, most: usize, out: &mut ErrorList) {
    if at.list(list).len() > most {
        at_most(at, list, most, out);
        return;
    }
    for set in at.items(list) {
        named(&set, name, out);
        counters(&set, out);
    }
    distinct(at.items(list), |set| set.text(name).to_owned(), out);
}

/// Checks the counters that a slice has.
pub(super) fn shared_counters(spec: &Cursor<'_>, out: &mut ErrorList) {
    sets(spec, "sharedCounters", "name", COUNTER_SETS_MAX, out);
}

/// Checks the counters that a device takes from.
pub(super) fn consumed_counters(device: &Cursor<'_>, out: &mut ErrorList) {
    sets(
        device,
        "consumesCounters",
        "counterSet",
        CONSUMPTIONS_MAX,
        out,
    );
}

/// Checks the conditions under which a device is bound, and those under which it never will be.
pub(super) fn binding(at: &Cursor<'_>, out: &mut ErrorList) {
    let (good, bad) = ("bindingConditions", "bindingFailureConditions");
    for list in [good, bad] {
        if at.list(list).len() > CONDITIONS_MAX {
            at_most(at, list, CONDITIONS_MAX, out);
            continue;
        }
        for name in at.items(list) {
            validation::label_name(name.value.as_str().unwrap_or_default(), &name.path, out);
        }
    }
    let text = |item: &Cursor<'_>| item.value.as_str().unwrap_or_default().to_owned();
    distinct(at.items(good), text, out);
    distinct(at.items(bad), text, out);
    for name in at.items(bad) {
        if at.list(good).contains(name.value) {
            out.push(FieldError::invalid(
                &name.path,
                name.value.clone(),
                "bindingFailureConditions must not overlap with bindingConditions",
            ));
        }
    }
    let (some, others) = (!at.list(good).is_empty(), !at.list(bad).is_empty());
    let missing = match (some, others) {
        (false, true) => Some((good, bad)),
        (true, false) => Some((bad, good)),
        _ => None,
    };
    if let Some((missing, there)) = missing {
        let text = format!("{missing} are required to use {there}");
        out.push(FieldError::invalid_shown(&at.at(missing), "null", &text));
    }
}
