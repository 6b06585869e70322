//! `bifrost resolve`.

use bifrost::{AppendId, ResolveError, Resolved};
use serde::Serialize;

use super::context::{Context, Output};
use super::error::{CliError, ErrorCode};
use super::exit::Exit;
use super::failures::{log_error, read_error};
use super::log_ref::LogRef;

#[derive(Debug, clap::Args)]
pub(crate) struct ResolveArgs {
    /// The log, by name or number
    log: LogRef,
    /// The append id, as `bifrost append` or the library told it
    #[arg(value_name = "APPEND-ID", value_parser = parse_append_id)]
    append: AppendId,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct ResolveReport {
    append_id: String,
    outcome: &'static str,
    /// Of the append's first record, if it is committed; the i-th follows i further on.
    lsn: Option<u64>,
    records: u32,
}

pub(crate) async fn run(context: &Context, args: ResolveArgs) -> Result<Exit, CliError> {
    let log = context.log(&args.log).await?;
    if args.append.log != log.id() {
        let told = format!("the append was made to log {}, not to {}", args.append.log, args.log);
        return Err(CliError::new(ErrorCode::InvalidArgument, told)
            .with_advice(format!("`bifrost resolve {} {}`", args.append.log, args.append)));
    }
    let resolved = context.within("finding out what became of the append", log.resolve(args.append)).await?;
    let resolved = resolved.map_err(|error| match error {
        ResolveError::Log(error) => log_error(&args.log, error),
        ResolveError::Read(error) => read_error(&args.log, &error),
    })?;
    let (outcome, lsn, text) = match resolved {
        Resolved::Committed(lsn) => ("committed", Some(lsn.get()), format!("committed at LSN {lsn}")),
        Resolved::NotAppended => {
            ("not-appended", None, "not appended, and never will be: safe to append again".to_owned())
        }
        Resolved::Unknowable => ("unknowable", None, "unknowable: where it would be was trimmed or lost".to_owned()),
    };
    if context.output() == Output::Json {
        let records = args.append.records.get();
        context.print_json(&ResolveReport { append_id: args.append.to_string(), outcome, lsn, records })?;
    } else {
        context.print(&(text + "\n"))?;
    }
    Ok(if resolved == Resolved::Unknowable { Exit::Unfinished } else { Exit::Done })
}

fn parse_append_id(text: &str) -> Result<AppendId, String> {
    text.parse().map_err(|_| "an append id looks like 7/01JABC.../1+1/0/1/1".to_owned())
}
