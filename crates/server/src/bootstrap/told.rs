//! What the door tells others in ConfigMaps, and keeps true: how servers behind it know it
//! (`extension-apiserver-authentication`), and where the cluster is (`cluster-info`).
//!
//! The first is the reference's: what several servers tell is joined, authorities that have expired
//! go, and what somebody else has written into it goes too. The second is an administrator's as
//! soon as he has changed it, because he may name a load balancer there; it follows the door's
//! address as long as it says what a door wrote, and comes back where it is gone or says nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use evenkeel_api::row::ResourceDef;
use evenkeel_api::{Status, object};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

use crate::door::Door;
use crate::registry::Outcome;
use crate::verbs::touch_create;

const SYSTEM: &str = "kube-system";
const AUTHENTICATION: &str = "extension-apiserver-authentication";
const PUBLIC: &str = "kube-public";
const INFO: &str = "cluster-info";
/// The address that a door wrote into `cluster-info`: what is there beside it is its own.
const WRITTEN: &str = "evenkeel.io/server";
/// All is looked at again after this: authorities expire, and a write may have failed.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps both true until the door is gone. The sender tells of a door that is open.
pub(crate) async fn keep(door: tokio::sync::oneshot::Receiver<Weak<Door>>) {
    let Ok(door) = door.await else { return };
    let Some(mut changes) = door.upgrade().and_then(|door| {
        let row = maps(&door)?;
        Some(door.registry().caches.of(&row)?.subscribe())
    }) else {
        return;
    };
    // Maps of others change all the time: what these two were like when they were looked at.
    let mut seen = None;
    loop {
        changes.mark_unchanged();
        {
            let Some(door) = door.upgrade() else { return };
            let now = revisions(&door);
            if seen != Some(now) {
                let both = async {
                    authentication(&door).await?;
                    info(&door, false).await
                };
                match both.await {
                    Ok(()) => seen = Some(now),
                    Err(status) => {
                        tracing::warn!(%status.message, "what others are told can't be written");
                    }
                }
            }
        }
        match tokio::time::timeout(AGAIN, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => seen = None,
        }
    }
}

/// The revisions of both maps, where they are there.
fn revisions(door: &Arc<Door>) -> [Option<u64>; 2] {
    [(SYSTEM, AUTHENTICATION), (PUBLIC, INFO)]
        .map(|(namespace, name)| known(door, namespace, name).map(|map| map.revision))
}

fn maps(door: &Door) -> Option<Arc<ResourceDef>> {
    door.registry().rows.by_kind("", "v1", "ConfigMap").cloned()
}

/// Writes what servers behind the door must know to believe it.
pub(super) async fn authentication(door: &Arc<Door>) -> Result<(), Status> {
    let wanted = door.trust_told();
    let Some(now) = known(door, SYSTEM, AUTHENTICATION) else {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": AUTHENTICATION, "namespace": SYSTEM},
            "data": wanted,
        });
        if touch_create(door, map).await? {
            return Ok(());
        }
        return amend(door, SYSTEM, AUTHENTICATION, |value| {
            join(door, value, &wanted)
        })
        .await;
    };
    if join(door, &mut now.value(), &wanted) {
        amend(door, SYSTEM, AUTHENTICATION, |value| {
            join(door, value, &wanted)
        })
        .await?;
    }
    Ok(())
}

fn join(door: &Door, value: &mut Value, wanted: &Value) -> bool {
    let data = joined(value.get("data"), wanted, door.clock().now());
    let same = value.get("data") == Some(&data) && value.get("binaryData").is_none();
    let fields = object::fields(value);
    fields.insert("data".to_owned(), data);
    fields.remove("binaryData");
    !same
}

/// What is told by others and by this server.
fn joined(there: Option<&Value>, wanted: &Value, now: Timestamp) -> Value {
    let mut data = Map::new();
    for (key, own) in wanted.as_object().into_iter().flatten() {
        let own = own.as_str().unwrap_or_default();
        let before = there
            .and_then(|there| there.get(key)?.as_str())
            .unwrap_or_default();
        let both = if key.ends_with("-file") {
            authorities(before, own, now)
        } else {
            texts(before, own)
        };
        data.insert(key.clone(), both.into());
    }
    Value::Object(data)
}

/// The lists of two texts, each member once.
fn texts(before: &str, own: &str) -> String {
    let read = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap_or_default();
    let mut all = read(before);
    for text in read(own) {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    json!(all).to_string()
}

/// The certificates of two bundles that have not expired, each once.
fn authorities(before: &str, own: &str, now: Timestamp) -> String {
    use base64::Engine as _;
    let mut all: Vec<CertificateDer<'static>> = Vec::new();
    for bundle in [before, own] {
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten() {
            let lives = x509_parser::parse_x509_certificate(&certificate)
                .is_ok_and(|(_, it)| it.validity().not_after.timestamp() > now.as_second());
            if lives && !all.contains(&certificate) {
                all.push(certificate);
            }
        }
    }
    if all.is_empty() {
        // A bundle that nobody can use says more than none.
        return own.to_owned();
    }
    let mut text = String::new();
    for certificate in all {
        let base64 = base64::engine::general_purpose::STANDARD.encode(&certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in base64.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// What a door says of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `https://HOST:PORT`
    pub(crate) server: String,
    /// PEM of the authority, in base64.
    pub(crate) authority: String,
}

impl Place {
    /// A kubeconfig without anybody in it, as `kubeadm` writes it.
    fn kubeconfig(&self, server: &str) -> String {
        let authority = &self.authority;
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {authority}\n    \
             server: {server}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\n\
             preferences: {{}}\nusers: null\n"
        )
    }

    fn told(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": INFO, "namespace": PUBLIC,
                "annotations": {WRITTEN: self.server}},
            "data": {"kubeconfig": self.kubeconfig(&self.server)},
        })
    }

    /// Brings a map up to date; answers whether that changed it. Another server's address is left
    /// but at a start: two of them would never end.
    fn mend(&self, value: &mut Value, at_start: bool) -> bool {
        let found = object::text(value, &["data", "kubeconfig"]);
        let written = object::annotation(value, WRITTEN).unwrap_or_default();
        let is_own = !written.is_empty() && found == self.kubeconfig(written);
        let says_nothing = !has_server(found);
        let follows = at_start && is_own && written != self.server;
        if !says_nothing && !follows {
            return false;
        }
        let kubeconfig = self.kubeconfig(&self.server);
        let data = object::child(value, "data");
        object::fields(data).insert("kubeconfig".to_owned(), kubeconfig.into());
        let metadata = object::child(value, "metadata");
        let annotations = object::child(metadata, "annotations");
        object::fields(annotations).insert(WRITTEN.to_owned(), self.server.clone().into());
        true
    }
}

