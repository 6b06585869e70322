//! How to reach the services of a node, in this process or through the network.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bifrost_types::{NodeId, NodeRecord};
use bifrost_wire::grpc::{ClientOptions, GrpcLogServer, GrpcNode, GrpcSequencers, connect_lazy};
use bifrost_wire::log_server::LogServer;
use bifrost_wire::node::NodeService;
use bifrost_wire::sequencer::Sequencers;
use parking_lot::Mutex;

/// The services of one life of one node.
#[derive(Debug, Clone)]
pub struct NodeServices {
    /// Its log server.
    pub log_server: Arc<dyn LogServer>,
    /// Its sequencers.
    pub sequencers: Arc<dyn Sequencers>,
    /// What it says about itself.
    pub node: Arc<dyn NodeService>,
}

/// Makes the clients of a node's services. Asked once for each new life or address of a node.
pub trait Connect: Send + Sync + fmt::Debug {
    /// The services of the node as its record says, or `None` if it cannot be reached by any means known here. Does not
    /// wait: connections are made on first use.
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices>;
}

/// Reaches nodes through the network, by the address in their record.
#[derive(Debug, Clone, Default)]
pub struct GrpcConnect {
    /// Deadlines and sizes of the connections, and the cluster that every node must belong to.
    pub options: ClientOptions,
}

impl Connect for GrpcConnect {
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices> {
        let log_server = GrpcLogServer::connect_lazy(&node.address, self.options.clone()).ok()?;
        let channel = connect_lazy(&node.address, &self.options).ok()?;
        let sequencers = GrpcSequencers::over(channel.clone(), self.options.clone());
        let node = GrpcNode::over(channel, &self.options);
        Some(NodeServices { log_server: Arc::new(log_server), sequencers: Arc::new(sequencers), node: Arc::new(node) })
    }
}

/// Reaches nodes that run in this process.
#[derive(Debug, Clone, Default)]
pub struct LocalConnect {
    nodes: Arc<Mutex<BTreeMap<NodeId, NodeServices>>>,
}

impl LocalConnect {
    /// Makes a node of this process known.
    pub fn insert(&self, node: NodeId, services: NodeServices) {
        self.nodes.lock().insert(node, services);
    }
}

impl Connect for LocalConnect {
    fn connect(&self, node: &NodeRecord) -> Option<NodeServices> {
        self.nodes.lock().get(&node.id.node).cloned()
    }
}
