//! The command line.
//!
//! Data goes to stdout, everything else to stderr. A command is one file with its arguments and an
//! `async fn run(&Context, Args) -> Result<Exit, CliError>`; adding one takes a line in `Command` and one in
//! `Command::run`. Shapes, exit codes and precedence are promises: `docs/CLI.md` has them.
//!
//! Reading order: this file, `context` (what a command gets), `exit`, `error` and `failures` (how errors reach people),
//! `usage`, `signals`, `progress`, `values` and `log_ref` (arguments), then the commands.

mod append;
mod bench;
mod completions;
mod config;
mod context;
mod demo;
mod dev;
mod error;
mod exit;
mod explain;
mod failures;
mod log;
mod log_ref;
mod metadata;
mod node;
mod nodes;
mod progress;
mod read;
mod reconfigure;
mod resolve;
mod server;
mod signals;
mod tail;
mod trim;
mod usage;
mod values;
mod version;
mod waiting;

use std::io;
use std::panic::resume_unwind;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::context::{Context, GlobalArgs, Output};
use self::error::{CliError, ErrorCode};
use self::exit::Exit;
use self::signals::Signals;

/// What is told on stderr unless `RUST_LOG` says otherwise. openraft tells of each attempt at a member that is away, many
/// times a second; what follows from them is told here.
const FILTER: &str = "warn,openraft=off";

/// A segmented, replicated log.
#[derive(Debug, Parser)]
#[command(name = "bifrost", bin_name = "bifrost", version, after_help = exit::HELP, max_term_width = 80)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster on this machine that stays up
    #[command(after_help = dev::HELP)]
    Dev(dev::DevArgs),
    /// Run one node of a cluster of processes
    #[command(after_help = server::HELP)]
    Server(server::ServerArgs),
    /// Run three log servers in this process under load, disturb them, and check every promise of the log
    #[command(after_help = demo::HELP)]
    Demo(demo::DemoArgs),
    /// Measure the cluster: appends, reads, tailing, and times without an acknowledged append
    #[command(after_help = bench::HELP)]
    Bench(bench::BenchArgs),
    /// Make, list, describe and delete logs
    Log(log::LogArgs),
    /// Append lines to a log as records
    #[command(after_help = append::HELP)]
    Append(append::AppendArgs),
    /// Print records of a log
    #[command(after_help = read::HELP)]
    Read(read::ReadArgs),
    /// Print the tail of a log: the first LSN that is not written
    Tail(tail::TailArgs),
    /// Trim a log: records up to an LSN are gone for readers, and their space returns
    Trim(trim::TrimArgs),
    /// Close a log's last segment and open the next, elsewhere or otherwise
    #[command(after_help = reconfigure::HELP)]
    Reconfigure(reconfigure::ReconfigureArgs),
    /// Say what a log is doing or waits for, with the evidence; works while the cluster is broken
    Explain(explain::ExplainArgs),
    /// Find out what became of an append whose outcome was unknown
    Resolve(resolve::ResolveArgs),
    /// List the nodes of the cluster, and what names them
    Nodes,
    /// Show a node and what needs it, and take it out of service or away
    Node(node::NodeArgs),
    /// The metadata: who keeps it, moving it elsewhere, and what to do when its majority is lost
    Metadata(metadata::MetadataArgs),
    /// Show what can be configured, and what is
    Config(config::ConfigArgs),
    /// Print a completion script for a shell
    #[command(after_help = completions::HELP)]
    Completions(completions::CompletionsArgs),
    /// Print the versions of the tool and of its protocol
    Version,
}

