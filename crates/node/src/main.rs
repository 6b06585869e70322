//! The binary `bifrost`. What it does is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bifrost_node::cli::main()
}
