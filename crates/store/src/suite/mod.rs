//! The conformance suite that every engine must pass.
