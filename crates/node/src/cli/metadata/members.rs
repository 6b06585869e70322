//! `bifrost metadata members`.

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost_types::NodeId;
use bifrost_wire::grpc::{ClientOptions, GrpcMetadataAdmin};
use bifrost_wire::metadata_admin::{MemberRole, MemberStatus, MetadataAdmin};
use comfy_table::Cell;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use super::MemberAddress;
use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, printable};
use crate::cli::exit::Exit;

/// For one member to answer.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct MembersArgs {
    #[command(flatten)]
    address: MemberAddress,
}

/// One member, as JSON. What only it knows is `null` when it does not answer.
#[derive(Debug, Serialize)]
struct MemberReport {
    node: String,
    address: String,
    voter: bool,
    answers: bool,
    role: Option<&'static str>,
    term: Option<u64>,
    last_log: Option<u64>,
    applied: Option<u64>,
    group: Option<String>,
}

pub(crate) async fn run(context: &Context, args: MembersArgs) -> Result<Exit, CliError> {
    let addresses = args.address.addresses(context);
    let options = ClientOptions { cluster: None, ..context.config().connection.clone() };
    let known = ask(&addresses, &options).await;
    let newest = known.values().filter(|status| !status.members.is_empty()).max_by_key(|status| status.term);
    let group = newest.map(|status| status.members.clone()).ok_or_else(|| super::no_member(&addresses))?;
    let of_group: Vec<String> = group.iter().map(|known| known.member.address.clone()).collect();
    let known = ask(&of_group, &options).await;
    let reports: Vec<MemberReport> = group
        .into_iter()
        .map(|member| {
            let status = known.get(&member.member.node);
            MemberReport {
                node: member.member.node.to_string(),
                address: member.member.address,
                voter: member.voter,
                answers: status.is_some(),
                role: status.map(|status| role(status.role)),
                term: status.map(|status| status.term),
                last_log: status.and_then(|status| status.last_log),
                applied: status.and_then(|status| status.applied),
                group: status.map(|status| format!("{:016x}", status.group)),
            }
        })
        .collect();
    if context.output() == Output::Json {
        for report in &reports {
            context.print_json(report)?;
        }
        return Ok(Exit::Done);
    }
    let mut table = context.table();
    table.set_header(["MEMBER", "ADDRESS", "VOTES", "ROLE", "TERM", "LAST ENTRY", "APPLIED"]);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for report in reports {
        table.add_row([
            Cell::new(report.node),
            Cell::new(printable(&report.address)),
            Cell::new(if report.voter { "yes" } else { "learns" }),
            Cell::new(report.role.unwrap_or("no answer")),
            Cell::new(number(report.term)),
            Cell::new(number(report.last_log)),
            Cell::new(number(report.applied)),
        ]);
    }
    context.print(&format!("{}\n", table.trim_fmt()))?;
    Ok(Exit::Done)
}

/// What members at these addresses say, by their node.
async fn ask(addresses: &[String], options: &ClientOptions) -> BTreeMap<NodeId, MemberStatus> {
    let asked = addresses.iter().map(|address| async {
        let admin = GrpcMetadataAdmin::connect_lazy(address, options).ok()?;
        timeout(DEADLINE, admin.status()).await.ok()?.ok()
    });
    join_all(asked).await.into_iter().flatten().map(|status| (status.node, status)).collect()
}

const fn role(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Learner => "learner",
        MemberRole::Follower => "follower",
        MemberRole::Candidate => "candidate",
        MemberRole::Leader => "leader",
        MemberRole::Stopped => "stopped",
    }
}
