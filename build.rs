//! Generates the wire types.

fn main() {}
