//! Compiles the protocol without protoc, and keeps its descriptors for gRPC reflection.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

const PROTOS: [&str; 9] = [
    "bifrost/v1/common.proto",
    "bifrost/v1/liveness.proto",
    "bifrost/v1/log_server.proto",
    "bifrost/v1/log.proto",
    "bifrost/v1/sequencer.proto",
    "bifrost/v1/metadata.proto",
    "bifrost/v1/metadata_admin.proto",
    "bifrost/v1/node.proto",
    "bifrost/v1/values.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo reads these lines from standard output.
    writeln!(std::io::stdout(), "cargo::rerun-if-changed=proto")?;
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("bifrost_v1.bin"), compiler.encode_file_descriptor_set())?;

    // `Bytes` fields: payloads stay slices of the received frame.
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::grpc::protobuf::ProtobufCodec")
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
