//! The one door: TLS, authentication, authorization, admission, registry, watch cache, discovery
//! and OpenAPI.
//!
//! Every read and write of cluster state comes through [`Door::handle`], in-process loops
//! included. The order is fixed: authenticate, authorize, decode, admit, strategy, store; only the
//! pipeline can make an [`pipeline::Authorized`] request, so skipping a step does not compile.
//! What never lives here: loops, containers, anything that acts on the world.

pub mod admission;
mod aggregation;
pub mod audit;
pub mod auth;
mod bootstrap;
pub mod cache;
mod claims;
mod convert;
pub mod definitions;
pub mod describe;
pub mod door;
mod families;
mod flow;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod listen;
pub mod local;
pub mod metrics;
pub mod object;
mod outbound;
pub mod pipeline;
pub mod pki;
mod ranges;
pub mod registry;
pub mod seal;
mod series;
mod verbs;

pub use auth::{Identity, Outside};
pub use door::{Door, DoorOptions, TokenOptions};
pub use flow::DEFAULT_SEATS;
