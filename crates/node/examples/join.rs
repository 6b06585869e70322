//! A node inside this process: it joins a cluster, and the log that it appends to is sequenced here.
//!
//! ```text
//! join NAME DIRECTORY METADATA-MEMBER
//! ```
//! Each line of standard input is appended to the log NAME and answered by its LSN. The cluster is made by
//! `bifrost server --bootstrap`, whose metadata member listens at 127.0.0.1:2438 by default.

use std::env::args;
use std::io::{self, Write as _, stdin, stdout};
use std::thread;

use anyhow::Context as _;
use bifrost::{Bifrost, LogOptions};
use bifrost_node::Join as _;
use bifrost_node::process::ProcessOptions;
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = args().skip(1);
    let mut next =
        |what| args.next().with_context(|| format!("{what} is missing: join NAME DIRECTORY METADATA-MEMBER"));
    let (name, directory, metadata) = (next("NAME")?, next("DIRECTORY")?, next("METADATA-MEMBER")?);

    let mut options = ProcessOptions::new(&name, "127.0.0.1:0", directory);
    options.join = vec![metadata];
    let joined = Bifrost::join(options).await?;
    let log = joined.bifrost().open_log(&name, LogOptions::default()).await?;
    let chain = log.chain();
    let last = chain.last().context("a log has a segment")?;
    writeln!(stdout(), "{} runs, {} numbers the appends", joined.record().id, last.params.sequencer)?;

    let appender = log.appender();
    let mut lines = lines();
    while let Some(line) = lines.recv().await {
        writeln!(stdout(), "{}", appender.append(line?).await?)?;
    }
    joined.shutdown().await;
    Ok(())
}

/// The lines of standard input; reading them blocks, so it has a thread of its own.
fn lines() -> mpsc::Receiver<io::Result<String>> {
    let (sender, lines) = mpsc::channel(16);
    thread::spawn(move || stdin().lines().try_for_each(|line| sender.blocking_send(line)));
    lines
}
