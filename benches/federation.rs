//! Benchmarks of the federation.

fn main() {}
