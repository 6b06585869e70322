//! `bifrost metadata ...`.

mod export;
mod import;
mod members;
mod recover;
mod remove_member;
mod target;

use bifrost::metadata_pool::MetadataPool;
use bifrost_wire::grpc::ClientOptions;
use clap::Subcommand;

use super::context::Context;
use super::error::{CliError, ErrorCode};
use super::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct MetadataArgs {
    #[command(subcommand)]
    command: MetadataCommand,
}

#[derive(Debug, Subcommand)]
enum MetadataCommand {
    /// List the members of the metadata group as each of them sees it
    Members(members::MembersArgs),
    /// Take a member out of the metadata group, also one that is dead
    #[command(after_help = remove_member::HELP)]
    RemoveMember(remove_member::RemoveMemberArgs),
    /// Write all metadata of one moment to a file
    #[command(after_help = export::HELP)]
    Export(export::ExportArgs),
    /// Put the metadata of a file into an empty store
    #[command(after_help = import::HELP)]
    Import(import::ImportArgs),
    /// Go on from one member after the majority of the group was lost for good
    #[command(after_help = recover::HELP)]
    Recover(recover::RecoverArgs),
}

pub(crate) async fn run(context: &Context, args: MetadataArgs) -> Result<Exit, CliError> {
    match args.command {
        MetadataCommand::Members(args) => members::run(context, args).await,
        MetadataCommand::RemoveMember(args) => remove_member::run(context, args).await,
        MetadataCommand::Export(args) => export::run(context, args).await,
        MetadataCommand::Import(args) => import::run(context, args).await,
        MetadataCommand::Recover(args) => recover::run(context, args).await,
    }
}

/// Where metadata members are.
#[derive(Debug, clap::Args)]
struct MemberAddress {
    /// Metadata members, HOST:PORT; repeat it or separate with commas [default: metadata.join, else metadata.listen]
    #[arg(long = "member", value_name = "HOST:PORT", value_delimiter = ',')]
    members: Vec<String>,
}

impl MemberAddress {
    fn addresses(self, context: &Context) -> Vec<String> {
        let config = &context.config().metadata;
        if !self.members.is_empty() {
            self.members
        } else if !config.join.is_empty() {
            config.join.clone()
        } else {
            vec![config.advertise.clone().unwrap_or_else(|| config.listen.clone())]
        }
    }
}

/// The members behind these addresses.
fn pool(context: &Context, addresses: &[String]) -> Result<MetadataPool, CliError> {
    let options = ClientOptions { cluster: None, ..context.config().connection.clone() };
    MetadataPool::follow(addresses, &options).map_err(|error| {
        CliError::new(ErrorCode::InvalidArgument, format!("`{}` is not an address", error.address))
            .with_advice("an address is HOST:PORT, such as 127.0.0.1:2438")
    })
}

fn no_member(addresses: &[String]) -> CliError {
    CliError::new(ErrorCode::Unreachable, format!("no metadata member answered at {}", addresses.join(", ")))
        .with_advice("name one that runs with --member; a member listens at port 2438 by default")
}
