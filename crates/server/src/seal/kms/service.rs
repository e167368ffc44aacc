//! The interface of a key management service: `k8s.io/kms/apis/v2` by gRPC over a Unix socket.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_grpc::{Channel, Code, GrpcError, Target};
use http::HeaderMap;
use prost::Message;

/// What is said for the version of this interface; `v2beta1` is what plugins said before it was
/// stable.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

/// How the service is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    /// `ok`, or what is wrong.
    #[prost(string, tag = "2")]
    pub(super) healthz: String,
    /// The key that encrypts now.
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
}

impl StatusResponse {
    /// What is wrong with it, apart from its key.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.healthz != "ok" {
            faults.push(format!("got unexpected healthz status: {}", self.healthz));
        }
        if !VERSIONS.contains(&self.version.as_str()) {
            faults.push(format!(
                "expected KMSv2 API version v2, got {}",
                self.version
            ));
        }
        faults
    }
}

#[derive(Clone, PartialEq, Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

/// What was encrypted, and with which key.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    /// To be kept with it, and given back.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

/// A key management service.
#[derive(Debug)]
pub(super) struct Service {
    channel: Channel,
    within: Duration,
}

impl Service {
    /// The service at an endpoint (`unix:///PATH`), which is connected to when it is asked.
    pub(super) fn new(endpoint: &str, within: Duration) -> Result<Self, String> {
        Ok(Self {
            channel: Channel::new(Target::parse(endpoint, None)?, HeaderMap::new()),
            within,
        })
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, GrpcError> {
        self.ask("Status", &StatusRequest {}).await
    }

    pub(super) async fn encrypt(&self, plaintext: &[u8]) -> Result<EncryptResponse, GrpcError> {
        let request = EncryptRequest {
            plaintext: plaintext.to_vec(),
            uid: uid(),
        };
        self.ask("Encrypt", &request).await
    }

    pub(super) async fn decrypt(
        &self,
        ciphertext: &[u8],
        key_id: &str,
        annotations: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<u8>, GrpcError> {
        let request = DecryptRequest {
            ciphertext: ciphertext.to_vec(),
            uid: uid(),
            key_id: key_id.to_owned(),
            annotations: annotations.clone(),
        };
        let answer: DecryptResponse = self.ask("Decrypt", &request).await?;
        Ok(answer.plaintext)
    }

    async fn ask<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, GrpcError> {
        let path = format!("/v2.KeyManagementService/{method}");
        let first = self.channel.unary(&path, request, self.within).await;
        match first {
            // A plugin that was started anew has closed the connection that is still held.
            Err(error) if error.unsent() => self.channel.unary(&path, request, self.within).await,
            answer => answer,
        }
    }
}

/// Whether the service has said nothing of its own: it is worth asking again.
pub(super) fn is_unreachable(error: &GrpcError) -> bool {
    match error {
        GrpcError::Status { code, .. } => {
            matches!(*code, Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED)
        }
        GrpcError::Protocol { .. } => false,
        _ => true,
    }
}

/// Names a call in the logs of both sides.
fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}
