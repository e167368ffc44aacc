//! Flow schemas and priority levels, as `pkg/apis/flowcontrol` of the reference.
//!
//! The four objects that are mandatory (`exempt` and `catch-all` of both kinds) have a fixed
//! content; it is here so that it can be checked and made.

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError, Path};
use crate::object::{self, child, default_field, fields};
use crate::row::Strategy;
use crate::validation::{self, Cursor};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// Shuffle sharding has a hash of so many bits.
const HASH_BITS: u32 = 60;
const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];
const SUBJECTS: [(&str, &str); 3] = [
    ("Group", "group"),
    ("ServiceAccount", "serviceAccount"),
    ("User", "user"),
];

/// What flow schemas do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlowSchemas;

/// What priority levels do beyond their row.
#[derive(Debug, Clone, Copy, Default)]
pub struct PriorityLevels;

/// The fixed spec of a mandatory flow schema.
#[must_use]
pub fn mandatory_schema(name: &str) -> Option<Value> {
    let everything = |groups: &[&str]| {
        json!([{
            "subjects": groups.iter()
                .map(|group| json!({"kind": "Group", "group": {"name": group}}))
                .collect::<Vec<_>>(),
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    Some(match name {
        "exempt" => json!({
            "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1,
            "rules": everything(&["system:masters"]),
        }),
        "catch-all" => json!({
            "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 10_000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": everything(&["system:unauthenticated", "system:authenticated"]),
        }),
        _ => return None,
    })
}

/// The fixed spec of a mandatory priority level.
#[must_use]
pub fn mandatory_level(name: &str) -> Option<Value> {
    Some(match name {
        "exempt" => json!({
            "type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
        }),
        "catch-all" => json!({
            "type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}},
        }),
        _ => return None,
    })
}

fn conditions(object: &Value, out: &mut ErrorList) {
    let mut seen = Vec::new();
    for condition in Cursor::root(object).child("status").items("conditions") {
        let kind = condition.text("type");
        if seen.contains(&kind) {
            out.push(FieldError::duplicate(&condition.at("type"), kind));
        }
        seen.push(kind);
        validation::required(&condition, "type", out);
    }
}

impl Strategy for FlowSchemas {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        if spec
            .get("matchingPrecedence")
            .and_then(Value::as_i64)
            .unwrap_or(0)
            == 0
        {
            fields(spec).insert("matchingPrecedence".to_owned(), 1000.into());
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        let name = object::name(object);
        schema_spec(name, &spec, &mut out);
        if let Some(fixed) = mandatory_schema(name)
            && *spec.value != fixed
        {
            out.push(FieldError::invalid(
                &spec.path,
                spec.value.clone(),
                &format!("spec of '{name}' must equal the fixed value"),
            ));
        }
        conditions(object, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        conditions(new, &mut out);
        out
    }
}

fn schema_spec(name: &str, spec: &Cursor<'_>, out: &mut ErrorList) {
    let precedence = spec.number("matchingPrecedence");
    let mut wrong = |detail: &str| {
        out.push(FieldError::invalid(
            &spec.at("matchingPrecedence"),
            precedence,
            detail,
        ));
    };
    if precedence <= 0 {
        wrong("must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        wrong(&format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != "exempt" {
        wrong("only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.get("distinguisherMethod")
        && !matches!(method.text("type"), "ByNamespace" | "ByUser")
    {
        out.push(FieldError::not_supported_shown(
            &method.at("type"),
            &format!("{{\"Type\":{}}}", method.raw("type")),
            &["ByNamespace", "ByUser"],
        ));
    }
    let level = spec.child("priorityLevelConfiguration");
    if level.text("name").is_empty() {
        out.push(FieldError::required(
            &level.at("name"),
            "must reference a priority level",
        ));
    } else {
        validation::dns_subdomain(level.text("name"), &level.at("name"), out);
    }
    spec.items("rules").for_each(|rule| self::rule(&rule, out));
}

fn rule(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.list("subjects").is_empty() {
        out.push(FieldError::required(
            &at.at("subjects"),
            "subjects must contain at least one value",
        ));
    }
    for subject in at.items("subjects") {
        self::subject(&subject, out);
    }
    if at.list("resourceRules").is_empty() && at.list("nonResourceRules").is_empty() {
        out.push(FieldError::required(
            &at.path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        ));
    }
    for rule in at.items("resourceRules") {
        verbs(&rule, out);
        all_or_some(&rule, "apiGroups", "api group", out);
        all_or_some(&rule, "resources", "resource", out);
        namespaces(&rule, out);
    }
    for rule in at.items("nonResourceRules") {
        verbs(&rule, out);
        paths(&rule, out);
    }
}

fn subject(at: &Cursor<'_>, out: &mut ErrorList) {
    let kind = at.text("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        let allowed = SUBJECTS.map(|(kind, _)| kind);
        out.push(FieldError::not_supported(&at.at("kind"), kind, &allowed));
        return;
    };
    let who = at.child(own);
    if who.value.is_null() {
        out.push(FieldError::required(
            &who.path,
            &format!("{own} is required when subject kind is '{kind}'"),
        ));
    } else {
        subject_name(kind, &who, out);
    }
    for (other, field) in SUBJECTS.iter().filter(|(other, _)| *other != kind) {
        if at.has(field) {
            out.push(FieldError::forbidden(
                &at.at(field),
                &format!("{field} is forbidden when subject kind is not '{other}'"),
            ));
        }
    }
}

fn subject_name(kind: &str, who: &Cursor<'_>, out: &mut ErrorList) {
    let name = who.text("name");
    if name.is_empty() {
        out.push(FieldError::required(&who.at("name"), ""));
    } else if kind == "ServiceAccount" && name != "*" {
        validation::dns_subdomain(name, &who.at("name"), out);
    }
    if kind != "ServiceAccount" {
        return;
    }
    if who.text("namespace").is_empty() {
        out.push(FieldError::required(
            &who.at("namespace"),
            "must specify namespace for service account",
        ));
    } else {
        validation::dns_label(who.text("namespace"), &who.at("namespace"), out);
    }
}

fn lone_wildcard(at: &Cursor<'_>, name: &str, others: &str, out: &mut ErrorList) -> bool {
    let all = at.texts(name).any(|item| item == "*");
    if all && at.list(name).len() > 1 {
        out.push(FieldError::invalid(
            &at.at(name),
            at.raw(name).clone(),
            &format!("if '*' is present, must not specify other {others}"),
        ));
    }
    all
}

fn verbs(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.list("verbs").is_empty() {
        out.push(FieldError::required(
            &at.at("verbs"),
            "verbs must contain at least one value",
        ));
    } else if !lone_wildcard(at, "verbs", "verbs", out)
        && !at.texts("verbs").all(|verb| VERBS.contains(&verb))
    {
        let shown = at.raw("verbs").clone();
        out.push(FieldError::not_supported(&at.at("verbs"), shown, &VERBS));
    }
}

fn all_or_some(at: &Cursor<'_>, name: &str, what: &str, out: &mut ErrorList) {
    if at.list(name).is_empty() {
        out.push(FieldError::required(
            &at.at(name),
            &format!("resource rules must supply at least one {what}"),
        ));
    } else {
        lone_wildcard(at, name, &format!("{what}s"), out);
    }
}

fn namespaces(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.list("namespaces").is_empty() {
        if !at.is_true("clusterScope") {
            out.push(FieldError::required(
                &at.at("namespaces"),
                "resource rules that are not cluster scoped must supply at least one namespace",
            ));
        }
        return;
    }
    if lone_wildcard(at, "namespaces", "namespaces", out) {
        return;
    }
    for namespace in at.items("namespaces") {
        let name = namespace.value.as_str().unwrap_or_default();
        for wrong in crate::names::dns1123_label(name) {
            out.push(FieldError::invalid(
                &namespace.path,
                name,
                &format!("each member of this list must be '*' or a DNS-1123 label; {wrong}"),
            ));
        }
    }
}

fn paths(at: &Cursor<'_>, out: &mut ErrorList) {
    if at.list("nonResourceURLs").is_empty() {
        out.push(FieldError::required(
            &at.at("nonResourceURLs"),
            "nonResourceURLs must contain at least one value",
        ));
        return;
    }
    if lone_wildcard(at, "nonResourceURLs", "non-resource URLs", out) {
        return;
    }
    for item in at.items("nonResourceURLs") {
        url_path(item.value.as_str().unwrap_or_default(), &item.path, out);
    }
}

fn url_path(path: &str, at: &Path, out: &mut ErrorList) {
    let wildcards = path.matches('*').count();
    let wrong = if path.is_empty() {
        "must not be empty"
    } else if path == "/" {
        return;
    } else if !path.starts_with('/') {
        "must start with slash"
    } else if path.contains(' ') {
        "must not contain white-space"
    } else if path.contains("//") {
        "must not contain double slash"
    } else if wildcards > 1 || (wildcards == 1 && !path.ends_with("/*")) {
        "wildcard can only do suffix matching"
    } else {
        return;
    };
    out.push(FieldError::invalid(at, path, wrong));
}

impl Strategy for PriorityLevels {
    fn defaults(&self, object: &mut Value) {
        let spec = child(object, "spec");
        if let Some(exempt) = spec.get_mut("exempt").filter(|at| at.is_object()) {
            default_field(exempt, "nominalConcurrencyShares", 0);
            default_field(exempt, "lendablePercent", 0);
        }
        let Some(limited) = spec.get_mut("limited").filter(|at| at.is_object()) else {
            return;
        };
        default_field(limited, "nominalConcurrencyShares", 30);
        default_field(limited, "lendablePercent", 0);
        let queuing = limited
            .get_mut("limitResponse")
            .and_then(|response| response.get_mut("queuing"))
            .filter(|at| at.is_object());
        if let Some(queuing) = queuing {
            for (name, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if queuing.get(name).and_then(Value::as_i64).unwrap_or(0) == 0 {
                    fields(queuing).insert(name.to_owned(), value.into());
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::clear_status(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep_status(new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        let spec = Cursor::root(object).child("spec");
        let name = object::name(object);
        level_spec(name, &spec, &mut out);
        fixed_level(name, &spec, &mut out);
        conditions(object, &mut out);
        out
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> ErrorList {
        let mut out = ErrorList::new();
        conditions(new, &mut out);
        out
    }
}

fn fixed_level(name: &str, spec: &Cursor<'_>, out: &mut ErrorList) {
    let Some(mut fixed) = mandatory_level(name) else {
        return;
    };
    let mut but = "";
    if name == "exempt" {
        but = " except the 'spec.exempt' field";
        object::set_or_remove(
            fields(&mut fixed),
            "exempt",
            spec.value.get("exempt").cloned(),
        );
    }
    if *spec.value != fixed {
        out.push(FieldError::invalid(
            &spec.path,
            spec.value.clone(),
            &format!("spec of '{name}'{but} must equal the fixed value"),
        ));
    }
}

fn level_spec(name: &str, spec: &Cursor<'_>, out: &mut ErrorList) {
    let kind = spec.text("type");
    if (name == "exempt") != (kind == "Exempt") {
        out.push(FieldError::invalid(
            &spec.at("type"),
            kind,
            "must be 'Exempt' if and only if `name` is 'exempt'",
        ));
    }
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                out.push(FieldError::forbidden(&spec.at("limited"), ""));
            }
            shares(&spec.child("exempt"), out);
        }
        "Limited" => {
            if spec.has("exempt") {
                out.push(FieldError::forbidden(&spec.at("exempt"), ""));
            }
            match spec.get("limited") {
                Some(limited) => self::limited(&limited, out),
                None => out.push(FieldError::required(&spec.at("limited"), "")),
            }
        }
        "" => out.push(FieldError::required(&spec.at("type"), "")),
        other => out.push(FieldError::not_supported(
            &spec.at("type"),
            other,
            &["Exempt", "Limited"],
        )),
    }
}

fn shares(at: &Cursor<'_>, out: &mut ErrorList) {
    let shares = at.number("nominalConcurrencyShares");
    if shares < 0 {
        out.push(FieldError::invalid(
            &at.at("nominalConcurrencyShares"),
            shares,
            "must be a non-negative integer",
        ));
    }
    let lent = at.number("lendablePercent");
    if !(0..=100).contains(&lent) {
        out.push(FieldError::invalid(
            &at.at("lendablePercent"),
            lent,
            "must be between 0 and 100, inclusive",
        ));
    }
}

fn limited(at: &Cursor<'_>, out: &mut ErrorList) {
    shares(at, out);
    let response = at.child("limitResponse");
    match response.text("type") {
        "Reject" => {
            if response.has("queuing") {
                out.push(FieldError::forbidden(&response.at("queuing"), ""));
            }
        }
        "Queue" => match response.get("queuing") {
            Some(queuing) => self::queuing(&queuing, out),
            None => out.push(FieldError::required(
                &response.at("queuing"),
                "must not be empty if limited.limitResponse.type is Limited",
            )),
        },
        "" => out.push(FieldError::required(&response.at("type"), "")),
        other => out.push(FieldError::not_supported(
            &response.at("type"),
            other,
            &["Queue", "Reject"],
        )),
    }
    let borrowed = at.number("borrowingLimitPercent");
    if borrowed < 0 {
        out.push(FieldError::invalid(
            &at.at("borrowingLimitPercent"),
            borrowed,
            "if specified, must be a non-negative integer",
        ));
    }
}

fn queuing(at: &Cursor<'_>, out: &mut ErrorList) {
    let (length, queues, hand) = (
        at.number("queueLengthLimit"),
        at.number("queues"),
        at.number("handSize"),
    );
    let mut wrong = |name: &str, value: i64, detail: &str| {
        out.push(FieldError::invalid(&at.at(name), value, detail));
    };
    if length <= 0 {
        wrong("queueLengthLimit", length, "must be positive");
    }
    if queues <= 0 {
        wrong("queues", queues, "must be positive");
    } else if queues > QUEUES_MAX {
        let told = format!("must not be greater than {QUEUES_MAX}");
        wrong("queues", queues, &told);
    }
    if hand <= 0 {
        wrong("handSize", hand, "must be positive");
    } else if hand > queues {
        let told = format!("should not be greater than queues ({queues})");
        wrong("handSize", hand, &told);
    } else if entropy_bits(queues, hand) > HASH_BITS {
        let told = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater \
             than {HASH_BITS}"
        );
        wrong("handSize", hand, &told);
    }
}

/// The bits of hash that dealing a hand from a deck takes, in the reference's slightly generous
/// reckoning.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of at most eight digits; the reference reckons so too"
)]
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    ((deck as f64).log2() * hand as f64).ceil() as u32
}
