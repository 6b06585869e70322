//! `bifrost metadata export`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bifrost_metadata::Export;
use bifrost_metadata::export::ReadError;
use bifrost_wire::metadata::MetadataStore;
use serde::Serialize;

use super::target;
use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode, printable};
use crate::cli::exit::Exit;

pub(crate) const HELP: &str = "\
By default it asks the nodes, whatever engine they have. A file that exists is not overwritten. To move a cluster, stop all \
of its nodes first, and read what they left: what is written behind an export is not in it.";

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// The new file
    file: PathBuf,
    /// Read the metadata member's log in the data directory of this node, which is stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["etcd", "local"])]
    data_dir: Option<PathBuf>,
    /// Read the etcd that is configured, not the nodes over it
    #[arg(long, conflicts_with = "local")]
    etcd: bool,
    /// Read the local store in this directory
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct ExportReport {
    file: String,
    cluster: Option<String>,
    revision: u64,
    keys: usize,
    bytes: usize,
}

pub(crate) async fn run(context: &Context, args: ExportArgs) -> Result<Exit, CliError> {
    let export = if let Some(data_dir) = &args.data_dir {
        let (node, _) = target::node_directory(data_dir)?;
        let survey = target::offline(&target::member_directory(&node)).await?.survey();
        Export { cluster: Some(survey.owner.cluster), keyspace: survey.keyspace }
    } else if args.etcd {
        read(context, Arc::new(target::etcd(context)?)).await?
    } else if let Some(local) = &args.local {
        let store = target::local(local).await?;
        let export = read(context, Arc::new(store.clone())).await;
        store.shutdown().await;
        export?
    } else {
        read(context, Arc::clone(context.bifrost().await?.catalog().store())).await?
    };
    let bytes = export.encode();
    write(&args.file, &bytes).map_err(|error| not_written(&args.file, &error))?;
    let report = ExportReport {
        file: args.file.display().to_string(),
        cluster: export.cluster.map(|cluster| cluster.to_string()),
        revision: export.keyspace.revision(),
        keys: export.keyspace.entries().len(),
        bytes: bytes.len(),
    };
    if context.output() == Output::Json {
        context.print_json(&report)?;
        return Ok(Exit::Done);
    }
    let whose = report.cluster.as_deref().unwrap_or("no cluster");
    let ExportReport { revision, keys, bytes, .. } = report;
    context.print(&format!(
        "{keys} keys of {whose} at revision {revision} are in {}, {bytes} bytes\n",
        printable(&report.file)
    ))?;
    Ok(Exit::Done)
}

async fn read(context: &Context, store: Arc<dyn MetadataStore>) -> Result<Export, CliError> {
    let cluster = target::cluster_of(context, Arc::clone(&store)).await?;
    let read = context.within("reading the metadata", Export::read(&*store, cluster)).await?;
    read.map_err(|error| match error {
        ReadError::Changing => CliError::new(ErrorCode::Failed, error.to_string())
            .with_advice("do it again when less is going on, or stop the nodes and read what they left"),
        ReadError::Metadata(error) => CliError::new(ErrorCode::Unreachable, error.to_string()),
    })
}

/// All of it or no file, and durable.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut written = File::options().write(true).create_new(true).open(file)?;
    let whole = written.write_all(bytes).and_then(|()| written.sync_all());
    if whole.is_err() {
        // A part of it would be refused by every import; the error is what matters.
        let _removed = std::fs::remove_file(file);
    }
    whole
}

fn not_written(file: &Path, error: &io::Error) -> CliError {
    let told = CliError::new(ErrorCode::Failed, format!("{} cannot be written", file.display())).because(error);
    if error.kind() == io::ErrorKind::AlreadyExists { told.with_advice("choose a name that is free") } else { told }
}
