//! Three `redis-server` processes, a master and two replicas, `appendfsync always`. An append is XADD to a stream and
//! WAIT for one replica, on a connection of its own, because WAIT holds up its connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use redis::Client;
use redis::aio::MultiplexedConnection;
use tokio::process::Command;

use super::pool::Pool;
use super::{Cluster, Ground, until_ready};
use crate::cell::Outcome;
use crate::closed_loop::{Appends, Load, Order, append};
use crate::members::{Members, Tools};
use crate::ports;

/// How long an answer may take; longer than a stalled disk.
const ANSWER: Duration = Duration::from_secs(20);

pub(super) struct Three {
    client: Client,
    streams: AtomicU32,
}

pub(super) async fn version(tools: &Tools) -> Result<String> {
    let said = tools.tool(Command::new("redis-server").arg("--version")).await?;
    Ok(said.trim().to_owned())
}

pub(super) async fn start(ground: &Ground, members: &mut Members) -> Result<Three> {
    let [master, second, third] = ports::free::<3>()?;
    for (name, port) in [("a", master), ("b", second), ("c", third)] {
        let directory = ground.member(name)?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(&directory);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"]);
        command.args(["--repl-diskless-sync-delay", "0"]);
        if port != master {
            command.args(["--replicaof", "127.0.0.1", &master.to_string()]);
        }
        members.start(name, &mut command, &directory)?;
    }
    let client = Client::open(format!("redis://127.0.0.1:{master}/")).context("the address")?;
    let replicas = || async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let said: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        match said.matches("state=online").count() {
            2 => Ok(()),
            online => bail!("{online} of 2 replicas are online"),
        }
    };
    until_ready(members, replicas).await?;
    Ok(Three { client, streams: AtomicU32::new(0) })
}

impl Three {
    async fn connect(&self) -> Result<MultiplexedConnection> {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
        self.client.get_multiplexed_async_connection_with_config(&config).await.context("connecting")
    }
}

impl Cluster for Three {
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let stream = format!("bench-{}", self.streams.fetch_add(1, Ordering::Relaxed));
            let mut connections = Vec::with_capacity(load.in_flight);
            for _ in 0..load.in_flight {
                connections.push(self.connect().await?);
            }
            let outcome = append(Writer { pool: Pool::new(connections), stream: stream.clone() }, load).await?;
            let mut connection = self.connect().await?;
            redis::cmd("UNLINK").arg(stream).exec_async(&mut connection).await.context("deleting a stream")?;
            Ok(outcome)
        })
    }
}

struct Writer {
    pool: Pool<MultiplexedConnection>,
    stream: String,
}

struct Sent {
    pool: Pool<MultiplexedConnection>,
    connection: MultiplexedConnection,
    commands: redis::Pipeline,
}

impl Appends for Writer {
    type Sent = Sent;
    const ORDER: Order = Order::Any;

    async fn send(&mut self, payload: Bytes) -> Result<Sent> {
        let mut commands = redis::pipe();
        commands.cmd("XADD").arg(&self.stream).arg("*").arg("r").arg(&payload[..]).ignore();
        commands.cmd("WAIT").arg(1).arg(0);
        Ok(Sent { pool: self.pool.clone(), connection: self.pool.take()?, commands })
    }

    async fn outcome(mut sent: Sent) -> Result<()> {
        let [replicas]: [u32; 1] = sent.commands.query_async(&mut sent.connection).await?;
        if replicas == 0 {
            bail!("no replica has it");
        }
        sent.pool.give_back(sent.connection);
        Ok(())
    }
}
