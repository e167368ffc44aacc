//! The address families of a service, and whether its addresses agree with them.
//!
//! The services of a cluster have IPv4 addresses, from one network: what asks for more is refused as
//! the reference refuses it where it was given one network. A headless service without a selector is
//! the exception: somebody else writes its endpoints, which may be of any family.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{is_headless, needs_cluster_ip};
use crate::field::{ErrorList, FieldError};
use crate::object::{self, child, fields};
use crate::validation::{self, Cursor};

const IPV4: &str = "IPv4";
const IPV6: &str = "IPv6";
const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Fills in the families of a new service, or of one that was changed, before it gets its
/// addresses. Says what of them this cluster can't give.
pub fn settle(new: &mut Value, old: Option<&Value>) -> ErrorList {
    let mut out = ErrorList::new();
    if !needs_cluster_ip(new) || old.is_some_and(|old| still_prefers(new, old)) {
        return out;
    }
    let by_hand = is_by_hand(new);
    settle_policy(child(new, "spec"), old, by_hand);
    validate(new, &mut out);
    if !out.is_empty() {
        return out;
    }
    if let Some(old) = old {
        release(new, old, &mut out);
    }
    let at = Cursor::root(new).child("spec");
    let policy = at.text("ipFamilyPolicy").to_owned();
    if policy == SINGLE {
        for (list, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if at.list(list).len() == 2 {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are \
                     specified"
                );
                let path = at.at("ipFamilyPolicy");
                out.push(FieldError::invalid(&path, SINGLE, &detail));
            }
        }
    }
    let mut families: Vec<String> = at.texts("ipFamilies").map(str::to_owned).collect();
    infer(&at, &mut families, &mut out);
    if !out.is_empty() {
        return out;
    }
    if by_hand {
        if families.is_empty() {
            families.push(IPV4.to_owned());
        }
        if families.len() == 1 && policy != SINGLE {
            let other = if families[0] == IPV4 { IPV6 } else { IPV4 };
            families.push(other.to_owned());
        }
    } else {
        refuse_others(&at, &policy, &families, &mut out);
        if families.is_empty() {
            families.push(IPV4.to_owned());
        }
    }
    if out.is_empty() {
        fields(child(new, "spec")).insert("ipFamilies".to_owned(), json!(families));
    }
    out
}

/// Does somebody write the endpoints of a service, which has no address either?
fn is_by_hand(service: &Value) -> bool {
    let spec = Cursor::root(service).child("spec");
    let selects = spec
        .raw("selector")
        .as_object()
        .is_some_and(|it| !it.is_empty());
    spec.text("clusterIP") == "None" && !selects
}

/// Whether a service would have two families where it can, and nothing about that was changed: it
/// stays as it is then, also where the cluster has become another.
fn still_prefers(new: &Value, old: &Value) -> bool {
    let (at, before) = (
        Cursor::root(new).child("spec"),
        Cursor::root(old).child("spec"),
    );
    at.text("ipFamilyPolicy") == PREFER
        && before.text("ipFamilyPolicy") == PREFER
        && at.text("type") == before.text("type")
        && same(&at, &before, "clusterIPs")
        && same(&at, &before, "ipFamilies")
}

fn same(at: &Cursor<'_>, before: &Cursor<'_>, list: &str) -> bool {
    at.list(list) == before.list(list)
}

/// Without a word about it a service keeps its policy; a new one has one family, unless its
/// endpoints are written by hand.
fn settle_policy(spec: &mut Value, old: Option<&Value>, by_hand: bool) {
    if spec.get("ipFamilyPolicy").is_some_and(|it| !it.is_null()) {
        return;
    }
    let kept = old.and_then(|old| object::at(old, &["spec", "ipFamilyPolicy"]));
    let policy = match kept.filter(|kept| !kept.is_null()) {
        Some(kept) => kept.clone(),
        None if by_hand => REQUIRE.into(),
        None => SINGLE.into(),
    };
    fields(spec).insert("ipFamilyPolicy".to_owned(), policy);
}

