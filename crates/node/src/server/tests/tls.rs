//! A CA, a node that serves with its certificate, and clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::fake::FakeNode;
use crate::server::{Judge, MastersOnly, NodeServer};

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub(crate) struct TestNode {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    ca: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn issue(issuer: &Issuer<'static, KeyPair>, name: &str, group: Option<&str>) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    let certificate = params.signed_by(&key, issuer).unwrap();
    (
        certificate.der().clone(),
        PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    )
}

impl TestNode {
    /// Serves a fake node on loopback, to masters.
    pub(crate) async fn start(node: Arc<FakeNode>) -> Self {
        Self::judged(node, MastersOnly).await
    }

    /// Serves it to whom a judge lets in.
    pub(crate) async fn judged(node: Arc<FakeNode>, judge: impl Judge) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let (certificate, key) = issue(&issuer, "system:node:n", Some("system:nodes"));
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = NodeServer::new(node, Arc::new(judge), shutdown.clone());
        tokio::spawn(async move { server.serve(listener, Arc::new(tls)).await });
        Self {
            address,
            shutdown,
            ca,
            issuer,
        }
    }

    /// Connects with a certificate for the names, or without one.
    pub(crate) async fn connect(
        &self,
        names: Option<(&str, Option<&str>)>,
        alpn: &[u8],
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match names {
            Some((name, group)) => {
                let (certificate, key) = issue(&self.issuer, name, group);
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// Connects as the API server.
    pub(crate) async fn connect_as_api_server(&self) -> TlsStream<TcpStream> {
        self.connect(Some(("system:kube-apiserver", None)), b"http/1.1")
            .await
    }
}
