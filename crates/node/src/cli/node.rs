//! `bifrost node ...`.

mod describe;
mod remove;
mod set_state;

use bifrost::Bifrost;
use bifrost::nodes::{Needs, NodeView};
use bifrost_types::NodeId;
use clap::Subcommand;

use super::context::Context;
use super::error::{CliError, ErrorCode};
use super::exit::Exit;
use super::failures::look_catalog_error;

/// Segments that an error names.
const LISTED: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Show one node: its disk, what names it, and what needs it
    Describe(describe::DescribeArgs),
    /// Say what a node's disk is to be: take new segments, only serve, or go out of service
    #[command(after_help = set_state::HELP)]
    SetState(set_state::SetStateArgs),
    /// Take a node out of the cluster for good
    #[command(after_help = remove::HELP)]
    Remove(remove::RemoveArgs),
}

pub(crate) async fn run(context: &Context, args: NodeArgs) -> Result<Exit, CliError> {
    match args.command {
        NodeCommand::Describe(args) => describe::run(context, args).await,
        NodeCommand::SetState(args) => set_state::run(context, args).await,
        NodeCommand::Remove(args) => remove::run(context, args).await,
    }
}

/// A node by its name, or by its number (`N3` or `3`); also one that was removed and is still named by a log.
async fn find(context: &Context, bifrost: &Bifrost, asked: &str) -> Result<NodeView, CliError> {
    let views = context.within("asking the nodes", bifrost.node_views()).await?.map_err(look_catalog_error)?;
    let named = |view: &&NodeView| view.record.as_ref().is_some_and(|record| record.name == asked);
    if let Some(view) = views.iter().find(named) {
        return Ok(view.clone());
    }
    let number = asked.parse::<NodeId>().ok();
    let found = number.and_then(|node| views.into_iter().find(|view| view.node == node));
    found.ok_or_else(|| unknown(format!("there is no node `{asked}`")))
}

/// The same, and also a number that nothing names any more.
async fn find_number(context: &Context, bifrost: &Bifrost, asked: &str) -> Result<NodeId, CliError> {
    match find(context, bifrost, asked).await {
        Ok(view) => Ok(view.node),
        Err(error) if error.code() == ErrorCode::UnknownNode => asked.parse().map_err(|_| error),
        Err(error) => Err(error),
    }
}

fn unknown(message: String) -> CliError {
    CliError::new(ErrorCode::UnknownNode, message)
        .with_advice("a node goes by its number, such as N3, or by its name; `bifrost nodes` lists all")
}

/// Segments stand in the way.
fn needed(node: NodeId, needs: &Needs) -> CliError {
    let listed: Vec<String> = needs.listed.iter().take(LISTED).map(describe::short).collect();
    let shown = u64::try_from(listed.len()).unwrap_or(u64::MAX);
    let more = needs.count().saturating_sub(shown);
    let and_more = if more > 0 { format!("; and {more} more") } else { String::new() };
    CliError::new(ErrorCode::Refused, format!("{} {node}; nothing was changed", describe::counted(needs.count())))
        .with_cause(format!("{}{and_more}", listed.join("; ")))
        .with_advice(format!(
            "move open segments with `bifrost reconfigure`, trim closed ones; `bifrost node describe {node}` says more"
        ))
}
