//! Workloads, endpoints, identity and lifecycle: the loops that make declared state true.
