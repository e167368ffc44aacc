//! Impersonation: somebody acts as somebody else, when he may impersonate each part of him that
//! he names: the user, service account or node, groups, extra values, UID.
//!
//! There are several ways to be allowed to (KEP 5284), tried one after the other. The constrained
//! ones ask for two rights: to impersonate such a one (`impersonate:serviceaccount`), and to do
//! what is being asked while doing so (`impersonate-on:serviceaccount:list`). The old way asks for
//! `impersonate` alone. Which one has worked last for somebody is tried first; what is told to who
//! may in none of them is what the first one said.

use std::collections::{BTreeMap, HashMap};

use evenkeel_api::field::Path;
use evenkeel_api::{Status, names, validation};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{AUTHENTICATED, Authorizer, Decision, Identity, MASTERS, UNAUTHENTICATED};
use crate::families::Families;
use crate::http::{Attributes, decode_segment};
use crate::pipeline::refusal;

const PREFIX: &str = "impersonate-";
const EXTRA: &str = "impersonate-extra-";
const ANONYMOUS: &str = "system:anonymous";
const NODE: &str = "system:node:";
const NODES: &str = "system:nodes";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// What an authorizer sees of a service account that acts as its own node: the keys of what is
/// known of it, and not the node's name.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// From so many on a right to all of them is asked for first.
const MANY: usize = 4;
/// The ways of so many users are remembered.
const REMEMBERED: usize = 10_000;

/// A way to be allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] = [
    Mode::AssociatedNode,
    Mode::ArbitraryNode,
    Mode::ServiceAccount,
    Mode::UserInfo,
    Mode::Legacy,
];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "legacy",
        }
    }

    fn verb(self) -> String {
        match self {
            Self::Legacy => "impersonate".to_owned(),
            other => format!("impersonate:{}", other.name()),
        }
    }

    /// Can this caller have that identity in this way at all?
    fn is_for(self, wanted: &Wanted, caller: &Identity) -> bool {
        let node = wanted.node();
        match self {
            Self::Legacy => true,
            Self::UserInfo => node.is_none() && wanted.account().is_none(),
            Self::ServiceAccount => wanted.is_user_alone() && wanted.account().is_some(),
            Self::ArbitraryNode => wanted.is_user_alone() && node.is_some(),
            Self::AssociatedNode => {
                let own = caller.extra.get(NODE_NAME).map(Vec::as_slice);
                wanted.is_user_alone()
                    && account(&caller.user).is_some()
                    && matches!((own, node), (Some([own]), Some(node)) if own == node)
            }
        }
    }
}

/// What the headers ask for, as it is written there.
#[derive(Debug, Default)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Do the headers ask for another identity?
pub(crate) fn acts_as_another(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

/// Namespace and name of a service account.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    let is_one =
        names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    is_one.then_some((namespace, name))
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Self {
        let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
        let mut wanted = Self {
            user: first("impersonate-user"),
            uid: first("impersonate-uid"),
            groups: headers
                .get_all("impersonate-group")
                .iter()
                .map(text)
                .collect(),
            extra: BTreeMap::new(),
        };
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix(EXTRA) {
                let values = wanted.extra.entry(decode_segment(key)).or_default();
                values.push(text(value));
            }
        }
        wanted
    }

    fn node(&self) -> Option<&str> {
        let name = self.user.strip_prefix(NODE)?;
        names::dns1123_subdomain(name).is_empty().then_some(name)
    }

    fn account(&self) -> Option<(&str, &str)> {
        account(&self.user)
    }

    fn is_user_alone(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }

    /// As the reference prints one.
    fn shown(&self) -> String {
        let list = |all: &[String]| -> String {
            let quoted: Vec<String> = all.iter().map(|text| format!("{text:?}")).collect();
            format!("[]string{{{}}}", quoted.join(", "))
        };
        let groups = match self.groups.as_slice() {
            [] => "[]string(nil)".to_owned(),
            some => list(some),
        };
        let extra = if self.extra.is_empty() {
            "map[string][]string(nil)".to_owned()
        } else {
            let each = self.extra.iter();
            let all: Vec<String> = each
                .map(|(key, values)| format!("{key:?}:{}", list(values)))
                .collect();
            format!("map[string][]string{{{}}}", all.join(", "))
        };
        format!(
            "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}",
            self.user, self.uid
        )
    }
}

