//! Arguments, logging, exit status: everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rotad::cli::main()
}
