//! Audit policies (`audit.k8s.io/v1`): which requests are recorded, how much of them, and at which
//! stages.

use std::path::Path as FilePath;

use evenkeel_api::field::{ErrorList, FieldError, Path};
use evenkeel_api::{names, object};
use serde_json::Value;

use super::AuditError;
use super::event::{Level, Stage};
use crate::auth::Identity;
use crate::http::Attributes;

/// What is recorded.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// How one request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) level: Level,
    /// Bits by [`Stage::bit`].
    omitted: u8,
    pub(super) omit_managed_fields: bool,
}

impl Record {
    fn new(level: Level, omitted: &[Stage], omit_managed_fields: bool) -> Self {
        Self {
            level,
            omitted: omitted.iter().fold(0, |bits, stage| bits | stage.bit()),
            omit_managed_fields,
        }
    }

    pub(super) fn omits(self, stage: Stage) -> bool {
        self.omitted & stage.bit() != 0
    }
}

const POLICY_FIELDS: [&str; 6] = [
    "apiVersion",
    "kind",
    "metadata",
    "rules",
    "omitStages",
    "omitManagedFields",
];
const RULE_FIELDS: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];

/// Collects what is wrong, and where.
#[derive(Default)]
struct Reader {
    errors: ErrorList,
    /// Fields that mean nothing, as paths.
    unknown: Vec<String>,
}

