//! The one door: TLS, authentication, authorization, admission, registry, watch cache, discovery and OpenAPI.
