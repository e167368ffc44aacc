//! Pulling.
use super::Store;
use super::reference::Reference;
use crate::contract::{ImageStatus, RegistryAuth, Result, RuntimeError};
use std::sync::Arc;
pub(super) async fn pull(
    _store: Arc<Store>,
    _reference: &Reference,
    _auth: Option<RegistryAuth>,
) -> Result<ImageStatus> {
    Err(RuntimeError::Unsupported("pull".into()))
}
