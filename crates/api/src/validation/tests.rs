//! Metadata and text rules, with the exact words of the reference.