/// The rights of somebody, asked for in one way.
struct Rights<'r> {
    mode: Mode,
    caller: &'r Identity,
    authorizer: &'r dyn Authorizer,
    counted: &'r Families,
}

impl Rights<'_> {
    fn may(&self, attributes: &Attributes) -> Result<(), Status> {
        let began = Instant::now();
        let decision = self.authorizer.authorize(self.caller, attributes);
        let allowed = matches!(decision, Decision::Allow(_));
        let mode = self.mode.name();
        self.counted
            .impersonation_asked(mode, allowed, began.elapsed());
        match decision {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(why) | Decision::Deny(why) => {
                Err(refusal(self.caller, attributes, &why))
            }
        }
    }

    fn no(&self, attributes: &Attributes, why: &str) -> Status {
        refusal(self.caller, attributes, why)
    }

    fn is_constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    fn part(&self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            verb: self.mode.verb(),
            resource_request: true,
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        }
    }

    /// The group of users and groups.
    fn group(&self) -> &'static str {
        if self.is_constrained() {
            AUTHENTICATION
        } else {
            ""
        }
    }

    /// May each part be taken on? Answers who comes of it.
    fn take(&self, wanted: &Wanted) -> Result<Identity, Status> {
        let mut taken = Identity {
            user: wanted.user.clone(),
            groups: wanted.groups.clone(),
            uid: wanted.uid.clone(),
            extra: wanted.extra.clone(),
        };
        let mut user = self.part(self.group(), "users", &wanted.user);
        if let Some(node) = wanted.node().filter(|_| self.is_constrained()) {
            "nodes".clone_into(&mut user.resource);
            // The caller's own node is his whichever it is.
            let any = self.mode == Mode::AssociatedNode;
            (if any { "*" } else { node }).clone_into(&mut user.name);
            taken.groups = vec![NODES.to_owned()];
        }
        if let Some((namespace, name)) = wanted.account() {
            "serviceaccounts".clone_into(&mut user.resource);
            namespace.clone_into(&mut user.namespace);
            name.clone_into(&mut user.name);
            if wanted.groups.is_empty() {
                taken.groups = Identity::service_account(namespace, name).groups;
                taken.groups.retain(|group| group != AUTHENTICATED);
            }
        }
        self.may(&user)?;
        if !wanted.uid.is_empty() {
            self.may(&self.part(AUTHENTICATION, "uids", &wanted.uid))?;
        }
        self.take_groups(&wanted.groups)?;
        self.take_extra(&wanted.extra)?;
        // Whoever is named as not authenticated stays so; otherwise a user is, and nobody is not.
        let missing = if taken.user == ANONYMOUS {
            (!taken.in_group(UNAUTHENTICATED)).then_some(UNAUTHENTICATED)
        } else {
            let said = taken.in_group(AUTHENTICATED) || taken.in_group(UNAUTHENTICATED);
            (!said).then_some(AUTHENTICATED)
        };
        taken.groups.extend(missing.map(str::to_owned));
        Ok(taken)
    }

    fn take_groups(&self, groups: &[String]) -> Result<(), Status> {
        if groups.is_empty() {
            return Ok(());
        }
        let all = |name: &str| self.part(self.group(), "groups", name);
        if self.is_constrained() {
            if groups.iter().any(String::is_empty) {
                let why = "impersonating the empty string group is not allowed";
                return Err(self.no(&all(""), why));
            }
            if groups.iter().any(|group| group == MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(self.no(&all(MASTERS), why));
            }
            if groups.len() >= MANY && self.may(&all("*")).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.may(&all(group)))
    }

    fn take_extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        if extra.is_empty() {
            return Ok(());
        }
        let part = |key: &str, value: &str| Attributes {
            subresource: key.to_owned(),
            ..self.part(AUTHENTICATION, "userextras", value)
        };
        if self.is_constrained() {
            for (key, values) in extra {
                check_extra(key, values).map_err(|why| self.no(&part("", ""), &why))?;
            }
            let values: usize = extra.values().map(Vec::len).sum();
            if extra.len().max(values) >= MANY && self.may(&part("*", "*")).is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            values
                .iter()
                .try_for_each(|value| self.may(&part(key, value)))?;
        }
        Ok(())
    }
}

