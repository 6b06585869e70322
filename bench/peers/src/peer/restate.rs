//! Three Restate nodes with all roles and two copies of its log. An append resolves an awakeable that nobody waits for:
//! one record in the log of a partition. The partition's processor drops it then; no service has to run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::pool::Pool;
use super::{Cluster, Ground, installed, until_ready};
use crate::cell::Outcome;
use crate::closed_loop::{Appends, Load, Order, append};
use crate::members::{Members, Tools};
use crate::ports;

/// The door of an awakeable: `prom_1` and, in base 64, the invocation (eight bytes of partition key, sixteen of its
/// own) and the index of the journal entry. It is the same for all appends, so that they go to one log.
const AWAKEABLE: &str = "/restate/awakeables/prom_1AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYAAAAEQ/resolve";
/// How long an answer may take; longer than a stalled disk.
const ANSWER: Duration = Duration::from_secs(20);

pub(super) struct Three {
    ingress: u16,
}

fn binary(ground: &Ground) -> PathBuf {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let package = format!("restate/node_modules/@restatedev/restate-server-linux-{machine}/bin/restate-server");
    ground.installed.join(package)
}

pub(super) async fn version(ground: &Ground, tools: &Tools) -> Result<String> {
    installed(&binary(ground))?;
    let said = tools.tool(Command::new(binary(ground)).arg("--version")).await?;
    Ok(said.trim().to_owned())
}

pub(super) async fn start(ground: &Ground, members: &mut Members) -> Result<Three> {
    let ports = ports::of_members::<3>()?;
    let all = ports.map(|[nodes, ..]| format!("\"http://127.0.0.1:{nodes}/\"")).join(", ");
    for (name, ports) in ["a", "b", "c"].into_iter().zip(ports) {
        let directory = ground.member(name)?;
        let file = directory.join("restate.toml");
        std::fs::write(&file, configuration(name, ports, &all, &directory))?;
        let mut command = Command::new(binary(ground));
        members.start(name, command.arg("--no-logo").arg("--config-file").arg(&file), &directory)?;
    }
    let three = Three { ingress: ports[0][1] };
    let probe = || async {
        let mut tasks = JoinSet::new();
        let mut connection = three.connect(&mut tasks).await?;
        resolve(&mut connection, Bytes::new()).await
    };
    until_ready(members, probe).await?;
    Ok(three)
}

fn configuration(name: &str, [nodes, ingress, admin]: [u16; 3], all: &str, directory: &Path) -> String {
    let address =
        |port| format!("bind-address = \"127.0.0.1:{port}\"\nadvertised-address = \"http://127.0.0.1:{port}/\"\n");
    format!(
        "cluster-name = \"bench\"\nnode-name = \"{name}\"\nauto-provision = {}\ndefault-replication = 2\n\
         listen-mode = \"tcp\"\ndisable-telemetry = true\nbase-dir = {directory:?}\n{}\
         roles = [\"http-ingress\", \"admin\", \"worker\", \"log-server\", \"metadata-server\"]\n\
         [metadata-client]\ntype = \"replicated\"\naddresses = [{all}]\n[ingress]\n{}[admin]\n{}",
        name == "a",
        address(nodes),
        address(ingress),
        address(admin),
    )
}

impl Three {
    async fn connect(&self, tasks: &mut JoinSet<()>) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(("127.0.0.1", self.ingress)).await.context("connecting")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("HTTP")?;
        tasks.spawn(async move {
            // Whoever sends on it is told how it ended.
            let _ended = connection.await;
        });
        Ok(sender)
    }
}

async fn resolve(connection: &mut SendRequest<Full<Bytes>>, payload: Bytes) -> Result<()> {
    let request = Request::post(AWAKEABLE).header(HOST, "127.0.0.1").header(CONTENT_TYPE, "application/octet-stream");
    let request = request.body(Full::new(payload)).context("a request")?;
    connection.ready().await.context("the connection")?;
    let answer = timeout(ANSWER, connection.send_request(request)).await.context("no answer")??;
    let status = answer.status();
    let body = timeout(ANSWER, answer.into_body().collect()).await.context("half an answer")??.to_bytes();
    if status != StatusCode::ACCEPTED {
        bail!("the ingress said {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

impl Cluster for Three {
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let mut tasks = JoinSet::new();
            let mut connections = Vec::with_capacity(load.in_flight);
            for _ in 0..load.in_flight {
                connections.push(self.connect(&mut tasks).await?);
            }
            append(Writer(Pool::new(connections)), load).await
        })
    }
}

struct Writer(Pool<SendRequest<Full<Bytes>>>);

struct Sent {
    pool: Pool<SendRequest<Full<Bytes>>>,
    connection: SendRequest<Full<Bytes>>,
    payload: Bytes,
}

impl Appends for Writer {
    type Sent = Sent;
    const ORDER: Order = Order::Any;

    async fn send(&mut self, payload: Bytes) -> Result<Sent> {
        Ok(Sent { pool: self.0.clone(), connection: self.0.take()?, payload })
    }

    async fn outcome(mut sent: Sent) -> Result<()> {
        resolve(&mut sent.connection, sent.payload).await?;
        sent.pool.give_back(sent.connection);
        Ok(())
    }
}
