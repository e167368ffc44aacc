//! Tests of the whole scheduler and of its parts.

mod door;
mod objects;