/// A policy of one family lets go of the second; nothing else does.
fn release(new: &mut Value, old: &Value, out: &mut ErrorList) {
    let before = Cursor::root(old).child("spec");
    for (list, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let at = Cursor::root(new).child("spec");
        let (now, had) = (at.list(list), before.list(list));
        let policy = at.text("ipFamilyPolicy");
        if policy == SINGLE {
            if now.len() > 1 && now == had {
                let first = json!([now[0]]);
                fields(child(new, "spec")).insert(list.to_owned(), first);
            }
        } else if !now.is_empty() && now.len() < had.len() {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            let path = at.at("ipFamilyPolicy");
            out.push(FieldError::invalid(&path, policy, &detail));
        }
    }
}

/// Adds the families of addresses that were asked for.
fn infer(at: &Cursor<'_>, families: &mut Vec<String>, out: &mut ErrorList) {
    for (index, ip) in at.texts("clusterIPs").enumerate() {
        if ip == "None" {
            break;
        }
        if index < families.len() {
            continue;
        }
        if ip.contains(':') {
            out.push(FieldError::invalid(
                &at.at("clusterIPs").index(index),
                at.list("clusterIPs").to_vec(),
                "IPv6 is not configured on this cluster",
            ));
        } else {
            families.push(IPV4.to_owned());
        }
    }
}

