//! `bifrost metadata remove-member`.

use bifrost_types::NodeId;
use bifrost_wire::metadata_admin::{MetadataAdmin, MetadataAdminError};
use serde::Serialize;

use super::MemberAddress;
use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;

pub(crate) const HELP: &str = "\
Refused while too few of the voters that would be left answer: the group could not decide anything any more. A member that \
was removed is refused when it is started again, until its directory `metadata` is moved away; then it joins anew. Removing \
one that is not there is success.";

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveMemberArgs {
    /// The number of its node: N3 or 3
    node: NodeId,
    #[command(flatten)]
    address: MemberAddress,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct RemoveReport {
    node: String,
    removed: bool,
}

pub(crate) async fn run(context: &Context, args: RemoveMemberArgs) -> Result<Exit, CliError> {
    let addresses = args.address.addresses(context);
    let pool = super::pool(context, &addresses)?;
    pool.refresh().await;
    let node = args.node;
    let removing = pool.change(|admin| admin.remove_member(node));
    context.within("removing the member", removing).await?.map_err(|error| failure(error, node, &addresses))?;
    if context.output() == Output::Json {
        context.print_json(&RemoveReport { node: node.to_string(), removed: true })?;
    } else {
        context.print(&format!("{node} is no member of the metadata group\n"))?;
    }
    Ok(Exit::Done)
}

fn failure(error: MetadataAdminError, node: NodeId, addresses: &[String]) -> CliError {
    let told = |code| CliError::new(code, error.to_string());
    match &error {
        MetadataAdminError::Rpc(_) | MetadataAdminError::Stopped => super::no_member(addresses),
        MetadataAdminError::NotLeader { .. } => {
            CliError::new(ErrorCode::TimedOut, format!("nobody leads the metadata group, {node} is still in it"))
                .with_cause("a majority of its voters must run and reach each other")
                .with_advice("start them; if they are lost for good, see `bifrost metadata recover`")
        }
        MetadataAdminError::NoMajority { .. } => told(ErrorCode::Refused)
            .with_cause(format!("without {node} nothing could be decided any more; nothing was changed"))
            .with_advice("start the other voters first, or remove one that is dead"),
        MetadataAdminError::LastVoter => told(ErrorCode::Refused).with_advice("add another member first"),
        MetadataAdminError::InProgress | MetadataAdminError::Unfinished => {
            told(ErrorCode::OutcomeUnknown).with_advice("look with `bifrost metadata members`, and do it again")
        }
        MetadataAdminError::NoMember | MetadataAdminError::TooLarge => told(ErrorCode::Refused),
    }
}
