//! Compiles the part of etcd's protocol that is used, without protoc.

use std::error::Error;
use std::io::Write as _;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo reads these lines from standard output.
    writeln!(std::io::stdout(), "cargo::rerun-if-changed=proto")?;
    let files = protox::compile(["etcd.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).emit_rerun_if_changed(false).compile_fds(files)?;
    Ok(())
}
