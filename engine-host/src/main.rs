//! The `engine-host` program.

fn main() {}
