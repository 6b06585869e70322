//! `bifrost server`: one node of a cluster of processes.

mod failure;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::context::{Context, Output, Style};
use super::error::{CliError, ErrorCode, printable};
use super::exit::Exit;
use crate::config::{Config, JOIN};
use crate::observe::Observed;
use crate::process::Process;

pub(crate) const HELP: &str = "\
What the node is called, where it listens and where it keeps its data is configured: see `bifrost config example`, \
sections [node], [metadata] and [metrics]. An empty data directory needs --bootstrap or --join; later starts need neither. With \
metadata in etcd a node without --bootstrap joins the cluster that is there. Ctrl-C \
or SIGTERM stops it in good order (exit code 0); a second one ends it at once (130). With --output json it prints one \
JSON object when it is ready.";

#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// Make a new cluster with this node as its first; on the data of its own cluster it changes nothing
    #[arg(long, conflicts_with = "join")]
    bootstrap: bool,
    /// Metadata members of the cluster to join; repeat it or separate with commas
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    join: Vec<String>,
}

/// What is printed when the node is ready, as JSON.
#[derive(Debug, Serialize)]
struct ReadyReport {
    event: &'static str,
    cluster: String,
    node: String,
    generation: u32,
    name: String,
    address: String,
    metadata: Option<String>,
    data_dir: String,
    pid: u32,
}

pub(crate) async fn run(context: &Context, args: ServerArgs) -> Result<Exit, CliError> {
    let mut config: Config = context.config().clone();
    if !args.join.is_empty() {
        config.metadata.join = args.join;
        config.set_by_flag(JOIN, "--join");
    }
    let options = config.process(args.bootstrap).map_err(failure::unset)?;
    let data_dir = options.data_dir.display().to_string();
    let monitoring = Monitoring::start(config.metrics.listen.as_deref()).await?;
    if context.terminal().stderr {
        context.say(&format!("starting node {} ...", printable(&options.name)));
    }
    let started = tokio::select! {
        biased;
        started = Process::start(options) => started,
        () = context.stop().cancelled() => return Err(CliError::interrupted()),
    };
    let process = started.map_err(|error| failure::not_started(&error))?;
    monitoring.serves.send_replace(true);
    let told = ready(context, &process, data_dir);
    if told.is_ok() {
        context.stop().cancelled().await;
        if context.terminal().stderr {
            context.say("stopping ...");
        }
    }
    monitoring.serves.send_replace(false);
    process.shutdown().await;
    monitoring.shutdown().await;
    told.map(|()| Exit::Done)
}

/// The port of monitoring, open from before the node starts until it has stopped.
struct Monitoring {
    serves: watch::Sender<bool>,
    stop: DropGuard,
    tasks: TaskTracker,
}

impl Monitoring {
    async fn start(listen: Option<&str>) -> Result<Self, CliError> {
        let (serves, watched) = watch::channel(false);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        if let Some(address) = listen {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| failure::no_monitoring(address, &error))?;
            let observed = Observed::install(watched);
            let observed = observed.map_err(|error| CliError::new(ErrorCode::Failed, error.to_string()))?;
            tasks.spawn(observed.serve(listener, stop.clone()));
        }
        Ok(Self { serves, stop: stop.drop_guard(), tasks })
    }

    async fn shutdown(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn ready(context: &Context, process: &Process, data_dir: String) -> Result<(), CliError> {
    let record = process.record();
    let report = ReadyReport {
        event: "ready",
        cluster: process.cluster().to_string(),
        node: record.id.node.to_string(),
        generation: record.id.generation.get(),
        name: record.name.clone(),
        address: record.address.clone(),
        metadata: process.member_address(),
        data_dir,
        pid: std::process::id(),
    };
    if context.output() == Output::Json {
        return context.print_json(&report);
    }
    let mut text = context.paint(Style::Good, format!("node {} is ready", printable(&report.name))) + "\n\n";
    text += &format!("  cluster  {}\n  node     {}, generation {}\n", report.cluster, report.node, report.generation);
    text += &format!("  address  {}\n", report.address);
    if let Some(metadata) = &report.metadata {
        text += &format!("  metadata {metadata}\n");
    }
    text += &format!("  data     {}\n\nCtrl-C stops it.\n", printable(&report.data_dir));
    context.print(&text)
}