/// What the constrained ways do not let through, whoever asks.
fn check_extra(key: &str, values: &[String]) -> Result<(), String> {
    if key.is_empty() {
        return Err("impersonating the empty string key in extra is not allowed".to_owned());
    }
    let mut errors = Vec::new();
    let path = Path::new("extra").child("key");
    validation::domain_prefixed_path(key, &path, &mut errors);
    if let Some(first) = errors.first() {
        return Err(format!(
            "impersonating an invalid key in extra is not allowed: {first}"
        ));
    }
    if key != key.to_lowercase() {
        return Err(format!(
            "impersonating a non-lowercase key in extra is not allowed: {key:?}"
        ));
    }
    if values.iter().any(String::is_empty) {
        return Err("impersonating the empty string value in extra is not allowed".to_owned());
    }
    Ok(())
}

/// Which way has worked last, by user.
#[derive(Debug, Default)]
pub(super) struct Ways(Mutex<HashMap<String, Mode>>);

/// Somebody else, or the caller himself.
#[derive(Debug, Clone)]
pub struct Impersonated {
    /// Who.
    pub identity: Identity,
    /// The verb of the constrained way that allowed it; empty for the old one, and for nobody else.
    pub constraint: String,
}

impl Impersonated {
    /// The caller as he is.
    #[must_use]
    pub fn himself(identity: Identity) -> Self {
        Self {
            identity,
            constraint: String::new(),
        }
    }
}

impl Ways {
    /// Takes on another identity when the headers say so and the caller may; `attributes` are
    /// those of the request that he makes as that one.
    ///
    /// # Errors
    /// 403 when the caller may not; 400 for groups, extra values or a UID without a user.
    pub(super) fn impersonate(
        &self,
        headers: &HeaderMap,
        caller: Identity,
        attributes: &Attributes,
        (authorizer, counted): (&dyn Authorizer, &Families),
    ) -> Result<Impersonated, Status> {
        if !acts_as_another(headers) {
            return Ok(Impersonated::himself(caller));
        }
        let wanted = Wanted::read(headers);
        if wanted.user.is_empty() {
            if wanted.is_user_alone() {
                return Ok(Impersonated::himself(caller));
            }
            return Err(Status::bad_request(format!(
                "requested {} without impersonating a user name",
                wanted.shown()
            )));
        }
        let last = self.0.lock().get(&caller.user).copied();
        let others = MODES.into_iter().filter(|mode| Some(*mode) != last);
        let mut first = None;
        for mode in last.into_iter().chain(others) {
            if !mode.is_for(&wanted, &caller) {
                continue;
            }
            match take(mode, &wanted, &caller, attributes, (authorizer, counted)) {
                Ok(identity) => {
                    if last != Some(mode) {
                        let mut ways = self.0.lock();
                        if ways.len() >= REMEMBERED {
                            ways.clear();
                        }
                        ways.insert(caller.user, mode);
                    }
                    let constraint = match mode {
                        Mode::Legacy => String::new(),
                        other => other.verb(),
                    };
                    return Ok(Impersonated {
                        identity,
                        constraint,
                    });
                }
                Err(status) => {
                    first.get_or_insert(status);
                }
            }
        }
        Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }
}