/// A kubeconfig that names a server.
fn has_server(kubeconfig: &str) -> bool {
    let read: Result<Value, _> = serde_saphyr::from_str(kubeconfig);
    read.is_ok_and(|read| {
        let clusters = object::list(&read, &["clusters"]);
        let server = |it: &Value| !object::text(it, &["cluster", "server"]).is_empty();
        clusters.iter().any(server)
    })
}

/// Writes where the cluster is, as far as this door has been told.
pub(super) async fn info(door: &Arc<Door>, at_start: bool) -> Result<(), Status> {
    let Some(place) = door.place.lock().clone() else {
        return Ok(());
    };
    let Some(now) = known(door, PUBLIC, INFO) else {
        if touch_create(door, place.told()).await? {
            return Ok(());
        }
        return amend(door, PUBLIC, INFO, |value| place.mend(value, at_start)).await;
    };
    if place.mend(&mut now.value(), at_start) {
        amend(door, PUBLIC, INFO, |value| place.mend(value, at_start)).await?;
    }
    Ok(())
}

fn known(door: &Door, namespace: &str, name: &str) -> Option<Arc<crate::object::Object>> {
    let row = maps(door)?;
    let cache = door.registry().caches.of(&row)?;
    cache.get(&format!("{namespace}/{name}"))
}

/// Changes a ConfigMap that is there, until the change is written or not needed any more.
async fn amend(
    door: &Arc<Door>,
    namespace: &str,
    name: &str,
    change: impl Fn(&mut Value) -> bool,
) -> Result<(), Status> {
    let row = maps(door).ok_or_else(Status::no_such_path)?;
    loop {
        let Some(seen) = door.registry().get(&row, namespace, name).await? else {
            return Ok(());
        };
        let mut value = seen.value();
        if !change(&mut value) {
            return Ok(());
        }
        match door.registry().replace(&row, &seen, value).await? {
            Outcome::Done(_) | Outcome::Stale(None) => return Ok(()),
            Outcome::Stale(Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            server: "https://192.0.2.1:6443".to_owned(),
            authority: "QQ==".to_owned(),
        }
    }

    #[test]
    fn what_several_servers_tell_is_joined() {
        assert_eq!(
            texts("[\"a\",\"b\"]", "[\"b\",\"c\"]"),
            "[\"a\",\"b\",\"c\"]"
        );
        assert_eq!(texts("no list", "[\"c\"]"), "[\"c\"]");
        let one = |name: &str| {
            let signed = rcgen::generate_simple_self_signed(vec![name.to_owned()]);
            signed.unwrap().cert.pem().replace("\r\n", "\n")
        };
        let (a, b) = (one("a"), one("b"));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let both = authorities(&a, &format!("a word\n{a}{b}"), now);
        assert_eq!(both, format!("{a}{b}"));
        // What has been joined is no change, and what is no certificate goes.
        assert_eq!(authorities(&both, &b, now), both);
        assert_eq!(authorities("nothing", &b, now), b);
        let late: Timestamp = "5000-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(authorities(&a, &b, late), b);
    }

    #[test]
    fn cluster_info_follows_until_somebody_else_writes_it() {
        let place = place();
        let mut map = place.told();
        assert!(!place.mend(&mut map, true));
        let moved = Place {
            server: "https://192.0.2.2:6443".to_owned(),
            ..place.clone()
        };
        // Only a start moves it: another server may have written it.
        assert!(!moved.mend(&mut map, false));
        assert!(moved.mend(&mut map, true));
        assert_eq!(map["metadata"]["annotations"][WRITTEN], moved.server);
        let text = map["data"]["kubeconfig"].as_str().unwrap();
        assert!(text.contains("server: https://192.0.2.2:6443\n"));
        let balanced = text.replace("192.0.2.2", "balancer");
        map["data"]["kubeconfig"] = balanced.clone().into();
        assert!(!place.mend(&mut map, true));
        assert_eq!(map["data"]["kubeconfig"], balanced);
        for nothing in ["", "{", "clusters: []"] {
            map["data"]["kubeconfig"] = nothing.into();
            assert!(place.mend(&mut map, false), "{nothing}");
            assert_eq!(
                map["data"]["kubeconfig"],
                place.told()["data"]["kubeconfig"]
            );
        }
    }
}
