//! longhaul

fn main() {}
