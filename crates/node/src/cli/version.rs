//! `bifrost version`.

use serde::Serialize;

use super::context::{Context, Output};
use super::error::CliError;
use super::exit::Exit;

/// The package of the services, which names the version of the protocol.
const PROTOCOL: &str = "bifrost.v1";

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct VersionReport {
    version: &'static str,
    protocol: &'static str,
}

pub(crate) fn run(context: &Context) -> Result<Exit, CliError> {
    let report = VersionReport { version: env!("CARGO_PKG_VERSION"), protocol: PROTOCOL };
    if context.output() == Output::Json {
        context.print_json(&report)?;
    } else {
        context.print(&format!("bifrost {}, protocol {}\n", report.version, report.protocol))?;
    }
    Ok(Exit::Done)
}
