//! Three RabbitMQ nodes and a quorum queue with three members; an append is a publish with a publisher confirm. The
//! client is connected to the node that leads the queue.
//!
//! The nodes find each other through an `epmd` of their own, on a port of its own, so that neither a broker of this
//! machine nor its `epmd` is met.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm};
use tokio::process::Command;

use super::{Cluster, Ground, until_ready};
use crate::cell::Outcome;
use crate::closed_loop::{Appends, Load, Order, append};
use crate::members::{Members, Tools};
use crate::ports;

/// Debian's scripts, below the ones of its service, which change the user.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

pub(super) struct Three {
    connection: Connection,
    queues: AtomicU32,
}

pub(super) async fn version() -> Result<String> {
    if !Path::new(SCRIPTS).join("rabbitmq-server").exists() {
        bail!("there is no {SCRIPTS}/rabbitmq-server");
    }
    let libraries = Path::new(SCRIPTS).parent().context("the directory of RabbitMQ")?.join("lib");
    let names = std::fs::read_dir(&libraries).with_context(|| format!("reading {}", libraries.display()))?;
    let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let versions: Vec<_> = names.filter_map(|name| Some(name.strip_prefix("rabbitmq_server-")?.to_owned())).collect();
    Ok(format!("RabbitMQ {}", versions.join(", ")))
}

/// What all nodes and tools of one cluster have in common.
struct Surroundings<'a> {
    home: &'a Path,
    epmd: u16,
}

impl Surroundings<'_> {
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(Path::new(SCRIPTS).join(script));
        command.env("HOME", self.home).env("ERL_EPMD_PORT", self.epmd.to_string());
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1").env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command
    }
}

pub(super) async fn start(ground: &Ground, members: &mut Members) -> Result<Three> {
    let home = ground.member("home")?;
    let cookie = home.join(".erlang.cookie");
    std::fs::write(&cookie, "bench-peers")?;
    std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o400))?;
    let tools = members.tools();
    let [epmd] = ports::free()?;
    let around = Surroundings { home: &home, epmd };
    let mut command = Command::new("epmd");
    members.start("epmd", command.args(["-address", "127.0.0.1", "-port", &epmd.to_string()]), &home)?;

    let ports = ports::of_members::<2>()?;
    let names = [1, 2, 3].map(|number| format!("bench{number}@localhost"));
    for (place, (name, [clients, nodes])) in names.iter().zip(ports).enumerate() {
        let directory = ground.member(&format!("n{place}"))?;
        let config = directory.join("rabbitmq.conf");
        std::fs::write(&config, configuration(clients, &names))?;
        let plugins = directory.join("enabled_plugins");
        std::fs::write(&plugins, "[].\n")?;
        let mut command = around.command("rabbitmq-server");
        command.env("RABBITMQ_NODENAME", name).env("RABBITMQ_CONFIG_FILE", &config);
        command.env("RABBITMQ_DIST_PORT", nodes.to_string()).env("RABBITMQ_ENABLED_PLUGINS_FILE", &plugins);
        command.env("RABBITMQ_MNESIA_BASE", directory.join("data")).env("RABBITMQ_LOG_BASE", directory.join("log"));
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        members.start(&format!("n{place}"), &mut command, &directory)?;
        if place == 0 {
            // The others join whom they find: the first one must be there.
            let first = || wait(&around, &tools, name, &["await_startup"]);
            until_ready(members, first).await?;
        }
    }
    let together = || wait(&around, &tools, &names[0], &["await_online_nodes", "3"]);
    until_ready(members, together).await?;
    let uri = format!("amqp://guest:guest@127.0.0.1:{}/%2f", ports[0][0]);
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.context("connecting")?;
    Ok(Three { connection, queues: AtomicU32::new(0) })
}

/// Asks until the node, or all of them, are there.
async fn wait(around: &Surroundings<'_>, tools: &Tools, node: &str, what: &[&str]) -> Result<()> {
    let mut command = around.command("rabbitmqctl");
    tools.tool(command.args(["--node", node, "--timeout", "30"]).args(what)).await?;
    Ok(())
}

fn configuration(clients: u16, names: &[String]) -> String {
    let mut text = format!("listeners.tcp.1 = 127.0.0.1:{clients}\n");
    text += "cluster_formation.peer_discovery_backend = classic_config\n";
    for (number, name) in (1..).zip(names) {
        text += &format!("cluster_formation.classic_config.nodes.{number} = {name}\n");
    }
    text
}

impl Three {
    async fn queue(&self) -> Result<(Channel, String)> {
        let name = format!("bench-{}", self.queues.fetch_add(1, Ordering::Relaxed));
        let channel = self.connection.create_channel().await.context("making a channel")?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.context("asking for confirms")?;
        let mut kind = FieldTable::default();
        kind.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        kind.insert("x-quorum-initial-group-size".into(), AMQPValue::LongInt(3));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.as_str().into(), options, kind).await.context("making a queue")?;
        Ok((channel, name))
    }
}

impl Cluster for Three {
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let (channel, queue) = self.queue().await?;
            let outcome = append(Writer { channel: channel.clone(), queue: queue.clone() }, load).await?;
            let options = QueueDeleteOptions::default();
            channel.queue_delete(queue.as_str().into(), options).await.context("deleting a queue")?;
            Ok(outcome)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The nodes stop next, whatever becomes of this connection.
            let _closed = self.connection.close(200, "done".into()).await;
        })
    }
}

struct Writer {
    channel: Channel,
    queue: String,
}

impl Appends for Writer {
    type Sent = PublisherConfirm;
    const ORDER: Order = Order::AsSent;

    async fn send(&mut self, payload: Bytes) -> Result<PublisherConfirm> {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
        let queue = self.queue.as_str().into();
        Ok(self.channel.basic_publish("".into(), queue, options, &payload, properties).await?)
    }

    async fn outcome(sent: PublisherConfirm) -> Result<()> {
        match sent.await? {
            Confirmation::Ack(None) => Ok(()),
            other => bail!("the broker said {other:?}"),
        }
    }
}
