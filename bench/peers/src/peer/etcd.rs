//! Three `etcd` processes; an append is a Put at the leader, and its key is one of as many as there are appends in
//! flight.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::process::Command;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::{Cluster, Ground, until_ready};
use crate::cell::Outcome;
use crate::closed_loop::{Appends, Load, Order, append};
use crate::members::{Members, Tools};
use crate::ports;

/// How long an answer may take; longer than a stalled disk.
const ANSWER: Duration = Duration::from_secs(20);

/// `etcdserverpb.PutRequest`, what is used of it.
#[derive(Clone, PartialEq, Eq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// An answer or a question of which nothing is used.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Nothing {}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member: u64,
}

/// `etcdserverpb.StatusResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// The channel to the leader.
pub(super) struct Three(Channel);

pub(super) async fn version(tools: &Tools) -> Result<String> {
    let said = tools.tool(Command::new("etcd").arg("--version")).await?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

pub(super) async fn start(ground: &Ground, members: &mut Members) -> Result<Three> {
    let ports = ports::of_members::<2>()?;
    let names = ["a", "b", "c"];
    let all = names.into_iter().zip(ports).map(|(name, [_, peers])| format!("{name}=http://127.0.0.1:{peers}"));
    let all = all.collect::<Vec<_>>().join(",");
    for (name, [clients, peers]) in names.into_iter().zip(ports) {
        let directory = ground.member(name)?;
        let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
        let mut command = Command::new("etcd");
        command.args(["--name", name, "--data-dir"]).arg(directory.join("data"));
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        // Every revision of every key is kept until it is compacted: room for a whole round.
        command.args(["--initial-cluster", &all, "--quota-backend-bytes", "17179869184", "--log-level", "error"]);
        members.start(name, &mut command, &directory)?;
    }
    let leader = || async {
        for [port, _] in ports {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.timeout(ANSWER).tcp_nodelay(true);
            let channel = endpoint.connect().await?;
            let status: Status = call(&channel, "/etcdserverpb.Maintenance/Status", Nothing {}).await?;
            if status.leader != 0 && status.header.is_some_and(|header| header.member == status.leader) {
                put(&channel, Bytes::from_static(b"probe"), Bytes::new()).await?;
                return Ok(channel);
            }
        }
        bail!("nobody leads")
    };
    Ok(Three(until_ready(members, leader).await?))
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.context("the connection")?;
    let path = PathAndQuery::from_static(path);
    let answer = client.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
    Ok(answer.into_inner())
}

async fn put(channel: &Channel, key: Bytes, value: Bytes) -> Result<()> {
    call::<_, Nothing>(channel, "/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
    Ok(())
}

impl Cluster for Three {
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(append(Writer { leader: self.0.clone(), puts: 0, keys: load.in_flight }, load))
    }
}

struct Writer {
    leader: Channel,
    puts: usize,
    keys: usize,
}

impl Appends for Writer {
    type Sent = (Channel, Bytes, Bytes);
    const ORDER: Order = Order::Any;

    async fn send(&mut self, payload: Bytes) -> Result<Self::Sent> {
        self.puts += 1;
        let key = format!("key-{}", self.puts % self.keys);
        Ok((self.leader.clone(), key.into(), payload))
    }

    async fn outcome((leader, key, value): Self::Sent) -> Result<()> {
        put(&leader, key, value).await
    }
}
