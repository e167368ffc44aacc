//! The program as its users see it: the real binary, the real kubectl, real containers.
//!
//! One program of modules, because each program of tests would decode the API's types anew. Two tests
//! may run at the same time: clusters with a node have networks of their own (`common::Cluster`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod audit;
mod balancer;
mod certificates;
mod clients;
mod common;
mod crash;
mod csi;
mod custom;
mod dra;
mod failures;
mod instance;
mod join;
mod keep;
mod kubectl;
mod node_api;
mod pods;
mod refusals;
mod resize;
mod servers;
mod snapshots;
mod startup;
mod volumes;
