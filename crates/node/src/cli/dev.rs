//! `bifrost dev`: a cluster on this machine that stays up.

mod directory;
mod failure;

use std::num::NonZeroU8;
use std::path::PathBuf;

use bifrost::catalog::Catalog;
use bifrost_types::{ReplicationProperty, Scope};
use serde::Serialize;

use super::context::{Context, Output, Style};
use super::error::{CliError, ErrorCode, printable};
use super::exit::Exit;
use super::failures::catalog_error;
use crate::config::PORT;
use crate::local_cluster::{LocalCluster, LocalClusterOptions, nodes_in};

use self::directory::DataDirectory;

pub(crate) const HELP: &str = "\
Ctrl-C or SIGTERM stops it in good order (exit code 0); a second one ends it at once (130). Started again with the same \
--data-dir, it goes on with the same nodes. With --output json it prints one JSON object when it is ready.";

/// Nodes, where nobody says how many.
const NODES: u16 = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// How many nodes [default: as many as the data has, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: Option<u16>,
    /// Keep the data here; started again with it, the cluster continues [default: a temporary directory, removed at the
    /// end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The first node listens here on loopback, the others at the ports after it; 0 for free ports [default: 2437]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Copies of each record of logs that are made without a replication of their own, such as 2 [default: what the
    /// data has, at first 2]
    #[arg(long, value_name = "PROPERTY")]
    replication: Option<ReplicationProperty>,
}

/// What is printed when the cluster is ready, as JSON.
#[derive(Debug, Serialize)]
struct ReadyReport {
    event: &'static str,
    addresses: Vec<String>,
    nodes: Vec<NodeReport>,
    data_dir: String,
    temporary: bool,
    pid: u32,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    node: String,
    generation: u32,
    name: String,
    address: String,
}

/// What is asked for, flags and configuration together.
struct Wanted {
    nodes: Option<u16>,
    data_dir: Option<PathBuf>,
    port: u16,
    replication: Option<ReplicationProperty>,
}

pub(crate) async fn run(context: &Context, args: DevArgs) -> Result<Exit, CliError> {
    let dev = &context.config().dev;
    let wanted = Wanted {
        nodes: args.nodes.or(dev.nodes),
        data_dir: args.data_dir.or_else(|| dev.data_dir.clone()),
        port: args.port.unwrap_or(dev.port),
        replication: args.replication.or_else(|| dev.replication.clone()),
    };
    let directory = DataDirectory::prepare(wanted.data_dir.as_deref())?;
    let outcome = serve(context, &wanted, &directory).await;
    directory.leave()?;
    outcome
}

async fn serve(context: &Context, wanted: &Wanted, directory: &DataDirectory) -> Result<Exit, CliError> {
    let known = nodes_in(directory.path());
    let unsaid = if known == 0 { usize::from(NODES) } else { known };
    let nodes = wanted.nodes.map_or(unsaid, usize::from);
    if let Some(property) = &wanted.replication {
        check_replication(property, nodes)?;
    }
    let options = LocalClusterOptions {
        nodes,
        directory: Some(directory.path().to_owned()),
        first_port: (wanted.port != 0).then_some(wanted.port),
        ..context.config().local_cluster()
    };
    if context.terminal().stderr {
        context.say(&format!("starting {nodes} {} ...", if nodes == 1 { "node" } else { "nodes" }));
    }
    let starting = LocalCluster::start(options);
    let cluster = starting.await.map_err(|error| failure::not_started(directory.path(), &error))?;
    let told = match set_replication(&cluster, wanted.replication.as_ref()).await {
        Ok(()) => ready(context, wanted, directory, &cluster, known).await,
        Err(error) => Err(error),
    };
    if told.is_ok() {
        context.stop().cancelled().await;
        if context.terminal().stderr {
            context.say("stopping ...");
        }
    }
    cluster.shutdown().await;
    told.map(|()| Exit::Done)
}

/// All nodes stand in one zone, so only their number can be asked for.
fn check_replication(property: &ReplicationProperty, nodes: usize) -> Result<(), CliError> {
    let wanted = |(scope, count): (Scope, NonZeroU8)| match scope {
        Scope::Node => usize::from(count.get()) > nodes,
        Scope::Zone | Scope::Region => count > NonZeroU8::MIN,
    };
    if property.counts().any(wanted) {
        let told = format!("replication {property} asks for more than {nodes} nodes in one zone");
        return Err(CliError::new(ErrorCode::InvalidArgument, told)
            .with_advice("ask for fewer copies with --replication, or for more nodes with --nodes"));
    }
    Ok(())
}

async fn set_replication(cluster: &LocalCluster, property: Option<&ReplicationProperty>) -> Result<(), CliError> {
    match property {
        Some(_) => Catalog::new(cluster.metadata()).set_default_replication(property).await.map_err(catalog_error),
        None => Ok(()),
    }
}

async fn ready(
    context: &Context,
    wanted: &Wanted,
    directory: &DataDirectory,
    cluster: &LocalCluster,
    known: usize,
) -> Result<(), CliError> {
    let mut nodes = Vec::new();
    for (index, address) in cluster.addresses().await.into_iter().enumerate() {
        if let Some(life) = cluster.generation(index).await {
            let name = format!("n{}", index + 1);
            nodes.push(NodeReport { node: life.node.to_string(), generation: life.generation.get(), name, address });
        }
    }
    if known > nodes.len() {
        context.say(&format!(
            "{} of the {known} nodes of this data do not run; --nodes {known} starts all",
            known - nodes.len()
        ));
    }
    if context.output() == Output::Json {
        return context.print_json(&ReadyReport {
            event: "ready",
            addresses: nodes.iter().map(|node| node.address.clone()).collect(),
            nodes,
            data_dir: directory.path().display().to_string(),
            temporary: directory.is_temporary(),
            pid: std::process::id(),
        });
    }
    context.print(&text(context, wanted, directory, &nodes))
}

fn text(context: &Context, wanted: &Wanted, directory: &DataDirectory, nodes: &[NodeReport]) -> String {
    let plural = if nodes.len() == 1 { "node is" } else { "nodes are" };
    let mut text = context.paint(Style::Good, format!("{} {plural} ready", nodes.len())) + "\n\n";
    for node in nodes {
        text += &format!("  {:<4} {:<6} {}\n", node.name, node.node, node.address);
    }
    text += &format!("  data {}\n", printable(&directory.named().display().to_string()));
    if directory.is_temporary() {
        text += "       temporary, removed at the end; --data-dir DIR keeps it\n";
    }
    text += "\nTry, in another terminal:\n\n";
    if let Some(first) = nodes.first().filter(|_| wanted.port != PORT) {
        text += &format!("  export BIFROST_ADDRESS={}\n", first.address);
    }
    text += "  bifrost log create orders\n  echo 'one espresso' | bifrost append orders\n  bifrost read orders\n\n";
    text += "Ctrl-C stops it.\n";
    text
}
