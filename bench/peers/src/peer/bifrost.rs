//! Three `bifrost server` processes with the settings that they have by default; the log has two copies on three nodes.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use bifrost::{Appender, Bifrost, Log, LogOptions, ReadEvent, ReadOptions, Reader, ReplicationProperty, Ticket};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::process::Command;

use super::{Cluster, Ground, READY};
use crate::cell::{Outcome, READ_BYTES};
use crate::closed_loop::{Appends, Load, Order, append, fill};
use crate::members::{Members, Tools};
use crate::ports;
use crate::reads::{self, BACKLOG, Delivers};

pub(super) struct Three {
    bifrost: Bifrost,
    replication: ReplicationProperty,
    logs: AtomicU32,
}

pub(super) async fn version(ground: &Ground, tools: &Tools) -> Result<String> {
    if !ground.bifrost.exists() {
        bail!("there is no {}: `make bench-peers` builds it", ground.bifrost.display());
    }
    let said = tools.tool(Command::new(&ground.bifrost).arg("version")).await?;
    Ok(said.trim().to_owned())
}

pub(super) async fn start(ground: &Ground, members: &mut Members) -> Result<Three> {
    let ports = ports::of_members::<2>()?;
    for (place, name) in ["a", "b", "c"].into_iter().enumerate() {
        let directory = ground.member(name)?;
        let [clients, metadata] = ports[place];
        let config = directory.join("bifrost.toml");
        std::fs::write(&config, configuration(name, clients, metadata, &directory.join("data")))?;
        let mut command = Command::new(&ground.bifrost);
        command.args(["server", "--output", "json", "--config"]).arg(&config);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("BIFROST_") {
                command.env_remove(variable);
            }
        }
        if place == 0 {
            command.arg("--bootstrap");
        } else {
            command.arg("--join").arg(format!("127.0.0.1:{}", ports[0][1]));
        }
        members.start(name, &mut command, &directory)?;
        members.said("\"ready\"", READY).await?;
    }
    let addresses = ports.map(|[clients, _]| format!("127.0.0.1:{clients}"));
    let bifrost = Bifrost::connect(addresses).await.context("connecting")?;
    let replication = "2".parse().context("the replication property")?;
    Ok(Three { bifrost, replication, logs: AtomicU32::new(0) })
}

fn configuration(name: &str, clients: u16, metadata: u16, data: &Path) -> String {
    format!(
        "[node]\nname = \"{name}\"\nlisten = \"127.0.0.1:{clients}\"\ndata_dir = {data:?}\n\n\
         [metadata]\nlisten = \"127.0.0.1:{metadata}\"\n"
    )
}

impl Three {
    async fn log(&self) -> Result<Log> {
        let name = format!("bench-{}", self.logs.fetch_add(1, Ordering::Relaxed));
        let options = LogOptions { replication: Some(self.replication.clone()), ..LogOptions::default() };
        let log = self.bifrost.create_log(&name, options).await.context("making a log")?;
        let nodes = log.chain().last().map_or(0, |segment| segment.params.nodeset.size());
        if nodes != 3 {
            bail!("the log is on {nodes} nodes");
        }
        Ok(log)
    }

    async fn delete(&self, log: Log) -> Result<()> {
        self.bifrost.delete_log(log.id()).await.context("deleting a log")
    }
}

impl Cluster for Three {
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let log = self.log().await?;
            let outcome = append(Writer(log.appender()), load).await?;
            self.delete(log).await?;
            Ok(outcome)
        })
    }

    fn catch_up<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let log = self.log().await?;
            fill(Writer(log.appender()), READ_BYTES, load.in_flight, BACKLOG).await?;
            let open = || async { Ok(Follower(log.read(ReadOptions::default()))) };
            let outcome = reads::catch_up(open, load).await?;
            self.delete(log).await?;
            Ok(outcome)
        })
    }

    fn tail<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let log = self.log().await?;
            let reader = Follower(log.read(ReadOptions::default()));
            let outcome = reads::tail(Writer(log.appender()), reader, load).await?;
            self.delete(log).await?;
            Ok(outcome)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.bifrost.shutdown())
    }
}

struct Writer(Appender);

impl Appends for Writer {
    type Sent = Ticket;
    const ORDER: Order = Order::AsSent;

    async fn send(&mut self, payload: Bytes) -> Result<Ticket> {
        Ok(self.0.reserve(payload.len()).await?.send(payload))
    }

    async fn outcome(sent: Ticket) -> Result<()> {
        sent.await?;
        Ok(())
    }
}

struct Follower(Reader);

impl Delivers for Follower {
    async fn next(&mut self) -> Result<Bytes> {
        while let Some(event) = self.0.next().await {
            match event? {
                ReadEvent::Record(record) => return Ok(record.payload),
                ReadEvent::Gap { from, end, kind } => bail!("[{from}, {end}) is a gap: {kind:?}"),
                ReadEvent::CaughtUp { .. } => {}
            }
        }
        bail!("the reader ended")
    }
}
