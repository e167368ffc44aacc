//! Load generators and the floors they are measured against.

fn main() {}
