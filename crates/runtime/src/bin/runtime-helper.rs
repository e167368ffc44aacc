//! The runtime's helper as a program of its own, for this crate's tests. Evenkeel itself executes
//! its own binary with a hidden subcommand instead.

fn main() {
    evenkeel_runtime::helper_main(std::env::args().skip(1).collect())
}