impl Reader {
    fn texts(&mut self, value: &Value, at: &Path, name: &str) -> Vec<String> {
        let here = at.child(name);
        let list = match value.get(name) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                let wrong = FieldError::type_invalid(&here, other.clone(), "must be a list");
                self.errors.push(wrong);
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for (index, item) in list.iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text.clone()),
                other => self.errors.push(FieldError::type_invalid(
                    &here.index(index),
                    other.clone(),
                    "must be a string",
                )),
            }
        }
        texts
    }

    fn flag(&mut self, value: &Value, at: &Path, name: &str) -> Option<bool> {
        match value.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(other) => {
                let wrong =
                    FieldError::type_invalid(&at.child(name), other.clone(), "must be a boolean");
                self.errors.push(wrong);
                None
            }
        }
    }

    fn stages(&mut self, value: &Value, at: &Path) -> Vec<Stage> {
        let here = at.child("omitStages");
        let texts = self.texts(value, at, "omitStages");
        let mut stages = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match Stage::parse(text) {
                Some(stage) => stages.push(stage),
                None => self.errors.push(FieldError::invalid(
                    &here.index(index),
                    text.as_str(),
                    "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
                )),
            }
        }
        stages
    }

    fn known(&mut self, value: &Value, at: &Path, known: &[&str]) {
        for name in value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            if !known.contains(&name.as_str()) {
                self.unknown.push(at.child(name).to_string());
            }
        }
    }

    fn rule(&mut self, value: &Value, at: &Path, all: &[Stage], managed: bool) -> Rule {
        self.known(value, at, &RULE_FIELDS);
        let level = object::text(value, &["level"]);
        let level = Level::parse(level).unwrap_or_else(|| {
            let here = at.child("level");
            let levels = ["Metadata", "None", "Request", "RequestResponse"];
            self.errors.push(if level.is_empty() {
                FieldError::required(&here, "")
            } else {
                FieldError::not_supported(&here, level, &levels)
            });
            Level::None
        });
        let paths = self.texts(value, at, "nonResourceURLs");
        self.check_paths(&paths, &at.child("nonResourceURLs"));
        let resources = self.resources(value, at);
        let namespaces = self.texts(value, at, "namespaces");
        let about_resources = !resources.is_empty() || !namespaces.is_empty();
        if about_resources && !paths.is_empty() {
            self.errors.push(FieldError::invalid(
                &at.child("nonResourceURLs"),
                paths.clone(),
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        let mut omit_stages = self.stages(value, at);
        omit_stages.extend_from_slice(all);
        Rule {
            level,
            users: self.texts(value, at, "users"),
            groups: self.texts(value, at, "userGroups"),
            verbs: self.texts(value, at, "verbs"),
            resources,
            namespaces,
            paths,
            omit_stages,
            omit_managed_fields: self.flag(value, at, "omitManagedFields").unwrap_or(managed),
        }
    }

    fn check_paths(&mut self, paths: &[String], at: &Path) {
        for (index, path) in paths.iter().enumerate().filter(|(_, path)| *path != "*") {
            let mut wrong = |why: &str| {
                let error = FieldError::invalid(&at.index(index), path.as_str(), why);
                self.errors.push(error);
            };
            if !path.starts_with('/') {
                wrong("non-resource URL rules must begin with a '/' character");
            }
            let mut letters = path.chars();
            letters.next_back();
            if letters.any(|letter| letter == '*') {
                wrong("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
    }

    fn resources(&mut self, value: &Value, at: &Path) -> Vec<GroupResources> {
        let mut found = Vec::new();
        for (index, item) in object::list(value, &["resources"]).iter().enumerate() {
            let at = at.child("resources").index(index);
            self.known(item, &at, &["group", "resources", "resourceNames"]);
            let group = object::text(item, &["group"]).to_owned();
            if !group.is_empty() && group != "*" {
                let wrong = names::dns1123_subdomain(&group);
                if !wrong.is_empty() {
                    let why = wrong.join(",");
                    self.errors.push(FieldError::invalid(
                        &at.child("group"),
                        group.as_str(),
                        &why,
                    ));
                }
            }
            let resources = self.texts(item, &at, "resources");
            let names = self.texts(item, &at, "resourceNames");
            if !names.is_empty() && resources.is_empty() {
                self.errors.push(FieldError::invalid(
                    &at.child("resourceNames"),
                    names.clone(),
                    "using resourceNames requires at least one resource",
                ));
            }
            found.push(GroupResources {
                group,
                resources,
                names,
            });
        }
        found
    }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// It can't be read, or says something that can't be done; the place is named.
    pub(super) fn load(path: &FilePath) -> Result<Self, AuditError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| AuditError::Policy(path.to_owned(), error.to_string()))?;
        Self::read(&text).map_err(|why| AuditError::Policy(path.to_owned(), why))
    }

    /// Reads a policy. Fields that mean nothing are named in the log and passed over, as by the
    /// reference.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let value: Value = serde_saphyr::from_str(text).map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.strip_prefix("error: ").unwrap_or(first).to_owned()
        })?;
        let said = |name: &str| object::text(&value, &[name]).to_owned();
        let (version, kind) = (said("apiVersion"), said("kind"));
        if version != "audit.k8s.io/v1" {
            return Err(format!(
                "apiVersion: must be audit.k8s.io/v1, not {version:?}"
            ));
        }
        if kind != "Policy" {
            return Err(format!("kind: must be Policy, not {kind:?}"));
        }
        let mut reader = Reader::default();
        let root = Path::root();
        reader.known(&value, &root, &POLICY_FIELDS);
        let omit_stages = reader.stages(&value, &root);
        let omit_managed_fields = reader
            .flag(&value, &root, "omitManagedFields")
            .unwrap_or(false);
        let at = Path::new("rules");
        let rules: Vec<Rule> = match value.get("rules") {
            Some(Value::Array(rules)) => rules
                .iter()
                .enumerate()
                .map(|(index, rule)| {
                    reader.rule(rule, &at.index(index), &omit_stages, omit_managed_fields)
                })
                .collect(),
            _ => Vec::new(),
        };
        if !reader.errors.is_empty() {
            let texts: Vec<String> = reader.errors.iter().map(ToString::to_string).collect();
            return Err(texts.join("; "));
        }
        if rules.is_empty() {
            return Err("rules: there must be one at least".to_owned());
        }
        if !reader.unknown.is_empty() {
            let fields = reader.unknown.join(", ");
            tracing::warn!(fields, "the audit policy has fields that mean nothing");
        }
        Ok(Self {
            rules,
            omit_stages,
            omit_managed_fields,
        })
    }

    /// How a request is recorded: by the first rule that matches, or not at all. `None`: nobody
    /// knows who asks.
    pub(super) fn record(&self, identity: Option<&Identity>, attributes: &Attributes) -> Record {
        let found = self
            .rules
            .iter()
            .find(|rule| rule.matches(identity, attributes));
        match found {
            Some(rule) => Record::new(rule.level, &rule.omit_stages, rule.omit_managed_fields),
            None => Record::new(Level::None, &self.omit_stages, self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn matches(&self, identity: Option<&Identity>, attributes: &Attributes) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|one| one == text);
        let by_user = self.users.is_empty()
            || identity.is_some_and(|identity| has(&self.users, &identity.user));
        let by_group = self.groups.is_empty()
            || identity.is_some_and(|identity| {
                identity.groups.iter().any(|group| has(&self.groups, group))
            });
        if !by_user || !by_group || !(self.verbs.is_empty() || has(&self.verbs, &attributes.verb)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return attributes.resource_request
                && (self.namespaces.is_empty() || has(&self.namespaces, &attributes.namespace))
                && (self.resources.is_empty()
                    || self.resources.iter().any(|group| group.matches(attributes)));
        }
        if self.paths.is_empty() {
            return true;
        }
        let path = attributes.path.as_str();
        !attributes.resource_request
            && self.paths.iter().any(|spec| {
                spec == path
                    || spec
                        .strip_suffix('*')
                        .is_some_and(|prefix| path.starts_with(prefix))
            })
    }
}

impl GroupResources {
    fn matches(&self, attributes: &Attributes) -> bool {
        let Attributes {
            group,
            resource,
            subresource,
            name,
            ..
        } = attributes;
        if self.group != "*" && self.group != *group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !self.names.contains(name) {
            return false;
        }
        self.resources.iter().any(|spec| {
            if spec == "*" {
                return true;
            }
            match spec.split_once('/') {
                None => subresource.is_empty() && spec == resource,
                // `pods/*` is about pods themselves too.
                Some((of, "*")) => of == resource,
                Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
                Some((of, sub)) => of == resource && sub == subresource,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::http::Query;

    fn asks(method: &Method, url: &str) -> Attributes {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        Attributes::of(method, path, &Query::parse(query))
    }

    fn policy(rules: &str) -> Result<Policy, String> {
        Policy::read(&format!(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}"
        ))
    }

    #[test]
    fn the_first_rule_that_matches_says_how_much() {
        let policy = policy(
            r#"
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: Metadata
  omitStages: [Panic]
  resources:
  - {group: "", resources: [secrets, configmaps]}
  - {group: authentication.k8s.io, resources: [tokenreviews]}
- level: Request
  userGroups: ["dev"]
  namespaces: [shop, ""]
- level: RequestResponse
  omitManagedFields: true
  resources:
  - {group: "", resources: ["pods/*", "*/scale"], resourceNames: []}
  - {group: apps, resources: [deployments], resourceNames: [one]}
- level: Metadata
  nonResourceURLs: ["/version", "/healthz*"]
"#,
        )
        .unwrap();
        let proxy = Identity::user("system:kube-proxy", &[]);
        let dev = Identity::user("ann", &["dev"]);
        let other = Identity::user("bob", &[]);
        let level = |who: &Identity, method: Method, url: &str| {
            policy.record(Some(who), &asks(&method, url)).level
        };
        use Level::{Metadata, None, Request, RequestResponse};
        let get = || Method::GET;
        assert_eq!(level(&proxy, get(), "/api/v1/services?watch=1"), None);
        assert_eq!(
            level(&proxy, get(), "/api/v1/namespaces/shop/secrets/x"),
            Metadata
        );
        assert_eq!(level(&dev, get(), "/api/v1/namespaces/shop/pods"), Request);
        assert_eq!(
            level(&dev, get(), "/api/v1/nodes"),
            Request,
            "no namespace is \"\""
        );
        assert_eq!(
            level(&dev, get(), "/api/v1/namespaces/other/services"),
            None
        );
        assert_eq!(
            level(&other, get(), "/api/v1/namespaces/a/pods/x/log"),
            RequestResponse
        );
        assert_eq!(
            level(&other, get(), "/api/v1/namespaces/a/pods/x"),
            RequestResponse
        );
        let named = "/apis/apps/v1/namespaces/a/deployments/";
        assert_eq!(
            level(&other, get(), &format!("{named}one")),
            RequestResponse
        );
        assert_eq!(level(&other, get(), &format!("{named}two")), None);
        assert_eq!(level(&other, get(), "/healthz/etcd"), Metadata);
        assert_eq!(level(&other, get(), "/version/"), None);
        let record = policy.record(Some(&other), &asks(&get(), "/api/v1/namespaces/a/secrets"));
        assert!(record.omits(Stage::RequestReceived) && record.omits(Stage::Panic));
        assert!(!record.omits(Stage::ResponseComplete));
        // Nobody knows who asks: rules about users don't match.
        let record = policy.record(
            Option::None,
            &asks(&get(), "/api/v1/namespaces/shop/services"),
        );
        assert_eq!(record.level, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let why = |rules: &str| policy(rules).unwrap_err();
        for (rules, expected) in [
            ("rules: []", "rules: there must be one at least"),
            ("rules: [{}]", "rules[0].level: Required value"),
            (
                "rules: [{level: Metadata}, {level: All}]",
                "rules[1].level: Unsupported value: \"All\": supported values: \"Metadata\", \
                 \"None\", \"Request\", \"RequestResponse\"",
            ),
            (
                "rules: [{level: Metadata, nonResourceURLs: [version]}]",
                "rules[0].nonResourceURLs[0]: Invalid value: \"version\": non-resource URL rules \
                 must begin with a '/' character",
            ),
            (
                "rules: [{level: Metadata, nonResourceURLs: [/a], namespaces: [b]}]",
                "rules cannot apply to both regular resources and non-resource URLs",
            ),
            (
                "rules: [{level: Metadata, resources: [{group: apps/v1}]}]",
                "rules[0].resources[0].group: Invalid value: \"apps/v1\"",
            ),
            (
                "rules: [{level: Metadata}]\nomitStages: [Never]",
                "omitStages[0]: Invalid value: \"Never\": allowed stages are",
            ),
            (
                "rules: [{level: Metadata, users: ann}]",
                "rules[0].users: Invalid value: \"ann\": must be a list",
            ),
        ] {
            let found = why(rules);
            assert!(found.contains(expected), "{rules}\n{found}");
        }
        let other = Policy::read("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\n").unwrap_err();
        assert!(other.contains("apiVersion"), "{other}");
        assert!(Policy::read("rules: [").unwrap_err().contains("line"));
    }
}
