//! Service routing: `model` is the input, `plan` says what one service wants, `routes` carries
//! differences to the kernel, `table` is what no service changes, `catalog` is the desired state
//! kept up to date change by change.

mod catalog;
mod convert;
mod model;
mod plan;
mod routes;
mod table;

pub use catalog::Catalog;
pub use convert::{key, service, slice};
pub use model::{
    Announced, Endpoint, Protocol, Service, ServiceKey, ServicePort, Slice, SlicePort,
};
pub(crate) use plan::outside_ips;
pub use plan::{HostPort, Objects, Target, UdpFlow, local_endpoints, plan, plan_host_ports};
pub use routes::{Applied, Owner, Routes};
pub use table::TableConfig;

#[cfg(test)]
mod tests;
