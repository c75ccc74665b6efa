//! Arguments, logging, exit status.

fn main() {}
