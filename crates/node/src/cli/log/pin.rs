//! `bifrost log pin`.

use bifrost::catalog::CatalogError;
use bifrost_types::NodeId;
use serde::Serialize;

use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::failures::{catalog_error, log_error};
use crate::cli::log_ref::LogRef;

pub(crate) const HELP: &str = "\
Every reconfiguration of the log puts its sequencer on that node if it answers, and on another one if it does not: nothing \
waits for a pinned node, and nothing moves back by itself when it returns. `bifrost reconfigure LOG` moves it.";

#[derive(Debug, clap::Args)]
pub(crate) struct PinArgs {
    /// The log, by name or number
    log: LogRef,
    /// The node, by number or name: N3, n3
    #[arg(long, required_unless_present = "none", conflicts_with = "none")]
    node: Option<String>,
    /// Take the pin away
    #[arg(long)]
    none: bool,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct PinReport {
    log: u64,
    name: Option<String>,
    pin: Option<String>,
    /// The node that numbers the appends now.
    sequencer: Option<String>,
}

pub(crate) async fn run(context: &Context, args: PinArgs) -> Result<Exit, CliError> {
    let log = context.log(&args.log).await?;
    let bifrost = context.bifrost().await?;
    let node = match &args.node {
        Some(asked) => Some(find(context, asked).await?),
        None => None,
    };
    // The chain may change at any time; a pin does not care how.
    loop {
        match context.within("pinning the log", bifrost.catalog().set_pin(log.id(), node)).await? {
            Ok(()) => break,
            Err(CatalogError::Conflict) => {}
            Err(error) => return Err(catalog_error(error)),
        }
    }
    let described = context.within("reading the chain", log.describe()).await?;
    let chain = described.map_err(|error| log_error(&args.log, error))?;
    let sequencer = chain.last().map(|last| last.params.sequencer.node);
    if context.output() == Output::Json {
        context.print_json(&PinReport {
            log: log.id().get(),
            name: log.name(),
            pin: node.map(|node| node.to_string()),
            sequencer: sequencer.map(|node| node.to_string()),
        })?;
        return Ok(Exit::Done);
    }
    let mut text = match node {
        Some(node) => format!("the sequencer of log {} is pinned to {node}\n", args.log),
        None => format!("the sequencer of log {} is not pinned\n", args.log),
    };
    if let (Some(node), Some(now)) = (node, sequencer)
        && node != now
    {
        text += &format!("{now} numbers its appends now; `bifrost reconfigure {}` moves it\n", args.log);
    }
    context.print(&text)?;
    Ok(Exit::Done)
}

/// A node that may number appends.
async fn find(context: &Context, asked: &str) -> Result<NodeId, CliError> {
    let nodes = context.bifrost().await?.nodes();
    let named = nodes.iter().find(|record| record.name == asked);
    let number = asked.parse::<NodeId>().ok();
    let found = named.or_else(|| nodes.iter().find(|record| Some(record.id.node) == number));
    let record = found.ok_or_else(|| {
        CliError::new(ErrorCode::UnknownNode, format!("there is no node `{asked}`"))
            .with_advice("a node goes by its number, such as N3, or by its name; `bifrost nodes` lists all")
    })?;
    if !record.roles.has(bifrost_types::Role::Sequencer) {
        let told = format!("{} does not number appends: it has the roles {}", record.id.node, record.roles);
        return Err(CliError::new(ErrorCode::Refused, told).with_advice("choose a node with the role sequencer"));
    }
    Ok(record.id.node)
}
