//! From a pod's specification to what the runtime is told: environment, name resolution, hosts
//! file, limits and security.
//!
//! Pure. What has to be fetched or written is handed in or handed back; nothing here waits.

pub mod container;
pub mod dns;
pub mod env;
pub mod expand;
pub mod fields;
pub mod hosts;
pub mod resources;
pub mod security;
pub mod service_env;
