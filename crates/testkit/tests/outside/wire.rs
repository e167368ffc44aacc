//! The door on a real socket, and plain HTTP/1.1 over TLS to it.

use std::sync::Arc;

use evenkeel_server::listen;
use evenkeel_server::pki::{Leaf, LeafSpec};
use evenkeel_testkit::Cluster;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The door on loopback.
pub(crate) struct Wire {
    pub(crate) port: u16,
    ca: String,
    _stop: DropGuard,
}

impl Wire {
    pub(crate) async fn open(cluster: &Cluster) -> Self {
        let pki = cluster.pki();
        let now = cluster.the_door().clock().now();
        let spec = LeafSpec {
            name: "wire".to_owned(),
            common_name: "kube-apiserver".to_owned(),
            dns_names: vec!["localhost".to_owned()],
            server: true,
            ..LeafSpec::default()
        };
        let leaf = pki.issue(&spec, now).unwrap();
        let tls = pki.door_config(&leaf, pki.front_proxy_ca()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        tokio::spawn(listen::serve(
            Arc::clone(cluster.the_door()),
            listener,
            listen::shared_tls(tls),
            stop.clone(),
        ));
        Self {
            port,
            ca: pki.ca().to_owned(),
            _stop: stop.drop_guard(),
        }
    }

    /// A connection of somebody.
    pub(crate) async fn connect(&self, leaf: Option<&Leaf>) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap()
    }

    /// Sends a request and reads the whole answer: code and text.
    pub(crate) async fn ask(
        &self,
        leaf: Option<&Leaf>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut stream = self.connect(leaf).await;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let request = format!("{head}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        // A server may close without the last word of TLS.
        drop(tokio::time::timeout(super::BOUND, reading).await.unwrap());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }
}
