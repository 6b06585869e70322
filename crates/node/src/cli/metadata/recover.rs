//! `bifrost metadata recover`.

use std::path::PathBuf;
use std::sync::Arc;

use bifrost::catalog::{Catalog, StoredChain};
use bifrost::fresh_op;
use bifrost_metadata::MemoryMetadata;
use bifrost_raft::machine::offline::Survey;
use bifrost_raft::{GroupId, Member};
use serde::Serialize;

use super::target;
use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode, printable};
use crate::cli::exit::Exit;
use crate::cli::failures::look_catalog_error;
use crate::process::state::MemberState;

pub(crate) const HELP: &str = "\
Only when a majority of the members is lost for good: stop every node first, and take the member with the highest last \
entry. Say --dry-run to see what would be kept. Everything that this member has is kept, also what is not known to be \
committed. The members that are left out must not run again as they are: they are refused as soon as they reach this one, \
and cannot be held back before.";

/// Chains that were changed last and are told of.
const NEWEST: usize = 5;
/// Logs that are read at a time.
const PAGE: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct RecoverArgs {
    /// The data directory of the node that is left, which is stopped
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Say what would be kept and what may be lost, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What is kept and what may be lost, as JSON.
#[derive(Debug, Serialize)]
struct RecoverReport {
    recovered: bool,
    cluster: String,
    member: String,
    group: String,
    last_entry: u64,
    last_term: u64,
    committed: Option<u64>,
    accepted_only: u64,
    revision: u64,
    keys: usize,
    logs: usize,
    nodes: usize,
    newest: Vec<ChainReport>,
    left_out: Vec<String>,
}

/// A chain that was changed lately.
#[derive(Debug, Serialize)]
struct ChainReport {
    log: u64,
    name: Option<String>,
    version: u64,
    revision: u64,
    segments: usize,
    pending: bool,
}

pub(crate) async fn run(context: &Context, args: RecoverArgs) -> Result<Exit, CliError> {
    let (directory, mut state) = target::node_directory(&args.from)?;
    let refused = |message: String| CliError::new(ErrorCode::Refused, message);
    let Some(member) = state.member.clone() else {
        return Err(refused(format!("the node in {} has no metadata member", args.from.display()))
            .with_advice("name the data directory of a node with the role `metadata`"));
    };
    let mut offline = target::offline(&target::member_directory(&directory)).await?;
    let survey = offline.survey();
    if survey.owner.cluster != state.cluster {
        return Err(refused(format!("the log is of cluster {}, the node of {}", survey.owner.cluster, state.cluster)));
    }
    let mut report = report(&survey).await?;
    if args.dry_run {
        tell(context, &report)?;
        return Ok(Exit::Done);
    }
    if !args.yes {
        if context.output() != Output::Json {
            tell(context, &report)?;
        }
        if !context.confirm("are the other members lost for good, and is this to be the group?")? {
            return Err(refused("not confirmed: nothing was changed".to_owned()));
        }
    }
    let group = GroupId::from(fresh_op().get() as u64);
    let recovered = offline.recover(Member { address: member.address.clone() }, group).await;
    recovered.map_err(|error| target::unreadable(&error.into()))?;
    state.metadata = vec![member.address.clone()];
    state.member = Some(MemberState { voter: true, ..member });
    directory.write(&state).map_err(|error| {
        CliError::new(ErrorCode::PartlyDone, "the group is recovered, and node.json names the others still")
            .because(&error)
            .with_advice("start the node: it goes on")
    })?;
    report.recovered = true;
    report.group = group.to_string();
    tell(context, &report)?;
    Ok(Exit::Done)
}

async fn report(survey: &Survey) -> Result<RecoverReport, CliError> {
    let catalog = Catalog::new(Arc::new(MemoryMetadata::of(survey.keyspace.clone())));
    let mut chains: Vec<StoredChain> = Vec::new();
    loop {
        let after = chains.last().map(|stored| stored.chain.log);
        let page = catalog.logs(after, PAGE).await.map_err(look_catalog_error)?;
        if page.is_empty() {
            break;
        }
        chains.extend(page);
    }
    let logs = chains.len();
    chains.sort_by_key(|stored| std::cmp::Reverse(stored.revision));
    let newest = chains.into_iter().take(NEWEST).map(|stored| ChainReport {
        log: stored.chain.log.get(),
        name: stored.chain.name.clone(),
        version: stored.chain.version,
        revision: stored.revision,
        segments: stored.chain.segments.len(),
        pending: stored.chain.pending.is_some(),
    });
    let last = survey.last.ok_or_else(|| {
        CliError::new(ErrorCode::Refused, "this member was never told of a group")
            .with_advice("name the data directory of another node")
    })?;
    let others = survey.members.iter().filter(|(id, _)| **id != survey.owner.member);
    Ok(RecoverReport {
        recovered: false,
        cluster: survey.owner.cluster.to_string(),
        member: format!("N{}", survey.owner.member),
        group: survey.owner.lineage.group.to_string(),
        last_entry: last.index,
        last_term: last.leader_id.term,
        committed: survey.committed.map(|id| id.index),
        accepted_only: survey.accepted_only(),
        revision: survey.keyspace.revision(),
        keys: survey.keyspace.entries().len(),
        logs,
        nodes: catalog.nodes().await.map_err(look_catalog_error)?.0.len(),
        newest: newest.collect(),
        left_out: others.map(|(id, member)| format!("N{id} at {}", member.address)).collect(),
    })
}

fn tell(context: &Context, report: &RecoverReport) -> Result<(), CliError> {
    if context.output() == Output::Json {
        return context.print_json(report);
    }
    let committed = report.committed.map_or_else(|| "none".to_owned(), |index| format!("up to {index}"));
    let mut text = format!("the metadata of cluster {}, as {} has it\n\n", report.cluster, report.member);
    text += &format!("  kept         every entry up to {}, of term {}\n", report.last_entry, report.last_term);
    text += &format!("  known to be committed  {committed}; {} more are only accepted\n", report.accepted_only);
    text += &format!(
        "  in them      revision {}: {} keys, {} logs, {} nodes\n",
        report.revision, report.keys, report.logs, report.nodes
    );
    for chain in &report.newest {
        let name = chain.name.as_deref().map(printable).unwrap_or_default();
        let pending = if chain.pending { ", a reconfiguration pending" } else { "" };
        text += &format!(
            "  changed last log {} {name}: version {} at revision {}, {} segments{pending}\n",
            chain.log, chain.version, chain.revision, chain.segments
        );
    }
    let left_out = if report.left_out.is_empty() { "nobody".to_owned() } else { report.left_out.join(", ") };
    text += &format!("  left out     {}\n", printable(&left_out));
    text +=
        &format!("  may be lost  whatever they decided behind entry {} without {}\n", report.last_entry, report.member);
    if report.recovered {
        text += &format!(
            "\n{} is the metadata group now, by the name {}. Start its node. Those that were left out join it anew: with \
             their directory `metadata` moved away, and --join.\n",
            report.member, report.group
        );
    } else {
        text += "\nnothing was changed\n";
    }
    context.print(&text)
}
