//! Queue, framework, plugins and bind.