fn take(
    mode: Mode,
    wanted: &Wanted,
    caller: &Identity,
    attributes: &Attributes,
    (authorizer, counted): (&dyn Authorizer, &Families),
) -> Result<Identity, Status> {
    let mut seen = caller.clone();
    if mode == Mode::AssociatedNode {
        let keys = caller.extra.keys().cloned().collect();
        seen.extra = BTreeMap::from([(NODE_KEYS.to_owned(), keys)]);
    }
    let rights = Rights {
        mode,
        caller: &seen,
        authorizer,
        counted,
    };
    if rights.is_constrained() {
        rights.may(&Attributes {
            verb: format!("impersonate-on:{}:{}", mode.name(), attributes.verb),
            ..attributes.clone()
        })?;
    }
    rights.take(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allows what is listed: user, verb, resource, name.
    struct Listed(Vec<(&'static str, &'static str, &'static str)>);

    impl Authorizer for Listed {
        fn authorize(&self, _: &Identity, of: &Attributes) -> Decision {
            let resource = match of.subresource.as_str() {
                "" => of.resource.clone(),
                sub => format!("{}/{sub}", of.resource),
            };
            let asked = (of.verb.as_str(), resource.as_str(), of.name.as_str());
            let found = self.0.iter().any(|(verb, resource, name)| {
                (*verb, *resource) == (asked.0, asked.1) && (name.is_empty() || *name == asked.2)
            });
            if found {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(String::new())
            }
        }

        fn rules(&self, _: &Identity, _: &str) -> (Vec<serde_json::Value>, Vec<serde_json::Value>) {
            (Vec::new(), Vec::new())
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn listing() -> Attributes {
        Attributes {
            verb: "list".to_owned(),
            resource_request: true,
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            ..Attributes::default()
        }
    }

    fn asked(
        ways: &Ways,
        rights: &Listed,
        caller: &Identity,
        pairs: &[(&'static str, &'static str)],
    ) -> Result<Impersonated, String> {
        let rights: &dyn Authorizer = rights;
        let counted = Families::default();
        ways.impersonate(
            &headers(pairs),
            caller.clone(),
            &listing(),
            (rights, &counted),
        )
        .map_err(|status| status.message)
    }

    #[test]
    fn both_rights_are_needed() {
        let joe = Identity::user("joe", &[]);
        let jane = [("impersonate-user", "jane"), ("impersonate-group", "dev")];
        let on = ("impersonate-on:user-info:list", "pods", "");
        let user = ("impersonate:user-info", "users", "jane");
        let group = ("impersonate:user-info", "groups", "dev");
        let taken = asked(
            &Ways::default(),
            &Listed(vec![on, user, group]),
            &joe,
            &jane,
        )
        .unwrap();
        assert_eq!(taken.constraint, "impersonate:user-info");
        assert_eq!(taken.identity, Identity::user("jane", &["dev"]));
        let refused = |rights| asked(&Ways::default(), &Listed(rights), &joe, &jane).unwrap_err();
        assert_eq!(
            refused(vec![user, group]),
            "pods is forbidden: User \"joe\" cannot impersonate-on:user-info:list resource \
             \"pods\" in API group \"\" at the cluster scope"
        );
        assert_eq!(
            refused(vec![on, user]),
            "groups.authentication.k8s.io \"dev\" is forbidden: User \"joe\" cannot \
             impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at \
             the cluster scope"
        );
    }

    #[test]
    fn the_old_way_goes_on_and_is_remembered() {
        let joe = Identity::user("joe", &[]);
        let rights = Listed(vec![("impersonate", "users", "jane")]);
        let ways = Ways::default();
        let bob = [("impersonate-user", "bob")];
        // Nothing is known of him: the first way answers.
        let said = asked(&ways, &rights, &joe, &bob).unwrap_err();
        assert!(said.contains("impersonate-on:user-info:list"), "{said}");
        let taken = asked(&ways, &rights, &joe, &[("impersonate-user", "jane")]).unwrap();
        assert_eq!(taken.constraint, "");
        let said = asked(&ways, &rights, &joe, &bob).unwrap_err();
        assert_eq!(
            said,
            "users \"bob\" is forbidden: User \"joe\" cannot impersonate resource \"users\" in API \
             group \"\" at the cluster scope"
        );
    }

    #[test]
    fn nobody_becomes_a_master_in_a_constrained_way() {
        let joe = Identity::user("joe", &[]);
        let rights = Listed(vec![
            ("impersonate-on:user-info:list", "pods", ""),
            ("impersonate:user-info", "users", ""),
            ("impersonate:user-info", "groups", ""),
            ("impersonate:user-info", "userextras/*", ""),
        ]);
        let ask = |pairs: &[_]| asked(&Ways::default(), &rights, &joe, pairs);
        let said = ask(&[
            ("impersonate-user", "jane"),
            ("impersonate-group", "system:masters"),
        ]);
        let said = said.unwrap_err();
        assert!(said.contains("impersonating the system:masters group is not allowed"));
        let jane = ("impersonate-user", "jane");
        let said = ask(&[jane, ("impersonate-extra-scope", "a")]).unwrap_err();
        assert!(said.contains("must be a domain-prefixed path"), "{said}");
        // Many values are asked for at once.
        let extra = "impersonate-extra-example.org%2fscope";
        let four = ask(&[jane, (extra, "a"), (extra, "b"), (extra, "c"), (extra, "d")]).unwrap();
        assert_eq!(four.identity.extra["example.org/scope"].len(), 4);
        assert!(ask(&[jane, (extra, "a")]).is_err());
    }

    #[test]
    fn an_agent_is_the_node_that_it_runs_on() {
        let mut agent = Identity::service_account("kube-system", "agent");
        agent
            .extra
            .insert(NODE_NAME.to_owned(), vec!["n1".to_owned()]);
        let rights = Listed(vec![
            ("impersonate-on:associated-node:list", "pods", ""),
            ("impersonate:associated-node", "nodes", "*"),
        ]);
        let own = [("impersonate-user", "system:node:n1")];
        let taken = asked(&Ways::default(), &rights, &agent, &own).unwrap();
        assert_eq!(taken.constraint, "impersonate:associated-node");
        assert_eq!(taken.identity, Identity::user("system:node:n1", &[NODES]));
        let other = [("impersonate-user", "system:node:n2")];
        let said = asked(&Ways::default(), &rights, &agent, &other).unwrap_err();
        assert!(
            said.contains("impersonate-on:arbitrary-node:list"),
            "{said}"
        );
        let any = Listed(vec![
            ("impersonate-on:arbitrary-node:list", "pods", ""),
            ("impersonate:arbitrary-node", "nodes", "n2"),
        ]);
        assert!(asked(&Ways::default(), &any, &agent, &other).is_ok());
        // Who names more than the node gets it in no constrained way.
        let more = [other[0], ("impersonate-group", "dev")];
        let said = asked(&Ways::default(), &any, &agent, &more).unwrap_err();
        assert!(
            said.contains("cannot impersonate resource \"users\""),
            "{said}"
        );
    }

    #[test]
    fn an_account_has_its_groups() {
        let joe = Identity::user("joe", &[]);
        let rights = Listed(vec![
            ("impersonate-on:serviceaccount:list", "pods", ""),
            ("impersonate:serviceaccount", "serviceaccounts", "builder"),
        ]);
        let account = [("impersonate-user", "system:serviceaccount:ci:builder")];
        let taken = asked(&Ways::default(), &rights, &joe, &account).unwrap();
        assert_eq!(taken.identity, Identity::service_account("ci", "builder"));
        assert_eq!(taken.constraint, "impersonate:serviceaccount");
    }

    #[test]
    fn nobody_is_named() {
        let joe = Identity::user("joe", &[]);
        let ask = |pairs: &[_]| asked(&Ways::default(), &Listed(Vec::new()), &joe, pairs);
        let said = ask(&[
            ("impersonate-group", "dev"),
            ("impersonate-extra-a%2fb", "c"),
        ]);
        assert_eq!(
            said.unwrap_err(),
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, \
             Extra:map[string][]string{\"a/b\":[]string{\"c\"}}} without impersonating a user name"
        );
    }
}
