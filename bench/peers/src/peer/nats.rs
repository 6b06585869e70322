//! Three `nats-server` processes and a JetStream stream with three replicas on disk. The client is connected to the
//! stream's leader.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{Context, PublishAckFuture};
use async_nats::jetstream::stream::{ClusterInfo, Config, StorageType, Stream};
use async_nats::{Client, jetstream};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Cluster, Ground, READY, installed, until_ready};
use crate::cell::{Outcome, READ_BYTES};
use crate::closed_loop::{Appends, Load, Order, append, fill};
use crate::members::{Members, Tools};
use crate::ports;
use crate::reads::{self, BACKLOG, Delivers};

/// Messages that the server may send before it is asked for more: the client's credit.
const BATCH: usize = 5_000;

pub(super) struct Three {
    clients: Vec<Client>,
    streams: AtomicU32,
}

fn binary(ground: &Ground) -> PathBuf {
    ground.installed.join("nats/bin/nats-server")
}

pub(super) async fn version(ground: &Ground, tools: &Tools) -> Result<String> {
    installed(&binary(ground))?;
    let said = tools.tool(Command::new(binary(ground)).arg("--version")).await?;
    Ok(said.trim().to_owned())
}

pub(super) async fn start(ground: &Ground, members: &mut Members, sync: &str) -> Result<Three> {
    let ports = ports::of_members::<2>()?;
    let routes = ports.map(|[_, cluster]| format!("\"nats://127.0.0.1:{cluster}\"")).join(", ");
    for (name, [clients, cluster]) in ["a", "b", "c"].into_iter().zip(ports) {
        let directory = ground.member(name)?;
        let mut config = String::new();
        writeln!(config, "server_name: {name}\nlisten: \"127.0.0.1:{clients}\"")?;
        writeln!(config, "jetstream {{\n  store_dir: {:?}\n  {sync}\n}}", directory.join("store"))?;
        writeln!(config, "cluster {{\n  name: bench\n  listen: \"127.0.0.1:{cluster}\"\n  routes: [{routes}]\n}}")?;
        let file = directory.join("nats.conf");
        std::fs::write(&file, config)?;
        members.start(name, Command::new(binary(ground)).arg("--config").arg(&file), &directory)?;
    }
    let mut clients = Vec::new();
    for [port, _] in ports {
        let options = || async_nats::ConnectOptions::new().client_capacity(65_536).subscription_capacity(65_536);
        let connect = || async move { Ok(options().connect(format!("nats://127.0.0.1:{port}")).await?) };
        clients.push(until_ready(members, connect).await.context("connecting")?);
    }
    let three = Three { clients, streams: AtomicU32::new(0) };
    let probe = || async {
        let (_, _, stream) = three.stream().await?;
        three.delete(&stream).await
    };
    until_ready(members, probe).await.context("a stream with three replicas")?;
    Ok(three)
}

impl Three {
    /// A new stream, at its leader.
    async fn stream(&self) -> Result<(Context, String, Stream)> {
        let name = format!("bench-{}", self.streams.fetch_add(1, Ordering::Relaxed));
        let config = Config {
            name: name.clone(),
            subjects: vec![name.clone()],
            num_replicas: 3,
            storage: StorageType::File,
            ..Config::default()
        };
        let first = self.clients.first().context("no client")?;
        let mut stream = jetstream::new(first.clone()).create_stream(config).await.context("making a stream")?;
        let cluster = in_step(&mut stream).await?;
        let leads = |client: &&Client| Some(client.server_info().server_name) == cluster.leader;
        let client = self.clients.iter().find(leads).context("the stream has no leader")?;
        let context = jetstream::new(client.clone());
        let stream = context.get_stream(&name).await.context("a stream at its leader")?;
        Ok((context, name, stream))
    }

    async fn delete(&self, stream: &Stream) -> Result<()> {
        let context = jetstream::new(self.clients.first().context("no client")?.clone());
        context.delete_stream(&stream.cached_info().config.name).await.context("deleting a stream")?;
        Ok(())
    }
}

/// Waits until the followers of a new stream have what its leader has.
async fn in_step(stream: &mut Stream) -> Result<ClusterInfo> {
    let deadline = Instant::now() + READY;
    loop {
        let info = timeout_at(deadline, stream.info()).await.context("no word of a stream")?;
        let cluster = info.context("asking for a stream")?.cluster.clone().context("a stream without a cluster")?;
        let in_step = cluster.replicas.iter().filter(|replica| replica.current).count();
        if in_step == 2 && cluster.leader.is_some() {
            return Ok(cluster);
        }
        if Instant::now() >= deadline {
            bail!("{in_step} of 2 followers are in step");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl Cluster for Three {
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let (context, subject, stream) = self.stream().await?;
            let outcome = append(Writer { context, subject }, load).await?;
            self.delete(&stream).await?;
            Ok(outcome)
        })
    }

    fn catch_up<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let (context, subject, stream) = self.stream().await?;
            fill(Writer { context, subject }, READ_BYTES, load.in_flight, BACKLOG).await?;
            let outcome = reads::catch_up(|| catching_up(&stream), load).await?;
            self.delete(&stream).await?;
            Ok(outcome)
        })
    }

    fn tail<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let (context, subject, stream) = self.stream().await?;
            let reader = following(&stream).await?;
            let outcome = reads::tail(Writer { context, subject }, reader, load).await?;
            self.delete(&stream).await?;
            Ok(outcome)
        })
    }
}

struct Writer {
    context: Context,
    subject: String,
}

impl Appends for Writer {
    type Sent = PublishAckFuture;
    const ORDER: Order = Order::AsSent;

    async fn send(&mut self, payload: Bytes) -> Result<PublishAckFuture> {
        Ok(self.context.publish(self.subject.clone(), payload).await?)
    }

    async fn outcome(sent: PublishAckFuture) -> Result<()> {
        sent.await?;
        Ok(())
    }
}

/// A log that is read from its start: a consumer without acknowledgements, in memory, with much credit.
struct CatchUp {
    first: Option<Bytes>,
    messages: pull::Stream,
}

/// The way to a new consumer is known a moment later than the consumer: asks until there is a first message.
async fn catching_up(stream: &Stream) -> Result<CatchUp> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: Duration::from_secs(60),
        ..pull::Config::default()
    };
    let consumer: PullConsumer = stream.create_consumer(config).await.context("making a consumer")?;
    let deadline = Instant::now() + READY;
    loop {
        let messages = consumer.stream().max_messages_per_batch(BATCH).messages().await;
        let mut messages = messages.context("a stream of messages")?;
        match messages.next().await.context("the consumer ended")? {
            Ok(first) => return Ok(CatchUp { first: Some(first.message.payload), messages }),
            Err(error) if Instant::now() >= deadline => return Err(error).context("a first message"),
            Err(_) => sleep(Duration::from_millis(2)).await,
        }
    }
}

impl Delivers for CatchUp {
    async fn next(&mut self) -> Result<Bytes> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let message = self.messages.next().await.context("the consumer ended")?;
        Ok(message.context("a message")?.message.payload)
    }
}

/// A log that is followed.
struct Follower(Ordered);

async fn following(stream: &Stream) -> Result<Follower> {
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let consumer: Consumer<OrderedConfig> = stream.create_consumer(config).await.context("making a consumer")?;
    Ok(Follower(consumer.messages().await.context("a stream of messages")?))
}

impl Delivers for Follower {
    async fn next(&mut self) -> Result<Bytes> {
        let message = self.0.next().await.context("the consumer ended")?;
        Ok(message.context("a message")?.message.payload)
    }
}
