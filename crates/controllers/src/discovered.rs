//! The resources the door serves, as loops that work on all kinds see them.

use evenkeel_client::{Client, errors};
use kube::Discovery;
use kube::discovery::Scope;

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group, empty for the core.
    pub group: String,
    /// The version worked with.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Lives in namespaces.
    pub namespaced: bool,
    /// Verbs it supports.
    pub verbs: Vec<String>,
    /// It has a scale.
    pub scales: bool,
}

impl Resource {
    /// It supports all of these verbs.
    #[must_use]
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs
            .iter()
            .all(|verb| self.verbs.iter().any(|found| found == verb))
    }

    /// Path of the collection, in one namespace or over all.
    #[must_use]
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            format!("{root}/namespaces/{namespace}/{}", self.plural)
        } else {
            format!("{root}/{}", self.plural)
        }
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Asks the door for everything it serves: in two requests where it can, group by group where it
/// cannot. Each kind once, in its most stable version.
///
/// # Errors
/// When discovery fails, also of a single group: acting on half a list would leave things behind.
pub async fn discover(client: &Client) -> Result<Vec<Resource>, kube::Error> {
    let whole = Discovery::new(client.clone()).run_aggregated().await;
    let found = match whole {
        Ok(found) if found.has_group("") => found,
        Ok(_) => Discovery::new(client.clone()).run().await?,
        Err(error) => {
            let error = errors::message(&error);
            tracing::debug!(error, "no aggregated discovery, asking group by group");
            Discovery::new(client.clone()).run().await?
        }
    };
    let mut resources = Vec::new();
    for group in found.groups() {
        for (resource, able) in group.resources_by_stability() {
            resources.push(Resource {
                group: resource.group,
                version: resource.version,
                kind: resource.kind,
                plural: resource.plural,
                namespaced: able.scope == Scope::Namespaced,
                scales: able
                    .subresources
                    .iter()
                    .any(|(sub, _)| sub.plural.ends_with("scale")),
                verbs: able.operations,
            });
        }
    }
    resources.sort();
    resources.dedup();
    Ok(resources)
}

/// The versions of groups, `GROUP/VERSION`, whose servers do not answer: what they have may be
/// more than discovery shows.
///
/// # Errors
/// When discovery fails.
pub async fn stale(client: &Client) -> Result<Vec<String>, kube::Error> {
    const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = http::Request::get("/apis")
        .header(http::header::ACCEPT, ACCEPT)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    let all: serde_json::Value = client.request(request).await?;
    let list = |value: &serde_json::Value, name: &str| {
        let items = value[name].as_array();
        items.cloned().unwrap_or_default()
    };
    let mut found = Vec::new();
    for group in list(&all, "items") {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in list(&group, "versions") {
            if version["freshness"] == "Stale" {
                let version = version["version"].as_str().unwrap_or_default();
                found.push(format!("{name}/{version}"));
            }
        }
    }
    Ok(found)
}
