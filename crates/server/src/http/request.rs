//! What a request wants, read from its method and path.
//!
//! The rules are those of the reference's `RequestInfo`: they decide what is authorized, so they
//! stand apart from routing.

use http::Method;

use super::query::{Query, decode_segment};

/// What authorization and admission are told about a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create` … or the lower-case method of a non-resource request.
    pub verb: String,
    /// Is it about a resource?
    pub resource_request: bool,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace; empty for cluster scope and all namespaces.
    pub namespace: String,
    /// Object name; empty for collections.
    pub name: String,
    /// The label selector of a list, watch or deletion of a collection, as it came.
    pub label_selector: String,
    /// And the field selector.
    pub field_selector: String,
    /// The path as it came.
    pub path: String,
    /// Is it an old path of watches, `/api/v1/watch/pods`?
    pub old_watch: bool,
    /// Segments behind the subresource (proxy paths).
    pub rest: Vec<String>,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A resource, collection or subresource.
    Resource,
    /// Anything else: health, version, discovery, metrics.
    Other,
}

impl Attributes {
    /// Reads method, path and query.
    #[must_use]
    pub fn of(method: &Method, path: &str, query: &Query) -> Self {
        let segments: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(decode_segment)
            .collect();
        let mut attributes = Self {
            verb: method.as_str().to_lowercase(),
            path: path.to_owned(),
            ..Self::default()
        };
        let mut rest = match segments.first().map(String::as_str) {
            Some("api") if segments.len() >= 3 => {
                attributes.version.clone_from(&segments[1]);
                &segments[2..]
            }
            Some("apis") if segments.len() >= 4 => {
                attributes.group.clone_from(&segments[1]);
                attributes.version.clone_from(&segments[2]);
                &segments[3..]
            }
            _ => return attributes,
        };
        attributes.resource_request = true;
        // The old paths of watches: `/api/v1/watch/pods`.
        let watched = match rest {
            [watch, more @ ..]
                if watch == "watch" && !more.is_empty() && *method == Method::GET =>
            {
                rest = more;
                true
            }
            _ => false,
        };
        match rest {
            [namespaces, namespace, more @ ..] if namespaces == "namespaces" => {
                attributes.namespace.clone_from(namespace);
                // `namespaces/NAME`, and its own subresources, are about the namespace itself.
                let own = matches!(more, [sub] if sub == "status" || sub == "finalize");
                if !more.is_empty() && !own {
                    rest = more;
                }
            }
            _ => {}
        }
        let mut parts = rest.iter();
        attributes.resource = parts.next().cloned().unwrap_or_default();
        attributes.name = parts.next().cloned().unwrap_or_default();
        attributes.subresource = parts.next().cloned().unwrap_or_default();
        attributes.rest = parts.cloned().collect();
        attributes.old_watch = watched;
        attributes.set_verb(method, query, watched);
        attributes
    }

    fn set_verb(&mut self, method: &Method, query: &Query, watched: bool) {
        let collection = self.name.is_empty();
        let verb = match *method {
            Method::POST => "create",
            Method::GET if watched => "watch",
            Method::GET | Method::HEAD if collection && query.flag("watch") => "watch",
            Method::GET | Method::HEAD if collection => "list",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if collection => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        };
        self.verb = verb.to_owned();
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            query
                .get("labelSelector")
                .clone_into(&mut self.label_selector);
            query
                .get("fieldSelector")
                .clone_into(&mut self.field_selector);
        }
        // A list or watch of one name, given as a field selector, counts as being about it.
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection")
            && collection
            && let Some(name) = query
                .get("fieldSelector")
                .split(',')
                .find_map(|term| term.strip_prefix("metadata.name="))
        {
            self.name = name.trim_start_matches('=').to_owned();
        }
    }

    /// Resource or something else?
    #[must_use]
    pub fn target(&self) -> Target {
        if self.resource_request {
            Target::Resource
        } else {
            Target::Other
        }
    }

    /// `pods` or `deployments.apps`.
    #[must_use]
    pub fn group_resource(&self) -> String {
        evenkeel_api::status::group_resource(&self.group, &self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, url: &str) -> Attributes {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        Attributes::of(&method, path, &Query::parse(query))
    }

    /// (method, path, verb, group, namespace, resource, subresource, name)
    type Case = (&'static str, &'static str, [&'static str; 6]);

    #[test]
    fn paths_are_read_as_the_reference_reads_them() {
        let cases: &[Case] = &[
            (
                "GET",
                "/api/v1/namespaces",
                ["list", "", "", "namespaces", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a",
                ["get", "", "a", "namespaces", "", "a"],
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                ["update", "", "a", "namespaces", "finalize", "a"],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods",
                ["list", "", "a", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods?watch=true",
                ["watch", "", "a", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/pods?watch=0",
                ["list", "", "", "pods", "", ""],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                ["get", "", "a", "pods", "log", "p"],
            ),
            (
                "POST",
                "/apis/apps/v1/namespaces/a/deployments",
                ["create", "apps", "a", "deployments", "", ""],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                ["deletecollection", "apps", "a", "deployments", "", ""],
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                ["patch", "apps", "a", "deployments", "scale", "d"],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p?watch=true",
                ["get", "", "a", "pods", "", "p"],
            ),
            (
                "GET",
                "/api/v1/watch/pods",
                ["watch", "", "", "pods", "", ""],
            ),
            (
                "GET",
                "/apis/apps/v1/watch/namespaces/a/deployments/d",
                ["watch", "apps", "a", "deployments", "", "d"],
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a",
                ["watch", "", "a", "namespaces", "", "a"],
            ),
            (
                "GET",
                "/api/v1/pods?fieldSelector=metadata.name%3Dx",
                ["list", "", "", "pods", "", "x"],
            ),
        ];
        for (method, url, [verb, group, namespace, resource, subresource, name]) in cases {
            let found = of(method, url);
            assert!(found.resource_request, "{url}");
            assert_eq!(
                [
                    &found.verb,
                    &found.group,
                    &found.namespace,
                    &found.resource,
                    &found.subresource,
                    &found.name
                ],
                [verb, group, namespace, resource, subresource, name],
                "{method} {url}"
            );
        }
        for path in [
            "/healthz",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/",
        ] {
            assert!(!of("GET", path).resource_request, "{path}");
        }
    }
}
