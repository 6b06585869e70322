//! `bifrost append`: lines of the input become records. What is read at once is one atomic batch, and many batches are in
//! flight; their outcomes are printed in the order of the lines.

mod input;
mod outcome;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use bifrost::{Appender, AppenderOptions, Keys, Ticket};
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::error::{CliError, ErrorCode};
use super::exit::Exit;
use super::failures::plain;
use super::log_ref::LogRef;
use super::progress::{Unit, bar};
use super::values::parse_keys;

use self::input::{Format, InputError, Lines};
use self::outcome::Outcomes;

pub(crate) const HELP: &str = "\
Prints the LSN of each record, in the order of the lines. With --output json, one object per record:
  {\"outcome\":\"committed\",\"line\":1,\"lsn\":17}
An outcome that is unknown (exit code 6) comes with an append id; `bifrost resolve` tells later.";

/// Appends whose outcome is waited for; their bytes are bounded by the appender.
const APPENDS_IN_FLIGHT: usize = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct AppendArgs {
    /// The log, by name or number
    log: LogRef,
    /// Read lines from this file instead of stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Each line is base 64: for payloads with any bytes in them
    #[arg(long)]
    base64: bool,
    /// Keys of every record: one as in 7, two as in 7,9, or a range as in 7-9
    #[arg(long, value_name = "KEYS", value_parser = parse_keys)]
    keys: Option<Keys>,
}

/// One append under way.
struct Sent {
    first: u64,
    records: u64,
    read_bytes: u64,
    ticket: Ticket,
}

pub(crate) async fn run(context: &Context, args: AppendArgs) -> Result<Exit, CliError> {
    let (input, size) = input::open(args.file.as_deref()).map_err(|error| {
        let name = args.file.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        CliError::new(ErrorCode::InvalidInput, format!("{name} cannot be read")).with_cause(plain(&error))
    })?;
    let log = context.log(&args.log).await?;
    let options = AppenderOptions {
        give_up_after: context.timeout_flag().unwrap_or(context.config().appender.give_up_after),
        ..context.config().appender.clone()
    };
    if args.file.is_none() && io::stdin().is_terminal() && context.terminal().stderr {
        context.say("reading lines from the terminal; Ctrl-D ends them");
    }
    let appender = log.appender_with(options);
    let format = Format { base64: args.base64, keys: args.keys.unwrap_or_default() };
    let lines = input::start(input, format)
        .map_err(|error| CliError::new(ErrorCode::Failed, "no thread can be started").because(&error))?;
    let bar = bar(context, size, Unit::Bytes);
    let mut outcomes = Outcomes::new(args.log);
    // Ends the sending, at the first failure too: what follows a hole is not wanted.
    let enough = context.stop().child_token();
    let (sent, received) = mpsc::channel(APPENDS_IN_FLIGHT);
    let (input_error, settled) =
        tokio::join!(send(&appender, lines, sent, &enough), settle(context, &mut outcomes, received, &enough, &bar));
    bar.finish_and_clear();
    settled?;
    let verdict = outcomes.verdict(input_error.as_ref(), context.stop().is_cancelled());
    if verdict.is_ok() && context.terminal().stderr {
        context.say(&outcomes.summary());
    }
    verdict.map(|()| Exit::Done)
}

/// Sends what is read until it ends or is enough; an error of the input ends it, after what came before was sent.
async fn send(
    appender: &Appender,
    mut lines: mpsc::Receiver<Result<Lines, InputError>>,
    sent: mpsc::Sender<Sent>,
    enough: &CancellationToken,
) -> Option<InputError> {
    let sending = async {
        while let Some(next) = lines.recv().await {
            let Lines { first, records, read_bytes } = match next {
                Ok(lines) => lines,
                Err(error) => return Some(error),
            };
            let count = records.len();
            let payload_bytes = records.iter().map(|record| record.payload.len()).sum();
            let ticket = match appender.reserve_batch(payload_bytes, count).await {
                Ok(permit) => permit.send_batch(records),
                // Closed for good: an append that is under way says so, or this one would.
                Err(_) => return None,
            };
            let append = Sent { first, records: count as u64, read_bytes, ticket };
            if sent.send(append).await.is_err() {
                return None;
            }
        }
        None
    };
    enough.run_until_cancelled(sending).await.flatten()
}

/// Waits for the outcomes, in the order of the lines.
async fn settle(
    context: &Context,
    outcomes: &mut Outcomes,
    mut received: mpsc::Receiver<Sent>,
    enough: &CancellationToken,
    bar: &ProgressBar,
) -> Result<(), CliError> {
    while let Some(Sent { first, records, read_bytes, ticket }) = received.recv().await {
        let told = outcomes.ended(context, first, records, ticket.await);
        bar.set_position(read_bytes);
        if told.is_err() || !outcomes.all_well() {
            enough.cancel();
        }
        told?;
    }
    Ok(())
}