fn refuse_others(at: &Cursor<'_>, policy: &str, families: &[String], out: &mut ErrorList) {
    if policy == REQUIRE {
        out.push(FieldError::invalid(
            &at.at("ipFamilyPolicy"),
            policy,
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (index, family) in families.iter().enumerate() {
        if family != IPV4 {
            out.push(FieldError::invalid(
                &at.at("ipFamilies").index(index),
                family.as_str(),
                "not configured on this cluster",
            ));
        }
    }
}

/// What is wrong with the addresses and families of a service, whatever the cluster can give.
pub(super) fn validate(object: &Value, out: &mut ErrorList) {
    if !needs_cluster_ip(object) {
        return;
    }
    let spec = &Cursor::root(object).child("spec");
    let list = spec.list("clusterIPs");
    let path = spec.at("clusterIPs");
    let whole = |detail: &str| FieldError::invalid(&path, list.to_vec(), detail);
    let single = spec.text("clusterIP");
    if single.is_empty() {
        if !list.is_empty() {
            out.push(whole("must be empty when `clusterIP` is not specified"));
        }
    } else if list.is_empty() {
        out.push(FieldError::required(&path, ""));
    } else if list[0] != single {
        out.push(whole("first value must match `clusterIP`"));
    }
    let mut seen = BTreeSet::new();
    for family in spec.items("ipFamilies") {
        let name = family.value.as_str().unwrap_or_default();
        if ![IPV4, IPV6].contains(&name) {
            out.push(FieldError::not_supported(&family.path, name, &[IPV4, IPV6]));
        }
        if !seen.insert(name) {
            out.push(FieldError::duplicate(&family.path, name));
        }
    }
    validation::one_of(spec, "ipFamilyPolicy", &[PREFER, REQUIRE, SINGLE], out);
    let before = out.len();
    for (index, ip) in spec.items("clusterIPs").enumerate() {
        let address = ip.value.as_str().unwrap_or_default();
        if index == 0 && address == "None" {
            if list.len() > 1 {
                out.push(whole("'None' must be the first and only value"));
            }
            continue;
        }
        validation::legacy_ip(address, &ip.path, out);
    }
    let valid = out.len() == before;
    if list.len() > 2 {
        out.push(whole("may only hold up to 2 values"));
    }
    if !valid {
        return;
    }
    let six = |value: &Value| value.as_str().is_some_and(|text| text.contains(':'));
    if list.len() > 1 && list.iter().all(|ip| six(ip) == six(&list[0])) {
        out.push(whole("may specify no more than one IP for each IP family"));
    }
    if is_headless(object) {
        return;
    }
    for (index, (ip, family)) in list.iter().zip(spec.texts("ipFamilies")).enumerate() {
        let wanted = if six(ip) { IPV6 } else { IPV4 };
        if wanted != family && [IPV4, IPV6].contains(&family) {
            out.push(FieldError::invalid(
                &path.index(index),
                ip.clone(),
                &format!("expected an {family} value as indicated by `ipFamilies[{index}]`"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        let mut service = json!({"spec": {"type": "ClusterIP", "selector": {"a": "b"}}});
        let spec = match spec {
            Value::Object(spec) => spec,
            _ => unreachable!("a map"),
        };
        fields(&mut service["spec"]).extend(spec);
        service
    }

    fn refused(spec: Value) -> Vec<String> {
        let mut new = service(spec);
        let errors = settle(&mut new, None);
        errors.iter().map(ToString::to_string).collect()
    }

    fn settled(mut new: Value, old: Option<&Value>) -> (Value, Value) {
        let errors = settle(&mut new, old);
        assert!(errors.is_empty(), "{errors:?}");
        let spec = &new["spec"];
        (spec["ipFamilyPolicy"].clone(), spec["ipFamilies"].clone())
    }

    #[test]
    fn a_second_family_is_refused() {
        assert_eq!(
            refused(json!({"ipFamilies": ["IPv6"]})),
            ["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"]
        );
        assert_eq!(
            refused(json!({"ipFamilyPolicy": "RequireDualStack"})),
            [
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not \
              configured for dual-stack services"
            ]
        );
        assert_eq!(
            refused(json!({"ipFamilies": ["IPv4", "IPv6"]})),
            [
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or \
              'PreferDualStack' when multiple IP families are specified"
            ]
        );
        assert_eq!(
            refused(json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]})),
            [
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this \
              cluster"
            ]
        );
        let both = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
            "clusterIP": "None", "clusterIPs": ["None"]});
        assert_eq!(
            refused(both),
            ["spec.ipFamilies[1]: Invalid value: \"IPv6\": not configured on this cluster"]
        );
    }

    #[test]
    fn a_service_has_one_family_unless_its_endpoints_are_written_by_hand() {
        let (policy, families) = settled(service(json!({})), None);
        assert_eq!((policy, families), (json!("SingleStack"), json!(["IPv4"])));
        let prefers = service(json!({"ipFamilyPolicy": "PreferDualStack"}));
        let (policy, families) = settled(prefers, None);
        assert_eq!(
            (policy, families),
            (json!("PreferDualStack"), json!(["IPv4"]))
        );
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
        let (policy, families) = settled(service(headless.clone()), None);
        assert_eq!((policy, families), (json!("SingleStack"), json!(["IPv4"])));
        let mut by_hand = service(headless);
        fields(&mut by_hand["spec"]).remove("selector");
        let (policy, families) = settled(by_hand.clone(), None);
        let both = json!(["IPv4", "IPv6"]);
        assert_eq!((policy, families), (json!("RequireDualStack"), both));
        by_hand["spec"]["ipFamilies"] = json!(["IPv6"]);
        let (_, families) = settled(by_hand, None);
        assert_eq!(families, json!(["IPv6", "IPv4"]));
    }

    #[test]
    fn one_family_lets_go_of_the_second() {
        let mut old = service(json!({"clusterIP": "None", "clusterIPs": ["None"],
            "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}));
        fields(&mut old["spec"]).remove("selector");
        let mut new = old.clone();
        new["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        let (policy, families) = settled(new, Some(&old));
        assert_eq!((policy, families), (json!("SingleStack"), json!(["IPv4"])));
        // A policy that nothing is said about stays.
        let mut new = old.clone();
        fields(&mut new["spec"]).remove("ipFamilyPolicy");
        let (policy, _) = settled(new, Some(&old));
        assert_eq!(policy, "RequireDualStack");
        // With a selector it would need what the cluster does not have.
        let mut new = old.clone();
        new["spec"]["selector"] = json!({"a": "b"});
        assert_eq!(settle(&mut new, Some(&old)).len(), 2);
    }

    #[test]
    fn addresses_that_do_not_agree_are_refused_at_an_update_too() {
        let old = service(
            json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}),
        );
        for (list, said) in [
            (json!(["1.1.1.1"]), "first value must match `clusterIP`"),
            (
                json!(["10.96.0.7", "10.96.0.7"]),
                "may specify no more than one IP for each IP family",
            ),
            (
                json!(["10.96.0.7", "x"]),
                "spec.clusterIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. \
                 10.9.8.7 or 2001:db8::ffff)",
            ),
        ] {
            let mut new = old.clone();
            new["spec"]["clusterIPs"] = list;
            let errors = settle(&mut new, Some(&old));
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].to_string().ends_with(said), "{errors:?}");
        }
    }
}
