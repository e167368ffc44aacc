//! A node without certificates: with a token it asks for one to come with, and with that for one
//! to serve with. Both are kept in the data directory and asked for anew before they end.
//!
//! Nothing here decides who may have them: the cluster approves and signs.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_client::Api;
use evenkeel_server::pki::join::{self, lives};
use evenkeel_server::pki::{Leaf, LeafSpec};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use crate::kubeconfig;

/// A request is answered by then.
const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a request.
const PAUSE: Duration = Duration::from_millis(300);
/// Who signs what an agent comes with.
const CLIENT: (&str, &str) = ("kubernetes.io/kube-apiserver-client-kubelet", "client auth");
/// Who signs what it serves with.
const SERVING: (&str, &str) = ("kubernetes.io/kubelet-serving", "server auth");

/// With what a machine comes that has no certificate.
#[derive(Debug, Clone)]
pub(crate) struct Invitation {
    /// URL of the API server.
    pub(crate) server: String,
    /// The token.
    pub(crate) token: String,
    /// How the cluster is recognized.
    pub(crate) authority: Authority,
}

/// How the cluster is recognized.
#[derive(Debug, Clone)]
pub(crate) enum Authority {
    /// By its authority, PEM.
    Pem(String),
    /// By hashes of the authority's public key.
    Hashes(Vec<String>),
}

/// Host and port of an API server's URL.
pub(crate) fn place(server: &str) -> anyhow::Result<(String, u16)> {
    let url: http::Uri = server
        .parse()
        .with_context(|| format!("--server {server:?} is no URL"))?;
    anyhow::ensure!(
        url.scheme_str() == Some("https"),
        "--server {server:?}: expected https://HOST:PORT"
    );
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    anyhow::ensure!(!host.is_empty(), "--server {server:?} names no host");
    Ok((host.to_owned(), url.port_u16().unwrap_or(443)))
}

/// The address by which this machine reaches a server.
pub(crate) fn own_address(server: &str) -> anyhow::Result<Ipv4Addr> {
    let (host, port) = place(server)?;
    // No packet is sent: the kernel only looks up the way.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
    let found = socket
        .connect((host.as_str(), port))
        .and_then(|()| socket.local_addr());
    match found {
        Ok(std::net::SocketAddr::V4(found)) if !found.ip().is_loopback() => Ok(*found.ip()),
        Ok(found) => anyhow::bail!(
            "this machine reaches {host} from {}, where nobody reaches it; give an address with \
             --node-ip",
            found.ip()
        ),
        Err(error) => {
            Err(anyhow::Error::new(error).context(format!("no way to {host}; give --node-ip")))
        }
    }
}

impl Invitation {
    /// The cluster's authority, PEM. Nothing secret is said before it is known.
    async fn authority(&self) -> anyhow::Result<String> {
        match &self.authority {
            Authority::Pem(pem) => Ok(pem.clone()),
            Authority::Hashes(hashes) => {
                let (host, port) = place(&self.server)?;
                Ok(join::authority(&host, port, hashes).await?)
            }
        }
    }

    async fn client(&self, ca: &str) -> anyhow::Result<Client> {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "join",
            "clusters": [{"name": "join", "cluster": {"server": self.server,
                "certificate-authority-data": STANDARD.encode(ca)}}],
            "users": [{"name": "join", "user": {"token": self.token}}],
            "contexts": [{"name": "join", "context": {"cluster": "join", "user": "join"}}],
        });
        let found: Kubeconfig = serde_json::from_value(text)?;
        let config = Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }
}

