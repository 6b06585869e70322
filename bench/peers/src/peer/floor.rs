//! `floor.c`: three processes, raw TCP, one write and one fdatasync for each group.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::{Cluster, Ground, READY};
use crate::cell::Outcome;
use crate::closed_loop::{Appends, Load, Order, append};
use crate::members::{Members, Tools};
use crate::ports;

pub(super) struct Three {
    leader: u16,
}

fn binary(ground: &Ground) -> PathBuf {
    ground.installed.join("floor")
}

/// Compiles it.
pub(super) async fn version(ground: &Ground, tools: &Tools) -> Result<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor.c");
    std::fs::create_dir_all(&ground.installed).context("making the directory of what is installed")?;
    let mut compiler = Command::new("cc");
    tools.tool(compiler.args(["-O2", "-o"]).arg(binary(ground)).arg(&source)).await?;
    let said = tools.tool(Command::new("cc").arg("--version")).await?;
    Ok(format!("floor.c, {}", said.lines().next().unwrap_or_default()))
}

pub(super) async fn start(ground: &Ground, members: &mut Members, mode: &str) -> Result<Three> {
    let [leader, second, third] = ports::free::<3>()?.map(|port| port.to_string());
    for (name, port) in [("b", &second), ("c", &third), ("a", &leader)] {
        let directory = ground.member(name)?;
        let mut command = Command::new(binary(ground));
        command.arg(if name == "a" { "leader" } else { "follower" }).arg(port).arg(directory.join("file")).arg(mode);
        if name == "a" {
            command.args([&second, &third]);
        }
        members.start(name, &mut command, &directory)?;
        members.said("ready", READY).await?;
    }
    Ok(Three { leader: leader.parse().context("a port")? })
}

impl Cluster for Three {
    fn append<'a>(&'a self, load: &'a Load) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async {
            let stream = TcpStream::connect(("127.0.0.1", self.leader)).await.context("connecting")?;
            stream.set_nodelay(true).context("TCP_NODELAY")?;
            append(Writer::over(stream), load).await
        })
    }
}

/// Records that wait for the task that writes them.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Mutex<BytesMut>,
    filled: Notify,
}

struct Writer {
    outbox: Arc<Outbox>,
    acknowledged: watch::Receiver<u64>,
    sent: u64,
    _tasks: JoinSet<()>,
}

impl Writer {
    fn over(stream: TcpStream) -> Self {
        let (answers, requests) = stream.into_split();
        let outbox = Arc::new(Outbox::default());
        let (tell, acknowledged) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(read(answers, tell));
        tasks.spawn(write(requests, Arc::clone(&outbox)));
        Self { outbox, acknowledged, sent: 0, _tasks: tasks }
    }
}

async fn read(mut answers: OwnedReadHalf, tell: watch::Sender<u64>) {
    // The end of the connection ends this, and `tell` with it: who waits is told so.
    while let Ok(acknowledged) = answers.read_u64_le().await {
        tell.send_replace(acknowledged);
    }
}

async fn write(mut requests: OwnedWriteHalf, outbox: Arc<Outbox>) {
    loop {
        outbox.filled.notified().await;
        let bytes = std::mem::take(&mut *outbox.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        if requests.write_all(&bytes).await.is_err() {
            // The leader has gone: the other half of the connection tells who waits.
            return;
        }
    }
}

impl Appends for Writer {
    type Sent = (watch::Receiver<u64>, u64);
    const ORDER: Order = Order::AsSent;

    async fn send(&mut self, payload: Bytes) -> Result<Self::Sent> {
        let length = u32::try_from(payload.len()).context("the record's length")?;
        {
            let mut bytes = self.outbox.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.put_u32_le(length);
            bytes.put_slice(&payload);
        }
        self.outbox.filled.notify_one();
        self.sent += 1;
        Ok((self.acknowledged.clone(), self.sent))
    }

    async fn outcome((mut acknowledged, record): Self::Sent) -> Result<()> {
        acknowledged.wait_for(|upto| *upto >= record).await.context("the leader has gone")?;
        Ok(())
    }
}
