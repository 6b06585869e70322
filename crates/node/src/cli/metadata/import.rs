//! `bifrost metadata import`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bifrost::catalog::Catalog;
use bifrost::fresh_op;
use bifrost_metadata::Export;
use bifrost_metadata::import::{ImportError, import};
use bifrost_raft::engine::rocks::RocksEngine;
use bifrost_raft::machine::offline;
use bifrost_raft::{GroupId, Member, MemberId};
use bifrost_wire::metadata::MetadataStore;
use serde::Serialize;

use super::target;
use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode, printable};
use crate::cli::exit::Exit;
use crate::process::state::{Engine, MemberState};

pub(crate) const HELP: &str = "\
The target is empty, or has a half of an import of the same file, which goes on. --data-dir is the stopped first node of the \
new metadata group, without a directory `metadata`, and metadata.advertise or metadata.listen says where its member will be; \
the other nodes join it with --join. Revisions are kept in a metadata group; other engines give their own.";

/// Far more than any metadata; a larger file is not read.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(crate) struct ImportArgs {
    /// A file of `bifrost metadata export`
    file: PathBuf,
    /// Begin a metadata group in the data directory of this node, which is stopped
    #[arg(long, value_name = "DIR", group = "target")]
    data_dir: Option<PathBuf>,
    /// Fill the etcd that is configured, under its prefix
    #[arg(long, group = "target")]
    etcd: bool,
    /// Fill a local store in this directory
    #[arg(long, value_name = "DIR", group = "target")]
    local: Option<PathBuf>,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct ImportReport {
    cluster: Option<String>,
    keys: u64,
    /// Of the target.
    revision: u64,
    resumed: bool,
}

pub(crate) async fn run(context: &Context, args: ImportArgs) -> Result<Exit, CliError> {
    let bytes = read(&args.file).map_err(|error| {
        CliError::new(ErrorCode::InvalidInput, format!("{} cannot be read", args.file.display())).because(&error)
    })?;
    let export = Export::decode(&bytes).map_err(|error| {
        CliError::new(ErrorCode::InvalidInput, format!("{} cannot be used", args.file.display())).because(&error)
    })?;
    let report = if let Some(data_dir) = &args.data_dir {
        begin_group(context, &export, data_dir).await?
    } else if let Some(local) = &args.local {
        let store = target::local(local).await?;
        let filled = fill(&store, &export).await;
        store.shutdown().await;
        filled?
    } else {
        fill(&target::etcd(context)?, &export).await?
    };
    if context.output() == Output::Json {
        context.print_json(&report)?;
        return Ok(Exit::Done);
    }
    let ImportReport { cluster, keys, revision, resumed } = report;
    let went_on = if resumed { ", going on with what was there" } else { "" };
    let whose = cluster.as_deref().unwrap_or("no cluster");
    context.print(&format!("{keys} keys of {whose} are there, at revision {revision}{went_on}\n"))?;
    if let Some(data_dir) = &args.data_dir {
        context.say(&format!("start the node in {} first", printable(&data_dir.display().to_string())));
    }
    Ok(Exit::Done)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than any metadata"));
    }
    Ok(bytes)
}

async fn fill(store: &dyn MetadataStore, export: &Export) -> Result<ImportReport, CliError> {
    let done = import(store, export, Catalog::CLUSTER_KEY).await.map_err(|error| {
        let told = |code| CliError::new(code, error.to_string());
        match &error {
            ImportError::NotEmpty { .. } => {
                told(ErrorCode::Refused).with_advice("choose an empty store, or another metadata.etcd_prefix")
            }
            ImportError::OtherImport => {
                told(ErrorCode::Refused).with_advice("finish that one with its own file, or choose an empty store")
            }
            ImportError::Metadata(source) => told(ErrorCode::PartlyDone).because(source).with_advice(
                "do it again with the same file: it goes on, and until then no node takes it for a cluster",
            ),
        }
    })?;
    let cluster = export.cluster.map(|cluster| cluster.to_string());
    Ok(ImportReport { cluster, keys: done.keys, revision: done.revision, resumed: done.resumed })
}

/// Makes the node in this directory the only member of a new group.
async fn begin_group(context: &Context, export: &Export, data_dir: &Path) -> Result<ImportReport, CliError> {
    let (directory, mut state) = target::node_directory(data_dir)?;
    let refused = |message: String| CliError::new(ErrorCode::Refused, message);
    if export.cluster != Some(state.cluster) {
        return Err(refused(format!("the node in {} belongs to cluster {}", data_dir.display(), state.cluster))
            .with_cause("the file is of another cluster")
            .with_advice("name a node of the cluster that was exported"));
    }
    let node = state.node.ok_or_else(|| refused(format!("the node in {} has no number yet", data_dir.display())))?;
    let config = &context.config().metadata;
    let address = config.advertise.clone().unwrap_or_else(|| config.listen.clone());
    let engine = RocksEngine::open(&target::member_directory(&directory)).map_err(|error| {
        refused(error.to_string()).because(&error).with_advice("move its directory `metadata` away if it is an old one")
    })?;
    let (id, me) = (MemberId::from(node), Member { address: address.clone() });
    // Never the number of a group that was before: what is left of one must not be counted in this one.
    let group = GroupId::from(fresh_op().get() as u64);
    let made = offline::create(Arc::new(engine), state.cluster, id, me, group, export.keyspace.clone()).await;
    made.map_err(|error| {
        refused(format!("{} holds the log of a metadata member already", data_dir.display()))
            .because(&error)
            .with_advice("move its directory `metadata` away if the metadata is elsewhere now")
    })?;
    state.engine = Engine::Raft;
    state.member = Some(MemberState { address: address.clone(), voter: true, moved: false });
    state.metadata = vec![address];
    directory.write(&state).map_err(|error| {
        CliError::new(ErrorCode::PartlyDone, "the group is there, and node.json does not say so")
            .because(&error)
            .with_advice("move its directory `metadata` away and do it again")
    })?;
    let keys = export.keyspace.entries().len() as u64;
    let revision = export.keyspace.revision();
    Ok(ImportReport { cluster: Some(state.cluster.to_string()), keys, revision, resumed: false })
}