/// Asks for a certificate and waits for it.
async fn ask(
    client: &Client,
    (signer, usage): (&str, &str),
    spec: &LeafSpec,
) -> anyhow::Result<Leaf> {
    let (pem, key) = join::ask(spec)?;
    let wanted = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some("node-csr-".to_owned()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let made = api
        .create(&PostParams::default(), &wanted)
        .await
        .context("the API server refuses the certificate request")?;
    let name = made.metadata.name.unwrap_or_default();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < WITHIN {
        let status = api.get(&name).await?.status.unwrap_or_default();
        if let Some(certificate) = status.certificate.filter(|found| !found.0.is_empty()) {
            let certificate = String::from_utf8(certificate.0).context("the certificate")?;
            return Ok(Leaf { certificate, key });
        }
        for condition in status.conditions.into_iter().flatten() {
            anyhow::ensure!(
                !matches!(condition.type_.as_str(), "Denied" | "Failed"),
                "certificate request {name} is {}: {}",
                condition.type_,
                condition.message.unwrap_or_default()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!(
        "certificate request {name} is not answered; a person may: kubectl certificate approve {name}"
    )
}

fn agent(name: &str) -> LeafSpec {
    LeafSpec {
        common_name: format!("system:node:{name}"),
        organizations: vec!["system:nodes".to_owned()],
        ..LeafSpec::default()
    }
}

/// Writes a kubeconfig of this node's, by a token.
pub(crate) async fn with_token(
    path: &Path,
    name: &str,
    invitation: &Invitation,
) -> anyhow::Result<()> {
    let ca = invitation.authority().await?;
    let client = invitation.client(&ca).await?;
    let leaf = ask(&client, CLIENT, &agent(name)).await?;
    kubeconfig::write(path, &kubeconfig::render(&invitation.server, &ca, &leaf))
}

/// Asks for another certificate with the one there is, and writes it in its place.
pub(crate) async fn again(
    path: &Path,
    name: &str,
    client: &Client,
    server: &str,
    ca: &str,
) -> anyhow::Result<()> {
    let leaf = ask(client, CLIENT, &agent(name)).await?;
    kubeconfig::write(path, &kubeconfig::render(server, ca, &leaf))
}

/// Makes the node's object, unless it is there.
async fn announce(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(anyhow::Error::new(error).context("the node can't register")),
    }
}

/// What the node serves with: kept, or asked for when it is not there or ends soon. The cluster
/// signs for addresses that the node has said.
pub(crate) async fn serving(
    directory: &Path,
    client: &Client,
    name: &str,
    address: Ipv4Addr,
    now: Timestamp,
) -> anyhow::Result<Leaf> {
    let (certificate, key) = (directory.join("serving.crt"), directory.join("serving.key"));
    if let (Ok(certificate), Ok(key)) = (
        std::fs::read_to_string(&certificate),
        std::fs::read_to_string(&key),
    ) {
        let leaf = Leaf { certificate, key };
        if !ends_soon(&leaf, now) {
            return Ok(leaf);
        }
    }
    // The cluster signs for a node that is there, and for addresses that it has.
    announce(client, name).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let said = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": address.to_string()},
        {"type": "Hostname", "address": name},
    ]}});
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Strategic(&said))
        .await
        .context("the node can't say its address")?;
    let spec = LeafSpec {
        dns_names: vec![name.to_owned()],
        addresses: vec![address.into()],
        ..agent(name)
    };
    let leaf = ask(client, SERVING, &spec).await?;
    kubeconfig::write(&key, &leaf.key)?;
    kubeconfig::write(&certificate, &leaf.certificate)?;
    Ok(leaf)
}

/// Is less than a third of its life left?
pub(crate) fn ends_soon(leaf: &Leaf, now: Timestamp) -> bool {
    renew_at(leaf).is_none_or(|at| at <= now)
}

/// When a third of its life is left.
fn renew_at(leaf: &Leaf) -> Option<Timestamp> {
    let (start, end) = lives(&leaf.certificate)?;
    let life: SignedDuration = end.duration_since(start);
    end.checked_sub(life / 3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_https_urls() {
        assert_eq!(
            place("https://10.0.0.1:6443").unwrap(),
            ("10.0.0.1".to_owned(), 6443)
        );
        assert_eq!(
            place("https://api.example.org").unwrap(),
            ("api.example.org".to_owned(), 443)
        );
        assert_eq!(
            place("https://[2001:db8::1]:6443/").unwrap(),
            ("2001:db8::1".to_owned(), 6443)
        );
        for wrong in ["", "10.0.0.1:6443", "http://10.0.0.1:6443"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
        let local = own_address("https://127.0.0.1:6443")
            .unwrap_err()
            .to_string();
        assert!(local.contains("give an address with --node-ip"), "{local}");
    }

    #[test]
    fn what_is_no_certificate_is_asked_for_anew() {
        let leaf = Leaf {
            certificate: "x".to_owned(),
            key: String::new(),
        };
        assert!(ends_soon(&leaf, Timestamp::from_second(1).unwrap()));
    }
}
