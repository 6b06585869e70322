//! A client that only wants to work, while others do not.

use bifrost::{Appender, Bifrost, Log, LogOptions, ReadEvent, ReadOptions, TailKind};
use bifrost_node::local_cluster::LocalCluster;
use bifrost_types::Lsn;
use futures_util::StreamExt;

use super::raw::soon;

/// One log, and how many records were acknowledged.
#[derive(Debug)]
pub struct Honest {
    pub bifrost: Bifrost,
    pub log: Log,
    appender: Appender,
    next: u64,
}

impl Honest {
    pub async fn new(cluster: &LocalCluster, name: &str) -> Self {
        let bifrost = soon(cluster.connect()).await.expect("a cluster that is well");
        let log = soon(bifrost.create_log(name, LogOptions::default())).await.expect("all nodes are there");
        let appender = log.appender();
        Self { bifrost, log, appender, next: 1 }
    }

    /// Appends, asks for the tail, and reads what it appended.
    pub async fn goes_on(&mut self) {
        let payload = format!("record {}", self.next);
        let lsn = soon(self.appender.append(payload.clone())).await.expect("appends go on");
        assert_eq!(lsn.get(), self.next, "nobody else appends here");
        self.next += 1;
        let tail = soon(self.log.find_tail(TailKind::Linearizable)).await.expect("the tail is found");
        assert_eq!(tail.lsn.get(), self.next);
        let options = ReadOptions { from: lsn, until: Lsn::new(self.next), ..ReadOptions::default() };
        let mut reader = self.log.read(options);
        loop {
            match soon(reader.next()).await.expect("the record is there").expect("the log is well") {
                ReadEvent::Record(record) => {
                    assert_eq!(record.payload, payload);
                    return;
                }
                ReadEvent::CaughtUp { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }

    pub async fn shutdown(self) {
        soon(self.bifrost.shutdown()).await;
    }
}
