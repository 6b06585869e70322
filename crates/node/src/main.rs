//! The command line of Bifrost.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done and every promise held; 1 a promise was found
//! broken; 2 the arguments are wrong; 3 it could not be carried out; 130 interrupted.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use bifrost_node::demo::{self, DemoError, DemoOptions};
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

const BROKEN: u8 = 1;
const FAILED: u8 = 3;
const INTERRUPTED: u8 = 130;

/// A segmented, replicated log.
#[derive(Debug, Parser)]
#[command(name = "bifrost", version, after_help = "RUST_LOG sets what is told on stderr; default: warn.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs three log servers in this process under load, disturbs them, and checks every promise of the log
    #[command(after_help = "Exit codes: 0 every promise held; 1 a promise was broken; 2 wrong arguments; 3 it could \
                            not run; 130 interrupted.")]
    Demo(DemoOptions),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // Nobody reads stderr: the code still tells.
            let _unread = writeln!(io::stderr(), "bifrost: {error:#}");
            match error.downcast_ref() {
                Some(DemoError::Interrupted) => INTERRUPTED.into(),
                _ => FAILED.into(),
            }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    match command {
        Command::Demo(options) => runtime.block_on(demo(options)),
    }
}

async fn demo(options: DemoOptions) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let running = demo::run(&options, stop.clone());
    tokio::pin!(running);
    let report = tokio::select! {
        biased;
        report = &mut running => report?,
        asked = asked_to_stop() => {
            asked.context("signals cannot be awaited")?;
            stop.cancel();
            // The second time is meant.
            tokio::select! {
                biased;
                report = &mut running => report?,
                _ = asked_to_stop() => return Err(DemoError::Interrupted.into()),
            }
        }
    };
    let text = if options.json { report.to_json()? + "\n" } else { report.to_text() };
    io::stdout().write_all(text.as_bytes()).context("the report cannot be written to stdout")?;
    Ok(if report.ok { ExitCode::SUCCESS } else { BROKEN.into() })
}

/// Returns at the next Ctrl-C, or when the process is asked to end.
async fn asked_to_stop() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            biased;
            asked = tokio::signal::ctrl_c() => asked,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
