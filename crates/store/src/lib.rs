//! The versioned key-value store: the trait, the embedded engine and the suite both must pass.