impl Command {
    async fn run(self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Dev(args) => dev::run(context, args).await,
            Self::Server(args) => server::run(context, args).await,
            Self::Demo(args) => demo::run(context, args).await,
            Self::Bench(args) => bench::run(context, args).await,
            Self::Log(args) => log::run(context, args).await,
            Self::Append(args) => append::run(context, args).await,
            Self::Read(args) => read::run(context, args).await,
            Self::Tail(args) => tail::run(context, args).await,
            Self::Trim(args) => trim::run(context, args).await,
            Self::Reconfigure(args) => reconfigure::run(context, args).await,
            Self::Explain(args) => explain::run(context, args).await,
            Self::Resolve(args) => resolve::run(context, args).await,
            Self::Nodes => nodes::run(context).await,
            Self::Node(args) => node::run(context, args).await,
            Self::Metadata(args) => metadata::run(context, args).await,
            Self::Config(args) => config::run(context, &args),
            Self::Completions(args) => completions::run(context, &args),
            Self::Version => version::run(context),
        }
    }

    /// Whether the command ends in good order by itself when [`Context::stop`] fires. The others are dropped.
    const fn stops_itself(&self) -> bool {
        matches!(
            self,
            Self::Dev(_) | Self::Server(_) | Self::Demo(_) | Self::Bench(_) | Self::Append(_) | Self::Read(_)
        )
    }

    /// Whether the command says how long things take.
    const fn measures(&self) -> bool {
        matches!(self, Self::Bench(_))
    }

    /// Whether the command works while the configuration is broken.
    const fn needs_no_config(&self) -> bool {
        match self {
            Self::Completions(_) | Self::Version => true,
            Self::Config(args) => args.needs_no_config(),
            _ => false,
        }
    }

    /// Whether `--output raw` means something.
    const fn has_raw_output(&self) -> bool {
        matches!(self, Self::Read(_))
    }
}

/// Runs what the arguments of this process ask for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error).into(),
    };
    let terminal = cli.global.terminal();
    let json = cli.global.output() == Output::Json;
    let exit = match run(cli) {
        Ok(exit) => exit,
        Err(error) => error.report(json, terminal),
    };
    exit.into()
}

fn run(cli: Cli) -> Result<Exit, CliError> {
    let Cli { global, command } = cli;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let ansi = global.terminal().stderr_color;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(io::stderr).init();
    let context = Context::new(global, command.needs_no_config())?;
    if context.output() == Output::Raw && !command.has_raw_output() {
        let error = CliError::new(ErrorCode::InvalidArgument, "`--output raw` is for `bifrost read` only");
        return Err(error.with_advice("use `--output text` or `--output json`"));
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Command::Server(_) = command {
        runtime.worker_threads(context.config().node.threads());
    }
    let runtime = runtime.enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError::new(ErrorCode::Failed, "no threads can be started").because(&error))?;
    let measures = command.measures();
    let driving = async move { drive(&context, command).await };
    let outcome = if measures {
        // On a thread of the runtime: what waits on this one would be woken through another one each time. Commands that do
        // not measure have this one, where output that nobody takes holds up nobody else.
        let driven = runtime.block_on(runtime.spawn(driving));
        driven.unwrap_or_else(|panicked| resume_unwind(panicked.into_panic()))
    } else {
        runtime.block_on(driving)
    };
    // A thread that waits for stdin must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// Runs the command until it ends, or until it is told to stop; the second time is meant.
async fn drive(context: &Context, command: Command) -> Result<Exit, CliError> {
    let mut signals = Signals::listen()?;
    let stops_itself = command.stops_itself();
    let mut running = Box::pin(command.run(context));
    let outcome = tokio::select! {
        biased;
        outcome = &mut running => outcome,
        () = signals.next() => {
            context.stop().cancel();
            if !stops_itself {
                return Err(CliError::interrupted());
            }
            tokio::select! {
                biased;
                outcome = &mut running => outcome,
                () = signals.next() => return Err(CliError::interrupted()),
            }
        }
    };
    context.disconnect().await;
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/CLI.md");

    fn every_command_is_documented(path: &str, parent: &clap::Command) {
        for command in parent.get_subcommands() {
            let name = format!("{path} {}", command.get_name());
            assert!(DOCUMENT.contains(&format!("`{name}")), "docs/CLI.md does not have {name}");
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(DOCUMENT.contains(&format!("--{flag}")), "docs/CLI.md does not have --{flag} of {name}");
            }
            every_command_is_documented(&name, command);
        }
    }

    #[test]
    fn every_command_flag_and_code_is_documented() {
        every_command_is_documented("bifrost", &Cli::command());
        for code in ErrorCode::ALL.iter().filter(|code| **code != ErrorCode::OutputClosed) {
            let row = DOCUMENT.lines().find(|line| line.contains(&format!("`{}`", code.name())));
            let exit = format!("| {} |", code.exit().code());
            assert!(row.is_some_and(|row| row.starts_with(&exit)), "docs/CLI.md does not have {}", code.name());
        }
    }
}
