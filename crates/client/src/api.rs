//! Requests for objects of a kind.
//!
//! The shape of [`kube::Api`], over the same client; what comes back is read by the kind's one
//! decoder ([`Kind`]) and without managed fields, which no loop reads. For objects whose kind is
//! known only at run time there is [`kube::Api`].

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use either::Either;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::{DeleteParams, GetParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::core::{ObjectList, Request, Status, TypeMeta};
use serde::{Deserialize, Serialize};

use crate::kind::{Decode, JsonError, Kind};
use crate::view::{RawList, without_managed_fields};
use crate::{Client, errors};

type Built = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

/// The objects of a kind, of all namespaces or of one.
pub struct Api<K> {
    client: Client,
    request: Request,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            request: self.request.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> Debug for Api<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl<K: Kind> Api<K> {
    fn new(client: Client, namespace: Option<&str>) -> Self {
        Self {
            client,
            request: Request::new(K::url_path(&(), namespace)),
            kind: PhantomData,
        }
    }

    /// Of all namespaces, or of a kind that has none.
    #[must_use]
    pub fn all(client: Client) -> Self {
        Self::new(client, None)
    }

    /// Of one namespace.
    #[must_use]
    pub fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        Self::new(client, Some(namespace))
    }

    /// One object.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking; 404 too.
    pub async fn get(&self, name: &str) -> Result<K, kube::Error> {
        read(&self.client, self.request.get(name, &GetParams::default())).await
    }

    /// One object, or that there is none.
    ///
    /// # Errors
    /// As [`Api::get`], but for 404.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, kube::Error> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if errors::is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A list, or a page of one.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn list(&self, params: &ListParams) -> Result<ObjectList<K>, kube::Error> {
        let text = text(&self.client, self.request.list(params)).await?;
        let list = decode_list(&text).map_err(kube::Error::SerdeError)?;
        Ok(list)
    }

    /// Makes an object; the answer is how it is kept.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn create(&self, params: &PostParams, object: &K) -> Result<K, kube::Error> {
        let body = encode(object)?;
        read(&self.client, self.request.create(params, body)).await
    }

    /// Makes an object. The answer is not read: for those who have no use for how it is kept.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn create_unread(&self, params: &PostParams, object: &K) -> Result<(), kube::Error> {
        let body = encode(object)?;
        text(&self.client, self.request.create(params, body))
            .await
            .map(drop)
    }

    /// Writes an object as a whole.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn replace(
        &self,
        name: &str,
        params: &PostParams,
        object: &K,
    ) -> Result<K, kube::Error> {
        let body = encode(object)?;
        read(&self.client, self.request.replace(name, params, body)).await
    }

    /// Writes what a subresource of the same type holds, such as `status`.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn replace_subresource(
        &self,
        subresource: &str,
        name: &str,
        params: &PostParams,
        object: &K,
    ) -> Result<K, kube::Error> {
        let body = encode(object)?;
        let request = self
            .request
            .replace_subresource(subresource, name, params, body);
        read(&self.client, request).await
    }

    /// Writes the status.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn replace_status(
        &self,
        name: &str,
        params: &PostParams,
        object: &K,
    ) -> Result<K, kube::Error> {
        self.replace_subresource("status", name, params, object)
            .await
    }

    /// Changes an object.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn patch<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<K, kube::Error> {
        read(&self.client, self.request.patch(name, params, patch)).await
    }

    /// Changes an object. The answer is not read, as with [`Api::create_unread`].
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn patch_unread<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<(), kube::Error> {
        text(&self.client, self.request.patch(name, params, patch))
            .await
            .map(drop)
    }

    /// Changes the status.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn patch_status<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<K, kube::Error> {
        self.patch_subresource("status", name, params, patch).await
    }

    /// Changes what a subresource of the same type holds.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn patch_subresource<P: Serialize + Debug>(
        &self,
        subresource: &str,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<K, kube::Error> {
        let request = self
            .request
            .patch_subresource(subresource, name, params, patch);
        read(&self.client, request).await
    }

    /// Deletes an object. The answer is the object while it waits for something, and a status when
    /// it is gone.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn delete(
        &self,
        name: &str,
        params: &DeleteParams,
    ) -> Result<Either<K, Status>, kube::Error> {
        let text = text(&self.client, self.request.delete(name, params)).await?;
        let answer = match status_in(&text) {
            Some(status) => status.map(Either::Right),
            None => K::decode(&without_managed_fields(&text)).map(Either::Left),
        };
        answer.map_err(kube::Error::SerdeError)
    }

    /// Writes another type to a subresource, such as a binding. The answer is a text of JSON.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn post_subresource(
        &self,
        subresource: &str,
        name: &str,
        body: Vec<u8>,
    ) -> Result<String, kube::Error> {
        let params = PostParams::default();
        let request = self
            .request
            .create_subresource(subresource, name, &params, body);
        text(&self.client, request).await
    }

    /// Asks for a pod's eviction, which budgets may refuse (429).
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn evict(&self, name: &str, options: &DeleteParams) -> Result<(), kube::Error> {
        let body = serde_json::json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name},
            "deleteOptions": options,
        });
        let body = body.to_string().into_bytes();
        self.post_subresource("eviction", name, body)
            .await
            .map(drop)
    }

    /// The text of a pod's log.
    ///
    /// # Errors
    /// What the door answers, and what is in the way of asking.
    pub async fn logs(&self, name: &str, params: &LogParams) -> Result<String, kube::Error> {
        text(&self.client, self.request.logs(name, params)).await
    }
}

async fn read<K: Decode>(client: &Client, request: Built) -> Result<K, kube::Error> {
    let text = text(client, request).await?;
    K::decode(&without_managed_fields(&text)).map_err(kube::Error::SerdeError)
}

async fn text(client: &Client, request: Built) -> Result<String, kube::Error> {
    let request = request.map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await
}

fn encode<K: Kind>(object: &K) -> Result<Vec<u8>, kube::Error> {
    object.encode().map_err(kube::Error::SerdeError)
}

/// The status that a text is, if it is one.
fn status_in(text: &str) -> Option<Result<Status, JsonError>> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        kind: Option<std::borrow::Cow<'a, str>>,
    }
    let head: Head<'_> = serde_json::from_str(text).ok()?;
    (head.kind.as_deref() == Some("Status")).then(|| serde_json::from_str(text))
}

/// Reads a list.
fn decode_list<K: Decode + Clone>(text: &str) -> Result<ObjectList<K>, JsonError> {
    let text = without_managed_fields(text);
    let list: RawList<'_> = serde_json::from_str(&text)?;
    let items = list.items.unwrap_or_default();
    Ok(ObjectList {
        types: TypeMeta::default(),
        metadata: list.metadata,
        items: items
            .into_iter()
            .map(|item| K::decode(item.get()))
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests;
