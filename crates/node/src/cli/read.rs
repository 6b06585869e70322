//! `bifrost read`.

mod show;

use std::convert::Infallible;
use std::num::NonZeroU64;

use bifrost::{GapKind, KeyFilter, Log, Lsn, ReadEvent, ReadOptions, Reader, TailKind, WaitsFor};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::context::Context;
use super::error::{CliError, ErrorCode, printable};
use super::exit::Exit;
use super::failures::{look_error, read_error, timed_out};
use super::log_ref::LogRef;
use super::progress::{Unit, bar};
use super::values::{Start, parse_key_filter, parse_lsn, parse_start};

use self::show::Printer;

pub(crate) const HELP: &str = "\
Ends at the tail as it is when the command begins, unless --follow is given; Ctrl-C ends that, with exit code 130.
With --output json, one object per record or gap, payloads in base 64:
  {\"type\":\"record\",\"lsn\":17,\"keys\":[7],\"payload\":\"aGVsbG8=\",\"text\":\"hello\",...}
  {\"type\":\"gap\",\"from\":1,\"end\":17,\"kind\":\"trimmed\"}";

#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// The log, by name or number
    log: LogRef,
    /// Where to begin: an LSN, `oldest`, `tail`, or `tail-N` for the last N
    #[arg(long, value_name = "LSN", default_value = "oldest", value_parser = parse_start)]
    from: Start,
    /// The first LSN that is not wanted any more
    #[arg(long, value_name = "LSN", value_parser = parse_lsn)]
    until: Option<Lsn>,
    /// Only records with this key, or with one of a range as in 7-9
    #[arg(long, value_name = "KEY", value_parser = parse_key_filter)]
    key: Option<KeyFilter>,
    /// Go on when the tail is reached, and wait for more
    #[arg(long, short)]
    follow: bool,
}

/// What is to be read, in LSNs.
struct Range {
    from: Lsn,
    /// `None` to go on for ever.
    end: Option<Lsn>,
}

pub(crate) async fn run(context: &Context, args: ReadArgs) -> Result<Exit, CliError> {
    if let (Start::Lsn(from), Some(until)) = (args.from, args.until)
        && until < from
    {
        let told = format!("--until {until} lies before --from {from}");
        return Err(CliError::new(ErrorCode::InvalidArgument, told)
            .with_advice("--until is the first LSN that is not wanted: it is --from or more"));
    }
    let log = context.log(&args.log).await?;
    let range = range(context, &args, &log).await?;
    if range.end.is_some_and(|end| end <= range.from) {
        if context.terminal().stderr {
            context.say(&format!("nothing to read from LSN {} on", range.from));
        }
        return Ok(Exit::Done);
    }
    let options = ReadOptions {
        from: range.from,
        until: range.end,
        filter: args.key.unwrap_or_default(),
        credit_bytes: context.config().reader_credit_bytes,
    };
    let width = range.end.unwrap_or(range.from).get().max(NARROWEST.get()).ilog10() + 1;
    let total = range.end.and_then(|end| end.distance_from(range.from));
    let mut printer = Printer::new(context, width as usize, bar(context, total, Unit::Records), range.from);
    let outcome = copy(context, &args, log.read(options), &mut printer).await;
    let flushed = printer.finish();
    let lost = outcome?;
    flushed?;
    if lost > 0 {
        let told = format!("{lost} positions of log `{}` are lost: no copy that is left has them", args.log);
        return Err(CliError::new(ErrorCode::PartlyDone, told)
            .with_advice(format!("`bifrost explain {}` shows which disks are missing", args.log)));
    }
    Ok(Exit::Done)
}

/// LSNs are printed at least this wide, so that lines stay under each other for a while.
const NARROWEST: NonZeroU64 = NonZeroU64::new(10_000).expect("not 0");

async fn range(context: &Context, args: &ReadArgs, log: &Log) -> Result<Range, CliError> {
    let oldest = log.chain().trim_point.and_then(|point| point.advance(1).ok()).unwrap_or(Lsn::FIRST);
    let relative = matches!(args.from, Start::BeforeTail(_));
    let tail = if relative || !args.follow {
        let tail = context.within("asking for the tail", log.find_tail(TailKind::Linearizable)).await?;
        Some(tail.map_err(|error| look_error(&args.log, error))?.lsn)
    } else {
        None
    };
    let from = match (args.from, tail) {
        (Start::Lsn(from), _) => from,
        (Start::BeforeTail(records), Some(tail)) => {
            Lsn::new(tail.get().saturating_sub(records)).map_or(oldest, |from| from.max(oldest))
        }
        (Start::Oldest | Start::BeforeTail(_), _) => oldest,
    };
    let end = match tail.filter(|_| !args.follow) {
        Some(tail) => Some(args.until.map_or(tail, |until| until.min(tail))),
        None => args.until,
    };
    Ok(Range { from, end })
}

/// Prints everything that comes; returns how many positions were lost.
async fn copy(
    context: &Context,
    args: &ReadArgs,
    mut reader: Reader,
    printer: &mut Printer<'_>,
) -> Result<u64, CliError> {
    // What a filter excludes is passed over in silence, however long that takes.
    let patience = (!args.follow && args.key.is_none()).then_some(context.config().client.timeout);
    let mut lost = 0;
    let mut waits_for = reader.waits_for();
    loop {
        let event = match reader.next().now_or_never() {
            Some(event) => event,
            None => {
                // Nothing more is there now: show what is.
                printer.flush()?;
                tokio::select! {
                    biased;
                    () = context.stop().cancelled() => return Err(CliError::interrupted()),
                    event = reader.next() => event,
                    never = tell(context, &mut waits_for) => match never {},
                    () = passed(patience) => {
                        let error = timed_out("waiting for a copy to answer", patience.unwrap_or_default());
                        let waits = waits_for.borrow().as_ref().map(ToString::to_string);
                        return Err(match waits {
                            Some(waits) => error.with_cause(waits),
                            None => error,
                        });
                    }
                }
            }
        };
        match event {
            None => return Ok(lost),
            Some(Err(error)) => return Err(read_error(&args.log, &error)),
            Some(Ok(ReadEvent::CaughtUp { .. })) => {}
            Some(Ok(ReadEvent::Record(record))) => printer.record(&record)?,
            Some(Ok(ReadEvent::Gap { from, end, kind })) => {
                if kind == GapKind::Lost {
                    lost += end.distance_from(from).unwrap_or_default();
                }
                printer.gap(from, end, kind)?;
            }
        }
        if context.stop().is_cancelled() {
            return Err(CliError::interrupted());
        }
    }
}

/// Says whom the reader waits for, each time that changes. Never ends.
async fn tell(context: &Context, waits_for: &mut watch::Receiver<Option<WaitsFor>>) -> Infallible {
    while waits_for.changed().await.is_ok() {
        let told = waits_for.borrow_and_update().as_ref().map(ToString::to_string);
        if let Some(told) = told {
            context.say(&printable(&told));
        }
    }
    std::future::pending().await
}

async fn passed(patience: Option<std::time::Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}
