//! Calls of one host to all others, with faults between them.

use std::sync::Arc;

use bifrost::connect::{Connect, NodeServices};
use bifrost_types::NodeRecord;

use super::call::Line;
use super::{Faults, FaultyLogServer, FaultyNode, FaultySequencers};

/// Reaches nodes by other means, and does to the calls what [`Faults`] say.
#[derive(Debug, Clone)]
pub struct FaultyConnect {
    from: String,
    inner: Arc<dyn Connect>,
    faults: Faults,
    host_of: fn(&str) -> String,
}

impl FaultyConnect {
    /// The calls of the host `from`. Other hosts are named as their nodes are, unless [`hosts`](Self::hosts) says how.
    pub fn new(from: impl Into<String>, inner: Arc<dyn Connect>, faults: Faults) -> Self {
        Self { from: from.into(), inner, faults, host_of: str::to_owned }
    }

    /// Tells the host of a node by the node's name.
    #[must_use]
    pub fn hosts(mut self, host_of: fn(&str) -> String) -> Self {
        self.host_of = host_of;
        self
    }
}

impl Connect for FaultyConnect {
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices> {
        let present = self.inner.connect(node)?;
        let route = self.faults.route(&self.from, &(self.host_of)(&node.name));
        let services = Services { present, inner: Arc::clone(&self.inner), node: node.clone() };
        Some(NodeServices {
            log_server: Arc::new(FaultyLogServer::new(route.clone(), services.clone())),
            sequencers: Arc::new(FaultySequencers::new(route.clone(), services.clone())),
            node: Arc::new(FaultyNode::new(route, services)),
        })
    }
}

/// The services of one node, through the connection that is there or through another one.
#[derive(Debug, Clone)]
pub(super) struct Services {
    present: NodeServices,
    inner: Arc<dyn Connect>,
    node: NodeRecord,
}

impl Services {
    /// The services; `None` if no connection can be made.
    pub(super) fn get(&self, line: Line) -> Option<NodeServices> {
        match line {
            Line::Present => Some(self.present.clone()),
            Line::Fresh => self.inner.connect(&self.node),
        }
    }
}
